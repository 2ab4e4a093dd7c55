//! Result of a comparison: changes, blocks to fetch, and blocks already present.

use std::collections::HashMap;
use std::ops::Range;

use super::{Action, BlockLists, Change, Changes, TopChange};
use crate::Result;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::rules::{Layout, PathFilter};
use crate::manifest::{Content, EntryKind, Rules, TreePath};

/// Location of a block on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBlock {
    /// The file.
    pub path: TreePath,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u32,
}

/// A further name of a file with changed metadata. It is the same file and has no change of its
/// own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FurtherName {
    /// The name.
    pub path: TreePath,
    /// Position of the file's change in the plan.
    pub first: u32,
}

/// Totals of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Paths created where nothing was.
    pub created: u64,
    /// Paths with changed content or kind.
    pub updated: u64,
    /// Paths with changed metadata only.
    pub metadata: u64,
    /// Deleted paths, including those below a replaced directory.
    pub deleted: u64,
    /// Paths that the release does not have and that stay.
    pub extra: u64,
    /// Bytes of created files.
    pub write_bytes: u64,
    /// Bytes to fetch over the network.
    pub fetch_bytes: u64,
    /// Bytes of blocks already on the host.
    pub reuse_bytes: u64,
    /// Entries of the host where the release governs.
    pub host_entries: u64,
}

/// Steps that turn a host's tree into the release.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Changes in the order of paths.
    pub changes: Changes,
    /// Further names of files with changed metadata only, in the order of paths.
    pub further: Vec<FurtherName>,
    /// The root directory if the release governs it, with or without a difference.
    pub top: Option<TopChange>,
    /// Ordinals to fetch over the network, the first ordinal of each distinct block: sorted ranges
    /// that neither overlap nor touch.
    pub wants: Vec<Range<u64>>,
    /// Locations of blocks already on the host.
    pub reuse: HashMap<BlockHash, LocalBlock>,
    /// Totals.
    pub summary: Summary,
    /// Set times of modification (a rule of the release).
    pub sets_mtime: bool,
    /// Set extended attributes (a rule of the release).
    pub sets_xattrs: bool,
    /// Method by which the commit switches the tree (a rule of the release).
    pub layout: Layout,
    /// Limit that refuses the plan; only if the host asked for a report instead of a refusal.
    pub over_limit: Option<String>,
    /// Filters of paths left alone; only for an exchange of the whole tree.
    pub alone: Vec<PathFilter>,
}

impl Plan {
    /// Creates a plan without changes, under `rules`.
    pub(super) fn empty(rules: &Rules) -> Self {
        Self {
            changes: Changes::default(),
            further: Vec::new(),
            top: None,
            wants: Vec::new(),
            reuse: HashMap::new(),
            summary: Summary::default(),
            sets_mtime: rules.mtime,
            sets_xattrs: rules.xattrs,
            layout: rules.layout,
            over_limit: None,
            alone: Vec::new(),
        }
    }

    /// Returns true if the tree is the release (extras that stay do not count).
    pub fn is_clean(&self) -> bool {
        !self.changes.iter().any(|change| change.is_applied())
            && !self.top.as_ref().is_some_and(TopChange::differs)
    }

