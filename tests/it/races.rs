//! A local process exchanges directories of a tree with symbolic links and back during releases: no
//! file outside the tree is created, changed, deleted or read.
//!
//! The victim is a directory beside the tree, similar to the flipped one, on the same filesystem
//! and within reach of even a confined daemon. Every kind of operation runs for some seconds,
//! `MAKUO_RACE_SECONDS` (2).

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{self, DELETE, Lab, Stopwatch, is_root, read, write};
use rustix::fs::{
    AtFlags, CWD, RenameFlags, Timespec, Timestamps, XattrFlags, renameat_with, utimensat,
};

/// The flipped directory of the tree.
const DIR: &str = "d";
/// Names in the directory and in its victim.
const NAMES: [&str; 6] = ["f0", "f1", "f2", "sub/g0", "sub/g1", "empty/h0"];

/// The untouchable directory in its original state.
struct Victim {
    path: PathBuf,
    was: BTreeMap<PathBuf, Seen>,
    reads_show: bool,
}

/// Metadata of a path: inode, size, mode, owner, times of the last change and of the last read.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    ino: u64,
    size: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    changed: (i64, i64),
    read: (i64, i64),
}

impl Victim {
    fn new(path: PathBuf) -> Self {
        for name in NAMES {
            write(&path.join(name), format!("victim {name}"));
        }

        symlink("victim's target", path.join("link")).expect("new");
        let names: Vec<PathBuf> = walk(&path);

        // Old enough for the next read to update the access time.
        names.iter().for_each(|name| age(name));
        let was = names
            .iter()
            .map(|name| (name.clone(), seen(name)))
            .collect();

        Self {
            reads_show: reads_show(&path),
            path,
            was,
        }
    }

    /// Fails on any difference.
    #[track_caller]
    fn check(&self, kind: &str) {
        for (path, was) in &self.was {
            let mut now = seen(path);
            if !self.reads_show {
                now.read = was.read;
            }
            assert_eq!(now, *was, "{kind}: {} was touched", path.display());
        }

        // Listing the names counts as a read of the directory.
        assert_eq!(
            walk(&self.path),
            self.was.keys().cloned().collect::<Vec<_>>(),
            "{kind}: names came or went"
        );
        self.was.keys().for_each(|name| age(name));
    }
}

fn seen(path: &Path) -> Seen {
    let meta =
        std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));

    // Resetting the access time changes the change time.
    Seen {
        ino: meta.ino(),
        size: meta.size(),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        links: meta.nlink(),
        changed: (meta.mtime(), meta.mtime_nsec()),
        read: (meta.atime(), meta.atime_nsec()),
    }
}

/// Returns `top` and all paths below, sorted.
fn walk(top: &Path) -> Vec<PathBuf> {
    let mut all = vec![top.to_path_buf()];
    let mut at = 0;
    while at < all.len() {
        if std::fs::symlink_metadata(&all[at]).expect("there").is_dir() {
            let below = std::fs::read_dir(&all[at]).expect("readable");
            all.extend(
                below
                    .map(|entry| entry.expect("readable").path())
                    .collect::<Vec<_>>(),
            );
        }
        at += 1;
    }

    all.sort();
    all
}

fn age(path: &Path) {
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let times = Timestamps {
        last_access: time(1_000_000_000),
        last_modification: time(1_100_000_000),
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("mine");
}

/// Returns true if this filesystem records access times.
fn reads_show(beside: &Path) -> bool {
    let probe = beside.with_extension("probe");
    write(&probe, "probe");
    age(&probe);
    let before = seen(&probe);
    read(&probe);
    let shows = seen(&probe) != before;
    std::fs::remove_file(&probe).expect("there");

    shows
}

/// Exchanges the directory with a link to the victim until stopped.
fn flip(dir: &Path, link: &Path, victim: &Path, stop: &AtomicBool, flips: &AtomicU64) {
    let mut random = fastrand::Rng::with_seed(1);
    let is_link =
        |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink());

    while !stop.load(Ordering::Acquire) {
        if !is_link(dir) && !is_link(link) {
            // The daemon put a directory in the link's place: the earlier one is removed.
            let _ = std::fs::remove_dir_all(link);
            let _ = symlink(victim, link);
        }
        if renameat_with(CWD, dir, CWD, link, RenameFlags::EXCHANGE).is_ok() {
            flips.fetch_add(1, Ordering::Relaxed);
        }
        // Mostly a directory, so that releases get as far as the disk.
        let most = if is_link(dir) { 200 } else { 1500 };
        support::pause(Duration::from_micros(random.u64(0..most)));
    }

    if is_link(dir) {
        let _ = renameat_with(CWD, dir, CWD, link, RenameFlags::EXCHANGE);
    }

    // The daemon may have moved the directory away, while the link prevents the way back: an
    // operator would repair that.
    if is_link(dir) {
        std::fs::remove_file(dir)
            .and_then(|()| std::fs::create_dir(dir))
            .expect("mine");
    }
}

