//! Walks the host's entries and the release's side by side in the order of paths, and plans the
//! change of each path (in `path`) and of the root directory.

mod path;

use std::cmp::Ordering;
use std::sync::Arc;

use super::dir_times::DirTimes;
use super::links::HardLinks;
use super::metadata::EntryMetadata;
use super::permitted::{Governed, Guard, Owners};
use super::reuse::Needed;
use super::{Delta, HostRules, LocalOwner, Plan, Refusal, TopChange, Want};
use crate::manifest::read::Located;
use crate::manifest::rules::PathFilter;
use crate::manifest::{Entry, Owner, Rules, Top, TreePath};

/// State of a walk at one path.
pub(super) struct Walk<'a> {
    rules: &'a Rules,
    want: &'a dyn Want,
    governed: Governed<'a>,
    owners: Owners<'a>,
    host_guard: Guard<'a>,
    want_guard: Guard<'a>,
    plan: Plan,
    needed: Needed,
    /// Extra directories that enclose the present path, with the positions of their changes.
    leaving: Vec<(TreePath, usize)>,
    /// Directory replaced by another kind of entry.
    replaced: Option<TreePath>,
    times: DirTimes,
    links: HardLinks,
    /// Number of entries of the release within the scope.
    wanted: u64,
}

/// Result of a walk.
pub(super) struct Walked {
    /// Changes, without their totals and blocks.
    pub(super) plan: Plan,
    /// Blocks of created files.
    pub(super) needed: Needed,
    /// Number of entries of the release within the scope.
    pub(super) wanted: u64,
    pub(super) findings: Findings,
}

/// Findings of a comparison besides the differences.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    /// Owners in the release, with their numbers on this host.
    pub(super) owners: Vec<(Arc<Owner>, LocalOwner)>,
    /// True if either side has hard links.
    pub(super) links: bool,
    /// Directories with a differing mtime that does not count.
    pub(super) ignored_times: Vec<TreePath>,
}

impl<'a> Walk<'a> {
    /// Creates a walk before the first path.
    pub(super) fn new(
        want: &'a dyn Want,
        rules: &'a Rules,
        scope: &'a [TreePath],
        host: &HostRules<'a>,
        excluded: &'a PathFilter,
    ) -> Self {
        Self {
            rules,
            want,
            governed: Governed::new(scope, host, excluded),
            owners: Owners::new(rules, host.owners),
            host_guard: Guard::new(host, excluded),
            want_guard: Guard::new(host, excluded),
            plan: Plan::empty(rules),
            needed: Needed::default(),
            leaving: Vec::new(),
            replaced: None,
            times: DirTimes::default(),
            links: HardLinks::default(),
            wanted: 0,
        }
    }

    /// Starts at a path in the middle; everything above is known to be equal on both sides.
    pub(super) fn enter(&mut self, path: &TreePath) {
        let mut above: Vec<TreePath> =
            std::iter::successors(path.parent(), TreePath::parent).collect();
        while let Some(dir) = above.pop() {
            self.host_guard.covers(&dir, true);
            self.want_guard.covers(&dir, true);
        }
    }

    /// Compares all entries of both sides.
    pub(super) fn join(
        &mut self,
        mut ours: impl Iterator<Item = crate::Result<Entry>>,
        mut theirs: impl Iterator<Item = crate::Result<Located>>,
    ) -> Result<(), Refusal> {
        let mut h = ours.next().transpose()?;
        let mut w = theirs.next().transpose()?;
        loop {
            let order = match (&h, &w) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(h), Some(w)) => h.path.cmp(&w.entry.path),
            };

            let host = if order.is_le() { h.take() } else { None };
            let release = if order.is_ge() { w.take() } else { None };
            self.compare(host, release)?;

            if order.is_le() {
                h = ours.next().transpose()?;
            }
            if order.is_ge() {
                w = theirs.next().transpose()?;
            }
        }
    }

    /// Sets the totals of a walk over everything, after one over parts.
    pub(super) fn set_totals(&mut self, host_entries: u64, wanted: u64) {
        self.plan.summary.host_entries = host_entries;
        self.wanted = wanted;
    }

    /// Compares the root directory with the host's, `top`, and ends the walk.
    pub(super) fn finish(mut self, top: Option<&Top>) -> Result<Walked, Refusal> {
        self.links.check_targets(self.want)?;
        self.compare_top(top)?;
        let ignored_times = self
            .times
            .drop_from(&mut self.plan.changes, &mut self.plan.further);

        Ok(Walked {
            plan: self.plan,
            needed: self.needed,
            wanted: self.wanted,
            findings: Findings {
                owners: self.owners.known(),
                links: self.links.are_met(),
                ignored_times,
            },
        })
    }

    /// Compares the entries of one path.
    fn compare(&mut self, host: Option<Entry>, release: Option<Located>) -> Result<(), Refusal> {
        if let Some(host) = &host {
            self.links.note_host(host);
        }
        if let Some(release) = &release {
            self.links.note_release(&release.entry);
        }

        match (host, release) {
            (Some(host), Some(release)) => self.both(&host, release),
            (Some(host), None) => self.extra(&host),
            (None, Some(release)) => self.missing(release),
            (None, None) => Ok(()),
        }
    }

    /// Compares the root directory, which only a release of the whole tree governs.
    fn compare_top(&mut self, have: Option<&Top>) -> Result<(), Refusal> {
        let is_whole = self.governed.is_whole();
        let (Some(have), Some(want), true) = (have, self.want.top(), is_whole) else {
            return Ok(());
        };

        let owner = self
            .owners
            .local_at(&Arc::new(want.owner.clone()), &TopChange::PATH)?;
        let mut delta =
            EntryMetadata::from(have).differences(want.into(), false, owner, self.rules);
        if delta.is_mtime_only()
            && !self.times.changes_root()
            && !self.governed.has_all_names_in(None)
        {
            delta = Delta::default();
        }

        self.plan.top = Some(TopChange {
            want: want.clone(),
            delta,
            owner,
        });

        Ok(())
    }
}
