//! Releases of this host and of the fleet: missing here, offered or shown to other hosts, or buried
//! by a tombstone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::catch_up::{Candidate, MissingReleases};
use super::disk::DiskRequest;
use super::headers::{HeaderAnswer, Headers};
use super::open_orders::OpenOrders;
use super::setup::HostTrees;
use super::tombstones::Tombstones;
use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, TreeName};
use crate::manifest::{Release, ReleaseId};
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Announce, Pull, SignedOrder, TreeState};
use crate::wire::query::ReleaseBytes;

/// Delay between a beacon and the next look at the members' releases.
const MEMBER_CHECK_DELAY: Duration = Duration::from_millis(500);
/// Largest number of queued requests for releases by other hosts.
const MAX_QUEUED_PULLS: usize = 128;

/// The host's releases, its missing ones, and its tombstones.
#[derive(Debug)]
pub(super) struct FleetReleases {
    /// States of this host's trees.
    own: Vec<TreeState>,
    /// Trees offered to other hosts that missed a release.
    gives: BTreeSet<TreeName>,
    missing: MissingReleases,
    headers: Headers,
    tombstones: Tombstones,
    open_orders: OpenOrders,
    /// Releases that other hosts lack and request from this host.
    pulls: VecDeque<(SocketAddr, Pull)>,
    /// Due time of the next look at the members' releases, after a change.
    check_at: Option<Moment>,
}

impl FleetReleases {
    /// Starts with the trees of the disk. The first check is due at `now`: tombstones issued during
    /// an absence may apply to the local trees.
    pub(super) fn new(now: Moment, trees: HostTrees, seed: u64) -> Self {
        let mut headers = Headers::default();
        headers.set(trees.headers);

        Self {
            own: trees.states,
            gives: trees.gives,
            missing: MissingReleases::new(trees.takes, seed ^ 3),
            headers,
            tombstones: Tombstones::new(trees.tombstones, seed ^ 4),
            open_orders: OpenOrders::default(),
            pulls: VecDeque::new(),
            check_at: Some(now),
        }
    }

    /// Sets the states of this host's trees.
    pub(super) fn set_own(&mut self, now: Moment, own: Vec<TreeState>) {
        self.own = own;
        self.check_soon(now);
    }

    /// Sets the signed header of each tree's current release.
    pub(super) fn set_headers(&mut self, headers: BTreeMap<TreeName, ReleaseBytes>) {
        self.headers.set(headers);
    }

    /// Schedules a check after a change of a member or a tree.
    pub(super) fn check_soon(&mut self, now: Moment) {
        self.check_at.get_or_insert(now + MEMBER_CHECK_DELAY);
    }

    /// Returns true if an offer concerns this host, named `host`: its tree is managed here, and the
    /// current release meets the offer's conditions. For an offer with a grant also: it fits this
    /// host and its base, no session works on the tree, and this host misses the release, which
    /// does not rest after a failure here, or repairs the tree by it. `busy` returns true if a
    /// session works on a tree.
    pub(super) fn is_wanted(
        &self,
        now: Moment,
        announce: &Announce,
        release: &Release,
        host: &HostName,
        busy: impl FnOnce(&TreeName) -> bool,
    ) -> bool {
        let tree = &release.header().tree;
        let Some(own) = self.own.iter().find(|t| t.tree == *tree) else {
            return false;
        };

        let running = own.running.unwrap_or_default();
        if announce.after.is_some_and(|oldest| running < oldest) {
            return false;
        }

        if announce.grant.is_none() {
            return true;
        }

        let fits_base = announce.follows.is_none_or(|base| running == base);
        let fits_host = announce.only.as_ref().is_none_or(|only| only == host);

        fits_base
            && fits_host
            && !busy(tree)
            && self
                .missing
                .wants(now, own, &Candidate::of(release), &self.tombstones)
    }

    /// Lets a release rest that could not be put in place.
    pub(super) fn rest(
        &mut self,
        now: Moment,
        tree: TreeName,
        release: ReleaseId,
        pause: Duration,
    ) {
        self.missing.rest(now, tree, release, pause);
    }

    /// Ends the pauses of all releases of `tree`.
    pub(super) fn resume(&mut self, now: Moment, tree: &TreeName) {
        self.missing.resume(tree);
        self.check_at = Some(now);
    }

    /// Excludes a release that targets other hosts.
    pub(super) fn mark_unfit(&mut self, tree: &TreeName, release: ReleaseId) {
        self.missing.mark_unfit(tree, release);
    }

    /// Forgets which releases are for other hosts: this one may be selected now.
    pub(super) fn forget_unfit(&mut self) {
        self.missing.forget_unfit();
    }

    /// Handles a release header, possibly one that this host requested. Returns the signature check
    /// to request from the disk.
    pub(super) fn on_header(&mut self, header: &ReleaseBytes) -> Option<DiskRequest> {
        // Headers requested by other hosts are not parsed.
        let id = ReleaseId(BlockHash::of(&header.header));
        if !self.missing.is_requested(id) {
            return None;
        }

        let release = Release::from_bytes(&header.header).ok()?;
        let signature = header.signature.as_slice().into();
        self.missing
            .on_header(&release)
            .then_some(DiskRequest::Verify(release, signature))
    }

    /// Handles the result of a header's signature check.
    pub(super) fn on_header_checked(&mut self, now: Moment, release: ReleaseId, holds: bool) {
        self.missing.on_header_checked(now, release, holds);
    }

