//! Who is alive: a host's beacons, its answers to solicits, its view of the others.
//!
//! Nobody keeps a list of servers. A host beacons at an interval that stretches with the number of hosts it knows, so
//! that all beacons together stay a trickle; it answers a solicit after a random delay spread over the fleet; who was
//! not heard for a few intervals is forgotten, who says goodbye at once.
//!
//! What is known of the others is in [`table`].

mod table;

pub use table::{MAX_MEMBERS, Member, Table, Trust};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::control::Control;
use super::freshness::Freshness;
use super::path::Heard;
use super::{Dest, turn};
use crate::id::{HostName, InstanceId, Nonce, TreeName};
use crate::keys::Identity;
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, MAX_STRANGERS, Shown, TreeState};

/// Over so many turns hosts tell that their trees changed.
const CHANGE_TURNS: u32 = 4;

/// A host's presence.
#[derive(Debug)]
pub struct Presence {
    own: InstanceId,
    name: HostName,
    trees: Vec<TreeState>,
    /// What answers to solicits show.
    identity: Option<Identity>,
    table: Table,
    /// So many hosts are reckoned with at least.
    fleet: u32,
    beacon: Moment,
    /// Before this no solicit is answered: all hosts take turns.
    free: Moment,
    answers: Vec<Answer>,
    freshness: Freshness,
    /// The last beacon repeated nothing of anybody who has shown to be there.
    alone: bool,
    /// What shows the highest serial of each tree.
    shown: BTreeMap<TreeName, Shown>,
    /// How often that was told since then.
    showing: (Moment, u32),
    probes: Heard,
    strangers: Vec<IpAddr>,
    rng: fastrand::Rng,
}

/// A solicit that waits for its answer.
#[derive(Debug)]
struct Answer {
    due: Moment,
    to: SocketAddr,
    asker: InstanceId,
    nonce: Option<Nonce>,
    tree: Option<TreeName>,
}

/// A host that hears the first others says so within this time.
const COMPANY: Duration = Duration::from_millis(100);
/// In this time at most [`MAX_SHOWN_A_SECOND`] answers show a serial.
const SHOW_WINDOW: Duration = Duration::from_secs(1);
/// See [`SHOW_WINDOW`].
const MAX_SHOWN_A_SECOND: u32 = 32;
/// The most solicits that wait for an answer.
const MAX_ANSWERS: usize = 64;
/// The most of them from one address.
const MAX_ANSWERS_EACH: usize = 16;

