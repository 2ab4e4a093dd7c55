//! Metadata changes on inodes with further hard links outside the tree: the other names keep their
//! metadata.

use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::world::{Thing, World, file, is_root, look};
use crate::manifest::rules::PathFilter;

fn at(path: &Path) -> (u64, u32, u32, i64, u64) {
    let now = std::fs::symlink_metadata(path).unwrap();
    (now.ino(), now.mode(), now.uid(), now.mtime(), now.size())
}

#[test]
fn protected_excluded_and_outside_names_keep_their_file() {
    for (swap, exchanging) in [(false, true), (false, false), (true, true)] {
        let old = [
            ("a", Thing::File(b"same".to_vec(), 0o600)),
            ("c", Thing::Hard("a")),
            ("keep", Thing::Dir(0o755)),
            ("keep/b", Thing::Hard("a")),
            ("x.tmp", Thing::Hard("a")),
        ];
        let new = [
            ("a", Thing::File(b"same".to_vec(), 0o644)),
            ("c", Thing::Hard("a")),
        ];
        let mut world = World::new(&old, &new).swapping(swap).exchanging(exchanging);
        world.protect = PathFilter::at_top(&["/keep/"]);
        world.rules.excludes = vec![crate::manifest::rules::Exclude {
            base: None,
            pattern: "*.tmp".into(),
        }];
        let www = world.www();
        let outside = www.with_file_name("snapshot");
        std::fs::hard_link(www.join("a"), &outside).unwrap();
        if is_root() {
            std::os::unix::fs::chown(world.source().join("a"), Some(1234), None).unwrap();
        }
        let others = || {
            [
                at(&outside),
                at(&www.join("keep/b")),
                at(&www.join("x.tmp")),
            ]
        };
        let before = others();
        let tree = world.open();

        world.deploy(&tree, 1).unwrap();
        assert_eq!(others(), before, "swap {swap}");
        let a = std::fs::metadata(www.join("a")).unwrap();
        let c = std::fs::metadata(www.join("c")).unwrap();
        assert_eq!(
            (a.ino(), a.mode() & 0o7777),
            (c.ino(), 0o644),
            "swap {swap}"
        );
        assert_eq!(std::fs::read(www.join("c")).unwrap(), b"same");

        tree.revert().unwrap();
        assert_eq!(others(), before, "swap {swap}");
        assert_eq!(at(&www.join("a")), before[0], "swap {swap}");
        assert_eq!(at(&www.join("c")), before[0], "swap {swap}");
    }
}

#[test]
fn rights_and_owners_are_given_to_a_fresh_file_only() {
    for (old_mode, new_mode, uid) in [
        (0o755, 0o4755, None),
        (0o664, 0o755, None),
        (0o644, 0o644, Some(1234)),
    ] {
        if uid.is_some() && !is_root() {
            crate::skip::skipped("not root");
            continue;
        }
        for swap in [false, true] {
            let tool = |mode| [("tool", Thing::File(b"right".to_vec(), mode))];
            let world = World::new(&tool(old_mode), &tool(new_mode)).swapping(swap);
            std::os::unix::fs::chown(world.source().join("tool"), uid, None).unwrap();
            std::fs::set_permissions(
                world.source().join("tool"),
                std::fs::Permissions::from_mode(new_mode),
            )
            .unwrap();
            let mut held = std::fs::File::options()
                .write(true)
                .open(world.www().join("tool"))
                .unwrap();

            let (stage, release) = world.stage(&world.open(), 1).unwrap();
            assert_eq!(stage.plan().summary.write_bytes, 5, "the copy is counted");
            assert!(stage.plan().wants.is_empty(), "and comes from here");
            stage.commit(&release, b"").unwrap();
            held.rewind().unwrap();
            held.write_all(b"wrong").unwrap();
            assert_eq!(std::fs::read(world.www().join("tool")).unwrap(), b"right");
            assert_eq!(
                look(&world.www()),
                look(&world.source()),
                "{old_mode:o} {new_mode:o}, swap {swap}"
            );
        }
    }
}

#[test]
fn times_and_fewer_rights_are_set_in_place() {
    let old = [
        ("a", Thing::File(b"a".to_vec(), 0o755)),
        ("long-name", file("b")),
    ];
    let new = [
        ("a", Thing::File(b"a".to_vec(), 0o700)),
        ("long-name", file("b")),
    ];

    let world = World::new(&old, &new);
    super::world::set_top(&world.source().join("long-name"), 0o644, 77);
    let inodes =
        || ["a", "long-name"].map(|name| std::fs::metadata(world.www().join(name)).unwrap().ino());
    let before = inodes();
    world.deploy(&world.open(), 1).unwrap();
    assert_eq!(inodes(), before);

    assert_eq!(look(&world.www()), look(&world.source()));
}

#[test]
fn a_file_that_changes_after_it_was_copied_is_refused() {
    let tool = |mode| [("tool", Thing::File(b"same".to_vec(), mode))];
    let world = World::new(&tool(0o755), &tool(0o4755));
    let tree = world.open();
    let (stage, release) = world.stage(&tree, 1).unwrap();
    std::fs::write(world.www().join("tool"), "theirs").unwrap();
    let e = stage.commit(&release, b"").unwrap_err();
    assert!(e.to_string().contains("tool changed"), "{e}");

    assert_eq!(std::fs::read(world.www().join("tool")).unwrap(), b"theirs");
}

/// The next tree of the first attempt holds hard links to the live tree's files, so removing them
/// changes the files.
#[test]
fn a_staging_that_is_tried_again_takes_its_own_traces_for_nobodys() {
    for swap in [false, true] {
        let tool = |mode| {
            [
                ("tool", Thing::File(b"same".to_vec(), mode)),
                ("x.tmp", Thing::Hard("tool")),
            ]
        };
        let mut world = World::new(&tool(0o755), &tool(0o4755)).swapping(swap);
        world.rules.excludes = vec![crate::manifest::rules::Exclude {
            base: None,
            pattern: "*.tmp".into(),
        }];
        std::fs::remove_file(world.source().join("x.tmp")).unwrap();
        let tree = world.open();
        let (first, _) = world.stage(&tree, 1).unwrap();
        first.abort();
        let (stage, release) = world.stage(&tree, 1).unwrap();
        stage.commit(&release, b"").unwrap();
        let mode = |name: &str| std::fs::metadata(world.www().join(name)).unwrap().mode() & 0o7777;
        assert_eq!(
            (mode("tool"), mode("x.tmp")),
            (0o4755, 0o755),
            "swap {swap}"
        );
    }
}
