//! The record of a release: header, signature and orders, and where the root of its manifest is
//! stored.

use minicbor::{Decode, Encode};

use super::head::{MAX_LEAD_BYTES, MAX_RECORD_BYTES};
use super::pack::{MAX_PIECE_BYTES, PackName, PackTable};
use super::places::{PackedNode, Places, PlacesBuilder, PlacesError, StoredNode, WirePlaces};
use crate::block::BlockHash;
use crate::id::TreeName;
use crate::keys::MAX_SIGNATURE_BYTES;
use crate::manifest::Release;
use crate::manifest::header::{HeaderError, MAX_HEADER_BYTES};
use crate::manifest::node::to_vec;
use crate::wire::message::SignedOrder;

/// Largest number of orders of a record.
pub const MAX_RECORD_ORDERS: usize = 8;

/// A release as it stands in a repository.
#[derive(Debug, Clone)]
pub struct ReleaseRecord {
    /// The header.
    pub release: Release,
    /// Its signature, not verified yet.
    pub signature: Vec<u8>,
    /// Signed orders that committed the release, not verified yet. A host commits by the one that
    /// permits it.
    pub orders: Vec<SignedOrder>,
    /// The root of the manifest.
    pub root: StoredNode,
}

/// Reason for refusing a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Other bytes than those that the head names.
    #[error("the record of a release is not the one that the head names")]
    Hash,
    /// The head of the first tree names a release of the second one.
    #[error("the head of {0} names a release of {1}")]
    OtherTree(TreeName, TreeName),
    /// Not the CBOR of a record, or beyond a cap.
    #[error("the record of a release is not legal: {0}")]
    Illegal(String),
    /// The header is not legal.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The place of the root is not legal.
    #[error(transparent)]
    Places(#[from] PlacesError),
}

/// Encoding of a record.
#[derive(Encode, Decode)]
struct WireRecord {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    header: Vec<u8>,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    signature: Vec<u8>,
    #[n(2)]
    orders: Vec<SignedOrder>,
    /// A places page with the root as its only child.
    #[n(3)]
    root: WirePlaces,
}

impl ReleaseRecord {
    /// Decodes the record with the hash `hash` in the pack `own`, and checks all caps.
    pub fn decode(bytes: &[u8], own: PackName, hash: &BlockHash) -> Result<Self, RecordError> {
        let illegal = |why: String| RecordError::Illegal(why);
        if bytes.len() > MAX_RECORD_BYTES as usize {
            return Err(illegal(format!("{} bytes", bytes.len())));
        }

        if BlockHash::of(bytes) != *hash {
            return Err(RecordError::Hash);
        }

        let wire: WireRecord = minicbor::decode(bytes).map_err(|e| illegal(e.to_string()))?;
        if wire.header.len() > MAX_HEADER_BYTES || wire.signature.len() > MAX_SIGNATURE_BYTES {
            return Err(illegal("too large a header or signature".into()));
        }

        if wire.orders.len() > MAX_RECORD_ORDERS || !wire.orders.iter().all(SignedOrder::fits) {
            return Err(illegal("too many or too large orders".into()));
        }

        let places = Places::checked(wire.root, own)?;
        let root = places.children().next();
        if places.block_count() != 0 || places.child_count() != 1 {
            return Err(illegal("more than one root".into()));
        }

        Ok(Self {
            release: Release::from_bytes(&wire.header)?,
            signature: wire.signature,
            orders: wire.orders,
            root: root.ok_or_else(|| illegal("no root".into()))?,
        })
    }

    /// Checks that the record is of `tree`. One that may release a tree could otherwise bring in
    /// the release of another.
    pub fn check_tree(&self, tree: &TreeName) -> Result<(), RecordError> {
        match &self.release.header().tree {
            other if other != tree => Err(RecordError::OtherTree(tree.clone(), other.clone())),
            _ => Ok(()),
        }
    }
}

/// Encodes a record for the pack `own`.
pub(super) fn encode_record(
    release: &Release,
    signature: &[u8],
    orders: &[SignedOrder],
    root: PackedNode,
    own: u32,
    packs: &PackTable,
) -> Vec<u8> {
    let mut places = PlacesBuilder::default();
    places.child(root);
    to_vec(&WireRecord {
        header: release.bytes().to_vec(),
        signature: signature.to_vec(),
        orders: orders.to_vec(),
        root: places.wire(own, packs),
    })
}

const _: () = assert!(MAX_RECORD_BYTES + MAX_LEAD_BYTES <= MAX_PIECE_BYTES);
