//! Writes an index beside its final name, page by page, and copies unchanged pages of an older one.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::format::{
    INDEX_MAGIC, IndexEntry, IndexTail, NodeLocation, Origin, PageRow, TEMPORARY_PREFIX, Totals,
    checksum, damaged, is_unread,
};
use super::read::Index;
use super::stats::MAX_STATS_BYTES;
use super::{filter, links, stats};
use crate::block::{BlockHash, BlockRef};
use crate::manifest::build::{Builder, NodeSink, PageEnd};
use crate::manifest::read::NodeSource;
use crate::manifest::{Content, EntryKind};
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::Version;

/// Size of the write buffer.
const WRITE_BUFFER_BYTES: usize = 256 << 10;
/// Age at which an unfinished file is taken as left by a killed writer.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Writes an index beside its final name. [`IndexWriter::finish`] moves the file into place.
#[derive(Debug)]
pub struct IndexWriter {
    builder: Builder,
    file: IndexFile,
    /// Whether hard links are checked.
    checks: bool,
}

/// Removes temporary files of killed writers in `dir`: those older than [`ABANDONED_AFTER`].
fn sweep(dir: &Path, now: SystemTime) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY_PREFIX.as_bytes());
        if ours
            && now
                .duration_since(entry.metadata()?.modified()?)
                .is_ok_and(|age| age > ABANDONED_AFTER)
        {
            std::fs::remove_file(entry.path())?;
        }
    }

    Ok(())
}

/// The file under construction, sink of finished nodes and pages.
#[derive(Debug)]
struct IndexFile {
    out: BufWriter<NamedTempFile>,
    path: PathBuf,
    root: FileId,
    at: u64,
    /// Versions of the entries of the open page.
    versions: Vec<Version>,
    rows: Vec<PageRow>,
    nodes: HashMap<BlockHash, NodeLocation>,
}

impl IndexWriter {
    /// Creates a writer for the index of the directory `root` at `path`.
    pub fn create(path: &Path, root: FileId) -> io::Result<Self> {
        let dir = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(dir)?;

        // A leftover that cannot be removed does no harm.
        let _ = sweep(dir, file.as_file().metadata()?.modified()?);
        let mut file = IndexFile {
            out: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            path: path.to_path_buf(),
            root,
            at: 0,
            versions: Vec::new(),
            rows: Vec::new(),
            nodes: HashMap::new(),
        };

        file.write(INDEX_MAGIC)?;
        Ok(Self {
            builder: Builder::default(),
            file,
            checks: true,
        })
    }

    /// Adds the next entry. Entries must be in order, after the list nodes of their content.
    ///
    /// A walk can meet a path twice if a directory is swapped meanwhile; the second one is an
    /// error.
    pub fn push(&mut self, entry: IndexEntry) -> io::Result<()> {
        if !self.builder.may_follow(&entry.entry.path) {
            return Err(io::Error::other(format!(
                "{} was found twice: the tree changes during the scan",
                entry.entry.path
            )));
        }

        // Before the push, which may end the page of this entry.
        self.file.versions.push(entry.version);
        self.builder.push(entry.entry, &mut self.file)
    }

    /// Copies a whole page of an older index of the same directory.
    ///
    /// Returns false and adds nothing if the page would not be a page of the new manifest.
    /// `is_last` marks the last page of the new index.
    pub fn copy_page(&mut self, from: &Index, row: usize, is_last: bool) -> io::Result<bool> {
        let page = from.row(row)?;
        if !self.builder.is_between_pages() || !(page.settled || is_last) {
            return Ok(false);
        }

        if page.node.nodes > 1 {
            for found in from.page(row)? {
                self.copy_lists(from, &found)?;
            }
        }

        let size = page.stats as usize + page.filter as usize + page.node.block.size as usize;
        let mut bytes = Vec::new();
        from.read_part(page.at, size, MAX_STATS_BYTES * 3, &mut bytes)?;
        let at = self.file.write(&bytes)?;
        self.file.rows.push(PageRow { at, ..page.clone() });
        self.builder
            .push_page(page.node, page.last.clone(), &mut self.file)?;

        Ok(true)
    }

    /// Copies the list nodes of a large file from an older index.
    pub fn copy_lists(&mut self, from: &Index, entry: &IndexEntry) -> io::Result<()> {
        let EntryKind::File(Content::Lists(lists)) = &entry.entry.kind else {
            return Ok(());
        };

        for list in lists {
            let bytes = from.node(&list.block.hash).map_err(io::Error::other)?;
            self.put(list.block, bytes.to_vec())?;
        }

        Ok(())
    }

