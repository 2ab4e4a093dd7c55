//! A sender's source out of a host's own tree: a release that it keeps, its blocks read from the live tree and from the
//! content that is kept of older releases.
//!
//! It runs beside the sessions that change the tree, in the daemon or in another process without the tree's lock: what it
//! reads may change or vanish under it. So every block is verified, and looked for once more from the beginning before it is
//! called missing.

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
use crate::tree::history::content;
use crate::tree::lifecycle::Tree;
use crate::tree::state::block_log::{self, BlockLocation};
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::reader::StateReader;
use crate::{Error, Result};

/// Where the live tree is.
#[derive(Debug)]
pub enum LiveTree {
    /// In whichever directory this process serves: its path is not looked up.
    Served(Arc<Tree>),
    /// At this path, where another process serves it.
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

/// The manifest of a release that a host keeps, and its blocks.
#[derive(Debug)]
pub struct StoredSource {
    tree: LiveTree,
    records: StateReader,
    nodes: Arc<NodeStore>,
    numbered: OrdinalReader<Arc<NodeStore>>,
    /// The live tree, as it was when it was looked at last.
    root: Option<Arc<Root>>,
    /// Where the blocks of kept content lie; read when the first one is asked for.
    kept: Option<KeptBlocks>,
}

/// The kept content of all releases.
#[derive(Debug, Default)]
struct KeptBlocks {
    dirs: Vec<PathBuf>,
    /// The place of each block with the place of its directory in `dirs`.
    blocks: HashMap<BlockHash, (usize, BlockLocation)>,
    open: Option<((usize, u64), File)>,
}

impl Blocks for StoredSource {
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        StoredSource::read(self, ordinal, out)
    }
}

impl StoredSource {
    /// The release with the manifest `root` of `tree`, whose state `records` are.
    pub fn open(tree: LiveTree, records: StateReader, root: NodeRef) -> Result<Self> {
        let nodes = Arc::new(NodeStore::look(records.path().join("nodes"))?);
        let numbered = OrdinalReader::new(root, Arc::clone(&nodes)).map_err(|e| {
            Error::refused("this host does not have the whole manifest of the release").because(e)
        })?;
        Ok(Self {
            tree,
            records,
            nodes,
            numbered,
            root: None,
            kept: None,
        })
    }

    /// Appends the bytes of the block `ordinal` to `out`, verified; after an error it is as it was.
    pub fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.numbered.node_ref(ordinal) {
            out.extend_from_slice(&self.nodes.node(&node.hash)?);
            return Ok(node);
        }

        let at = self.numbered.run(ordinal)?;
        for again in [false, true] {
            if again {
                // A commit may have moved it from one place to the other, or put another tree in place.
                self.numbered.runs[at].file = None;
                (self.root, self.kept) = (None, None);
            }
            if let Some(block) = self
                .live(at, ordinal, out)
                .or_else(|| self.kept_block(at, ordinal, out))
            {
                return Ok(block);
            }
        }

        Err(SourceError::NotKept(self.numbered.runs[at].path.clone()))
    }

    /// The block out of the live tree, when the file there still has it.
    fn live(&mut self, at: usize, ordinal: Ordinal, out: &mut Vec<u8>) -> Option<BlockRef> {
        if self.root.is_none() {
            self.root = self.tree.root();
        }

        let run = &mut self.numbered.runs[at];
        let index = run.index_of(ordinal);
        let (block, offset) = (run.blocks[index], run.offsets[index]);
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
        let run = &self.numbered.runs[at];
        let block = run.blocks[run.index_of(ordinal)];
        let kept = self
            .kept
            .get_or_insert_with(|| KeptBlocks::load(self.records.path()));
        out.extend_from_slice(&kept.read(&block)?);
        Some(block)
    }
}

impl KeptBlocks {
    /// What cannot be read is as if it were not kept.
    fn load(state: &Path) -> Self {
        let mut kept = Self::default();
        for (_, dir) in content::shelves(state).unwrap_or_default() {
            let nth = kept.dirs.len();
            let read = content::each_block(&dir, |hash, place| {
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
