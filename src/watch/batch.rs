//! Groups changes into batches: timestamped events go in, batches come out.
//!
//! Pure: time is an argument. Owns the changes since the last batch, the quiet period and the
//! maximum delay. Knows neither the source of events nor the use of a batch.

use std::collections::HashSet;
use std::time::Duration;

use super::writing::WrittenFiles;
use crate::manifest::TreePath;
use crate::tree::scan::Hints;
use crate::units::Moment;

/// Largest number of paths in a batch; beyond it the whole tree is rescanned.
pub const MAX_PATHS: usize = 200_000;
/// Timing of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Quiet time that completes a batch.
    pub settle: Duration,
    /// Longest time from the first change to the end of the batch. A file being written can hold
    /// the batch open as long.
    pub max_delay: Duration,
}

/// Reason for a full rescan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RescanCause {
    /// Some changes were missed, or were too many to list.
    Missed,
    /// An operator requested the rescan, or the spec changed; hosts rescan as well.
    Asked,
}

/// Scope of the scan for the next release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeBatch {
    /// Only the listed paths.
    Paths(PathBatch),
    /// The whole source.
    Everything(RescanCause),
}

/// Changed paths of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathBatch {
    /// Paths that may have changed, in no order.
    pub paths: HashSet<TreePath>,
    /// Whether the tree's root directory may have changed.
    pub top: bool,
    /// Files still being written.
    pub held: HashSet<TreePath>,
}

impl PathBatch {
    /// Converts the batch to hints for a scan.
    pub fn hints(self) -> Hints {
        Hints {
            paths: self.paths.into_iter().collect(),
            top: self.top,
            held: self.held.into_iter().collect(),
            everywhere: None,
        }
    }
}

/// Collects changes until a batch is complete.
#[derive(Debug)]
pub struct Batcher {
    pace: Pace,
    /// Changed paths, without files being written.
    paths: HashSet<TreePath>,
    top: bool,
    everything: Option<RescanCause>,
    written: WrittenFiles,
    /// Time of the first change since the last batch.
    first: Option<Moment>,
    /// Time of the latest change.
    last: Moment,
}

