//! Concurrent edits of a host's tree while releases are switched: the last write must survive.
//!
//! The reference is a log of the editor's actions. The seed is printed; `MAKUO_EDITS_SEED` selects
//! another seed, `MAKUO_EDITS_ROUNDS` the number of rounds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::world::{Thing, World, file, look};
use crate::id::Serial;
use crate::manifest::rules::PathFilter;
use crate::sync::locked;
use crate::tree::fs::fault::OtherProcesses;
use crate::tree::lifecycle::Recovery;

/// Directories with edited files: protected, excluded, unknown to the release, and single files
/// between governed ones.
const PLACES: [&str; 6] = ["up", "up/deep", "etc/cache", "own", "etc", ""];

/// A concurrent editor of the tree with a record of the expected content.
struct Editor {
    top: PathBuf,
    rng: fastrand::Rng,
    /// Expected content of each path; `None` for a removed one.
    wrote: BTreeMap<String, Option<String>>,
    /// Directories held open, like the working directory of a process.
    held: HashMap<&'static str, (OwnedFd, u64)>,
    /// Whether the daemon may crash during this release.
    crashes: bool,
    /// Whether the old tree may be in removal: a missing name there proves nothing.
    is_draining: bool,
    /// Paths written since the release began. Nothing on the disk tells of such a file that was
    /// removed again around a crash.
    fresh: HashSet<String>,
    count: u64,
    last: Vec<String>,
}

impl Editor {
    fn new(top: &Path, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let wrote = BTreeMap::new();
        let held = HashMap::new();
        Self {
            top: top.to_path_buf(),
            rng,
            wrote,
            held,
            crashes: false,
            is_draining: false,
            fresh: HashSet::new(),
            count: 0,
            last: Vec::new(),
        }
    }

    /// Performs one change. A change that fails because its directory is absent at the moment is
    /// not recorded.
    fn act(&mut self) {
        self.count += 1;
        let place = PLACES[self.rng.usize(..PLACES.len())];
        let by_handle = self.rng.u8(..3) == 0;
        if by_handle && self.rng.u8(..4) == 0 {
            self.held.remove(place);
        }

        if !self.held.contains_key(place)
            && let Ok(dir) = File::open(self.top.join(place))
        {
            self.held.insert(place, (dir.into(), self.count));
        }

        let mut kind = self.rng.u8(..12);
        let is_governed = matches!(place, "etc" | "");
        if by_handle && self.is_draining && is_governed && matches!(kind, 5 | 6 | 10..) {
            kind = 0;
        }

        let number = self.rng.u8(..4);
        // Writes by path and writes by handle use separate names, since the order of the two could
        // not be determined.
        let opened = self.held.get(place).map_or(0, |(_, opened)| *opened);
        let whose = if by_handle {
            format!("h{opened}")
        } else {
            "p".to_string()
        };

        let text = format!("{} of {:x}", self.count, self.rng.u64(..));
        let name = match kind {
            0..=6 => format!("extra-{whose}-{number}"),
            7 => format!("log-{number}"),
            10.. => self.made(place, &whose).unwrap_or_default(),
            _ => format!("dir-{}-{whose}", self.count),
        };

        let dir = if by_handle {
            self.held
                .get(place)
                .and_then(|(dir, _)| rustix::io::dup(dir).ok())
        } else {
            File::open(self.top.join(place)).ok().map(Into::into)
        };

        let Some(dir) = dir else { return };
        let path = if place.is_empty() {
            name.clone()
        } else {
            format!("{place}/{name}")
        };

        let what = match kind {
            5 | 6 if self.crashes && self.fresh.contains(&path) => None,
            0..=4 => replace(&dir, &name, &text)
                .ok()
                .map(|()| (path, Some(text))),
            5 | 6 => rustix::fs::unlinkat(&dir, &name, AtFlags::empty())
                .ok()
                .map(|()| (path, None)),
            7 => append(&dir, &name, &text).ok().map(|()| {
                let whole = self.wrote.get(&path).cloned().flatten().unwrap_or_default() + &text;
                (path, Some(whole))
            }),
            10.. => remove_with(&dir, &name)
                .ok()
                .map(|()| (format!("{path}/inside"), None)),
            _ => make_in(&dir, &name, &text)
                .ok()
                .map(|()| (format!("{path}/inside"), Some(text))),
        };

        let Some((path, text)) = what else { return };
        let late = std::fs::metadata(self.top.join(place)).map(|now| now.ino());
        let is_late = rustix::fs::fstat(&dir).map(|stat| stat.st_ino).ok() != late.ok();
        if is_late && text.is_none() && self.is_draining {
            // An exchange came between: this was a removal by a handle after all.
            self.wrote.remove(&path);
            return;
        }

        let how = match (by_handle, is_late) {
            (true, _) => "by a handle",
            (false, true) => "by path, late",
            (false, false) => "by path",
        };
        self.last.push(format!("{how}: {path} := {text:?}"));
        self.fresh.insert(path.clone());
        self.wrote.insert(path, text);
    }

