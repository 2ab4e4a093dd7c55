//! Files being written, held back until closed or open for too long.
//!
//! Pure: time is an argument. Knows nothing of batches.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::manifest::TreePath;
use crate::units::Moment;

/// Idle time after which an open file counts as written.
const HELD_IDLE: Duration = Duration::from_secs(15);
/// Longest time that a busy open file is held back, so that a log that is never closed is still
/// sent now and then.
const HELD_MOST: Duration = Duration::from_secs(600);

/// Delay after a write without a close before checking whether the file is open at all: truncate(2)
/// opens nothing.
const OPEN_CHECK_AFTER: Duration = Duration::from_millis(200);
/// Shortest interval between two checks whether the same file is open.
const OPEN_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Largest number of files checked at once.
const MAX_OPEN_CHECKS: usize = 256;

/// File being written.
#[derive(Debug, Clone, Copy)]
struct Writing {
    since: Moment,
    last: Moment,
    /// Time of the next check whether the file is open; a further write postpones the check.
    ask: Option<Moment>,
}

/// Files being written, by path.
#[derive(Debug, Default)]
pub(super) struct WrittenFiles {
    files: HashMap<TreePath, Writing>,
    /// Files held open for too long; not held back again until a batch includes them.
    overdue: HashSet<TreePath>,
}

impl WrittenFiles {
    /// Records a write; returns whether the file is held back only from now on.
    pub(super) fn hold(&mut self, now: Moment, path: &TreePath) -> bool {
        if let Some(writing) = self.files.get_mut(path) {
            writing.last = now;
            return false;
        }

        if self.overdue.contains(path) {
            return false;
        }

        self.files.insert(
            path.clone(),
            Writing {
                since: now,
                last: now,
                ask: Some(now + OPEN_CHECK_AFTER),
            },
        );
        true
    }

    /// Records a further write; returns false for a file not held back.
    pub(super) fn wrote_again(&mut self, now: Moment, path: &[u8]) -> bool {
        let Some(writing) = self.files.get_mut(path) else {
            return false;
        };

        writing.last = now;
        writing.ask = writing.ask.map_or(Some(now + OPEN_CHECK_INTERVAL), |ask| {
            Some(ask.max(now + OPEN_CHECK_AFTER))
        });
        true
    }

    /// Removes a file; returns the time of the first write.
    pub(super) fn close(&mut self, path: &TreePath) -> Option<Moment> {
        self.files.remove(path).map(|writing| writing.since)
    }

    /// Removes `path` and everything below it.
    pub(super) fn remove_within(&mut self, path: &TreePath) {
        if !self.files.is_empty() {
            self.files.retain(|written, _| !written.is_within(path));
        }
    }

    /// Holds the file back no more, until [`WrittenFiles::forget_overdue`].
    pub(super) fn stop_holding(&mut self, path: TreePath) {
        self.overdue.insert(path);
    }

    /// Lets overdue files be held back again.
    pub(super) fn forget_overdue(&mut self) {
        self.overdue.clear();
    }

    /// Time at which [`WrittenFiles::take_open_checks`] is due.
    pub(super) fn open_check_at(&self) -> Option<Moment> {
        self.files.values().filter_map(|writing| writing.ask).min()
    }

    /// Returns the files due for a check whether any process has one open.
    pub(super) fn take_open_checks(&mut self, now: Moment) -> Vec<TreePath> {
        let due = self
            .files
            .iter_mut()
            .filter(|(_, writing)| writing.ask.is_some_and(|ask| ask <= now));
        let asked = due.take(MAX_OPEN_CHECKS).map(|(path, writing)| {
            writing.ask = None;
            path.clone()
        });
        asked.collect()
    }

    /// Returns the files open for too long.
    pub(super) fn overdue(&self, now: Moment) -> Vec<TreePath> {
        self.files
            .iter()
            .filter(|(_, writing)| writing.over() <= now)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Time at which the next file has been open for too long.
    pub(super) fn next_overdue(&self) -> Option<Moment> {
        self.files.values().map(Writing::over).min()
    }

    /// Latest first write of a file.
    pub(super) fn latest_start(&self) -> Option<Moment> {
        self.files.values().map(|writing| writing.since).max()
    }

    /// Files held back.
    pub(super) fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.files.keys()
    }

    /// Returns whether the file is held back.
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.files.contains_key(path)
    }

    /// Returns whether no file is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

impl Writing {
    /// Time at which the file counts as written although still open.
    fn over(&self) -> Moment {
        (self.last + HELD_IDLE).min(self.since + HELD_MOST)
    }
}