/// Alternating releases with different content in the directory.
type Release = fn(&Path, u64);

/// Flips the directory while `release` changes the source and the verb transfers the change.
fn race(kind: &str, spec: &str, verb: &[&str], release: Release) {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    lab.host("web1").start();
    let (site, tree, disk) = (lab.site(), lab.hosts[0].tree(), lab.hosts[0].disk());
    let victim = Victim::new(disk.join("victim"));
    for name in NAMES {
        write(&site.join(DIR).join(name), format!("ours {name}"));
    }

    symlink("ours", site.join(DIR).join("link")).expect("new");
    lab.spec(&format!("{DELETE}{spec}"));
    lab.deploy(&[]).exits(0);
    let (stop, flips) = (AtomicBool::new(false), AtomicU64::new(0));
    let seconds = std::env::var("MAKUO_RACE_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(2);

    let watch = Stopwatch::start();
    let (mut round, mut went) = (0, 0);
    std::thread::scope(|scope| {
        let flipper = scope.spawn(|| {
            flip(
                &tree.join(DIR),
                &disk.join("flip"),
                &victim.path,
                &stop,
                &flips,
            )
        });
        while watch.read() < Duration::from_secs(seconds) {
            round += 1;
            release(&site, round);
            let mut words = vec!["--json", "www.toml", "--expect", "1", "--timeout", "5s"];
            words.splice(0..0, verb.iter().copied());
            went += u64::from(lab.makuo(&words).code <= 1);
        }
        stop.store(true, Ordering::Release);
        flipper.join().expect("it does not panic");
    });

    println!(
        "{kind}: {} flips, {went} of {round} went through",
        flips.load(Ordering::Relaxed)
    );
    assert!(
        flips.load(Ordering::Relaxed) > 100,
        "{kind}: hardly anything was flipped"
    );

    victim.check(kind);
    // Without flips, the host recovers.
    release(&site, round + 1);
    let first = lab.deploy(&["--checksum"]);

    if first.code != 0 {
        // A failed commit could not be reverted while the link existed: the revert comes first.
        first.exits(3).says(&["undone only now", "deploy again"]);
        lab.deploy(&["--checksum"]).exits(0);
    }

    lab.all_same(&site);
    victim.check(kind);
}

#[test]
fn creating_and_unlinking() {
    race("create and unlink", "", &["deploy"], |site, round| {
        for number in 0..20 {
            let path = site.join(DIR).join(format!("sub/new{number}"));
            if round % 2 == 1 {
                write(&path, "new")
            } else {
                std::fs::remove_file(path).expect("there")
            }
        }
        // Names that the victim has as well.
        for name in ["f0", "sub/g0"] {
            let path = site.join(DIR).join(name);
            if round % 2 == 1 {
                std::fs::remove_file(path).expect("there")
            } else {
                write(&path, "back")
            }
        }
    });
}

#[test]
fn writing() {
    race("write", "", &["deploy"], |site, round| {
        NAMES.iter().for_each(|name| {
            write(
                &site.join(DIR).join(name),
                format!("round {round} of {name}"),
            )
        });
    });
}

#[test]
fn writing_whole_trees() {
    race(
        "swap",
        "[commit]\nlayout = \"swap\"\n",
        &["deploy"],
        |site, round| {
            NAMES.iter().for_each(|name| {
                write(
                    &site.join(DIR).join(name),
                    format!("round {round} of {name}"),
                )
            });
        },
    );
}

#[test]
fn changing_modes_and_owners() {
    race("chmod and chown", "", &["deploy"], |site, round| {
        for name in NAMES {
            let path = site.join(DIR).join(name);
            let mode = if round % 2 == 1 { 0o600 } else { 0o666 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mine");
            if is_root() {
                std::os::unix::fs::lchown(&path, Some((round % 2) as u32), Some(0))
                    .expect("root may");
            }
        }
        let mode = std::fs::Permissions::from_mode(if round % 2 == 1 { 0o700 } else { 0o777 });
        std::fs::set_permissions(site.join(DIR).join("sub"), mode).expect("mine");
    });
}

#[test]
fn changing_attributes() {
    race(
        "xattr",
        "[meta]\nxattrs = true\n",
        &["deploy"],
        |site, round| {
            for name in NAMES {
                let value = round.to_string();
                let path = site.join(DIR).join(name);
                // On filesystems without attributes, only the times change.
                let _ = rustix::fs::setxattr(
                    &path,
                    "user.round",
                    value.as_bytes(),
                    XattrFlags::empty(),
                );
                write(&path, format!("ours {name}"));
            }
        },
    );
}

#[test]
fn making_and_removing_directories() {
    race("mkdir and rmdir", "", &["deploy"], |site, round| {
        let (sub, empty) = (site.join(DIR).join("sub"), site.join(DIR).join("empty"));
        if round % 2 == 1 {
            std::fs::remove_dir_all(sub).expect("there");
            std::fs::remove_dir_all(empty).expect("there");
            std::fs::create_dir_all(site.join(DIR).join("other/deep")).expect("new");
        } else {
            ["g0", "g1"]
                .iter()
                .for_each(|name| write(&sub.join(name), "back"));
            write(&empty.join("h0"), "back");
            std::fs::remove_dir_all(site.join(DIR).join("other")).expect("there");
        }
    });
}

#[test]
fn links_and_renames() {
    race("symlink and rename", "", &["deploy"], |site, round| {
        let dir = site.join(DIR);
        std::fs::remove_file(dir.join("link")).expect("there");
        symlink(format!("target {round}"), dir.join("link")).expect("new");
        let (here, there) = if round % 2 == 1 {
            ("f1", "sub/moved")
        } else {
            ("sub/moved", "f1")
        };
        std::fs::rename(dir.join(here), dir.join(there)).expect("there");
    });
}

#[test]
fn scanning_and_reading() {
    race("scan", "", &["diff", "--checksum"], |_, _| {});
}

/// Replaces the tree by a link to the victim for a moment, as soon as another directory takes the
/// tree's place.
fn flip_exchanged(tree: &Path, link: &Path, victim: &Path, stop: &AtomicBool, flips: &AtomicU64) {
    let inode = || {
        std::fs::symlink_metadata(tree)
            .map(|meta| meta.ino())
            .unwrap_or_default()
    };

    symlink(victim, link).expect("new");
    let mut known = inode();
    while !stop.load(Ordering::Acquire) {
        let now = inode();
        if now == known {
            std::hint::spin_loop();
            continue;
        }
        let flip =
            || renameat_with(CWD, tree, CWD, link, RenameFlags::EXCHANGE).expect("both are there");
        flip();
        flips.fetch_add(1, Ordering::Relaxed);
        support::pause(Duration::from_millis(2));
        flip();
        known = inode();
    }
}

#[test]
fn whole_trees_that_are_flipped_as_they_are_exchanged() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    lab.host("web1").setting("sandbox = \"off\"");
    lab.hosts[0].start();
    let (site, tree, disk) = (lab.site(), lab.hosts[0].tree(), lab.hosts[0].disk());
    write(&site.join("a"), "round 0");
    write(&site.join("passwd"), "ours");
    lab.spec(&format!("{DELETE}[commit]\nlayout = \"swap\"\n"));
    lab.deploy(&[]).exits(0);

    let victim = Victim::new(disk.join("victim"));
    let (stop, flips) = (AtomicBool::new(false), AtomicU64::new(0));
    let seconds = std::env::var("MAKUO_RACE_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(2);
    let watch = Stopwatch::start();

    let (mut round, mut went) = (0, 0);
    std::thread::scope(|scope| {
        let flipper =
            scope.spawn(|| flip_exchanged(&tree, &disk.join("flip"), &victim.path, &stop, &flips));
        while round < 5 || watch.read() < Duration::from_secs(seconds) {
            round += 1;
            write(&site.join("a"), format!("round {round}"));
            went += u64::from(
                lab.makuo(&["deploy", "www.toml", "--expect", "1", "--timeout", "5s"])
                    .code
                    == 0,
            );
        }
        stop.store(true, Ordering::Release);
        flipper.join().expect("it does not panic");
    });

    println!(
        "{} flips, {went} of {round} went through",
        flips.load(Ordering::Relaxed)
    );
    assert!(
        flips.load(Ordering::Relaxed) > 0 && went > 0,
        "nothing was flipped, or nothing went through"
    );

    victim.check("flipped trees");
    write(&site.join("a"), "the end");
    let first = lab.deploy(&["--checksum"]);
    if first.code != 0 {
        first.exits(3).says(&["deploy again"]);
        lab.deploy(&["--checksum"]).exits(0);
    }

    lab.all_same(&site);
    victim.check("flipped trees");
}

#[test]
fn nothing_is_sent_from_a_directory_that_a_link_leads_to() {
    let Some(old) = support::Old::loopback(2) else {
        return;
    };
    let mut old = old;
    (0..2).for_each(|host| old.start(host, &["-o"]));
    let base = old.base(0);
    write(&base.join("page"), "ours");
    support::until("a member", || {
        old.makuo(0, &["send", "-n", "page", "--json"]).result()["targets"].as_u64() == Some(1)
    });
    let (secret, away) = (old.dir(0).join("secret"), old.dir(0).join("away"));
    write(&secret.join("shadow"), "root's");
    std::fs::rename(&base, &away).expect("mine");
    symlink(&secret, &base).expect("new");
    for verb in ["send", "sync"] {
        old.makuo(0, &[verb, "-r", "."])
            .exits(3)
            .says(&["not the directory any more that was opened"]);
    }
    assert!(!old.base(1).join("shadow").exists());
    std::fs::remove_file(&base).expect("the link");
    std::fs::rename(&away, &base).expect("mine");
    old.makuo(0, &["send", "page"]).exits(0);
    assert_eq!(read(&old.base(1).join("page")), b"ours");
}

#[test]
fn a_root_that_became_a_link_is_refused_and_said() {
    let Some(lab) = Lab::loopback(1) else { return };
    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(0);
    let (tree, disk) = (lab.hosts[0].tree(), lab.hosts[0].disk());
    let victim = Victim::new(disk.join("victim"));
    std::fs::rename(&tree, disk.join("away")).expect("mine");
    symlink(&victim.path, &tree).expect("new");

    write(&lab.site().join("a"), "b");
    let words = "another directory than when the daemon started";
    lab.deploy(&[]).exits(3).says(&[words]);
    lab.diff(&[]).exits(3).says(&[words]);
    victim.check("root");
    assert_eq!(read(&disk.join("away/a")), b"a");

    // Once restored, the tree is served again.
    std::fs::remove_file(&tree).expect("the link");
    std::fs::rename(disk.join("away"), &tree).expect("mine");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());

    victim.check("root");
}

#[test]
fn a_state_directory_that_became_a_link_is_refused_and_said() {
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };

    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(0);
    let disk = lab.hosts[0].disk();
    let (state, victim) = (disk.join("state/www"), Victim::new(disk.join("victim")));
    std::fs::rename(&state, disk.join("away")).expect("mine");
    symlink(&victim.path, &state).expect("new");
    write(&lab.site().join("a"), "b");

    lab.deploy(&[]).exits(3).says(&["the state directory"]);
    // The first session ends meanwhile, and its state is removed.
    support::pause(Duration::from_secs(3));
    victim.check("state");
    assert_eq!(read(&lab.hosts[0].tree().join("a")), b"a");
    std::fs::remove_file(&state).expect("the link");
    std::fs::rename(disk.join("away"), &state).expect("mine");

    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    lab.hosts[0].restart();
}
