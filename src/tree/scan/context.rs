//! State shared by the threads of one scan.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use super::batch::{Batch, ReadBatch};
use super::ignore::IgnoreFilter;
use super::listing::{DirListing, ListJob};
use super::options::ScanOptions;
use super::policy::ResolvedPolicy;
use super::work::JobQueue;
use crate::sync::locked;
use crate::tree::fs::dir_access::OpenedDirs;
use crate::tree::fs::root::Root;
use crate::tree::index::IndexWriter;

pub(super) type Jobs = JobQueue<ListJob, Option<DirListing>, Batch, ReadBatch>;

/// State shared by the threads of one scan.
pub(super) struct ScanContext<'a> {
    pub(super) root: &'a Root,
    pub(super) options: &'a ScanOptions,
    pub(super) resolved: ResolvedPolicy<'a>,
    pub(super) filter: Arc<IgnoreFilter>,
    /// `None` during a comparison, which writes no index.
    pub(super) writer: Mutex<Option<IndexWriter>>,
    pub(super) jobs: Jobs,
    /// Number of listed paths not yet taken by the walk.
    pub(super) children_ahead: AtomicUsize,
    pub(super) barred: OpenedDirs,
}

impl<'a> ScanContext<'a> {
    pub(super) fn new(
        root: &'a Root,
        options: &'a ScanOptions,
        resolved: ResolvedPolicy<'a>,
        filter: Arc<IgnoreFilter>,
        writer: Option<IndexWriter>,
    ) -> Self {
        Self {
            root,
            options,
            resolved,
            filter,
            writer: Mutex::new(writer),
            jobs: JobQueue::new(),
            children_ahead: AtomicUsize::new(0),
            barred: OpenedDirs::new(options.opens_barred),
        }
    }

    /// Calls `put` with the writer of the new index.
    pub(super) fn write(
        &self,
        put: impl FnOnce(&mut IndexWriter) -> io::Result<()>,
    ) -> io::Result<()> {
        match locked(&self.writer).as_mut() {
            Some(writer) => put(writer),
            None => Err(io::Error::other("no index is being written")),
        }
    }
}

/// Stops the worker threads on every exit from the scan.
pub(super) struct CloseAtEnd<'a>(pub(super) &'a Jobs);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
