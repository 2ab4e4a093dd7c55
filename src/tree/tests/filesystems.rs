//! Trees on filesystems of their own kind: clones on btrfs, times of directories on XFS.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::world::{Thing, World, file, look, make, scratch, set_top};

/// A filesystem in a file, mounted until this is dropped.
pub(super) struct Disk<'a>(&'a Path);

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|out| out.status.success())
}

pub(super) fn mounted<'a>(kind: &str, dir: &Path, at: &'a Path) -> Option<Disk<'a>> {
    let image = dir.join("image");
    // The smallest XFS has 300 MiB.
    std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
    std::fs::create_dir_all(at).unwrap();
    let made = run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image))
        && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at));
    if !made {
        println!("skipped: no right or no tools to make and mount {kind}");
    }
    made.then_some(Disk(at))
}

/// Where the first extent of a file is, as filefrag tells it; equal for files that share it.
fn extent(path: &Path) -> Option<String> {
    std::fs::File::open(path).unwrap().sync_all().unwrap();
    let out = Command::new("filefrag").arg("-v").arg(path).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find(|l| l.trim_start().starts_with("0:")).and_then(|l| l.split(':').nth(2)).map(str::to_owned)
}

#[test]
fn a_file_that_moved_is_cloned_and_one_that_changed_meanwhile_is_refused() {
    let dir = scratch();
    let at = dir.path().join("btrfs");
    let Some(_disk) = mounted("btrfs", dir.path(), &at) else { return };
    let mut rng = fastrand::Rng::with_seed(5);
    let text: String = std::iter::repeat_with(|| rng.alphanumeric()).take(3 << 20).collect();
    let old = [("a", file(&text)), ("b", file("small"))];
    make(&at.join("www"), &old);
    let world = World::new(&old, &[("moved", file(&text)), ("b", file("small"))]).hosted(&at);
    let tree = world.open();
    let before = extent(&world.www().join("a"));
    let (stage, release) = world.stage(&tree, 1).unwrap();
    assert!(stage.wants().is_empty(), "all of it is here");
    if let Some(before) = before {
        let slots: Vec<_> = std::fs::read_dir(tree.state().path().join("stage")).unwrap().flatten().collect();
        let large = slots.iter().find(|s| s.metadata().is_ok_and(|m| m.size() == text.len() as u64)).unwrap();
        assert_eq!(extent(&large.path()), Some(before), "the clone shares the extent of the original");
    }
    stage.commit(&release, b"").unwrap();
    assert_eq!(look(&world.www()), look(&world.source()));

    make(&at.join("second/www"), &old);
    let world = World::new(&old, &[("moved", file(&text))]).hosted(&at.join("second"));
    let tree = world.open();
    let (stage, _, _) = world.begin(&tree, 1).unwrap();
    let mut changed = text.clone().into_bytes();
    changed[1 << 20] ^= 1;
    std::fs::write(world.www().join("a"), changed).unwrap();
    let refused = stage.finish().unwrap_err();
    assert!(refused.to_string().contains("cannot read") && refused.hint_text().is_some(), "{refused}");
}

/// XFS gives a directory another time when an exchange gives it another parent.
#[test]
fn an_exchange_on_xfs_leaves_no_drift() {
    let dir = scratch();
    let at = dir.path().join("xfs");
    let Some(_disk) = mounted("xfs", dir.path(), &at) else { return };
    make(&at.join("www"), &[("f", file("0"))]);
    let things = [("f", file("1")), ("d", Thing::Dir(0o755)), ("d/g", file("1"))];
    let world = World::new(&[("f", file("0"))], &things).hosted(&at).swapping(true);
    set_top(&world.source(), 0o750, 900_000_002);

    let tree = world.open();
    for serial in 1..=3 {
        std::fs::write(world.source().join("d/g"), serial.to_string()).unwrap();
        world.deploy(&tree, serial).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "committed");
        tree.forget_undo().unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "confirmed");
    }
    std::fs::write(world.source().join("d/g"), "taken back").unwrap();
    let before = look(&world.www());
    world.deploy(&tree, 4).unwrap();
    tree.revert().unwrap();
    assert_eq!(look(&world.www()), before);
}

/// A directory can give its project to what is made in it, and takes nothing of another project by a rename.
#[test]
fn files_are_of_the_project_of_their_directory() {
    let dir = scratch();
    let at = dir.path().join("xfs");
    let Some(_disk) = mounted("xfs", dir.path(), &at) else { return };
    let www = at.join("www");
    make(&www, &[("d", Thing::Dir(0o755)), ("d/old", file("old")), ("other", file("other"))]);
    if !run(Command::new("chattr").args(["-R", "-p", "42"]).arg(www.join("d")))
        || !run(Command::new("chattr").arg("+P").arg(www.join("d")))
    {
        return println!("skipped: no tool to set a project");
    }
    let things = [
        ("d", Thing::Dir(0o755)),
        ("d/new", file("new")),
        ("d/old", file("newer")),
        ("d/sub", Thing::Dir(0o755)),
        ("d/sub/f", file("f")),
        ("other", file("another")),
    ];
    let world = World::new(&[], &things).hosted(&at);
    let before = look(&world.www());
    let tree = world.open();
    world.deploy(&tree, 1).unwrap();
    assert_eq!(look(&world.www()), look(&world.source()));
    let project = |path: &str| {
        let out = Command::new("lsattr").args(["-p", "-d"]).arg(www.join(path)).output().unwrap();
        String::from_utf8_lossy(&out.stdout).split_whitespace().next().map(str::to_owned)
    };
    for (path, wanted) in [("d/new", "42"), ("d/old", "42"), ("d/sub", "42"), ("d/sub/f", "42"), ("other", "0")] {
        assert_eq!(project(path).as_deref(), Some(wanted), "{path}");
    }
    tree.revert().unwrap();
    assert_eq!(look(&world.www()), before);
    assert_eq!(project("d/old").as_deref(), Some("42"));
}
