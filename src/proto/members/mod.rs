//! Presence of a host: its beacons, its answers to solicits, and its table of the other members.
//!
//! No list of servers exists. A host sends beacons at an interval that grows with the number of
//! known hosts, so that total beacon traffic stays a trickle. A solicit is answered after a random
//! delay spread over the fleet. A member missing for a few intervals is forgotten, a member that
//! says goodbye at once.
//!
//! The table of members is in [`table`].

mod table;

pub use table::{MAX_MEMBERS, Member, Table, Trust};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::control::Control;
use super::datagram_size::ProbeSizes;
use super::freshness::Freshness;
use super::{Dest, slot_interval};
use crate::id::{HostName, InstanceId, Nonce, TreeName};
use crate::keys::Identity;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, MAX_BEACON_STRANGERS, SerialProof, TreeState};

/// Slots over which hosts spread the beacons about changed trees.
const CHANGE_SLOTS: u32 = 4;

/// Presence of one host.
#[derive(Debug)]
pub struct Presence {
    own: InstanceId,
    name: HostName,
    trees: Vec<TreeState>,
    /// Identity shown in answers to solicits.
    identity: Option<Identity>,
    table: Table,
    /// Lower bound of the assumed fleet size.
    fleet: u32,
    next_beacon: Moment,
    /// No solicit is answered before this time, since hosts take slots.
    not_before: Moment,
    answers: Vec<PendingAnswer>,
    freshness: Freshness,
    /// The last beacon echoed no nonce of a proven host.
    echoed_nobody: bool,
    /// Proof of the highest serial of each tree.
    shown: BTreeMap<TreeName, SerialProof>,
    /// Budget for sending proofs.
    proof_budget: ProofBudget,
    probes: ProbeSizes,
    strangers: Vec<IpAddr>,
    rng: fastrand::Rng,
}

/// A solicit that waits for its answer.
#[derive(Debug)]
struct PendingAnswer {
    due: Moment,
    to: SocketAddr,
    asker: InstanceId,
    nonce: Option<Nonce>,
    tree: Option<TreeName>,
}

/// Rate limit for proofs of serials.
#[derive(Debug)]
struct ProofBudget {
    since: Moment,
    used: u32,
}

impl ProofBudget {
    /// Returns whether one more answer may carry a proof.
    fn spend(&mut self, now: Moment) -> bool {
        if now.since(self.since) >= SHOW_WINDOW {
            self.since = now;
            self.used = 0;
        }

        self.used += 1;
        self.used <= MAX_SHOWN_A_SECOND
    }
}

/// After first contact with another host, a beacon follows within this time.
const FIRST_CONTACT_SPREAD: Duration = Duration::from_millis(100);
/// At most [`MAX_SHOWN_A_SECOND`] answers carry a proof of a serial in this time.
const SHOW_WINDOW: Duration = Duration::from_secs(1);
/// See [`SHOW_WINDOW`].
const MAX_SHOWN_A_SECOND: u32 = 32;
/// Bound on solicits that wait for an answer.
const MAX_ANSWERS: usize = 64;
/// Bound on waiting solicits of one address.
const MAX_ANSWERS_PER_ADDRESS: usize = 16;

impl Presence {
    /// Creates the presence of a host and solicits; the first beacon is due at once.
    pub fn new(
        now: Moment,
        name: HostName,
        trees: Vec<TreeState>,
        trust: Trust,
        seed: u64,
        control: &mut Control,
    ) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let freshness = Freshness::new(now, seed ^ 1);
        control.send(
            Dest::Group,
            &Message::Solicit(Some(freshness.current()), None),
        );

