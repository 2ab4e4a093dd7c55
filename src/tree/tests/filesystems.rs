//! Trees on particular filesystems: clones on btrfs, directory times on XFS.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::world::{Thing, World, file, look, make, scratch, set_top};

/// A filesystem image, mounted until dropped.
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
    // The smallest XFS filesystem has 300 MiB.
    std::fs::File::create(&image)
        .unwrap()
        .set_len(320 << 20)
        .unwrap();

    std::fs::create_dir_all(at).unwrap();
    let mut make = Command::new(format!("mkfs.{kind}"));
    if kind == "ext4" {
        make.args(["-O", "project,quota", "-I", "256"]);
    }

    let made = run(make.arg("-q").arg(&image))
        && run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(at));

    if !made {
        crate::skip::skipped(format!("no right or no tools to make and mount {kind}"));
    }

    made.then_some(Disk(at))
}

/// Returns the position of a file's first extent as printed by filefrag. Files that share the
/// extent have the same position.
fn extent(path: &Path) -> Option<String> {
    std::fs::File::open(path).unwrap().sync_all().unwrap();
    let out = Command::new("filefrag").arg("-v").arg(path).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines()
        .find(|l| l.trim_start().starts_with("0:"))
        .and_then(|l| l.split(':').nth(2))
        .map(str::to_owned)
}

