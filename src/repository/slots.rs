//! Matches the blocks and children of a manifest node with its places page.

use super::pack::Extent;
use super::places::{Places, StoredNode};
use crate::block::BlockRef;
use crate::id::Ordinal;
use crate::manifest::read::{Child, NodeSource, ReadError};
use crate::manifest::{Content, EntryKind, Node, NodeRef};

/// A node of a manifest, with the ordinals of itself and of the first block beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeAt {
    pub(super) child: Child,
    pub(super) ordinal: Ordinal,
    pub(super) first_block: u64,
}

/// Blocks and child nodes of a node, in order.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) blocks: Vec<(Ordinal, BlockRef)>,
    pub(super) children: Vec<NodeAt>,
}

impl NodeAt {
    /// The root of a manifest.
    pub(super) fn root(root: &NodeRef) -> Self {
        Self {
            child: Child::Node(*root),
            ordinal: Ordinal(0),
            first_block: root.nodes,
        }
    }

    /// Number of nodes, with this one.
    pub(super) fn nodes(&self) -> u64 {
        match &self.child {
            Child::Node(node) => node.nodes,
            Child::List(_) => 1,
        }
    }

    /// Number of blocks beneath.
    pub(super) fn blocks(&self) -> u64 {
        match &self.child {
            Child::Node(node) => node.blocks,
            Child::List(list) => list.blocks,
        }
    }

    /// Returns the slots of this node, whose content is `node`.
    pub(super) fn slots(&self, node: &Node) -> Slots {
        let mut slots = Slots::default();
        let mut next_node = self.ordinal.0.saturating_add(1);
        let mut next_block = self.first_block;
        let mut child = |slots: &mut Slots, child: Child, first_block: u64| {
            let at = NodeAt {
                child,
                ordinal: Ordinal(next_node),
                first_block,
            };
            next_node = next_node.saturating_add(at.nodes());
            slots.children.push(at);
            at.blocks()
        };

        match node {
            Node::Index(refs) => {
                for r in refs {
                    let blocks = child(&mut slots, Child::Node(*r), next_block);
                    next_block = next_block.saturating_add(blocks);
                }
            }
            Node::Page(entries) => {
                for entry in entries {
                    match &entry.kind {
                        EntryKind::File(Content::Blocks(blocks)) => {
                            next_block = slots.push_blocks(blocks, next_block);
                        }
                        EntryKind::File(Content::Lists(lists)) => {
                            for list in lists {
                                let blocks = child(&mut slots, Child::List(*list), next_block);
                                next_block = next_block.saturating_add(blocks);
                            }
                        }
                        _ => {}
                    }
                }
            }
            Node::List(blocks) => {
                slots.push_blocks(blocks, next_block);
            }
        }

        slots
    }
}

impl Slots {
    fn push_blocks(&mut self, blocks: &[BlockRef], first: u64) -> u64 {
        let ordinals = (first..).map(Ordinal);
        self.blocks.extend(ordinals.zip(blocks.iter().copied()));
        first.saturating_add(blocks.len() as u64)
    }

    /// Returns whether `places` can be the places page of the node: as many blocks and children,
    /// and none longer than it is when plain.
    pub(super) fn fit(&self, places: &Places) -> bool {
        let may_be = |piece: &Extent, block: &BlockRef| piece.len <= block.size;
        let counts = (places.block_count(), places.child_count());
        counts == (self.blocks.len(), self.children.len())
            && self
                .blocks
                .iter()
                .zip(places.blocks())
                .all(|((_, block), piece)| may_be(&piece, block))
            && self
                .children
                .iter()
                .zip(places.children())
                .all(|(at, stored)| may_be(&stored.node, &at.child.block()))
    }

    /// The child nodes with their places.
    pub(super) fn stored<'a>(
        &'a self,
        places: &'a Places,
    ) -> impl Iterator<Item = (NodeAt, StoredNode)> + 'a {
        self.children.iter().copied().zip(places.children())
    }
}

/// Reads a node and checks it against its reference.
pub(super) fn read_node<S: NodeSource>(source: &S, child: &Child) -> Result<Node, ReadError> {
    let node = Node::decode(&source.node(&child.block().hash)?)?;
    child.check(&node)?;
    Ok(node)
}
