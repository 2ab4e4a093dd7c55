//! Items of the stage: each gets its final name in the commit.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::diff::{Action, Change, Shape};
use crate::manifest::{Mode, TreePath};
use crate::sync::locked;
use crate::tree::fs::stat::Version;

/// One item of the stage.
#[derive(Debug)]
pub(crate) struct StagedItem {
    pub(crate) slot: u64,
    pub(crate) size: u64,
    /// Ranges of data in bytes, in order, unless the file is one long hole; `None` is all of it.
    #[expect(
        clippy::box_collection,
        reason = "there are a million items, and hardly one of them has holes"
    )]
    pub(crate) holes: Option<Box<Vec<Range<u64>>>>,
    pub(crate) change: u32,
    /// Mode of the staged file at its creation; always with the right to read and write it.
    pub(crate) mode: Mode,
    /// Final name of a further name of a copied file.
    pub(crate) further: Option<Box<TreePath>>,
    /// Version of the original at the last copy.
    pub(crate) copied: Mutex<Option<Box<Version>>>,
    /// Inode of a sealed file; else 0.
    pub(crate) ino: AtomicU64,
    pub(crate) blocks: u32,
    /// Number of blocks not written yet.
    pub(crate) left: AtomicU32,
}

impl StagedItem {
    /// Index of the change in the plan.
    pub(crate) fn change(&self) -> usize {
        self.change as usize
    }

    /// Final name, if it differs from the change: a further name of a copied file.
    pub(crate) fn further(&self) -> Option<&TreePath> {
        self.further.as_deref()
    }

    /// Version of the original at the time of the copy.
    pub(crate) fn copied(&self) -> Option<Version> {
        locked(&self.copied).as_deref().copied()
    }

    /// Inode of a sealed file.
    pub(crate) fn ino(&self) -> Option<u64> {
        Some(self.ino.load(Ordering::Acquire)).filter(|&ino| ino != 0)
    }

    pub(crate) fn new(slot: u64, change: usize) -> Self {
        Self {
            slot,
            size: 0,
            holes: None,
            // A plan cannot hold more.
            change: change as u32,
            mode: Mode::from_bits(0o600),
            further: None,
            copied: Mutex::default(),
            ino: AtomicU64::new(0),
            blocks: 0,
            left: AtomicU32::new(0),
        }
    }

    /// Ranges of data in bytes, in order.
    pub(crate) fn data(&self) -> impl Iterator<Item = Range<u64>> {
        let whole = self.holes.is_none().then_some(0..self.size);
        self.holes
            .iter()
            .flat_map(|parts| parts.iter().cloned())
            .chain(whole)
    }
}

/// Returns whether the change is staged as a copy with other metadata.
pub(crate) fn is_copied(change: &Change) -> bool {
    change.action == Action::Meta && change.shape() != Shape::Directory
}
