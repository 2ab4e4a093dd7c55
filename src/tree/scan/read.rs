//! Reads the files of a scan, each again until unchanged during the read.

use std::fs::File;
use std::io;

use super::batch::{Batch, BatchItem, PendingFile, ReadBatch};
use super::clock::to_mtime;
use super::content;
use super::context::ScanContext;
use super::counts::FilePosition;
use super::describe::entry_of;
use super::errors::{stopped, unreadable};
use super::exposed::Exposed;
use super::listing::ListedPath;
use super::mapped;
use super::segments::ReadFailure;
use crate::block::BlockRef;
use crate::manifest::build::NodeSink;
use crate::manifest::{EntryKind, TreePath, Xattr};
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::open_file_at;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::sys;
use crate::tree::fs::xattrs::XattrReader;
use crate::tree::index::IndexEntry;
use crate::{Error, Result};

/// Number of attempts to read a file that keeps changing.
const MAX_READ_ATTEMPTS: usize = 3;

/// Reads batches; one for each thread.
pub(super) struct FileReader<'a> {
    context: &'a ScanContext<'a>,
    buffer: Vec<u8>,
    xattrs: XattrReader,
    /// Directory of the last file.
    dirs: DirCursor,
}

/// Writes the list nodes of large files to the index, before the entry.
struct IndexSink<'a>(&'a ScanContext<'a>);

impl NodeSink for IndexSink<'_> {
    type Error = io::Error;

    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> io::Result<()> {
        self.0.write(|writer| writer.put(block, bytes))
    }
}

impl<'a> FileReader<'a> {
    pub(super) fn new(context: &'a ScanContext<'a>) -> Self {
        Self {
            context,
            buffer: Vec::new(),
            xattrs: XattrReader::default(),
            dirs: DirCursor::default(),
        }
    }

    pub(super) fn read(&mut self, batch: Batch) -> Result<ReadBatch> {
        let mut done = ReadBatch {
            entries: Vec::with_capacity(batch.len()),
            files: 0,
            bytes: 0,
        };

        for item in batch.items {
            match item {
                BatchItem::Ready(entry) => done.entries.push(entry),
                BatchItem::Read(file) => {
                    if let Some(entry) = self.file(file)? {
                        done.files += 1;
                        done.bytes += entry.version.size;
                        done.entries.push(entry);
                    }
                }
            }
        }

        self.dirs = DirCursor::default();
        Ok(done)
    }

    /// Reads one file; `None` if missing.
    fn file(&mut self, file: PendingFile) -> Result<Option<IndexEntry>> {
        let path = &file.child.path;
        for _ in 0..MAX_READ_ATTEMPTS {
            let open = match self.open(path) {
                Ok(open) => open,
                Err(e) if e.kind() == io::ErrorKind::NotFound && !file.linked => return Ok(None),
                Err(e) if is_replaced(&e) => return Err(self.unsteady(path)),
                Err(e) => return Err(self.unreadable(path, e)),
            };

            self.context.options.pass_gap();
            if let Some(entry) = self.read_once(&file, &open)? {
                return Ok(Some(entry));
            }
        }

        Err(self.unsteady(path))
    }

    /// Reads an open file; `None` if the file changed during the read.
    fn read_once(&mut self, file: &PendingFile, open: &File) -> Result<Option<IndexEntry>> {
        let context = self.context;
        let options = context.options;
        let path = &file.child.path;
        let (before, is_open) = self.stat_clean(path, open)?;
        if file.linked && before.id != file.child.stat.id {
            return Err(self.unsteady(path));
        }

        options.pass_gap();
        let xattrs = self.xattrs_of(&file.child, &before, open)?;
        let position = FilePosition::start(options.counts.as_deref());
        let read = content::read(
            open,
            before.size,
            before.has_holes(),
            options.threads,
            &mut self.buffer,
            &mut IndexSink(context),
            &|offset| {
                position.reached(offset);
                context.jobs.is_closed() || options.is_stopped()
            },
        );

        let content = match read {
            Ok(content) => content,
            Err(ReadFailure::Shorter) => return Ok(None),
            Err(ReadFailure::Stopped) => return Err(stopped()),
            Err(ReadFailure::Io(e)) => return Err(self.unreadable(path, e)),
        };

        options.pass_gap();
        let after = FileStat::of(open).map_err(|e| self.unreadable(path, e))?;
        if before.version() != after.version() {
            return Ok(None);
        }

        let is_exposed = is_open || before.nlink > 1;
        if let Some(exposures) = options.exposures.as_ref().filter(|_| is_exposed) {
            exposures.add(Exposed {
                path: path.clone(),
                stat: before,
                is_open,
            });
        }

        let kind = EntryKind::File(content);
        entry_of(context, path.clone(), &before, kind, xattrs).map(Some)
    }

    /// Returns the stat of a file after writing back dirty pages, and whether a writer may have
    /// the file open.
    fn stat_clean(&self, path: &TreePath, open: &File) -> Result<(FileStat, bool)> {
        let failed = |e| self.unreadable(path, e);
        let options = self.context.options;
        let stat = FileStat::of(open).map_err(failed)?;
        let may_be_dirty = mapped::may_be_dirty(&stat, to_mtime(options.started));
        let is_open = (may_be_dirty || options.exposures.is_some())
            && sys::is_open_for_writing(open).unwrap_or(may_be_dirty);

        if may_be_dirty && is_open && mapped::write_back(open).map_err(failed)? {
            return Ok((FileStat::of(open).map_err(failed)?, is_open));
        }

        Ok((stat, is_open))
    }

    /// Returns the listed attributes, read again if the file has changed since.
    fn xattrs_of(&mut self, child: &ListedPath, now: &FileStat, open: &File) -> Result<Vec<Xattr>> {
        if !self.context.options.entries.xattrs || now.version() == child.stat.version() {
            return Ok(child.xattrs.clone());
        }
        self.xattrs
            .of(open)
            .map_err(|e| self.unreadable(&child.path, e))
    }

    fn open(&mut self, path: &TreePath) -> io::Result<File> {
        let (parent, name) = self.dirs.parent(self.context.root, path)?;
        open_file_at(parent, &name)
    }

    fn unreadable(&self, path: &TreePath, e: io::Error) -> Error {
        unreadable(&self.context.root.shown(path), e)
    }

    fn unsteady(&self, path: &TreePath) -> Error {
        let shown = self.context.root.shown(path);
        Error::usage(format!(
            "{} changed during the scan",
            crate::units::printable(shown.as_os_str().as_encoded_bytes())
        ))
        .hint("try again when the file no longer changes, or exclude it")
    }
}

/// Returns whether a listed file is now another kind of object, or missing although further names
/// exist.
fn is_replaced(e: &io::Error) -> bool {
    is_gone(e) || e.kind() == io::ErrorKind::InvalidInput
}
