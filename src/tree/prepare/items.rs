//! Items of the stage: each gets its final name in the commit.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::diff::{Action, Change, Shape};
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::stat::Version;

/// One item of the stage: what gets a final name in the commit.
#[derive(Debug)]
pub(crate) struct StagedItem {
    pub(crate) slot: u64,
    pub(crate) size: u64,
    /// Where it is not one long hole: what takes space, in bytes, in order; `None` is all of it.
    #[expect(
        clippy::box_collection,
        reason = "there are a million items, and hardly one of them has holes"
    )]
    pub(crate) holes: Option<Box<Vec<Range<u64>>>>,
    pub(crate) change: u32,
    /// The name, of a further name of a file that is copied.
    pub(crate) further: Option<Box<TreePath>>,
    /// The file of which it is a copy, as it was when it was copied last.
    pub(crate) copied: Mutex<Option<Box<Version>>>,
    /// The inode, of a file that was sealed; else 0.
    pub(crate) ino: AtomicU64,
    pub(crate) blocks: u32,
    /// Blocks that are not written yet.
    pub(crate) left: AtomicU32,
}

impl StagedItem {
    /// The place of its change in the plan.
    pub(crate) fn change(&self) -> usize {
        self.change as usize
    }

    /// The final name, where it is not that of the change: a further name of a file that is copied.
    pub(crate) fn further(&self) -> Option<&TreePath> {
        self.further.as_deref()
    }

    /// The file of which it is a copy, as it was then.
    pub(crate) fn copied(&self) -> Option<Version> {
        locked(&self.copied).as_deref().copied()
    }

    /// The inode of a file that has its metadata.
    pub(crate) fn ino(&self) -> Option<u64> {
        Some(self.ino.load(Ordering::Acquire)).filter(|&ino| ino != 0)
    }

    pub(crate) fn new(slot: u64, change: usize) -> Self {
        Self {
            slot,
            size: 0,
            holes: None,
            // No more than a plan can hold.
            change: change as u32,
            further: None,
            copied: Mutex::default(),
            ino: AtomicU64::new(0),
            blocks: 0,
            left: AtomicU32::new(0),
        }
    }

    /// What takes space, in bytes, in order.
    pub(crate) fn data(&self) -> impl Iterator<Item = Range<u64>> {
        let whole = self.holes.is_none().then_some(0..self.size);
        self.holes
            .iter()
            .flat_map(|parts| parts.iter().cloned())
            .chain(whole)
    }
}

/// Whether the change is staged as a copy with other metadata.
pub(crate) fn is_copied(change: &Change) -> bool {
    change.action == Action::Meta && change.shape() != Shape::Directory
}
