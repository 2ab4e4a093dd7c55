//! Retention: the newest distinct releases of a tree stay, with everything that a new host needs to
//! reach the present one.
//!
//! A release of the whole tree stands alone. A release of a part (a scope) changes the result of
//! the whole release before, so a new host needs this whole first and then the parts in order. A
//! part that a later part replaces completely is not needed.

mod merge;

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};

pub use merge::{Merged, Unmerged};

use crate::block::BlockHash;
use crate::error::Result;
use crate::id::{HostName, Serial};
use crate::manifest::pages::Pages;
use crate::manifest::read::{Manifest, ReadError};
use crate::manifest::rules::Exclude;
use crate::manifest::{EntryKind, Header, Release, ReleaseId, Rules, TreePath};
use crate::proto::receiver::is_target;
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
}

/// Next release for a host that lacks the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextRelease {
    /// This release. A part is valid only for hosts that run the release `follows`.
    Release {
        /// Serial.
        serial: Serial,
        /// Release that the host must run.
        follows: Option<Serial>,
        /// Whether other hosts may need an earlier part that this host does not.
        alone: bool,
    },
    /// The present release is a part, and its whole release is not kept.
    NoWhole,
    /// The present release is a part, and the host's release is unknown.
    Unknown,
    /// There is no release.
    Nothing,
}

/// A host that lacks the present release.
#[derive(Debug, Clone, Copy)]
pub struct Lacking<'a> {
    /// Release of the host; 0 is none.
    pub have: Serial,
    /// Whole release of the host's part, if it runs a part.
    pub base: Option<Serial>,
    /// Name of the host, if known.
    pub host: Option<&'a HostName>,
}

impl Lacking<'_> {
    /// Returns whether the release `known` is meant for this host.
    fn is_target(&self, known: &KnownRelease) -> bool {
        self.host.is_none_or(|host| is_target(&known.release, host))
    }
}

/// Hosts that have to catch up before they take a part of the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arriving {
    /// Oldest release among these hosts; 0 is none.
    pub oldest: Option<Serial>,
    /// Newest release that was for all hosts: a host with an older one lacks it.
    pub needed: Serial,
}

/// Releases in the state of one tree, rising.
pub(crate) struct ReleaseHistory<'a> {
    nodes: &'a NodeStore,
    current: Option<Serial>,
    known: Vec<KnownRelease>,
    /// Releases with damaged files.
    damaged: Vec<Serial>,
    /// For each of `known`, whether a later part replaces it.
    replaced: OnceCell<Vec<bool>>,
}

/// One release with cached facts.
struct KnownRelease {
    release: Release,
    content: BlockHash,
    paths: OnceCell<Option<Paths>>,
    pages: OnceCell<Option<Pages>>,
}

/// Paths of a release.
struct Paths {
    all: HashSet<TreePath>,
    /// Paths that are no directories.
    files: Vec<TreePath>,
}

impl KnownRelease {
    fn new(release: Release) -> Self {
        let content = release.header().content();
        Self {
            release,
            content,
            paths: OnceCell::new(),
            pages: OnceCell::new(),
        }
    }

    fn header(&self) -> &Header {
        self.release.header()
    }

    fn serial(&self) -> Serial {
        self.header().serial
    }

    fn is_whole(&self) -> bool {
        self.header().is_whole()
    }
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

