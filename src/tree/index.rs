//! The stat cache: what the last scan of a tree found, so that the next one reads only what changed, and a diff can
//! read the tree's entries without the tree.
//!
//! **File.** A magic and a version, then frames: kind, length, checksum, payload. `Head` names the directory that was
//! scanned and when; `Page` holds some hundred entries as a manifest page and what stat said of each; `List` is a list
//! node of a large file, anywhere before the entry that names it; `Tail` has totals and the place of every list; the
//! last 8 bytes say where the tail is. A frame is verified when it is read; what does not hold is not used.
//!
//! It must not know how a tree is walked. An index is never the truth: whoever loses one re-reads the tree.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::meta::Version;
use super::root::FileId;
use crate::block::{BlockHash, BlockRef};
use crate::manifest::build::NodeSink;
use crate::manifest::node::{MAX_NODE_BYTES, MAX_PAGE_ENTRIES};
use crate::manifest::read::{NodeSource, ReadError};
use crate::manifest::{Content, Entry, EntryKind, Mtime, Node};

/// How the name of an index begins that is being written.
pub(super) const TEMPORARY: &str = ".index-";
const MAGIC: &[u8; 16] = b"makuo index v001";
/// The most bytes of a frame other than the tail.
const MAX_FRAME: usize = MAX_NODE_BYTES + MAX_PAGE_ENTRIES * 80 + 64;
/// The most bytes of the tail: places of some million lists, hundreds of terabytes of large files.
const MAX_TAIL: usize = 64 << 20;
/// A page of the index ends with more entries than this,
const PAGE_ENTRIES: usize = 512;
/// or with more bytes than about this.
const PAGE_BYTES: usize = 256 << 10;
const FRAME_HEAD: usize = 1 + 4 + CHECKSUM;
const CHECKSUM: usize = 16;

/// One entry and what stat said when its content was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The entry.
    pub entry: Entry,
    /// The version of the file that its content belongs to.
    pub version: Version,
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
}

/// A finished index on disk.
#[derive(Debug)]
pub struct Index {
    file: File,
    path: PathBuf,
    root_dev: u64,
    head: Head,
    totals: Totals,
    lists: HashMap<BlockHash, Place>,
    tail_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct Head {
    /// The inode of the directory. Device numbers are given out anew at a boot, so the device is no part of it;
    /// entries say whether they are on the directory's device.
    #[n(0)]
    root_ino: u64,
    #[n(1)]
    started: Mtime,
}

#[derive(Debug, Clone, Default, Encode, Decode)]
struct Tail {
    #[n(0)]
    totals: Totals,
    #[n(1)]
    lists: Vec<(BlockHash, Place)>,
}

#[derive(Debug, Clone, Copy, Encode, Decode)]
struct Place {
    #[n(0)]
    offset: u64,
    #[n(1)]
    size: u32,
}

#[derive(Encode, Decode)]
struct PageFrame {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    page: Vec<u8>,
    #[n(1)]
    versions: Vec<WireVersion>,
}

/// [`Version`] with the device left out when it is the root's.
#[derive(Debug, Encode, Decode)]
struct WireVersion {
    #[n(0)]
    other_dev: Option<u64>,
    #[n(1)]
    ino: u64,
    #[n(2)]
    size: u64,
    #[n(3)]
    mtime: Mtime,
    #[n(4)]
    ctime: Mtime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum FrameKind {
    Head = b'H',
    Page = b'P',
    List = b'L',
    Tail = b'T',
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
        match Self::read(file, path, root) {
            Ok(index) if index.head.root_ino == root.ino => Some(index),
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

    /// All entries in order; may be called again. A damaged part is an error, after which the iterator ends.
    pub fn entries(&self) -> Entries<'_> {
        Entries { index: self, at: MAGIC.len() as u64, page: Vec::new().into_iter(), failed: false }
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
                        _ => return Err(ReadError::Illegal("a block list is another kind of node".into())),
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

    /// When the scan that wrote it began: what was changed at or after that time may have been missed by it.
    pub fn started(&self) -> Mtime {
        self.head.started
    }

    fn read(file: File, path: &Path, root: FileId) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut magic = [0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0)?;
        if &magic != MAGIC {
            return Err(damaged("not an index of this version"));
        }
        let mut last = [0; 8];
        file.read_exact_at(&mut last, length.saturating_sub(8))?;
        let tail_at = u64::from_le_bytes(last);
        let (_, head, _) = read_frame(&file, MAGIC.len() as u64, Some(FrameKind::Head))?;
        let (_, tail, end) = read_frame(&file, tail_at, Some(FrameKind::Tail))?;
        if end.checked_add(8) != Some(length) {
            return Err(damaged("its end is not where it should be"));
        }
        let head: Head = minicbor::decode(&head).map_err(damaged)?;
        let tail: Tail = minicbor::decode(&tail).map_err(damaged)?;
        let lists = tail.lists.into_iter().collect();
        Ok(Self { file, path: path.to_path_buf(), root_dev: root.dev, head, totals: tail.totals, lists, tail_at })
    }
}

/// List nodes of large files; the places of all other nodes are not known here.
impl NodeSource for Index {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        let place = self.lists.get(hash).ok_or(ReadError::Missing(*hash))?;
        let (_, bytes, _) =
            read_frame(&self.file, place.offset, Some(FrameKind::List)).map_err(|e| ReadError::Io(*hash, e))?;
        let whole = BlockRef { hash: *hash, size: place.size }.matches(&bytes);
        if whole { Ok(bytes.into()) } else { Err(ReadError::Io(*hash, damaged("a list differs from its name"))) }
    }
}

/// The entries of an index in order.
#[derive(Debug)]
pub struct Entries<'a> {
    index: &'a Index,
    at: u64,
    page: std::vec::IntoIter<IndexEntry>,
    failed: bool,
}

