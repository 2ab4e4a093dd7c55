//! Files that can change without an event: inotify reports nothing for writes through an unwatched
//! name, or through an open handle of an unlinked name.
//!
//! Owns the watched files with further names or open writers, and the last known version of each.
//! Knows neither the source of the names nor the way to stat a file.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use crate::manifest::TreePath;
use crate::tree::scan::Exposed;
use crate::tree::{FileId, FileStat, Version};
use crate::units::Moment;

/// Interval between two polls.
pub const FILE_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Largest number of files in one poll; the next poll continues with the others.
const MAX_POLLED_AT_ONCE: usize = 10_000;
/// Largest number of files that are polled at all.
pub const MAX_FILES: usize = 200_000;

/// Time after its last change for which a file counts as open, if that cannot be determined.
const MAY_BE_OPEN: Duration = Duration::from_secs(600);

/// Watched files that can change without an event.
#[derive(Debug, Default)]
pub struct PolledFiles {
    files: BTreeMap<FileId, PolledFile>,
    /// File of each watched name.
    names: HashMap<TreePath, FileId>,
    /// Last polled file.
    last: Option<FileId>,
    /// Whether some files are not polled because there are too many.
    full: bool,
}

#[derive(Debug)]
struct PolledFile {
    /// Watched names.
    paths: Vec<TreePath>,
    /// Number of all names.
    names: u32,
    version: Version,
    /// Whether a process had the file open for writing at the last check.
    is_open: bool,
    /// Time of the last known change.
    since: Moment,
}

/// Result of a poll: a file that changed or was closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Changed {
    /// Watched names of the file.
    pub paths: Vec<TreePath>,
    /// Whether a process has the file open for writing.
    pub is_open: bool,
    /// Whether the file differs from its last known version.
    pub is_changed: bool,
}

impl PolledFile {
    fn has_other_names(&self) -> bool {
        self.names as usize > self.paths.len()
    }
}

impl PolledFiles {
    /// Adds a watched name of a file with several names.
    pub fn add(&mut self, path: &TreePath, stat: &FileStat) {
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&stat.id) {
            self.full = true;
            return;
        }

        let fresh = || PolledFile {
            paths: Vec::new(),
            names: stat.nlink,
            version: stat.version(),
            is_open: false,
            since: Moment::default(),
        };

