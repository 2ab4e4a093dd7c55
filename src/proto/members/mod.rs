//! Presence of a host: its beacons, its answers to solicits, and its table of the other members.
//!
//! No list of servers exists. A host sends beacons at an interval that grows with the number of
//! known hosts, so that total beacon traffic stays a trickle. A solicit is answered after a random
//! delay spread over the fleet. A member missing for a few intervals is forgotten, a member that
//! says goodbye at once.
//!
//! The table of members is in [`table`].

mod answers;
mod proofs;
mod table;

pub use table::{MAX_MEMBERS, Member, Table, Trust};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use answers::{PendingAnswer, PendingAnswers};
use proofs::ShownProofs;

use super::control::Control;
use super::datagram_size::ProbeSizes;
use super::freshness::Freshness;
use super::{Dest, slot_interval};
use crate::id::{HostName, InstanceId, Labels, Nonce, TreeName};
use crate::keys::Identity;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, MAX_BEACON_STRANGERS, SerialProof, TreeState};

/// Slots over which hosts spread the beacons about changed trees.
const CHANGE_SLOTS: u32 = 4;
/// Copies of a host's beacon about changed trees in each second of the time over which all hosts
/// spread theirs, without multicast.
const CHANGE_COPIES: u32 = 50;
/// After first contact with another host, a beacon follows within this time.
const FIRST_CONTACT_SPREAD: Duration = Duration::from_millis(100);

/// Presence of one host.
#[derive(Debug)]
pub struct Presence {
    own: InstanceId,
    name: HostName,
    trees: Vec<TreeState>,
    /// Identity shown in answers to solicits.
    identity: Option<Identity>,
    labels: Labels,
    table: Table,
    /// Lower bound of the assumed fleet size.
    fleet: u32,
    next_beacon: Moment,
    answers: PendingAnswers,
    freshness: Freshness,
    /// The last beacon echoed no nonce of a proven host.
    echoed_nobody: bool,
    proofs: ShownProofs,
    probes: ProbeSizes,
    strangers: Vec<IpAddr>,
    rng: fastrand::Rng,
}

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
            labels: Labels::default(),
            table: Table::new(trust),
            fleet: 0,
            next_beacon: now,
            answers: PendingAnswers::new(now),
            freshness,
            echoed_nobody: false,
            proofs: ShownProofs::new(now),
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
            let copies = Duration::from_secs(1) * self.table.copies() / CHANGE_COPIES;
            let spread = copies.max(slot_interval(self.fleet()) * CHANGE_SLOTS);
            self.next_beacon = self.next_beacon.min(now + spread.mul_f64(self.rng.f64()));
        }
    }

    /// Sets the number of hosts that get each beacon by unicast.
    pub fn set_copies(&mut self, copies: usize) {
        self.table.set_copies(copies.min(MAX_MEMBERS) as u32);
    }

    /// Shows `identity` in answers from now on.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Sets the labels of the host, and tells them soon.
    pub fn set_labels(&mut self, now: Moment, labels: Labels) {
        if self.labels != labels {
            self.labels = labels;
            let spread = slot_interval(self.fleet()) * CHANGE_SLOTS;
            self.next_beacon = self.next_beacon.min(now + spread.mul_f64(self.rng.f64()));
        }
    }

    /// Sets the proof of the highest serial of each tree.
    pub fn set_shown(&mut self, shown: BTreeMap<TreeName, SerialProof>) {
        self.proofs.set(shown);
    }

    /// Sets the peers ignored for lack of the group key; beacons name the first
    /// [`MAX_BEACON_STRANGERS`].
    pub fn set_strangers(&mut self, strangers: impl Iterator<Item = IpAddr>) {
        self.strangers = strangers.take(MAX_BEACON_STRANGERS).collect();
    }

    /// Solicits a host that has just been found, which then hears of this one.
    pub fn meet(&self, host: SocketAddr, control: &mut Control) {
        let nonce = Some(self.freshness.current());
        control.send(Dest::Host(host), &Message::Solicit(nonce, None));
    }

    /// Forgets the members at an address that does not answer any more.
    pub fn on_gone(&mut self, host: SocketAddr) {
        self.table.remove_at(host);
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
        if self.answers.renew(asker, from, nonce, tree.as_ref()) {
            return;
        }

        let due = now + slot_interval(self.fleet()).mul_f64(self.rng.f64());
        let answer = PendingAnswer {
            due,
            to: from,
            asker,
            nonce,
            tree,
        };

        self.answers.schedule(answer, &mut self.rng);
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

    /// Cancels the answer to `asker`, which has already announced a release.
    pub fn cancel_answer(&mut self, asker: InstanceId) {
        self.answers.cancel(asker);
    }

    /// Sends due answers and beacons.
    pub fn handle_timeout(&mut self, now: Moment, control: &mut Control) {
        self.table.expire(now);
        let due = self.answers.take_due(now);
        if !due.is_empty() {
            // Without a new nonce, a replayed beacon that echoes the old one could predate the
            // solicit.
            self.freshness.refresh(now);
        }

        for answer in due {
            self.answers.hold_until(now + slot_interval(self.fleet()));
            let hello = Hello {
                heard: self.probes.largest(answer.asker),
                echoes: answer.nonce.map(|nonce| vec![nonce]),
                identity: self.identity,
                shown: answer.tree.and_then(|tree| self.proofs.show(now, &tree)),
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

    /// Sends a goodbye.
    pub fn leave(&self, control: &mut Control) {
        control.send(Dest::Group, &Message::Bye(self.name.clone()));
    }

    /// Time of the next due answer or beacon.
    pub fn timeout(&self) -> Moment {
        self.answers
            .timeout()
            .map_or(self.next_beacon, |due| due.min(self.next_beacon))
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
            labels: Some(self.labels.clone()).filter(|labels| !labels.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests;
