//! Pieces that a gc moves to other packs, and the new places of what refers to them.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::block::BlockHash;
use crate::manifest::read::MAX_DEPTH;
use crate::repository::head::HeadRelease;
use crate::repository::pack::{Extent, PackName, Piece};
use crate::repository::packer::{PackedRecord, Packer};
use crate::repository::places::{PackedNode, Places, PlacesBuilder, PlacesRef, StoredNode};

/// Packs whose live pieces move to others.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    /// Packs that are not read yet.
    pub(super) weak: VecDeque<PackName>,
    /// Sizes of all packs of the repository.
    pub(super) sizes: HashMap<PackName, u64>,
    pub(super) moved: Moved,
}

/// Pieces that moved to other packs.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Packs that are rewritten.
    weak: HashSet<PackName>,
    pieces: HashMap<Extent, Piece>,
    pages: HashMap<PlacesRef, (Piece, BlockHash)>,
}

/// A kept release after the rewrite.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rewritten {
    /// It did not change.
    Same(HeadRelease),
    /// Its record was stored again.
    Again(HeadRelease, PackedRecord),
}

impl Moved {
    pub(super) fn new(weak: &[PackName]) -> Self {
        Self {
            weak: weak.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Returns whether the pack is rewritten.
    pub(super) fn is_weak(&self, pack: &PackName) -> bool {
        self.weak.contains(pack)
    }

    /// Copies the live `extents` of a weak pack with these bytes; returns the first one that is
    /// not in the pack.
    pub(super) fn copy(
        &mut self,
        extents: &[Extent],
        bytes: &[u8],
        packer: &mut Packer,
    ) -> Result<(), Extent> {
        for extent in extents {
            let range = extent.offset as usize..extent.end() as usize;
            let piece = packer.append(bytes.get(range).ok_or(*extent)?);
            self.pieces.insert(*extent, piece);
        }

        Ok(())
    }

    fn piece(&self, extent: &Extent, packer: &mut Packer) -> Piece {
        let moved = self.pieces.get(extent).copied();
        moved.unwrap_or_else(|| packer.packs.piece(extent))
    }

    /// Stores a node's places page again if anything beneath moved.
    pub(super) fn node(
        &mut self,
        node: &StoredNode,
        pages: &HashMap<PlacesRef, Places>,
        packer: &mut Packer,
        depth: usize,
    ) -> Option<PackedNode> {
        let (places, hash) = self.page(&node.places, pages, packer, depth)?;
        Some(PackedNode {
            node: self.piece(&node.node, packer),
            places,
            hash,
        })
    }

    fn page(
        &mut self,
        reference: &PlacesRef,
        pages: &HashMap<PlacesRef, Places>,
        packer: &mut Packer,
        depth: usize,
    ) -> Option<(Piece, BlockHash)> {
        if let Some(known) = self.pages.get(reference) {
            return Some(*known);
        }

        let page = pages.get(reference).filter(|_| depth <= MAX_DEPTH)?;
        let mut builder = PlacesBuilder::default();
        let mut same = !self.weak.contains(&reference.extent.pack);
        for extent in page.blocks() {
            same &= !self.weak.contains(&extent.pack);
            builder.block(self.piece(&extent, packer));
        }

        for child in page.children() {
            let packed = self.node(&child, pages, packer, depth + 1)?;
            same &= packed == PackedNode::of(&child, &mut packer.packs);
            builder.child(packed);
        }

        let packed = if same {
            (packer.packs.piece(&reference.extent), reference.hash)
        } else {
            packer.append_places(&builder)
        };
        self.pages.insert(*reference, packed);
        Some(packed)
    }
}
