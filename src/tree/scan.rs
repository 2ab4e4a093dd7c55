//! The scan: a tree on disk to sorted entries with their content as blocks, in an [`Index`].
//!
//! One thread walks, merges what it finds with the old index and writes the new one; the others list directories and
//! read files ahead of it. What is held in memory is a window of that, never the tree. The content of a file whose stat
//! has not changed since the last scan is not read, unless it changed so close to that scan that its stat could not
//! tell (git's "racily clean" entries).
//!
//! It must not know what the entries are for: a sender's release and a host's own tree are scanned alike.

mod content;
mod ignore;
mod read;
#[cfg(test)]
mod tests;
mod walk;
mod work;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustix::fs::FileType;

use self::ignore::Filter;
pub use self::ignore::IgnoreFiles;
use self::read::{Batch, BatchDone, Item, Reader, ToRead, entry_of};
use self::walk::{Child, ListJob, Lister, Listing, Look, Walk};
use self::work::{Next, Queue, Ticket};
use super::index::{Index, IndexEntry, IndexWriter};
use super::meta::{FileStat, Owners, Version, XattrReader, locked};
use super::root::{FileId, Root};
use crate::block::{BlockHash, BlockRef};
use crate::manifest::build::NodeSink;
use crate::manifest::path::is_within;
use crate::manifest::read::NodeSource;
use crate::manifest::rules::{Exclude, MAX_EXCLUDE_BYTES, MAX_EXCLUDES, PathFilter};
use crate::manifest::{Content, EntryKind, Mtime, Owner, Top, TreePath};
use crate::{Error, Kind, Result};

/// A batch of entries is handed to a thread when it has this many,
const BATCH_ENTRIES: usize = 256;
/// or this many bytes to be read.
const BATCH_BYTES: u64 = 4 << 20;
/// Coarse clocks stamp files up to this much too early: a tick of 10 ms, and as much again.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// As [`TICK`] where the file system keeps whole seconds (or FAT's two).
const COARSE_TICK: Duration = Duration::from_secs(2);

/// What is scanned, and how.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Patterns of what is left out; ignore files in the tree decide over them.
    pub excludes: Vec<Exclude>,
    /// Which files in the tree leave out more.
    pub ignore_files: IgnoreFiles,
    /// Only these paths, what is below them and the directories above them; empty is the whole tree.
    pub scope: Vec<TreePath>,
    /// Directories that do not belong to the tree wherever they are met: the state directory.
    pub apart: Vec<FileId>,
    /// What is listed and not looked into: a directory without what is in it, a file without its content ([`unread`]).
    pub closed: Vec<PathFilter>,
    /// What is listed, with all that is below it, and not read: files without their content ([`unread`]).
    pub unhashed: Vec<PathFilter>,
    /// Of what is no directory, only what belongs to the user with this number; the rest is skipped as [`FOREIGN`].
    pub owner: Option<u32>,
    /// Whether extended attributes are read.
    pub xattrs: bool,
    /// Whether names of one inode become hard links (else each is a file of its own).
    pub hardlinks: bool,
    /// Whether every file is read, whatever its stat says.
    pub checksum: bool,
    /// How many threads read; at least one.
    pub threads: usize,
    /// The time now, before the scan.
    pub started: SystemTime,
}

impl ScanOptions {
    /// Everything below the root, hard links kept, no ignore files, on all cores; the scan begins at `started`.
    pub fn new(started: SystemTime) -> Self {
        Self {
            excludes: Vec::new(),
            ignore_files: IgnoreFiles::None,
            scope: Vec::new(),
            apart: Vec::new(),
            closed: Vec::new(),
            unhashed: Vec::new(),
            owner: None,
            xattrs: false,
            hardlinks: true,
            checksum: false,
            threads: std::thread::available_parallelism().map_or(2, |n| n.get()),
            started,
        }
    }

    fn in_scope(&self, path: &TreePath, is_dir: bool) -> bool {
        self.scope.is_empty()
            || self.scope.iter().any(|s| path.is_within(s) || (is_dir && is_within(s.as_bytes(), path.as_bytes())))
    }
}

