//! Model test of a watch without hosts: whatever a writer does, the index ends equal to that of a
//! fresh scan.
//!
//! Time is an argument, so a minute of quiet costs nothing and thousands of changes pass in a
//! second. Changes happen between two scans and in each gap of a scan.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::batch::{Batcher, ChangeBatch, Pace, RescanCause};
use super::check::Checks;
use super::exclusion::WatchTarget;
use super::inotify::{Events, Watcher};
use super::polled_files;
use crate::drive::clock;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::tree::Root;
use crate::tree::index::Index;
use crate::tree::scan::{
    Exposures, Gap, Hints, IndexReuse, PathSelection, ScanOptions, ScanWindows, scan,
};
use crate::units::Moment;

const EXCLUDED: [&str; 2] = ["*.x", "/hidden/"];
const PACE: Pace = Pace {
    settle: Duration::from_millis(100),
    max_delay: Duration::from_secs(1),
};

/// Random changes to a source.
struct Writer {
    site: PathBuf,
    outside: PathBuf,
    rng: fastrand::Rng,
    open: Vec<File>,
    /// Operations so far, printed on a failure.
    done: Vec<String>,
}

impl Writer {
    fn dir(&mut self) -> PathBuf {
        let depth = self.rng.usize(0..3);
        (0..depth).fold(self.site.clone(), |path, _| {
            path.join(format!("d{}", self.rng.u8(0..3)))
        })
    }

    fn file(&mut self) -> PathBuf {
        self.dir().join(format!("f{}", self.rng.u8(0..4)))
    }

    /// A name without events, or with events for its creation and removal only.
    fn other(&mut self, file: &Path) -> PathBuf {
        match self.rng.u8(0..3) {
            0 => file.with_extension("x"),
            1 => self.site.join(format!("hidden/f{}", self.rng.u8(0..4))),
            _ => self.outside.join(format!("f{}", self.rng.u8(0..4))),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        // Often of the same length.
        let len = [3, 3, 3, 3000][self.rng.usize(0..4)];
        (0..len).map(|_| self.rng.u8(b'a'..=b'z')).collect()
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.site)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Inode of a path.
    fn inode(path: &Path) -> u64 {
        path.symlink_metadata().map_or(0, |meta| meta.ino())
    }

    /// Performs one random operation; many fail, which is fine.
    fn happen(&mut self) {
        let one = self.file();
        let two = self.file();
        let dir = self.dir();
        let to = self.dir();
        let bytes = self.bytes();
        let other = self.other(&one);
        let is_dir = |path: &Path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        let append = |path: &Path| {
            File::options()
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(&bytes))
        };

        let mut inode = Self::inode(&one);
        let before = Self::inode(&two);
        let op = self.rng.u8(0..32);
        let (what, ended) = match op {
            0..=2 => {
                let made = one
                    .parent()
                    .is_some_and(|parent| std::fs::create_dir_all(parent).is_ok());
                (
                    "write",
                    if made {
                        std::fs::write(&one, &bytes)
                    } else {
                        Ok(())
                    },
                )
            }
            3 => ("append", append(&one)),
            4 => (
                "patch",
                File::options()
                    .write(true)
                    .open(&one)
                    .and_then(|file| file.write_all_at(&bytes, 0)),
            ),
            5 => (
                "truncate",
                nix::unistd::truncate(&one, self.rng.i64(0..3)).map_err(Into::into),
            ),
            6 | 7 => ("rename", std::fs::rename(&one, &two)),
            8 | 9 => ("link", std::fs::hard_link(&one, &two)),
            10 | 11 => {
                let linked = std::fs::hard_link(&one, &two).and_then(|()| append(&two));
                (
                    "link, append and unlink",
                    linked.and_then(|()| std::fs::remove_file(&two)),
                )
            }
            12 if self.open.len() < 6 => {
                let linked = std::fs::hard_link(&one, &two);
                let open = linked.and_then(|()| File::options().append(true).open(&two));
                (
                    "link, open and unlink",
                    open.map(|open| self.open.push(open))
                        .and_then(|()| std::fs::remove_file(&two)),
                )
            }
            13 => ("unlink", std::fs::remove_file(&one)),
            14 | 15 if dir != self.site && to != self.site => {
                ("rename dir", std::fs::rename(&dir, &to))
            }
            16 if dir != self.site && to != self.site => (
                "exchange",
                renameat2(AT_FDCWD, &dir, AT_FDCWD, &to, RenameFlags::RENAME_EXCHANGE)
                    .map_err(Into::into),
            ),
            17 if dir != self.site && is_dir(&dir) => ("remove dir", std::fs::remove_dir_all(&dir)),
            18 if dir.is_symlink() => ("unlink dir", std::fs::remove_file(&dir)),
            18 if dir != self.site => ("symlink", symlink("keep", &dir)),
            19 if !one.is_symlink() => {
                let mode = 0o600 + u32::from(self.rng.u8(0..64));
                (
                    "chmod",
                    std::fs::set_permissions(&one, std::fs::Permissions::from_mode(mode)),
                )
            }
            20..=22 if self.open.len() < 6 => {
                let open = File::options()
                    .append(true)
                    .create(self.rng.bool())
                    .open(&one);
                ("open", open.map(|open| self.open.push(open)))
            }
            23..=25 if !self.open.is_empty() => {
                let at = self.rng.usize(0..self.open.len());
                inode = self.open[at].metadata().map_or(0, |meta| meta.ino());
                ("append by handle", self.open[at].write_all(&bytes))
            }
            26 if !self.open.is_empty() => {
                let open = self.open.swap_remove(self.rng.usize(0..self.open.len()));
                inode = open.metadata().map_or(0, |meta| meta.ino());
                ("close", Ok(()))
            }
            27 | 28 => {
                // A name outside that is created later causes no event at all.
                let _ = std::fs::remove_file(&other);
                (
                    "link from other",
                    std::fs::write(&other, &bytes).and_then(|()| std::fs::hard_link(&other, &one)),
                )
            }
            29 => (
                "link to .x",
                std::fs::hard_link(&one, two.with_extension("x")),
            ),
            _ => {
                inode = Self::inode(&other);
                ("append to other", append(&other))
            }
        };

        if ended.is_ok() {
            let named = [&one, &two, &other, &dir, &to].map(|path| self.shown(path));
            self.done
                .push(format!("{what}: {named:?}, inode {inode}, was {before}"));
        }
    }
}

