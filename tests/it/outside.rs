//! Continuous edits on hosts while whole trees are exchanged: every completed edit must survive.
//!
//! The reference is a log of the editor's actions, independent of makuo. A failed system call
//! counts as no action. `MAKUO_OUTSIDE_ROUNDS` is the number of deployments (8),
//! `MAKUO_OUTSIDE_SEED` selects another order of edits.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::support::{self, Lab, pause, write};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

/// Directories for created, replaced, renamed and removed names: protected, excluded, unknown to
/// the release, and governed by the release.
const PLACES: [&str; 8] = [
    "up",
    "up/deep",
    "cache",
    "app/cache",
    "own",
    "app",
    "app/sub",
    "",
];
/// The governed ones among them, recreated for each release.
const GOVERNED: [&str; 3] = ["app", "app/sub", ""];
/// Files with appended lines only.
const LOGS: [&str; 4] = ["up/log", "cache/log", "app/cache/log", "app/log"];

/// A concurrent editor of a tree.
struct Editor {
    top: PathBuf,
    rng: fastrand::Rng,
    /// Expected content of each path; `None` for a removed one.
    wrote: BTreeMap<String, Option<String>>,
    /// Directories held open, with the change at which each was opened.
    dirs: HashMap<&'static str, (File, u64)>,
    logs: HashMap<&'static str, File>,
    count: u64,
    /// Number of completed actions by kind.
    done: BTreeMap<&'static str, u64>,
    /// Actions on each path, the latest last.
    last: BTreeMap<String, Vec<String>>,
}

impl Editor {
    fn new(top: &Path, seed: u64) -> Self {
        let wrote = LOGS
            .into_iter()
            .map(|log| (log.to_string(), Some(String::new())))
            .collect();
        let (dirs, logs, done, last) = (
            HashMap::new(),
            HashMap::new(),
            BTreeMap::new(),
            BTreeMap::new(),
        );

        Self {
            top: top.to_path_buf(),
            rng: fastrand::Rng::with_seed(seed),
            wrote,
            dirs,
            logs,
            count: 0,
            done,
            last,
        }
    }

    fn act(&mut self) {
        self.count += 1;
        let text = format!("{} of {:x}\n", self.count, self.rng.u64(..));
        match self.rng.u8(..10) {
            0 => self.append(&text),
            1 | 2 => self.by_handle(&text),
            _ => self.by_path(&text),
        }
    }

    /// Appends a line, through an open file or by path.
    fn append(&mut self, text: &str) {
        let log = LOGS[self.rng.usize(..LOGS.len())];
        if self.rng.u8(..8) == 0 {
            self.logs.remove(log);
        }

        if !self.logs.contains_key(log)
            && let Ok(file) = File::options().append(true).open(self.top.join(log))
        {
            self.logs.insert(log, file);
        }

        let Some(mut file) = self.logs.get(log) else {
            return;
        };

        if file.write_all(text.as_bytes()).is_ok() {
            self.wrote
                .entry(log.to_string())
                .or_default()
                .get_or_insert_default()
                .push_str(text);
            self.note("appended", log);
        }
    }

    /// Makes a change through an open directory, on separate names: the order of two writes could
    /// not be determined.
    fn by_handle(&mut self, text: &str) {
        let place = PLACES[self.rng.usize(..PLACES.len())];
        if self.rng.u8(..6) == 0 {
            self.dirs.remove(place);
        }

        if !self.dirs.contains_key(place)
            && let Ok(dir) = File::open(self.top.join(place))
        {
            self.dirs.insert(place, (dir, self.count));
        }

        let Some((dir, opened)) = self.dirs.get(place) else {
            return;
        };

        let name = format!("h{opened}-{}", self.rng.u8(..3));
        let path = join(place, &name);

        // After a release is confirmed, a missing name cannot be attributed to the editor or to
        // makuo.
        if self.rng.u8(..4) == 0 && !GOVERNED.contains(&place) {
            if rustix::fs::unlinkat(dir, &name, AtFlags::empty()).is_ok() {
                self.note("removed by a handle", &path);
                self.wrote.insert(path, None);
            }
        } else if replace(dir.as_fd(), &name, text).is_ok() {
            self.note("replaced by a handle", &path);
            self.wrote.insert(path, Some(text.to_string()));
        }
    }