/// What stands for the content of a file that was listed only: one block whose name no content has, so that it is
/// equal to no release's, whoever compares it after all.
pub fn unread() -> Content {
    Content::Blocks(vec![BlockRef { hash: BlockHash([0; 32]), size: 1 }])
}

/// Why something was skipped that [`ScanOptions::owner`] leaves out.
pub const FOREIGN: &str = "it belongs to another user";

/// A path that was left out because no manifest can hold it, or because it belongs to another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The path.
    pub path: TreePath,
    /// Why, as a clause.
    pub why: &'static str,
}

/// What a scan found and did. How much the tree holds: [`Index::totals`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Bytes that were read and hashed.
    pub hashed_bytes: u64,
    /// Files that were read.
    pub hashed_files: u64,
    /// Files whose content was known from the old index.
    pub reused_files: u64,
}

/// A finished scan.
#[derive(Debug)]
pub struct Scanned {
    /// The entries, as often as wanted.
    pub index: Index,
    /// The tree's own directory, as it was when the scan began.
    pub top: Top,
    /// What the scan did.
    pub stats: ScanStats,
    /// The patterns of the ignore files in the tree: they belong after the options' excludes in the signed rules.
    pub ignore_rules: Vec<Exclude>,
    /// Paths that were left out because no manifest can hold them.
    pub skipped: Vec<Skipped>,
}

/// Scans the tree `root`, reading only what `old` does not know, into a new index at `new_path`.
///
/// # Errors
/// What is wrong with the tree (a path that cannot be read or keeps changing) is of [`Kind::Usage`], as for a sender's
/// source; what is wrong with the index is of [`Kind::Io`].
pub fn scan(root: &Root, options: &ScanOptions, old: Option<&Index>, new_path: &Path) -> Result<Scanned> {
    let failed = |e| Error::io("cannot write the index", new_path, e);
    let writer = IndexWriter::create(new_path, root.id(), wall(options.started)).map_err(failed)?;
    let shared = Shared {
        root,
        options,
        owners: Owners::default(),
        writer: Mutex::new(writer),
        jobs: Queue::new(),
        held: AtomicUsize::new(0),
    };
    let top = top_of(root, options, &shared.owners)?;
    let (stats, ignore_rules, skipped) = std::thread::scope(|scope| {
        let _close = CloseAtEnd(&shared.jobs);
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| work(&shared));
        }
        Collector::begin(&shared, old)?.run()
    })?;
    let writer = shared.writer.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Scanned { index: writer.finish().map_err(failed)?, top, stats, ignore_rules, skipped })
}

fn top_of(root: &Root, options: &ScanOptions, owners: &Owners) -> Result<Top> {
    let failed = |e| unreadable(root.path(), e);
    let stat = FileStat::of(root).map_err(failed)?;
    let xattrs = if options.xattrs { XattrReader::default().of(root).map_err(failed)? } else { Vec::new() };
    let owner = read::owner_of(owners, &stat, &root.path().display())?;
    Ok(Top { mode: stat.mode, owner: Owner::clone(&owner), mtime: stat.mtime, xattrs })
}

type Jobs = Queue<ListJob, Option<Listing>, Batch, BatchDone>;

/// What the threads of one scan share.
struct Shared<'a> {
    root: &'a Root,
    options: &'a ScanOptions,
    owners: Owners,
    writer: Mutex<IndexWriter>,
    jobs: Jobs,
    /// Children in listings that the walk has not opened yet.
    held: AtomicUsize,
}

/// Ends the threads however the scan ends.
struct CloseAtEnd<'a>(&'a Jobs);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn work(shared: &Shared<'_>) {
    let mut lister = Lister::new(shared.root, shared.options, &shared.held);
    let mut reader = Reader::new(shared);
    while let Some(next) = shared.jobs.next() {
        match next {
            Next::First(job) => job.run(|dir| lister.list(&dir)),
            Next::Second(job) => job.run(|batch| reader.read(batch)),
        }
    }
}

/// The thread that walks, decides what is read, and writes entries in order.
struct Collector<'a> {
    shared: &'a Shared<'a>,
    walk: Walk<'a>,
    old: OldEntries<'a>,
    /// First names of inodes that have more than one, and how many names are still to come.
    links: HashMap<FileId, (TreePath, u32)>,
    batch: Batch,
    batch_bytes: u64,
    window: VecDeque<Window>,
    stats: ScanStats,
}

