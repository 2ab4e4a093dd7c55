//! Children of a node with their ordinals, and the check of a node against its reference.

use super::source::ReadError;
use crate::block::BlockRef;
use crate::id::Ordinal;
use crate::manifest::entry::{Content, EntryKind};
use crate::manifest::node::{ListRef, Node, NodeRef};

/// Returns the children of a node with their ordinals, which a host requests next.
pub fn children(node: &Node, ordinal: Ordinal) -> Vec<(Ordinal, Child)> {
    let mut next = ordinal.0 + 1;
    let mut out = Vec::new();
    match node {
        Node::Index(refs) => {
            for r in refs {
                out.push((Ordinal(next), Child::Node(*r)));
                next = next.saturating_add(r.nodes);
            }
        }
        Node::Page(entries) => {
            for entry in entries {
                if let EntryKind::File(Content::Lists(lists)) = &entry.kind {
                    for list in lists {
                        out.push((Ordinal(next), Child::List(*list)));
                        next = next.saturating_add(1);
                    }
                }
            }
        }
        Node::List(_) => {}
    }

    out
}

/// Child of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// A page or an index.
    Node(NodeRef),
    /// A list of blocks.
    List(ListRef),
}

impl Child {
    /// Returns the block with the child's own bytes.
    pub fn block(&self) -> BlockRef {
        match self {
            Child::Node(n) => n.block,
            Child::List(l) => l.block,
        }
    }

    /// Returns true without nodes beneath.
    pub fn is_leaf(&self) -> bool {
        match self {
            Child::Node(node) => node.nodes == 1,
            Child::List(_) => true,
        }
    }

    /// Checks `node` against this reference.
    pub fn check(&self, node: &Node) -> Result<(), ReadError> {
        match self {
            Child::Node(r) => check_sums(r, node),
            Child::List(l) => match node {
                Node::List(_) if node.sums() == Some((1, l.blocks, 0, l.bytes)) => Ok(()),
                _ => Err(ReadError::Illegal(
                    "a block list differs from its reference".into(),
                )),
            },
        }
    }
}

/// Checks `node` against the totals of its reference `r`.
pub fn check_sums(r: &NodeRef, node: &Node) -> Result<(), ReadError> {
    if matches!(node, Node::List(_)) || node.sums() != Some((r.nodes, r.blocks, r.entries, r.bytes))
    {
        return Err(ReadError::Illegal(
            "a node differs from its reference".into(),
        ));
    }
    Ok(())
}