    /// Begins a release of a daemon that may crash, if `after` is some step. It first removes the
    /// old tree of an `unconfirmed` release.
    fn begin(&mut self, serial: u64, after: Option<i64>, unconfirmed: bool) {
        self.last.push(format!("release {serial}, crash {after:?}"));
        self.crashes |= after.is_some();
        self.is_draining = self.crashes || unconfirmed;
        self.fresh.clear();
    }

    /// Notes that the removal of the old tree is next.
    fn end(&mut self) {
        self.is_draining = true;
    }

    /// Returns a present directory that [`make_in`] made in `place`.
    fn made(&mut self, place: &str, whose: &str) -> Option<String> {
        let names = self.wrote.iter().filter_map(|(path, text)| {
            text.as_ref()?;
            let name = path.strip_suffix("/inside")?.strip_prefix(place)?;
            let name = name.trim_start_matches('/');
            let own = name.starts_with("dir-") && name.ends_with(&format!("-{whose}"));
            (own && !name.contains('/')).then(|| name.to_string())
        });
        let names: Vec<_> = names.collect();
        self.rng.choice(names)
    }

    /// Lists differences between the tree and the record, each with the actions on the path.
    fn lost(&self) -> Vec<String> {
        let wrong = self.wrote.iter().filter_map(|(path, wanted)| {
            let found = std::fs::read_to_string(self.top.join(path)).ok();
            (found != *wanted).then(|| {
                let done: Vec<_> = self
                    .last
                    .iter()
                    .filter(|l| !l.starts_with("by ") || l.contains(&format!(" {path} :=")))
                    .rev()
                    .take(20)
                    .collect();
                format!("{path}: {found:?}, wanted {wanted:?}: {done:#?}")
            })
        });
        wrong.collect()
    }
}

pub(super) fn replace(dir: &OwnedFd, name: &str, text: &str) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let new = format!("{name}.new");
    let mut file = File::from(rustix::fs::openat(
        dir,
        &new,
        flags,
        Mode::from_raw_mode(0o644),
    )?);
    file.write_all(text.as_bytes())
        .map_err(|_| rustix::io::Errno::IO)?;

    rustix::fs::renameat(dir, &new, dir, name)
}

fn append(dir: &OwnedFd, name: &str, text: &str) -> rustix::io::Result<()> {
    // An existing file: both trees share its inode.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    file.write_all(text.as_bytes())
        .map_err(|_| rustix::io::Errno::IO)
}

pub(super) fn make_in(dir: &OwnedFd, name: &str, text: &str) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    replace(&made, "inside", text)
}

/// Removes a directory with its only file. Where only the file can be removed, an empty directory
/// stays.
fn remove_with(dir: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    rustix::fs::unlinkat(&made, "inside", AtFlags::empty())?;
    let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);

    Ok(())
}

fn old() -> Vec<(&'static str, Thing)> {
    vec![
        ("app", Thing::Dir(0o755)),
        ("app/changes", file("0")),
        ("app/stays", file("stays")),
        ("etc", Thing::Dir(0o755)),
        ("etc/cache", Thing::Dir(0o755)),
        ("etc/cache/warm", file("warm")),
        ("etc/changes", file("0")),
        ("etc/local.conf", file("local")),
        ("etc/log-1", file("")),
        ("etc/log-2", file("")),
        ("log-1", file("")),
        ("own", Thing::Dir(0o750)),
        ("own/file", file("own")),
        ("up", Thing::Dir(0o2775)),
        ("up/deep", Thing::Dir(0o755)),
        ("up/deep/file", file("deep")),
    ]
}