enum Window {
    Ready(Vec<IndexEntry>),
    Reading(Ticket<BatchDone>),
}

impl<'a> Collector<'a> {
    fn begin(shared: &'a Shared<'a>, old: Option<&'a Index>) -> Result<Self> {
        let filter = Arc::new(Filter::new(shared.options.excludes.clone())?);
        Ok(Self {
            shared,
            walk: Walk::begin(&shared.jobs, &shared.held, filter)?,
            old: OldEntries::new(old.filter(|_| !shared.options.checksum)),
            links: HashMap::new(),
            batch: Batch::default(),
            batch_bytes: 0,
            window: VecDeque::new(),
            stats: ScanStats::default(),
        })
    }

    fn run(mut self) -> Result<(ScanStats, Vec<Exclude>, Vec<Skipped>)> {
        let window = self.shared.options.threads.max(1) * 2 + 2;
        while let Some(child) = self.walk.next()? {
            self.add(child)?;
            if self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES {
                self.end_batch();
            }
            while self.window.len() > window || matches!(self.window.front(), Some(Window::Ready(_))) {
                self.write_front()?;
            }
        }
        self.end_batch();
        while !self.window.is_empty() {
            self.write_front()?;
        }
        check_patterns(&self.shared.options.excludes, &self.walk.patterns)?;
        Ok((self.stats, self.walk.patterns, self.walk.skipped))
    }

    fn add(&mut self, child: Child) -> Result<()> {
        let item = match child.stat.file_type {
            FileType::RegularFile => self.file(child)?,
            _ => Item::Ready(self.other(child)?),
        };
        self.batch.push(item);
        Ok(())
    }

    fn file(&mut self, child: Child) -> Result<Item> {
        let linked = self.shared.options.hardlinks && child.stat.nlink > 1;
        if linked {
            match self.links.get_mut(&child.stat.id) {
                Some((first, left)) => {
                    let kind = EntryKind::Hardlink(first.clone());
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        self.links.remove(&child.stat.id);
                    }
                    return Ok(Item::Ready(self.entry(child, kind)?));
                }
                None => {
                    self.links.insert(child.stat.id, (child.path.clone(), child.stat.nlink - 1));
                }
            }
        }
        if child.look != Look::Whole {
            let listed = self.entry(child, EntryKind::File(unread()))?;
            return Ok(Item::Ready(IndexEntry { version: Version::NONE, ..listed }));
        }
        if let Some(content) = self.old.content(&child)?
            && self.keep_lists(&content)?
        {
            self.stats.reused_files += 1;
            return Ok(Item::Ready(self.entry(child, EntryKind::File(content))?));
        }
        self.batch_bytes += child.stat.size;
        Ok(Item::Read(ToRead { child, linked }))
    }

    fn other(&mut self, mut child: Child) -> Result<IndexEntry> {
        let (major, minor) = child.stat.device;
        let kind = match child.stat.file_type {
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Symlink(std::mem::take(&mut child.target)),
            FileType::Fifo => EntryKind::Fifo,
            FileType::CharacterDevice => EntryKind::CharDevice(major, minor),
            FileType::BlockDevice => EntryKind::BlockDevice(major, minor),
            FileType::RegularFile | FileType::Socket | FileType::Unknown => {
                unreachable!("regular files are read and the others skipped by the listing")
            }
        };
        self.entry(child, kind)
    }

    fn entry(&self, child: Child, kind: EntryKind) -> Result<IndexEntry> {
        entry_of(self.shared, child.path, &child.stat, kind, child.xattrs)
    }

    /// Takes the list nodes of a large file over from the old index; false when it does not have them whole.
    fn keep_lists(&self, content: &Content) -> Result<bool> {
        let (Content::Lists(lists), Some(old)) = (content, self.old.index) else { return Ok(true) };
        for list in lists {
            let Ok(bytes) = old.node(&list.block.hash) else { return Ok(false) };
            locked(&self.shared.writer)
                .put(list.block, bytes.to_vec())
                .map_err(|e| Error::new(Kind::Io, "cannot write the index").because(e))?;
        }
        Ok(true)
    }

    fn end_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let next = match batch.ready() {
            Ok(entries) => Window::Ready(entries),
            Err(batch) => Window::Reading(self.shared.jobs.second(batch)),
        };
        self.window.push_back(next);
    }

    fn write_front(&mut self) -> Result<()> {
        let entries = match self.window.pop_front() {
            None => return Ok(()),
            Some(Window::Ready(entries)) => entries,
            Some(Window::Reading(ticket)) => {
                let done = ticket.wait()?;
                self.stats.hashed_bytes += done.bytes;
                self.stats.hashed_files += done.files;
                done.entries
            }
        };
        let mut writer = locked(&self.shared.writer);
        entries
            .into_iter()
            .try_for_each(|e| writer.push(e))
            .map_err(|e| Error::new(Kind::Io, "cannot write the index").because(e))
    }
}

