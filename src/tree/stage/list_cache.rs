//! Blocks of large files, read from the manifest's list nodes on demand, with a small cache.

use std::sync::{Arc, Mutex};

use crate::block::{BlockHash, BlockRef};
use crate::diff;
use crate::error::{Error, Result};
use crate::manifest::ListRef;
use crate::manifest::read::read_list;
use crate::recent::Recent;
use crate::sync::locked;
use crate::tree::lifecycle::Tree;

/// Number of cached lists: blocks arrive roughly in file order, whichever thread asks.
const RECENT_LISTS: usize = 8;

/// Lists of the manifests in a tree's store.
#[derive(Debug)]
pub(super) struct ListCache {
    tree: Arc<Tree>,
    kept: Mutex<Recent<(BlockHash, Arc<[BlockRef]>), RECENT_LISTS>>,
}

impl ListCache {
    pub(super) fn new(tree: &Arc<Tree>) -> Self {
        Self {
            tree: Arc::clone(tree),
            kept: Mutex::default(),
        }
    }
}

impl diff::BlockLists for ListCache {
    fn list(&self, list: &ListRef) -> Result<Arc<[BlockRef]>> {
        let mut kept = locked(&self.kept);
        if let Some((_, blocks)) = kept.find(|(hash, _)| *hash == list.block.hash) {
            return Ok(Arc::clone(blocks));
        }

        let failed =
            |e| Error::refused("a part of the release's manifest cannot be read").because(e);
        let blocks: Arc<[BlockRef]> = read_list(self.tree.nodes(), list).map_err(failed)?.into();
        kept.add((list.block.hash, Arc::clone(&blocks)));

        Ok(blocks)
    }
}
