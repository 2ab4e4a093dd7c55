//! Retention: the newest distinct releases of a tree stay, with everything that a new host needs to
//! reach the present one.
//!
//! A release of the whole tree stands alone. A release of a part (a scope) changes the result of
//! the whole release before, so a new host needs this whole first and then the parts in order. A
//! part that a later part replaces completely is not needed.

mod known;
mod merge;
mod next;
mod replaced;

pub use merge::{Merged, Unmerged};
pub use next::{Arriving, Lacking, NextRelease};

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};

use self::known::KnownRelease;
use crate::error::Result;
use crate::id::Serial;
use crate::manifest::{Header, Release, ReleaseId, Rules};
use crate::tree::state::node_store::NodeStore;
use crate::tree::state::reader::StateReader;
use crate::tree::state::worktree::Worktree;
use crate::units::Limit;

/// Number of parts that stay without their whole release; no new host becomes complete by them.
const MAX_LOOSE: usize = 64;

/// Number of replaced parts whose records stay.
const MAX_REPLACED: usize = 64;

/// Releases of a tree that stay.
pub(crate) struct Staying {
    /// Releases whose records stay.
    pub(crate) records: BTreeSet<Serial>,
    /// Releases whose content stays as well.
    pub(crate) content: BTreeSet<Serial>,
    /// Oldest pinned release: what any release since replaced may belong to it, and stays.
    pub(crate) pinned_from: Option<Serial>,
}

impl Staying {
    /// Returns whether the content stays that the successor of `serial` replaced.
    pub(crate) fn has_content(&self, serial: Serial) -> bool {
        self.content.contains(&serial) || self.pinned_from.is_some_and(|from| from <= serial)
    }
}

/// Releases in the state of one tree, rising.
pub(crate) struct ReleaseHistory<'a> {
    nodes: &'a NodeStore,
    current: Option<Serial>,
    known: Vec<KnownRelease>,
    /// Releases with damaged files.
    damaged: Vec<Serial>,
    /// Pinned releases.
    pins: BTreeSet<Serial>,
    /// For each of `known`, whether a later part replaces it.
    replaced: OnceCell<Vec<bool>>,
}

impl<'a> ReleaseHistory<'a> {
    /// Releases that `tree` keeps.
    pub(crate) fn of(tree: &'a Worktree) -> Result<Self> {
        Self::read(&tree.state, tree.nodes())
    }

    fn read(records: &StateReader, nodes: &'a NodeStore) -> Result<Self> {
        let current = records.current()?.map(|mark| mark.serial);
        // A reverted release is no target for a rollback, and goes unless it is the present one.
        let stones: Vec<ReleaseId> = records
            .tombstones()?
            .iter()
            .filter(|b| b.stone.revert)
            .map(|b| b.stone.release)
            .collect();

        let mut known = Vec::new();
        let mut damaged = Vec::new();

        for serial in records.serials()? {
            match records.stored(serial) {
                Ok(Some(stored))
                    if Some(serial) != current && stones.contains(&stored.release.id()) => {}
                Ok(Some(stored)) => known.push(KnownRelease::new(stored.release)),
                Ok(None) => {}
                Err(_) => damaged.push(serial),
            }
        }

        Ok(Self {
            nodes,
            current,
            known,
            damaged,
            pins: pins(records)?,
            replaced: OnceCell::new(),
        })
    }

