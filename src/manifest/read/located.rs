//! Entries with the ordinals of their blocks.

use std::ops::Range;

use super::source::ReadError;
use crate::id::Ordinal;
use crate::manifest::entry::{Entry, EntryKind};

/// One entry with the ordinal of its first block (without blocks, the ordinal of the next one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The entry.
    pub entry: Entry,
    /// Ordinal of the first block.
    pub first: Ordinal,
}

impl Located {
    /// Returns the ordinals of the entry's blocks.
    fn range(&self) -> Range<u64> {
        let count = match &self.entry.kind {
            EntryKind::File(content) => content.block_count(),
            _ => 0,
        };
        self.first.0..self.first.0 + count
    }
}

/// Entries of one page in order, each with the ordinal of its first block.
#[derive(Debug, Default)]
pub(crate) struct LocatedEntries {
    entries: std::vec::IntoIter<Entry>,
    /// Ordinal of the next block.
    next: u64,
}

impl LocatedEntries {
    /// Creates the iterator of a page whose first block has the ordinal `first`.
    pub(crate) fn new(entries: Vec<Entry>, first: u64) -> Self {
        Self {
            entries: entries.into_iter(),
            next: first,
        }
    }
}

impl Iterator for LocatedEntries {
    type Item = Located;

    fn next(&mut self) -> Option<Located> {
        let located = Located {
            entry: self.entries.next()?,
            first: Ordinal(self.next),
        };
        self.next = located.range().end;
        Some(located)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

/// Decoded entries of one page with the ordinals of their blocks.
#[derive(Debug, Clone)]
pub struct PageView {
    entries: Vec<Located>,
    range: Range<u64>,
}

impl PageView {
    /// Creates the view of a page whose first block has the ordinal `first`.
    pub(super) fn new(entries: Vec<Entry>, first: u64) -> Self {
        let entries: Vec<Located> = LocatedEntries::new(entries, first).collect();
        let end = entries.last().map_or(first, |last| last.range().end);
        Self {
            entries,
            range: first..end,
        }
    }

    /// Returns true if the block is in this page.
    pub fn contains(&self, ordinal: Ordinal) -> bool {
        self.range.contains(&ordinal.0)
    }

    /// Returns the entry of the block.
    pub fn entry_of(&self, ordinal: Ordinal) -> Result<&Located, ReadError> {
        let after = self.entries.partition_point(|l| l.first.0 <= ordinal.0);
        let candidates = self.entries[..after].iter().rev();
        candidates
            .take_while(|l| l.first.0 <= ordinal.0)
            .find(|l| l.range().contains(&ordinal.0))
            .ok_or_else(|| ReadError::Illegal("no block with this ordinal".into()))
    }
}
