//! The facts of a release, known before the signature.

use crate::block::BlockHash;
use crate::manifest::node::to_vec;
use crate::manifest::{Header, NodeRef, Rules, Top, TreePath};
use crate::outcome::ScanSummary;

/// A prepared release: the result of a scan of the source.
#[derive(Debug, Clone)]
pub struct PreparedRelease {
    /// Root of the manifest.
    pub root: NodeRef,
    /// The tree's own directory, if part of the release.
    pub top: Option<Top>,
    /// Governed path prefixes; empty for the whole tree.
    pub scope: Vec<TreePath>,
    /// The spec's rules with the patterns of ignore files.
    pub rules: Rules,
    /// Totals for people, if anything was scanned.
    pub scanned: Option<ScanSummary>,
    /// Notes on omitted paths.
    pub notes: Vec<String>,
    /// Paths of all entries except directories, if requested.
    pub files: Vec<Vec<u8>>,
}

impl PreparedRelease {
    /// The facts of an existing release, by its header; `notes` are for people.
    pub fn of(header: &Header, notes: Vec<String>) -> Self {
        Self {
            root: header.root,
            top: header.top.clone(),
            scope: header.scope.clone(),
            rules: header.rules.clone(),
            scanned: None,
            notes,
            files: Vec::new(),
        }
    }

    /// Hash of the release's effect on a tree: two with the same hash have the same effect on every
    /// host.
    pub fn name(&self) -> BlockHash {
        BlockHash::of(&to_vec(&(&self.root, &self.top, &self.scope, &self.rules)))
    }
}
