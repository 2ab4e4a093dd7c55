//! The options of a scan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::exposed::Exposures;
use super::hints::Hints;
use super::ignore::IgnoreFiles;
use super::policy::Policy;
use crate::block::BlockHash;
use crate::manifest::TreePath;
use crate::manifest::node::to_vec;
use crate::manifest::path::is_within;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::tree::fs::root::FileId;

/// Version of the pattern rules, part of the fingerprint: an index made by other rules is not
/// compared.
const PATTERN_DIALECT: &str = "git";

/// Options of a scan.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Patterns of paths to leave out; ignore files in the tree take precedence.
    pub excludes: Vec<Exclude>,
    /// Ignore files in the tree to apply.
    pub ignore_files: IgnoreFiles,
    /// Limits the scan to these paths, everything below and the directories above; empty means the
    /// whole tree.
    pub scope: Vec<TreePath>,
    /// Directories outside of the tree wherever they appear: the state directory.
    pub apart: Vec<FileId>,
    /// Leaves out the state directories of makuo trees, which are never content.
    pub without_state: bool,
    /// Paths to list without content: directories without their entries, files as
    /// [`unread`](super::unread_content).
    pub closed: Vec<PathFilter>,
    /// Paths to list with everything below, but with all files [`unread`](super::unread_content).
    pub unhashed: Vec<PathFilter>,
    /// Includes only files of this user; others are skipped as
    /// [`FOREIGN_OWNER`](super::FOREIGN_OWNER). Directories are always included.
    pub owner: Option<u32>,
    /// Reads extended attributes.
    pub xattrs: bool,
    /// Records names of one inode as hard links; otherwise each is a separate file.
    pub hardlinks: bool,
    /// Opens directories that bar their owner, this user, for the duration of the scan.
    pub opens_barred: bool,
    /// Overrides of owners, modes and times.
    pub policy: Policy,
    /// Places where the tree may differ from its index, if known.
    pub hints: Option<Hints>,
    /// Collects files that can change without a notification.
    pub exposures: Option<Exposures>,
    /// Reads every file, whatever its stat.
    pub checksum: bool,
    /// Mount points to record in the index.
    pub mounts: Vec<TreePath>,
    /// Walks the whole tree; the index contributes only contents.
    pub whole: bool,
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

impl ScanOptions {
    /// Scans everything below the root on all cores, with hard links and without ignore files;
    /// `started` is the current time.
    pub fn new(started: SystemTime) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());

        Self {
            excludes: Vec::new(),
            ignore_files: IgnoreFiles::None,
            scope: Vec::new(),
            apart: Vec::new(),
            without_state: false,
            closed: Vec::new(),
            unhashed: Vec::new(),
            owner: None,
            xattrs: false,
            hardlinks: true,
            opens_barred: false,
            policy: Policy::default(),
            hints: None,
            exposures: None,
            checksum: false,
            mounts: Vec::new(),
            whole: false,
            threads: cores,
            stop: None,
            started,
            #[cfg(test)]
            gap: Gap::default(),
        }
    }

    /// Returns the hash of every option that affects the content of an index.
    pub(super) fn fingerprint(&self) -> BlockHash {
        let ids: Vec<(u64, u64)> = self.apart.iter().map(|id| (id.dev, id.ino)).collect();
        let patterns =
            |filters: &[PathFilter]| filters.iter().map(PathFilter::patterns).collect::<Vec<_>>();
        BlockHash::of(&to_vec(&(
            (PATTERN_DIALECT, self.without_state),
            (&self.excludes, self.ignore_files as u8, &self.scope, ids),
            (
                patterns(&self.closed),
                patterns(&self.unhashed),
                self.xattrs,
                self.hardlinks,
                &self.policy,
                self.owner,
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

    pub(super) fn in_scope(&self, path: &TreePath, is_dir: bool) -> bool {
        self.scope.is_empty()
            || self
                .scope
                .iter()
                .any(|s| path.is_within(s) || (is_dir && is_within(s.as_bytes(), path.as_bytes())))
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