impl Entries<'_> {
    fn advance(&mut self) -> io::Result<Option<IndexEntry>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Ok(Some(entry));
            }
            if self.at >= self.index.tail_at {
                return Ok(None);
            }
            let (kind, payload, end) = read_frame(&self.index.file, self.at, None)?;
            self.at = end;
            if kind == FrameKind::Page {
                self.page = decode_page(&payload, self.index.root_dev)?.into_iter();
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = io::Result<IndexEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item.map(|i| i.map_err(|e| io::Error::new(e.kind(), format!("index {}: {e}", self.index.path.display()))))
    }
}

/// Writes an index beside its final name; it is there only when [`IndexWriter::finish`] returned.
#[derive(Debug)]
pub struct IndexWriter {
    out: BufWriter<NamedTempFile>,
    path: PathBuf,
    root: FileId,
    head: Head,
    at: u64,
    page: Vec<Entry>,
    versions: Vec<WireVersion>,
    page_bytes: usize,
    totals: Totals,
    lists: HashMap<BlockHash, Place>,
}

impl IndexWriter {
    /// Begins the index of the directory `root` for `path`; the scan began at `started`.
    pub fn create(path: &Path, root: FileId, started: Mtime) -> io::Result<Self> {
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(dir)?;
        let head = Head { root_ino: root.ino, started };
        let mut new = Self {
            out: BufWriter::with_capacity(PAGE_BYTES, file),
            path: path.to_path_buf(),
            root,
            head,
            at: MAGIC.len() as u64,
            page: Vec::new(),
            versions: Vec::new(),
            page_bytes: 0,
            totals: Totals::default(),
            lists: HashMap::new(),
        };
        new.out.write_all(MAGIC)?;
        new.frame(FrameKind::Head, &minicbor::to_vec(head).map_err(damaged)?)?;
        Ok(new)
    }

    /// Adds the next entry; entries come in order, the list nodes of their content were put before.
    pub fn push(&mut self, entry: IndexEntry) -> io::Result<()> {
        let IndexEntry { entry, version } = entry;
        let bytes = rough_size(&entry);
        if self.page.len() >= PAGE_ENTRIES || (self.page_bytes + bytes > PAGE_BYTES && !self.page.is_empty()) {
            self.end_page()?;
        }
        self.totals.entries += 1;
        self.totals.files += u64::from(matches!(entry.kind, EntryKind::File(_)));
        self.totals.dirs += u64::from(matches!(entry.kind, EntryKind::Directory));
        self.totals.bytes += entry.kind.size();
        self.page_bytes += bytes;
        self.page.push(entry);
        self.versions.push(WireVersion {
            other_dev: (version.dev != self.root.dev).then_some(version.dev),
            ino: version.ino,
            size: version.size,
            mtime: version.mtime,
            ctime: version.ctime,
        });
        Ok(())
    }

