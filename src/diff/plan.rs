//! The result of a comparison: what changes, what to fetch, what is here already.

use std::collections::HashMap;
use std::ops::Range;

use super::{Action, Change, Changes, TopChange};
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::rules::Layout;
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
    /// Blocks of files that list them in nodes of their own.
    pub(super) listed: HashMap<TreePath, Vec<BlockRef>>,
}

impl Plan {
    /// A plan that changes nothing, under `rules`.
    pub(super) fn empty(rules: &Rules) -> Self {
        Self {
            changes: Changes::default(),
            top: None,
            wants: Vec::new(),
            reuse: HashMap::new(),
            summary: Summary::default(),
            sets_mtime: rules.mtime,
            sets_xattrs: rules.xattrs,
            layout: rules.layout,
            listed: HashMap::new(),
        }
    }

    /// All that is in it, which is empty afterwards.
    pub fn take(&mut self) -> Self {
        let empty = Self {
            changes: Changes::default(),
            top: None,
            wants: Vec::new(),
            reuse: HashMap::new(),
            summary: Summary::default(),
            listed: HashMap::new(),
            ..*self
        };
        std::mem::replace(self, empty)
    }

    /// Whether the tree is the release (extras that stay do not count).
    pub fn is_clean(&self) -> bool {
        !self.changes.iter().any(|change| change.is_applied()) && !self.top.as_ref().is_some_and(TopChange::differs)
    }

    /// The blocks of the file that `change` makes; none when it makes no file.
    pub fn blocks<'a>(&'a self, change: &'a Change) -> &'a [BlockRef] {
        match change.want.as_ref().map(|w| &w.entry.kind) {
            Some(EntryKind::File(Content::Blocks(blocks))) if change.makes_anew() => blocks,
            Some(EntryKind::File(Content::Lists(_))) => self.listed.get(&change.path).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// The block `ordinal`, when it is to be fetched.
    pub fn wanted(&self, ordinal: Ordinal) -> Option<BlockRef> {
        self.wants(ordinal).then(|| self.changes.holding(ordinal)).flatten().and_then(|(change, index)| {
            let blocks = self.blocks(&change);
            blocks.get(index).copied()
        })
    }

    /// All blocks that are to be fetched, in the order of their ordinals.
    pub fn fetched(&self) -> impl Iterator<Item = (Ordinal, BlockRef)> {
        self.changes.iter().flat_map(|change| {
            let first = change.want.as_ref().map_or(0, |want| want.first.0);
            let blocks = (first..).map(Ordinal).zip(self.blocks(&change).iter().copied());
            blocks.filter(|(ordinal, _)| self.wants(*ordinal)).collect::<Vec<_>>()
        })
    }

    fn wants(&self, ordinal: Ordinal) -> bool {
        let at = self.wants.partition_point(|range| range.end <= ordinal.0);
        self.wants.get(at).is_some_and(|range| range.start <= ordinal.0)
    }

    /// Takes out of what is to be fetched every block for which `here` holds; says how many bytes that saves.
    pub fn drop_wants(&mut self, mut here: impl FnMut(Ordinal, &BlockRef) -> bool) -> u64 {
        let mut saved = 0;
        let left = ranges(self.fetched().filter_map(|(ordinal, block)| {
            let drop = here(ordinal, &block);
            saved += if drop { u64::from(block.size) } else { 0 };
            (!drop).then_some(ordinal.0)
        }));
        self.wants = left;
        self.summary.fetch_bytes -= saved;
        saved
    }

    /// Sets what is to be fetched.
    pub(super) fn set_fetch(&mut self, mut blocks: Vec<(Ordinal, BlockRef)>) {
        blocks.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        self.summary.fetch_bytes = blocks.iter().map(|(_, block)| u64::from(block.size)).sum();
        self.wants = ranges(blocks.into_iter().map(|(ordinal, _)| ordinal.0));
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

/// Ranges out of rising numbers.
fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some(last) if n == last.end => last.end = n + 1,
            _ => out.push(n..n + 1),
        }
    }
    out
}
