//! Comparing a tree with its index, page by page: every path is looked at, none is listed or described.
//!
//! A directory whose version has not changed has the names that it had, so that the paths of the index are all there
//! are. What is found to differ, or could differ unseen, is for [`super::changes`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{FileType, statat};
use rustix::io::Errno;

use super::is_racy;
use super::looks::Looks;
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::root::{FileId, NOFOLLOW, Root};
use crate::tree::fs::stat::Version;
use crate::tree::index::{Index, Stat};

/// More changes than this are not looked at one by one: the tree is walked.
const MAX_TOUCHED: usize = 200_000;
/// A change within this many seconds of the scan is looked at closely: see [`is_racy`].
const RECENT: i64 = 3;

/// A path of the index that may not be as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) path: TreePath,
    /// Whether it was a directory.
    pub(super) was_dir: bool,
    /// The inode that the index has for it.
    pub(super) inode: FileId,
}

/// The paths of `index` that may not be as they were, in order; `None` when there are so many that a walk is cheaper.
///
/// With `looks`, which made the index, fewer files have to be read again: see [`Looks`].
pub(super) fn compare(
    root: &Root,
    index: &Index,
    threads: usize,
    looks: Option<&Looks>,
) -> io::Result<Option<Vec<Touched>>> {
    let limit = limit_of(index);
    let shared = Shared {
        root,
        index,
        looks,
        next: AtomicUsize::new(0),
        count: AtomicUsize::new(0),
        limit,
        failed: AtomicBool::new(false),
        found: Mutex::default(),
    };

    let threads = threads.clamp(1, index.rows().len().max(1));
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(|| shared.work()))
            .collect();
        let mut done = shared.work();
        for other in others {
            let other = other
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread of the scan failed")));
            done = done.and(other);
        }
        done
    })?;

    if shared.count.into_inner() > limit {
        return Ok(None);
    }

    let mut pages = shared
        .found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    pages.sort_unstable_by_key(|&(row, _)| row);

    Ok(Some(
        pages.into_iter().flat_map(|(_, touched)| touched).collect(),
    ))
}

/// With more paths than this that may not be as they were a walk is cheaper.
pub(super) fn limit_of(index: &Index) -> usize {
    (index.totals().entries / 2 + 1000).min(MAX_TOUCHED as u64) as usize
}

struct Shared<'a> {
    root: &'a Root,
    index: &'a Index,
    looks: Option<&'a Looks>,
    next: AtomicUsize,
    /// Paths found so far.
    count: AtomicUsize,
    limit: usize,
    failed: AtomicBool,
    found: Mutex<Vec<(usize, Vec<Touched>)>>,
}

impl Shared<'_> {
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
        let first = self.looks.map_or(started.secs, Looks::first_second);
        let is_racy = |version: &Version| {
            self.looks
                .map_or_else(|| is_racy(version, started), |l| l.is_racy(version))
        };

        // A damaged page is found while it can still be built anew.
        self.index.verify(row)?;
        let mut place = Place::of(&self.index.rows()[row].first);
        let mut touched = Vec::new();

        for stat in self.index.stats(row, buffer)? {
            let stat = stat?;
            if !place.enter(&stat) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the index names a path below no directory",
                ));
            }
            let settled =
                stat.unread || !is_recent(&stat.version, first) || !is_racy(&stat.version);
            if !settled || !place.is_now(self.root, &stat)? {
                let path = TreePath::new([&place.dir, stat.name.to_bytes()].concat())
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                touched.push(Touched {
                    path,
                    was_dir: stat.is_dir,
                    inode: stat.version.id(),
                });
            }
        }

        Ok(touched)
    }
}

/// Where a walk along a page is.
struct Place {
    /// The directory of the present entry, with a slash at its end; empty at the top.
    dir: Vec<u8>,
    /// Where each component of `dir` ends, behind its slash.
    ends: Vec<usize>,
    /// The name of the entry before.
    last: Vec<u8>,
    handle: Handle,
}

enum Handle {
    Unknown,
    Open(OwnedFd),
    /// There is no such directory any more.
    Gone,
}

impl Place {
    /// Before the first entry of a page, which is `first`.
    fn of(first: &TreePath) -> Self {
        let mut place = Self {
            dir: Vec::new(),
            ends: Vec::new(),
            last: Vec::new(),
            handle: Handle::Unknown,
        };

        if let Some(parent) = first.parent() {
            for component in parent.components() {
                place.push(component);
            }
        }

        place
    }

    fn push(&mut self, name: &[u8]) {
        self.dir.extend_from_slice(name);
        self.dir.push(b'/');
        self.ends.push(self.dir.len());
        self.handle = Handle::Unknown;
    }

    /// Goes to the directory that holds the entry; false when that cannot be.
    fn enter(&mut self, stat: &Stat<'_>) -> bool {
        if stat.depth == self.ends.len() + 1 && !self.last.is_empty() {
            let last = std::mem::take(&mut self.last);
            self.push(&last);
            self.last = last;
        } else if stat.depth < self.ends.len() {
            self.ends.truncate(stat.depth);
            self.dir.truncate(self.ends.last().copied().unwrap_or(0));
            self.handle = Handle::Unknown;
        }

        self.last.clear();
        self.last.extend_from_slice(stat.name.to_bytes());
        stat.depth == self.ends.len()
    }

    /// Whether the entry is now what it was.
    fn is_now(&mut self, root: &Root, stat: &Stat<'_>) -> io::Result<bool> {
        if let Handle::Unknown = self.handle {
            self.handle = match root.handle_of(self.dir.strip_suffix(b"/").unwrap_or_default()) {
                Ok(handle) => Handle::Open(handle),
                Err(e) if is_gone(&e) => Handle::Gone,
                Err(e) => return Err(e),
            };
        }

        let Handle::Open(dir) = &self.handle else {
            return Ok(false);
        };

        let now = match statat(dir.as_fd(), stat.name, NOFOLLOW) {
            Ok(now) => now,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(e) => return Err(e.into()),
        };

        let known = &stat.version;
        let same = now.st_ino == known.ino && now.st_dev == known.dev;
        if stat.unread {
            // It was listed only: what is in it matters to nobody, but it has to be the file that it was.
            return Ok(same && FileType::from_raw_mode(now.st_mode) == FileType::RegularFile);
        }

        Ok(same
            && now.st_size as u64 == known.size
            && (now.st_mtime, now.st_mtime_nsec as u32) == (known.mtime.secs, known.mtime.nanos)
            && (now.st_ctime, now.st_ctime_nsec as u32) == (known.ctime.secs, known.ctime.nanos))
    }
}

fn is_gone(e: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|gone| e.raw_os_error() == Some(gone.raw_os_error()))
}

/// Whether a change was so late that it is looked at closely.
fn is_recent(known: &Version, started: i64) -> bool {
    let recent = started.saturating_sub(RECENT);
    known.ctime.secs >= recent || known.mtime.secs >= recent
}
