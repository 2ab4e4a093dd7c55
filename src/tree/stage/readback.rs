//! Reads blocks of a release in preparation back from this host.
//!
//! Sources, in this order: staged files, places in the tree that the plan found, and unchanged
//! files of the live tree. A block counts only with a matching hash; a missing one is no error. At
//! most one block is in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::Stage;
use super::targets::BlockTarget;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::read::{NodeSource, ReadError};
use crate::manifest::{NodeRef, TreePath};
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::root::open_file_at;
use crate::tree::lifecycle::Tree;
use crate::tree::serve::ordinals::OrdinalReader;
use crate::tree::state::block_log::{self, BlockLocation};

/// Blocks of one release, by ordinal.
#[derive(Debug)]
pub struct BlockReader {
    tree: Arc<Tree>,
    ordinals: OrdinalReader<TreeNodes>,
    /// Last file read from the stage.
    staged: Option<(u64, File)>,
    /// Last file read from the tree, among those that the plan named.
    local: Option<(TreePath, File)>,
}

/// Nodes in a tree's store.
#[derive(Debug)]
struct TreeNodes(Arc<Tree>);

impl NodeSource for TreeNodes {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.0.nodes().node(hash)
    }
}

impl BlockReader {
    /// Opens the release with the manifest `root`; `tree` has all its nodes.
    pub fn open(tree: &Arc<Tree>, root: NodeRef) -> Result<Self, ReadError> {
        let ordinals = OrdinalReader::new(root, TreeNodes(Arc::clone(tree)))?;
        Ok(Self {
            tree: Arc::clone(tree),
            ordinals,
            staged: None,
            local: None,
        })
    }

    /// Reads the file block `ordinal` into `out`, verified. False if it is missing; `out` is
    /// unspecified then.
    pub fn read(&mut self, stage: &Stage, ordinal: Ordinal, out: &mut Vec<u8>) -> bool {
        if self.ordinals.node_ref(ordinal).is_some() {
            return false;
        }

        let Ok(at) = self.ordinals.run(ordinal) else {
            return false;
        };

        let run = &self.ordinals.runs[at];
        let block = run.blocks[run.index_of(ordinal)];
        self.staged(stage, &block, out)
            || self.local(stage, &block, out)
            || self.unchanged(at, ordinal, out)
    }

    /// Reads a block that arrived in this session, or was taken over at its beginning.
    fn staged(&mut self, stage: &Stage, block: &BlockRef, out: &mut Vec<u8>) -> bool {
        let found = stage
            .targets
            .of(&block.hash)
            .ok()
            .and_then(|mut targets| targets.find(BlockTarget::is_written));

        let Some(found) = found else { return false };
        let slot = stage.items[found.item].slot;
        let file = match self.staged.take().filter(|(open, _)| *open == slot) {
            Some((_, file)) => file,
            None => match open_file_at(self.tree.state().stage(), &slot_name(slot)) {
                Ok(file) => file,
                // The file's own mode may keep this process from opening it again.
                Err(_) => return false,
            },
        };

        let place = BlockLocation {
            slot,
            offset: found.offset,
            size: block.size,
        };

        let read = block_log::read(&file, &block.hash, &place, out);
        self.staged = Some((slot, file));
        read
    }

    /// Reads a block that the plan takes from another place in the tree.
    fn local(&mut self, stage: &Stage, block: &BlockRef, out: &mut Vec<u8>) -> bool {
        let Some(place) = stage.plan.reuse.get(&block.hash) else {
            return false;
        };

        let file = match self.local.take().filter(|(path, _)| *path == place.path) {
            Some((_, file)) => file,
            None => match self.tree.root().open_file(&place.path) {
                Ok(file) => file,
                Err(_) => return false,
            },
        };

        let read = read_at(&file, block, place.offset, out);
        self.local = Some((place.path.clone(), file));
        read
    }

    /// Reads a block from the same place of the unchanged file.
    fn unchanged(&mut self, at: usize, ordinal: Ordinal, out: &mut Vec<u8>) -> bool {
        let run = &mut self.ordinals.runs[at];
        let index = run.index_of(ordinal);
        let file = match &run.file {
            Some(file) => Arc::clone(file),
            None => match self.tree.root().open_file(&run.path) {
                Ok(file) => Arc::clone(run.file.insert(Arc::new(file))),
                Err(_) => return false,
            },
        };

        read_at(&file, &run.blocks[index], run.offsets[index], out)
    }
}

fn read_at(file: &File, block: &BlockRef, offset: u64, out: &mut Vec<u8>) -> bool {
    out.resize(block.size as usize, 0);
    file.read_exact_at(out, offset).is_ok() && block.matches(out)
}
