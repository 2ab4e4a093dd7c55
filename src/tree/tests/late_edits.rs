//! Actions of another process at each step of a confirmation or a way back, through directories that
//! it opened before.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode};

use super::edits::{edited, make_in, replace};
use super::world::look;
use crate::sync::locked;
use crate::tree::fs::fault::OtherProcesses;

/// The live tree by its path, and directories of it that were opened before the exchange.
struct Opened {
    www: PathBuf,
    top: OwnedFd,
    etc: OwnedFd,
    app: OwnedFd,
}

impl Opened {
    fn of(www: &Path) -> Self {
        let open = |path: &str| File::open(www.join(path)).unwrap().into();
        Self {
            www: www.to_path_buf(),
            top: open(""),
            etc: open("etc"),
            app: open("app"),
        }
    }
}

/// Content of all files of a tree.
fn contents(top: &Path) -> BTreeMap<String, String> {
    let paths = look(top).into_keys();
    let texts = paths.filter_map(|path| {
        let text = std::fs::read_to_string(top.join(&path)).ok()?;
        Some((path, text))
    });
    texts.collect()
}

/// An action of another process; false if it failed.
type Action = fn(&Opened) -> bool;

/// Actions while the old tree is removed: the path concerned, and its possible contents after an
/// action that succeeded. All other files stay as they are.
const LATE_ACTIONS: [(&str, Action, &[Option<&str>]); 11] = [
    (
        "etc/extra",
        |at| replace(&at.etc, "extra", "late").is_ok(),
        &[Some("late")],
    ),
    (
        "app/extra",
        |at| replace(&at.app, "extra", "late").is_ok(),
        &[Some("late")],
    ),
    // A removal there may come too late.
    (
        "etc/extra",
        |at| remove(&at.etc, "extra"),
        &[None, Some("early")],
    ),
    (
        "app/extra",
        |at| remove(&at.app, "extra"),
        &[None, Some("early")],
    ),
    (
        "etc/came",
        |at| replace(&at.etc, "came", "late").is_ok(),
        &[Some("late")],
    ),
    // By a handle, and after that by path.
    (
        "etc/extra",
        |at| {
            let live = File::open(at.www.join("etc")).unwrap().into();
            replace(&at.etc, "extra", "late").is_ok() && replace(&live, "extra", "later").is_ok()
        },
        &[Some("later")],
    ),
    // A directory in the place of a file.
    (
        "etc/extra/inside",
        |at| remove(&at.etc, "extra") && make_in(&at.etc, "extra", "late").is_ok(),
        &[Some("late"), None],
    ),
    (
        "etc/dir/inside",
        |at| make_in(&at.etc, "dir", "late").is_ok(),
        &[Some("late")],
    ),
    // Only once the host has emptied or removed the directory.
    (
        "",
        |at| rustix::fs::unlinkat(&at.top, "app", AtFlags::REMOVEDIR).is_ok(),
        &[None],
    ),
    (
        "",
        |at| rustix::fs::mkdirat(&at.top, "app", Mode::RWXU).is_ok(),
        &[None],
    ),
    (
        "app/inside",
        |at| make_in(&at.top, "app", "late").is_ok(),
        &[Some("late")],
    ),
];

fn remove(dir: &OwnedFd, name: &str) -> bool {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_ok()
}

/// Deploys, and acts at this step of the confirmation or of the way back. Returns the tree's files
/// without the action and with it, if it succeeded, and whether there are further steps.
fn act_late(
    act: Option<Action>,
    step: i64,
    [reverts, is_indexed]: [bool; 2],
) -> (BTreeMap<String, String>, bool, bool) {
    let mut world = edited(true);
    for path in ["etc/extra", "app/extra"] {
        std::fs::write(world.www().join(path), "early").unwrap();
    }

    let place: Arc<Mutex<Option<Opened>>> = Arc::default();
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let done = Arc::new(AtomicBool::new(false));
    let (there, steps, acted) = (place.clone(), left.clone(), done.clone());
    world.others = OtherProcesses(Some(Arc::new(move || {
        if steps.fetch_sub(1, Ordering::SeqCst) == 0
            && let Some(at) = locked(&there).as_ref()
        {
            acted.store(act.is_some_and(|act| act(at)), Ordering::SeqCst);
        }
    })));

    let tree = world.open();
    if is_indexed {
        world.index(&tree);
    }

    let before = Opened::of(&world.www());
    world.deploy(&tree, 1).unwrap();
    let opened = match reverts {
        true => Opened::of(&world.www()),
        false => before,
    };
    *locked(&place) = Some(opened);
    left.store(step, Ordering::SeqCst);
    if reverts {
        tree.revert().map(drop)
    } else {
        tree.forget_undo()
    }
    .unwrap();

    let is_over = left.load(Ordering::SeqCst) >= 0;
    (contents(&world.www()), done.load(Ordering::SeqCst), is_over)
}