/// The watch: the work of [`super::listener`] and [`super::WatchLoop`], one after the other.
struct Rig {
    dir: tempfile::TempDir,
    root: Root,
    watcher: Watcher,
    batcher: Batcher,
    now: Moment,
    look: Moment,
    checks: Checks,
    looks: ScanWindows,
    /// Whether a scan failed, so that the next one is full.
    needs_full_scan: bool,
    index: Option<Arc<Index>>,
    scans: usize,
    /// Whether changes happen during a scan.
    busy: bool,
    writer: Arc<Mutex<Writer>>,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a directory");
        let site = dir.path().join("site");
        let outside = dir.path().join("outside");
        for made in [&site.join("hidden"), &outside, &dir.path().join("cache")] {
            std::fs::create_dir_all(made).expect("new");
        }

        std::fs::write(site.join("keep"), "always").expect("new");
        let root = Root::open(&site).expect("there");
        let rng = fastrand::Rng::with_seed(seed);
        let mut writer = Writer {
            site: site.clone(),
            outside,
            rng,
            open: Vec::new(),
            done: Vec::new(),
        };

        (0..20).for_each(|_| writer.happen());
        let target = WatchTarget {
            source: site,
            excluded: PathFilter::at_top(&EXCLUDED),
            own: None,
        };

        let watcher = Watcher::establish(target).expect("watched");
        let now = Moment(1_000_000_000);
        let batcher = Batcher::new(PACE);
        let writer = Arc::new(Mutex::new(writer));
        let mut rig = Self {
            dir,
            root,
            watcher,
            batcher,
            now,
            look: now,
            index: None,
            scans: 0,
            busy: false,
            writer,
            checks: Checks::new(now),
            looks: ScanWindows::default(),
            needs_full_scan: true,
        };

