//! Compares a tree with its index, page by page: stats every indexed path, lists no directory.
//!
//! A directory with an unchanged version has the same names as before, so the index names every
//! path below. [`super::changes`] describes the paths that differ or could differ unnoticed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{FileType, statat};

use super::clock::is_racy;
use super::counts::ScanCounts;
use super::windows::ScanWindows;
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::errors::is_absent;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::{FileId, NOFOLLOW, Root};
use crate::tree::fs::stat::Version;
use crate::tree::index::{Index, StatRecord};

/// Largest number of changes to describe one by one; beyond it the tree is walked.
const MAX_TOUCHED: usize = 200_000;
/// Changes within this many seconds of the scan get the exact test: see [`is_racy`].
const RECENT_SECS: i64 = 3;

/// A path of the index that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) path: TreePath,
    /// Whether the index has a directory here.
    pub(super) was_dir: bool,
    /// Inode according to the index.
    pub(super) inode: FileId,
}

/// Returns the paths of `index` that may have changed, in order; `None` if a walk is cheaper.
///
/// `windows` are the scans that made the index; with them fewer files have to be read again: see
/// [`ScanWindows`].
pub(super) fn compare(
    root: &Root,
    index: &Index,
    threads: usize,
    windows: Option<&ScanWindows>,
    counts: Option<&ScanCounts>,
) -> io::Result<Option<Vec<Touched>>> {
    let limit = limit_of(index);
    let comparison = Comparison {
        root,
        index,
        windows,
        counts,
        next: AtomicUsize::new(0),
        count: AtomicUsize::new(0),
        limit,
        failed: AtomicBool::new(false),
        found: Mutex::default(),
    };

    let threads = threads.clamp(1, index.rows().len().max(1));
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(|| comparison.work()))
            .collect();
        let mut done = comparison.work();
        for other in others {
            let other = other
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread of the scan failed")));
            done = done.and(other);
        }
        done
    })?;

    if comparison.count.into_inner() > limit {
        return Ok(None);
    }

    let mut pages = comparison
        .found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    pages.sort_unstable_by_key(|&(row, _)| row);

    Ok(Some(
        pages.into_iter().flat_map(|(_, touched)| touched).collect(),
    ))
}

/// Returns the number of touched paths above which a walk is cheaper.
pub(super) fn limit_of(index: &Index) -> usize {
    (index.totals().entries / 2 + 1000).min(MAX_TOUCHED as u64) as usize
}

struct Comparison<'a> {
    root: &'a Root,
    index: &'a Index,
    windows: Option<&'a ScanWindows>,
    counts: Option<&'a ScanCounts>,
    next: AtomicUsize,
    /// Number of touched paths so far.
    count: AtomicUsize,
    limit: usize,
    failed: AtomicBool,
    found: Mutex<Vec<(usize, Vec<Touched>)>>,
}

impl Comparison<'_> {
    fn work(&self) -> io::Result<()> {
        let mut buffer = Vec::new();
        while !self.failed.load(Ordering::Relaxed)
            && self.count.load(Ordering::Relaxed) <= self.limit
        {
            let row = self.next.fetch_add(1, Ordering::Relaxed);
            if row >= self.index.rows().len() {
                break;
            }
            let touched = self
                .page(row, &mut buffer)
                .inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
            if !touched.is_empty() {
                self.count.fetch_add(touched.len(), Ordering::Relaxed);
                locked(&self.found).push((row, touched));
            }
        }

        Ok(())
    }

    fn page(&self, row: usize, buffer: &mut Vec<u8>) -> io::Result<Vec<Touched>> {
        let started = self.index.started();
        let first = self.windows.map_or(started.secs, ScanWindows::first_second);
        let is_racy = |version: &Version| {
            self.windows
                .map_or_else(|| is_racy(version, started), |l| l.is_racy(version))
        };

        // A damaged page is noticed while the page can still be rebuilt.
        self.index.verify(row)?;
        let mut cursor = PageCursor::of(&self.index.rows()[row].first);
        let mut touched = Vec::new();

        let mut entries = 0;
        for stat in self.index.stats(row, buffer)? {
            let stat = stat?;
            entries += 1;
            if !cursor.enter(&stat) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the index names a path below no directory",
                ));
            }
            let settled =
                stat.unread || !is_recent(&stat.version, first) || !is_racy(&stat.version);
            if !settled || !cursor.is_now(self.root, &stat)? {
                let path = TreePath::new([&cursor.dir, stat.name.to_bytes()].concat())
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                touched.push(Touched {
                    path,
                    was_dir: stat.is_dir,
                    inode: stat.version.id(),
                });
            }
        }

        if let Some(counts) = self.counts {
            counts.add_entries(entries);
        }
        Ok(touched)
    }
}