    fn by_path(&mut self, text: &str) {
        let place = PLACES[self.rng.usize(..PLACES.len())];
        let (path, other) = (join(place, &self.name()), join(place, &self.name()));
        let (at, to) = (self.top.join(&path), self.top.join(&other));
        let new = at.with_extension("new");

        match self.rng.u8(..12) {
            0..=5 => {
                if std::fs::write(&new, text)
                    .and_then(|()| std::fs::rename(&new, &at))
                    .is_ok()
                {
                    self.note("replaced", &path);
                    self.wrote.insert(path, Some(text.to_string()));
                }
            }
            6..=8 => {
                if std::fs::remove_file(&at).is_ok() {
                    self.note("removed", &path);
                    self.wrote.insert(path, None);
                }
            }
            // A lock file that exists for a moment only.
            9 => {
                let lock = join(place, "lock");
                let made = File::options()
                    .write(true)
                    .create_new(true)
                    .open(self.top.join(&lock));
                if made.is_ok() {
                    self.wrote.insert(lock.clone(), Some(String::new()));
                }
                if std::fs::remove_file(self.top.join(&lock)).is_ok() {
                    self.note("locked", &lock);
                    self.wrote.insert(lock, None);
                }
            }
            10 => {
                let (cwd, flags) = (rustix::fs::CWD, RenameFlags::NOREPLACE);
                let text = self.wrote.get(&path).cloned().flatten();
                if rustix::fs::renameat_with(cwd, &at, cwd, &to, flags).is_ok() {
                    // The renamed file may have been replaced just before the rename.
                    let found = std::fs::read_to_string(&to).ok().or(text);
                    self.note("renamed", &path);
                    self.note("got by a rename", &other);
                    self.wrote.insert(path, None);
                    self.wrote.insert(other, found);
                }
            }
            _ => {
                let dir = join(place, &format!("dir{}", self.count));
                let inside = format!("{dir}/inside");
                if std::fs::create_dir(self.top.join(&dir)).is_ok()
                    && std::fs::write(self.top.join(&inside), text).is_ok()
                {
                    self.note("made", &inside);
                    self.wrote.insert(inside, Some(text.to_string()));
                }
            }
        }
    }

    /// Removes files with unique names, to keep the tree at a constant size.
    fn tidy(&mut self) {
        let once = |path: &String| {
            path.ends_with("/inside") || path.rsplit('/').next().is_some_and(|n| n.starts_with('h'))
        };

        for path in self.wrote.keys().filter(|path| once(path)) {
            let at = self.top.join(path);
            let _ = if path.ends_with("/inside") {
                std::fs::remove_dir_all(at.parent().expect("in a directory"))
            } else {
                std::fs::remove_file(at)
            };
            self.last.remove(path);
        }

        self.wrote.retain(|path, _| !once(path));
    }

    fn name(&mut self) -> String {
        format!("p{}", self.rng.u8(..6))
    }

    fn note(&mut self, what: &'static str, path: &str) {
        *self.done.entry(what).or_default() += 1;
        self.last
            .entry(path.to_string())
            .or_default()
            .push(format!("{} {what}", self.count));
    }

    /// Lists differences from the expected content.
    fn lost(&self) -> Vec<String> {
        let wrong = self.wrote.iter().filter_map(|(path, wanted)| {
            let found = std::fs::read_to_string(self.top.join(path)).ok();
            let last = self
                .last
                .get(path)
                .map_or(&[][..], |all| &all[all.len().saturating_sub(8)..]);
            (found != *wanted)
                .then(|| format!("{path}: {found:?}, wanted {wanted:?}, after {last:?}"))
        });
        wrong.collect()
    }
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() {
        name.to_string()
    } else {
        format!("{place}/{name}")
    }
}

