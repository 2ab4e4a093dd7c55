//! Who is alive: a host's beacons, its answers to solicits, its view of the others.
//!
//! Nobody keeps a list of servers. A host beacons at an interval that stretches with the number of hosts it knows, so
//! that all beacons together stay a trickle; it answers a solicit after a random delay spread over the fleet; who was
//! not heard for a few intervals is forgotten, who says goodbye at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::control::Control;
use super::path::Heard;
use super::{Dest, turn};
use crate::id::{HostName, InstanceId};
use crate::units::Moment;
use crate::wire::Message;
use crate::wire::message::{Hello, MAX_STRANGERS, TreeState};

/// The shortest interval between beacons.
const BEACON: Duration = Duration::from_secs(2);
/// Beacons a second in the whole group, at most about.
const GROUP_BEACONS: u32 = 20;
/// A member is forgotten after this many of its intervals.
const MISSED: u32 = 4;
/// Over so many turns hosts tell that their trees changed.
const CHANGE_TURNS: u32 = 4;
/// How often it is looked who is to be forgotten.
const SWEEP: Duration = Duration::from_millis(250);
/// The most members that are kept.
pub const MAX_MEMBERS: usize = 20_000;
/// The most of them at one address: a machine has one, a test some.
const MAX_EACH: usize = 64;
/// The most trees of all members together.
const MAX_TREE_STATES: usize = 200_000;

/// A host that was heard of lately.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// What it said.
    pub hello: Hello,
    /// Where from.
    pub address: SocketAddr,
    /// When it said so last.
    pub heard: Moment,
    /// When it was first heard.
    pub since: Moment,
}

/// The members as one host or sender sees them.
#[derive(Debug, Default)]
pub struct Table {
    members: BTreeMap<InstanceId, Member>,
    /// Who has a name.
    named: BTreeMap<(HostName, IpAddr), InstanceId>,
    /// How many members are at each address.
    at: BTreeMap<IpAddr, usize>,
    /// Trees of all members.
    trees: usize,
    /// How many members claim to know so many hosts.
    claims: BTreeMap<u32, usize>,
    /// When it was last looked who was not heard for long.
    swept: Moment,
}

impl Table {
    /// Takes a beacon or answer; says whether the host is new.
    pub fn heard(&mut self, now: Moment, from: SocketAddr, instance: InstanceId, hello: Hello) -> bool {
        // A restarted daemon has a new instance: the old one must not stay as a ghost.
        let name = (hello.name.clone(), from.ip());
        if let Some(&other) = self.named.get(&name).filter(|id| **id != instance) {
            self.left(other);
        }
        let since = self.members.get(&instance).map(|known| known.since);
        self.left(instance);
        let each = self.at.get(&from.ip()).copied().unwrap_or(0);
        let fits = each < MAX_EACH && self.trees + hello.trees.len() <= MAX_TREE_STATES;
        if self.members.len() < MAX_MEMBERS && fits {
            *self.at.entry(from.ip()).or_default() += 1;
            self.trees += hello.trees.len();
            self.named.insert(name, instance);
            *self.claims.entry(hello.members).or_default() += 1;
            self.members.insert(instance, Member { hello, address: from, heard: now, since: since.unwrap_or(now) });
        }
        since.is_none()
    }

    /// Takes a farewell.
    pub fn left(&mut self, instance: InstanceId) {
        let Some(member) = self.members.remove(&instance) else { return };
        self.trees -= member.hello.trees.len();
        let ip = member.address.ip();
        if let Some(count) = self.at.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.at.remove(&ip);
            }
        }
        if let Some(count) = self.claims.get_mut(&member.hello.members) {
            *count -= 1;
            if *count == 0 {
                self.claims.remove(&member.hello.members);
            }
        }
        let name = (member.hello.name, member.address.ip());
        if self.named.get(&name) == Some(&instance) {
            self.named.remove(&name);
        }
    }

    /// Forgets who was not heard for long. All are looked at, so not at every call.
    pub fn expire(&mut self, now: Moment) {
        if now.since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let longest = interval(self.members.len() as u32) * MISSED;
        let gone = self.members.iter().filter(|(_, m)| now.since(m.heard) > longest);
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.left(id);
        }
    }

    /// The members.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Member)> {
        self.members.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the members are sure of each other: there are several, and each knows as many as we do.
    pub fn agrees(&self) -> bool {
        self.len() > 1 && self.claims.keys().all(|&members| members as usize == self.len())
    }

    /// The largest number of hosts that any member knows: when we have heard so many, we have heard all.
    pub fn claimed(&self) -> usize {
        self.claims.last_key_value().map_or(0, |(&members, _)| members as usize)
    }
}

fn interval(members: u32) -> Duration {
    BEACON.max(Duration::from_secs(1) * members / GROUP_BEACONS)
}

/// A host's presence.
#[derive(Debug)]
pub struct Presence {
    name: HostName,
    trees: Vec<TreeState>,
    table: Table,
    /// So many hosts are reckoned with at least.
    fleet: u32,
    beacon: Moment,
    /// Before this no solicit is answered: all hosts take turns.
    free: Moment,
    /// When, and to whom, a solicit is answered.
    answers: Vec<(Moment, SocketAddr, InstanceId)>,
    probes: Heard,
    strangers: Vec<IpAddr>,
    rng: fastrand::Rng,
}

/// The most solicits that wait for an answer.
const MAX_ANSWERS: usize = 64;

