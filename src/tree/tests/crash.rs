//! Crashes at every step of a commit: the tree is then all old or all new, and further commits
//! succeed.

use super::world::{Thing, World, as_nobody, file, look};
use crate::id::Serial;
use crate::tree::lifecycle::Recovery;

pub(super) fn old() -> Vec<(&'static str, Thing)> {
    vec![
        ("a-dir", Thing::Dir(0o755)),
        ("a-dir/deep", Thing::Dir(0o750)),
        ("a-dir/deep/file", file("leaves")),
        ("becomes-dir", file("a file now")),
        ("becomes-file", Thing::Dir(0o755)),
        ("becomes-file/x", file("x")),
        ("changed", file("old content")),
        ("first", file("linked")),
        ("link", Thing::Link("old-target")),
        ("second", Thing::Hard("first")),
        ("sealed", Thing::Dir(0o555)),
        ("sealed/changed", file("old")),
        ("sealed/gone", file("gone")),
        ("tool", Thing::File(b"gains a right".to_vec(), 0o755)),
        ("tool-too", Thing::Hard("tool")),
        ("touched", file("same bytes, other mode")),
        ("untouched", file("same")),
    ]
}

pub(super) fn new() -> Vec<(&'static str, Thing)> {
    vec![
        ("becomes-dir", Thing::Dir(0o555)),
        ("becomes-dir/inside", file("inside")),
        ("becomes-file", file("a file at last")),
        ("changed", file("new content")),
        ("first", file("linked anew")),
        ("link", Thing::Link("new-target")),
        ("made", Thing::Dir(0o700)),
        ("made/pipe", Thing::Pipe),
        ("second", Thing::Hard("first")),
        ("sealed", Thing::Dir(0o555)),
        ("sealed/added", file("added")),
        ("sealed/changed", file("new")),
        ("tool", Thing::File(b"gains a right".to_vec(), 0o4755)),
        ("tool-too", Thing::Hard("tool")),
        (
            "touched",
            Thing::File(b"same bytes, other mode".to_vec(), 0o600),
        ),
        ("untouched", file("same")),
    ]
}

/// Method by which a commit switches the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Path by path, with atomic exchanges.
    InPlace,
    /// Path by path, on a filesystem without atomic exchange.
    Links,
    /// Path by path, on a filesystem that cannot rename directories.
    Layers,
    /// The whole tree at once.
    Swap,
}

impl How {
    fn world(self) -> World {
        let world = World::new(&old(), &new()).topped(0o555);
        world
            .exchanging(self != How::Links)
            .moving(self != How::Layers)
            .swapping(self == How::Swap)
    }
}

#[test]
fn a_crash_anywhere_in_a_commit_leaves_all_old_or_all_new() {
    crash_everywhere(How::InPlace);
}

#[test]
fn the_same_holds_where_two_names_cannot_change_places() {
    crash_everywhere(How::Links);
}

#[test]
fn the_same_holds_where_directories_cannot_be_renamed() {
    crash_everywhere(How::Layers);
    crash_while_undoing(How::Layers);
}

#[test]
fn the_same_holds_for_whole_trees_that_change_places() {
    crash_everywhere(How::Swap);
}

#[test]
fn the_same_holds_for_an_ordinary_user_whom_read_only_directories_bind() {
    as_nobody(|| {
        for how in [How::InPlace, How::Swap] {
            crash_everywhere(how);
        }
        crash_while_undoing(How::InPlace);
    });
}

fn crash_everywhere(how: How) {
    let mut olds = 0;
    let mut news = 0;
    for after in 0.. {
        let world = how.world();
        let before = look(&world.www());
        let wanted = look(&world.source());
        let tree = world.open_crashing(Some(after)).unwrap();
        let (stage, release) = world.stage(&tree, 5).unwrap();
        assert_eq!(look(&world.www()), before, "staging changed the tree");
        let committed = stage.commit(&release, b"signature");
        drop(tree);
        if committed.is_ok() {
            assert_eq!(look(&world.www()), wanted);
            break;
        }
        let tree = world.open();
        let now = look(&world.www());
        match tree.recovery() {
            Recovery::Nothing if tree.state().current().unwrap().is_none() => {
                assert_eq!(now, before, "crash {after}");
                olds += 1;
            }
            _ => {
                assert_eq!(now, wanted, "crash {after}");
                assert_eq!(tree.current().unwrap().unwrap().release.id(), release.id());
                news += 1;
            }
        }
        world.deploy(&tree, 6).unwrap();
        assert_eq!(
            look(&world.www()),
            wanted,
            "after crash {after} and another release"
        );
        assert_eq!(tree.highest_serial().unwrap(), Some(Serial(6)));
    }

    let steps = if how == How::Swap { 6 } else { 30 };
    assert!(
        olds > 3 && news >= steps,
        "{how:?}: {olds} crashes before the journal, {news} after it"
    );
}