    /// Moves the index to its name and opens it.
    pub fn finish(mut self) -> io::Result<Index> {
        self.end_page()?;
        let mut lists: Vec<_> = self.lists.iter().map(|(&hash, &place)| (hash, place)).collect();
        lists.sort_by_key(|(_, place)| place.offset);
        let tail_at = self.at;
        let tail = Tail { totals: self.totals, lists };
        self.frame(FrameKind::Tail, &minicbor::to_vec(&tail).map_err(damaged)?)?;
        self.out.write_all(&tail_at.to_le_bytes())?;
        let temporary = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let file = temporary.persist(&self.path).map_err(|e| e.error)?;
        let (path, root_dev) = (self.path, self.root.dev);
        Ok(Index { file, path, root_dev, head: self.head, totals: self.totals, lists: self.lists, tail_at })
    }

    fn end_page(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let page = Node::Page(std::mem::take(&mut self.page)).encode();
        let frame = PageFrame { page, versions: std::mem::take(&mut self.versions) };
        self.page_bytes = 0;
        self.frame(FrameKind::Page, &minicbor::to_vec(&frame).map_err(damaged)?)?;
        Ok(())
    }

    /// Writes a frame and says where.
    fn frame(&mut self, kind: FrameKind, payload: &[u8]) -> io::Result<u64> {
        let size = u32::try_from(payload.len()).map_err(|_| damaged("a frame of more than 4 GiB"))?;
        let at = self.at;
        self.out.write_all(&[kind as u8])?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&checksum(kind, payload))?;
        self.out.write_all(payload)?;
        self.at += (FRAME_HEAD + payload.len()) as u64;
        Ok(at)
    }
}

/// List nodes go in as they come.
impl NodeSink for IndexWriter {
    type Error = io::Error;

    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> io::Result<()> {
        if !self.lists.contains_key(&block.hash) {
            let offset = self.frame(FrameKind::List, &bytes)?;
            self.lists.insert(block.hash, Place { offset, size: block.size });
        }
        Ok(())
    }
}

/// The frame at `at`: its kind, which is `wanted` unless that is open, its payload, and where the next one begins.
fn read_frame(file: &File, at: u64, wanted: Option<FrameKind>) -> io::Result<(FrameKind, Vec<u8>, u64)> {
    let mut head = [0; FRAME_HEAD];
    file.read_exact_at(&mut head, at)?;
    let kind = match head[0] {
        b'H' => FrameKind::Head,
        b'P' => FrameKind::Page,
        b'L' => FrameKind::List,
        b'T' => FrameKind::Tail,
        _ => return Err(damaged("an unknown kind of frame")),
    };
    let size = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let cap = if kind == FrameKind::Tail { MAX_TAIL } else { MAX_FRAME };
    if size > cap || wanted.is_some_and(|w| w != kind) {
        return Err(damaged("a frame of the wrong kind or size"));
    }
    let mut payload = vec![0; size];
    let start = at + FRAME_HEAD as u64;
    file.read_exact_at(&mut payload, start)?;
    // What fuzzing finds behind the sum is worth finding.
    if checksum(kind, &payload) != head[5..] && !cfg!(fuzzing) {
        return Err(damaged("a checksum does not match"));
    }
    Ok((kind, payload, start + size as u64))
}

fn decode_page(payload: &[u8], root_dev: u64) -> io::Result<Vec<IndexEntry>> {
    let frame: PageFrame = minicbor::decode(payload).map_err(damaged)?;
    let Node::Page(entries) = Node::decode(&frame.page).map_err(damaged)? else {
        return Err(damaged("a page is another kind of node"));
    };
    if entries.len() != frame.versions.len() {
        return Err(damaged("a page has more or fewer versions than entries"));
    }
    let versions = frame.versions.into_iter().map(|v| Version {
        dev: v.other_dev.unwrap_or(root_dev),
        ino: v.ino,
        size: v.size,
        mtime: v.mtime,
        ctime: v.ctime,
    });
    Ok(entries.into_iter().zip(versions).map(|(entry, version)| IndexEntry { entry, version }).collect())
}

/// The first half of SHA-256 over kind and payload: against accidents, not against an enemy who can write here.
fn checksum(kind: FrameKind, payload: &[u8]) -> [u8; CHECKSUM] {
    let full = Sha256::new().chain_update([kind as u8]).chain_update(payload).finalize();
    let mut half = [0; CHECKSUM];
    half.copy_from_slice(&full[..CHECKSUM]);
    half
}

