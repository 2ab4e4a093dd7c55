//! Flags that bind even root (`chattr +i` and `+a`). A release that would change a flagged path is
//! refused before any transfer, and a flagged leftover beside the tree does not block later
//! releases.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::{Thing, World, file, look};
use crate::error::Kind;
use crate::manifest::rules::PathFilter;

/// A flag that is cleared when the test ends, even by a panic.
struct Flag(PathBuf);

impl Flag {
    fn set(path: &Path, flag: &str) -> Option<Self> {
        let set = Command::new("chattr")
            .arg(format!("+{flag}"))
            .arg(path)
            .output();

        if !set.is_ok_and(|out| out.status.success()) {
            crate::skip::skipped("no right or no tools to set flags here");
            return None;
        }

        Some(Self(path.to_path_buf()))
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-ia").arg(&self.0).output();
    }
}

fn tree() -> [(&'static str, Thing); 5] {
    [
        ("d", Thing::Dir(0o755)),
        ("d/changes", file("old")),
        ("d/goes", file("goes")),
        ("stays", file("stays")),
        ("up", Thing::Dir(0o755)),
    ]
}

fn world(swap: bool) -> World {
    let new = [
        ("d", Thing::Dir(0o755)),
        ("d/changes", file("new")),
        ("d/new", file("new")),
        ("stays", file("stays")),
    ];
    let mut world = World::new(&tree(), &new).swapping(swap);
    world.protect = PathFilter::at_top(&["/up/"]);
    world
}

#[test]
fn what_is_immutable_or_append_only_is_refused_by_name_before_anything_is_sent() {
    for swap in [false, true] {
        for (path, flag) in [
            ("d/changes", "i"),
            ("d/changes", "a"),
            ("d/goes", "i"),
            ("d", "i"),
            ("d", "a"),
        ] {
            let world = world(swap);
            let Some(_flag) = Flag::set(&world.www().join(path), flag) else {
                return;
            };
            let before = look(&world.www());
            let refused = world.begin(&world.open(), 1).map(drop).unwrap_err();
            assert_eq!(refused.kind(), Kind::Refused);
            let said = if flag == "i" {
                "is immutable, and"
            } else {
                "is append-only, and"
            };
            assert!(
                refused.to_string().contains(&format!("/{path} {said}")),
                "{refused}"
            );
            assert!(refused.hint_text().unwrap().contains("chattr"));
            assert_eq!(look(&world.www()), before);
        }
    }
}

#[test]
fn what_an_exchange_cannot_take_along_is_refused_before_the_commit_and_is_fine_in_place() {
    for path in ["stays", "up"] {
        let world = world(true);
        let Some(flag) = Flag::set(&world.www().join(path), "i") else {
            return;
        };
        let refused = world.stage(&world.open(), 1).map(drop).unwrap_err();
        assert!(
            refused.to_string().contains(&format!("/{path}")),
            "{refused}"
        );
        assert!(
            refused.hint_text().unwrap().contains("in-place"),
            "{refused:?}"
        );
        drop(flag);
        world.deploy(&world.open(), 2).unwrap();

        let world = self::world(false);
        let Some(_flag) = Flag::set(&world.www().join(path), "i") else {
            return;
        };
        world.deploy(&world.open(), 1).unwrap();
    }
}

#[test]
fn what_cannot_be_removed_is_put_aside_and_new_releases_go_on() {
    let world = world(true);
    let tree = world.open();
    world.deploy(&tree, 1).unwrap();
    let old = tree
        .state()
        .undo_path(crate::id::Serial(1))
        .join("tree/d/goes");

    let Some(flag) = Flag::set(&old, "i") else {
        return;
    };

    let trash = tree.state().path().join("trash");
    let mut tree = Some(tree);
    for serial in 2..6u64 {
        std::fs::write(world.source().join("d/changes"), serial.to_string()).unwrap();
        let open = tree.take().unwrap_or_else(|| world.open());
        world.deploy(&open, serial).unwrap();
        open.forget_undo().unwrap();
        assert_eq!(std::fs::read_dir(&trash).unwrap().count(), 1);
        let undo = open.state().path().join("undo");
        assert_eq!(std::fs::read_dir(undo).unwrap().count(), 0);
        tree = (serial % 2 == 0).then_some(open);
    }

    let kept = std::fs::read_dir(&trash)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("tree/d/goes");

    drop((tree, flag));
    let _ = Command::new("chattr").arg("-i").arg(&kept).output();
    world.open();

    assert_eq!(std::fs::read_dir(&trash).unwrap().count(), 0);
}
