//! The nodes of a release by their hashes, out of a source that knows them by ordinal.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::reader::ReleaseSource;
use crate::block::BlockHash;
use crate::id::Ordinal;
use crate::manifest::read::{Child, NodeSource, ReadError, children};
use crate::manifest::{Node, NodeRef};
use crate::tree::SourceError;

/// Nodes and blocks of a source.
pub(in crate::drive) struct NodeReader<'a> {
    source: RefCell<&'a mut ReleaseSource>,
    ordinals: HashMap<BlockHash, Ordinal>,
}

impl<'a> NodeReader<'a> {
    /// Numbers the nodes under `root`.
    pub(in crate::drive) fn open(
        root: &NodeRef,
        source: &'a mut ReleaseSource,
    ) -> Result<Self, SourceError> {
        let mut ordinals = HashMap::new();
        let mut open = vec![(Ordinal(0), Child::Node(*root))];
        let mut bytes = Vec::new();
        while let Some((ordinal, child)) = open.pop() {
            let is_known = ordinals.insert(child.block().hash, ordinal).is_some();
            if is_known || child.is_leaf() {
                continue;
            }

            bytes.clear();
            source.read(ordinal, &mut bytes)?;
            let node = Node::decode(&bytes).map_err(ReadError::from)?;
            open.extend(children(&node, ordinal));
        }

        Ok(Self {
            source: RefCell::new(source),
            ordinals,
        })
    }

    /// Appends the bytes of the block `ordinal` to `out`.
    pub(in crate::drive) fn read(
        &self,
        ordinal: Ordinal,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        self.source.borrow_mut().read(ordinal, out)
    }
}

impl NodeSource for NodeReader<'_> {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        let missing = || ReadError::Missing(*hash);
        let ordinal = self.ordinals.get(hash).ok_or_else(missing)?;
        let mut bytes = Vec::new();
        let unreadable = |error| match error {
            SourceError::Manifest(error) => error,
            error => ReadError::Io(*hash, io::Error::other(error)),
        };
        self.read(*ordinal, &mut bytes).map_err(unreadable)?;
        Ok(bytes.into())
    }
}
