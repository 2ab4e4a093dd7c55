//! Comparison of trees by rsync.

use std::path::Path;
use std::process::Command;

use super::run::tool;

/// Returns the changes by which rsync would turn `there` into `here`; empty for equal trees.
#[track_caller]
pub fn differences(here: &Path, there: &Path) -> String {
    judge(Command::new("rsync"), here, there)
}

/// Like [`differences`], without names that match an rsync pattern in `excluded`; the times of
/// directories are not compared.
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

/// Fails with the differences unless the trees are equal.
#[track_caller]
pub fn same(here: &Path, there: &Path) {
    hold(&differences(here, there), here, there);
}

/// Like [`same`], with the mounts of process `pid`.
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
