//! A kept release as the source for a sender: blocks come from the live tree and from the kept
//! content of older releases.
//!
//! It runs beside sessions that change the tree, in the daemon or in another process without the
//! tree's lock, so files may change or vanish at any time. Every block is verified, and a missing
//! one is looked up once more from the beginning.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ordinals::OrdinalReader;
use super::scanned_source::{Blocks, SourceError};
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::NodeRef;
use crate::manifest::read::NodeSource;
use crate::tree::fs::dir::{open_dir, slot_name};
use crate::tree::fs::root::{Root, open_file_at};
use crate::tree::history::{content, content_index};
use crate::tree::lifecycle::Tree;
use crate::tree::state::block_log::{self, BlockLocation};
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::reader::StateReader;
use crate::{Error, Result};

/// Access to the live tree.
#[derive(Debug)]
pub enum LiveTree {
    /// Through this process's own tree; the path is not resolved.
    Served(Arc<Tree>),
    /// By path; another process serves the tree.
    At(PathBuf),
}

impl LiveTree {
    fn root(&self) -> Option<Arc<Root>> {
        match self {
            LiveTree::Served(tree) => Some(tree.root()),
            LiveTree::At(path) => Root::open(path).ok().map(Arc::new),
        }
    }
}

/// Manifest and blocks of a release that a host keeps.
#[derive(Debug)]
pub struct StoredSource {
    tree: LiveTree,
    records: StateReader,
    nodes: Arc<NodeStore>,
    ordinals: OrdinalReader<Arc<NodeStore>>,
    /// Live tree at the last look.
    root: Option<Arc<Root>>,
    /// Locations of blocks in kept content; read on first use.
    kept: Option<KeptBlocks>,
}

/// Kept content of all releases.
#[derive(Debug, Default)]
struct KeptBlocks {
    dirs: Vec<PathBuf>,
    /// For each block, the index of its directory in `dirs`, and its location.
    blocks: HashMap<BlockHash, (usize, BlockLocation)>,
    open: Option<((usize, u64), File)>,
}

impl Blocks for StoredSource {
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        StoredSource::read(self, ordinal, out)
    }
}

impl StoredSource {
    /// Opens the release with the manifest `root` of `tree`; `records` is the tree's state.
    pub fn open(tree: LiveTree, records: StateReader, root: NodeRef) -> Result<Self> {
        let nodes = Arc::new(NodeStore::look(records.path().join("nodes"))?);
        let ordinals = OrdinalReader::new(root, Arc::clone(&nodes)).map_err(|e| {
            Error::refused("this host does not have the whole manifest of the release").because(e)
        })?;
        Ok(Self {
            tree,
            records,
            nodes,
            ordinals,
            root: None,
            kept: None,
        })
    }

    /// The nodes of the manifest, and of other releases.
    pub fn nodes(&self) -> Arc<dyn NodeSource> {
        Arc::clone(&self.nodes) as Arc<dyn NodeSource>
    }

    /// Appends the bytes of the block `ordinal` to `out`, verified; leaves `out` unchanged on
    /// error.
    pub fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.ordinals.node_ref(ordinal) {
            out.extend_from_slice(&self.nodes.node(&node.hash)?);
            return Ok(node);
        }

        let at = self.ordinals.run(ordinal)?;
        for again in [false, true] {
            if again {
                // A commit may have moved the block, or exchanged the tree.
                self.ordinals.runs[at].file = None;
                (self.root, self.kept) = (None, None);
            }
            if let Some(block) = self
                .live(at, ordinal, out)
                .or_else(|| self.kept_block(at, ordinal, out))
            {
                return Ok(block);
            }
        }

        Err(SourceError::NotKept(self.ordinals.runs[at].path.clone()))
    }

    /// Reads the block from the live tree, if the file there still has it.
    fn live(&mut self, at: usize, ordinal: Ordinal, out: &mut Vec<u8>) -> Option<BlockRef> {
        if self.root.is_none() {
            self.root = self.tree.root();
        }

        let run = &mut self.ordinals.runs[at];
        let index = run.index_of(ordinal);
        let block = run.blocks[index];
        let offset = run.offsets[index];
        let file = match &run.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(
                run.file
                    .insert(Arc::new(self.root.as_ref()?.open_file(&run.path).ok()?)),
            ),
        };

        let before = out.len();
        out.resize(before + block.size as usize, 0);
        let bytes = &mut out[before..];
        if file.read_exact_at(bytes, offset).is_ok() && block.matches(bytes) {
            return Some(block);
        }

        out.truncate(before);
        None
    }

    fn kept_block(&mut self, at: usize, ordinal: Ordinal, out: &mut Vec<u8>) -> Option<BlockRef> {
        let run = &self.ordinals.runs[at];
        let block = run.blocks[run.index_of(ordinal)];
        let kept = self
            .kept
            .get_or_insert_with(|| KeptBlocks::load(self.records.path()));
        out.extend_from_slice(&kept.read(&block)?);
        Some(block)
    }
}

impl KeptBlocks {
    /// Loads all locations; unreadable ones count as not kept.
    fn load(state: &Path) -> Self {
        let mut kept = Self::default();
        for (_, dir) in content::kept_dirs(state).unwrap_or_default() {
            let nth = kept.dirs.len();
            let read = content_index::each_block(&dir, |hash, place| {
                kept.blocks.insert(hash, (nth, place));
            });
            if let Err(e) = read {
                tracing::debug!("{e}");
            }
            kept.dirs.push(dir);
        }

        kept
    }

    fn read(&mut self, block: &BlockRef) -> Option<Vec<u8>> {
        let &(nth, place) = self.blocks.get(&block.hash)?;
        let file = match self.open.take() {
            Some((at, file)) if at == (nth, place.slot) => file,
            _ => {
                let dir = open_dir(self.dirs.get(nth)?).ok()?;
                open_file_at(std::os::fd::AsFd::as_fd(&dir), &slot_name(place.slot)).ok()?
            }
        };

        let mut bytes = Vec::new();
        let whole = block_log::read(&file, &block.hash, &place, &mut bytes)
            && bytes.len() == block.size as usize;
        self.open = Some(((nth, place.slot), file));

        whole.then_some(bytes)
    }
}