    /// Handles a request for a release that this host may have. Returns the header if the request
    /// asks for one, otherwise queues an offer if `idle` returns true for the tree.
    pub(super) fn on_pull(
        &mut self,
        now: Moment,
        from: SocketAddr,
        pull: Pull,
        idle: impl FnOnce(&TreeName) -> bool,
    ) -> Option<Box<Message>> {
        if !self.serves(&pull) {
            return None;
        }

        if pull.header == Some(true) {
            match self.headers.show(now, &pull) {
                HeaderAnswer::Show(header) => return Some(header),
                HeaderAnswer::RecentlyShown => return None,
                // An offer includes the header.
                HeaderAnswer::Unknown => {}
            }
        }

        let is_same = |(other, queued): &(SocketAddr, Pull)| *other == from && *queued == pull;

        if self.pulls.len() < MAX_QUEUED_PULLS
            && !self.pulls.iter().any(is_same)
            && idle(&pull.tree)
        {
            self.pulls.push_back((from, pull));
        }

        None
    }

    /// Returns true if this host has the requested release and offers it.
    fn serves(&self, pull: &Pull) -> bool {
        let has = |t: &TreeState| t.tree == pull.tree && t.release == Some(pull.release);
        let is_well = |t: &TreeState| t.unhealthy != Some(true);

        self.gives.contains(&pull.tree)
            && self.own.iter().any(|t| has(t) && is_well(t))
            && self.tombstones.of(&pull.tree, pull.release).is_none()
    }

    /// Returns the next release to offer to hosts that lack it, and the address of one.
    pub(super) fn next_pull(&mut self) -> Option<(SocketAddr, Pull)> {
        self.pulls.pop_front()
    }

    /// Handles an order of any session, which one of this host has `followed` or not. Returns the
    /// signature check of a new tombstone, or of an order for all hosts.
    pub(super) fn on_order(
        &mut self,
        now: Moment,
        order: SignedOrder,
        followed: bool,
    ) -> Option<DiskRequest> {
        if self.tombstones.on_order(now, &order, &self.own) {
            return Some(DiskRequest::Bury(order));
        }

        let is_new = !followed && self.open_orders.on_order(&order, &self.own);
        is_new.then_some(DiskRequest::KeepOrder(order))
    }

    /// Handles the result of the check of an order for all hosts.
    pub(super) fn on_order_kept(&mut self, order: &SignedOrder, holds: bool) {
        self.open_orders.on_checked(order, holds);
    }

    /// Handles the result of a tombstone's signature check.
    pub(super) fn on_tombstone_checked(&mut self, now: Moment, order: SignedOrder, holds: bool) {
        self.tombstones.on_checked(order, holds);
        self.check_at = Some(now);
    }

    /// Starts to catch up on `tree`. If `gives` is set, other hosts may get releases from here.
    pub(super) fn catch_up(&mut self, now: Moment, tree: TreeName, gives: bool) {
        if gives {
            self.gives.insert(tree.clone());
        }

        self.missing.catch_up(tree);
        self.check_at = Some(now);
    }

    /// Starts the repair of a drifted tree.
    pub(super) fn repair(&mut self, now: Moment, tree: TreeName) {
        self.missing.repair(tree);
        self.check_at = Some(now);
    }

    /// Ends the repair of a tree; any remaining drift will be found again.
    pub(super) fn end_repair(&mut self, tree: &TreeName) {
        self.missing.end_repair(tree);
    }

    /// Returns true if the time has come to look at the members' releases, once for each change.
    pub(super) fn begin_check(&mut self, now: Moment) -> bool {
        let due = self.timeout().is_some_and(|at| at <= now);
        if due {
            self.check_at = None;
        }

        due
    }

    /// Returns the tombstones that other hosts lack.
    pub(super) fn due_tombstones(
        &mut self,
        now: Moment,
        me: InstanceId,
        members: &Table,
    ) -> Vec<SignedOrder> {
        self.tombstones.poll(now, me, members)
    }

    /// Returns the releases of this host with a tombstone to revert them, and counts the attempts.
    /// `ordering` returns true if an order for a tree is in progress.
    pub(super) fn due_reverts(
        &mut self,
        ordering: impl Fn(&TreeName) -> bool,
    ) -> Vec<(TreeName, ReleaseId, SignedOrder)> {
        let mut reverts = Vec::new();
        for own in self.own.iter().filter(|own| !ordering(&own.tree)) {
            let Some(release) = own.release else { continue };
            if let Some(order) = self.tombstones.try_revert(&own.tree, release) {
                reverts.push((own.tree.clone(), release, order.clone()));
            }
        }

        reverts
    }

    /// Returns the due requests for missing releases and their destinations. `busy` returns true if
    /// a session works on a tree.
    pub(super) fn due_requests(
        &mut self,
        now: Moment,
        me: InstanceId,
        members: &Table,
        busy: impl Fn(&TreeName) -> bool,
    ) -> Vec<(SocketAddr, Pull)> {
        self.missing
            .poll(now, &self.own, me, members, &self.tombstones, busy)
    }

    /// Returns the time of the next look at the members' releases.
    pub(super) fn timeout(&self) -> Option<Moment> {
        [
            self.check_at,
            self.missing.timeout(),
            self.tombstones.timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
