//! Generations that need nothing more.

use std::ops::Range;

use crate::proto::RangeSet;

/// Numbers of the resolved generations.
#[derive(Debug, Default)]
pub(super) struct ResolvedGenerations {
    all: RangeSet,
    /// All generations below are resolved; the fast check for every symbol.
    settled: u32,
    /// Resolved generations that held no wanted block at the time.
    useless: RangeSet,
}

impl ResolvedGenerations {
    /// Marks generations as resolved.
    pub(super) fn insert(&mut self, generations: Range<u32>) {
        self.all
            .insert(u64::from(generations.start)..u64::from(generations.end));
        self.settle();
    }

    /// Notes that a resolved generation held no wanted block.
    pub(super) fn mark_useless(&mut self, generation: u32) {
        self.useless
            .insert(u64::from(generation)..u64::from(generation) + 1);
    }

    /// Forgets useless generations, which may hold blocks of other wants, and resolves all
    /// generations below `horizon`.
    pub(super) fn reset(&mut self, horizon: u32) {
        self.all.subtract(&std::mem::take(&mut self.useless));
        self.insert(0..horizon);
    }

    /// Forgets all generations from `from` on.
    pub(super) fn forget(&mut self, from: u32) {
        self.all.remove(u64::from(from)..u64::MAX);
        self.useless.remove(u64::from(from)..u64::MAX);
        self.settle();
    }

    fn settle(&mut self) {
        let first = self.all.iter().next().filter(|r| r.start == 0);
        self.settled = first.map_or(0, |r| u32::try_from(r.end).unwrap_or(u32::MAX));
    }

    /// Returns true if a generation is resolved.
    pub(super) fn contains(&self, generation: u32) -> bool {
        generation < self.settled
            || (self.all.range_count() > 1 && self.all.contains(u64::from(generation)))
    }

    /// Returns the first `most` unresolved generations below `horizon`.
    pub(super) fn gaps(&self, horizon: u32, most: usize) -> Vec<u32> {
        let mut found = Vec::new();
        if horizon <= self.settled {
            return found;
        }

        let mut at = 0;
        for resolved in self.all.iter().chain([u64::MAX..u64::MAX]) {
            let end = resolved.start.min(u64::from(horizon));
            found.extend((at..end).take(most - found.len()).map(|n| n as u32));
            at = resolved.end;
            if found.len() == most || at >= u64::from(horizon) {
                break;
            }
        }

        found
    }
}