        rig.scan(None);
        rig
    }

    fn happen(&self) {
        self.writer.lock().expect("whole").happen();
    }

    fn options(&self, hints: Option<Hints>) -> ScanOptions {
        let exclude = |pattern: &&str| Exclude {
            base: None,
            pattern: (*pattern).into(),
        };

        let excludes = EXCLUDED.iter().map(exclude).collect();
        ScanOptions {
            reuse: IndexReuse {
                hints,
                ..IndexReuse::default()
            },
            paths: PathSelection {
                excludes,
                without_state: true,
                ..PathSelection::default()
            },
            threads: 2,
            ..ScanOptions::new(clock::wall())
        }
    }

    /// Hook that makes changes in the gaps of a scan.
    fn gap(&self) -> Gap {
        let writer = Arc::clone(&self.writer);
        let rng = Mutex::new(fastrand::Rng::with_seed(self.now.0));
        let happen = move || {
            if rng.lock().is_ok_and(|mut rng| rng.u8(0..8) == 0) {
                writer.lock().expect("whole").happen();
            }
        };

        Gap(self
            .busy
            .then(|| Arc::new(happen) as Arc<dyn Fn() + Send + Sync>))
    }

    fn scan(&mut self, hints: Option<Hints>) {
        self.scans += 1;
        let path = self.dir.path().join(format!("cache/{}", self.scans % 2));
        let hints = hints.filter(|_| !self.needs_full_scan);
        let leaves_out = |hints: &Hints| hints.everywhere.is_none() || !hints.held.is_empty();
        if !hints.as_ref().is_some_and(leaves_out) {
            self.looks = ScanWindows::default();
        }

        let exposures = Exposures::default();
        let began = clock::wall();
        let options = ScanOptions {
            exposures: Some(exposures.clone()),
            gap: self.gap(),
            ..self.options(hints)
        };

        let scanned = scan(&self.root, &options, self.index.as_ref(), &path);
        self.watcher.expose(self.now, &exposures.take());
        self.looks.add(began, clock::wall());
        self.needs_full_scan = scanned.is_err();

        match scanned {
            Ok(scanned) => self.index = Some(scanned.index),
            // A file that changed while being read is read again.
            Err(_) => self.batcher.everything(self.now, RescanCause::Missed),
        }
    }

    fn read_events(&mut self) {
        self.watcher.set_gap(self.gap());

        loop {
            match self
                .watcher
                .read_events(self.now, &mut self.batcher)
                .expect("there")
            {
                Events::More => {}
                Events::Drained => return,
                Events::Lost(_) => {
                    self.watcher =
                        Watcher::establish(self.watcher.target().clone()).expect("watched");
                    self.batcher.everything(self.now, RescanCause::Missed);
                }
            }
        }
    }

    /// Runs the watch for the given time.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.read_events();
        self.watcher.forget(self.now);
        self.watcher.check_open_files(self.now, &mut self.batcher);

        if self.look <= self.now {
            self.look = self.now + polled_files::FILE_POLL_INTERVAL;
            self.watcher.poll_files(self.now, &mut self.batcher);
        }

        match self.batcher.take(self.now) {
            Some(ChangeBatch::Paths(paths)) => {
                self.checks.note_partial(self.now);
                self.scan(Some(paths.hints()));
            }
            Some(ChangeBatch::Everything(_)) => {
                self.checks.note_full(self.now, None);
                self.scan(None);
            }
            None if !self.batcher.is_ready() && self.checks.due() <= self.now => {
                self.checks.note_full(self.now, None);
                self.look();
            }
            None => {}
        }
    }

    /// Runs a full check.
    fn look(&mut self) {
        let held = self.batcher.held().cloned().collect();
        self.scan(Some(Hints {
            held,
            everywhere: Some(self.looks.clone()),
            ..Hints::default()
        }));
    }

    /// Differences between the index and a scan without one, once the changes have stopped.
    fn differs_at_rest(&mut self) -> Option<String> {
        self.busy = false;
        self.writer.lock().expect("whole").open.clear();
        (0..350).for_each(|_| self.pass(Duration::from_millis(100)));
        self.differs()
    }

    /// Differences between the index and a scan without one.
    fn differs(&self) -> Option<String> {
        let list = |index: &Index| -> Vec<String> {
            let entries = index.entries().map(|found| found.expect("readable"));
            entries
                .map(|found| format!("{:?}, inode {}", found.entry, found.version.ino))
                .collect()
        };

        let fresh = self.dir.path().join("cache/fresh");
        let fresh = scan(&self.root, &self.options(None), None, &fresh).expect("at rest");
        let index = self.index.as_ref()?;
        if fresh.index.root() == index.root() {
            return None;
        }

        let is = list(&fresh.index);
        let known = list(index);
        let lacks = is
            .iter()
            .filter(|entry| !known.contains(entry))
            .map(|entry| format!("+ {entry}\n"));
        let has = known
            .iter()
            .filter(|entry| !is.contains(entry))
            .map(|entry| format!("- {entry}\n"));

        let done = &self.writer.lock().expect("whole").done;
        Some(
            lacks
                .chain(has)
                .chain(done.iter().map(|line| format!("{line}\n")))
                .collect(),
        )
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn whatever_happens_the_index_becomes_what_the_source_is() {
    let first = number("MAKUO_ROUNDS_SEED", fastrand::u64(0..1 << 32));
    let mut failed = 0;
    for seed in first..first + number("MAKUO_ROUNDS", 15) {
        let mut rig = Rig::new(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        for round in 0..4 {
            rig.busy = round % 2 == 1;
            for _ in 0..60 {
                rig.happen();
                match rng.u8(0..24) {
                    0..=3 => rig.pass(Duration::from_millis(rng.u64(0..150))),
                    4..=6 => rig.read_events(),
                    // Long enough for a full check.
                    7 => (0..25).for_each(|_| rig.pass(Duration::from_millis(100))),
                    _ => {}
                }
            }
            if let Some(text) = rig.differs_at_rest() {
                failed += 1;
                println!("MAKUO_ROUNDS_SEED={seed}, round {round}: not the same:\n{text}");
                break;
            }
        }
    }

    assert_eq!(failed, 0, "rounds failed");
}

#[test]
fn what_changes_in_the_gaps_of_a_look_is_found_by_the_next_one() {
    let first = number("MAKUO_ROUNDS_SEED", fastrand::u64(0..1 << 32));
    for seed in first..first + number("MAKUO_ROUNDS", 15) {
        let mut rig = Rig::new(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        for round in 0..20 {
            // Within one tick of the kernel's clock, often with the same length as before.
            rig.writer.lock().expect("whole").done.clear();
            (0..rng.usize(0..4)).for_each(|_| rig.happen());
            rig.busy = true;
            if rng.bool() {
                rig.scan(None)
            } else {
                rig.look()
            }

            rig.busy = false;
            if rng.bool() {
                rig.scan(None)
            } else {
                rig.look()
            }

            if let Some(text) = rig.differs() {
                panic!("MAKUO_ROUNDS_SEED={seed}, round {round}: not the same:\n{text}");
            }
        }
    }
}
