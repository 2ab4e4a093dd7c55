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

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::tombstones::Tombstones;
use crate::id::{InstanceId, Serial, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::members::Table;
use crate::units::{Moment, WallTime};
use crate::wire::message::{Pull, TreeState};

/// Wait before the first request for a release: its sender may be about to offer it.
const FIRST_REQUEST_DELAY: Duration = Duration::from_millis(1000);
/// Time for a requested member to offer the release.
const OFFER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a requested member to show the header.
const HEADER_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for which a verified header waits for the header of a newer release.
const NEWER_HEADER_WAIT: Duration = Duration::from_millis(100);
/// Initial pause after all members were asked without success; doubles each time.
const ROUND_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause between two rounds of requests.
const MAX_ROUND_PAUSE: Duration = Duration::from_secs(120);
/// Unsuccessful requests for one release before other releases get their turn.
const MAX_FAILED_REQUESTS: u32 = 4;

/// Wait before the first request for a release that members claim was reverted, pending proof.
const DOUBTED_REQUEST_DELAY: Duration = Duration::from_secs(5);
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
    rng: fastrand::Rng,
}

/// A claimed release. Of two with the same serial the later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    serial: Serial,
    created: Option<WallTime>,
    release: ReleaseId,
}

impl Candidate {
    /// Describes an offered release.
    pub(super) fn of(release: &Release) -> Self {
        let header = release.header();
        Self {
            serial: header.serial,
            created: Some(header.created),
            release: release.id(),
        }
    }

    /// Returns true if the claim matches `release`.
    fn matches(&self, release: &Release) -> bool {
        let actual = Self::of(release);
        *self
            == Self {
                created: self.created.and(actual.created),
                ..actual
            }
    }

    /// Describes the release in a host's beacon.
    fn in_beacon(state: &TreeState) -> Option<Self> {
        Some(Self {
            serial: state.running?,
            created: state.created,
            release: state.release?,
        })
    }
}

/// One missing release.
#[derive(Debug)]
struct MissingRelease {
    candidate: Candidate,
    /// Local serial at the time the release was found missing.
    have: Option<Serial>,
    /// Members asked in the current round.
    asked: BTreeSet<InstanceId>,
    /// Member asked last.
    last_asked: Option<InstanceId>,
    /// Members that brought no release on the way to this one; asked after all others.
    unhelpful: BTreeSet<InstanceId>,
    /// Due time of the next request.
    due: Moment,
    /// Pause after the current round.
    pause: Duration,
    /// All members were asked without success.
    exhausted: bool,
    header: HeaderState,
    /// End of the wait for an offer.
    awaited: Option<Moment>,
    /// Unsuccessful requests while other releases waited for their turn.
    failed: u32,
}

/// Verification state of a release header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderState {
    /// Not received yet, or only with an invalid signature.
    Unseen,
    /// The signature check is pending.
    Checking,
    /// Signed by an authorized key.
    Verified,
}

