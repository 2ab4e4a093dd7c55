//! Manifests in memory, for tests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use super::build::{Builder, NodeSink};
use super::read::{Manifest, NodeSource, ReadError};
use super::{Entry, EntryKind, Mode, Mtime, Node, NodeRef, Owner, TreePath};
use crate::block::{BlockHash, BlockRef};

/// Nodes by hash.
#[derive(Debug, Default)]
pub(crate) struct MemoryNodes(pub(crate) HashMap<BlockHash, Arc<[u8]>>);

impl MemoryNodes {
    /// Stores a node.
    pub(crate) fn add(&mut self, node: &Node) -> NodeRef {
        let (reference, bytes) = node.finish().expect("small");
        let Ok(()) = self.put(reference.block, bytes);
        reference
    }
}

impl NodeSource for MemoryNodes {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.0.get(hash).cloned().ok_or(ReadError::Missing(*hash))
    }
}

impl NodeSink for MemoryNodes {
    type Error = Infallible;

    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> Result<(), Infallible> {
        self.0.insert(block.hash, bytes.into());
        Ok(())
    }
}

/// Entry of root, with mode 0644.
pub(crate) fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: TreePath::new(path.as_bytes()).expect("legal"),
        kind,
        mode: Mode::from_bits(0o644),
        owner: Arc::new(Owner::nameless(0, 0)),
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    }
}

/// Manifest of sorted entries.
pub(crate) fn manifest_of(entries: impl IntoIterator<Item = Entry>) -> Manifest<MemoryNodes> {
    let mut nodes = MemoryNodes::default();
    let mut builder = Builder::default();
    for entry in entries {
        let Ok(()) = builder.push(entry, &mut nodes);
    }

    let Ok(root) = builder.finish(&mut nodes);
    Manifest::new(root, nodes)
}
