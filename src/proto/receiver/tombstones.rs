//! Tombstones: the known aborted or reverted releases, and their repetition for other hosts.
//!
//! A tombstone is the signed order itself, and any member may send it to the group. If the beacons
//! of a member that could need it do not list it, every member that knows it picks a random delay,
//! and the first to send speaks for all. A tombstone counts once the disk has verified its
//! signature.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::order_checks::OrderChecks;
use crate::id::{InstanceId, TreeName};
use crate::manifest::ReleaseId;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::message::{MAX_BEACON_TOMBSTONES, Order, SignedOrder, Tombstone, TreeState};

/// Largest number of tombstones per tree.
const MAX_TREE_TOMBSTONES: usize = 32;
/// Largest number of own attempts to revert; besides, catch-up replaces the release.
const MAX_REVERT_ATTEMPTS: u32 = 3;
/// Interval in which all members that know a missing tombstone send it.
const FIRST_SEND_SPREAD: Duration = Duration::from_millis(500);
/// Initial interval of repetitions; doubles each time.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// Longest interval of repetitions.
const MAX_REPEAT_AFTER: Duration = Duration::from_secs(120);

/// Tombstones of all trees.
#[derive(Debug)]
pub(super) struct Tombstones {
    trees: BTreeMap<TreeName, Vec<KnownTombstone>>,
    checks: OrderChecks,
    rng: fastrand::Rng,
}

/// A tombstone and the schedule of its transmissions.
#[derive(Debug)]
struct KnownTombstone {
    stone: Tombstone,
    order: SignedOrder,
    /// Time of the next transmission while a member lacks the tombstone.
    due: Option<Moment>,
    /// Wait after the next transmission.
    repeat_after: Duration,
    /// Members that lacked the tombstone at the last transmission.
    lacking: BTreeSet<InstanceId>,
    /// Number of revert requests to the disk.
    attempts: u32,
}

impl Tombstones {
    /// Loads the stored tombstones.
    pub(super) fn new(kept: Vec<SignedOrder>, seed: u64) -> Self {
        let mut all = Self {
            trees: BTreeMap::new(),
            checks: OrderChecks::default(),
            rng: fastrand::Rng::with_seed(seed),
        };

        kept.into_iter().for_each(|order| all.add(order));
        all
    }

    fn add(&mut self, order: SignedOrder) {
        let Some(decoded) = Order::decode(&order.order) else {
            return;
        };

        let Some((tree, stone)) = decoded.tombstone() else {
            return;
        };

        let known = self.trees.entry(tree.clone()).or_default();
        known.retain(|k| k.stone.release != stone.release);
        known.push(KnownTombstone {
            stone,
            order,
            due: None,
            repeat_after: REPEAT_AFTER,
            lacking: BTreeSet::new(),
            attempts: 0,
        });

        known.sort_by_key(|k| std::cmp::Reverse(k.stone));
        known.truncate(MAX_TREE_TOMBSTONES);
    }

    /// Returns the order to revert `release`, a local release of `tree`, and counts the attempt.
    pub(super) fn try_revert(
        &mut self,
        tree: &TreeName,
        release: ReleaseId,
    ) -> Option<&SignedOrder> {
        let known = self
            .trees
            .get_mut(tree)?
            .iter_mut()
            .find(|k| k.stone.revert && k.stone.release == release)
            .filter(|k| k.attempts < MAX_REVERT_ATTEMPTS)?;

        known.attempts += 1;
        Some(&known.order)
    }

    fn find(&self, tree: &TreeName, release: ReleaseId) -> Option<&KnownTombstone> {
        self.trees
            .get(tree)?
            .iter()
            .find(|k| k.stone.release == release)
    }

    /// Returns the tombstone of a release.
    pub(super) fn of(&self, tree: &TreeName, release: ReleaseId) -> Option<Tombstone> {
        self.find(tree, release).map(|known| known.stone)
    }

    /// Returns true if a release was reverted: hosts that run the release go back.
    pub(super) fn is_reverted(&self, tree: &TreeName, release: ReleaseId) -> bool {
        self.of(tree, release).is_some_and(|stone| stone.revert)
    }

    /// Handles an unverified order. Returns true if the disk is to check its signature.
    pub(super) fn on_order(
        &mut self,
        now: Moment,
        signed: &SignedOrder,
        own: &[TreeState],
    ) -> bool {
        let Some(order) = Order::decode(&signed.order) else {
            return false;
        };

        let Some((tree, stone)) = order.tombstone() else {
            return false;
        };

        let known = self
            .trees
            .get_mut(tree)
            .and_then(|all| all.iter_mut().find(|k| k.stone.release == stone.release));

        if let Some(known) = known
            && (known.stone.revert || !stone.revert)
        {
            // Members that lacked the tombstone have heard it now, unless the datagram was lost.
            known.due = known.due.map(|due| due.max(now + known.repeat_after));
            return false;
        }

        own.iter().any(|t| t.tree == *tree) && self.checks.begin(signed)
    }

    /// Handles the result of a signature check.
    pub(super) fn on_checked(&mut self, signed: SignedOrder, holds: bool) {
        self.checks.end(&signed, holds);
        if holds {
            self.add(signed);
        }
    }

    /// Returns the orders to send now, for members that lack them.
    pub(super) fn poll(
        &mut self,
        now: Moment,
        me: InstanceId,
        members: &Table,
    ) -> Vec<SignedOrder> {
        let mut out = Vec::new();
        for (tree, stones) in &mut self.trees {
            let there: Vec<(InstanceId, &TreeState)> = members
                .iter()
                .filter(|(id, _)| **id != me)
                .flat_map(|(id, m)| {
                    m.hello
                        .trees
                        .iter()
                        .filter(|t| t.tree == *tree)
                        .map(|t| (*id, t))
                })
                .collect();
            for known in stones {
                let lacking = there
                    .iter()
                    .filter(|(_, t)| lacks(t, &known.stone))
                    .map(|(id, _)| *id);
                let lacking: BTreeSet<InstanceId> = lacking.collect();
                if lacking.is_empty() {
                    known.due = None;
                    known.repeat_after = REPEAT_AFTER;
                    known.lacking.clear();
                } else if known.due.is_none() || !lacking.is_subset(&known.lacking) {
                    let soon = now + FIRST_SEND_SPREAD.mul_f64(self.rng.f64());
                    known.due = Some(known.due.map_or(soon, |due| due.min(soon)));
                    known.lacking = lacking;
                }
                if known.due.is_some_and(|due| due <= now) {
                    out.push(known.order.clone());
                    known.due = Some(now + known.repeat_after);
                    known.repeat_after = (known.repeat_after * 2).min(MAX_REPEAT_AFTER);
                }
            }
        }

        out
    }

    /// Returns the time of the next transmission.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.trees
            .values()
            .flatten()
            .filter_map(|known| known.due)
            .min()
    }
}

/// Returns true if a member, by its beacon, could need the tombstone and lacks it.
///
/// A member with a newer release does not need the tombstone. One whose beacon is full of newer
/// tombstones needs it only if it has the release.
fn lacks(member: &TreeState, stone: &Tombstone) -> bool {
    let Some(told) = &member.tombstones else {
        return false;
    };

    let known = told
        .iter()
        .any(|t| t.release == stone.release && (t.revert || !stone.revert));
    let has = member.release == Some(stone.release);
    let ahead = member.running.is_some_and(|running| running > stone.serial);
    let full = told.len() >= MAX_BEACON_TOMBSTONES && told.iter().all(|t| t.serial > stone.serial);

    !known && (has || !(ahead || full))
}

#[cfg(test)]
mod tests;