    /// Releases that stay if `keep` distinct ones are kept.
    pub(crate) fn staying(&self, keep: usize) -> Staying {
        let keep = keep.max(1);
        let mut content = self.newest(keep, |_| true);
        content.extend(self.newest(keep, KnownRelease::is_whole));
        content.extend(self.current);

        // Parts stay as long as their whole release, and as long as the tree has anything of them.
        let oldest = content
            .iter()
            .filter(|&&s| self.at(s).is_none_or(KnownRelease::is_whole))
            .min()
            .copied();

        let mut replaced = Vec::new();
        for (at, part) in self.known.iter().enumerate().filter(|(_, k)| !k.is_whole()) {
            let has_base = oldest.is_some_and(|oldest| oldest < part.serial());
            match self.is_replaced(at) {
                false if has_base || self.is_left(at) => drop(content.insert(part.serial())),
                true if has_base => replaced.push(part.serial()),
                _ => {}
            }
        }

        if oldest.is_none() {
            let loose: Vec<Serial> = content.iter().copied().collect();
            content = loose[loose.len().saturating_sub(MAX_LOOSE)..]
                .iter()
                .copied()
                .collect();
        }

        // Records show which releases a host had that was away since.
        let mut records = content.clone();

        records.extend(replaced.iter().rev().take(MAX_REPLACED));
        // A damaged file goes with the releases of its age.
        let first = records.first().copied();
        records.extend(
            self.damaged
                .iter()
                .filter(|&&serial| first.is_none_or(|first| serial > first)),
        );

        let known = self.known.iter().map(KnownRelease::serial);
        let pinned: Vec<Serial> = known.filter(|serial| self.pins.contains(serial)).collect();
        records.extend(&pinned);
        content.extend(&pinned);
        Staying {
            records,
            content,
            pinned_from: pinned.first().copied(),
        }
    }

    /// Parts for all hosts since the present whole release, see [`Worktree::parts`].
    pub(crate) fn parts(&self, most: usize) -> Vec<(Serial, bool)> {
        let upto = self.upto_present();
        let first = self.known[..upto]
            .iter()
            .rposition(KnownRelease::is_whole)
            .map_or(0, |base| base + 1);
        let for_all = (first..upto).filter(|&at| self.known[at].header().targets.is_empty());
        let parts: Vec<_> = for_all
            .map(|at| (self.known[at].serial(), self.is_replaced(at)))
            .collect();

        parts[parts.len().saturating_sub(most)..].to_vec()
    }

    /// Newest whole release up to the present one.
    pub(crate) fn base(&self) -> Option<&Header> {
        let upto = self
            .known
            .iter()
            .rev()
            .skip_while(|k| Some(k.serial()) > self.current);
        upto.filter(|k| k.is_whole())
            .map(KnownRelease::header)
            .next()
    }

    /// Releases before `serial` that shaped the tree, newest first: parts, and the whole release
    /// before them.
    pub(crate) fn before(&self, serial: Serial) -> Vec<&Release> {
        let mut found = Vec::new();
        for known in self.known.iter().rev().filter(|k| k.serial() <= serial) {
            found.push(&known.release);
            if known.is_whole() {
                break;
            }
        }

        found
    }

    /// Newest release of each content, the present one before a copy.
    fn newest(&self, keep: usize, counts: impl Fn(&KnownRelease) -> bool) -> BTreeSet<Serial> {
        let present = self
            .known
            .iter()
            .filter(|k| Some(k.serial()) == self.current);
        let newest = present.chain(self.known.iter().rev()).filter(|k| counts(k));
        let mut seen = HashSet::new();
        newest
            .filter(|k| seen.insert(k.content))
            .take(keep)
            .map(KnownRelease::serial)
            .collect()
    }

    fn at(&self, serial: Serial) -> Option<&KnownRelease> {
        self.known
            .binary_search_by_key(&serial, KnownRelease::serial)
            .ok()
            .map(|at| &self.known[at])
    }
}

/// Pinned releases; all releases if the pins cannot be read, since none of them may go then.
fn pins(records: &StateReader) -> Result<BTreeSet<Serial>> {
    records.pins().or_else(|e| {
        tracing::warn!("no release is removed: {e}");
        Ok(records.serials()?.into_iter().collect())
    })
}

/// Returns whether two parts with these rules treat shared paths in the same way.
fn alike(one: &Rules, other: &Rules) -> bool {
    let same = |rules: &Rules| Rules {
        delete_extras: false,
        delete_max: Limit::NONE,
        allow_empty: true,
        ..rules.clone()
    };
    same(one) == same(other)
}
