//! The stat cache: what the last scan of a tree found, as the pages of a manifest with what stat said of each entry, so
//! that the next scan reads only what changed and builds only the pages concerned.
//!
//! **File.** A magic and a version; then for every page what stat said of its entries ([`stats`]), which blocks it has
//! ([`filter`]) and the page itself; between them list nodes of large files and indexes of pages. The tail names the
//! directory that was scanned, when and how ([`Origin`]), and the place of everything; the last 28 bytes say where the
//! tail is, with its checksum. Nodes are verified by their names, the rest by checksums, when they are read; what does
//! not hold is not used.
//!
//! It must not know how a tree is walked. An index is never the truth: whoever loses one re-reads the tree.

mod filter;
mod links;
mod stats;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

pub(super) use self::links::is_linked_nowhere;
pub(super) use self::stats::Stat;
use self::stats::Stats;
pub use self::write::IndexWriter;
use super::fs::root::FileId;
use super::fs::stat::Version;
use crate::block::{BlockHash, BlockRef};
use crate::manifest::node::{MAX_NODE_BYTES, MAX_PAGE_ENTRIES};
use crate::manifest::read::{NodeSource, ReadError};
use crate::manifest::rules::Exclude;
use crate::manifest::{Content, Entry, EntryKind, Mtime, Node, NodeRef, Owner, TreePath};

/// How the name of an index begins that is being written.
pub(super) const TEMPORARY: &str = ".index-";
const MAGIC: &[u8; 16] = b"makuo index v004";
/// The most bytes of the tail: some million pages, a billion entries.
const MAX_TAIL: usize = 256 << 20;
/// The most bytes of what stat said of one page.
const MAX_STATS: usize = MAX_PAGE_ENTRIES * stats::MAX_RECORD;
/// How many pages are kept at hand.
const AT_HAND: usize = 4;
/// Where the tail is, its size, its checksum.
const TRAILER: usize = 8 + 4 + CHECKSUM;
const CHECKSUM: usize = 16;

/// One entry and what stat said when its content was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The entry.
    pub entry: Entry,
    /// The version of the file that its content belongs to.
    pub version: Version,
}

/// What stands for the content of a file that was listed only: one block whose name no content has, so that it is
/// equal to no release's, whoever compares it after all.
pub fn unread() -> Content {
    Content::Blocks(vec![UNREAD])
}

const UNREAD: BlockRef = BlockRef {
    hash: BlockHash([0; 32]),
    size: 1,
};

/// Whether it is a file that was listed and not read.
pub(super) fn is_unread(kind: &EntryKind) -> bool {
    matches!(kind, EntryKind::File(Content::Blocks(blocks)) if *blocks == [UNREAD])
}

/// How much an index holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// Entries of every kind.
    #[n(0)]
    pub entries: u64,
    /// Regular files, without further names of the same file.
    #[n(1)]
    pub files: u64,
    /// Directories.
    #[n(2)]
    pub dirs: u64,
    /// Bytes of the regular files.
    #[n(3)]
    pub bytes: u64,
    /// Files that were listed and not read.
    #[n(4)]
    pub unread: u64,
    /// Further names of the same file.
    #[n(5)]
    pub links: u64,
}

/// What an index was made from, and how: what has to be the same for it to be compared with the tree page by page.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    /// When the scan began: what was changed at or after that time may have been missed by it.
    #[n(0)]
    pub started: Mtime,
    /// The name of the scan's options; of another scan's index only the contents are of use.
    #[n(1)]
    pub options: BlockHash,
    /// The version of the directory itself.
    #[n(2)]
    pub top: Version,
    /// The numbers that were met, and the owners that entries have for them.
    #[n(3)]
    pub owners: Vec<(u32, u32, Owner)>,
    /// The patterns of the ignore files in the tree.
    #[n(4)]
    pub patterns: Vec<Exclude>,
    /// Those files.
    #[n(5)]
    pub ignore_files: Vec<(TreePath, Version)>,
    /// Paths that were left out because no manifest can hold them, and why.
    #[n(6)]
    pub skipped: Vec<(TreePath, String)>,
    /// Paths at which something was mounted; indexes of before do not say.
    #[n(7)]
    #[cbor(default)]
    pub mounts: Vec<TreePath>,
}

/// One page of an index.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PageRow {
    /// The page as a node of the manifest.
    #[n(0)]
    pub node: NodeRef,
    /// The first path in it.
    #[n(1)]
    pub first: TreePath,
    /// The last path in it.
    #[n(2)]
    pub last: TreePath,
    /// How much it holds.
    #[n(3)]
    totals: Totals,
    /// Whether it ends where its last entry says so, whatever comes after it.
    #[n(4)]
    pub(super) settled: bool,
    #[n(5)]
    at: u64,
    #[n(6)]
    stats: u32,
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    stats_sum: [u8; CHECKSUM],
    #[n(8)]
    filter: u32,
}