impl Presence {
    /// A host that beacons and solicits at once.
    pub fn new(now: Moment, name: HostName, trees: Vec<TreeState>, seed: u64, control: &mut Control) -> Self {
        control.send(Dest::Group, &Message::Solicit);
        let rng = fastrand::Rng::with_seed(seed);
        Self {
            name,
            trees,
            table: Table::default(),
            fleet: 0,
            beacon: now,
            free: now,
            answers: Vec::new(),
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
            self.beacon = self.beacon.min(now + (turn(self.fleet()) * CHANGE_TURNS).mul_f64(self.rng.f64()));
        }
    }

    /// What is told of those who are not heard for want of the group key: the first [`MAX_STRANGERS`] of them.
    pub fn set_strangers(&mut self, strangers: impl Iterator<Item = IpAddr>) {
        self.strangers = strangers.take(MAX_STRANGERS).collect();
    }

    /// Takes a message that is about presence.
    pub fn handle(&mut self, now: Moment, from: SocketAddr, instance: InstanceId, message: &Message) {
        match message {
            Message::Solicit => {
                let known = self.answers.iter().any(|a| a.1 == from);
                if !known && self.answers.len() < MAX_ANSWERS {
                    let at = now + turn(self.fleet()).mul_f64(self.rng.f64());
                    self.answers.push((at.max(self.free), from, instance));
                }
            }
            Message::Hello(hello) => {
                self.table.heard(now, from, instance, hello.clone());
            }
            Message::Bye(_) => self.table.left(instance),
            Message::Probe(probe) => self.probes.probe(instance, probe.size),
            _ => {}
        }
    }

    /// Whoever asks at `from` has heard enough: it has announced a release.
    pub fn asked_enough(&mut self, from: SocketAddr) {
        self.answers.retain(|a| a.1 != from);
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Moment, control: &mut Control) {
        self.table.expire(now);
        let mut due = Vec::new();
        self.answers.retain(|&(at, to, asker)| {
            if at <= now {
                due.push((to, asker));
                false
            } else {
                true
            }
        });
        for (to, asker) in due {
            self.free = now + turn(self.fleet());
            let hello = Hello { heard: self.probes.largest(asker), ..self.hello(control.instance()) };
            control.send(Dest::Host(to), &Message::Hello(hello));
        }
        if self.beacon <= now {
            control.send(Dest::Group, &Message::Hello(self.hello(control.instance())));
            self.beacon = now + interval(self.fleet()).mul_f64(0.75 + self.rng.f64() / 2.0);
        }
    }

    /// Says goodbye.
    pub fn leave(&self, control: &mut Control) {
        control.send(Dest::Group, &Message::Bye(self.name.clone()));
    }

    /// When something is due.
    pub fn timeout(&self) -> Moment {
        self.answers.iter().map(|a| a.0).chain([self.beacon]).min().unwrap_or(self.beacon)
    }

    fn hello(&self, own: InstanceId) -> Hello {
        let others = self.table.iter().filter(|(id, _)| **id != own).count();
        Hello {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            trees: self.trees.clone(),
            members: (others as u32 + 1).max(self.fleet),
            heard: None,
            strangers: (!self.strangers.is_empty()).then(|| self.strangers.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: &str, members: u32) -> Hello {
        let name = HostName::new(name).expect("legal");
        Hello { name, version: String::new(), trees: Vec::new(), members, heard: None, strangers: None }
    }

    #[test]
    fn the_table_knows_who_is_there_and_what_they_claim() {
        let at = |host: u8| SocketAddr::from(([10, 0, 0, host], 5000));
        let (now, mut table) = (Moment(1_000_000_000), Table::default());
        assert!(table.heard(now, at(1), InstanceId(1), hello("a", 1)));
        assert!(table.heard(now, at(2), InstanceId(2), hello("b", 7)));
        assert!(!table.heard(now, at(2), InstanceId(2), hello("b", 2)), "it claims something else now");
        assert_eq!((table.len(), table.claimed(), table.agrees()), (2, 2, false));
        assert!(table.heard(now, at(1), InstanceId(3), hello("a", 2)), "it was restarted");
        assert!(table.agrees() && table.iter().all(|(id, _)| *id != InstanceId(1)));
        table.left(InstanceId(2));
        table.left(InstanceId(2));
        assert_eq!((table.len(), table.claimed(), table.agrees()), (1, 2, false));
        table.expire(now + BEACON * (MISSED + 1));
        assert!(table.at.is_empty() && table.trees == 0);
        assert!(table.is_empty() && table.claimed() == 0 && table.named.is_empty());
    }

    #[test]
    fn a_flood_of_names_stays_bounded_at_one_address_and_at_all() {
        let (now, mut table) = (Moment(1_000_000_000), Table::default());
        let tree = |n: usize| TreeState {
            tree: crate::id::TreeName::new(&format!("t{n}")).expect("legal"),
            serial: crate::id::Serial(1),
            release: None,
            running: None,
            created: None,
            tombstones: None,
            unhealthy: None,
            base: None,
        };
        for n in 0..1000u64 {
            table.heard(now, SocketAddr::from(([10, 0, 0, 1], 5000)), InstanceId(n), hello(&format!("h{n}"), 1));
        }
        assert_eq!(table.len(), MAX_EACH);
        for n in 0..2000u16 {
            let trees = (0..200).map(tree).collect();
            let [a, b] = n.to_be_bytes();
            let from = SocketAddr::from(([10, 1, a, b], 5000));
            table.heard(now, from, InstanceId(10_000 + u64::from(n)), Hello { trees, ..hello("x", 1) });
        }
        assert!(table.trees <= MAX_TREE_STATES && table.len() <= MAX_EACH + MAX_TREE_STATES / 200);
    }
}
