//! Reads a manifest from its nodes: entries in order, and the node or block of an ordinal.
//!
//! A reader trusts nothing. Every node is checked against its reference, order and parents are
//! checked across pages, and a contradiction is an error before anything acts on it.

use std::ops::Range;
use std::sync::Arc;

use super::entry::{Content, Entry, EntryKind};
use super::node::{ListRef, Node, NodeError, NodeRef};
use super::{Header, Top, TreePath};
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;

/// Largest number of index levels above a page: with 256 references each, far more than any tree
/// needs.
pub const MAX_DEPTH: usize = 12;

/// Largest number of blocks of one file: a terabyte of average blocks.
pub const MAX_FILE_BLOCKS: u64 = 16 << 20;

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

/// One entry with the ordinal of its first block (without blocks, the ordinal of the next one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The entry.
    pub entry: Entry,
    /// Ordinal of the first block.
    pub first: Ordinal,
}

/// A manifest with the nodes of `source`.
#[derive(Debug)]
pub struct Manifest<S> {
    root: NodeRef,
    top: Option<Top>,
    source: S,
}

impl<S: NodeSource> Manifest<S> {
    /// Creates the manifest under `root`, without a root directory.
    pub fn new(root: NodeRef, source: S) -> Self {
        Self {
            root,
            top: None,
            source,
        }
    }

    /// Creates the manifest of a release.
    pub fn of(header: &Header, source: S) -> Self {
        Self {
            root: header.root,
            top: header.top.clone(),
            source,
        }
    }

    /// Returns the root directory, if the release governs it.
    pub fn top(&self) -> Option<&Top> {
        self.top.as_ref()
    }

    /// Returns the root node.
    pub fn root(&self) -> &NodeRef {
        &self.root
    }

    /// Returns all entries in order, each checked against the previous ones.
    pub fn entries(&self) -> Entries<'_, S> {
        Entries {
            manifest: self,
            stack: vec![Pending {
                node: self.root,
                ordinal: 0,
                block: self.root.nodes,
            }],
            page: Vec::new().into_iter(),
            next_block: self.root.nodes,
            order: PathOrder::default(),
            failed: false,
        }
    }

    /// Returns the blocks of `content`, in order.
    pub fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>, ReadError> {
        match content {
            Content::Blocks(blocks) => Ok(blocks.clone()),
            Content::Lists(lists) => {
                check_count(content)?;
                let mut all = Vec::new();
                for list in lists {
                    all.extend(self.list(list)?);
                }
                Ok(all)
            }
        }
    }

    /// Returns the blocks of one list node.
    pub fn list(&self, list: &ListRef) -> Result<Vec<BlockRef>, ReadError> {
        read_list(&self.source, list)
    }

    /// Returns the reference of the node with this ordinal (below `root.nodes`).
    pub fn node_at(&self, ordinal: Ordinal) -> Result<BlockRef, ReadError> {
        let mut at = 0;
        let mut node = self.root;
        for _ in 0..MAX_DEPTH {
            if at == ordinal.0 {
                return Ok(node.block);
            }
            match self.decode(&node)? {
                Node::Index(refs) => (at, node) = child_with(&refs, at + 1, ordinal.0)?,
                Node::Page(entries) => {
                    let lists = entries.iter().filter_map(|e| match &e.kind {
                        EntryKind::File(Content::Lists(lists)) => Some(lists),
                        _ => None,
                    });
                    let nth = usize::try_from(ordinal.0 - at - 1).unwrap_or(usize::MAX);
                    return lists
                        .flatten()
                        .nth(nth)
                        .map(|l| l.block)
                        .ok_or_else(|| ReadError::Illegal("no node with this ordinal".into()));
                }
                Node::List(_) => break,
            }
        }

        Err(ReadError::Illegal("no node with this ordinal".into()))
    }

    /// Returns the entry of the block with this ordinal, and the ordinal of the entry's first
    /// block.
    pub fn entry_of_block(&self, ordinal: Ordinal) -> Result<Located, ReadError> {
        Ok(self.page_of_block(ordinal)?.entry_of(ordinal)?.clone())
    }

    /// Returns the page of the block with this ordinal, for a caller that reads many neighbours.
    pub fn page_of_block(&self, ordinal: Ordinal) -> Result<PageView, ReadError> {
        let none = || ReadError::Illegal("no block with this ordinal".into());
        let mut first = self.root.nodes;
        let mut node = self.root;
        if ordinal.0 < first || ordinal.0 - first >= node.blocks {
            return Err(none());
        }

        for _ in 0..MAX_DEPTH {
            match self.decode(&node)? {
                Node::Index(refs) => {
                    let mut found = None;
                    let mut at = first;
                    for r in refs {
                        if ordinal.0 - at < r.blocks {
                            found = Some((at, r));
                            break;
                        }
                        at += r.blocks;
                    }
                    (first, node) = found.ok_or_else(none)?;
                }
                Node::Page(entries) => return Ok(PageView::new(entries, first)),
                Node::List(_) => return Err(none()),
            }
        }

        Err(none())
    }

    pub(super) fn decode(&self, node: &NodeRef) -> Result<Node, ReadError> {
        let decoded = load(&self.source, &node.block)?;
        check_sums(node, &decoded)?;
        Ok(decoded)
    }
}

