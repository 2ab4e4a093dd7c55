//! Places: where the blocks and child nodes of one manifest node are stored.
//!
//! Each manifest node has a places page, and the places pages form a tree with the same shape. A
//! page is about four bytes for each block. A node that two releases share also shares its places
//! page, so a small change writes a few pages only.
//!
//! The order is that of the node: first the blocks of its files, then for each child node the node
//! itself and its places page. Pieces that follow each other in a pack are one run. Number 0 among
//! the packs is the pack with the page itself, whose name is not known while it is written.

use std::collections::HashMap;

use minicbor::{Decode, Encode};

use super::pack::{Extent, MAX_PIECE_BYTES, PackName, PackTable, Piece};
use crate::block::BlockHash;
use crate::manifest::node::to_vec;

/// Largest places page in bytes.
pub const MAX_PLACES_BYTES: usize = MAX_PIECE_BYTES as usize;
/// Largest number of pieces of a places page: more than any legal node has.
pub const MAX_PIECES: usize = 1 << 16;

/// Reference to a places page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlacesRef {
    /// Bytes of the page, which is stored as it is.
    pub extent: Extent,
    /// SHA-256 of the page.
    pub hash: BlockHash,
}

/// A manifest node on a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoredNode {
    /// Bytes of the node.
    pub node: Extent,
    /// Its places page.
    pub places: PlacesRef,
}

/// A decoded places page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    own: PackName,
    wire: WirePlaces,
}

/// Reason for refusing a places page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacesError {
    /// Not the CBOR of a places page.
    #[error("places page cannot be decoded: {0}")]
    Encoding(String),
    /// A size or count beyond its cap, or a contradiction.
    #[error("places page is not legal: {0}")]
    Illegal(&'static str),
}

/// Encoding of a places page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct WirePlaces {
    /// Packs other than the own one; they have the numbers from 1.
    #[n(0)]
    packs: Vec<PackName>,
    #[n(1)]
    runs: Vec<WireRun>,
    /// Stored length of each piece.
    #[n(2)]
    lens: Vec<u32>,
    /// SHA-256 of the places page of each child node.
    #[n(3)]
    pages: Vec<BlockHash>,
}

/// Pieces that follow each other in one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct WireRun {
    #[n(0)]
    pack: u32,
    #[n(1)]
    offset: u32,
    #[n(2)]
    pieces: u32,
}

impl Places {
    /// Decodes the page that is stored in the pack `own`, and checks all caps.
    pub fn decode(bytes: &[u8], own: PackName) -> Result<Self, PlacesError> {
        if bytes.len() > MAX_PLACES_BYTES {
            return Err(PlacesError::Illegal("too large"));
        }

        let decoded = minicbor::decode(bytes);
        let wire: WirePlaces = decoded.map_err(|e| PlacesError::Encoding(e.to_string()))?;
        Self::checked(wire, own)
    }

    pub(super) fn checked(wire: WirePlaces, own: PackName) -> Result<Self, PlacesError> {
        let illegal = |why| Err(PlacesError::Illegal(why));
        let pieces = wire.lens.len();
        if pieces > MAX_PIECES || wire.packs.len() > pieces || wire.runs.len() > pieces {
            return illegal("too many pieces, packs or runs");
        }

        if wire.pages.len() > pieces / 2 {
            return illegal("more child nodes than pieces");
        }

        let run = |sum: usize, run: &WireRun| {
            let known = run.pack as usize <= wire.packs.len() && run.pieces > 0;
            known.then_some(sum.checked_add(run.pieces as usize)?)
        };
        if wire.runs.iter().try_fold(0, run) != Some(pieces) {
            return illegal("runs that differ from the pieces");
        }

        let places = Self { own, wire };
        if places.extents().all(|extent| extent.is_legal()) {
            Ok(places)
        } else {
            illegal("a piece outside of its pack")
        }
    }

