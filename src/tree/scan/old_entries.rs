//! Entries of the old index, read along with the walk.

use super::clock::is_racy;
use super::listing::ListedPath;
use crate::manifest::{Content, EntryKind};
use crate::tree::index::{Index, IndexEntries, IndexEntry, is_unread};

/// Entries of an older index, read in step with the walk.
pub(super) struct OldEntries<'a> {
    pub(super) index: &'a Index,
    entries: IndexEntries<'a>,
    next: Option<IndexEntry>,
}

impl<'a> OldEntries<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        let mut old = Self {
            index,
            entries: index.entries(),
            next: None,
        };
        old.advance();
        old
    }

    fn advance(&mut self) {
        self.next = loop {
            match self.entries.next() {
                Some(Ok(entry)) => break Some(entry),
                Some(Err(e)) => tracing::warn!("reading a part of the tree again: {e}"),
                None => break None,
            }
        };
    }

    /// Returns the content of a file unchanged since the old scan.
    pub(super) fn content(&mut self, child: &ListedPath) -> Option<Content> {
        while self
            .next
            .as_ref()
            .is_some_and(|n| n.entry.path < child.path)
        {
            self.advance();
        }

        let found = self.next.take_if(|next| next.entry.path == child.path)?;
        self.advance();
        let known = found.version == child.stat.version()
            && !is_racy(&found.version, self.index.started())
            && !is_unread(&found.entry.kind);

        match found.entry.kind {
            EntryKind::File(content) if known => Some(content),
            _ => None,
        }
    }
}