#[test]
fn a_file_that_moved_is_cloned_and_one_that_changed_meanwhile_is_refused() {
    let dir = scratch();
    let at = dir.path().join("btrfs");
    let Some(_disk) = mounted("btrfs", dir.path(), &at) else {
        return;
    };

    let mut rng = fastrand::Rng::with_seed(5);
    let text: String = std::iter::repeat_with(|| rng.alphanumeric())
        .take(3 << 20)
        .collect();
    let old = [("a", file(&text)), ("b", file("small"))];
    make(&at.join("www"), &old);
    let world = World::new(&old, &[("moved", file(&text)), ("b", file("small"))]).hosted(&at);

    let tree = world.open();
    let before = extent(&world.www().join("a"));
    let (stage, release) = world.stage(&tree, 1).unwrap();
    assert!(stage.plan().wants.is_empty(), "all of it is here");

    if let Some(before) = before {
        let slots: Vec<_> = std::fs::read_dir(tree.state().path().join("stage"))
            .unwrap()
            .flatten()
            .collect();
        let large = slots
            .iter()
            .find(|s| s.metadata().is_ok_and(|m| m.size() == text.len() as u64))
            .unwrap();
        assert_eq!(
            extent(&large.path()),
            Some(before),
            "the clone shares the extent of the original"
        );
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

    assert!(
        refused.to_string().contains("cannot read") && refused.hint_text().is_some(),
        "{refused}"
    );
}

/// XFS updates the time of a directory when an exchange changes its parent.
#[test]
fn an_exchange_on_xfs_leaves_no_drift() {
    let dir = scratch();
    let at = dir.path().join("xfs");
    let Some(_disk) = mounted("xfs", dir.path(), &at) else {
        return;
    };

    make(&at.join("www"), &[("f", file("0"))]);
    let things = [
        ("f", file("1")),
        ("d", Thing::Dir(0o755)),
        ("d/g", file("1")),
    ];

    let world = World::new(&[("f", file("0"))], &things)
        .hosted(&at)
        .swapping(true);
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

/// Returns the project and the flags of a path as printed by lsattr.
fn marks(path: &Path) -> String {
    let out = Command::new("lsattr")
        .args(["-p", "-d"])
        .arg(path)
        .output()
        .expect("it ran before");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (project, flags) = text.trim_start().split_once(' ').unwrap_or_default();
    let flags = flags.split(' ').next().unwrap_or_default();

    format!(
        "{project} {}",
        flags
            .chars()
            .filter(|flag| "ASPd".contains(*flag))
            .collect::<String>()
    )
}

fn chattr(path: &Path, words: &[&str]) -> bool {
    run(Command::new("chattr").args(words).arg(path))
}

/// The kernel sets the attributes that a new file inherits. The reference is a copy of the old tree
/// with the same changes made by hand.
#[test]
fn what_is_released_has_the_project_and_the_flags_of_its_place() {
    for (kind, swap) in [
        ("xfs", false),
        ("xfs", true),
        ("ext4", false),
        ("ext4", true),
    ] {
        let dir = scratch();
        let at = dir.path().join(kind);
        let Some(_disk) = mounted(kind, dir.path(), &at) else {
            return;
        };
        // The stage inherits neither the project nor the flags.
        let projects = chattr(&at, &["-p", "7"]) && chattr(&at, &["+P"]);
        if !projects {
            println!("no projects on {kind} here: flags alone");
        }
        if !chattr(&at, &["+A"]) {
            return crate::skip::skipped("no tool or no right to set flags");
        }
        let old = [
            ("d", Thing::Dir(0o755)),
            ("d/old", file("old")),
            ("d/goes", file("goes")),
            ("n", Thing::Dir(0o755)),
            ("n/kept", file("kept")),
            ("n/fixed", file("fixed")),
            ("n/stays", file("stays")),
            ("other", file("other")),
        ];
        let things = [
            ("d", Thing::Dir(0o755)),
            ("d/link", Thing::Link("old")),
            ("d/new", file("new")),
            ("d/old", file("newer")),
            ("d/pipe", Thing::Pipe),
            ("d/sub", Thing::Dir(0o755)),
            ("d/sub/f", file("f")),
            ("n", Thing::Dir(0o755)),
            ("n/fixed", file("more")),
            ("n/kept", file("another")),
            ("n/new", file("new")),
            ("n/stays", file("stays")),
            ("n/sub", Thing::Dir(0o755)),
            ("n/sub/f", file("f")),
            ("other", file("another")),
        ];
        let paths = [at.join("www"), at.join("judge/www")];
        for www in &paths {
            make(www, &old);
            for (path, words) in [
                ("", &["-P"][..]),
                ("", &["-A"]),
                ("d", &["-p", "42"]),
                ("d", &["+P"]),
                ("d/old", &["-p", "42"]),
                ("d/goes", &["-p", "42"]),
                ("n", &["-P"]),
                ("n", &["-A"]),
                ("n", &["+d"]),
                ("n/fixed", &["-A"]),
                ("n/kept", &["-p", "9"]),
                ("n/kept", &["+A"]),
            ] {
                let of_project = words[0].eq_ignore_ascii_case("-p") || words[0] == "+P";
                assert!(
                    of_project && !projects || chattr(&www.join(path), words),
                    "{path} {words:?}"
                );
            }
        }
        // The same changes by hand.
        let judge = &paths[1];
        std::fs::remove_file(judge.join("d/goes")).unwrap();
        make_in(judge, &things);

        let world = World::new(&[], &things).hosted(&at).swapping(swap);
        let before = look(&world.www());
        let all = [
            "", "d", "d/old", "d/goes", "n", "n/kept", "n/fixed", "n/stays", "other",
        ];
        let had: Vec<String> = all.iter().map(|path| marks(&paths[0].join(path))).collect();
        let tree = world.open();
        world.deploy(&tree, 1).unwrap();
        assert_eq!(
            look(&world.www()),
            look(&world.source()),
            "{kind}, swap {swap}"
        );
        let told = |www: &Path| {
            let links = ["d/link", "d/pipe"];
            let paths = things
                .iter()
                .map(|(path, _)| *path)
                .filter(|path| !links.contains(path))
                .chain([""]);
            paths
                .map(|path| format!("{path}: {}", marks(&www.join(path))))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&paths[0]), told(judge), "{kind}, swap {swap}");
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), before, "{kind}, swap {swap}");
        let has: Vec<String> = all.iter().map(|path| marks(&paths[0].join(path))).collect();
        assert_eq!(has, had, "{kind}, swap {swap}");
        world.deploy(&tree, 2).unwrap();
        tree.forget_undo().unwrap();
        assert_eq!(
            told(&paths[0]),
            told(judge),
            "{kind}, swap {swap}, confirmed"
        );
    }
}

/// Creates missing files and overwrites the content of existing ones.
fn make_in(top: &Path, things: &[(&str, Thing)]) {
    for (path, thing) in things {
        let at = top.join(path);
        match thing {
            Thing::Dir(_) if !at.exists() => std::fs::create_dir(&at).unwrap(),
            Thing::File(bytes, _) => std::fs::write(&at, bytes).unwrap(),
            Thing::Link(target) => std::os::unix::fs::symlink(target, &at).unwrap(),
            Thing::Pipe => nix::unistd::mkfifo(&at, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => {}
        }
    }
}
