//! Builds a manifest from sorted entries, holding no more than the open page of every level.
//!
//! Pages, indexes and lists end where a hash of their content falls, so that a change moves no
//! other border (a Merkle search tree by content-defined cuts, as in prolly trees).

use super::entry::{Content, EntryKind, MAX_DIRECT_BLOCKS};
use super::node::{ListRef, MAX_INDEX_REFS, MAX_LIST_BLOCKS, MAX_PAGE_ENTRIES, Node, NodeRef};
use super::{Entry, TreePath};
use crate::block::BlockRef;

/// Divisor of path hashes: a page ends at a multiple, or at its caps.
const PAGE_ENTRIES: u64 = 1024;
/// Approximate size in bytes at which a page ends.
const PAGE_BYTES: usize = 256 << 10;
/// Divisor of reference hashes: an index ends at a multiple.
const INDEX_REFS: u64 = 256;
/// Divisor of block hashes: a list ends at a multiple.
const LIST_BLOCKS: u64 = 2048;

/// Destination of finished nodes.
pub trait NodeSink {
    /// Reason for a failed write.
    type Error;
    /// Stores `bytes`, the node named `block`. The same node may be stored more than once.
    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> Result<(), Self::Error>;

    /// Stores `bytes`, a page of entries.
    fn page(&mut self, page: PageEnd<'_>, bytes: Vec<u8>) -> Result<(), Self::Error> {
        self.put(page.node.block, bytes)
    }
}

/// A finished page.
#[derive(Debug)]
pub struct PageEnd<'a> {
    /// Reference of the page.
    pub node: NodeRef,
    /// Entries of the page.
    pub entries: &'a [Entry],
    /// True if the end does not depend on the entries that follow; false if the next entry had no
    /// room, or there was none.
    pub settled: bool,
}

impl<F: FnMut(BlockRef, Vec<u8>)> NodeSink for F {
    type Error = std::convert::Infallible;
    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> Result<(), Self::Error> {
        self(block, bytes);
        Ok(())
    }
}

/// Turns sorted entries into the nodes of a manifest.
#[derive(Debug, Default)]
pub struct Builder {
    page: Vec<Entry>,
    page_bytes: usize,
    /// Open indexes, lowest level first.
    levels: Vec<Vec<NodeRef>>,
    last: Option<TreePath>,
}

impl Builder {
    /// Returns true if an entry with this path may come next.
    pub fn may_follow(&self, path: &TreePath) -> bool {
        self.last.as_ref().is_none_or(|last| last < path)
    }

    /// Adds the next entry; paths rise strictly.
    ///
    /// # Panics
    ///
    /// If the order is broken, which is a defect of the caller.
    pub fn push<S: NodeSink>(&mut self, entry: Entry, sink: &mut S) -> Result<(), S::Error> {
        assert!(
            self.may_follow(&entry.path),
            "entries out of order at {}",
            entry.path
        );

        self.last = Some(entry.path.clone());
        let cut = path_hash(entry.path.as_bytes()).is_multiple_of(PAGE_ENTRIES);
        let bytes = rough_size(&entry);

        // A file of terabytes, beside other entries, could exceed the size of a node.
        if bytes > PAGE_BYTES && !self.page.is_empty() {
            self.end_page(false, sink)?;
        }

        self.page_bytes += bytes;
        self.page.push(entry);
        if cut || self.page.len() == MAX_PAGE_ENTRIES || self.page_bytes > PAGE_BYTES {
            self.end_page(true, sink)?;
        }

        Ok(())
    }

    /// Adds a page of an earlier manifest that the sink has already; `last` is the last path in the
    /// page.
    ///
    /// # Panics
    ///
    /// If a page is open: see [`Builder::is_between_pages`].
    pub fn push_page<S: NodeSink>(
        &mut self,
        page: NodeRef,
        last: TreePath,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        assert!(self.page.is_empty(), "a page is open");
        self.last = Some(last);
        self.add_ref(0, page, sink)
    }

    /// Returns true if the next entry begins a page.
    pub fn is_between_pages(&self) -> bool {
        self.page.is_empty()
    }