impl PageRow {
    /// How many further names of files it has.
    pub(super) fn links(&self) -> u64 {
        self.totals.links
    }
}

#[derive(Debug, Clone, Encode, Decode)]
struct Tail {
    #[n(0)]
    root_ino: u64,
    #[n(1)]
    root_dev: u64,
    #[n(2)]
    origin: Origin,
    #[n(3)]
    root: NodeRef,
    #[n(4)]
    rows: Vec<PageRow>,
    #[n(5)]
    nodes: Vec<(BlockHash, Place)>,
    /// Whether hard links were checked when it was written; indexes of before do not say.
    #[n(6)]
    checked: Option<bool>,
}

#[derive(Debug, Clone, Copy, Encode, Decode)]
struct Place {
    #[n(0)]
    offset: u64,
    #[n(1)]
    size: u32,
}

/// A finished index on disk.
#[derive(Debug)]
pub struct Index {
    file: File,
    path: PathBuf,
    /// The device of the directory now. Device numbers are given out anew at a boot, so the file says of each entry
    /// only whether it is on the directory's.
    root_dev: u64,
    tail: Tail,
    totals: Totals,
    /// Every node by its name: pages, indexes and lists.
    nodes: HashMap<BlockHash, Place>,
    /// The pages that were asked for last by those who ask for few, the newest first.
    recent: Mutex<VecDeque<(usize, Arc<[IndexEntry]>)>>,
}

impl Index {
    /// The index at `path`, when there is one that is whole and belongs to the directory `root`.
    pub fn open(path: &Path, root: FileId) -> Option<Self> {
        let refused = |why: &dyn std::fmt::Display| {
            tracing::warn!(index = %path.display(), "index not used, the tree is read anew: {why}");
        };

        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                refused(&e);
                return None;
            }
        };

        match read_tail(&file) {
            Ok(tail) if tail.root_ino == root.ino => {
                let index = Self::new(file, path.to_path_buf(), root.dev, tail);
                let checked = if index.tail.checked == Some(true) {
                    Ok(())
                } else {
                    links::check(&index)
                };
                checked.inspect_err(|e| refused(e)).is_ok().then_some(index)
            }
            Ok(_) => {
                refused(&"it belongs to another directory");
                None
            }
            Err(e) => {
                refused(&e);
                None
            }
        }
    }

    /// Whether there is an index at `path`, and it belongs to another directory than `root`.
    pub fn is_of_another(path: &Path, root: FileId) -> bool {
        File::open(path)
            .and_then(|file| read_tail(&file))
            .is_ok_and(|tail| tail.root_ino != root.ino)
    }

    fn new(file: File, path: PathBuf, root_dev: u64, mut tail: Tail) -> Self {
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
        let mut nodes: HashMap<BlockHash, Place> = tail.nodes.iter().copied().collect();

        for row in &tail.rows {
            totals.add(&row.totals);
            let offset = row.at + u64::from(row.stats) + u64::from(row.filter);
            nodes.insert(
                row.node.block.hash,
                Place {
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

    /// All entries in order; may be called again. A damaged page is an error in the place of its entries.
    pub fn entries(&self) -> Entries<'_> {
        Entries {
            index: self,
            row: 0,
            page: Vec::new().into_iter(),
        }
    }

    /// The blocks of a file of this index, in order.
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

    /// How much it holds.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The root of the manifest of these entries.
    pub fn root(&self) -> NodeRef {
        self.tail.root
    }

    /// The pages in order; none when there is no entry.
    pub fn rows(&self) -> &[PageRow] {
        &self.tail.rows
    }

    /// What it was made from, and how.
    pub fn origin(&self) -> &Origin {
        &self.tail.origin
    }

    /// When the scan that wrote it began: what was changed at or after that time may have been missed by it.
    pub fn started(&self) -> Mtime {
        self.tail.origin.started
    }

    /// The entries of one page.
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

    /// The entries of one page, for one who looks at few pages and at the same ones again.
    pub(super) fn page_at_hand(&self, row: usize) -> io::Result<Arc<[IndexEntry]>> {
        let recent = || crate::sync::locked(&self.recent);
        if let Some((_, page)) = recent().iter().find(|(open, _)| *open == row) {
            return Ok(Arc::clone(page));
        }

        let page: Arc<[IndexEntry]> = self.page(row)?.into();
        let mut recent = recent();
        recent.truncate(AT_HAND - 1);
        recent.push_front((row, Arc::clone(&page)));

        Ok(page)
    }

    /// Whether the page is whole, with what is beneath it.
    pub(super) fn verify(&self, row: usize) -> io::Result<()> {
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

    /// What stat said of the entries of one page; `buffer` holds it.
    pub(super) fn stats<'b>(&self, row: usize, buffer: &'b mut Vec<u8>) -> io::Result<Stats<'b>> {
        let row = self.row(row)?;
        self.read_part(row.at, row.stats as usize, MAX_STATS, buffer)?;
        if checksum(buffer) != row.stats_sum && !cfg!(fuzzing) {
            return Err(damaged("a checksum does not match"));
        }
        Ok(Stats::new(buffer, self.root_dev))
    }

    /// The page that holds `path`, or would: the last one that does not begin after it.
    pub(super) fn row_of(&self, path: &TreePath) -> Option<usize> {
        self.tail
            .rows
            .partition_point(|row| row.first <= *path)
            .checked_sub(1)
    }

    /// The filter of the blocks that entries of the page list themselves; `buffer` holds it.
    pub(super) fn filter<'b>(&self, row: usize, buffer: &'b mut Vec<u8>) -> io::Result<Filter<'b>> {
        let row = self.row(row)?;
        self.read_part(
            row.at + u64::from(row.stats),
            row.filter as usize,
            MAX_STATS,
            buffer,
        )?;
        Ok(Filter(buffer))
    }

    /// The entry at `path`.
    pub fn find(&self, path: &TreePath) -> io::Result<Option<IndexEntry>> {
        let Some(row) = self
            .row_of(path)
            .filter(|&row| self.tail.rows[row].last >= *path)
        else {
            return Ok(None);
        };
        Ok(self.page(row)?.into_iter().find(|e| e.entry.path == *path))
    }

    fn row(&self, row: usize) -> io::Result<&PageRow> {
        self.tail
            .rows
            .get(row)
            .ok_or_else(|| damaged("no such page"))
    }

    fn read_part(&self, at: u64, size: usize, cap: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        if size > cap {
            return Err(damaged("a part beyond its limit"));
        }
        buffer.resize(size, 0);
        self.file.read_exact_at(buffer, at)
    }
}