#[test]
fn a_release_put_again_over_drift_is_all_or_nothing_too() {
    for after in 0.. {
        let world = World::new(&[], &new()).topped(0o555);
        let tree = world.open();
        world.deploy(&tree, 5).unwrap();
        drop(tree);
        let wanted = look(&world.www());
        std::fs::write(world.www().join("changed"), "drift").unwrap();
        std::fs::remove_file(world.www().join("sealed/added")).unwrap();
        let drifted = look(&world.www());
        let tree = world.open_crashing(Some(after)).unwrap();
        let committed = world.deploy(&tree, 5).is_ok();
        drop(tree);
        let tree = world.open();
        let now = look(&world.www());
        let expected = if committed || tree.recovery() != Recovery::Nothing {
            &wanted
        } else {
            &drifted
        };
        assert!(now == *expected || now == wanted, "crash {after}: {now:#?}");
        if committed {
            break;
        }
    }
}

#[test]
fn a_crash_anywhere_in_the_recovery_is_recovered_from() {
    recover_with_crashes(false, &mut (4..60).step_by(7));
}

#[test]
fn a_crash_anywhere_in_the_recovery_of_an_exchange_is_recovered_from() {
    recover_with_crashes(true, &mut (6..13));
}

fn recover_with_crashes(swap: bool, firsts: &mut dyn Iterator<Item = i64>) {
    for first in firsts {
        for second in 0..80 {
            let world = World::new(&old(), &new()).topped(0o555).swapping(swap);
            let wanted = look(&world.source());
            let tree = world.open_crashing(Some(first)).unwrap();
            let (stage, release) = world.stage(&tree, 5).unwrap();
            let done = stage.commit(&release, b"signature").is_ok();
            drop(tree);
            let interrupted = world.open_crashing(Some(second));
            let over = done || interrupted.is_ok();
            drop(interrupted);
            let _tree = world.open();
            assert_eq!(look(&world.www()), wanted, "crashes {first} and {second}");
            if over {
                break;
            }
        }
    }
}

#[test]
fn a_crash_anywhere_while_undoing_ends_with_the_old_tree() {
    crash_while_undoing(How::InPlace);
    crash_while_undoing(How::Links);
}

fn crash_while_undoing(how: How) {
    let mut crashes = 0;
    for after in 0.. {
        let world = how.world();
        let tree = world.open_crashing(Some(after)).unwrap();
        let (stage, release) = world.stage(&tree, 5).unwrap();
        // Blocks a deletion late in the commit, so that every step has to be rolled back.
        std::fs::write(
            world.www().join("a-dir/deep/foreign"),
            "put there meanwhile",
        )
        .unwrap();
        let mut before = look(&world.www());
        let failed = stage.commit(&release, b"signature").unwrap_err();
        drop(tree);
        let tree = world.open();
        let mut now = look(&world.www());
        // Creating the file changed the time of the directory.
        for tree in [&mut before, &mut now] {
            tree.remove("a-dir/deep");
        }
        assert_eq!(now, before, "crash {after}: {failed}");
        assert!(tree.state().current().unwrap().is_none());
        crashes += 1;
        if failed.hint_text().is_some() {
            assert!(failed.to_string().contains("a-dir/deep"), "{failed}");
            break;
        }
    }

    assert!(crashes > 40, "{crashes}");
}

#[test]
fn the_last_commit_can_be_undone_and_a_crash_meanwhile_changes_nothing() {
    revert_with_crashes(false);
}

#[test]
fn a_whole_tree_can_be_exchanged_back_and_a_crash_meanwhile_changes_nothing() {
    revert_with_crashes(true);
}

fn revert_with_crashes(swap: bool) {
    for after in 0.. {
        let world = World::new(&old(), &new()).topped(0o555).swapping(swap);
        let before = look(&world.www());
        let tree = world.open();
        world.deploy(&tree, 5).unwrap();
        drop(tree);
        let tree = world.open_crashing(Some(after)).unwrap();
        let reverted = tree.revert();
        drop(tree);
        let tree = world.open();
        if reverted.is_ok() || tree.recovery() == Recovery::Undone(Serial(5)) {
            assert_eq!(look(&world.www()), before, "crash {after}");
            assert!(tree.current().unwrap().is_none() && tree.releases().unwrap().is_empty());
            assert_eq!(tree.highest_serial().unwrap(), Some(Serial(5)));
            assert!(tree.revert().is_err());
            let again = world.deploy(&tree, 5).unwrap_err();
            assert!(again.to_string().contains("not newer than 5"), "{again}");
        } else {
            assert_eq!(look(&world.www()), look(&world.source()), "crash {after}");
            assert_eq!(tree.revertible().unwrap(), Some(Serial(5)));
        }
        if reverted.is_ok() {
            world.deploy(&tree, 6).unwrap();
            assert_eq!(look(&world.www()), look(&world.source()));
            break;
        }
    }
}

