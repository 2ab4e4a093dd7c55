//! The manifest of a release by ordinals, out of a tree's store of nodes as it is now: later
//! changes of the store, by commits that run meanwhile, take nothing away.

use std::sync::Arc;

use super::ordinals::OrdinalReader;
use super::scanned_source::SourceError;
use crate::block::BlockRef;
use crate::id::Ordinal;
use crate::manifest::NodeRef;
use crate::manifest::read::NodeSource;
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::reader::StateReader;
use crate::{Error, Result};

/// Nodes of a release, and the names of its blocks.
#[derive(Debug)]
pub struct ReleaseNodes {
    nodes: Arc<NodeStore>,
    ordinals: OrdinalReader<Arc<NodeStore>>,
    first_block: u64,
}

impl ReleaseNodes {
    /// Opens the manifest `root` in the state `records`, which has all of its nodes.
    pub fn open(records: &StateReader, root: NodeRef) -> Result<Self> {
        let nodes = Arc::new(NodeStore::look(records.path().join("nodes"))?);
        let ordinals = OrdinalReader::new(root, Arc::clone(&nodes)).map_err(|e| {
            Error::refused("the manifest of the release is not whole here").because(e)
        })?;
        Ok(Self {
            nodes,
            ordinals,
            first_block: root.nodes,
        })
    }

    /// Ordinal of the first block of a file; smaller ones are nodes.
    pub fn first_block(&self) -> u64 {
        self.first_block
    }

    /// Appends the node `ordinal` to `out`; `None` for a block of a file.
    pub fn read_node(
        &self,
        ordinal: Ordinal,
        out: &mut Vec<u8>,
    ) -> Result<Option<BlockRef>, SourceError> {
        let Some(node) = self.ordinals.node_ref(ordinal) else {
            return Ok(None);
        };
        out.extend_from_slice(&self.nodes.node(&node.hash)?);
        Ok(Some(node))
    }

    /// Hash and size of the block `ordinal` of a file.
    pub fn block(&mut self, ordinal: Ordinal) -> Result<BlockRef, SourceError> {
        let at = self.ordinals.run(ordinal)?;
        let run = &self.ordinals.runs[at];
        Ok(run.blocks[run.index_of(ordinal)])
    }
}
