//! The result of a scan.

use std::borrow::Cow;
use std::sync::Arc;

use crate::manifest::rules::Exclude;
use crate::manifest::{Top, TreePath};
use crate::tree::index::Index;

/// Reason for paths skipped by [`ScanOptions::owner`](super::ScanOptions::owner).
pub const FOREIGN_OWNER: &str = "it belongs to another user";

/// A path left out because no manifest can hold it, or because of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The skipped path.
    pub path: TreePath,
    /// The reason, as a clause.
    pub why: Cow<'static, str>,
}

/// Work done by a scan. For the size of the tree see [`Index::totals`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Bytes read and hashed.
    pub hashed_bytes: u64,
    /// Files read.
    pub hashed_files: u64,
    /// Files with content known from the old index.
    pub reused_files: u64,
}

/// A finished scan.
#[derive(Debug)]
pub struct Scanned {
    /// The scanned entries.
    pub index: Arc<Index>,
    /// The root directory at the start of the scan.
    pub top: Top,
    /// Work done by the scan.
    pub stats: ScanStats,
    /// Patterns of the ignore files in the tree. In the signed rules they follow the excludes of
    /// the options.
    pub ignore_rules: Vec<Exclude>,
    /// Paths left out of the index.
    pub skipped: Vec<Skipped>,
    /// Whether every path was listed; otherwise an older index was trusted for unchanged paths.
    pub walked: bool,
}

impl ScanStats {
    /// Adds the number of files not read for `index`.
    pub(super) fn of(self, index: &Index) -> Self {
        let all = index.totals();
        Self {
            reused_files: all.files.saturating_sub(all.unread + self.hashed_files),
            ..self
        }
    }
}

impl Scanned {
    pub(super) fn unchanged(index: Arc<Index>, top: Top) -> Self {
        let stats = ScanStats::default().of(&index);
        let origin = index.origin();
        let skip = |(path, why): &(TreePath, String)| Skipped {
            path: path.clone(),
            why: why.clone().into(),
        };

        let ignore_rules = origin.patterns.clone();
        let skipped = origin.skipped.iter().map(skip).collect();

        Self {
            index,
            top,
            stats,
            ignore_rules,
            skipped,
            walked: false,
        }
    }
}
