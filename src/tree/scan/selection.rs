//! The paths of a scan, and the extent to which each is read.

use super::ignore::IgnoreFiles;
use super::listing::Detail;
use crate::manifest::TreePath;
use crate::manifest::path::is_within;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::FileStat;

/// Paths that a scan includes. The default is every path, read whole.
#[derive(Debug, Clone, Default)]
pub struct PathSelection {
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
    /// Includes only files of this user; others are skipped as
    /// [`FOREIGN_OWNER`](super::FOREIGN_OWNER). Directories are always included.
    pub owner: Option<u32>,
    /// Paths to list without content: directories without their entries, files as
    /// [`unread`](super::unread_content).
    pub closed: Vec<PathFilter>,
    /// Paths to list with everything below, but with all files [`unread`](super::unread_content).
    pub unhashed: Vec<PathFilter>,
}

impl PathSelection {
    pub(super) fn in_scope(&self, path: &TreePath, is_dir: bool) -> bool {
        self.scope.is_empty()
            || self
                .scope
                .iter()
                .any(|s| path.is_within(s) || (is_dir && is_within(s.as_bytes(), path.as_bytes())))
    }

    /// Returns whether the file belongs to another user than the selected one.
    pub(super) fn is_foreign(&self, stat: &FileStat) -> bool {
        self.owner.is_some_and(|owner| owner != stat.uid)
    }

    /// Extent to which a path is read; `reads` is false below an unhashed directory.
    pub(super) fn detail(&self, path: &TreePath, is_dir: bool, reads: bool) -> Detail {
        let any = |filters: &[PathFilter]| {
            filters
                .iter()
                .any(|f| !f.is_empty() && f.matches_here(path, is_dir))
        };

        match () {
            () if any(&self.closed) => Detail::Closed,
            () if !reads || any(&self.unhashed) => Detail::Unhashed,
            () => Detail::Whole,
        }
    }
}