#[test]
fn a_commit_that_could_not_be_undone_is_undone_by_the_running_daemon_before_anything_else() {
    let mut pending = 0;
    for after in 0.. {
        let world = World::new(&old(), &new()).topped(0o555);
        let before = look(&world.www());
        let tree = world.open_crashing(Some(after)).unwrap();
        let (stage, release) = world.stage(&tree, 5).unwrap();
        let failed = stage.commit(&release, b"signature").is_err();
        tree.crash
            .after
            .as_ref()
            .unwrap()
            .store(i64::MAX, std::sync::atomic::Ordering::SeqCst);
        if !failed {
            break;
        }
        match after % 3 {
            0 => tree.forget_undo().unwrap(),
            1 => drop(tree.revert()),
            _ => {
                if let Err(e) = world.stage(&tree, 6) {
                    assert!(e.to_string().contains("undone only now"), "{e}");
                    pending += 1;
                }
            }
        }
        assert_eq!(look(&world.www()), before, "crash {after}");
        world.deploy(&tree, 6).unwrap();
        assert_eq!(
            look(&world.www()),
            look(&world.source()),
            "after crash {after}"
        );
    }

    assert!(pending > 10, "{pending}");
}

#[test]
fn another_file_that_took_the_place_keeps_its_metadata() {
    for after in 0.. {
        let world = World::new(
            &[("f", file("same"))],
            &[("f", Thing::File(b"same".to_vec(), 0o600))],
        );
        let tree = world.open_crashing(Some(after)).unwrap();
        let (stage, release) = world.stage(&tree, 5).unwrap();
        let committed = stage.commit(&release, b"signature").is_ok();
        drop(tree);
        if committed {
            break;
        }
        // The old file remains, or the new one could get the same inode number.
        std::fs::rename(world.www().join("f"), world.www().join("moved")).unwrap();
        super::world::make(
            &world.www(),
            &[("f", Thing::File(b"other".to_vec(), 0o604))],
        );
        let other = look(&world.www())["f"].clone();
        drop(world.open());
        assert_eq!(look(&world.www())["f"], other, "crash {after}");
    }
}

/// Sets or clears the append-only flag of a directory: names may be added but not removed. Returns
/// false where the flag is not supported.
fn append_only(dir: &std::path::Path, on: bool) -> bool {
    let flag = if on { "+a" } else { "-a" };
    std::process::Command::new("chattr")
        .arg(flag)
        .arg(dir)
        .output()
        .is_ok_and(|out| out.status.success())
}

#[test]
fn what_cannot_be_undone_keeps_nothing_else_from_it_and_is_undone_later() {
    let old = [
        ("a", Thing::Dir(0o755)),
        ("a/old", file("old")),
        ("z", Thing::Dir(0o755)),
        ("z/old", file("old")),
    ];

    let new = [
        ("a", Thing::Dir(0o755)),
        ("a/new", file("new")),
        ("z", Thing::Dir(0o755)),
        ("z/new", file("new")),
    ];

    let world = World::new(&old, &new);
    let before = look(&world.www());
    let tree = world.open();
    world.deploy(&tree, 1).expect("a commit");
    let z = world.www().join("z");

    if !append_only(&z, true) {
        return crate::skip::skipped("no directory can be made append-only here");
    }

    let why = tree.revert().expect_err("z/new cannot go").to_string();
    assert!(
        why.contains("part new, part old") && why.contains("z/new"),
        "{why}"
    );

    let names = |dir: &str| {
        let entries = std::fs::read_dir(world.www().join(dir)).expect("readable");
        let mut names: Vec<_> = entries
            .map(|e| {
                e.expect("readable")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort();
        names
    };

    assert_eq!(
        (names("a"), names("z")),
        (
            vec!["old".to_string()],
            vec!["new".to_string(), "old".to_string()]
        )
    );

    assert_eq!(tree.torn().map(|(serial, _)| serial), Some(Serial(1)));
    drop(tree);

    // The tree opens after a restart, but accepts no release.
    let tree = world.open();
    assert_eq!(tree.torn().map(|(serial, _)| serial), Some(Serial(1)));
    assert!(tree.finish_undo().is_err() && world.begin(&tree, 2).is_err());

    assert!(append_only(&z, false));
    tree.finish_undo().expect("nothing stands in the way");
    assert_eq!((tree.torn(), look(&world.www())), (None, before));

    world.deploy(&tree, 3).expect("a commit");
}
