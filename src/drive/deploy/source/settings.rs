//! The part of a source to release, and the mode of the scan.

use std::sync::Arc;

use crate::manifest::TreePath;
use crate::manifest::rules::Exclude;
use crate::tree::scan::{Exposures, Hints, ScanCounts};
use crate::tree::{FileId, Root};

/// Part of a source to release.
#[derive(Debug, Clone, Default)]
pub struct SourcePart {
    /// Path prefixes; empty for everything.
    pub scope: Vec<TreePath>,
    /// Excludes besides the spec's.
    pub excludes: Vec<Exclude>,
    /// Leave out the source's own directory even if the scope is everything.
    pub without_top: bool,
    /// Numeric user; entries of other users, except directories, are left out.
    pub owner: Option<u32>,
    /// Report the paths.
    pub listed: bool,
}

/// Mode of a scan.
#[derive(Debug, Clone, Default)]
pub struct SourceScan {
    /// Read every file.
    pub checksum: bool,
    /// Places where the source may have changed since its last release, if known; nothing else is
    /// scanned. Needs the kept index.
    pub hints: Option<Hints>,
    /// Receiver for files of the source that can change without an event.
    pub exposures: Option<Exposures>,
    /// Counts what the scan has done.
    pub counts: Option<Arc<ScanCounts>>,
    /// Required directory of the source; `None` for any.
    pub directory: Option<FileId>,
    /// The source, if open already; the path is not resolved then.
    pub root: Option<Arc<Root>>,
    /// Policy for a filesystem of the source no longer mounted.
    pub unmounted: Unmounted,
}

impl SourceScan {
    /// Returns whether only hinted places are scanned.
    pub fn is_quick(&self) -> bool {
        self.hints.is_some()
    }
}

/// Policy for a path that was a mount point in the last scan and not now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unmounted {
    /// Warn, and remember the path for the next scan.
    #[default]
    Tell,
    /// Refuse: the missing paths would be deleted on every host.
    Refuse,
    /// Accept the source as it is now.
    Accept,
}