fn load(source: &impl NodeSource, block: &BlockRef) -> Result<Node, ReadError> {
    let bytes = source.node(&block.hash)?;
    if bytes.len() != block.size as usize {
        return Err(ReadError::Illegal(
            "a node differs from its reference in size".into(),
        ));
    }
    Ok(Node::decode(&bytes)?)
}

/// Reads the blocks of the list node `list` from `source`.
pub fn read_list(source: &impl NodeSource, list: &ListRef) -> Result<Vec<BlockRef>, ReadError> {
    match load(source, &list.block)? {
        Node::List(blocks) => {
            let bytes: u64 = blocks.iter().map(|b| u64::from(b.size)).sum();
            if (blocks.len() as u64, bytes) != (list.blocks, list.bytes) {
                return Err(ReadError::Illegal(
                    "a block list differs from its reference".into(),
                ));
            }
            Ok(blocks)
        }
        _ => Err(ReadError::Illegal(
            "a block list is another kind of node".into(),
        )),
    }
}

/// Refuses a file with too many blocks: one small list may be named over and over.
pub fn check_count(content: &Content) -> Result<(), ReadError> {
    match content.block_count() {
        count if count > MAX_FILE_BLOCKS => {
            Err(ReadError::Illegal(format!("a file of {count} blocks")))
        }
        _ => Ok(()),
    }
}

/// Checks `node` against the totals of its reference `r`.
pub fn check_sums(r: &NodeRef, node: &Node) -> Result<(), ReadError> {
    if matches!(node, Node::List(_)) || node.sums() != Some((r.nodes, r.blocks, r.entries, r.bytes))
    {
        return Err(ReadError::Illegal(
            "a node differs from its reference".into(),
        ));
    }
    Ok(())
}

/// Returns the children of a node with their ordinals, which a host requests next.
pub fn children(node: &Node, ordinal: Ordinal) -> Vec<(Ordinal, Child)> {
    let mut next = ordinal.0 + 1;
    let mut out = Vec::new();
    match node {
        Node::Index(refs) => {
            for r in refs {
                out.push((Ordinal(next), Child::Node(*r)));
                next = next.saturating_add(r.nodes);
            }
        }
        Node::Page(entries) => {
            for entry in entries {
                if let EntryKind::File(Content::Lists(lists)) = &entry.kind {
                    for list in lists {
                        out.push((Ordinal(next), Child::List(*list)));
                        next = next.saturating_add(1);
                    }
                }
            }
        }
        Node::List(_) => {}
    }

    out
}

/// Child of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// A page or an index.
    Node(NodeRef),
    /// A list of blocks.
    List(ListRef),
}

impl Child {
    /// Returns the block with the child's own bytes.
    pub fn block(&self) -> BlockRef {
        match self {
            Child::Node(n) => n.block,
            Child::List(l) => l.block,
        }
    }

    /// Returns true without nodes beneath.
    pub fn is_leaf(&self) -> bool {
        match self {
            Child::Node(node) => node.nodes == 1,
            Child::List(_) => true,
        }
    }

    /// Checks `node` against this reference.
    pub fn check(&self, node: &Node) -> Result<(), ReadError> {
        match self {
            Child::Node(r) => check_sums(r, node),
            Child::List(l) => match node {
                Node::List(_) if node.sums() == Some((1, l.blocks, 0, l.bytes)) => Ok(()),
                _ => Err(ReadError::Illegal(
                    "a block list differs from its reference".into(),
                )),
            },
        }
    }
}

fn child_with(refs: &[NodeRef], mut at: u64, ordinal: u64) -> Result<(u64, NodeRef), ReadError> {
    for r in refs {
        if ordinal >= at && ordinal - at < r.nodes {
            return Ok((at, *r));
        }
        at += r.nodes;
    }
    Err(ReadError::Illegal("no node with this ordinal".into()))
}