#[test]
fn a_handle_loses_nothing_while_the_old_tree_is_removed() {
    std::thread::scope(|scope| {
        for how in [[false, false], [false, true], [true, false], [true, true]] {
            scope.spawn(move || {
                let (quiet, ..) = act_late(None, i64::MAX, how);
                for nth in 0..LATE_ACTIONS.len() {
                    act_late_at_each_step(nth, how, &quiet);
                }
            });
        }
    });
}

/// Tries one of the actions at each step, or at some steps: with an index each round waits for the
/// clock of the filesystem.
fn act_late_at_each_step(nth: usize, how: [bool; 2], quiet: &BTreeMap<String, String>) {
    let (path, act, wanted) = LATE_ACTIONS[nth];
    let stride = if how[1] { 3 } else { 1 };
    let mut unordered = 0;
    let mut succeeded = 0;

    for step in (nth as i64 % stride..).step_by(stride as usize) {
        let (mut found, acted, is_over) = act_late(Some(act), step, how);
        let mut rest = quiet.clone();
        rest.remove(path);
        let there = found.remove(path);
        let what = format!("action {nth}, step {step}, {how:?}");

        // Between the look at a file and its removal the order of two writes is unknown.
        let is_unordered = wanted == [Some("later")] && there.as_deref() == Some("late");
        unordered += usize::from(is_unordered);
        succeeded += usize::from(acted);
        if acted && !is_unordered {
            assert!(wanted.contains(&there.as_deref()), "{what}: {there:?}");
        }

        // A directory that took the file's place.
        if acted && path == "etc/extra/inside" {
            rest.remove("etc/extra");
            found.remove("etc/extra");
        }
        assert_eq!(found, rest, "{what}");
        if is_over {
            break;
        }
    }

    assert!(unordered <= 1, "action {nth}, {how:?}: {unordered}");
    assert!(succeeded > 0 || stride > 1, "action {nth}, {how:?}");
}

/// The same in the other direction: what came around the exchange is there after the way back.
#[test]
fn a_file_without_a_second_name_is_there_after_the_way_back() {
    for step in 0.. {
        let mut world = edited(true);
        world.no_links = true;
        let etc: OwnedFd = File::open(world.www().join("etc")).unwrap().into();
        let left = Arc::new(AtomicI64::new(step));
        let (steps, done) = (left.clone(), Arc::new(AtomicBool::new(false)));
        let acted = done.clone();
        world.others = OtherProcesses(Some(Arc::new(move || {
            if steps.fetch_sub(1, Ordering::SeqCst) == 0 {
                acted.store(replace(&etc, "came", "late").is_ok(), Ordering::SeqCst);
            }
        })));

        let tree = world.open();
        world.deploy(&tree, 1).unwrap();
        let is_over = left.load(Ordering::SeqCst) >= 0;
        tree.revert().unwrap();
        if is_over {
            assert!(step > 20);
            break;
        }
        let found = std::fs::read_to_string(world.www().join("etc/came")).ok();
        assert!(done.load(Ordering::SeqCst), "step {step}");
        assert_eq!(found.as_deref(), Some("late"), "step {step}");
    }
}

/// A user without special rights cannot give another user's file a second name, so the file itself
/// moves.
#[test]
fn a_late_file_that_cannot_have_a_second_name_stays() {
    for reverts in [false, true] {
        let mut world = edited(true);
        world.no_links = true;
        let open = || File::open(world.www().join("etc")).unwrap().into();
        let mut etc = open();
        let tree = world.open();
        world.deploy(&tree, 1).unwrap();
        if reverts {
            etc = open();
        }
        replace(&etc, "local.conf", "late").unwrap();
        replace(&etc, "came", "late").unwrap();
        if reverts {
            tree.revert().map(drop)
        } else {
            tree.forget_undo()
        }
        .unwrap();

        let text = |path| std::fs::read_to_string(world.www().join(path)).ok();
        assert_eq!(text("etc/local.conf").as_deref(), Some("late"), "{reverts}");
        assert_eq!(text("etc/came").as_deref(), Some("late"), "{reverts}");
    }
}