    /// Ends the manifest and returns its root. A manifest without entries has one empty page.
    pub fn finish<S: NodeSink>(mut self, sink: &mut S) -> Result<NodeRef, S::Error> {
        if !self.page.is_empty() || self.levels.is_empty() {
            self.end_page(false, sink)?;
        }

        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            let refs = std::mem::take(&mut self.levels[level]);
            match refs.as_slice() {
                [only] if is_top => return Ok(*only),
                [] => {}
                _ => {
                    let index = store(&Node::Index(refs), sink)?;
                    self.add_ref(level + 1, index, sink)?;
                }
            }
            level += 1;
        }
    }

    fn end_page<S: NodeSink>(&mut self, settled: bool, sink: &mut S) -> Result<(), S::Error> {
        self.page_bytes = 0;
        let page = Node::Page(std::mem::take(&mut self.page));
        let (node, bytes) = finished(&page);
        if let Node::Page(entries) = &page {
            sink.page(
                PageEnd {
                    node,
                    entries,
                    settled,
                },
                bytes,
            )?;
        }

        self.add_ref(0, node, sink)
    }

    fn add_ref<S: NodeSink>(
        &mut self,
        level: usize,
        node: NodeRef,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }

        self.levels[level].push(node);
        let full = self.levels[level].len();
        if full == MAX_INDEX_REFS
            || (full > 1 && hash_number(&node.block).is_multiple_of(INDEX_REFS))
        {
            let index = store(&Node::Index(std::mem::take(&mut self.levels[level])), sink)?;
            self.add_ref(level + 1, index, sink)?;
        }

        Ok(())
    }
}

/// Collects the blocks of one file; the blocks of a large file go into list nodes at once.
#[derive(Debug, Default)]
pub struct ContentBuilder {
    open: Vec<BlockRef>,
    lists: Vec<ListRef>,
}

impl ContentBuilder {
    /// Adds the next block.
    pub fn push<S: NodeSink>(&mut self, block: BlockRef, sink: &mut S) -> Result<(), S::Error> {
        self.open.push(block);
        let cut =
            hash_number(&block).is_multiple_of(LIST_BLOCKS) && self.open.len() > MAX_DIRECT_BLOCKS;
        if cut || self.open.len() == MAX_LIST_BLOCKS {
            self.end_list(sink)?;
        }
        Ok(())
    }

    /// Adds the same block `count` times. A list of this block alone is built once and repeated.
    pub fn push_many<S: NodeSink>(
        &mut self,
        block: BlockRef,
        mut count: u64,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let cuts = hash_number(&block).is_multiple_of(LIST_BLOCKS);
        let full = MAX_LIST_BLOCKS as u64;
        while count > 0 {
            let ended = self.open.is_empty() && count >= 2 * full && !cuts;
            if !ended {
                self.push(block, sink)?;
                count -= 1;
                continue;
            }
            (0..full).try_for_each(|_| self.push(block, sink))?;
            count -= full;
            if let Some(list) = self.lists.last().copied() {
                self.lists
                    .extend(std::iter::repeat_n(list, (count / full) as usize));
                count %= full;
            }
        }

        Ok(())
    }

    /// Returns the content of the file.
    pub fn finish<S: NodeSink>(mut self, sink: &mut S) -> Result<Content, S::Error> {
        if self.lists.is_empty() && self.open.len() <= MAX_DIRECT_BLOCKS {
            return Ok(Content::Blocks(self.open));
        }
        if !self.open.is_empty() {
            self.end_list(sink)?;
        }
        Ok(Content::Lists(self.lists))
    }

    fn end_list<S: NodeSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let list = store(&Node::List(std::mem::take(&mut self.open)), sink)?;
        self.lists.push(ListRef {
            block: list.block,
            blocks: list.blocks,
            bytes: list.bytes,
        });
        Ok(())
    }
}

fn store<S: NodeSink>(node: &Node, sink: &mut S) -> Result<NodeRef, S::Error> {
    let (node, bytes) = finished(node);
    sink.put(node.block, bytes)?;
    Ok(node)
}

fn finished(node: &Node) -> (NodeRef, Vec<u8>) {
    node.finish()
        .expect("a tree on a disk has fewer than 2^64 bytes and blocks")
}

/// Estimates the bytes of an entry in its page, rounded up.
fn rough_size(entry: &Entry) -> usize {
    let kind = match &entry.kind {
        EntryKind::File(Content::Blocks(blocks)) => blocks.len() * 42,
        EntryKind::File(Content::Lists(lists)) => lists.len() * 56,
        EntryKind::Symlink(target) => target.len(),
        EntryKind::Hardlink(first) => first.as_bytes().len(),
        _ => 0,
    };

    let xattrs: usize = entry
        .xattrs
        .iter()
        .map(|x| x.name.len() + x.value.len() + 8)
        .sum();
    entry.path.name().len() + kind + xattrs + 40
}

/// FNV-1a (64 bit) with a final mix: uniform and fast. Part of the format only insofar as equal
/// trees share pages.
fn path_hash(path: &[u8]) -> u64 {
    let fnv = path.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

fn hash_number(block: &BlockRef) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&block.hash.0[..8]);
    u64::from_be_bytes(first)
}