/// Decoded entries of one page with the ordinals of their blocks.
#[derive(Debug, Clone)]
pub struct PageView {
    entries: Vec<Located>,
    range: Range<u64>,
}

impl PageView {
    fn new(entries: Vec<Entry>, first: u64) -> Self {
        let mut next = first;
        let entries = entries
            .into_iter()
            .map(|entry| {
                let located = Located {
                    first: Ordinal(next),
                    entry,
                };
                if let EntryKind::File(content) = &located.entry.kind {
                    next += content.block_count();
                }
                located
            })
            .collect();

        Self {
            entries,
            range: first..next,
        }
    }

    /// Returns true if the block is in this page.
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        self.range.contains(&ordinal.0)
    }

    /// Returns the entry of the block.
    pub fn entry_of(&self, ordinal: Ordinal) -> Result<&Located, ReadError> {
        let after = self.entries.partition_point(|l| l.first.0 <= ordinal.0);
        let candidates = self.entries[..after].iter().rev();
        let holds = |l: &&Located| match &l.entry.kind {
            EntryKind::File(c) => ordinal.0 - l.first.0 < c.block_count(),
            _ => false,
        };

        candidates
            .take_while(|l| l.first.0 <= ordinal.0)
            .find(holds)
            .ok_or_else(|| ReadError::Illegal("no block with this ordinal".into()))
    }
}

struct Pending {
    node: NodeRef,
    ordinal: u64,
    block: u64,
}

/// The entries of a manifest in order; ends after the first error.
pub struct Entries<'a, S> {
    manifest: &'a Manifest<S>,
    stack: Vec<Pending>,
    page: std::vec::IntoIter<Entry>,
    next_block: u64,
    order: PathOrder,
    failed: bool,
}

impl<S: NodeSource> Entries<'_, S> {
    fn advance(&mut self) -> Result<Option<Located>, ReadError> {
        loop {
            if let Some(entry) = self.page.next() {
                self.order.check(&entry)?;
                let first = Ordinal(self.next_block);
                if let EntryKind::File(content) = &entry.kind {
                    self.next_block += content.block_count();
                }
                return Ok(Some(Located { entry, first }));
            }

            let Some(Pending {
                node,
                ordinal,
                block,
            }) = self.stack.pop()
            else {
                return Ok(None);
            };

            match self.manifest.decode(&node)? {
                Node::Page(entries) => {
                    self.next_block = block;
                    self.page = entries.into_iter();
                }
                Node::Index(refs) => {
                    if self.stack.len() > MAX_DEPTH * super::node::MAX_INDEX_REFS {
                        return Err(ReadError::Illegal("too deep".into()));
                    }
                    let mut ordinal = ordinal + 1;
                    let mut block = block;
                    let mut children = Vec::with_capacity(refs.len());
                    for node in refs {
                        children.push(Pending {
                            node,
                            ordinal,
                            block,
                        });
                        ordinal += node.nodes;
                        block += node.blocks;
                    }
                    self.stack.extend(children.into_iter().rev());
                }
                Node::List(_) => return Err(ReadError::Illegal("a list among pages".into())),
            }
        }
    }
}

impl<S: NodeSource> Iterator for Entries<'_, S> {
    type Item = Result<Located, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

/// Checks the order across pages: paths rise strictly, and every parent is an earlier directory.
#[derive(Debug, Default)]
pub(super) struct PathOrder {
    last: Option<TreePath>,
    /// Directories that enclose the last path, outermost first.
    open: Vec<TreePath>,
}

impl PathOrder {
    /// Starts as if the directories `above`, outermost first, had just been checked.
    pub(super) fn below(above: Vec<TreePath>) -> Self {
        Self {
            last: above.last().cloned(),
            open: above,
        }
    }

    pub(super) fn check(&mut self, entry: &Entry) -> Result<(), ReadError> {
        let path = &entry.path;
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(ReadError::Illegal(format!("{path}: out of order or twice")));
        }

        if path.is_reserved() {
            return Err(ReadError::Illegal(format!(
                "{path}: hosts keep the state of trees under this name"
            )));
        }

        while self.open.last().is_some_and(|dir| !path.is_within(dir)) {
            self.open.pop();
        }

        if path.parent().as_ref() != self.open.last() {
            return Err(ReadError::Illegal(format!(
                "{path}: the directory that it is in is not part of the release"
            )));
        }

        if matches!(entry.kind, EntryKind::Directory) {
            self.open.push(path.clone());
        }

        self.last = Some(path.clone());
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