/// The entries of the old index, read along with the walk.
struct OldEntries<'a> {
    index: Option<&'a Index>,
    entries: Option<super::index::Entries<'a>>,
    next: Option<IndexEntry>,
}

impl<'a> OldEntries<'a> {
    fn new(index: Option<&'a Index>) -> Self {
        let mut old = Self { index, entries: index.map(Index::entries), next: None };
        old.advance();
        old
    }

    fn advance(&mut self) {
        self.next = match self.entries.as_mut().and_then(Iterator::next) {
            Some(Ok(entry)) => Some(entry),
            Some(Err(e)) => {
                tracing::warn!("the rest of the tree is read anew: {e}");
                None
            }
            None => None,
        };
    }

    /// The content of a file that has not changed since the old scan.
    fn content(&mut self, child: &Child) -> Result<Option<Content>> {
        while self.next.as_ref().is_some_and(|n| n.entry.path < child.path) {
            self.advance();
        }
        let Some(index) = self.index else { return Ok(None) };
        if self.next.as_ref().is_none_or(|n| n.entry.path != child.path) {
            return Ok(None);
        }
        let Some(found) = self.next.take() else { return Ok(None) };
        self.advance();
        let known = found.version == child.stat.version() && !is_racy(&found.version, index.started());
        match found.entry.kind {
            EntryKind::File(content) if known => Ok(Some(content)),
            _ => Ok(None),
        }
    }
}

/// Whether a file could have been changed after it was read without its times showing it.
///
/// The time of change is what the kernel alone sets: a time of modification in the future proves nothing, and must not
/// cost a read at every scan.
pub(super) fn is_racy(version: &Version, started: Mtime) -> bool {
    let tick = if version.ctime.nanos == 0 { COARSE_TICK } else { TICK };
    let nanos = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    let limit = nanos(started) - tick.as_nanos() as i128;
    nanos(version.ctime) >= limit || (version.mtime <= started && nanos(version.mtime) >= limit)
}

fn check_patterns(excludes: &[Exclude], found: &[Exclude]) -> Result<()> {
    let all = || excludes.iter().chain(found);
    let bytes: usize = all().map(|e| e.pattern.len() + e.base.as_ref().map_or(0, |b| b.as_bytes().len())).sum();
    if all().count() > MAX_EXCLUDES || bytes > MAX_EXCLUDE_BYTES {
        let why = format!("{} exclude patterns of {bytes} bytes, counting those of ignore files", all().count());
        return Err(Error::usage(why).hint(format!(
            "a release carries its patterns to every host: at most {MAX_EXCLUDES} of {MAX_EXCLUDE_BYTES} bytes together"
        )));
    }
    Ok(())
}

/// A path of the tree that cannot be read.
fn unreadable(path: &Path, e: io::Error) -> Error {
    let denied = e.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::io("cannot read", path, e).with_kind(Kind::Usage);
    if denied { error.hint("make it readable for this user, or exclude it") } else { error }
}

/// The system's time as the manifest writes times.
fn wall(time: SystemTime) -> Mtime {
    let (secs, nanos) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => (-i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX), 0),
    };
    Mtime { secs, nanos }
}