/// Which blocks a page may have.
pub(super) struct Filter<'a>(&'a [u8]);

impl Filter<'_> {
    /// Whether the block may be among those that entries of the page list themselves.
    pub(super) fn may_have(&self, hash: &BlockHash) -> bool {
        filter::may_have(self.0, hash)
    }
}

impl Totals {
    fn add(&mut self, more: &Totals) {
        self.entries += more.entries;
        self.files += more.files;
        self.dirs += more.dirs;
        self.bytes += more.bytes;
        self.unread += more.unread;
        self.links += more.links;
    }
}

/// Every node of the manifest of these entries.
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

/// The entries of an index in order.
#[derive(Debug)]
pub struct Entries<'a> {
    index: &'a Index,
    row: usize,
    page: std::vec::IntoIter<IndexEntry>,
}

impl Entries<'_> {
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

impl Iterator for Entries<'_> {
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

fn read_tail(file: &File) -> io::Result<Tail> {
    let length = file.metadata()?.len();
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0)?;
    if &magic != MAGIC {
        return Err(damaged("not an index of this version"));
    }

    let mut trailer = [0; TRAILER];
    let trailer_at = length.saturating_sub(TRAILER as u64);
    file.read_exact_at(&mut trailer, trailer_at)?;
    let (mut at, mut size) = ([0; 8], [0; 4]);
    at.copy_from_slice(&trailer[..8]);
    size.copy_from_slice(&trailer[8..12]);
    let (at, size) = (u64::from_le_bytes(at), u32::from_le_bytes(size) as usize);

    if size > MAX_TAIL || at.checked_add(size as u64) != Some(trailer_at) {
        return Err(damaged("its end is not where it should be"));
    }

    let mut tail = vec![0; size];
    file.read_exact_at(&mut tail, at)?;

    // What fuzzing finds behind the sum is worth finding.
    if checksum(&tail) != trailer[12..] && !cfg!(fuzzing) {
        return Err(damaged("a checksum does not match"));
    }

    minicbor::decode(&tail).map_err(damaged)
}

/// The first half of SHA-256: against accidents, not against an enemy who can write here.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut half = [0; CHECKSUM];
    half.copy_from_slice(&Sha256::digest(bytes)[..CHECKSUM]);
    half
}

fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged: {why}"))
}
