//! Releases that were aborted or taken back: what this host knows of them, and when it says so to others.
//!
//! A tombstone travels as the signed order that made it, to the group, whoever says it: when a member that could need it
//! does not tell of it in its beacons, all who know it draw a moment, and the first to speak speaks for all. It is believed
//! when the disk has verified its signature.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Receiver, Request};
use crate::block::BlockHash;
use crate::id::{InstanceId, TreeName};
use crate::manifest::ReleaseId;
use crate::proto::Dest;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{MAX_BEACON_TOMBSTONES, Order, SignedOrder, Tombstone, TreeState};

/// The most tombstones of one tree.
const MAX_KNOWN: usize = 32;
/// The most orders of others that the disk looks at.
const MAX_LOOKING: usize = 4;
/// The most orders that are remembered because they do not hold.
const MAX_REFUSED: usize = 64;
/// How often a host tries to go back by itself; what others have takes the place of the release besides.
const TRIES: u32 = 3;
/// All who know a tombstone that somebody lacks speak within this time.
const SPREAD: Duration = Duration::from_millis(500);
/// The first wait until it is said again; doubled each time.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest.
const AGAIN_MAX: Duration = Duration::from_secs(120);

/// The tombstones of all trees.
#[derive(Debug)]
pub(super) struct Tombstones {
    trees: BTreeMap<TreeName, Vec<Known>>,
    /// What the disk looks at, by the hash of the order.
    looking: BTreeSet<BlockHash>,
    refused: VecDeque<BlockHash>,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Known {
    stone: Tombstone,
    order: SignedOrder,
    /// When it is said next, while somebody lacks it.
    due: Option<Moment>,
    again: Duration,
    /// Who lacked it when it was said last.
    told: BTreeSet<InstanceId>,
    /// How often the disk was asked to go back behind it.
    tried: u32,
}

impl Tombstones {
    /// Those that the disk keeps.
    pub(super) fn new(kept: Vec<SignedOrder>, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let (trees, looking, refused) = Default::default();
        let mut all = Self {
            trees,
            looking,
            refused,
            rng,
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
        known.push(Known {
            stone,
            order,
            due: None,
            again: AGAIN,
            told: BTreeSet::new(),
            tried: 0,
        });

        known.sort_by_key(|k| std::cmp::Reverse(k.stone));
        known.truncate(MAX_KNOWN);
    }

    fn find(&self, tree: &TreeName, release: ReleaseId) -> Option<&Known> {
        self.trees
            .get(tree)?
            .iter()
            .find(|k| k.stone.release == release)
    }

    /// The tombstone of a release.
    pub(super) fn of(&self, tree: &TreeName, release: ReleaseId) -> Option<Tombstone> {
        self.find(tree, release).map(|known| known.stone)
    }

    /// Whether a release was taken back: a host that has it goes back.
    pub(super) fn is_reverted(&self, tree: &TreeName, release: ReleaseId) -> bool {
        self.of(tree, release).is_some_and(|stone| stone.revert)
    }

    /// Takes an order that was heard from anybody; says whether the disk is to look at it.
    fn heard(&mut self, now: Moment, signed: &SignedOrder, own: &[TreeState]) -> bool {
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
            // Whoever lacks it has heard it now, unless it was lost on the way.
            known.due = known.due.map(|due| due.max(now + known.again));
            return false;
        }

        let hash = BlockHash::of(&[&signed.order[..], &signed.signature[..]].concat());
        let fresh = !self.looking.contains(&hash) && !self.refused.contains(&hash);
        if !own.iter().any(|t| t.tree == *tree) || !fresh || self.looking.len() >= MAX_LOOKING {
            return false;
        }

        self.looking.insert(hash)
    }

    /// The disk has looked at an order.
    fn looked(&mut self, signed: SignedOrder, holds: bool) {
        let hash = BlockHash::of(&[&signed.order[..], &signed.signature[..]].concat());
        self.looking.remove(&hash);
        if holds {
            return self.add(signed);
        }

        self.refused.push_back(hash);
        if self.refused.len() > MAX_REFUSED {
            self.refused.pop_front();
        }
    }

    /// The orders that are to be said now, for members that lack them.
    fn poll(&mut self, now: Moment, me: InstanceId, members: &Table) -> Vec<SignedOrder> {
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
                    (known.due, known.again) = (None, AGAIN);
                    known.told.clear();
                } else if known.due.is_none() || !lacking.is_subset(&known.told) {
                    let soon = now + SPREAD.mul_f64(self.rng.f64());
                    known.due = Some(known.due.map_or(soon, |due| due.min(soon)));
                    known.told = lacking;
                }
                if known.due.is_some_and(|due| due <= now) {
                    out.push(known.order.clone());
                    known.due = Some(now + known.again);
                    known.again = (known.again * 2).min(AGAIN_MAX);
                }
            }
        }

        out
    }

    pub(super) fn timeout(&self) -> Option<Moment> {
        self.trees
            .values()
            .flatten()
            .filter_map(|known| known.due)
            .min()
    }
}

