//! The options of a scan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::counts::ScanCounts;
use super::exposed::Exposures;
use super::hints::Hints;
use super::policy::Policy;
use super::selection::PathSelection;
use crate::block::BlockHash;
use crate::manifest::TreePath;
use crate::manifest::node::to_vec;
use crate::manifest::rules::PathFilter;

/// Version of the pattern rules, part of the fingerprint: an index made by other rules is not
/// compared.
const PATTERN_DIALECT: &str = "git";

/// Options of a scan.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Paths that the scan includes.
    pub paths: PathSelection,
    /// Facts that it records of each entry.
    pub entries: EntryRules,
    /// Reuse of the old index.
    pub reuse: IndexReuse,
    /// Opens directories that bar their owner, this user, for the duration of the scan.
    pub opens_barred: bool,
    /// Collects files that can change without a notification.
    pub exposures: Option<Exposures>,
    /// Mount points to record in the index.
    pub mounts: Vec<TreePath>,
    /// Counts what the scan has done, for others to read.
    pub counts: Option<Arc<ScanCounts>>,
    /// Number of worker threads; at least one.
    pub threads: usize,
    /// Stops the scan with an error once set.
    pub stop: Option<Arc<AtomicBool>>,
    /// Current time, taken before the scan.
    pub started: SystemTime,
    /// Test callback between steps of the scan.
    #[cfg(test)]
    pub gap: Gap,
}

/// Facts that a scan records of each entry. The default is hard links only.
#[derive(Debug, Clone)]
pub struct EntryRules {
    /// Reads extended attributes.
    pub xattrs: bool,
    /// Records names of one inode as hard links; otherwise each is a separate file.
    pub hardlinks: bool,
    /// Overrides of owners, modes and times.
    pub policy: Policy,
}

impl Default for EntryRules {
    fn default() -> Self {
        Self {
            xattrs: false,
            hardlinks: true,
            policy: Policy::default(),
        }
    }
}

/// Reuse of the old index by a scan.
#[derive(Debug, Clone, Default)]
pub struct IndexReuse {
    /// Places where the tree may differ from its index, if known.
    pub hints: Option<Hints>,
    /// Walks the whole tree; the index contributes only contents.
    pub whole: bool,
    /// Reads every file, whatever its stat; the index contributes nothing.
    pub checksum: bool,
}

impl IndexReuse {
    /// The index `old`, unless nothing is taken from it.
    pub(super) fn contents<T>(&self, old: Option<T>) -> Option<T> {
        old.filter(|_| !self.checksum)
    }

    /// The index `old`, unless the whole tree is walked.
    pub(super) fn pages<T>(&self, old: Option<T>) -> Option<T> {
        old.filter(|_| !self.whole)
    }

    /// Returns whether the scan holds the file at `path` back.
    pub(super) fn holds_back(&self, path: &TreePath) -> bool {
        self.hints
            .as_ref()
            .is_some_and(|hints| hints.held.contains(path))
    }

    /// Returns whether the scan checks every path.
    pub(super) fn checks_all(&self) -> bool {
        self.hints
            .as_ref()
            .is_none_or(|hints| hints.everywhere.is_some() && hints.held.is_empty())
    }
}

impl ScanOptions {
    /// Scans everything below the root on all cores, with hard links and without ignore files;
    /// `started` is the current time.
    pub fn new(started: SystemTime) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());

        Self {
            paths: PathSelection::default(),
            entries: EntryRules::default(),
            reuse: IndexReuse::default(),
            opens_barred: false,
            exposures: None,
            mounts: Vec::new(),
            counts: None,
            threads: cores,
            stop: None,
            started,
            #[cfg(test)]
            gap: Gap::default(),
        }
    }

    /// Returns the hash of every option that affects the content of an index.
    pub(super) fn fingerprint(&self) -> BlockHash {
        let paths = &self.paths;
        let entries = &self.entries;
        let ids: Vec<(u64, u64)> = paths.apart.iter().map(|id| (id.dev, id.ino)).collect();
        let patterns =
            |filters: &[PathFilter]| filters.iter().map(PathFilter::patterns).collect::<Vec<_>>();

        BlockHash::of(&to_vec(&(
            (PATTERN_DIALECT, paths.without_state),
            (&paths.excludes, paths.ignore_files as u8, &paths.scope, ids),
            (
                patterns(&paths.closed),
                patterns(&paths.unhashed),
                entries.xattrs,
                entries.hardlinks,
                &entries.policy,
                paths.owner,
            ),
        )))
    }

    /// Lets a test act between two steps of the scan.
    pub(super) fn pass_gap(&self) {
        #[cfg(test)]
        self.gap.pass();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop
            .as_ref()
            .is_some_and(|stop| stop.load(Ordering::Acquire))
    }
}

/// Test callback between steps of a scan, on any of its threads.
#[cfg(test)]
#[derive(Clone, Default)]
pub struct Gap(pub Option<Arc<dyn Fn() + Send + Sync>>);

#[cfg(test)]
impl Gap {
    /// Calls the callback.
    pub fn pass(&self) {
        if let Some(happen) = &self.0 {
            happen();
        }
    }
}

#[cfg(test)]
impl std::fmt::Debug for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gap")
    }
}
