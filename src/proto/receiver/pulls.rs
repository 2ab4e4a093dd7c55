//! Releases that this host missed, and who is asked for them: one member after the other of those that have them.
//!
//! Whom a host asks first follows from the release and the members alone, so that many hosts that missed the same one
//! ask the same member, which serves all of them at once. What beacons say is not believed: an answer to a pull is an
//! offer like any other, with its signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::id::{InstanceId, Serial, TreeName};
use crate::manifest::ReleaseId;
use crate::proto::members::Table;
use crate::units::Moment;
use crate::wire::message::{Pull, TreeState};

/// A release that others have is waited for: its sender may be about to offer it.
const NOTICE: Duration = Duration::from_millis(1000);
/// Who was asked has this long to offer it.
const ANSWER: Duration = Duration::from_secs(3);
/// All were asked in vain: the first wait until they are asked again; doubled each time.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest.
const AGAIN_MAX: Duration = Duration::from_secs(120);

/// What this host lacks, tree by tree.
#[derive(Debug)]
pub(super) struct Pulls {
    /// Trees that catch up.
    trees: BTreeSet<TreeName>,
    /// Trees that are to be made what their release says, once more.
    repairs: BTreeSet<TreeName>,
    open: BTreeMap<TreeName, Open>,
    /// Releases that are not for this host.
    unfit: BTreeMap<TreeName, ReleaseId>,
    rng: fastrand::Rng,
}

/// One release that is lacking.
#[derive(Debug)]
struct Open {
    serial: Serial,
    release: ReleaseId,
    /// What was here when it was found to be lacking.
    have: Option<Serial>,
    /// Who was asked since all were asked last.
    asked: BTreeSet<InstanceId>,
    /// When the next one is asked.
    due: Moment,
    again: Duration,
}

impl Pulls {
    pub(super) fn new(trees: BTreeSet<TreeName>, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { trees, repairs: BTreeSet::new(), open: BTreeMap::new(), unfit: BTreeMap::new(), rng }
    }

    /// Something in the tree is not what its release says.
    pub(super) fn repair(&mut self, tree: TreeName) {
        self.repairs.insert(tree);
    }

    /// What is repaired is no more, or will be found again.
    pub(super) fn ended(&mut self, tree: &TreeName) {
        self.repairs.remove(tree);
    }

    /// Whether an offer of this release for hosts that missed it is one for this host, which has `own`.
    pub(super) fn wants(&self, own: &TreeState, serial: Serial, release: ReleaseId) -> bool {
        let newer = self.trees.contains(&own.tree) && serial > own.serial;
        let same = self.repairs.contains(&own.tree) && own.release == Some(release);
        newer || same
    }

    /// The release will not be had: it is for others.
    pub(super) fn is_unfit(&mut self, tree: &TreeName, release: ReleaseId) {
        self.unfit.insert(tree.clone(), release);
    }

    /// Whom to ask now for what. `busy` says whether a session works on a tree.
    pub(super) fn poll(
        &mut self,
        now: Moment,
        own: &[TreeState],
        me: InstanceId,
        members: &Table,
        busy: impl Fn(&TreeName) -> bool,
    ) -> Vec<(SocketAddr, Pull)> {
        let (mut out, jitter) = (Vec::new(), self.rng.f64());
        for state in own {
            let Some((serial, release)) = self.lacking(state, me, members) else {
                self.open.remove(&state.tree);
                continue;
            };
            let fresh = || Open::new(now, serial, release, state.running, jitter);
            let open = self.open.entry(state.tree.clone()).or_insert_with(fresh);
            if open.release != release || open.have != state.running {
                // Another one is lacking, or what came before it is here now.
                *open = fresh();
            }
            if busy(&state.tree) {
                // When it is over, and the release is lacking still, somebody else is asked.
                open.due = open.due.max(now + NOTICE);
                continue;
            }
            if open.due <= now {
                out.extend(open.ask(now, state, me, members, jitter));
            }
        }
        out
    }

    /// When somebody is to be asked.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.open.values().map(|open| open.due).min()
    }

    /// The newest release of the tree that others have and this host does not; or its own, when it is to be repaired.
    fn lacking(&self, own: &TreeState, me: InstanceId, members: &Table) -> Option<(Serial, ReleaseId)> {
        let there = members.iter().filter(|(id, _)| **id != me).flat_map(|(_, m)| &m.hello.trees);
        let found = there.filter(|t| t.tree == own.tree).filter_map(|t| Some((t.running?, t.release?)));
        let fits = |&(serial, release): &(Serial, ReleaseId)| {
            self.wants(own, serial, release) && self.unfit.get(&own.tree) != Some(&release)
        };
        found.filter(fits).max_by_key(|(serial, release)| (*serial, release.0.0))
    }
}

impl Open {
    fn new(now: Moment, serial: Serial, release: ReleaseId, have: Option<Serial>, jitter: f64) -> Self {
        let due = now + NOTICE.mul_f64(1.0 + jitter / 4.0);
        Self { serial, release, have, asked: BTreeSet::new(), due, again: AGAIN }
    }

