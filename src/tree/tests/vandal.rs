//! Random changes of a directory, and indexes compared path by path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::manifest::EntryKind;
use crate::manifest::rules::PathFilter;
use crate::tree::index::Index;
use crate::tree::scan::unread_content;

/// Longer than a tick of the file system's clock and than the scan's margin for recent changes.
pub(super) const REST: Duration = Duration::from_millis(45);

/// Reads a number from the environment.
pub(super) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

/// Changes a directory at random.
pub(super) struct Vandal {
    pub(super) rng: fastrand::Rng,
    pub(super) top: PathBuf,
    /// A directory beside the tree, as source and target of moves.
    pub(super) outside: PathBuf,
}

/// Number of paths at which the vandal creates no more.
const MAX_PATHS: usize = 150;
const NAMES: [&str; 8] = ["a", "b", "c", "d", "k.keep", "t.tmp", "u.tmp", "cache"];

impl Vandal {
    pub(super) fn new(seed: u64, dir: &Path, top: &str) -> Self {
        let outside = dir.join(format!("{top}-outside"));
        let top = dir.join(top);
        std::fs::create_dir_all(&top).expect("makes");
        std::fs::create_dir_all(&outside).expect("makes");
        Self {
            rng: fastrand::Rng::with_seed(seed),
            top,
            outside,
        }
    }

    /// Returns all directories and all other paths.
    pub(super) fn all(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut dirs = vec![self.top.clone(), self.outside.clone()];
        let mut others = Vec::new();
        let mut at = 0;
        while at < dirs.len() {
            let mut names: Vec<PathBuf> = std::fs::read_dir(&dirs[at])
                .expect("lists")
                .map(|e| e.expect("lists").path())
                .collect();
            names.sort();
            for path in names.into_iter().filter(|path| !path.ends_with(".makuo")) {
                if path.symlink_metadata().expect("is there").is_dir() {
                    &mut dirs
                } else {
                    &mut others
                }
                .push(path);
            }
            at += 1;
        }

        (dirs, others)
    }

    /// Performs one random action; impossible actions are skipped.
    pub(super) fn act(&mut self) {
        let (dirs, others) = self.all();
        let count = dirs.len() + others.len();
        let into = self
            .rng
            .choice(&dirs)
            .expect("there are two")
            .join(self.rng.choice(NAMES).expect("some"));

        let dir = self.rng.choice(&dirs[2..]).unwrap_or(&into).clone();
        let other = self.rng.choice(&others).unwrap_or(&into).clone();
        match self.rng.u8(..20) {
            0..=3 if count < MAX_PATHS => self.write(&into),
            4 if count < MAX_PATHS => drop(std::fs::create_dir(&into)),
            5..=8 => drop(std::fs::rename(&dir, &into)),
            9 | 10 => drop(std::fs::rename(&other, &into)),
            11..=13 if count < MAX_PATHS => drop(std::fs::hard_link(&other, &into)),
            14 => drop(std::fs::remove_file(&other)),
            15 if self.rng.bool() => drop(std::fs::remove_dir_all(&dir)),
            15 => drop(std::os::unix::fs::symlink("a", &into)),
            16 => {
                // Replaces a path by one of another kind.
                std::fs::remove_dir_all(&dir)
                    .and_then(|()| std::fs::write(&dir, "was a directory"))
                    .unwrap_or(());
                let _ = std::fs::remove_file(&other).and_then(|()| std::fs::create_dir(&other));
            }
            // Replaces a directory by a new one with the same names.
            17 => {
                let names: Vec<_> = others
                    .iter()
                    .filter(|path| path.parent() == Some(&dir))
                    .collect();
                if std::fs::rename(&dir, &into).is_ok() && std::fs::create_dir(&dir).is_ok() {
                    names.iter().for_each(|path| self.write(path));
                }
            }
            _ => self.edit(&other),
        }
    }

    pub(super) fn write(&mut self, path: &Path) {
        let size = self.rng.usize(1..40);
        let bytes: Vec<u8> = std::iter::repeat_with(|| self.rng.alphanumeric() as u8)
            .take(size)
            .collect();

        if std::fs::write(path, bytes).is_ok() {
            let file = std::fs::File::options()
                .write(true)
                .open(path)
                .expect("opens");
            let old =
                SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.rng.u64(..1000));
            file.set_modified(old).expect("sets the time");
        }
    }

    /// Overwrites a file so that only the change time in its stat differs.
    pub(super) fn edit(&mut self, path: &Path) {
        let Ok(meta) = path.symlink_metadata() else {
            return;
        };

        if !meta.is_file() {
            return;
        }

        let bytes: Vec<u8> = std::iter::repeat_with(|| self.rng.alphanumeric() as u8)
            .take(meta.len() as usize)
            .collect();
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("opens");

        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("writes");
        file.set_modified(meta.modified().expect("has a time"))
            .expect("sets the time");
    }
}

/// Describes an index path by path, and lists unread files without details.
pub(super) fn said(index: &Index) -> BTreeMap<String, String> {
    let entries = index.entries().map(|e| e.expect("whole").entry);
    entries
        .map(|e| {
            let said = if e.kind == EntryKind::File(unread_content()) {
                "unread".into()
            } else {
                format!("{e:?}")
            };
            (e.path.to_string(), said)
        })
        .collect()
}

pub(super) fn filter(rng: &mut fastrand::Rng) -> PathFilter {
    let patterns: &[&str] = match rng.u8(..4) {
        0 => &["*.keep"],
        1 => &["/a/b/", "*.keep"],
        2 => &["cache"],
        _ => &[],
    };
    PathFilter::at_top(patterns)
}
