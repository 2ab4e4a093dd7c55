//! Symbolic links planted in place of the tree or its state, by a user who may rename beside the
//! tree. The targets of the links stay untouched at any moment.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::world::{NOBODY, Thing, World, file, is_root, look};
use crate::tree::fs::fault::OtherProcesses;

const OLD: [(&str, Thing); 0] = [];

/// Makes a forbidden directory that looks like the directory replaced by the link.
fn a_victim(beside: &Path, things: &[(&str, Thing)]) -> PathBuf {
    let victim = beside.join("victim");
    super::world::make(&victim, things);
    super::world::set_top(&victim, 0o700, 900_000_003);
    victim
}

fn things() -> Vec<(&'static str, Thing)> {
    vec![
        ("a", file("a")),
        ("d", Thing::Dir(0o755)),
        ("d/b", file("b")),
    ]
}

#[test]
fn a_link_that_takes_the_place_of_an_exchanged_tree_is_not_followed() {
    // Right after the exchange, and right before.
    for after in [true, false] {
        let old = things();
        let mut world = World::new(&old, &[("a", file("new"))]).swapping(true);
        let www = world.www();
        let away = world.www().with_file_name("away");
        let victim = a_victim(www.parent().unwrap(), &old);
        let before = look(&victim);
        let was = std::fs::metadata(&www).unwrap().ino();
        let acts = AtomicU64::new(0);
        world.others = OtherProcesses(Some(Arc::new({
            let www = www.clone();
            let away = away.clone();
            let victim = victim.clone();
            move || {
                let Ok(now) = std::fs::symlink_metadata(&www) else {
                    return;
                };
                // The first exchange belongs to a probe with other names.
                let is_time = now.is_dir() && (now.ino() != was) == after && now.ino() != 0;
                let staged = www.with_file_name(".makuo/www/undo/1/tree");
                if is_time && (after || staged.exists()) && acts.fetch_add(1, Ordering::SeqCst) == 0
                {
                    std::fs::rename(&www, &away).unwrap();
                    symlink(&victim, &www).unwrap();
                }
            }
        })));
        let tree = world.open();
        let done = world.deploy(&tree, 1);
        assert_eq!(done.is_ok(), after, "{:?}", done.err());
        assert_eq!(look(&victim), before, "after {after}");
        assert!(std::fs::symlink_metadata(&www).unwrap().is_symlink());
        assert_ne!(
            tree.root().id().ino,
            std::fs::metadata(&victim).unwrap().ino()
        );

        // While the link exists, no work is done; once the directory is restored, work continues.
        world.others = OtherProcesses::default();
        assert!(world.stage(&tree, 2).is_err());
        assert_eq!(look(&victim), before, "after {after}");
        std::fs::remove_file(&www).unwrap();
        std::fs::rename(&away, &www).unwrap();
        world.deploy(&tree, 2).unwrap();
        assert_eq!(look(&www), look(&world.source()), "after {after}");
        assert_eq!(look(&victim), before, "after {after}");
    }
}

#[test]
fn whatever_stands_in_the_place_of_the_state_is_left_alone() {
    for (swap, turns) in [
        (false, 1),
        (false, 2),
        (false, 7),
        (true, 1),
        (true, 2),
        (true, 7),
    ] {
        let old = things();
        let new = [
            ("a", file("new")),
            ("d", Thing::Dir(0o700)),
            ("d/c", file("c")),
        ];
        let mut world = World::new(&old, &new).swapping(swap);
        let beside = world.www().parent().unwrap().to_path_buf();
        let dirs = [
            "www",
            "www/stage",
            "www/undo",
            "www/undo/1",
            "www/releases",
            "www/kept",
            "www/next",
            "www/trash",
        ];
        let mut held: Vec<_> = dirs.map(|dir| (dir, Thing::Dir(0o755))).into();
        held.extend(
            [
                "www/stage/1",
                "www/undo/1/journal",
                "www/nodes",
                "www/journal",
            ]
            .map(|name| (name, file("theirs"))),
        );
        let victim = a_victim(&beside, &held);
        let before = look(&victim);
        let tree = world.open();
        let count = AtomicU64::new(0);
        let flipped = Arc::new(AtomicBool::new(false));
        let flip = {
            let (state, away, victim) =
                (beside.join(".makuo"), beside.join("away"), victim.clone());
            let flipped = Arc::clone(&flipped);
            let turn = Mutex::new(());
            move |wanted: Option<bool>| {
                let _turn = turn.lock().unwrap();
                let now = flipped.load(Ordering::SeqCst);
                if wanted == Some(now) {
                    return;
                }
                if now {
                    std::fs::remove_file(&state).unwrap();
                    std::fs::rename(&away, &state).unwrap();
                } else {
                    std::fs::rename(&state, &away).unwrap();
                    symlink(&victim, &state).unwrap();
                }
                flipped.store(!now, Ordering::SeqCst);
            }
        };
        let flip = Arc::new(flip);
        drop(tree);
        world.others = OtherProcesses(Some(Arc::new({
            let flip = Arc::clone(&flip);
            move || {
                if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(turns) {
                    flip(None);
                }
            }
        })));
        let tree = world.open_crashing(None);
        for serial in 1..4 {
            if let Ok(tree) = &tree {
                // Success depends on the place of the state at the moment of the check.
                let done = world
                    .deploy(tree, serial)
                    .map(drop)
                    .and_then(|()| tree.forget_undo());
                println!("swap {swap}, every {turns}: {done:?}");
            }
            assert_eq!(look(&victim), before, "swap {swap}, every {turns}");
        }
        flip(Some(false));
        drop(tree);
        world.others = OtherProcesses::default();
        let tree = world.open();
        world.deploy(&tree, 9).unwrap();
        assert_eq!(
            look(&world.www()),
            look(&world.source()),
            "swap {swap}, every {turns}"
        );
        assert_eq!(look(&victim), before, "swap {swap}, every {turns}");
    }
}

#[test]
fn state_in_a_directory_of_another_user_is_refused() {
    if !is_root() {
        return crate::skip::skipped("not root");
    }

    let world = World::new(&OLD, &OLD);
    let state = world.www().with_file_name(".makuo");
    std::fs::create_dir(&state).unwrap();
    chown(&state, Some(NOBODY), None).unwrap();
    let e = world.open_crashing(None).unwrap_err();
    assert!(
        e.to_string().contains(&format!("belongs to user {NOBODY}")),
        "{e}"
    );

    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    chown(&state, Some(0), None).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(
        world
            .open_crashing(None)
            .unwrap_err()
            .to_string()
            .contains("everybody may replace")
    );

    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o1777)).unwrap();
    world.open();
}
