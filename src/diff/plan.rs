//! The result of a comparison: what changes, what to fetch, what is here already.

use std::collections::HashMap;
use std::ops::Range;

use super::{Action, Change, Changes, Lists, TopChange};
use crate::Result;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::rules::{Layout, PathFilter};
use crate::manifest::{Content, EntryKind, Rules, TreePath};

/// Where a block lies on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBlock {
    /// The file.
    pub path: TreePath,
    /// Where in it, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u32,
}

/// A further name of a file of which only metadata changes: it is the same file, so that nothing is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FurtherName {
    /// The name.
    pub path: TreePath,
    /// The place of the file's change in the plan.
    pub first: u32,
}

/// How much a plan changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Paths that are made anew where nothing was.
    pub created: u64,
    /// Paths whose content or kind changes.
    pub updated: u64,
    /// Paths of which only metadata changes.
    pub metadata: u64,
    /// Paths that are deleted, with those below a replaced directory.
    pub deleted: u64,
    /// Paths that the release does not have and that stay.
    pub extra: u64,
    /// Bytes of the files that are made anew.
    pub write_bytes: u64,
    /// Bytes that have to come over the network.
    pub fetch_bytes: u64,
    /// Bytes of blocks that are on the host already.
    pub reuse_bytes: u64,
    /// Entries that the host has where the release governs.
    pub host_entries: u64,
}

/// What a host has to do to make its tree the release.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What differs, in the order of paths.
    pub changes: Changes,
    /// Further names of files of which only metadata changes, in the order of paths.
    pub further: Vec<FurtherName>,
    /// The tree's own directory when the release governs it, whether or not it differs.
    pub top: Option<TopChange>,
    /// What has to come over the network, by the first ordinal of each distinct block: sorted ranges that neither overlap
    /// nor touch.
    pub wants: Vec<Range<u64>>,
    /// Blocks that are on the host already, and where.
    pub reuse: HashMap<BlockHash, LocalBlock>,
    /// Totals.
    pub summary: Summary,
    /// Whether times of modification are set (a rule of the release).
    pub sets_mtime: bool,
    /// Whether extended attributes are set (a rule of the release).
    pub sets_xattrs: bool,
    /// How the commit switches the tree (a rule of the release).
    pub layout: Layout,
    /// What matches the paths that are left alone; only where the whole tree is exchanged.
    pub alone: Vec<PathFilter>,
}

impl Plan {
    /// A plan that changes nothing, under `rules`.
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
            alone: Vec::new(),
        }
    }

    /// All that is in it, which is empty afterwards.
    pub fn take(&mut self) -> Self {
        let empty = Self {
            changes: Changes::default(),
            further: Vec::new(),
            top: None,
            wants: Vec::new(),
            reuse: HashMap::new(),
            summary: Summary::default(),
            alone: Vec::new(),
            ..*self
        };

        std::mem::replace(self, empty)
    }

    /// Whether the tree is the release (extras that stay do not count).
    pub fn is_clean(&self) -> bool {
        !self.changes.iter().any(|change| change.is_applied())
            && !self.top.as_ref().is_some_and(TopChange::differs)
    }

    /// The content of the file that `change` makes; `None` when it makes no file.
    pub fn content<'a>(&self, change: &'a Change) -> Option<&'a Content> {
        match change.want.as_ref().map(|w| &w.entry.kind) {
            Some(EntryKind::File(content)) if change.makes_anew() => Some(content),
            _ => None,
        }
    }

    /// The block `ordinal`, when it is to be fetched.
    pub fn wanted(&self, ordinal: Ordinal, lists: &dyn Lists) -> Result<Option<BlockRef>> {
        let found = self
            .wants(ordinal)
            .then(|| self.changes.holding(ordinal))
            .flatten();
        let Some((change, mut index)) = found else {
            return Ok(None);
        };

        match self.content(&change) {
            None => Ok(None),
            Some(Content::Blocks(blocks)) => Ok(blocks.get(index).copied()),
            Some(Content::Lists(all)) => {
                for list in all {
                    // Checked when it was read to be compared: no more blocks than a list can have.
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

    /// Tells of all blocks that are to be fetched, in the order of their ordinals.
    pub fn each_fetched(
        &self,
        lists: &dyn Lists,
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

    /// Takes out of what is to be fetched every block for which `here` holds; says how many bytes that saves.
    pub fn drop_wants(
        &mut self,
        lists: &dyn Lists,
        mut here: impl FnMut(&BlockRef) -> bool,
    ) -> Result<u64> {
        let (mut saved, mut left) = (0, Vec::new());
        self.each_fetched(lists, |Ordinal(ordinal), block| match here(block) {
            true => saved += u64::from(block.size),
            false => append(&mut left, ordinal),
        })?;
        self.wants = left;
        self.summary.fetch_bytes -= saved;

        Ok(saved)
    }

    /// Sets what is to be fetched.
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

/// Adds a number that is larger than those in the ranges.
fn append(ranges: &mut Vec<Range<u64>>, number: u64) {
    match ranges.last_mut() {
        Some(last) if number == last.end => last.end = number + 1,
        _ => ranges.push(number..number + 1),
    }
}
