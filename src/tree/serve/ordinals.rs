//! A manifest by ordinals: the node, or the block of a file, for each number.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use crate::block::BlockRef;
use crate::id::Ordinal;
use crate::manifest::read::{Child, Located, Manifest, NodeSource, PageView, ReadError, children};
use crate::manifest::{Content, EntryKind, Node, NodeRef, TreePath};
use crate::recent::Recent;

/// Number of recent pages, and of recent files: enough for a stream and the repairs of earlier
/// blocks.
const RECENT_PAGES: usize = 8;

/// A manifest with nodes from `S`, for access with locality.
#[derive(Debug)]
pub(crate) struct OrdinalReader<S> {
    pub(crate) manifest: Manifest<S>,
    /// Nodes by ordinal.
    nodes: Vec<BlockRef>,
    pages: Recent<Arc<PageView>, RECENT_PAGES>,
    /// Runs of the files read last.
    pub(crate) runs: Recent<BlockRun, RECENT_PAGES>,
}

/// Consecutive blocks of one open file: a whole small file, or one list of a large one.
#[derive(Debug)]
pub(crate) struct BlockRun {
    pub(crate) ordinals: Range<u64>,
    pub(crate) path: TreePath,
    pub(crate) blocks: Vec<BlockRef>,
    /// Offset of each block in the file.
    pub(crate) offsets: Vec<u64>,
    pub(crate) file: Option<Arc<File>>,
}

impl<S: NodeSource> OrdinalReader<S> {
    /// Opens the manifest under `top`; `source` has all its nodes.
    pub(crate) fn new(top: NodeRef, source: S) -> Result<Self, ReadError> {
        let nodes = number_nodes(&top, &source)?;
        Ok(Self {
            manifest: Manifest::new(top, source),
            nodes,
            pages: Recent::default(),
            runs: Recent::default(),
        })
    }

    pub(crate) fn node_ref(&self, ordinal: Ordinal) -> Option<BlockRef> {
        usize::try_from(ordinal.0)
            .ok()
            .and_then(|n| self.nodes.get(n))
            .copied()
    }

    /// Index in `runs` of the run with `ordinal`; the last used run is at the end.
    pub(crate) fn run(&mut self, ordinal: Ordinal) -> Result<usize, ReadError> {
        let is_here = |run: &BlockRun| run.ordinals.contains(&ordinal.0);
        if self.runs.find(is_here).is_none() {
            let run = self.find_run(ordinal)?;
            self.runs.add(run);
        }

        Ok(self.runs.len() - 1)
    }

    fn find_run(&mut self, ordinal: Ordinal) -> Result<BlockRun, ReadError> {
        let page = self.page(ordinal)?;
        let Located { entry, first } = page.entry_of(ordinal)?;
        let mut at = first.0;
        let mut offset = 0;
        let blocks = match &entry.kind {
            EntryKind::File(Content::Blocks(blocks)) => blocks.clone(),
            EntryKind::File(Content::Lists(lists)) => {
                let mut found = None;
                for list in lists {
                    if ordinal.0 - at < list.blocks {
                        found = Some(self.manifest.list(list)?);
                        break;
                    }
                    at += list.blocks;
                    offset += list.bytes;
                }
                found.ok_or_else(|| ReadError::Illegal("no block with this ordinal".into()))?
            }
            _ => return Err(ReadError::Illegal("a block of what is no file".into())),
        };

        let offsets = starts(offset, &blocks);
        let file = self
            .runs
            .iter()
            .find(|r| r.path == entry.path)
            .and_then(|r| r.file.clone());

        Ok(BlockRun {
            ordinals: at..at + blocks.len() as u64,
            path: entry.path.clone(),
            blocks,
            offsets,
            file,
        })
    }

    fn page(&mut self, ordinal: Ordinal) -> Result<Arc<PageView>, ReadError> {
        if let Some(page) = self.pages.find(|page| page.contains(ordinal)) {
            return Ok(Arc::clone(page));
        }

        let page = Arc::new(self.manifest.page_of_block(ordinal)?);
        self.pages.add(Arc::clone(&page));

        Ok(page)
    }
}

impl BlockRun {
    pub(crate) fn index_of(&self, ordinal: Ordinal) -> usize {
        (ordinal.0 - self.ordinals.start) as usize
    }
}

/// Offsets of `blocks` in the file, the first one at `from`.
fn starts(from: u64, blocks: &[BlockRef]) -> Vec<u64> {
    let begin = |next: &mut u64, block: &BlockRef| {
        let at = *next;
        *next += u64::from(block.size);
        Some(at)
    };
    blocks.iter().scan(from, begin).collect()
}

/// Nodes in the order of their ordinals. Decodes only pages with lists below.
fn number_nodes(top: &NodeRef, source: &impl NodeSource) -> Result<Vec<BlockRef>, ReadError> {
    let mut all = Vec::new();
    let mut stack = vec![Child::Node(*top)];
    while let Some(child) = stack.pop() {
        let ordinal = Ordinal(all.len() as u64);
        all.push(child.block());
        if let Child::Node(node) = child
            && node.nodes > 1
        {
            let decoded = Node::decode(&source.node(&node.block.hash)?)?;
            stack.extend(
                children(&decoded, ordinal)
                    .into_iter()
                    .rev()
                    .map(|(_, child)| child),
            );
        }
    }

    Ok(all)
}
