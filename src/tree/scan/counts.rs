//! Running totals of a scan, for a reader on another thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::ByteSize;

/// Entries and bytes that a scan has done so far.
#[derive(Debug, Default)]
pub struct ScanCounts {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl ScanCounts {
    /// Entries checked or described.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes read.
    pub fn bytes(&self) -> ByteSize {
        ByteSize(self.bytes.load(Ordering::Relaxed))
    }

    pub(super) fn add_entries(&self, count: usize) {
        self.entries.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Position in a file that is being read, which adds what is new of it to the counts.
pub(super) struct FilePosition<'a> {
    counts: Option<&'a ScanCounts>,
    at: Cell<u64>,
}

impl<'a> FilePosition<'a> {
    pub(super) fn start(counts: Option<&'a ScanCounts>) -> Self {
        Self {
            counts,
            at: Cell::new(0),
        }
    }

    pub(super) fn reached(&self, offset: u64) {
        let before = self.at.replace(offset);
        if let Some(counts) = self.counts {
            let read = offset.saturating_sub(before);
            counts.bytes.fetch_add(read, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_of_a_file_counts_once() {
        let counts = ScanCounts::default();
        for _ in 0..2 {
            let position = FilePosition::start(Some(&counts));
            for offset in [10, 10, 25] {
                position.reached(offset);
            }
        }
        FilePosition::start(None).reached(7);
        assert_eq!(counts.bytes(), ByteSize(50));
    }
}
