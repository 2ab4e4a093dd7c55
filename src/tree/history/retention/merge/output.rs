//! The manifest of a merged part, written in the order of paths.

use std::collections::HashMap;

use super::layers::LastWord;
use crate::error::{Error, Result};
use crate::manifest::build::Builder;
use crate::manifest::read::ReadError;
use crate::manifest::{EntryKind, NodeRef, TreePath};
use crate::tree::state::node_store::NodeStore;

/// Manifest of a merged part under construction.
pub(super) struct MergeOutput<'a> {
    pub(super) builder: Builder,
    pub(super) nodes: &'a NodeStore,
    /// Directories above the scope without entries so far.
    pub(super) pending: Vec<LastWord>,
    /// Layer of each path in the manifest.
    pub(super) layers: HashMap<TreePath, (usize, bool)>,
    /// Last path that is no directory: nothing can be below.
    pub(super) file: Option<TreePath>,
}

impl<'a> MergeOutput<'a> {
    pub(super) fn new(nodes: &'a NodeStore) -> Self {
        Self {
            builder: Builder::default(),
            nodes,
            pending: Vec::new(),
            layers: HashMap::new(),
            file: None,
        }
    }

    /// Adds a directory on the way to the scope.
    pub(super) fn above(&mut self, word: LastWord) {
        self.pending
            .retain(|dir| word.entry.path.is_within(&dir.entry.path));
        self.pending.push(word);
    }

    /// Adds an entry of the scope after its ancestors; false if no manifest can hold the result.
    pub(super) fn put(&mut self, word: LastWord) -> Result<bool, ReadError> {
        for dir in std::mem::take(&mut self.pending) {
            if word.entry.path.is_within(&dir.entry.path) {
                self.push(dir)?;
            }
        }

        let LastWord { entry, layer, .. } = &word;
        let parent = entry.path.parent();
        let is_rooted = parent.is_none_or(|parent| self.layers.contains_key(&parent));
        let is_linked = match &entry.kind {
            // Names of one file that another part split.
            EntryKind::Hardlink(first) => self.layers.get(first) == Some(&(*layer, true)),
            _ => true,
        };

        if !is_rooted || !is_linked {
            return Ok(false);
        }

        self.push(word)?;
        Ok(true)
    }

    fn push(&mut self, word: LastWord) -> Result<(), ReadError> {
        let LastWord { entry, layer, .. } = word;
        let can_be_linked = !matches!(entry.kind, EntryKind::Directory | EntryKind::Hardlink(_));
        self.layers
            .insert(entry.path.clone(), (layer, can_be_linked));
        let mut nodes = self.nodes;
        self.builder.push(entry, &mut nodes).map_err(unwritable)
    }

    pub(super) fn finish(self) -> Result<NodeRef, ReadError> {
        let mut nodes = self.nodes;
        self.builder.finish(&mut nodes).map_err(unwritable)
    }
}

fn unwritable(e: Error) -> ReadError {
    ReadError::Illegal(e.to_string())
}
