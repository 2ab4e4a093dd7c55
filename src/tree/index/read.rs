//! A finished index, read page by page.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::filter::BlockFilter;
use super::format::{
    IndexEntry, IndexTail, NodeLocation, Origin, PageRow, Totals, checksum, damaged,
};
use super::stats::{MAX_STATS_BYTES, StatRecords};
use crate::block::{BlockHash, BlockRef};
use crate::manifest::node::MAX_NODE_BYTES;
use crate::manifest::read::{NodeSource, ReadError};
use crate::manifest::{Content, Mtime, Node, NodeRef, TreePath};
use crate::recent::Recent;
use crate::sync::locked;
use crate::tree::fs::stat::Version;

/// Number of decoded pages in the cache.
const CACHED_PAGES: usize = 4;

/// A finished index on disk.
#[derive(Debug)]
pub struct Index {
    file: File,
    path: PathBuf,
    /// Current device number of the directory. Device numbers change at a boot, so the file only
    /// records whether an entry is on the same device.
    root_dev: u64,
    tail: IndexTail,
    totals: Totals,
    /// Locations of all nodes by hash: pages, indexes and lists.
    nodes: HashMap<BlockHash, NodeLocation>,
    /// Pages decoded last.
    recent: Mutex<Recent<(usize, Arc<[IndexEntry]>), CACHED_PAGES>>,
}

impl Index {
    pub(super) fn new(file: File, path: PathBuf, root_dev: u64, mut tail: IndexTail) -> Self {
        let local = |version: &mut Version| {
            if version.dev == tail.root_dev {
                version.dev = root_dev;
            }
        };

        local(&mut tail.origin.top);
        tail.origin
            .ignore_files
            .iter_mut()
            .for_each(|(_, version)| local(version));
        let mut totals = Totals::default();
        let mut nodes: HashMap<BlockHash, NodeLocation> = tail.nodes.iter().copied().collect();

        for row in &tail.rows {
            totals.add(&row.totals);
            let offset = row.at + u64::from(row.stats) + u64::from(row.filter);
            nodes.insert(
                row.node.block.hash,
                NodeLocation {
                    offset,
                    size: row.node.block.size,
                },
            );
        }

        Self {
            file,
            path,
            root_dev,
            tail,
            totals,
            nodes,
            recent: Mutex::default(),
        }
    }

