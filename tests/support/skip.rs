//! Tests that cannot run here: each says why, and tests/skips.rs counts them at the end of a run.

use std::io::Write;
use std::path::PathBuf;

/// File of the skips, beside the programs of the tests.
pub const SKIPS: &str = "skipped-tests";

/// Says why this test, or a part of it, cannot run here. With `MAKUO_TEST_REQUIRE_ALL=1` that is a
/// failure.
#[track_caller]
pub fn skipped(why: impl std::fmt::Display) {
    let required = std::env::var_os("MAKUO_TEST_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(
        !required,
        "skipped, and MAKUO_TEST_REQUIRE_ALL is set: {why}"
    );
    println!("skipped: {why}");

    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("{}\t{test}\t{why}\n", run()).replace(['\r'], "");
    let Some(path) = skips() else { return };
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path);
    // The count is for people; a directory that cannot be written fails no test.
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}

/// Path of the file.
pub fn skips() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.join(SKIPS))
}

/// Number of this test run: the process that started this program and all others of the run.
pub fn run() -> u32 {
    std::os::unix::process::parent_id()
}
