//! Power cuts: at every step of a commit, the disk is copied without unsynced data and opened
//! again.
//!
//! The disk is an image file with ext4, mounted by a loop device. Unsynced data is not in the
//! image, so a copy equals the disk after a power failure. The image may include pages from the
//! kernel's own writeback, every few seconds, like a real disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::crash::{new, old};
use super::world::{World, look, make, scratch, set_top};
use crate::tree::lifecycle::Recovery;

/// Space for ext4, its journal and the two trees.
const SIZE: u64 = 16 << 20;

fn run(program: &str, args: &[&std::ffi::OsStr]) -> bool {
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|o| o.status.success())
}

/// Like [`run`], with retries when another process takes the loop device first or holds an open
/// file during a fork.
fn insist(program: &str, args: &[&std::ffi::OsStr]) -> bool {
    (0..TRIES).any(|nth| {
        std::thread::sleep(PAUSE * nth.min(1));
        run(program, args)
    })
}

const TRIES: u32 = 100;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// An image, mounted until dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(image: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = insist(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()],
        );
        mounted.then(|| Self {
            at: at.to_path_buf(),
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        insist("umount", &[self.at.as_ref()]);
    }
}

/// Makes a directory for images, and an image with the old tree.
fn image() -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = scratch();
    let image = dir.path().join("first");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(SIZE)
        .unwrap();
    let made = run(
        "mkfs.ext4",
        &[
            "-q".as_ref(),
            "-F".as_ref(),
            "-I".as_ref(),
            "256".as_ref(),
            image.as_ref(),
        ],
    );

    let disk = made
        .then(|| Disk::mount(&image, &dir.path().join("now")))
        .flatten();
    let Some(disk) = disk else {
        crate::skip::skipped("no right or no tools to make and mount an ext4");
        return None;
    };

    make(&disk.at.join("www"), &old());
    set_top(&disk.at.join("www"), 0o755, 900_000_001);
    drop(disk);

    Some((dir, image))
}

/// Copies an image to a new file. The loop device of the last cut may still hold the old file: a
/// new mount would show old pages.
fn copy_to_new(from: &Path, to: &Path) {
    let _ = std::fs::remove_file(to);
    std::fs::copy(from, to).unwrap();
}

/// Cuts the power in the middle of `work` on a copy of `first`. Returns the completion of the work,
/// the result of the recovery, and the tree. A release without a recorded serial must leave no
/// trace, since the serial would be accepted again.
fn cut(
    dir: &Path,
    first: &Path,
    world: &World,
    work: impl FnOnce() -> bool,
) -> (bool, Recovery, std::collections::BTreeMap<String, String>) {
    let now = dir.join("image");
    let failed = dir.join("cut");
    copy_to_new(first, &now);
    let disk = Disk::mount(&now, &dir.join("now")).expect("it was mounted before");
    let done = work();
    copy_to_new(&now, &failed);
    drop(disk);
    let _disk = Disk::mount(&failed, &dir.join("now")).expect("ext4 mends itself");

    let tree = world.open();
    let recovery = tree.recovery();
    let found = look(&world.www());
    if done || recovery != Recovery::Nothing || found == look(&world.source()) {
        assert_eq!(
            tree.highest_serial().unwrap(),
            Some(crate::id::Serial(5)),
            "{recovery:?}"
        );
    }

    (done, recovery, found)
}

fn commits(swap: bool, step: usize) {
    let Some((dir, first)) = image() else { return };
    let world = World::new(&[], &new())
        .topped(0o555)
        .swapping(swap)
        .hosted(&dir.path().join("now"));
    let before = {
        let _disk = Disk::mount(&first, &dir.path().join("now")).unwrap();
        look(&world.www())
    };

    let wanted = look(&world.source());
    let mut olds = 0;
    let mut news = 0;
    for after in (0..).step_by(step) {
        let (done, recovery, found) = cut(dir.path(), &first, &world, || {
            let tree = world.open_crashing(Some(after)).unwrap();
            let (stage, release) = world.stage(&tree, 5).unwrap();
            stage.commit(&release, b"signature").is_ok()
        });
        match found == wanted {
            true => news += 1,
            false => {
                assert_eq!(found, before, "cut at {after}, {recovery:?}");
                assert!(
                    !done && recovery != Recovery::Completed(crate::id::Serial(5)),
                    "cut at {after}: {recovery:?}"
                );
                olds += 1;
            }
        }
        if done {
            break;
        }
    }

    assert!(
        olds > 0 && news > 3,
        "{olds} times the old tree, {news} times the new one"
    );
}

#[test]
fn the_power_fails_anywhere_in_a_commit_in_place() {
    commits(false, 4);
}

#[test]
fn the_power_fails_anywhere_in_an_exchange() {
    commits(true, 1);
}

#[test]
fn the_power_fails_anywhere_while_a_commit_is_taken_back() {
    for (swap, step) in [(true, 1), (false, 7)] {
        let Some((dir, first)) = image() else { return };
        let world = World::new(&[], &new())
            .topped(0o555)
            .swapping(swap)
            .hosted(&dir.path().join("now"));
        let before = {
            let _disk = Disk::mount(&first, &dir.path().join("now")).unwrap();
            let before = look(&world.www());
            world.deploy(&world.open(), 5).unwrap();
            before
        };
        let wanted = look(&world.source());
        for after in (0..).step_by(step) {
            let (done, recovery, found) = cut(dir.path(), &first, &world, || {
                let tree = world.open_crashing(Some(after)).unwrap();
                tree.revert().is_ok()
            });
            assert!(
                found == before || (!done && found == wanted),
                "cut at {after}, {recovery:?}: {found:#?}"
            );
            if done {
                break;
            }
        }
    }
}