impl MissingReleases {
    pub(super) fn new(trees: BTreeSet<TreeName>, seed: u64) -> Self {
        Self {
            trees,
            repairs: BTreeSet::new(),
            open: BTreeMap::new(),
            unfit: BTreeMap::new(),
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

    /// Returns true if this host, in state `own`, takes a catch-up offer of `candidate`.
    pub(super) fn wants(
        &self,
        own: &TreeState,
        candidate: &Candidate,
        tombstones: &Tombstones,
    ) -> bool {
        if self.repairs.contains(&own.tree) && own.release == Some(candidate.release) {
            return !tombstones.is_reverted(&own.tree, candidate.release);
        }

        if !self.trees.contains(&own.tree) || tombstones.of(&own.tree, candidate.release).is_some()
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

        for state in own {
            let lacking = self.lacking(state, me, members, tombstones);
            self.retain(&state.tree, &lacking);

            // Wait for one offer at a time.
            let mut awaited = self.awaited(now, &state.tree);

            for (candidate, doubted) in lacking {
                let fresh = || MissingRelease::new(now, candidate, state, jitter, doubted);
                let open = self
                    .open
                    .entry((state.tree.clone(), candidate))
                    .or_insert_with(fresh);

                if open.have != state.running {
                    // The preceding release has arrived, so the next one follows at once.
                    *open = MissingRelease {
                        due: now,
                        header: open.header,
                        unhelpful: open.unhelpful_members(),
                        ..fresh()
                    };
                }

                if busy(&state.tree) {
                    // If the session ends without the release, ask another member.
                    open.due = open.due.max(now + FIRST_REQUEST_DELAY);
                    open.awaited = None;
                } else if open.is_verified()
                    && let Some(until) = awaited.filter(|until| *until > open.due)
                {
                    open.due = until;
                } else if open.due <= now
                    && let Some(pull) = open.ask(now, state, me, members, jitter)
                {
                    awaited = open.awaited.or(awaited);
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
            .filter_map(|(_, open)| open.awaited.filter(|until| *until > now))
            .max()
    }

    /// Returns true if the header of `release` is requested.
    pub(super) fn is_requested(&self, release: ReleaseId) -> bool {
        self.open
            .values()
            .any(|open| open.candidate.release == release && open.header == HeaderState::Unseen)
    }

    /// Handles the header of `release`. Returns true if its signature is to be checked.
    pub(super) fn on_header(&mut self, release: &Release) -> bool {
        let tree = &release.header().tree;
        let open = self
            .open
            .iter_mut()
            .filter(|((of, candidate), _)| of == tree && candidate.matches(release));
        let unseen = open
            .map(|(_, open)| open)
            .filter(|open| open.header == HeaderState::Unseen);
        unseen
            .map(|open| open.header = HeaderState::Checking)
            .count()
            > 0
    }

    /// Handles the result of a header's signature check.
    pub(super) fn on_header_checked(&mut self, now: Moment, release: ReleaseId, holds: bool) {
        let jitter = self.rng.f64();
        let checking = |open: &&mut MissingRelease| {
            open.candidate.release == release && open.header == HeaderState::Checking
        };

        for open in self.open.values_mut().filter(checking) {
            if !holds {
                // Another member may send a valid header.
                open.header = HeaderState::Unseen;
                continue;
            }
            open.header = HeaderState::Verified;
            open.asked.clear();
            open.last_asked = None;
            open.exhausted = false;
            open.pause = ROUND_PAUSE;
            open.due = now + NEWER_HEADER_WAIT.mul_f64(1.0 + jitter);
        }
    }

    /// Returns the due time of the next request.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.open.values().map(|open| open.due).min()
    }

    /// Returns the releases to pursue for a tree, newest first, or its own release if the tree
    /// needs a repair. The flag is true if members claim a revert of the release.
    fn lacking(
        &self,
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
                None if self.wants(own, &other, tombstones)
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
            .partition(|(other, _)| open(other).is_some_and(|open| open.exhausted));
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

impl MissingRelease {
    fn new(now: Moment, candidate: Candidate, own: &TreeState, jitter: f64, doubted: bool) -> Self {
        let wait = if doubted {
            DOUBTED_REQUEST_DELAY
        } else {
            FIRST_REQUEST_DELAY
        };

        // The header of the host's own release, under repair, is known.
        let is_own = own.release == Some(candidate.release);

        Self {
            candidate,
            have: own.running,
            asked: BTreeSet::new(),
            last_asked: None,
            unhelpful: BTreeSet::new(),
            due: now + wait.mul_f64(1.0 + jitter / 4.0),
            pause: ROUND_PAUSE,
            exhausted: false,
            header: if is_own {
                HeaderState::Verified
            } else {
                HeaderState::Unseen
            },
            awaited: None,
            failed: 0,
        }
    }

    fn is_verified(&self) -> bool {
        self.header == HeaderState::Verified
    }

    /// Returns the members to ask last for the next release on the way to this one.
    ///
    /// A member may lack content of older releases, and each request to it costs seconds.
    fn unhelpful_members(&mut self) -> BTreeSet<InstanceId> {
        let mut unhelpful = std::mem::take(&mut self.unhelpful);
        if self.is_verified() {
            unhelpful.append(&mut self.asked);
        }

        // The member asked last brought the release that has just arrived.
        if let Some(helpful) = self.last_asked {
            unhelpful.remove(&helpful);
        }

        unhelpful
    }

    /// Requests the header, or the release once its header is verified, from the next member.
    fn ask(
        &mut self,
        now: Moment,
        own: &TreeState,
        me: InstanceId,
        members: &Table,
        jitter: f64,
    ) -> Option<(SocketAddr, Pull)> {
        if self.failed >= MAX_FAILED_REQUESTS {
            // The claims may be false: let an older release with a real holder have its turn.
            self.failed = 0;
            self.awaited = None;
            self.due = now + ROUND_PAUSE.mul_f64(0.75 + jitter / 2.0);
            return None;
        }

        let release = self.candidate.release;
        let has = |t: &TreeState| {
            t.tree == own.tree
                && Candidate::in_beacon(t) == Some(self.candidate)
                && t.unhealthy != Some(true)
        };

        let left: Vec<_> = members
            .candidates()
            .filter(|(id, m)| **id != me && m.hello.trees.iter().any(has))
            .filter(|(id, _)| !self.asked.contains(*id))
            .collect();
        let (unhelpful, helpful): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|(id, _)| self.unhelpful.contains(*id));
        let left = if helpful.is_empty() {
            unhelpful
        } else {
            helpful
        }
        .into_iter();

        // Alternate between three orders, because each can be gamed: by choosing ids, by answering
        // early, or by claiming many ids.
        let next = match self.asked.len() % 3 {
            0 => left.min_by_key(|(id, _)| rank(release, **id)),
            1 => left.min_by_key(|(id, m)| (m.since, rank(release, **id))),
            _ => {
                let of_address: BTreeMap<IpAddr, _> =
                    left.map(|member| (member.1.address.ip(), member)).collect();
                let at = (jitter * of_address.len() as f64) as usize;
                of_address.into_values().nth(at)
            }
        };

        self.exhausted = next.is_none();
        let Some((&id, member)) = next else {
            self.asked.clear();
            self.awaited = None;
            self.due = now + self.pause.mul_f64(0.75 + jitter / 2.0);
            self.pause = (self.pause * 2).min(MAX_ROUND_PAUSE);
            return None;
        };

        self.asked.insert(id);
        self.last_asked = Some(id);
        let verified = self.is_verified();
        self.due = now
            + if verified {
                OFFER_TIMEOUT
            } else {
                HEADER_TIMEOUT
            };
        self.awaited = verified.then_some(self.due);
        self.failed += u32::from(verified);
        let pull = Pull {
            tree: own.tree.clone(),
            release,
            have: own.running.unwrap_or_default(),
            base: own.base,
            host: None,
            header: (!verified).then_some(true),
        };

        Some((member.address, pull))
    }
}

/// Position of a member in the order in which hosts ask for a release.
fn rank(release: ReleaseId, member: InstanceId) -> [u8; 32] {
    Sha256::new()
        .chain_update(release.0.0)
        .chain_update(member.0.to_be_bytes())
        .finalize()
        .into()
}

#[cfg(test)]
mod tests;
