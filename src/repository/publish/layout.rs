//! The layout of a publication: new blocks in the order of the manifest, then new nodes with their
//! places pages, children before parents, then the record.

use std::collections::{HashSet, VecDeque};

use super::state::PublishStage;
use super::stock::Stock;
use super::{Publish, PublishError};
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::read::{NodeSource, ReadError};
use crate::repository::places::{PackedNode, PlacesBuilder};
use crate::repository::slots::{NodeAt, Slots, read_node};

/// Blocks that one walk looks up.
const BLOCKS_OF_A_WALK: usize = 1024;

/// Positions in the new manifest.
#[derive(Debug, Default)]
pub(super) struct PackLayout {
    root: Option<NodeAt>,
    /// Nodes whose blocks are not packed yet, the next one last.
    blocks: Vec<NodeAt>,
    seen: HashSet<BlockHash>,
    reads: VecDeque<(Ordinal, BlockRef)>,
    /// Nodes that are not packed yet, the next one last.
    nodes: Vec<Visit>,
    /// Bytes of blocks and nodes that are new, and those in packs.
    pub(super) total: u64,
    pub(super) packed: u64,
}

/// A node before or after its children.
#[derive(Debug)]
enum Visit {
    Before(NodeAt),
    After(NodeAt, Slots),
}

impl PackLayout {
    pub(super) fn begin(&mut self, root: NodeAt, total: u64) {
        *self = Self {
            root: Some(root),
            blocks: vec![root],
            nodes: vec![Visit::Before(root)],
            total,
            ..Self::default()
        };
    }

    /// Returns the next block to read.
    pub(super) fn next_read(&mut self, stock: &Stock) -> Option<(Ordinal, BlockRef)> {
        while let Some((_, block)) = self.reads.front()
            && stock.blocks.contains_key(&block.hash)
        {
            self.reads.pop_front();
        }
        self.reads.front().copied()
    }
}

impl Publish {
    /// Takes the content of the block that the last [`super::PublishStep::Read`] asked for.
    pub fn block(&mut self, ordinal: Ordinal, content: &[u8]) {
        self.asked = false;
        let Some((_, block)) = self
            .layout
            .reads
            .pop_front()
            .filter(|next| next.0 == ordinal)
        else {
            return self.fail(PublishError::SourceChanged);
        };
        if !block.matches(content) {
            return self.fail(PublishError::SourceChanged);
        }

        let stored = self.pieces.pack(self.setup.level, content);
        let piece = self.packer.append(stored);
        self.stock.own.insert(piece.pack);
        self.stock.blocks.insert(block.hash, piece);
        self.result.blocks += 1;
        self.result.bytes += u64::from(block.size);
        self.layout.packed += u64::from(block.size);
    }

    /// Finds further blocks to read; once all are packed, packs the nodes.
    pub(super) fn pack<S: NodeSource>(&mut self, source: &S) -> Result<(), ReadError> {
        let layout = &mut self.layout;
        while layout.reads.len() < BLOCKS_OF_A_WALK
            && let Some(at) = layout.blocks.pop()
        {
            let hash = at.child.block().hash;
            if self.stock.nodes.contains_key(&hash) || !layout.seen.insert(hash) {
                continue;
            }
            let slots = at.slots(&read_node(source, &at.child)?);
            let new = |block: &BlockRef| !self.stock.blocks.contains_key(&block.hash);
            let blocks = slots.blocks.into_iter().filter(|(_, block)| new(block));
            layout.reads.extend(blocks);
            layout.blocks.extend(slots.children.into_iter().rev());
        }

        if layout.next_read(&self.stock).is_none() && layout.blocks.is_empty() {
            self.pack_nodes(source)?;
        }
        Ok(())
    }

    /// Packs nodes until a pack is full.
    fn pack_nodes<S: NodeSource>(&mut self, source: &S) -> Result<(), ReadError> {
        while !self.packer.has_full() {
            match self.layout.nodes.pop() {
                None => {
                    self.pack_record();
                    break;
                }
                Some(Visit::Before(at)) => {
                    if !self.stock.nodes.contains_key(&at.child.block().hash) {
                        let slots = at.slots(&read_node(source, &at.child)?);
                        let children: Vec<NodeAt> = slots.children.clone();
                        self.layout.nodes.push(Visit::After(at, slots));
                        let before = children.into_iter().rev().map(Visit::Before);
                        self.layout.nodes.extend(before);
                    }
                }
                Some(Visit::After(at, slots)) => {
                    let bytes = source.node(&at.child.block().hash)?;
                    self.pack_node(&at, &slots, &bytes);
                }
            }
        }

        Ok(())
    }

    fn pack_node(&mut self, at: &NodeAt, slots: &Slots, bytes: &[u8]) {
        let mut places = PlacesBuilder::default();
        for (_, block) in &slots.blocks {
            let piece = self.stock.blocks.get(&block.hash);
            places.block(*piece.expect("packed before the nodes"));
        }

        for child in &slots.children {
            let node = self.stock.nodes.get(&child.child.block().hash);
            places.child(*node.expect("packed before its parent"));
        }

        self.layout.packed += bytes.len() as u64;
        let stored = self.pieces.pack(self.setup.level, bytes);
        let node = self.packer.append(stored);
        let (page, hash) = self.packer.append_places(&places);
        let packed = PackedNode {
            node,
            places: page,
            hash,
        };
        self.stock.nodes.insert(at.child.block().hash, packed);
    }

    fn pack_record(&mut self) {
        let root = self.layout.root.and_then(|root| {
            let hash = root.child.block().hash;
            self.stock.nodes.get(&hash).copied()
        });

        if let (Some(root), Some(new)) = (root, &self.new) {
            self.record = Some(self.packer.append_record(new, root));
            self.packer.close();
            self.stage = PublishStage::Flushing;
        }
    }
}