    /// Returns the pieces of all blocks, in the order of the node.
    pub fn blocks(&self) -> impl Iterator<Item = Extent> + '_ {
        self.extents().take(self.block_count())
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.wire.lens.len() - 2 * self.wire.pages.len()
    }

    /// Returns the child nodes, in the order of the node.
    pub fn children(&self) -> impl Iterator<Item = StoredNode> + '_ {
        let mut extents = self.extents().skip(self.block_count());
        self.wire.pages.iter().map_while(move |hash| {
            let node = extents.next()?;
            let extent = extents.next()?;
            let places = PlacesRef {
                extent,
                hash: *hash,
            };
            Some(StoredNode { node, places })
        })
    }

    /// Number of child nodes.
    pub fn child_count(&self) -> usize {
        self.wire.pages.len()
    }

    fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let mut runs = self.wire.runs.iter();
        let mut left = 0;
        let mut next = Extent {
            pack: self.own,
            offset: 0,
            len: 0,
        };

        self.wire.lens.iter().map_while(move |len| {
            if left == 0 {
                let run = runs.next()?;
                left = run.pieces;
                next.offset = run.offset;
                next.pack = match run.pack.checked_sub(1) {
                    None => self.own,
                    Some(at) => *self.wire.packs.get(at as usize)?,
                };
            } else {
                next.offset = next.end();
            }

            left -= 1;
            next.len = *len;
            Some(next)
        })
    }

    /// The page as bytes.
    pub fn encode(&self) -> Vec<u8> {
        to_vec(&self.wire)
    }
}

impl PlacesRef {
    /// Decodes the page `bytes`; `None` if it is another one or not legal.
    pub fn open(&self, bytes: &[u8]) -> Option<Places> {
        (BlockHash::of(bytes) == self.hash)
            .then(|| Places::decode(bytes, self.extent.pack).ok())
            .flatten()
    }
}

/// Collects the pieces of one node, for its places page.
#[derive(Debug, Clone, Default)]
pub(super) struct PlacesBuilder {
    blocks: Vec<Piece>,
    children: Vec<PackedNode>,
}

/// A manifest node among the pieces of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedNode {
    /// The node.
    pub(super) node: Piece,
    /// Its places page.
    pub(super) places: Piece,
    /// SHA-256 of the places page.
    pub(super) hash: BlockHash,
}

impl PackedNode {
    /// A node that is stored already.
    pub(super) fn of(stored: &StoredNode, packs: &mut PackTable) -> Self {
        Self {
            node: packs.piece(&stored.node),
            places: packs.piece(&stored.places.extent),
            hash: stored.places.hash,
        }
    }
}

impl PlacesBuilder {
    /// Adds the next block.
    pub(super) fn block(&mut self, piece: Piece) {
        self.blocks.push(piece);
    }

    /// Adds the next child node.
    pub(super) fn child(&mut self, child: PackedNode) {
        self.children.push(child);
    }

    /// Encoding of the page for the pack with the number `own`, which may be open.
    pub(super) fn wire(&self, own: u32, packs: &PackTable) -> WirePlaces {
        let mut wire = WirePlaces {
            pages: self.children.iter().map(|c| c.hash).collect(),
            ..WirePlaces::default()
        };

        let children = self.children.iter().flat_map(|c| [c.node, c.places]);
        let mut numbers = HashMap::from([(own, 0)]);
        let mut last: Option<Piece> = None;
        for piece in self.blocks.iter().copied().chain(children) {
            wire.lens.push(piece.len);
            let joins = last.is_some_and(|last| {
                (last.pack, last.offset + last.len) == (piece.pack, piece.offset)
            });
            last = Some(piece);
            match wire.runs.last_mut() {
                Some(run) if joins => run.pieces += 1,
                _ => {
                    let pack = *numbers.entry(piece.pack).or_insert_with(|| {
                        wire.packs.push(packs.name(piece.pack));
                        wire.packs.len() as u32
                    });
                    wire.runs.push(WireRun {
                        pack,
                        offset: piece.offset,
                        pieces: 1,
                    });
                }
            }
        }

        wire
    }
}

#[cfg(test)]
pub(super) mod tests;