        Self {
            own: control.instance(),
            name,
            trees,
            identity: None,
            table: Table::new(trust),
            fleet: 0,
            next_beacon: now,
            not_before: now,
            answers: Vec::new(),
            freshness,
            echoed_nobody: false,
            shown: BTreeMap::new(),
            proof_budget: ProofBudget {
                since: now,
                used: 0,
            },
            probes: ProbeSizes::default(),
            strangers: Vec::new(),
            rng,
        }
    }

    /// Assumes at least `hosts` hosts before any is heard.
    pub fn assume_fleet(&mut self, hosts: u32) {
        self.fleet = hosts;
    }

    fn fleet(&self) -> u32 {
        self.fleet.max(self.table.len() as u32)
    }

    /// The members. This host is among them once its own beacon has come back.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Announces changed trees soon, within a few slots: trees mostly change on all hosts at once,
    /// and those hosts have more urgent messages to send.
    pub fn set_trees(&mut self, now: Moment, trees: Vec<TreeState>) {
        if self.trees != trees {
            self.trees = trees;
            self.next_beacon = self
                .next_beacon
                .min(now + (slot_interval(self.fleet()) * CHANGE_SLOTS).mul_f64(self.rng.f64()));
        }
    }

    /// Shows `identity` in answers from now on.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Sets the proof of the highest serial of each tree.
    pub fn set_shown(&mut self, shown: BTreeMap<TreeName, SerialProof>) {
        self.shown = shown;
    }

    /// Sets the peers ignored for lack of the group key; beacons name the first
    /// [`MAX_BEACON_STRANGERS`].
    pub fn set_strangers(&mut self, strangers: impl Iterator<Item = IpAddr>) {
        self.strangers = strangers.take(MAX_BEACON_STRANGERS).collect();
    }

    /// Takes a message about presence.
    pub fn handle(
        &mut self,
        now: Moment,
        from: SocketAddr,
        instance: InstanceId,
        message: &Message,
    ) {
        match message {
            Message::Solicit(nonce, tree) => {
                self.on_solicit(now, from, instance, *nonce, tree.clone());
            }
            Message::Hello(hello) => self.on_hello(now, from, instance, hello),
            Message::Bye(_) => self.table.on_bye(instance, from),
            Message::Probe(probe) => self.probes.probe(instance, probe.size),
            _ => {}
        }
    }

    fn on_solicit(
        &mut self,
        now: Moment,
        from: SocketAddr,
        asker: InstanceId,
        nonce: Option<Nonce>,
        tree: Option<TreeName>,
    ) {
        // Only the newest solicit of a process counts. A replayed one comes from another process.
        let earlier = self.answers.iter_mut().find(|other| other.asker == asker);
        if let Some(answer) = earlier {
            answer.to = from;
            answer.nonce = nonce;
            answer.tree = tree;
            return;
        }

        let due = now + slot_interval(self.fleet()).mul_f64(self.rng.f64());
        self.schedule(PendingAnswer {
            due: due.max(self.not_before),
            to: from,
            asker,
            nonce,
            tree,
        });
    }

    fn on_hello(&mut self, now: Moment, from: SocketAddr, instance: InstanceId, hello: &Hello) {
        let proven = self.freshness.check(now, hello) || instance == self.own;
        self.table
            .on_hello(now, from, instance, hello.clone(), proven);

        if self.echoed_nobody && self.freshness.knows_others() {
            // There is a nonce to echo at last: others accept the next beacon.
            self.echoed_nobody = false;
            let spread = FIRST_CONTACT_SPREAD + slot_interval(self.fleet());
            self.next_beacon = self.next_beacon.min(now + spread.mul_f64(self.rng.f64()));
        }
    }

    /// Queues an answer. A flood of replayed solicits first displaces others from the same address;
    /// a real asker retransmits.
    fn schedule(&mut self, answer: PendingAnswer) {
        let here = |other: &PendingAnswer| other.to.ip() == answer.to.ip();
        let same = self.answers.iter().filter(|other| here(other)).count();
        let place = if same >= MAX_ANSWERS_PER_ADDRESS {
            let nth = self.rng.usize(..same);
            self.answers
                .iter()
                .enumerate()
                .filter(|(_, other)| here(other))
                .nth(nth)
                .map(|(place, _)| place)
        } else {
            (self.answers.len() >= MAX_ANSWERS).then(|| self.rng.usize(..MAX_ANSWERS))
        };

        match place.and_then(|place| self.answers.get_mut(place)) {
            Some(other) => *other = answer,
            None => self.answers.push(answer),
        }
    }

    /// Cancels the answer to `asker`, which has already announced a release.
    pub fn cancel_answer(&mut self, asker: InstanceId) {
        self.answers.retain(|answer| answer.asker != asker);
    }

    /// Sends due answers and beacons.
    pub fn handle_timeout(&mut self, now: Moment, control: &mut Control) {
        self.table.expire(now);
        let (due, later) = std::mem::take(&mut self.answers)
            .into_iter()
            .partition(|answer| answer.due <= now);
        self.answers = later;

        if !due.is_empty() {
            // Without a new nonce, a replayed beacon that echoes the old one could predate the
            // solicit.
            self.freshness.refresh(now);
        }

        for answer in due {
            self.not_before = now + slot_interval(self.fleet());
            let hello = Hello {
                heard: self.probes.largest(answer.asker),
                echoes: answer.nonce.map(|nonce| vec![nonce]),
                identity: self.identity,
                shown: answer.tree.and_then(|tree| self.show(now, &tree)),
                ..self.hello()
            };
            control.send(Dest::Host(answer.to), &Message::Hello(hello));
        }

        if self.next_beacon <= now {
            self.echoed_nobody = self.fleet == 0 && !self.freshness.knows_others();
            let echoes = Some(self.freshness.echoes());
            self.freshness.renew(now);
            control.send(
                Dest::Group,
                &Message::Hello(Hello {
                    echoes,
                    ..self.hello()
                }),
            );
            // A beacon without echoes proves nothing to others; another one follows soon.
            let fleet = if self.echoed_nobody { 0 } else { self.fleet() };
            self.next_beacon = now
                + self
                    .table
                    .interval(fleet)
                    .mul_f64(0.75 + self.rng.f64() / 2.0);
        }
    }

    /// Returns the proof of the highest serial of `tree`. Rate limited, because a proof is much
    /// larger than a solicit.
    fn show(&mut self, now: Moment, tree: &TreeName) -> Option<SerialProof> {
        if !self.proof_budget.spend(now) {
            return None;
        }
        self.shown.get(tree).cloned()
    }

    /// Sends a goodbye.
    pub fn leave(&self, control: &mut Control) {
        control.send(Dest::Group, &Message::Bye(self.name.clone()));
    }

    /// Time of the next due answer or beacon.
    pub fn timeout(&self) -> Moment {
        self.answers
            .iter()
            .map(|answer| answer.due)
            .chain([self.next_beacon])
            .min()
            .unwrap_or(self.next_beacon)
    }

    fn hello(&self) -> Hello {
        let others = self.table.iter().filter(|(id, _)| **id != self.own).count();
        Hello {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            trees: self.trees.clone(),
            members: (others as u32 + 1).max(self.fleet),
            heard: None,
            strangers: (!self.strangers.is_empty()).then(|| self.strangers.clone()),
            nonce: Some(self.freshness.current()),
            echoes: None,
            identity: None,
            shown: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Datagram;

    const START: Moment = Moment(1_000_000_000);

    fn at(ms: u64) -> Moment {
        START + Duration::from_millis(ms)
    }

    /// A host with its queue and address.
    struct TestHost {
        presence: Presence,
        control: Control,
        address: SocketAddr,
    }

    impl TestHost {
        fn new(now: Moment, number: u8) -> Self {
            let mut control = Control::new(InstanceId(number.into()), 1472, 0);
            let name = HostName::new(&format!("web{number}")).expect("legal");
            let presence = Presence::new(
                now,
                name,
                Vec::new(),
                Trust::Proven,
                number.into(),
                &mut control,
            );
            Self {
                presence,
                control,
                address: ([10, 0, 0, number], 5000).into(),
            }
        }

        fn receives(&mut self, now: Moment, other: &TestHost, messages: &[Message]) {
            let from = (other.address, other.presence.own);
            messages
                .iter()
                .for_each(|message| self.presence.handle(now, from.0, from.1, message));
        }

        fn sends(&mut self, now: Moment) -> Vec<Message> {
            self.presence.handle_timeout(now, &mut self.control);
            let mut out = Vec::new();
            let next = || {
                self.control.poll(&mut out)?;
                match Datagram::parse(&out) {
                    Ok(Datagram::Control(_, piece)) => Message::decode(piece.bytes).ok(),
                    _ => None,
                }
            };

            std::iter::from_fn(next).collect()
        }
    }

    #[test]
    fn a_beacon_from_before_a_host_began_shows_it_nobody() {
        for gap in [200, 900, 1300] {
            let mut old = TestHost::new(START, 2);
            let mut dead = TestHost::new(START, 4);
            // The two know each other, and the last beacon of one echoes the present nonce of the
            // other.
            let mut recorded = Vec::new();
            for round in 0..4 {
                let said = old.sends(at(round * 3000));
                dead.receives(at(round * 3000 + 1), &old, &said);
                recorded = dead.sends(at(round * 3000 + 2));
                old.receives(at(round * 3000 + 3), &dead, &recorded);
            }
            assert!(
                old.presence.table().iter().count() > 0,
                "they know each other"
            );

            let now = at(9003 + gap);
            let mut new = TestHost::new(now, 1);
            let question = new.sends(now);
            old.receives(now, &new, &question);
            let answer = old.sends(now);
            new.receives(now, &old, &answer);
            new.receives(now, &dead, &recorded);
            let known: Vec<_> = new
                .presence
                .table()
                .iter()
                .map(|(_, member)| member.address)
                .collect();
            assert_eq!(known, [old.address], "{gap} ms later");
        }
    }

    #[test]
    fn questions_of_many_processes_at_one_address_push_out_nobody_elses() {
        let mut control = Control::new(InstanceId(1), 1472, 0);
        let name = HostName::new("web1").expect("legal");
        let mut host = Presence::new(START, name, Vec::new(), Trust::Proven, 1, &mut control);
        host.assume_fleet(1000);
        let asks = |host: &mut Presence, from: [u8; 4], process: u64| {
            let message = Message::Solicit(Some(Nonce(process)), None);
            host.handle(START, (from, 5000).into(), InstanceId(process), &message);
        };

        asks(&mut host, [10, 0, 0, 1], 7);

        (0..10_000).for_each(|n| asks(&mut host, [10, 0, 0, 9], 100 + n));
        assert_eq!(host.answers.len(), 1 + MAX_ANSWERS_PER_ADDRESS);
        assert_eq!(
            host.answers
                .iter()
                .filter(|answer| answer.asker == InstanceId(7))
                .count(),
            1
        );

        // With only forged addresses the list stays bounded.
        (0..200).for_each(|n| asks(&mut host, [10, 0, 1, n as u8], 20_000 + n));
        assert_eq!(host.answers.len(), MAX_ANSWERS);
    }
}
