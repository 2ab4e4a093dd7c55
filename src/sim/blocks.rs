//! Blocks in memory, by hash.

use std::collections::HashMap;
use std::sync::Arc;

use crate::block::{BlockHash, BlockRef};
use crate::manifest::read::{NodeSource, ReadError};

/// Blocks by hash.
#[derive(Debug, Clone, Default)]
pub struct BlockMap(HashMap<BlockHash, Arc<[u8]>>);

impl NodeSource for &BlockMap {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.get(hash).cloned().ok_or(ReadError::Missing(*hash))
    }
}

impl BlockMap {
    /// Adds a block.
    pub fn insert(&mut self, hash: BlockHash, bytes: Arc<[u8]>) {
        self.0.insert(hash, bytes);
    }

    /// Returns a block.
    pub fn get(&self, hash: &BlockHash) -> Option<&Arc<[u8]>> {
        self.0.get(hash)
    }

    /// Returns true if the block is present and undamaged.
    pub fn has_sound(&self, block: &BlockRef) -> bool {
        self.get(&block.hash)
            .is_some_and(|bytes| block.matches(bytes))
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|block| block.len() as u64).sum()
    }
}