    /// Skips the check of hard links, as older versions did.
    #[cfg(test)]
    pub(crate) fn unchecked(self) -> Self {
        Self {
            checks: false,
            ..self
        }
    }

    /// Moves the index to its final name and opens the index. An index with a dangling hard link is
    /// dropped.
    pub fn finish(self, origin: Origin) -> io::Result<Index> {
        let Self {
            builder,
            mut file,
            checks,
        } = self;

        let root = builder.finish(&mut file)?;
        let mut nodes: Vec<_> = file
            .nodes
            .iter()
            .map(|(&hash, &place)| (hash, place))
            .collect();

        nodes.sort_by_key(|(_, place)| place.offset);
        let tail = IndexTail {
            root_ino: file.root.ino,
            root_dev: file.root.dev,
            origin,
            root,
            rows: std::mem::take(&mut file.rows),
            nodes,
            checked: checks.then_some(true),
        };

        let encoded = minicbor::to_vec(&tail).map_err(damaged)?;
        let size =
            u32::try_from(encoded.len()).map_err(|_| damaged("a tail of more than 4 GiB"))?;
        let at = file.write(&encoded)?;
        file.write(&at.to_le_bytes())?;
        file.write(&size.to_le_bytes())?;
        file.write(&checksum(&encoded))?;

        let IndexFile {
            out, path, root, ..
        } = file;
        let temporary = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let index = Index::new(
            temporary.as_file().try_clone()?,
            path.clone(),
            root.dev,
            tail,
        );

        if checks {
            links::check(&index)?;
        }

        temporary.persist(&path).map_err(|e| e.error)?;
        Ok(index)
    }
}

/// List nodes are written at once.
impl NodeSink for IndexWriter {
    type Error = io::Error;

    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> io::Result<()> {
        self.file.put(block, bytes)
    }
}

impl IndexFile {
    /// Appends `bytes` and returns their offset.
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.at;
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(at)
    }
}

impl NodeSink for IndexFile {
    type Error = io::Error;

    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> io::Result<()> {
        if !self.nodes.contains_key(&block.hash) {
            let offset = self.write(&bytes)?;
            self.nodes.insert(
                block.hash,
                NodeLocation {
                    offset,
                    size: block.size,
                },
            );
        }

        Ok(())
    }

    fn page(&mut self, page: PageEnd<'_>, bytes: Vec<u8>) -> io::Result<()> {
        let entries = page.entries;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            // The single empty page of an empty tree.
            return self.put(page.node.block, bytes);
        };

        let mut stats = Vec::new();
        let mut totals = Totals {
            entries: entries.len() as u64,
            ..Totals::default()
        };

        for (entry, version) in entries.iter().zip(self.versions.drain(..entries.len())) {
            let is_dir = matches!(entry.kind, EntryKind::Directory);
            stats::push(&mut stats, entry, &version, self.root.dev);
            let is_file = matches!(entry.kind, EntryKind::File(_));
            totals.files += u64::from(is_file);
            totals.unread += u64::from(is_unread(&entry.kind));
            totals.dirs += u64::from(is_dir);
            totals.links += u64::from(matches!(entry.kind, EntryKind::Hardlink(_)));
            totals.bytes += entry.kind.size();
        }

        let blocks: Vec<&BlockHash> = entries
            .iter()
            .flat_map(|e| direct(&e.kind))
            .map(|b| &b.hash)
            .collect();

        let filter = filter::build(blocks.into_iter());
        let row = PageRow {
            node: page.node,
            first: first.path.clone(),
            last: last.path.clone(),
            totals,
            settled: page.settled,
            at: self.at,
            // A page has at most MAX_PAGE_ENTRIES entries, a node MAX_NODE_BYTES bytes.
            stats: stats.len() as u32,
            stats_sum: checksum(&stats),
            filter: filter.len() as u32,
        };

        self.write(&stats)?;
        self.write(&filter)?;
        self.write(&bytes)?;
        self.rows.push(row);

        Ok(())
    }
}

/// Returns the blocks listed in the entry itself.
fn direct(kind: &EntryKind) -> &[BlockRef] {
    match kind {
        EntryKind::File(Content::Blocks(blocks)) => blocks,
        _ => &[],
    }
}
