//! Reads a manifest from its nodes: entries in order, and the node or block of an ordinal.
//!
//! A reader trusts nothing. Every node is checked against its reference, order and parents are
//! checked across pages, and a contradiction is an error before anything acts on it.

mod children;
mod entries;
mod located;
mod order;
mod source;
#[cfg(test)]
mod tests;

pub use children::{Child, check_sums, children};
pub use entries::Entries;
pub(crate) use located::LocatedEntries;
pub use located::{Located, PageView};
pub(crate) use order::PathOrder;
pub use source::{NodeSource, ReadError};

use source::load;

use super::entry::{Content, EntryKind};
use super::node::{ListRef, Node, NodeRef};
use super::{Header, Top};
use crate::block::BlockRef;
use crate::id::Ordinal;

/// Largest number of index levels above a page: with 256 references each, far more than any tree
/// needs.
pub const MAX_DEPTH: usize = 12;

/// Largest number of blocks of one file: a terabyte of average blocks.
pub const MAX_FILE_BLOCKS: u64 = 16 << 20;

/// A manifest with the nodes of `source`.
#[derive(Debug)]
pub struct Manifest<S> {
    root: NodeRef,
    top: Option<Top>,
    source: S,
}

impl<S: NodeSource> Manifest<S> {
    /// Creates the manifest under `root`, without a root directory.
    pub fn new(root: NodeRef, source: S) -> Self {
        Self {
            root,
            top: None,
            source,
        }
    }

    /// Creates the manifest of a release.
    pub fn of(header: &Header, source: S) -> Self {
        Self {
            root: header.root,
            top: header.top.clone(),
            source,
        }
    }

    /// Returns the root directory, if the release governs it.
    pub fn top(&self) -> Option<&Top> {
        self.top.as_ref()
    }

    /// Returns the source of its nodes.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Returns the root node.
    pub fn root(&self) -> &NodeRef {
        &self.root
    }

    /// Returns all entries in order, each checked against the previous ones.
    pub fn entries(&self) -> Entries<'_, S> {
        Entries::of(self)
    }

    /// Returns the blocks of `content`, in order.
    pub fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>, ReadError> {
        match content {
            Content::Blocks(blocks) => Ok(blocks.clone()),
            Content::Lists(lists) => {
                check_count(content)?;
                let mut all = Vec::new();
                for list in lists {
                    all.extend(self.list(list)?);
                }
                Ok(all)
            }
        }
    }

    /// Returns the blocks of one list node.
    pub fn list(&self, list: &ListRef) -> Result<Vec<BlockRef>, ReadError> {
        read_list(&self.source, list)
    }

    /// Returns the reference of the node with this ordinal (below `root.nodes`).
    pub fn node_at(&self, ordinal: Ordinal) -> Result<BlockRef, ReadError> {
        let none = || ReadError::Illegal("no node with this ordinal".into());
        let mut at = 0;
        let mut node = self.root;
        for _ in 0..MAX_DEPTH {
            if at == ordinal.0 {
                return Ok(node.block);
            }
            match self.decode(&node)? {
                Node::Index(refs) => {
                    let child = child_with(&refs, at + 1, ordinal, |r| r.nodes);
                    (at, node) = child.ok_or_else(none)?;
                }
                Node::Page(entries) => {
                    let lists = entries.iter().filter_map(|e| match &e.kind {
                        EntryKind::File(Content::Lists(lists)) => Some(lists),
                        _ => None,
                    });
                    let nth = usize::try_from(ordinal.0 - at - 1).unwrap_or(usize::MAX);
                    return lists.flatten().nth(nth).map(|l| l.block).ok_or_else(none);
                }
                Node::List(_) => break,
            }
        }

        Err(none())
    }

    /// Returns the entry of the block with this ordinal, and the ordinal of the entry's first
    /// block.
    pub fn entry_of_block(&self, ordinal: Ordinal) -> Result<Located, ReadError> {
        Ok(self.page_of_block(ordinal)?.entry_of(ordinal)?.clone())
    }

    /// Returns the page of the block with this ordinal, for a caller that reads many neighbours.
    pub fn page_of_block(&self, ordinal: Ordinal) -> Result<PageView, ReadError> {
        let none = || ReadError::Illegal("no block with this ordinal".into());
        let mut first = self.root.nodes;
        let mut node = self.root;
        if ordinal.0 < first || ordinal.0 - first >= node.blocks {
            return Err(none());
        }

        for _ in 0..MAX_DEPTH {
            match self.decode(&node)? {
                Node::Index(refs) => {
                    let child = child_with(&refs, first, ordinal, |r| r.blocks);
                    (first, node) = child.ok_or_else(none)?;
                }
                Node::Page(entries) => return Ok(PageView::new(entries, first)),
                Node::List(_) => return Err(none()),
            }
        }

        Err(none())
    }

    pub(super) fn decode(&self, node: &NodeRef) -> Result<Node, ReadError> {
        let decoded = load(&self.source, &node.block)?;
        check_sums(node, &decoded)?;
        Ok(decoded)
    }
}

/// Reads the blocks of the list node `list` from `source`.
pub fn read_list(source: &impl NodeSource, list: &ListRef) -> Result<Vec<BlockRef>, ReadError> {
    match load(source, &list.block)? {
        Node::List(blocks) => {
            let bytes: u64 = blocks.iter().map(|b| u64::from(b.size)).sum();
            if (blocks.len() as u64, bytes) != (list.blocks, list.bytes) {
                return Err(ReadError::Illegal(
                    "a block list differs from its reference".into(),
                ));
            }
            Ok(blocks)
        }
        _ => Err(ReadError::Illegal(
            "a block list is another kind of node".into(),
        )),
    }
}

/// Refuses a file with too many blocks: one small list may be named over and over.
pub fn check_count(content: &Content) -> Result<(), ReadError> {
    match content.block_count() {
        count if count > MAX_FILE_BLOCKS => {
            Err(ReadError::Illegal(format!("a file of {count} blocks")))
        }
        _ => Ok(()),
    }
}

/// Returns the child with `ordinal`, and the first ordinal beneath the child. The children begin at
/// `at`, and each takes `size` ordinals.
fn child_with(
    refs: &[NodeRef],
    mut at: u64,
    ordinal: Ordinal,
    size: fn(&NodeRef) -> u64,
) -> Option<(u64, NodeRef)> {
    for child in refs {
        let count = size(child);
        if ordinal.0 >= at && ordinal.0 - at < count {
            return Some((at, *child));
        }
        at += count;
    }

    None
}