fn replace(dir: BorrowedFd<'_>, name: &str, text: &str) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let new = format!("{name}.new");
    let mut file = File::from(rustix::fs::openat(
        dir,
        &new,
        flags,
        Mode::from_raw_mode(0o644),
    )?);
    file.write_all(text.as_bytes())?;

    Ok(rustix::fs::renameat(dir, &new, dir, name)?)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Makes a release, including a file that the editor changes as well.
fn release(site: &Path, round: u64) {
    write(&site.join("page"), format!("release {round}"));
    write(&site.join("app/fought-over"), format!("release {round}"));
    write(&site.join("app/stays"), "stays");
    write(
        &site.join(format!("app/sub/of-{}", round % 3)),
        format!("release {round}"),
    );
    let made = site.join("made");

    match round % 2 {
        0 => write(&made.join("file"), "made"),
        _ => drop(std::fs::remove_dir_all(made)),
    }
}

#[test]
fn what_others_write_while_trees_change_places_is_there() {
    let (rounds, seed) = (
        setting("MAKUO_OUTSIDE_ROUNDS", 8),
        setting("MAKUO_OUTSIDE_SEED", 1),
    );
    println!("{rounds} rounds, MAKUO_OUTSIDE_SEED={seed}");
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let sick = lab.path("sick");
    lab.spec("exclude = [\"/cache/\", \"/app/cache/\"]\n[commit]\nlayout = \"swap\"\non_failure = \"revert\"\n");
    let host = lab.host("web1");
    host.rule("protect = [\"/up/\"]");
    host.rule(&format!(
        "health = [\"sh\", \"-c\", \"test ! -e {}\"]",
        sick.display()
    ));

    host.rule("health_deadline = \"200ms\"\nhealth_interval = \"50ms\"");
    let top = host.tree();
    for dir in PLACES {
        std::fs::create_dir_all(top.join(dir)).expect("new");
    }

    LOGS.iter().for_each(|log| write(&top.join(log), ""));
    host.start();

    let editor = Mutex::new(Editor::new(&top, seed));
    let over = AtomicBool::new(false);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut committed, mut reverted) = (0, 0);

    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                locked(&editor).act();
                // Conflict: the editor writes to a file changed by the release.
                let _ = std::fs::write(top.join("app/fought-over"), "others");
                pause(Duration::from_micros(200));
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 1..=rounds {
                release(&lab.site(), round);
                let fails = round > 1 && rng.u8(..4) == 0;
                if fails {
                    write(&sick, "");
                }
                let began = locked(&editor).count;
                let ran = lab.deploy(&[]);
                match ran.code {
                    0 => committed += 1,
                    3 if fails => reverted += 1,
                    _ => panic!("round {round}, MAKUO_OUTSIDE_SEED={seed}: {ran}"),
                }
                let _ = std::fs::remove_file(&sick);
                // Until the tree aside is removed, no edit is lost, but some may not be in the live
                // tree yet.
                let undo = lab.hosts[0].state().join("www/undo");
                let mut quiet = locked(&editor);
                let rests =
                    || std::fs::read_dir(&undo).map_or(true, |mut names| names.next().is_none());
                support::until("a tree that is confirmed", rests);
                let lost = quiet.lost();
                assert!(
                    lost.is_empty(),
                    "{ran}\nMAKUO_OUTSIDE_SEED={seed}, round {round} from change {began} on: {} lost\n{}",
                    lost.len(),
                    lost.join("\n")
                );
                quiet.tidy();
            }
        }));
        over.store(true, Ordering::Release);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });

    println!(
        "{committed} committed, {reverted} reverted, {:?}",
        locked(&editor).done
    );

    // Without concurrent edits, the release determines all governed content.
    release(&lab.site(), rounds + 1);

    lab.deploy(&[]).exits(0);
    for governed in ["page", "app/fought-over", "app/stays", "app/sub"] {
        let (site, www) = (lab.site().join(governed), top.join(governed));
        match site.is_dir() {
            true => std::fs::read_dir(&site)
                .expect("there")
                .flatten()
                .for_each(|file| {
                    assert_eq!(
                        support::read(&file.path()),
                        support::read(&www.join(file.file_name()))
                    );
                }),
            false => assert_eq!(support::read(&site), support::read(&www)),
        }
    }

    let lost = locked(&editor).lost();
    assert!(lost.is_empty(), "{lost:#?}");
}