impl Batcher {
    /// Creates a batcher without changes.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            paths: HashSet::new(),
            top: false,
            everything: None,
            written: WrittenFiles::default(),
            first: None,
            last: Moment(0),
        }
    }

    /// Returns whether the path is already recorded, so that another event only updates the time.
    pub fn knows(&self, path: &[u8]) -> bool {
        self.everything.is_some() || self.paths.contains(path) || self.written.contains(path)
    }

    /// Records that the path may have changed, appeared or disappeared.
    pub fn touched(&mut self, now: Moment, path: &TreePath) {
        if !self.written.contains(path.as_bytes()) {
            self.stamp(now);
            self.add(path);
        }
    }

    /// Like [`Batcher::touched`], for a path that is already [recorded](Batcher::knows).
    pub fn again(&mut self, now: Moment, path: &[u8]) {
        if !self.written.contains(path) {
            self.stamp(now);
        }
    }

    /// Records that the tree's root directory may have changed.
    pub fn top(&mut self, now: Moment) {
        self.stamp(now);
        self.top = true;
    }

    /// Records a write to a file that is still open.
    pub fn wrote(&mut self, now: Moment, path: &TreePath) {
        if !self.written.hold(now, path) {
            return;
        }

        // A file written repeatedly must not postpone the batch: the first change stays the first.
        self.first.get_or_insert(now);
        self.paths.remove(path);

        // Changes that are already waiting wait for this one, as for any other.
        if self.is_ready() {
            self.last = now;
        }
    }

    /// Like [`Batcher::wrote`], for a file already recorded as being written; returns false for any
    /// other.
    pub fn wrote_again(&mut self, now: Moment, path: &[u8]) -> bool {
        self.written.wrote_again(now, path)
    }

    /// Returns whether the file is recorded as being written.
    pub fn is_written(&self, path: &TreePath) -> bool {
        self.written.contains(path.as_bytes())
    }

    /// Time at which [`Batcher::take_open_checks`] is due.
    pub fn open_check_at(&self) -> Option<Moment> {
        self.written.open_check_at()
    }

    /// Returns written but unclosed files that are due for a check whether any process has them
    /// open. The caller reports a file that nobody has open as [closed](Batcher::closed).
    pub fn take_open_checks(&mut self, now: Moment) -> Vec<TreePath> {
        self.written.take_open_checks(now)
    }

    /// Records that the writer closed the file.
    pub fn closed(&mut self, now: Moment, path: &TreePath) {
        let since = self.written.close(path);
        let long = since.is_some_and(|since| since + self.pace.max_delay <= now);
        if long && !self.is_ready() {
            self.first = None;
        }

        self.touched(now, path);
    }

    /// Records that the name is gone, with everything below it.
    pub fn gone(&mut self, now: Moment, path: &TreePath) {
        self.written.remove_within(path);
        self.touched(now, path);
    }

    /// Requests a full rescan, because the changed paths are unknown.
    pub fn everything(&mut self, now: Moment, why: RescanCause) {
        self.stamp(now);
        self.paths.clear();
        self.top = false;
        self.everything = Some(if self.everything == Some(RescanCause::Asked) {
            RescanCause::Asked
        } else {
            why
        });
    }

    /// Time at which [`Batcher::take`] is due; `None` without changes.
    pub fn due(&self) -> Option<Moment> {
        let closing = self.written.next_overdue();
        if !self.is_ready() {
            return closing;
        }

        let written = self
            .written
            .latest_start()
            .map(|since| since + self.pace.max_delay);
        let quiet = (self.last + self.pace.settle).max(written.unwrap_or_default());
        let due = quiet.min(self.first.unwrap_or(self.last) + self.pace.max_delay);

        Some(closing.map_or(due, |closing| closing.min(due)))
    }

    /// Returns the batch once complete. Files still being written stay for a later batch.
    pub fn take(&mut self, now: Moment) -> Option<ChangeBatch> {
        self.release_held(now);
        if !self.is_ready() || self.due().is_none_or(|due| due > now) {
            return None;
        }

        self.first = None;
        self.written.forget_overdue();
        let paths = std::mem::take(&mut self.paths);
        let top =
            std::mem::take(&mut self.top) || paths.iter().any(|p| !p.as_bytes().contains(&b'/'));

        match self.everything.take() {
            Some(why) => Some(ChangeBatch::Everything(why)),
            None => Some(ChangeBatch::Paths(PathBatch {
                paths,
                top,
                held: self.written.paths().cloned().collect(),
            })),
        }
    }

    /// Files still being written.
    pub fn held(&self) -> impl Iterator<Item = &TreePath> {
        self.written.paths()
    }

    /// Returns whether nothing is pending, not even the close of a file.
    pub fn is_empty(&self) -> bool {
        !self.is_ready() && self.written.is_empty()
    }

    /// Returns whether changes wait to be taken.
    pub fn is_ready(&self) -> bool {
        self.top || self.everything.is_some() || !self.paths.is_empty()
    }

    fn stamp(&mut self, now: Moment) {
        // A start time left over from a long write must not hurry new changes.
        if !self.is_ready()
            && self
                .first
                .is_none_or(|first| first + 2 * self.pace.max_delay < now)
        {
            self.first = Some(now);
        }

        self.first.get_or_insert(now);
        self.last = self.last.max(now);
    }

    fn add(&mut self, path: &TreePath) {
        if self.everything.is_some() || self.paths.contains(path) {
            return;
        }

        if self.paths.len() == MAX_PATHS {
            self.paths.clear();
            self.everything = Some(RescanCause::Missed);
        } else {
            self.paths.insert(path.clone());
        }
    }

    /// Turns files held open for too long into ordinary changes.
    fn release_held(&mut self, now: Moment) {
        for path in self.written.overdue(now) {
            self.closed(now, &path);
            self.written.stop_holding(path);
        }
    }
}

#[cfg(test)]
mod tests;
