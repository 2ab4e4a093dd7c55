//! Source of manifest nodes, and the reasons for a failed read.

use std::sync::Arc;

use crate::block::{BlockHash, BlockRef};
use crate::manifest::TreePath;
use crate::manifest::node::{Node, NodeError};

/// Source of the nodes for a reader.
pub trait NodeSource {
    /// Returns the bytes of the node `hash`; the source has verified them.
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError>;
}

impl<S: NodeSource + ?Sized> NodeSource for Arc<S> {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        (**self).node(hash)
    }
}

/// Reason for a failed read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source does not have the node.
    #[error("manifest node {0} is not here")]
    Missing(BlockHash),
    /// The node could not be read.
    #[error("manifest node {0} cannot be read: {1}")]
    Io(BlockHash, std::io::Error),
    /// The node's bytes are not legal.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Nodes contradict each other.
    #[error("manifest is not legal: {0}")]
    Illegal(String),
}

impl ReadError {
    /// A path that does not come after the one before it.
    pub(crate) fn misplaced(path: &TreePath) -> Self {
        ReadError::Illegal(format!("{path}: out of order or twice"))
    }

    /// A path without its directory.
    pub(crate) fn parentless(path: &TreePath) -> Self {
        ReadError::Illegal(format!(
            "{path}: the directory that it is in is not part of the release"
        ))
    }
}

/// Reads and decodes the node in `block`.
pub(super) fn load(source: &impl NodeSource, block: &BlockRef) -> Result<Node, ReadError> {
    let bytes = source.node(&block.hash)?;
    if bytes.len() != block.size as usize {
        return Err(ReadError::Illegal(
            "a node differs from its reference in size".into(),
        ));
    }
    Ok(Node::decode(&bytes)?)
}