fn new(nth: u64) -> Vec<(&'static str, Thing)> {
    let text = nth.to_string();
    let mut all = vec![
        ("app", Thing::Dir(0o755)),
        ("app/changes", file(&text)),
        ("app/stays", file("stays")),
        ("etc", Thing::Dir(0o755)),
        ("etc/changes", file(&text)),
    ];
    if nth.is_multiple_of(2) {
        all.extend([("made", Thing::Dir(0o755)), ("made/file", file(&text))]);
    }

    all
}

pub(super) fn edited(swap: bool) -> World {
    let mut world = World::new(&old(), &new(1)).swapping(swap);
    world.rules.delete_extras = false;
    world.rules.excludes = vec![crate::manifest::rules::Exclude {
        base: None,
        pattern: "/etc/cache/".into(),
    }];
    world.protect = PathFilter::at_top(&["/up/", "/etc/local.conf"]);

    world
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Returns the inodes of the directories that no release governs.
fn inodes(top: &Path) -> [u64; 3] {
    ["up", "own", "etc/cache"].map(|dir| std::fs::metadata(top.join(dir)).unwrap().ino())
}

#[test]
fn directories_of_the_host_move_with_whoever_stands_in_them() {
    let world = edited(true);
    let before = inodes(&world.www());
    let stands = File::open(world.www().join("up/deep")).unwrap().into();
    let tree = world.open();
    world.deploy(&tree, 1).unwrap();
    assert_eq!(inodes(&world.www()), before);
    replace(&stands, "came", "after the exchange").unwrap();

    assert_eq!(
        std::fs::read_to_string(world.www().join("up/deep/came")).unwrap(),
        "after the exchange"
    );
    tree.revert().unwrap();
    assert_eq!(inodes(&world.www()), before);
    replace(&stands, "came", "after the way back").unwrap();

    assert_eq!(
        std::fs::read_to_string(world.www().join("up/deep/came")).unwrap(),
        "after the way back"
    );
    world.deploy(&tree, 2).unwrap();
    tree.forget_undo().unwrap();

    assert_eq!(inodes(&world.www()), before);
}

#[test]
fn a_handle_of_a_governed_directory_loses_nothing_until_the_old_tree_is_gone() {
    for reverts in [false, true] {
        let world = edited(true);
        let etc = File::open(world.www().join("etc")).unwrap().into();
        let tree = world.open();
        world.deploy(&tree, 1).unwrap();
        replace(&etc, "late", "late").unwrap();
        rustix::fs::unlinkat(&etc, "local.conf", AtFlags::empty()).unwrap();
        make_in(&etc, "made", "late").unwrap();
        if reverts {
            tree.revert().map(drop)
        } else {
            tree.forget_undo()
        }
        .unwrap();
        let text = |path| std::fs::read_to_string(world.www().join(path)).ok();
        assert_eq!(text("etc/late").as_deref(), Some("late"));
        assert_eq!(text("etc/made/inside").as_deref(), Some("late"));
        assert_eq!(text("etc/local.conf"), None);
        assert_eq!(
            text("etc/changes").as_deref(),
            Some(if reverts { "0" } else { "1" })
        );
    }
}

#[test]
fn a_crash_anywhere_leaves_what_the_host_has_in_the_old_or_the_new_tree() {
    let wanted = {
        let world = edited(true);
        world.deploy(&world.open(), 5).unwrap();
        look(&world.www())
    };

    for after in 0.. {
        let world = edited(true);
        let before = look(&world.www());
        let nodes = inodes(&world.www());
        let tree = world.open_crashing(Some(after)).unwrap();
        let done = world.deploy(&tree, 5).is_ok();
        drop(tree);
        let tree = world.open();
        let expected = if tree.current().unwrap().is_some() {
            &wanted
        } else {
            &before
        };
        assert_eq!(look(&world.www()), *expected, "crash {after}");
        assert_eq!(inodes(&world.www()), nodes, "crash {after}");
        if done {
            break;
        }
    }
}

#[test]
fn a_crash_anywhere_on_the_way_back_brings_the_hosts_directories_back() {
    for after in 0.. {
        let world = edited(true);
        let before = look(&world.www());
        let nodes = inodes(&world.www());
        let tree = world.open();
        world.deploy(&tree, 5).unwrap();
        drop(tree);
        let tree = world.open_crashing(Some(after)).unwrap();
        let done = tree.revert().is_ok();
        drop(tree);
        let tree = world.open();
        assert_eq!(inodes(&world.www()), nodes, "crash {after}");
        if done || tree.recovery() == Recovery::Undone(Serial(5)) {
            assert_eq!(look(&world.www()), before, "crash {after}");
        }
        if done {
            break;
        }
    }
}

/// Runs a round with an edit at every step of a deployment, in the same order for the same seed.
fn round_between(seed: u64) -> Vec<String> {
    let mut world = edited(true);
    let editor = Arc::new(Mutex::new(Editor::new(&world.www(), seed)));
    let acting = Arc::clone(&editor);
    world.others = OtherProcesses(Some(Arc::new(move || {
        let mut editor = locked(&acting);
        for _ in 0..editor.rng.u8(..4) {
            editor.act();
        }
    })));

    let mut rng = fastrand::Rng::with_seed(seed);
    let mut unconfirmed = false;
    for serial in 1..=3 {
        world.release(&new(serial));
        let after = (rng.u8(..3) == 0).then(|| rng.i64(0..60));
        let said = |what: String| locked(&editor).last.push(what);
        locked(&editor).begin(serial, after, unconfirmed);
        let Ok(tree) = world.open_crashing(after) else {
            continue;
        };
        locked(&editor).crashes = after.is_some();
        if rng.u8(..3) == 0 {
            world.index(&tree);
        }
        let deployed = world.deploy(&tree, serial).map(drop);
        said(format!("deployed: {deployed:?}"));
        locked(&editor).end();
        let next = rng.u8(..3);
        match next {
            0 => said(format!("reverted: {:?}", tree.revert())),
            1 => said(format!("confirmed: {:?}", tree.forget_undo())),
            _ => {}
        }
        unconfirmed = next > 1;
        drop(tree);
    }

    world.others = OtherProcesses::default();
    let tree = world.open();
    locked(&editor).last.push(format!("{:?}", tree.recovery()));
    tree.forget_undo().unwrap();

    locked(&editor).lost()
}

/// Harsher than any real editor: a name is created, recreated and removed on both sides of one
/// exchange.
#[test]
fn nothing_that_others_write_between_two_steps_is_lost() {
    let seed = setting("MAKUO_EDITS_SEED", 1);
    let rounds = setting("MAKUO_EDITS_ROUNDS", 20);
    println!("seeds {seed} to {}", seed + rounds - 1);

    for seed in seed..seed + rounds {
        let lost = round_between(seed);
        assert!(
            lost.is_empty(),
            "MAKUO_EDITS_SEED={seed}: {} lost\n{}",
            lost.len(),
            lost.join("\n")
        );
    }
}

#[test]
fn nothing_that_others_write_all_the_time_is_lost() {
    let seed = setting("MAKUO_EDITS_SEED", 1);
    let rounds = setting("MAKUO_EDITS_ROUNDS", 12);
    println!("seed {seed}, {rounds} rounds");
    let world = edited(true);
    let editor = Mutex::new(Editor::new(&world.www(), seed));

    let over = AtomicBool::new(false);
    let mut rng = fastrand::Rng::with_seed(seed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                locked(&editor).act();
                std::thread::yield_now();
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut serial = 0;
            for round in 0..rounds {
                serial += 1;
                world.release(&new(serial));
                let after = (rng.u8(..4) == 0).then(|| rng.i64(0..60));
                let said = |what: String| locked(&editor).last.push(what);
                locked(&editor).begin(serial, after, false);
                if let Ok(tree) = world.open_crashing(after) {
                    // The scanner of these tests does not tolerate files that vanish during a scan.
                    let begun = {
                        let _quiet = locked(&editor);
                        if rng.bool() {
                            world.index(&tree);
                        }
                        world.begin(&tree, serial)
                    };
                    let committed = begun.and_then(|(stage, release, source)| {
                        World::fill(stage, &source)?.commit(&release, b"signature")
                    });
                    said(format!("committed: {:?}", committed.map(drop)));
                    locked(&editor).end();
                    match rng.u8(..3) {
                        0 => said(format!("reverted: {:?}", tree.revert())),
                        _ => said(format!("confirmed: {:?}", tree.forget_undo())),
                    }
                }
                let tree = world.open();
                said(format!("{:?}", tree.recovery()));
                let mut held = locked(&editor);
                tree.forget_undo().unwrap();
                held.crashes = false;
                let lost = held.lost();
                assert!(
                    lost.is_empty(),
                    "round {round}: {} lost\n{}",
                    lost.len(),
                    lost.join("\n")
                );
            }
        }));
        over.store(true, Ordering::Release);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });

    println!("{} changes", locked(&editor).count);
}
