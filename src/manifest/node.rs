//! The bytes of manifest nodes: pages of entries, indexes of nodes, lists of blocks.
//!
//! A page stores each distinct owner once, and each path as the length shared with the previous
//! path plus the rest. Everything is CBOR (RFC 8949) in arrays with numbered positions; a later
//! minor version may append positions.

use std::collections::HashMap;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::entry::{EntryKind, MAX_OWNER_NAME, Mode, Mtime, Owner, Xattr};
use super::{Entry, TreePath};
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

#[derive(Encode, Decode)]
enum WireNode {
    #[n(0)]
    Page(#[n(0)] Vec<Arc0<Owner>>, #[n(1)] Vec<WireEntry>),
    #[n(1)]
    Index(#[n(0)] Vec<NodeRef>),
    #[n(2)]
    List(#[n(0)] Vec<BlockRef>),
}

/// An `Arc` encoded as its value.
struct Arc0<T>(Arc<T>);

impl<C, T: Encode<C>> Encode<C> for Arc0<T> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.0.encode(e, ctx)
    }
}

impl<'b, C, T: Decode<'b, C>> Decode<'b, C> for Arc0<T> {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        T::decode(d, ctx).map(|t| Arc0(Arc::new(t)))
    }
}

#[derive(Encode, Decode)]
struct WireEntry {
    /// Bytes of the path shared with the previous entry.
    #[n(0)]
    shared: u16,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    rest: Vec<u8>,
    #[n(2)]
    kind: EntryKind,
    #[n(3)]
    mode: Mode,
    #[n(4)]
    owner: u16,
    #[n(5)]
    secs: i64,
    #[n(6)]
    nanos: u32,
    #[n(7)]
    xattrs: Option<Vec<Xattr>>,
}

impl Node {
    /// Returns the node's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let wire = match self {
            Node::Page(entries) => encode_page(entries),
            Node::Index(refs) => WireNode::Index(refs.clone()),
            Node::List(blocks) => WireNode::List(blocks.clone()),
        };
        to_vec(&wire)
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
            WireNode::Page(owners, entries) => Node::Page(decode_page(owners, entries)?),
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

fn encode_page(entries: &[Entry]) -> WireNode {
    let mut owners: Vec<Arc0<Owner>> = Vec::new();
    let mut known: HashMap<&Owner, u16> = HashMap::new();
    let mut previous: &[u8] = &[];
    let mut wire = Vec::with_capacity(entries.len());

    for entry in entries {
        let owner = *known.entry(&entry.owner).or_insert_with(|| {
            owners.push(Arc0(Arc::clone(&entry.owner)));
            (owners.len() - 1) as u16
        });
        let path = entry.path.as_bytes();
        let shared = previous
            .iter()
            .zip(path)
            .take_while(|(a, b)| a == b)
            .count();
        previous = path;
        wire.push(WireEntry {
            shared: shared as u16,
            rest: path[shared..].to_vec(),
            kind: entry.kind.clone(),
            mode: entry.mode,
            owner,
            secs: entry.mtime.secs,
            nanos: entry.mtime.nanos,
            xattrs: (!entry.xattrs.is_empty()).then(|| entry.xattrs.clone()),
        });
    }

    WireNode::Page(owners, wire)
}

fn decode_page(owners: Vec<Arc0<Owner>>, wire: Vec<WireEntry>) -> Result<Vec<Entry>, NodeError> {
    let too_long = |name: &Option<Box<str>>| {
        name.as_ref()
            .is_some_and(|n| n.is_empty() || n.len() > MAX_OWNER_NAME)
    };

    if owners
        .iter()
        .any(|o| too_long(&o.0.user) || too_long(&o.0.group))
    {
        return Err(NodeError::Entry(
            "an owner's name is empty or too long".into(),
        ));
    }

    let mut entries: Vec<Entry> = Vec::with_capacity(wire.len().min(MAX_PAGE_ENTRIES));
    for w in wire {
        let previous = entries.last().map_or(&[][..], |e| e.path.as_bytes());
        let shared = previous
            .get(..usize::from(w.shared))
            .ok_or_else(|| NodeError::Entry("a path shares too much".into()))?;
        let path = TreePath::new([shared, &w.rest].concat())
            .map_err(|e| NodeError::Entry(e.to_string()))?;
        if entries.last().is_some_and(|e| e.path >= path) {
            return Err(NodeError::Entry(format!("{path}: out of order or twice")));
        }
        let owner = owners
            .get(usize::from(w.owner))
            .ok_or_else(|| NodeError::Entry(format!("{path}: no such owner")))?;
        let entry = Entry {
            path,
            kind: w.kind,
            mode: w.mode,
            owner: Arc::clone(&owner.0),
            mtime: Mtime {
                secs: w.secs,
                nanos: w.nanos,
            },
            xattrs: w.xattrs.unwrap_or_default(),
        };
        entry.check().map_err(NodeError::Entry)?;
        entries.push(entry);
    }

    Ok(entries)
}

#[cfg(test)]
pub(crate) mod tests;
