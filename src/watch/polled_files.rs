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
mod tests;
