//! Batches: runs of entries in order, some with a file still to be read.

use super::listing::ListedPath;
use crate::tree::index::IndexEntry;

/// A run of entries in order, some with a file still to be read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) items: Vec<BatchItem>,
    to_read: usize,
}

#[derive(Debug)]
pub(super) enum BatchItem {
    Ready(IndexEntry),
    Read(PendingFile),
}

/// A file to be read.
#[derive(Debug)]
pub(super) struct PendingFile {
    pub(super) child: ListedPath,
    /// Whether later entries may be hard links to this file.
    pub(super) linked: bool,
}

/// A batch with all its files read.
#[derive(Debug)]
pub(super) struct ReadBatch {
    pub(super) entries: Vec<IndexEntry>,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Batch {
    pub(super) fn push(&mut self, item: BatchItem) {
        self.to_read += usize::from(matches!(item, BatchItem::Read(_)));
        self.items.push(item);
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns the entries if no file is to be read, else the batch.
    pub(super) fn ready(self) -> Result<Vec<IndexEntry>, Self> {
        if self.to_read > 0 {
            return Err(self);
        }

        let entry = |item| match item {
            BatchItem::Ready(entry) => Some(entry),
            BatchItem::Read(_) => None,
        };

        Ok(self.items.into_iter().filter_map(entry).collect())
    }
}
