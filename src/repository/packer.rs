//! Lays pieces out in packs, one after another: a pack that is full is handed out.

use std::collections::VecDeque;
use std::sync::Arc;

use super::head::{HeadRelease, MAX_LEAD_BYTES};
use super::object::{Put, PutCondition};
use super::pack::{PACK_BYTES, PackName, PackTable, Piece};
use super::places::{PackedNode, PlacesBuilder};
use super::record::encode_record;
use crate::block::BlockHash;
use crate::manifest::Release;
use crate::manifest::node::to_vec;
use crate::wire::message::SignedOrder;

/// Largest number of bytes before a record that are worth a read, in a pack that is not small.
const MAX_TOP_BYTES: u32 = 64 << 10;

/// Lays out packs.
#[derive(Debug)]
pub(super) struct Packer {
    pub(super) packs: PackTable,
    open: Option<OpenPack>,
    full: VecDeque<Put>,
    limit: u32,
}

/// The pack under construction.
#[derive(Debug)]
struct OpenPack {
    number: u32,
    bytes: Vec<u8>,
    /// First bytes of the last pieces, in order.
    starts: VecDeque<u32>,
}

/// A release to publish, with its signature and the orders that committed it.
#[derive(Debug, Clone)]
pub struct SignedRelease {
    /// The release.
    pub release: Release,
    /// Signature of its header.
    pub signature: Vec<u8>,
    /// Orders about the release: hosts commit by the one that permits it.
    pub orders: Vec<SignedOrder>,
}

/// A record in a pack whose name is not known yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedRecord {
    piece: Piece,
    hash: BlockHash,
    lead: u32,
    top: u32,
}

impl Packer {
    /// Lays out packs of at most `limit` bytes; a larger piece has a pack of its own.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            packs: PackTable::default(),
            open: None,
            full: VecDeque::new(),
            limit: limit.min(PACK_BYTES),
        }
    }

    /// Adds a piece in its stored form.
    pub(super) fn append(&mut self, stored: &[u8]) -> Piece {
        self.room_for(stored.len());
        self.write(stored)
    }

    /// Adds the places page of a node.
    pub(super) fn append_places(&mut self, places: &PlacesBuilder) -> (Piece, BlockHash) {
        let bytes = self.encode_own(|own, packs| to_vec(&places.wire(own, packs)));
        (self.write(&bytes), BlockHash::of(&bytes))
    }

    /// Adds the record of a release with this root.
    pub(super) fn append_record(&mut self, new: &SignedRelease, root: PackedNode) -> PackedRecord {
        let bytes = self.encode_own(|own, packs| {
            encode_record(&new.release, &new.signature, &new.orders, root, own, packs)
        });
        let piece = self.write(&bytes);
        let before = |node: &Piece| (node.pack == piece.pack).then(|| piece.offset - node.offset);

        // The root's places page follows the root, and the record follows both.
        let top = before(&root.node).filter(|top| *top <= MAX_LEAD_BYTES);
        PackedRecord {
            piece,
            hash: BlockHash::of(&bytes),
            lead: self.lead(&piece).max(top.unwrap_or(0)),
            top: top.unwrap_or(0),
        }
    }

    /// The packed record as it stands in a head, once its pack is full.
    pub(super) fn kept(&self, release: &Release, record: &PackedRecord) -> HeadRelease {
        let extent = self.packs.extent(&record.piece);
        HeadRelease {
            serial: release.header().serial,
            pack: extent.pack,
            offset: extent.offset,
            len: extent.len,
            hash: record.hash,
            lead: record.lead,
            top: record.top,
        }
    }

    /// Ends the open pack.
    pub(super) fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };

        let name = PackName(BlockHash::of(&open.bytes));
        self.packs.close(open.number, name);
        self.full.push_back(Put {
            object: name.object(),
            bytes: Arc::new(open.bytes),
            condition: PutCondition::Any,
        });
    }

    /// Returns the next full pack.
    pub(super) fn next_full(&mut self) -> Option<Put> {
        self.full.pop_front()
    }

    /// Returns whether a full pack waits.
    pub(super) fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Bytes of packs that were not handed out.
    pub(super) fn waiting(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.bytes.len());
        let full = self.full.iter().map(|put| put.bytes.len());
        (open + full.sum::<usize>()) as u64
    }

    /// Encodes a piece that depends on the pack in which it ends up.
    fn encode_own(&mut self, encode: impl Fn(u32, &PackTable) -> Vec<u8>) -> Vec<u8> {
        let own = self.room_for(0);
        let bytes = encode(own, &self.packs);
        let other = self.room_for(bytes.len());
        if other == own {
            bytes
        } else {
            encode(other, &self.packs)
        }
    }

    /// Begins another pack if `len` bytes do not fit; returns the number of the open one.
    fn room_for(&mut self, len: usize) -> u32 {
        let fits = |open: &OpenPack| {
            open.bytes.is_empty() || open.bytes.len() + len <= self.limit as usize
        };
        if !self.open.as_ref().is_some_and(fits) {
            self.close();
        }

        let packs = &mut self.packs;
        let open = self.open.get_or_insert_with(|| OpenPack {
            number: packs.open(),
            bytes: Vec::with_capacity(self.limit as usize),
            starts: VecDeque::new(),
        });
        open.number
    }

    fn write(&mut self, stored: &[u8]) -> Piece {
        let number = self.room_for(0);
        let open = self.open.as_mut().expect("made above");
        let piece = Piece {
            pack: number,
            offset: open.bytes.len() as u32,
            len: stored.len() as u32,
        };

        open.bytes.extend_from_slice(stored);
        open.starts.push_back(piece.offset);
        let far = |start: &u32| piece.offset - start > MAX_TOP_BYTES;
        while open.starts.front().is_some_and(far) {
            open.starts.pop_front();
        }

        piece
    }

    /// Bytes before a record to read with it: all of a small pack, else the last pieces.
    fn lead(&self, record: &Piece) -> u32 {
        let first = self.open.as_ref().and_then(|open| open.starts.front());
        match first {
            _ if record.offset <= MAX_LEAD_BYTES => record.offset,
            Some(first) => record.offset - first,
            None => 0,
        }
    }
}
