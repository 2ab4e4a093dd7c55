//! Knowledge about a source, which decides the scope of the next scan.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::batch::PathBatch;
use crate::block::BlockHash;
use crate::manifest::TreePath;
use crate::outcome::{ExitStatus, Outcome};
use crate::tree::scan::{Hints, ScanWindows};

/// Knowledge about the source.
pub(super) struct SourceState {
    /// Content that every host has.
    released: Option<BlockHash>,
    /// Whether the index lags behind the source at unknown paths.
    needs_full_scan: bool,
    /// Whether the next scan reads every file.
    checksum: bool,
    /// Scans of the source since the last one that left nothing out.
    windows: ScanWindows,
}

impl SourceState {
    /// Nothing is known.
    pub(super) fn new(checksum: bool) -> Self {
        Self {
            released: None,
            needs_full_scan: true,
            checksum,
            windows: ScanWindows::default(),
        }
    }

    /// Whether a full check can find anything: all earlier changes are released.
    pub(super) fn can_check(&self) -> bool {
        !self.needs_full_scan && self.released.is_some()
    }

    /// Whether the next scan reads every file.
    pub(super) fn checksum(&self) -> bool {
        self.checksum
    }

    /// Content known to be on every host.
    pub(super) fn released(&self) -> Option<BlockHash> {
        self.released
    }

    /// Scope of a scan for changed paths; `None` for everything.
    pub(super) fn hints(&self, paths: PathBatch) -> Option<Hints> {
        Some(paths.hints()).filter(|_| !self.needs_full_scan)
    }

    /// Scope of a scan for changes without events, which leaves out the files in `held`.
    pub(super) fn everywhere(&self, held: BTreeSet<TreePath>) -> Hints {
        Hints {
            held,
            everywhere: Some(self.windows.clone()),
            ..Hints::default()
        }
    }

    /// Forgets earlier scans before a scan of everything.
    pub(super) fn begin_scan(&mut self, hints: Option<&Hints>) {
        let leaves_out = |hints: &Hints| hints.everywhere.is_none() || !hints.held.is_empty();
        if !hints.is_some_and(leaves_out) {
            self.windows = ScanWindows::default();
        }
    }

    /// Records the time of a scan.
    pub(super) fn end_scan(&mut self, began: SystemTime, ended: SystemTime) {
        self.windows.add(began, ended);
    }

    /// Records an unchanged source: the index and the release match.
    pub(super) fn is_unchanged(&mut self) {
        self.needs_full_scan = false;
    }

    /// Records the outcome of a deploy.
    pub(super) fn record(&mut self, outcome: &Outcome) {
        // Without a content hash the scan may be incomplete.
        self.needs_full_scan = outcome.content.is_none();
        self.checksum &= self.needs_full_scan;
        self.released = outcome
            .content
            .filter(|_| outcome.exit == ExitStatus::Success);
    }

    /// Records a failed deploy: the scan may be incomplete.
    pub(super) fn record_failure(&mut self) {
        self.needs_full_scan = true;
    }
}
