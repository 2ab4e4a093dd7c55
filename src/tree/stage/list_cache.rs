//! The blocks of large files, read from the manifest's list nodes when they are asked for: some are kept at hand.

use std::sync::{Arc, Mutex};

use crate::block::{BlockHash, BlockRef};
use crate::diff;
use crate::error::{Error, Result};
use crate::manifest::ListRef;
use crate::manifest::read::read_list;
use crate::sync::locked;
use crate::tree::lifecycle::Tree;

/// Lists that are kept: what comes is in about the order of the file, whichever thread asks.
const RECENT_LISTS: usize = 8;

/// The lists of the manifests that a tree keeps.
#[derive(Debug)]
pub(super) struct ListCache {
    tree: Arc<Tree>,
    /// The one used last at the end.
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
