//! Finds releases this host missed and requests them from the members that have them, one member at
//! a time.
//!
//! Beacons are not trusted. The host first requests the header of each claimed release, several
//! releases in parallel, so an unsupported claim delays nothing. It then requests the newest
//! release with a verified header from one member at a time, and the next newest if no member
//! offers it.
//!
//! The first member to ask follows from the release and the members alone. Hosts that missed the
//! same release ask the same member, which shows the header and serves the release to all of them
//! at once.

mod candidate;
mod missing;
mod resting;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

pub use candidate::Candidate;
use missing::MissingRelease;
use resting::RestingReleases;
pub use resting::failure_pause;

use super::tombstones::Tombstones;
use crate::id::{InstanceId, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::message::{Pull, TreeState};

/// Largest number of releases per tree with a pending header request, apart from resting ones.
const MAX_PENDING_HEADERS: usize = 16;
/// Largest number of releases per tree with a verified header; the newest are kept.
const MAX_VERIFIED_HEADERS: usize = 64;
/// Largest number of resting releases per tree.
const MAX_RESTING_RELEASES: usize = 1024;
/// Largest number of releases per tree known to target other hosts.
const MAX_UNFIT_RELEASES: usize = 64;

/// Missing releases of all trees.
#[derive(Debug)]
pub(super) struct MissingReleases {
    /// Trees that catch up.
    trees: BTreeSet<TreeName>,
    /// Trees to restore to the content of their current release.
    repairs: BTreeSet<TreeName>,
    /// Candidates by claim, because two members may make different claims about one release.
    open: BTreeMap<(TreeName, Candidate), MissingRelease>,
    /// Releases that target other hosts.
    unfit: BTreeMap<TreeName, BTreeSet<ReleaseId>>,
    resting: RestingReleases,
    rng: fastrand::Rng,
}

impl MissingReleases {
    pub(super) fn new(trees: BTreeSet<TreeName>, seed: u64) -> Self {
        Self {
            trees,
            repairs: BTreeSet::new(),
            open: BTreeMap::new(),
            unfit: BTreeMap::new(),
            resting: RestingReleases::default(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Starts to catch up on `tree`.
    pub(super) fn catch_up(&mut self, tree: TreeName) {
        self.trees.insert(tree);
    }

    /// Starts the repair of a drifted tree.
    pub(super) fn repair(&mut self, tree: TreeName) {
        self.repairs.insert(tree);
    }

    /// Ends the repair of a tree; any remaining drift will be found again.
    pub(super) fn end_repair(&mut self, tree: &TreeName) {
        self.repairs.remove(tree);
    }

    /// Lets `release` rest: it could not be put in place.
    pub(super) fn rest(
        &mut self,
        now: Moment,
        tree: TreeName,
        release: ReleaseId,
        pause: Duration,
    ) {
        self.resting.add(now, tree, release, pause);
    }

    /// Ends the pauses of all releases of `tree`, and asks for them anew.
    pub(super) fn resume(&mut self, tree: &TreeName) {
        self.resting.resume(tree);
        self.open.retain(|(of, _), _| of != tree);
    }

    /// Returns true if this host, in state `own`, takes a catch-up offer of `candidate`.
    pub(super) fn wants(
        &self,
        now: Moment,
        own: &TreeState,
        candidate: &Candidate,
        tombstones: &Tombstones,
    ) -> bool {
        if self.repairs.contains(&own.tree) && own.release == Some(candidate.release) {
            return !tombstones.is_reverted(&own.tree, candidate.release);
        }

        if !self.trees.contains(&own.tree)
            || tombstones.of(&own.tree, candidate.release).is_some()
            || self.resting.has(now, &own.tree, candidate.release)
        {
            return false;
        }

        // Of two releases with one serial the later one wins.
        let twin = Candidate::in_beacon(own).is_some_and(|own| {
            own.serial == candidate.serial
                && own.created.is_some()
                && own.release != candidate.release
                && own < *candidate
        });

        // A reverted release gives way to any release of the other hosts.
        let back = own
            .release
            .is_some_and(|release| tombstones.is_reverted(&own.tree, release));

        candidate.serial > own.serial || twin || (back && Some(candidate.serial) <= own.running)
    }

    /// Excludes a release that targets other hosts.
    pub(super) fn mark_unfit(&mut self, tree: &TreeName, release: ReleaseId) {
        let unfit = self.unfit.entry(tree.clone()).or_default();
        if unfit.len() >= MAX_UNFIT_RELEASES {
            unfit.clear();
        }
        unfit.insert(release);
    }

    /// Returns the due requests and their destinations. `busy` returns true if a session works on a
    /// tree.
    pub(super) fn poll(
        &mut self,
        now: Moment,
        own: &[TreeState],
        me: InstanceId,
        members: &Table,
        tombstones: &Tombstones,
        busy: impl Fn(&TreeName) -> bool,
    ) -> Vec<(SocketAddr, Pull)> {
        let jitter = self.rng.f64();
        let mut out = Vec::new();
        self.resting.expire(now);

        for state in own {
            let lacking = self.lacking(now, state, me, members, tombstones);
            self.retain(&state.tree, &lacking);

            // Wait for one offer at a time.
            let mut awaited = self.awaited(now, &state.tree);

            for (candidate, doubted) in lacking {
                let fresh = || MissingRelease::new(now, candidate, state, jitter, doubted);
                let open = self
                    .open
                    .entry((state.tree.clone(), candidate))
                    .or_insert_with(fresh);

                open.follow(now, fresh());

                if busy(&state.tree) {
                    open.wait_for_session(now);
                    continue;
                }

                let waits = awaited.is_some_and(|until| open.wait_for_offer(until));
                if !waits
                    && open.due() <= now
                    && let Some(pull) = open.ask(now, state, me, members, jitter)
                {
                    awaited = open.awaited(now).or(awaited);
                    out.push(pull);
                }
            }
        }

        out
    }

    /// Drops the releases of `tree` that are no longer missing.
    fn retain(&mut self, tree: &TreeName, lacking: &[(Candidate, bool)]) {
        let lacking: BTreeSet<Candidate> =
            lacking.iter().map(|(candidate, _)| *candidate).collect();
        self.open
            .retain(|(of, candidate), _| of != tree || lacking.contains(candidate));
    }

    /// Returns the end of the wait for an offer of any release of `tree`.
    fn awaited(&self, now: Moment, tree: &TreeName) -> Option<Moment> {
        self.open
            .iter()
            .filter(|((of, _), _)| of == tree)
            .filter_map(|(_, open)| open.awaited(now))
            .max()
    }

    /// Returns true if the header of `release` is requested.
    pub(super) fn is_requested(&self, release: ReleaseId) -> bool {
        self.open.values().any(|open| open.requests(release))
    }

    /// Handles the header of `release`. Returns true if its signature is to be checked.
    pub(super) fn on_header(&mut self, release: &Release) -> bool {
        let tree = &release.header().tree;
        self.open
            .iter_mut()
            .filter(|((of, _), _)| of == tree)
            .map(|(_, open)| open.on_header(release))
            .fold(false, |any, takes| any | takes)
    }

    /// Handles the result of a header's signature check.
    pub(super) fn on_header_checked(&mut self, now: Moment, release: ReleaseId, holds: bool) {
        let jitter = self.rng.f64();
        for open in self.open.values_mut() {
            open.on_header_checked(now, release, holds, jitter);
        }
    }

    /// Forgets which releases are for other hosts: this one may be selected now.
    pub(super) fn forget_unfit(&mut self) {
        self.unfit.clear();
    }

    /// Returns the due time of the next request, or the end of the next pause.
    pub(super) fn timeout(&self) -> Option<Moment> {
        let requests = self.open.values().map(MissingRelease::due);
        requests.chain(self.resting.timeout()).min()
    }

    /// Returns the releases to pursue for a tree, newest first, or its own release if the tree
    /// needs a repair. The flag is true if members claim a revert of the release.
    fn lacking(
        &self,
        now: Moment,
        own: &TreeState,
        me: InstanceId,
        members: &Table,
        tombstones: &Tombstones,
    ) -> Vec<(Candidate, bool)> {
        let there = members.candidates().filter(|(id, _)| **id != me);
        let unfit = self.unfit.get(&own.tree);
        let mut candidates = BTreeMap::new();
        let mut doubted = BTreeSet::new();
        for (state, since) in
            there.flat_map(|(_, m)| m.hello.trees.iter().map(|tree| (tree, m.since)))
        {
            if state.tree != own.tree {
                continue;
            }
            doubted.extend(state.tombstones.iter().flatten().map(|stone| stone.release));
            let Some(other) = Candidate::in_beacon(state).filter(|_| state.unhealthy != Some(true))
            else {
                continue;
            };
            // Most members have the same release.
            match candidates.get_mut(&other) {
                Some(known) => *known = since.min(*known),
                None if self.wants(now, own, &other, tombstones)
                    && unfit.is_none_or(|unfit| !unfit.contains(&other.release)) =>
                {
                    candidates.insert(other, since);
                }
                None => {}
            }
        }

        let open = |other: &Candidate| self.open.get(&(own.tree.clone(), *other));

        let (verified, unseen): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .partition(|(other, _)| open(other).is_some_and(MissingRelease::is_verified));
        let (exhausted, mut pursued): (Vec<_>, Vec<_>) = unseen
            .into_iter()
            .partition(|(other, _)| open(other).is_some_and(MissingRelease::is_exhausted));
        pursued.sort_by_key(|(other, since)| (*since, Reverse(*other)));

        pursued.truncate(MAX_PENDING_HEADERS);
        pursued.extend(exhausted.into_iter().take(MAX_RESTING_RELEASES));
        pursued.extend(verified.into_iter().rev().take(MAX_VERIFIED_HEADERS));
        pursued.sort_by_key(|(other, _)| Reverse(*other));

        pursued
            .into_iter()
            .map(|(other, _)| (other, doubted.contains(&other.release)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
