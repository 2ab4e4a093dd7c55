//! Pieces that a publication need not store again.

use std::collections::{HashMap, HashSet};

use crate::block::BlockHash;
use crate::repository::pack::Piece;
use crate::repository::places::PackedNode;

/// Pieces that need not be stored again.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) nodes: HashMap<BlockHash, PackedNode>,
    pub(super) blocks: HashMap<BlockHash, Piece>,
    /// Numbers of the packs of this publication.
    pub(super) own: HashSet<u32>,
}

impl Stock {
    /// Forgets the pieces of other publications, and the nodes: their places may refer to such
    /// pieces.
    pub(super) fn keep_own(&mut self) {
        let own = &self.own;
        self.blocks.retain(|_, piece| own.contains(&piece.pack));
        self.nodes.clear();
    }
}