        let linked = self.files.entry(stat.id).or_insert_with(fresh);
        linked.names = stat.nlink;
        if self.names.insert(path.clone(), stat.id) != Some(stat.id) {
            linked.paths.push(path.clone());
        }
    }

    /// Adds a file that a scan found exposed, in the version that the scan read.
    pub fn expose(&mut self, now: Moment, exposed: &Exposed) {
        self.add(&exposed.path, &exposed.stat);
        if let Some(linked) = self.files.get_mut(&exposed.stat.id) {
            linked.version = exposed.stat.version();
            linked.is_open |= exposed.is_open;
            linked.since = now;
        }
    }

    /// Takes over the open files of an earlier watcher.
    pub fn keep_open_files(&mut self, before: PolledFiles) {
        for (id, old) in before.files.into_iter().filter(|(_, old)| old.is_open) {
            for path in &old.paths {
                self.names.entry(path.clone()).or_insert(id);
            }

            let paths = self
                .files
                .remove(&id)
                .map_or_else(Vec::new, |known| known.paths);
            let more = old
                .paths
                .iter()
                .filter(|path| !paths.contains(path))
                .cloned()
                .collect::<Vec<_>>();
            self.files.insert(
                id,
                PolledFile {
                    paths: [paths, more].concat(),
                    ..old
                },
            );
        }
    }

    /// Returns whether the path was added.
    pub fn has(&self, path: &TreePath) -> bool {
        self.names.contains_key(path)
    }

    /// Records that the present version of the file is known.
    pub fn seen(&mut self, stat: &FileStat) {
        if let Some(linked) = self.files.get_mut(&stat.id) {
            linked.version = stat.version();
        }
    }

    /// Number of files with unwatched names, and a watched name of one of them.
    pub fn unwatched(&self) -> Option<(usize, &TreePath)> {
        let mut found = self
            .files
            .values()
            .filter(|linked| linked.has_other_names());
        let first = found.next()?.paths.first()?;
        Some((1 + found.count(), first))
    }

    /// Returns whether some files are not polled.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Returns whether there is nothing to poll.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Polls the next files. Returns those that changed without being [seen](PolledFiles::seen), or
    /// were closed.
    pub fn poll(
        &mut self,
        at: Moment,
        mut stat: impl FnMut(&TreePath) -> Option<FileStat>,
        mut is_open: impl FnMut(&TreePath) -> Option<bool>,
    ) -> Vec<Changed> {
        let next = self.next();
        self.last = next.last().copied();
        let mut changed = Vec::new();
        for id in next {
            let Some(linked) = self.files.get_mut(&id) else {
                continue;
            };
            let mut now = None;
            linked.paths.retain(|path| {
                let found = stat(path).filter(|found| found.id == id);
                now = found.or(now);
                let stays = found.is_some() && self.names.get(path) == Some(&id);
                if !stays && self.names.get(path) == Some(&id) {
                    self.names.remove(path);
                }
                stays
            });
            let (Some(mut now), Some(path)) = (now, linked.paths.first()) else {
                self.drop_file(id);
                continue;
            };

            // The other name may be gone while still open.
            let was_open = linked.is_open;
            if was_open || now.nlink == 1 || now.version() != linked.version {
                linked.is_open = is_open(path).unwrap_or(at.since(linked.since) < MAY_BE_OPEN);
                // From here on no earlier writer can write, unless the file is open.
                now = stat(path).filter(|found| found.id == id).unwrap_or(now);
            }

            // Adding or removing a name also changes the version; the extra look is cheap.
            linked.names = now.nlink;
            let is_changed = std::mem::replace(&mut linked.version, now.version()) != now.version();
            if is_changed {
                linked.since = at;
            }
            if is_changed || was_open && !linked.is_open {
                changed.push(Changed {
                    paths: linked.paths.clone(),
                    is_open: linked.is_open,
                    is_changed,
                });
            }
            if now.nlink == 1 && !linked.is_open {
                self.drop_file(id);
            }
        }

        changed
    }

    fn drop_file(&mut self, id: FileId) {
        let paths = self
            .files
            .remove(&id)
            .map_or_else(Vec::new, |linked| linked.paths);

        for path in paths {
            if self.names.get(&path) == Some(&id) {
                self.names.remove(&path);
            }
        }
    }

    /// Files for the next poll.
    fn next(&self) -> Vec<FileId> {
        let last = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.files.range((last, Bound::Unbounded));
        let start = self
            .last
            .map(|last| self.files.range(..=last))
            .into_iter()
            .flatten();
        rest.chain(start)
            .map(|(id, _)| *id)
            .take(MAX_POLLED_AT_ONCE)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("legal")
    }

    /// Directory whose files the test polls.
    struct Dir(tempfile::TempDir);

    impl Dir {
        fn at(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn stat(&self, path: &TreePath) -> Option<FileStat> {
            let name = std::ffi::CString::new(path.as_bytes()).expect("no NUL");
            let open = std::fs::File::open(self.0.path()).expect("there");
            FileStat::at(std::os::fd::AsFd::as_fd(&open), &name).ok()
        }

        /// Polls the files, with `open` as the answer for each, and returns the changes.
        fn look(
            &self,
            polled: &mut PolledFiles,
            open: Option<bool>,
        ) -> Vec<(Vec<TreePath>, bool, bool)> {
            let changed = polled.poll(Moment::default(), |path| self.stat(path), |_| open);
            changed
                .into_iter()
                .map(|changed| (changed.paths, changed.is_open, changed.is_changed))
                .collect()
        }
    }

    #[test]
    fn what_is_written_through_another_name_is_found() {
        let dir = Dir(tempfile::tempdir().expect("a directory"));
        std::fs::write(dir.at("both"), "1").expect("mine");
        std::fs::hard_link(dir.at("both"), dir.at("out")).expect("mine");
        std::fs::write(dir.at("within"), "1").expect("mine");
        std::fs::hard_link(dir.at("within"), dir.at("within2")).expect("mine");
        let mut polled = PolledFiles::default();
        for name in ["both", "within", "within2"].map(path) {
            polled.add(&name, &dir.stat(&name).expect("there"));
        }

        let closed = Some(false);
        assert_eq!(polled.unwatched(), Some((1, &path("both"))));
        assert_eq!(dir.look(&mut polled, closed), []);
        std::fs::write(dir.at("out"), "22").expect("mine");
        assert_eq!(
            dir.look(&mut polled, closed),
            [(vec![path("both")], false, true)]
        );

        assert_eq!(dir.look(&mut polled, closed), []);
        std::fs::write(dir.at("both"), "333").expect("mine");
        polled.seen(&dir.stat(&path("both")).expect("there"));
        assert_eq!(dir.look(&mut polled, closed), [], "it is known");
        std::fs::remove_file(dir.at("both")).expect("mine");
        dir.look(&mut polled, closed);

        assert_eq!(
            (
                polled.unwatched(),
                polled.files.len(),
                polled.has(&path("both"))
            ),
            (None, 1, false)
        );
    }

    #[test]
    fn a_file_stays_in_mind_while_it_is_open_by_a_name_that_is_gone() {
        let dir = Dir(tempfile::tempdir().expect("a directory"));
        let is = |open, other| [(vec![path("stays")], open, other)];
        std::fs::write(dir.at("stays"), "1").expect("mine");
        std::fs::hard_link(dir.at("stays"), dir.at("goes")).expect("mine");
        let mut polled = PolledFiles::default();
        polled.add(&path("stays"), &dir.stat(&path("stays")).expect("there"));
        std::fs::remove_file(dir.at("goes")).expect("mine");

        assert_eq!(dir.look(&mut polled, Some(true)), is(true, true));
        assert_eq!(dir.look(&mut polled, Some(true)), []);
        std::fs::write(dir.at("stays"), "22").expect("mine");
        assert_eq!(dir.look(&mut polled, Some(true)), is(true, true));
        assert_eq!(
            dir.look(&mut polled, Some(false)),
            is(false, false),
            "it was closed"
        );

        assert!(polled.is_empty() && !polled.has(&path("stays")));

        // A file written and closed between two polls.
        std::fs::write(dir.at("stays"), "333").expect("mine");
        let stat = dir.stat(&path("stays")).expect("there");
        polled.expose(
            Moment::default(),
            &Exposed {
                path: path("stays"),
                stat,
                is_open: true,
            },
        );

        std::fs::write(dir.at("stays"), "4444").expect("mine");
        assert_eq!(dir.look(&mut polled, Some(false)), is(false, true));
        assert!(polled.is_empty());

        // With an unknown open state: open for a while, and kept across watchers.
        polled.expose(
            Moment::default(),
            &Exposed {
                path: path("stays"),
                stat,
                is_open: true,
            },
        );

        let mut later = PolledFiles::default();
        later.keep_open_files(polled);
        assert_eq!(dir.look(&mut later, None), is(true, true));
        let stat = |path: &TreePath| dir.stat(path);
        assert_eq!(
            later
                .poll(Moment::default() + MAY_BE_OPEN, stat, |_| None)
                .len(),
            1
        );

        assert!(later.is_empty());
    }

    #[test]
    fn of_many_it_is_the_next_ones_turn() {
        let mut polled = PolledFiles::default();
        let dir = tempfile::tempdir().expect("a directory");
        let one = FileStat::of(std::fs::File::open(dir.path()).expect("there")).expect("a stat");
        let stat = |ino: u64| FileStat {
            id: FileId { dev: 1, ino },
            nlink: 2,
            ..one
        };

        let count = 2 * MAX_POLLED_AT_ONCE as u64 + 10;
        (0..count).for_each(|ino| polled.add(&path(&ino.to_string()), &stat(ino)));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut now = 0;
            let look = |path: &TreePath| {
                let ino = path.to_string().parse().expect("a number");
                seen.insert(ino);
                now += 1;
                Some(stat(ino))
            };
            polled.poll(Moment::default(), look, |_| Some(false));
            assert_eq!(now, MAX_POLLED_AT_ONCE);
        }

        assert_eq!(seen.len() as u64, count);
    }
}
