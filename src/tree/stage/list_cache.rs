//! Blocks of large files, read from the manifest's list nodes on demand, with a small cache.

use std::sync::{Arc, Mutex};

use crate::block::{BlockHash, BlockRef};
use crate::diff;
use crate::error::{Error, Result};
use crate::manifest::ListRef;
use crate::manifest::read::read_list;
use crate::sync::locked;
use crate::tree::lifecycle::Tree;

/// Number of cached lists: blocks arrive roughly in file order, whichever thread asks.
const RECENT_LISTS: usize = 8;

/// Lists of the manifests in a tree's store.
#[derive(Debug)]
pub(super) struct ListCache {
    tree: Arc<Tree>,
    /// The last used one at the end.
    kept: Mutex<Vec<(BlockHash, Arc<[BlockRef]>)>>,
}

impl ListCache {
    pub(super) fn new(tree: &Arc<Tree>) -> Self {
        Self {
            tree: Arc::clone(tree),
            kept: Mutex::default(),
        }
    }
}

impl diff::Lists for ListCache {
    fn list(&self, list: &ListRef) -> Result<Arc<[BlockRef]>> {
        let mut kept = locked(&self.kept);
        if let Some(at) = kept.iter().rposition(|(hash, _)| *hash == list.block.hash) {
            kept[at..].rotate_left(1);
        } else {
            let failed =
                |e| Error::refused("a part of the release's manifest cannot be read").because(e);
            let blocks = read_list(self.tree.nodes(), list).map_err(failed)?;
            if kept.len() == RECENT_LISTS {
                kept.remove(0);
            }
            kept.push((list.block.hash, blocks.into()));
        }

        Ok(Arc::clone(&kept[kept.len() - 1].1))
    }
}