impl Presence {
    /// A host that beacons and solicits at once.
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
            beacon: now,
            free: now,
            answers: Vec::new(),
            freshness,
            alone: false,
            shown: BTreeMap::new(),
            showing: (now, 0),
            probes: Heard::default(),
            strangers: Vec::new(),
            rng,
        }
    }

    /// Reckons with `hosts` hosts, before they are heard.
    pub fn reckon_with(&mut self, hosts: u32) {
        self.fleet = hosts;
    }

    fn fleet(&self) -> u32 {
        self.fleet.max(self.table.len() as u32)
    }

    /// The members, this host among them once it has heard itself.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Tells the others soon what changed. Mostly it changed on all hosts at once, which have more urgent words to say.
    pub fn set_trees(&mut self, now: Moment, trees: Vec<TreeState>) {
        if self.trees != trees {
            self.trees = trees;
            self.beacon = self
                .beacon
                .min(now + (turn(self.fleet()) * CHANGE_TURNS).mul_f64(self.rng.f64()));
        }
    }

    /// Shows `identity` to those who ask from now on.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// What shows the highest serial of each tree.
    pub fn set_shown(&mut self, shown: BTreeMap<TreeName, Shown>) {
        self.shown = shown;
    }

    /// What is told of those who are not heard for want of the group key: the first [`MAX_STRANGERS`] of them.
    pub fn set_strangers(&mut self, strangers: impl Iterator<Item = IpAddr>) {
        self.strangers = strangers.take(MAX_STRANGERS).collect();
    }

    /// Takes a message that is about presence.
    pub fn handle(
        &mut self,
        now: Moment,
        from: SocketAddr,
        instance: InstanceId,
        message: &Message,
    ) {
        match message {
            Message::Solicit(nonce, tree) => {
                let (nonce, tree) = (*nonce, tree.clone());
                // The newest question of a process is the one whose answer counts; a recorded one is of another process.
                if let Some(answer) = self
                    .answers
                    .iter_mut()
                    .find(|answer| answer.asker == instance)
                {
                    (answer.to, answer.nonce, answer.tree) = (from, nonce, tree);
                    return;
                }
                let due = now + turn(self.fleet()).mul_f64(self.rng.f64());
                self.wait(Answer {
                    due: due.max(self.free),
                    to: from,
                    asker: instance,
                    nonce,
                    tree,
                });
            }
            Message::Hello(hello) => {
                let proven = self.freshness.judge(now, hello) || instance == self.own;
                self.table.heard(now, from, instance, hello.clone(), proven);
                if self.alone && self.freshness.knows_others() {
                    // Now there is something to repeat: others believe the next beacon.
                    self.alone = false;
                    let spread = COMPANY + turn(self.fleet());
                    self.beacon = self.beacon.min(now + spread.mul_f64(self.rng.f64()));
                }
            }
            Message::Bye(_) => self.table.farewell(instance, from),
            Message::Probe(probe) => self.probes.probe(instance, probe.size),
            _ => {}
        }
    }

    /// Lets an answer wait for its turn. Recorded questions of many processes take the places of others from the same
    /// address first; whoever asks in earnest asks again.
    fn wait(&mut self, answer: Answer) {
        let here = |other: &Answer| other.to.ip() == answer.to.ip();
        let same = self.answers.iter().filter(|other| here(other)).count();
        let place = if same >= MAX_ANSWERS_EACH {
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

    /// The process `asker` has heard enough: it has announced a release.
    pub fn asked_enough(&mut self, asker: InstanceId) {
        self.answers.retain(|answer| answer.asker != asker);
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Moment, control: &mut Control) {
        self.table.expire(now);
        let (due, later) = std::mem::take(&mut self.answers)
            .into_iter()
            .partition(|answer| answer.due <= now);
        self.answers = later;

        if !due.is_empty() {
            // Else a recorded beacon that repeats it could be from before the question.
            self.freshness.refresh(now);
        }

        for answer in due {
            self.free = now + turn(self.fleet());
            let hello = Hello {
                heard: self.probes.largest(answer.asker),
                echoes: answer.nonce.map(|nonce| vec![nonce]),
                identity: self.identity,
                shown: answer.tree.and_then(|tree| self.show(now, &tree)),
                ..self.hello()
            };
            control.send(Dest::Host(answer.to), &Message::Hello(hello));
        }

        if self.beacon <= now {
            self.alone = self.fleet == 0 && !self.freshness.knows_others();
            let echoes = Some(self.freshness.echoes());
            self.freshness.renew(now);
            control.send(
                Dest::Group,
                &Message::Hello(Hello {
                    echoes,
                    ..self.hello()
                }),
            );
            // A beacon that repeats nothing proves nothing to others: another one follows soon.
            let fleet = if self.alone { 0 } else { self.fleet() };
            self.beacon = now
                + self
                    .table
                    .interval(fleet)
                    .mul_f64(0.75 + self.rng.f64() / 2.0);
        }
    }

    /// What shows the highest serial of `tree`: much longer than the question, hence only so often.
    fn show(&mut self, now: Moment, tree: &TreeName) -> Option<Shown> {
        if now.since(self.showing.0) >= SHOW_WINDOW {
            self.showing = (now, 0);
        }
        self.showing.1 += 1;
        (self.showing.1 <= MAX_SHOWN_A_SECOND).then(|| self.shown.get(tree).cloned())?
    }

    /// Says goodbye.
    pub fn leave(&self, control: &mut Control) {
        control.send(Dest::Group, &Message::Bye(self.name.clone()));
    }

    /// When something is due.
    pub fn timeout(&self) -> Moment {
        self.answers
            .iter()
            .map(|answer| answer.due)
            .chain([self.beacon])
            .min()
            .unwrap_or(self.beacon)
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

    /// A host and what it sends.
    struct Lone {
        presence: Presence,
        control: Control,
        address: SocketAddr,
    }

    impl Lone {
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

        fn hears(&mut self, now: Moment, other: &Lone, messages: &[Message]) {
            let from = (other.address, other.presence.own);
            messages
                .iter()
                .for_each(|message| self.presence.handle(now, from.0, from.1, message));
        }

        fn says(&mut self, now: Moment) -> Vec<Message> {
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
            let (mut old, mut dead) = (Lone::new(START, 2), Lone::new(START, 4));
            // The two know each other, and the last beacon of one repeats the nonce that the other still says.
            let mut recorded = Vec::new();
            for round in 0..4 {
                let said = old.says(at(round * 3000));
                dead.hears(at(round * 3000 + 1), &old, &said);
                recorded = dead.says(at(round * 3000 + 2));
                old.hears(at(round * 3000 + 3), &dead, &recorded);
            }
            assert!(
                old.presence.table().iter().count() > 0,
                "they know each other"
            );

            let now = at(9003 + gap);
            let mut new = Lone::new(now, 1);
            let question = new.says(now);
            old.hears(now, &new, &question);
            let answer = old.says(now);
            new.hears(now, &old, &answer);
            new.hears(now, &dead, &recorded);
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
        host.reckon_with(1000);
        let asks = |host: &mut Presence, from: [u8; 4], process: u64| {
            let message = Message::Solicit(Some(Nonce(process)), None);
            host.handle(START, (from, 5000).into(), InstanceId(process), &message);
        };

        asks(&mut host, [10, 0, 0, 1], 7);

        (0..10_000).for_each(|n| asks(&mut host, [10, 0, 0, 9], 100 + n));
        assert_eq!(host.answers.len(), 1 + MAX_ANSWERS_EACH);
        assert_eq!(
            host.answers
                .iter()
                .filter(|answer| answer.asker == InstanceId(7))
                .count(),
            1
        );

        // Every address is one that lies: the list stays as long as it may be.
        (0..200).for_each(|n| asks(&mut host, [10, 0, 1, n as u8], 20_000 + n));
        assert_eq!(host.answers.len(), MAX_ANSWERS);
    }
}
