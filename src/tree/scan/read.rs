//! The files of a scan: each read until it was not changed meanwhile, and described as it then was.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::content::{self, ReadFailure};
use super::exposed::Exposed;
use super::policy::Released;
use super::walk::Child;
use super::{Shared, mapped, unreadable, wall};
use crate::block::BlockRef;
use crate::manifest::build::NodeSink;
use crate::manifest::{Entry, EntryKind, Owner, TreePath, Xattr};
use crate::tree::fs::root::open_file_at;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::sys;
use crate::tree::fs::xattrs::XattrReader;
use crate::tree::index::IndexEntry;
use crate::{Error, Kind, Result};

/// How often a file is read that changes while it is read.
const MAX_READS: usize = 3;

/// Entries in order, some of which are still to be read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    items: Vec<Item>,
    to_read: usize,
}

#[derive(Debug)]
pub(super) enum Item {
    Ready(IndexEntry),
    Read(ToRead),
}

/// A file to be read.
#[derive(Debug)]
pub(super) struct ToRead {
    pub(super) child: Child,
    /// Whether later entries may be further names of it.
    pub(super) linked: bool,
}

/// A batch that has been read.
#[derive(Debug)]
pub(super) struct BatchDone {
    pub(super) entries: Vec<IndexEntry>,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Batch {
    pub(super) fn push(&mut self, item: Item) {
        self.to_read += usize::from(matches!(item, Item::Read(_)));
        self.items.push(item);
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The entries, when nothing is to be read.
    pub(super) fn ready(self) -> Result<Vec<IndexEntry>, Self> {
        if self.to_read > 0 {
            return Err(self);
        }

        let entry = |item| match item {
            Item::Ready(entry) => Some(entry),
            Item::Read(_) => None,
        };

        Ok(self.items.into_iter().filter_map(entry).collect())
    }
}

/// The entry of `path` as `stat` describes it.
pub(super) fn entry_of(
    shared: &Shared<'_>,
    path: TreePath,
    stat: &FileStat,
    kind: EntryKind,
    xattrs: Vec<Xattr>,
) -> Result<IndexEntry> {
    let owner = owner_of(&shared.released, stat, &path)?;
    let (mode, mtime) = (shared.released.mode(stat), shared.released.mtime(stat));
    let entry = Entry {
        path,
        kind,
        mode,
        owner,
        mtime,
        xattrs,
    };

    Ok(IndexEntry {
        entry,
        version: stat.version(),
    })
}

/// The owner of what errors call `path`.
pub(super) fn owner_of(
    released: &Released<'_>,
    stat: &FileStat,
    path: &dyn Display,
) -> Result<Arc<Owner>> {
    released.owner(stat.uid, stat.gid).map_err(|e| {
        let what = format!(
            "cannot look up the owner {}:{} of {path}",
            stat.uid, stat.gid
        );
        Error::new(Kind::Io, what)
            .because(e)
            .hint("is the name service of this host reachable?")
    })
}

/// Reads batches; one for each thread.
pub(super) struct Reader<'a> {
    shared: &'a Shared<'a>,
    buffer: Vec<u8>,
    xattrs: XattrReader,
    /// The directory of the last file.
    parent: Option<(Option<TreePath>, OwnedFd)>,
}

/// List nodes of large files, which go to the index before the entry.
struct ToIndex<'a>(&'a Shared<'a>);

impl NodeSink for ToIndex<'_> {
    type Error = io::Error;

    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> io::Result<()> {
        self.0.write(|writer| writer.put(block, bytes))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            buffer: Vec::new(),
            xattrs: XattrReader::default(),
            parent: None,
        }
    }

    pub(super) fn read(&mut self, batch: Batch) -> Result<BatchDone> {
        let mut done = BatchDone {
            entries: Vec::with_capacity(batch.len()),
            files: 0,
            bytes: 0,
        };

        for item in batch.items {
            match item {
                Item::Ready(entry) => done.entries.push(entry),
                Item::Read(file) => {
                    if let Some(entry) = self.file(file)? {
                        done.files += 1;
                        done.bytes += entry.version.size;
                        done.entries.push(entry);
                    }
                }
            }
        }

        self.parent = None;
        Ok(done)
    }

    /// `None` when the file is gone.
    fn file(&mut self, file: ToRead) -> Result<Option<IndexEntry>> {
        let path = &file.child.path;
        for _ in 0..MAX_READS {
            let open = match self.open(path) {
                Ok(open) => open,
                Err(e) if e.kind() == io::ErrorKind::NotFound && !file.linked => return Ok(None),
                Err(e) if is_replaced(&e) => return Err(self.unsteady(path)),
                Err(e) => return Err(self.unreadable(path, e)),
            };
            self.shared.options.pass_gap();
            let mut before = FileStat::of(&open).map_err(|e| self.unreadable(path, e))?;
            let options = self.shared.options;
            let may_be_dirty = mapped::may_be_dirty(&before, wall(options.started));
            let is_open = (may_be_dirty || options.exposures.is_some())
                .then(|| sys::is_open_for_writing(&open).unwrap_or(may_be_dirty));
            let is_open = is_open == Some(true);
            if may_be_dirty
                && is_open
                && mapped::write_back(&open).map_err(|e| self.unreadable(path, e))?
            {
                before = FileStat::of(&open).map_err(|e| self.unreadable(path, e))?;
            }
            if file.linked && before.id != file.child.stat.id {
                return Err(self.unsteady(path));
            }
            options.pass_gap();
            let xattrs = self.xattrs_of(&file.child, &before, &open)?;
            let shared = self.shared;
            let threads = shared.options.threads;
            let stopped = || shared.jobs.is_closed() || shared.options.is_stopped();
            let sink = &mut ToIndex(shared);
            let buffer = &mut self.buffer;
            let read = content::read(
                &open,
                before.size,
                before.has_holes(),
                threads,
                buffer,
                sink,
                &stopped,
            );
            let content = match read {
                Ok(content) => content,
                Err(ReadFailure::Shorter) => continue,
                Err(ReadFailure::Stopped) => {
                    return Err(Error::new(Kind::Io, "the scan was stopped"));
                }
                Err(ReadFailure::Io(e)) => return Err(self.unreadable(path, e)),
            };
            options.pass_gap();
            let after = FileStat::of(&open).map_err(|e| self.unreadable(path, e))?;
            if before.version() == after.version() {
                let kind = EntryKind::File(content);
                if let Some(exposures) = options
                    .exposures
                    .as_ref()
                    .filter(|_| is_open || before.nlink > 1)
                {
                    exposures.add(Exposed {
                        path: path.clone(),
                        stat: before,
                        is_open,
                    });
                }
                return entry_of(shared, file.child.path, &before, kind, xattrs).map(Some);
            }
        }

        Err(self.unsteady(path))
    }

    /// The attributes that the listing found, unless the file changed since.
    fn xattrs_of(&mut self, child: &Child, now: &FileStat, open: &File) -> Result<Vec<Xattr>> {
        if !self.shared.options.xattrs || now.version() == child.stat.version() {
            return Ok(child.xattrs.clone());
        }
        self.xattrs
            .of(open)
            .map_err(|e| self.unreadable(&child.path, e))
    }

    fn open(&mut self, path: &TreePath) -> io::Result<File> {
        let (dir, name) = (path.parent(), path.name());
        if self.parent.as_ref().is_none_or(|(known, _)| *known != dir) {
            self.parent = Some((dir, self.shared.root.parent(path)?.0));
        }

        let Some((_, handle)) = &self.parent else {
            return Err(io::ErrorKind::NotFound.into());
        };

        open_file_at(handle.as_fd(), &std::ffi::CString::new(name)?)
    }

    fn unreadable(&self, path: &TreePath, e: io::Error) -> Error {
        unreadable(&self.shared.root.shown(path), e)
    }

    fn unsteady(&self, path: &TreePath) -> Error {
        let shown = self.shared.root.shown(path);
        Error::usage(format!(
            "{} changes while it is read",
            crate::units::printable(shown.as_os_str().as_encoded_bytes())
        ))
        .hint("try again when it is at rest, or exclude it")
    }
}

/// Whether a name that was a file when it was listed is now something else, or, with further names, gone.
fn is_replaced(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
        || matches!(
            e.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
}