/// Position within a page.
struct PageCursor {
    /// Directory of the current entry, with a trailing slash; empty for the root.
    dir: Vec<u8>,
    /// End offset of each component of `dir`, after the slash.
    ends: Vec<usize>,
    /// Name of the previous entry.
    last: Vec<u8>,
    handle: DirHandle,
}

enum DirHandle {
    Unknown,
    Open(OwnedFd),
    /// The directory no longer exists.
    Gone,
}

impl PageCursor {
    /// Returns the position before `first`, the first entry of a page.
    fn of(first: &TreePath) -> Self {
        let mut cursor = Self {
            dir: Vec::new(),
            ends: Vec::new(),
            last: Vec::new(),
            handle: DirHandle::Unknown,
        };

        if let Some(parent) = first.parent() {
            for component in parent.components() {
                cursor.push(component);
            }
        }

        cursor
    }

    fn push(&mut self, name: &[u8]) {
        self.dir.extend_from_slice(name);
        self.dir.push(b'/');
        self.ends.push(self.dir.len());
        self.handle = DirHandle::Unknown;
    }

    /// Moves to the directory of the entry. Returns false if the order of entries rules that out.
    fn enter(&mut self, stat: &StatRecord<'_>) -> bool {
        if stat.depth == self.ends.len() + 1 && !self.last.is_empty() {
            let last = std::mem::take(&mut self.last);
            self.push(&last);
            self.last = last;
        } else if stat.depth < self.ends.len() {
            self.ends.truncate(stat.depth);
            self.dir.truncate(self.ends.last().copied().unwrap_or(0));
            self.handle = DirHandle::Unknown;
        }

        self.last.clear();
        self.last.extend_from_slice(stat.name.to_bytes());
        stat.depth == self.ends.len()
    }

    /// Returns whether the entry is unchanged.
    fn is_now(&mut self, root: &Root, stat: &StatRecord<'_>) -> io::Result<bool> {
        if let DirHandle::Unknown = self.handle {
            self.handle = match root.handle_of(self.dir.strip_suffix(b"/").unwrap_or_default()) {
                Ok(handle) => DirHandle::Open(handle),
                Err(e) if is_gone(&e) => DirHandle::Gone,
                Err(e) => return Err(e),
            };
        }

        let DirHandle::Open(dir) = &self.handle else {
            return Ok(false);
        };

        let now = match statat(dir.as_fd(), stat.name, NOFOLLOW) {
            Ok(now) => now,
            Err(e) if is_absent(&e.into()) => return Ok(false),
            Err(e) => return Err(e.into()),
        };

        let known = &stat.version;
        let same = now.st_ino == known.ino && now.st_dev == known.dev;
        if stat.unread {
            // Listed only: the content does not matter, but the inode must be the same file.
            return Ok(same && FileType::from_raw_mode(now.st_mode) == FileType::RegularFile);
        }

        Ok(same
            && now.st_size as u64 == known.size
            && (now.st_mtime, now.st_mtime_nsec as u32) == (known.mtime.secs, known.mtime.nanos)
            && (now.st_ctime, now.st_ctime_nsec as u32) == (known.ctime.secs, known.ctime.nanos))
    }
}

/// Returns whether a change is recent enough for the exact test.
fn is_recent(known: &Version, started: i64) -> bool {
    let recent = started.saturating_sub(RECENT_SECS);
    known.ctime.secs >= recent || known.mtime.secs >= recent
}