    /// Returns the content of the file that `change` creates; `None` if it creates no file.
    pub fn content<'a>(&self, change: &'a Change) -> Option<&'a Content> {
        match change.want.as_ref().map(|w| &w.entry.kind) {
            Some(EntryKind::File(content)) if change.makes_anew() => Some(content),
            _ => None,
        }
    }

    /// Returns the block `ordinal`, if it is to be fetched.
    pub fn wanted(&self, ordinal: Ordinal, lists: &dyn BlockLists) -> Result<Option<BlockRef>> {
        let found = self
            .wants(ordinal)
            .then(|| self.changes.find_block(ordinal))
            .flatten();
        let Some((change, mut index)) = found else {
            return Ok(None);
        };

        match self.content(&change) {
            None => Ok(None),
            Some(Content::Blocks(blocks)) => Ok(blocks.get(index).copied()),
            Some(Content::Lists(all)) => {
                for list in all {
                    // The comparison has checked that a list has no more blocks than allowed.
                    let blocks = list.blocks as usize;
                    if index < blocks {
                        return Ok(lists.list(list)?.get(index).copied());
                    }
                    index -= blocks;
                }
                Ok(None)
            }
        }
    }

    /// Calls `each` for all blocks to fetch, in the order of their ordinals.
    pub fn each_fetched(
        &self,
        lists: &dyn BlockLists,
        mut each: impl FnMut(Ordinal, &BlockRef),
    ) -> Result<()> {
        for change in &self.changes {
            let Some(content) = self.content(&change) else {
                continue;
            };
            let mut first = change.want.as_ref().map_or(0, |want| want.first.0);
            let mut tell = |first: u64, blocks: &[BlockRef]| {
                let blocks = (first..).map(Ordinal).zip(blocks);
                blocks
                    .filter(|(ordinal, _)| self.wants(*ordinal))
                    .for_each(|(ordinal, block)| each(ordinal, block));
            };
            match content {
                Content::Blocks(blocks) => tell(first, blocks),
                Content::Lists(all) => {
                    for list in all {
                        if self.wants_any(first..first + list.blocks) {
                            tell(first, &lists.list(list)?);
                        }
                        first += list.blocks;
                    }
                }
            }
        }

        Ok(())
    }

    fn wants_any(&self, ordinals: Range<u64>) -> bool {
        let at = self
            .wants
            .partition_point(|range| range.end <= ordinals.start);
        self.wants
            .get(at)
            .is_some_and(|range| range.start < ordinals.end)
    }

    fn wants(&self, ordinal: Ordinal) -> bool {
        let at = self.wants.partition_point(|range| range.end <= ordinal.0);
        self.wants
            .get(at)
            .is_some_and(|range| range.start <= ordinal.0)
    }

    /// Removes every block for which `here` returns true from the fetch; returns the saved bytes.
    pub fn drop_wants(
        &mut self,
        lists: &dyn BlockLists,
        mut here: impl FnMut(&BlockRef) -> bool,
    ) -> Result<u64> {
        let mut saved = 0;
        let mut left = Vec::new();
        self.each_fetched(lists, |Ordinal(ordinal), block| match here(block) {
            true => saved += u64::from(block.size),
            false => append(&mut left, ordinal),
        })?;
        self.wants = left;
        self.summary.fetch_bytes -= saved;

        Ok(saved)
    }

    /// Sets the blocks to fetch.
    pub(super) fn set_fetch(&mut self, mut blocks: Vec<(Ordinal, BlockRef)>) {
        blocks.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        self.summary.fetch_bytes = blocks.iter().map(|(_, block)| u64::from(block.size)).sum();
        self.wants.clear();
        blocks
            .into_iter()
            .for_each(|(Ordinal(ordinal), _)| append(&mut self.wants, ordinal));
    }

    pub(super) fn count(&mut self) {
        let s = &mut self.summary;
        s.metadata += u64::from(self.top.as_ref().is_some_and(TopChange::differs));
        for change in &self.changes {
            match change.action {
                Action::Create => s.created += 1,
                Action::Replace | Action::Update => s.updated += 1,
                Action::Meta => s.metadata += 1,
                Action::Delete => s.deleted += 1,
                Action::Extra | Action::Keep => s.extra += 1,
            }
            if let (true, Some(want)) = (change.makes_anew(), &change.want) {
                s.write_bytes = s.write_bytes.saturating_add(want.entry.kind.size());
            }
        }
    }
}

/// Appends a number larger than those in the ranges.
fn append(ranges: &mut Vec<Range<u64>>, number: u64) {
    match ranges.last_mut() {
        Some(last) if number == last.end => last.end = number + 1,
        _ => ranges.push(number..number + 1),
    }
}
