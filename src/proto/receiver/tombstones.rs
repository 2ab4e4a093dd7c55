//! Tombstones: the known aborted or reverted releases, and their repetition for other hosts.
//!
//! A tombstone is the signed order itself, and any member may send it to the group. If the beacons
//! of a member that could need it do not list it, every member that knows it picks a random delay,
//! and the first to send speaks for all. A tombstone counts once the disk has verified its
//! signature.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::block::BlockHash;
use crate::id::{InstanceId, TreeName};
use crate::manifest::ReleaseId;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::message::{MAX_BEACON_TOMBSTONES, Order, SignedOrder, Tombstone, TreeState};

/// Largest number of tombstones per tree.
const MAX_TREE_TOMBSTONES: usize = 32;
/// Largest number of pending signature checks.
const MAX_PENDING_CHECKS: usize = 4;
/// Number of remembered orders with invalid signatures.
const MAX_REFUSED_ORDERS: usize = 64;
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
    /// Hashes of the orders with a pending signature check.
    checking: BTreeSet<BlockHash>,
    refused: VecDeque<BlockHash>,
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
            checking: BTreeSet::new(),
            refused: VecDeque::new(),
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

        let hash = BlockHash::of(&[&signed.order[..], &signed.signature[..]].concat());
        let fresh = !self.checking.contains(&hash) && !self.refused.contains(&hash);
        if !own.iter().any(|t| t.tree == *tree)
            || !fresh
            || self.checking.len() >= MAX_PENDING_CHECKS
        {
            return false;
        }

        self.checking.insert(hash)
    }

    /// Handles the result of a signature check.
    pub(super) fn on_checked(&mut self, signed: SignedOrder, holds: bool) {
        let hash = BlockHash::of(&[&signed.order[..], &signed.signature[..]].concat());
        self.checking.remove(&hash);
        if holds {
            return self.add(signed);
        }

        self.refused.push_back(hash);
        if self.refused.len() > MAX_REFUSED_ORDERS {
            self.refused.pop_front();
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
mod tests {
    use super::*;
    use crate::id::{HostName, Serial, SessionId};
    use crate::wire::message::{Hello, OrderKind};

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    fn www() -> TreeName {
        TreeName::new("www").expect("legal")
    }

    fn id(serial: u64) -> ReleaseId {
        ReleaseId(BlockHash::of(&serial.to_be_bytes()))
    }

    fn order(serial: u64, kind: OrderKind) -> SignedOrder {
        let tree = Some(www());
        let release = id(serial);
        let serial = Some(Serial(serial));
        let order = Order {
            session: SessionId(1),
            release,
            kind,
            up_to: None,
            tree,
            serial,
            hosts: None,
            except: None,
        };

        SignedOrder {
            order: order.encode(),
            signature: vec![1],
            hosts: None,
        }
    }

    fn state(running: u64, told: Option<&[u64]>) -> TreeState {
        let stone = |&n: &u64| Tombstone {
            serial: Serial(n),
            release: id(n),
            revert: true,
        };

        TreeState {
            serial: Serial(running),
            release: Some(id(running)),
            running: Some(Serial(running)),
            tombstones: told.map(|told| told.iter().map(stone).collect()),
            ..TreeState::nothing(www())
        }
    }

    fn table(members: &[TreeState]) -> Table {
        let mut table = Table::default();
        for (n, tree) in (2u8..).zip(members) {
            let name = HostName::new(&format!("web{n}")).expect("legal");
            let trees = vec![tree.clone()];
            let (heard, strangers, nonce, echoes, identity, shown) = Default::default();
            let hello = Hello {
                name,
                version: String::new(),
                trees,
                members: 1,
                heard,
                strangers,
                nonce,
                echoes,
                identity,
                shown,
            };
            table.on_hello(
                at(0),
                ([10, 0, 0, n], 5000).into(),
                InstanceId(n.into()),
                hello,
                true,
            );
        }

        table
    }

    /// Counts transmissions in one minute.
    fn said(stones: &mut Tombstones, members: &[TreeState]) -> usize {
        let table = table(members);
        (0..60_000)
            .step_by(100)
            .map(|ms| stones.poll(at(ms), InstanceId(1), &table).len())
            .sum()
    }

    #[test]
    fn a_tombstone_is_sent_to_members_that_need_it_and_backs_off() {
        let new = || Tombstones::new(vec![order(5, OrderKind::Revert)], 1);
        let of = |member| said(&mut new(), &[member]);
        assert!(
            (4..=7).contains(&of(state(4, Some(&[])))),
            "{}",
            of(state(4, Some(&[])))
        );
        assert!(of(state(5, Some(&[8, 7]))) > 0, "it runs the release");
        assert_eq!(of(state(4, Some(&[5]))), 0, "it knows");
        assert_eq!(of(state(6, Some(&[]))), 0, "it runs a newer one");
        assert_eq!(of(state(4, Some(&[8, 7]))), 0, "its beacon is full");

        assert_eq!(of(state(4, None)), 0, "it would not understand");
    }

    #[test]
    fn the_first_transmission_serves_all_members() {
        let mut stones = Tombstones::new(vec![order(5, OrderKind::Revert)], 1);
        let own = [state(4, Some(&[5]))];
        let table = table(&[state(4, Some(&[]))]);
        assert!(stones.poll(at(0), InstanceId(1), &table).is_empty());
        assert!(
            !stones.on_order(at(0), &order(5, OrderKind::Revert), &own),
            "it is known"
        );

        assert!(stones.timeout() >= Some(at(2000)));
    }

    #[test]
    fn an_invalid_order_is_checked_once_and_a_flood_stays_bounded() {
        let mut stones = Tombstones::new(Vec::new(), 1);
        let own = [state(4, Some(&[]))];
        let mut looked = 0;
        for n in 0..1000 {
            looked += usize::from(stones.on_order(at(n), &order(n, OrderKind::Abort), &own));
        }

        assert_eq!(looked, MAX_PENDING_CHECKS);
        stones.on_checked(order(0, OrderKind::Abort), false);
        assert!(!stones.on_order(at(0), &order(0, OrderKind::Abort), &own));
        stones.on_checked(order(1, OrderKind::Abort), true);
        assert!(stones.of(&www(), id(1)).is_some() && !stones.is_reverted(&www(), id(1)));
        assert!(
            stones.on_order(at(0), &order(1, OrderKind::Revert), &own),
            "a stronger word"
        );

        for n in 0..1000 {
            stones.on_checked(order(n, OrderKind::Revert), true);
        }

        assert!(
            stones.trees[&www()].len() <= MAX_TREE_TOMBSTONES
                && stones.of(&www(), id(999)).is_some()
        );
        assert!(!stones.on_order(at(0), &order(3000, OrderKind::Commit), &own));
    }
}
