//! rsync says whether two trees are the same.

use std::path::Path;
use std::process::Command;

use super::run::tool;

/// What rsync would change to make `there` like `here`: nothing, when they are the same.
#[track_caller]
pub fn differences(here: &Path, there: &Path) -> String {
    judge(Command::new("rsync"), here, there)
}

/// The same without names that match one of rsync's patterns, which leave the times of directories open.
#[track_caller]
pub fn differences_without(excluded: &[&str], here: &Path, there: &Path) -> String {
    let mut rsync = Command::new("rsync");
    rsync.args(
        excluded
            .iter()
            .map(|pattern| format!("--exclude={pattern}")),
    );

    let found = judge(rsync, here, there);
    found
        .lines()
        .filter(|line| !line.starts_with(".d..t......"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn judge(mut rsync: Command, here: &Path, there: &Path) -> String {
    let slash = |path: &Path| {
        let mut path = path.as_os_str().to_os_string();
        path.push("/");
        path
    };

    tool(
        rsync
            .args(["-n", "-i", "-rlptgoDHXc", "--delete"])
            .arg(slash(here))
            .arg(slash(there)),
    )
}

/// Fails, with the difference, unless the trees are the same.
#[track_caller]
pub fn same(here: &Path, there: &Path) {
    hold(&differences(here, there), here, there);
}

/// The same as [`same`], with the mounts that the process `pid` sees.
#[track_caller]
pub fn same_within(pid: u32, here: &Path, there: &Path) {
    let mut rsync = Command::new("nsenter");
    rsync.args(["-t", &pid.to_string(), "-m", "rsync"]);
    hold(&judge(rsync, here, there), here, there);
}

#[track_caller]
fn hold(differences: &str, here: &Path, there: &Path) {
    assert!(
        differences.is_empty(),
        "{} is not as {}:\n{differences}",
        there.display(),
        here.display()
    );
}