/// Whether a member could need the tombstone and does not know it, by its beacon. One that runs a newer release does not
/// need it, and one whose beacon is full of newer ones only when it has the release.
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

impl Receiver {
    /// Takes an order to abort or revert a release, of whichever session.
    pub(super) fn hear_tombstone(&mut self, now: Moment, order: SignedOrder) {
        if self.tombstones.heard(now, &order, &self.setup.trees) {
            self.requests.push_back(Request::Bury(order));
        }
    }

    /// The disk has verified an order to abort or revert a release, and keeps it; or it does not hold.
    pub(super) fn buried(&mut self, now: Moment, order: SignedOrder, holds: bool) {
        self.tombstones.looked(order, holds);
        self.look = Some(now);
    }

    /// Says what others lack, and goes back behind what was taken back.
    pub(super) fn settle_tombstones(&mut self, now: Moment) {
        for order in self
            .tombstones
            .poll(now, self.setup.key.instance(), self.presence.table())
        {
            self.control.send(Dest::Group, &Message::Order(order));
        }

        for own in &self.setup.trees {
            let Some(release) = own.release else { continue };
            let stones = self
                .tombstones
                .trees
                .get_mut(&own.tree)
                .into_iter()
                .flatten();
            let Some(known) = stones
                .into_iter()
                .find(|k| k.stone.revert && k.stone.release == release)
            else {
                continue;
            };
            let mut sessions = self
                .sessions
                .values_mut()
                .filter(|s| *s.tree() == own.tree && s.is_proven());
            if known.tried >= TRIES || sessions.any(|s| s.is_ordering()) {
                continue;
            }
            known.tried += 1;
            let mut sessions = self
                .sessions
                .values_mut()
                .filter(|s| *s.tree() == own.tree && s.is_proven());
            match sessions.find(|s| s.release.id() == release && s.may_go_back()) {
                // What it replaced is there as long as the session is.
                Some(session) => session.follow(known.order.clone()),
                None => self.requests.push_back(Request::GoBack(own.tree.clone())),
            }
        }
    }
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
        let (tree, serial, release) = (Some(www()), Some(Serial(serial)), id(serial));
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
            let (version, (heard, strangers, nonce, echoes, identity, shown)) =
                (String::new(), Default::default());
            let hello = Hello {
                name,
                version,
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

    /// How often it is said in a minute.
    fn said(stones: &mut Tombstones, members: &[TreeState]) -> usize {
        let table = table(members);
        (0..60_000)
            .step_by(100)
            .map(|ms| stones.poll(at(ms), InstanceId(1), &table).len())
            .sum()
    }

    #[test]
    fn only_members_that_could_need_a_tombstone_are_told_and_ever_more_seldom() {
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
    fn the_first_to_speak_speaks_for_all() {
        let (mut stones, own) = (
            Tombstones::new(vec![order(5, OrderKind::Revert)], 1),
            [state(4, Some(&[5]))],
        );
        let table = table(&[state(4, Some(&[]))]);
        assert!(stones.poll(at(0), InstanceId(1), &table).is_empty());
        assert!(
            !stones.heard(at(0), &order(5, OrderKind::Revert), &own),
            "it is known"
        );

        assert!(stones.timeout() >= Some(at(2000)));
    }

    #[test]
    fn what_does_not_hold_is_looked_at_once_and_a_flood_stays_bounded() {
        let (mut stones, own) = (Tombstones::new(Vec::new(), 1), [state(4, Some(&[]))]);
        let mut looked = 0;
        for n in 0..1000 {
            looked += usize::from(stones.heard(at(n), &order(n, OrderKind::Abort), &own));
        }

        assert_eq!(looked, MAX_LOOKING);
        stones.looked(order(0, OrderKind::Abort), false);
        assert!(!stones.heard(at(0), &order(0, OrderKind::Abort), &own));
        stones.looked(order(1, OrderKind::Abort), true);
        assert!(stones.of(&www(), id(1)).is_some() && !stones.is_reverted(&www(), id(1)));
        assert!(
            stones.heard(at(0), &order(1, OrderKind::Revert), &own),
            "a stronger word"
        );

        for n in 0..1000 {
            stones.looked(order(n, OrderKind::Revert), true);
        }

        assert!(stones.trees[&www()].len() <= MAX_KNOWN && stones.of(&www(), id(999)).is_some());
        assert!(!stones.heard(at(0), &order(3000, OrderKind::Commit), &own));
    }
}
