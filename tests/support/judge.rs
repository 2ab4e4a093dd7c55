//! rsync says whether two trees are the same.

use std::path::Path;
use std::process::Command;

use super::run::tool;

/// What rsync would change to make `there` like `here`: nothing, when they are the same.
#[track_caller]
pub fn differences(here: &Path, there: &Path) -> String {
    let slash = |path: &Path| {
        let mut path = path.as_os_str().to_os_string();
        path.push("/");
        path
    };
    tool(Command::new("rsync").args(["-n", "-i", "-rlptgoDHXc", "--delete"]).arg(slash(here)).arg(slash(there)))
}

/// Fails, with the difference, unless the trees are the same.
#[track_caller]
pub fn same(here: &Path, there: &Path) {
    let differences = differences(here, there);
    assert!(differences.is_empty(), "{} is not as {}:\n{differences}", there.display(), here.display());
}