    /// Iterates over all entries in order. A damaged page yields an error in place of its entries.
    pub fn entries(&self) -> IndexEntries<'_> {
        IndexEntries {
            index: self,
            row: 0,
            page: Vec::new().into_iter(),
        }
    }

    /// Returns the blocks of a file of this index, in order.
    pub fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>, ReadError> {
        match content {
            Content::Blocks(blocks) => Ok(blocks.clone()),
            Content::Lists(lists) => {
                let mut all = Vec::new();
                for list in lists {
                    match Node::decode(&self.node(&list.block.hash)?)? {
                        Node::List(blocks) => all.extend(blocks),
                        _ => {
                            return Err(ReadError::Illegal(
                                "a block list is another kind of node".into(),
                            ));
                        }
                    }
                }

                Ok(all)
            }
        }
    }

    /// Totals of all pages.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Root of the manifest of these entries.
    pub fn root(&self) -> NodeRef {
        self.tail.root
    }

    /// The pages in order; empty without entries.
    pub fn rows(&self) -> &[PageRow] {
        &self.tail.rows
    }

    /// Source and options of the index.
    pub fn origin(&self) -> &Origin {
        &self.tail.origin
    }

    /// Start of the scan. The scan may have missed changes made at or after this time.
    pub fn started(&self) -> Mtime {
        self.tail.origin.started
    }

    /// Decodes the entries of one page.
    pub fn page(&self, row: usize) -> io::Result<Vec<IndexEntry>> {
        let found = self.row(row)?;
        let bytes = self
            .node(&found.node.block.hash)
            .map_err(io::Error::other)?;
        let Node::Page(entries) = Node::decode(&bytes).map_err(damaged)? else {
            return Err(damaged("a page is another kind of node"));
        };

        let mut buffer = Vec::new();
        let stats: Vec<Version> = self
            .stats(row, &mut buffer)?
            .map(|stat| stat.map(|s| s.version))
            .collect::<io::Result<_>>()?;
        if entries.len() != stats.len() {
            return Err(damaged("a page has more or fewer versions than entries"));
        }

        Ok(entries
            .into_iter()
            .zip(stats)
            .map(|(entry, version)| IndexEntry { entry, version })
            .collect())
    }

    /// Returns the entries of one page from a small cache, for callers that return to the same few
    /// pages.
    pub(in crate::tree) fn cached_page(&self, row: usize) -> io::Result<Arc<[IndexEntry]>> {
        if let Some((_, page)) = locked(&self.recent).find(|(open, _)| *open == row) {
            return Ok(Arc::clone(page));
        }

        let page: Arc<[IndexEntry]> = self.page(row)?.into();
        locked(&self.recent).add((row, Arc::clone(&page)));

        Ok(page)
    }

    /// Checks the page and the nodes beneath.
    pub(in crate::tree) fn verify(&self, row: usize) -> io::Result<()> {
        let page = &self.row(row)?.node;
        let bytes = self.node(&page.block.hash).map_err(io::Error::other)?;
        if page.nodes > 1 {
            let node = Node::decode(&bytes).map_err(damaged)?;
            for (_, child) in crate::manifest::read::children(&node, crate::id::Ordinal(0)) {
                self.node(&child.block().hash).map_err(io::Error::other)?;
            }
        }

        Ok(())
    }

    /// Reads the stat records of one page into `buffer`.
    pub(in crate::tree) fn stats<'b>(
        &self,
        row: usize,
        buffer: &'b mut Vec<u8>,
    ) -> io::Result<StatRecords<'b>> {
        let row = self.row(row)?;
        self.read_part(row.at, row.stats as usize, MAX_STATS_BYTES, buffer)?;
        if checksum(buffer) != row.stats_sum && !cfg!(fuzzing) {
            return Err(damaged("a checksum does not match"));
        }
        Ok(StatRecords::new(buffer, self.root_dev))
    }

    /// Returns the page that would hold `path`: the last one with a first path not after `path`.
    pub(in crate::tree) fn row_of(&self, path: &TreePath) -> Option<usize> {
        self.tail
            .rows
            .partition_point(|row| row.first <= *path)
            .checked_sub(1)
    }

    /// Reads the block filter of one page into `buffer`.
    pub(in crate::tree) fn filter<'b>(
        &self,
        row: usize,
        buffer: &'b mut Vec<u8>,
    ) -> io::Result<BlockFilter<'b>> {
        let row = self.row(row)?;
        self.read_part(
            row.at + u64::from(row.stats),
            row.filter as usize,
            MAX_STATS_BYTES,
            buffer,
        )?;
        Ok(BlockFilter::new(buffer))
    }

    /// Returns the entry at `path`.
    pub fn find(&self, path: &TreePath) -> io::Result<Option<IndexEntry>> {
        let Some(row) = self
            .row_of(path)
            .filter(|&row| self.tail.rows[row].last >= *path)
        else {
            return Ok(None);
        };
        Ok(self.page(row)?.into_iter().find(|e| e.entry.path == *path))
    }

    /// Returns whether the writer checked the hard links.
    pub(super) fn links_checked(&self) -> bool {
        self.tail.checked == Some(true)
    }

    pub(super) fn row(&self, row: usize) -> io::Result<&PageRow> {
        self.tail
            .rows
            .get(row)
            .ok_or_else(|| damaged("no such page"))
    }

    pub(super) fn read_part(
        &self,
        at: u64,
        size: usize,
        cap: usize,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        if size > cap {
            return Err(damaged("a part beyond its limit"));
        }
        buffer.resize(size, 0);
        self.file.read_exact_at(buffer, at)
    }
}

/// Serves every node of the manifest of these entries.
impl NodeSource for Index {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        let place = self.nodes.get(hash).ok_or(ReadError::Missing(*hash))?;
        if place.size as usize > MAX_NODE_BYTES {
            return Err(ReadError::Io(*hash, damaged("a node beyond its limit")));
        }

        let mut bytes = vec![0; place.size as usize];
        self.file
            .read_exact_at(&mut bytes, place.offset)
            .map_err(|e| ReadError::Io(*hash, e))?;
        let whole = BlockRef {
            hash: *hash,
            size: place.size,
        }
        .matches(&bytes);

        if whole {
            Ok(bytes.into())
        } else {
            Err(ReadError::Io(
                *hash,
                damaged("a node differs from its name"),
            ))
        }
    }
}

/// Iterator over the entries of an index, in order.
#[derive(Debug)]
pub struct IndexEntries<'a> {
    index: &'a Index,
    row: usize,
    page: std::vec::IntoIter<IndexEntry>,
}

impl IndexEntries<'_> {
    fn advance(&mut self) -> io::Result<Option<IndexEntry>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry));
            }
            if self.row == self.index.tail.rows.len() {
                return Ok(None);
            }
            self.row += 1;
            self.page = self.index.page(self.row - 1)?.into_iter();
        }
    }
}

impl Iterator for IndexEntries<'_> {
    type Item = io::Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose().map(|i| {
            i.map_err(|e| {
                io::Error::new(
                    e.kind(),
                    format!("index {}: {e}", self.index.path.display()),
                )
            })
        })
    }
}