    /// Asks the next one who has it.
    fn ask(
        &mut self,
        now: Moment,
        own: &TreeState,
        me: InstanceId,
        members: &Table,
        jitter: f64,
    ) -> Option<(SocketAddr, Pull)> {
        let tree = &own.tree;
        let has = |t: &TreeState| t.tree == *tree && t.running == Some(self.serial) && t.release == Some(self.release);
        let able = members.iter().filter(|(id, m)| **id != me && m.hello.trees.iter().any(has));
        let next = able.filter(|(id, _)| !self.asked.contains(*id)).min_by_key(|(id, _)| rank(self.release, **id));
        let Some((&id, member)) = next else {
            self.asked.clear();
            self.due = now + self.again.mul_f64(0.75 + jitter / 2.0);
            self.again = (self.again * 2).min(AGAIN_MAX);
            return None;
        };
        self.asked.insert(id);
        self.due = now + ANSWER;
        let have = own.running.unwrap_or_default();
        Some((member.address, Pull { tree: tree.clone(), release: self.release, have }))
    }
}

/// The place of a member in the order in which hosts ask for a release.
fn rank(release: ReleaseId, member: InstanceId) -> [u8; 32] {
    Sha256::new().chain_update(release.0.0).chain_update(member.0.to_be_bytes()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use crate::id::HostName;
    use crate::wire::message::Hello;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    fn www() -> TreeName {
        TreeName::new("www").expect("legal")
    }

    fn id(serial: u64) -> ReleaseId {
        ReleaseId(BlockHash::of(&serial.to_be_bytes()))
    }

    fn state(serial: u64, running: u64) -> TreeState {
        TreeState {
            tree: www(),
            serial: Serial(serial),
            release: Some(id(running)),
            running: Some(Serial(running)),
            created: None,
            tombstones: Some(Vec::new()),
            unhealthy: None,
        }
    }

    /// Members 2.. that run these.
    fn members(running: &[u64]) -> Table {
        let mut table = Table::default();
        for (n, serial) in running.iter().enumerate() {
            let name = HostName::new(&format!("web{n}")).expect("legal");
            let trees = vec![state(*serial, *serial)];
            let hello = Hello { name, version: String::new(), trees, members: 1, heard: None, strangers: None };
            table.heard(at(0), SocketAddr::from(([10, 0, 0, n as u8 + 2], 5000)), InstanceId(n as u64 + 2), hello);
        }
        table
    }

    fn pulls() -> Pulls {
        Pulls::new([www()].into(), 1)
    }

    fn poll(pulls: &mut Pulls, ms: u64, own: &TreeState, table: &Table) -> Vec<(SocketAddr, Pull)> {
        pulls.poll(at(ms), std::slice::from_ref(own), InstanceId(1), table, |_| false)
    }

    #[test]
    fn one_after_the_other_is_asked_and_then_all_again_ever_more_seldom() {
        let (mut pulls, table, own) = (pulls(), members(&[7, 7, 6]), state(5, 5));
        assert_eq!(poll(&mut pulls, 0, &own, &table), [], "its sender may be about to offer it");
        let mut asked = Vec::new();
        for ms in (0..60_000).step_by(100) {
            asked.extend(poll(&mut pulls, ms, &own, &table).into_iter().map(|(to, pull)| (ms, to, pull.release)));
        }
        let whom: BTreeSet<SocketAddr> = asked[..2].iter().map(|a| a.1).collect();
        assert_eq!(whom.len(), 2, "not the one that has an older release");
        assert!(asked.iter().all(|a| a.2 == id(7)));
        let times: Vec<u64> = asked.iter().map(|a| a.0).collect();
        assert!(times[0] >= 1000 && times[1] - times[0] >= 3000 && times[2] - times[1] > 3000 + 3000, "{times:?}");
        assert!((4..=10).contains(&asked.len()), "{times:?}");
        // It came by whatever way.
        assert_eq!(poll(&mut pulls, 70_000, &state(7, 7), &table), []);
        assert_eq!(pulls.timeout(), None);
    }

    #[test]
    fn hosts_that_lack_the_same_ask_the_same() {
        let table = members(&[7; 9]);
        let first = |seed: u64| {
            let (mut pulls, own) = (Pulls::new([www()].into(), seed), state(0, 0));
            let mut poll = |ms| pulls.poll(at(ms), std::slice::from_ref(&own), InstanceId(1), &table, |_| false);
            poll(0);
            poll(2000)[0].0
        };
        assert_eq!(first(1), first(2));
    }

    #[test]
    fn what_was_accepted_before_or_refused_or_is_not_wanted_is_not_asked_for() {
        let table = members(&[7]);
        let asked = |mut pulls: Pulls, own: TreeState| {
            poll(&mut pulls, 0, &own, &table);
            poll(&mut pulls, 5000, &own, &table).len()
        };
        assert_eq!(asked(pulls(), state(5, 5)), 1);
        assert_eq!(asked(pulls(), state(7, 6)), 0, "it was taken back here");
        assert_eq!(asked(Pulls::new(BTreeSet::new(), 1), state(5, 5)), 0, "it does not catch up");
        let mut unfit = pulls();
        unfit.is_unfit(&www(), id(7));
        assert_eq!(asked(unfit, state(5, 5)), 0);
        assert_eq!(asked(pulls(), state(7, 7)), 0);
        let mut repair = Pulls::new(BTreeSet::new(), 1);
        repair.repair(www());
        assert_eq!(asked(repair, state(7, 7)), 1);
    }

    #[test]
    fn while_a_session_works_on_the_tree_nobody_is_asked() {
        let (mut pulls, table, own) = (pulls(), members(&[7]), state(5, 5));
        for ms in [0, 2000, 4000] {
            assert_eq!(pulls.poll(at(ms), std::slice::from_ref(&own), InstanceId(1), &table, |_| true), []);
        }
        assert_eq!(poll(&mut pulls, 4500, &own, &table), []);
        assert_eq!(poll(&mut pulls, 5000, &own, &table).len(), 1);
    }
}