/// About the bytes of an entry in its page, from above.
fn rough_size(entry: &Entry) -> usize {
    let kind = match &entry.kind {
        EntryKind::File(Content::Blocks(blocks)) => blocks.len() * 42,
        EntryKind::File(Content::Lists(lists)) => lists.len() * 56,
        EntryKind::Symlink(target) => target.len(),
        EntryKind::Hardlink(first) => first.as_bytes().len(),
        _ => 0,
    };
    let xattrs: usize = entry.xattrs.iter().map(|x| x.name.len() + x.value.len() + 8).sum();
    entry.path.as_bytes().len() + kind + xattrs + 64
}

fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::build::ContentBuilder;
    use crate::manifest::{Mode, Owner, TreePath};

    const ROOT: FileId = FileId { dev: 7, ino: 2 };

    fn an_entry(n: u32, kind: EntryKind) -> IndexEntry {
        let entry = Entry {
            path: TreePath::new(format!("f{n:06}").as_bytes()).expect("legal"),
            kind,
            mode: Mode::from_bits(0o640),
            owner: Arc::new(Owner { uid: n % 3, gid: 0, user: None, group: Some("g".into()) }),
            mtime: Mtime { secs: -5, nanos: n },
            xattrs: Vec::new(),
        };
        let dev = if n.is_multiple_of(2) { ROOT.dev } else { 99 };
        let time = Mtime { secs: i64::from(n), nanos: 1 };
        IndexEntry { entry, version: Version { dev, ino: u64::from(n), size: 4, mtime: time, ctime: time } }
    }

    fn written(path: &Path) -> (Index, Vec<IndexEntry>) {
        let mut writer = IndexWriter::create(path, ROOT, Mtime { secs: 100, nanos: 0 }).unwrap();
        let mut content = ContentBuilder::default();
        (0..9000u32).for_each(|i| content.push(BlockRef::of(&i.to_be_bytes()), &mut writer).unwrap());
        let large = EntryKind::File(content.finish(&mut writer).unwrap());
        let small = |n: u32| EntryKind::File(Content::Blocks(vec![BlockRef::of(&n.to_be_bytes())]));
        let mut entries: Vec<_> = (0..2000).map(|n| an_entry(n, small(n))).collect();
        entries.push(an_entry(2000, large));
        entries.push(an_entry(2001, EntryKind::Directory));
        entries.iter().for_each(|e| writer.push(e.clone()).unwrap());
        (writer.finish().unwrap(), entries)
    }

    #[test]
    fn entries_and_lists_come_back_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let (index, entries) = written(&path);
        let again = Index::open(&path, ROOT).expect("whole");
        for index in [&index, &again, &again] {
            assert_eq!(index.entries().collect::<io::Result<Vec<_>>>().unwrap(), entries);
            let EntryKind::File(content) = &entries[2000].entry.kind else { panic!("a file") };
            assert!(content.list_count() > 1);
            assert_eq!(index.blocks(content).unwrap().len(), 9000);
            assert_eq!(index.totals().files, 2001);
            assert_eq!(index.totals().bytes, 4 * 11_000);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_foreign_or_missing_index_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        assert!(Index::open(&path, ROOT).is_none());
        written(&path);
        assert!(Index::open(&path, FileId { ino: 3, ..ROOT }).is_none());
        std::fs::write(&path, "something else entirely, and long enough to hold a magic").unwrap();
        assert!(Index::open(&path, ROOT).is_none());
        std::fs::write(&path, "").unwrap();
        assert!(Index::open(&path, ROOT).is_none());
    }

    #[test]
    fn a_device_that_got_another_number_is_the_same_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        written(&path);
        let moved = Index::open(&path, FileId { dev: 8, ..ROOT }).expect("whole");
        let devs: Vec<u64> = moved.entries().take(2).map(|e| e.unwrap().version.dev).collect();
        assert_eq!(devs, [8, 99]);
    }

    #[test]
    fn no_damage_passes_as_entries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let (_, entries) = written(&path);
        let whole = std::fs::read(&path).unwrap();
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..60 {
            let mut bytes = whole.clone();
            if rng.bool() {
                bytes.truncate(rng.usize(..whole.len()));
            } else {
                bytes[rng.usize(..whole.len())] ^= 1 << rng.u8(..8);
            }
            std::fs::write(&path, &bytes).unwrap();
            let Some(index) = Index::open(&path, ROOT) else { continue };
            let read: Vec<_> = index.entries().map_while(Result::ok).collect();
            assert_eq!(read, entries[..read.len()]);
        }
    }
}