        Staying { records, content }
    }

    /// Next release for a host on its way to the present one. Skips parts for other hosts.
    pub(crate) fn next_for(&self, host: Lacking<'_>) -> NextRelease {
        let Some(present) = self.current else {
            return NextRelease::Nothing;
        };

        let base = self.base_for(host);
        let Some((next, skips)) = self.next_needed(host) else {
            return NextRelease::Release {
                serial: present,
                follows: None,
                alone: false,
            };
        };

        let serial = self.known[next].serial();

        // A part follows only the release that it followed here.
        let of_this_base = base.is_some_and(|base| host.base == Some(self.known[base].serial()));

        match base {
            Some(base) if next <= base => NextRelease::Release {
                serial,
                follows: None,
                alone: false,
            },
            _ if self.at(host.have).is_some() => NextRelease::Release {
                serial,
                follows: Some(host.have),
                alone: skips,
            },
            // The host's other parts of the same whole release were not for this host.
            Some(_) if of_this_base => NextRelease::Release {
                serial,
                follows: Some(host.have),
                alone: true,
            },
            Some(_) => NextRelease::Unknown,
            None => NextRelease::NoWhole,
        }
    }

    /// Finds those of `hosts` that lack a release meant for them.
    pub(crate) fn arriving<'h>(&self, hosts: impl IntoIterator<Item = Lacking<'h>>) -> Arriving {
        let lacking = hosts
            .into_iter()
            .filter(|host| self.next_needed(*host).is_some());
        let for_all = self.known[..self.upto_present()]
            .iter()
            .rev()
            .find(|known| known.header().targets.is_empty());
        Arriving {
            oldest: lacking.map(|host| host.have).min(),
            needed: for_all.map(KnownRelease::serial).unwrap_or_default(),
        }
    }

    /// Number of releases up to the present one.
    fn upto_present(&self) -> usize {
        self.known
            .iter()
            .take_while(|k| Some(k.serial()) <= self.current)
            .count()
    }

    /// Last release of the whole tree for `host`.
    fn base_for(&self, host: Lacking<'_>) -> Option<usize> {
        self.known[..self.upto_present()]
            .iter()
            .rposition(|k| k.is_whole() && host.is_target(k))
    }

    /// First release that `host` lacks and needs, and whether earlier parts for other hosts are
    /// skipped.
    fn next_needed(&self, host: Lacking<'_>) -> Option<(usize, bool)> {
        let upto = self.upto_present();
        let base = self.base_for(host);
        let is_needed = |at: usize| match base {
            Some(base) if at <= base => {
                at == base || (!self.known[at].is_whole() && self.is_left(at))
            }
            _ => Some(at) == base || !self.known[at].is_whole(),
        };

        let after = (0..upto).filter(|&at| self.known[at].serial() > host.have);

        let mut needed =
            after.filter(|&at| is_needed(at) && (Some(at) == base || !self.is_replaced(at)));
        let mut skips = false;
        let next = needed.find(|&at| {
            let is_for_it = host.is_target(&self.known[at]);
            skips |= !is_for_it;
            is_for_it
        })?;

        Some((next, skips))
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

    /// Returns whether the tree still has anything of the part `at`: no whole release followed, or
    /// only one that excludes its paths.
    fn is_left(&self, at: usize) -> bool {
        let mut wholes = self.known[at + 1..]
            .iter()
            .filter(|k| k.is_whole())
            .peekable();
        if wholes.peek().is_none() {
            return true;
        }

        let Some(paths) = self.paths(&self.known[at]) else {
            return false;
        };

        wholes.all(|whole| {
            let rules = &whole.header().rules;
            let excluded = rules.excluded().ok().filter(|_| !rules.delete_excluded);
            excluded
                .is_some_and(|filter| paths.files.iter().any(|path| filter.matches(path, false)))
        })
    }

    /// Returns whether a later part replaces the part `at`.
    fn is_replaced(&self, at: usize) -> bool {
        self.replaced
            .get_or_init(|| self.replaced_of(&self.known.iter().collect::<Vec<_>>()))[at]
    }

    /// Finds the releases that a later part replaces. Parts in between that stay must not lose its
    /// effect.
    fn replaced_of(&self, known: &[&KnownRelease]) -> Vec<bool> {
        let mut replaced = vec![false; known.len()];
        for at in (0..known.len()).rev().filter(|&at| !known[at].is_whole()) {
            let part = known[at];
            for later in at + 1..known.len() {
                if !known[later].is_whole() && self.replaces(known[later], part) {
                    replaced[at] = true;
                    break;
                }
                if !replaced[later] && meet(known[later].header(), part.header()) {
                    break;
                }
            }
        }

        replaced
    }

    fn replaces(&self, later: &KnownRelease, part: &KnownRelease) -> bool {
        let new = later.header();
        let old = part.header();
        let within = |path: &TreePath| {
            new.scope.is_empty() || new.scope.iter().any(|scope| path.is_within(scope))
        };

        let covers =
            new.scope.is_empty() || (!old.scope.is_empty() && old.scope.iter().all(within));
        let reaches = new.targets.is_empty() || new.targets == old.targets;
        if !covers || !reaches || !alike(&in_scope(new, &old.scope), &in_scope(old, &old.scope)) {
            return false;
        }

        if old.rules.delete_extras && !new.rules.delete_extras {
            return false;
        }

        if new.rules.delete_extras {
            // All that remains of the part are directories above its scope.
            let above = old
                .scope
                .iter()
                .flat_map(|path| std::iter::successors(path.parent(), TreePath::parent));
            return above.filter(|dir| !within(dir)).all(|dir| {
                self.has(part, &dir) == Some(false) || self.has(later, &dir) == Some(true)
            });
        }

        match (self.paths(later), self.paths(part)) {
            (Some(new), Some(old)) => old.all.is_subset(&new.all),
            _ => false,
        }
    }

    /// Returns whether a release has the path; `None` if its manifest is unreadable.
    fn has(&self, known: &KnownRelease, path: &TreePath) -> Option<bool> {
        let manifest = Manifest::of(known.header(), self.nodes);
        let pages = known
            .pages
            .get_or_init(|| Pages::of(&manifest).ok())
            .as_ref()?;
        Some(pages.find(&manifest, path).ok()?.is_some())
    }

    /// Paths of a release; `None` if its manifest is unreadable.
    fn paths<'k>(&self, known: &'k KnownRelease) -> Option<&'k Paths> {
        let read = || -> Result<Paths, ReadError> {
            let manifest = Manifest::of(known.header(), self.nodes);
            let mut paths = Paths {
                all: HashSet::new(),
                files: Vec::new(),
            };
            for located in manifest.entries() {
                let entry = located?.entry;
                if !matches!(entry.kind, EntryKind::Directory) {
                    paths.files.push(entry.path.clone());
                }
                paths.all.insert(entry.path);
            }
            Ok(paths)
        };

        known.paths.get_or_init(|| read().ok()).as_ref()
    }

    fn at(&self, serial: Serial) -> Option<&KnownRelease> {
        self.known
            .binary_search_by_key(&serial, KnownRelease::serial)
            .ok()
            .map(|at| &self.known[at])
    }
}

/// Returns whether the scopes of both releases overlap.
fn meet(one: &Header, other: &Header) -> bool {
    let meets = |a: &TreePath| other.scope.iter().any(|b| a.is_within(b) || b.is_within(a));
    one.scope.is_empty() || other.scope.is_empty() || one.scope.iter().any(meets)
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

/// Rules of a release that concern paths in `scope`; patterns of its directories come last.
fn in_scope(header: &Header, scope: &[TreePath]) -> Rules {
    let is_own = |base: &TreePath| scope.iter().any(|path| base.is_within(path));
    let leads = |base: &TreePath| scope.is_empty() || scope.iter().any(|path| path.is_within(base));
    let of = |own: bool| {
        let speaks = move |exclude: &&Exclude| match &exclude.base {
            Some(base) if is_own(base) => own,
            Some(base) => !own && leads(base),
            None => !own,
        };
        header.rules.excludes.iter().filter(speaks)
    };

    Rules {
        excludes: of(false).chain(of(true)).cloned().collect(),
        ..header.rules.clone()
    }
}
