//! The bytes of manifest nodes: pages of entries, indexes of nodes, lists of blocks.
//!
//! Everything is CBOR (RFC 8949) in arrays with numbered positions; a later
//! minor version may append positions.

mod page;
#[cfg(test)]
pub(crate) mod tests;

use minicbor::{Decode, Encode};

use self::page::{Arc0, WireEntry};
use super::Entry;
use super::entry::{EntryKind, Owner};
use crate::block::BlockRef;

/// Largest size of one node in bytes.
pub const MAX_NODE_BYTES: usize = 1 << 20;
/// Largest number of entries of a page.
pub const MAX_PAGE_ENTRIES: usize = 4096;
/// Largest number of references of an index.
pub const MAX_INDEX_REFS: usize = 1024;
/// Largest number of blocks of a list.
pub const MAX_LIST_BLOCKS: usize = 8192;

/// Reference to a node: its block, and the totals beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct NodeRef {
    /// Block with the node's own bytes.
    #[n(0)]
    pub block: BlockRef,
    /// Number of nodes beneath, including this one.
    #[n(1)]
    pub nodes: u64,
    /// Number of blocks of files beneath.
    #[n(2)]
    pub blocks: u64,
    /// Number of entries beneath.
    #[n(3)]
    pub entries: u64,
    /// Bytes of file content beneath.
    #[n(4)]
    pub bytes: u64,
}

/// Reference to a list node: its block, and the totals of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ListRef {
    /// Block with the node's own bytes.
    #[n(0)]
    pub block: BlockRef,
    /// Number of blocks in the list.
    #[n(1)]
    pub blocks: u64,
    /// Total bytes of the blocks.
    #[n(2)]
    pub bytes: u64,
}

impl ListRef {
    /// Returns true if a list can hold as much.
    pub(super) fn is_legal(&self) -> bool {
        let blocks = 1..=MAX_LIST_BLOCKS as u64;
        blocks.contains(&self.blocks)
            && (self.blocks..=self.blocks * crate::block::chunk::MAX as u64).contains(&self.bytes)
    }
}

/// A decoded node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Entries in order.
    Page(Vec<Entry>),
    /// Pages or further indexes, in order.
    Index(Vec<NodeRef>),
    /// Some of a large file's blocks, in order.
    List(Vec<BlockRef>),
}

/// Reason for refusing a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Not the CBOR of a node.
    #[error("manifest node cannot be decoded: {0}")]
    Encoding(String),
    /// A size or count beyond its cap.
    #[error("manifest node exceeds a limit: {0}")]
    Limit(String),
    /// Entries that contradict each other or exceed the caps of an entry.
    #[error("manifest entry is not legal: {0}")]
    Entry(String),
}

impl From<minicbor::decode::Error> for NodeError {
    fn from(e: minicbor::decode::Error) -> Self {
        NodeError::Encoding(e.to_string())
    }
}

/// Encoding of a node.
#[derive(Encode, Decode)]
enum WireNode {
    #[n(0)]
    Page(#[n(0)] Vec<Arc0<Owner>>, #[n(1)] Vec<WireEntry>),
    #[n(1)]
    Index(#[n(0)] Vec<NodeRef>),
    #[n(2)]
    List(#[n(0)] Vec<BlockRef>),
}

impl Node {
    /// Returns the node's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self {
            Node::Page(entries) => {
                let (owners, entries) = page::pack(entries);
                WireNode::Page(owners, entries)
            }
            Node::Index(refs) => WireNode::Index(refs.clone()),
            Node::List(blocks) => WireNode::List(blocks.clone()),
        };
        to_vec(&wire)
    }

    /// Returns the node's reference and bytes; `None` if its totals overflow.
    pub fn finish(&self) -> Option<(NodeRef, Vec<u8>)> {
        let bytes = self.encode();
        let (nodes, blocks, entries, size) = self.sums()?;
        let reference = NodeRef {
            block: BlockRef::of(&bytes),
            nodes,
            blocks,
            entries,
            bytes: size,
        };
        Some((reference, bytes))
    }

    /// Decodes a node: checks every cap, and that entries are sorted and without duplicates.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        if bytes.len() > MAX_NODE_BYTES {
            return Err(NodeError::Limit(format!("{} bytes", bytes.len())));
        }

        let node = match minicbor::decode(bytes)? {
            // Checked before the paths are expanded, because full paths are longer than their
            // shared form.
            WireNode::Page(owners, entries)
                if owners.len().max(entries.len()) > MAX_PAGE_ENTRIES =>
            {
                return Err(NodeError::Limit(format!(
                    "{} entries of {} owners",
                    entries.len(),
                    owners.len()
                )));
            }
            WireNode::Page(owners, entries) => Node::Page(page::unpack(owners, entries)?),
            WireNode::Index(refs) => Node::Index(refs),
            WireNode::List(blocks) => Node::List(blocks),
        };

        node.check_limits()?;
        Ok(node)
    }

    fn check_limits(&self) -> Result<(), NodeError> {
        let (count, cap, what) = match self {
            Node::Page(entries) => (entries.len(), MAX_PAGE_ENTRIES, "entries"),
            Node::Index(refs) => (refs.len(), MAX_INDEX_REFS, "references"),
            Node::List(blocks) => (blocks.len(), MAX_LIST_BLOCKS, "blocks"),
        };

        if count > cap {
            return Err(NodeError::Limit(format!("{count} {what}")));
        }

        let sizes_ok = match self {
            Node::Page(_) => true,
            Node::Index(refs) => refs
                .iter()
                .all(|r| r.block.size as usize <= MAX_NODE_BYTES && r.nodes >= 1),
            Node::List(blocks) => blocks
                .iter()
                .all(|b| (1..=crate::block::chunk::MAX as u32).contains(&b.size)),
        };

        if sizes_ok {
            Ok(())
        } else {
            Err(NodeError::Limit("a size beneath it".into()))
        }
    }

    /// Returns the totals for a [`NodeRef`] to this node: nodes (with this one), blocks, entries,
    /// bytes. `None` on overflow, which no honest node causes.
    pub fn sums(&self) -> Option<(u64, u64, u64, u64)> {
        match self {
            Node::Page(entries) => {
                entries
                    .iter()
                    .try_fold((1u64, 0u64, 0u64, 0u64), |(n, b, e, s), entry| {
                        let (lists, blocks) = match &entry.kind {
                            EntryKind::File(content) => {
                                (content.list_count(), content.block_count())
                            }
                            _ => (0, 0),
                        };
                        Some((
                            n.checked_add(lists)?,
                            b.checked_add(blocks)?,
                            e + 1,
                            s.checked_add(entry.kind.size())?,
                        ))
                    })
            }
            Node::Index(refs) => {
                refs.iter()
                    .try_fold((1u64, 0u64, 0u64, 0u64), |(n, b, e, s), r| {
                        Some((
                            n.checked_add(r.nodes)?,
                            b.checked_add(r.blocks)?,
                            e.checked_add(r.entries)?,
                            s.checked_add(r.bytes)?,
                        ))
                    })
            }
            Node::List(blocks) => Some((
                1,
                blocks.len() as u64,
                0,
                blocks.iter().map(|b| u64::from(b.size)).sum(),
            )),
        }
    }
}

/// Encodes into memory, which cannot fail.
pub(crate) fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to a Vec cannot fail")
}
