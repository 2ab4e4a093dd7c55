//! The heads of a repository's trees, as a gc knows them.

use std::collections::VecDeque;

use super::moved::Rewritten;
use crate::id::TreeName;
use crate::repository::attempt::{Rereads, SmallGet};
use crate::repository::head::{Head, HeadRelease};
use crate::repository::object::Etag;

/// One tree of the repository.
#[derive(Debug)]
pub(super) struct TreeHead {
    pub(super) tree: TreeName,
    pub(super) object: Vec<u8>,
    pub(super) etag: Option<Etag>,
    pub(super) head: Option<Head>,
    /// The releases that stay, and the others.
    pub(super) kept: Vec<HeadRelease>,
    pub(super) dropped: Vec<HeadRelease>,
    pub(super) rewritten: Vec<Rewritten>,
}

/// The heads of all trees.
#[derive(Debug)]
pub(super) struct Heads {
    /// Trees whose heads are not read yet.
    pub(super) reading: VecDeque<TreeName>,
    pub(super) trees: Vec<TreeHead>,
    /// The head that is read.
    pub(super) asking: Option<SmallGet>,
    pub(super) rereads: Rereads,
    /// Position of the tree whose head is replaced, or read once more.
    pub(super) at: usize,
    pub(super) sealed: Vec<u8>,
    /// False once the store has said that it cannot check conditions.
    pub(super) has_conditions: bool,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            reading: VecDeque::new(),
            trees: Vec::new(),
            asking: None,
            rereads: Rereads::default(),
            at: 0,
            sealed: Vec::new(),
            has_conditions: true,
        }
    }
}

impl TreeHead {
    /// Returns whether the head has to name other records.
    pub(super) fn changes(&self) -> bool {
        let moved = |rewritten: &Rewritten| matches!(rewritten, Rewritten::Again(..));
        !self.dropped.is_empty() || self.rewritten.iter().any(moved)
    }

    pub(super) fn of(tree: TreeName) -> Self {
        Self {
            tree,
            object: Vec::new(),
            etag: None,
            head: None,
            kept: Vec::new(),
            dropped: Vec::new(),
            rewritten: Vec::new(),
        }
    }
}
