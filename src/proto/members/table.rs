//! Table of the members known to one host or sender, and the lifetime of its entries.
//!
//! Only confirmed members count: members that have proven to be alive now, see
//! [`super::super::freshness`]. An unproven beacon is kept for a while, but changes neither
//! intervals nor slots nor the reported size of the fleet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::{HostName, InstanceId};
use crate::units::Moment;
use crate::wire::message::Hello;

/// Shortest interval between beacons.
const BEACON_INTERVAL: Duration = Duration::from_secs(2);
/// Approximate bound on beacons a second in the whole group.
const GROUP_BEACONS: u32 = 20;
/// Beacon intervals after which a silent member is forgotten.
const MISSED_INTERVALS: u32 = 4;
/// Interval between scans for silent members.
const EXPIRE_INTERVAL: Duration = Duration::from_millis(250);
/// Bound on the members in the table.
pub const MAX_MEMBERS: usize = 20_000;
/// Bound on the members at one address: a machine has one, a test a few.
const MAX_MEMBERS_PER_ADDRESS: usize = 64;
/// Bound on the trees of all members together.
const MAX_TREE_STATES: usize = 200_000;
/// Without a group key, a host is confirmed this long after its first beacon.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Lifetime of an unconfirmed host.
const UNPROVEN_LIFETIME: Duration = Duration::from_secs(60);
/// Without a group key, a silent host is forgotten after this plus twice the time of its presence.
const BRIEF_LIFETIME: Duration = Duration::from_secs(5);
/// Addresses of which one may lie about the number of hosts.
const VOICES_PER_LIAR: usize = 8;
/// Longest interval between beacons without a group key, where two beacons confirm a host.
const MAX_PLAIN_INTERVAL: Duration = Duration::from_secs(45);

/// A host heard recently.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Last beacon or answer.
    pub hello: Hello,
    /// Address of the host.
    pub address: SocketAddr,
    /// Time of the last beacon or answer.
    pub heard: Moment,
    /// Time of the first beacon or answer.
    pub since: Moment,
    /// Set for a confirmed member.
    counts: bool,
}

/// Proof required of a new member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// One fresh beacon: nobody else has the group key.
    #[default]
    Proven,
    /// Two fresh beacons from the same address, [`CONFIRM_AFTER`] apart.
    Twice,
}

/// Members known to one host or sender.
#[derive(Debug, Default)]
pub struct Table {
    trust: Trust,
    members: BTreeMap<InstanceId, Member>,
    /// Member with each name and address.
    named: BTreeMap<(HostName, IpAddr), InstanceId>,
    /// Members at each address.
    at: BTreeMap<IpAddr, AddressEntry>,
    /// Number of trees of all members.
    trees: usize,
    /// Number of confirmed members.
    counted: usize,
    /// Number of addresses for each claimed fleet size, by the smallest claim at the address.
    claims: BTreeMap<u32, usize>,
    /// Time of the last scan for silent members.
    swept: Moment,
}

/// Members at one address.
#[derive(Debug, Default)]
struct AddressEntry {
    members: usize,
    /// Number of confirmed members for each claimed fleet size.
    claims: BTreeMap<u32, usize>,
}

impl Table {
    /// Creates an empty table.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            ..Self::default()
        }
    }

    /// Takes a beacon or an answer and returns whether the host is new. Set `proven` for a fresh
    /// one; an unproven one never replaces a confirmed member.
    pub fn on_hello(
        &mut self,
        now: Moment,
        from: SocketAddr,
        instance: InstanceId,
        hello: Hello,
        proven: bool,
    ) -> bool {
        let name = (hello.name.clone(), from.ip());
        let before = self.members.get(&instance);
        if !proven && before.is_some_and(|before| before.counts) {
            return false;
        }

        // A restarted daemon has a new instance; without this the old one would stay as a ghost.
        if let Some(&other) = self.named.get(&name).filter(|id| **id != instance) {
            if !proven && self.members.get(&other).is_some_and(|other| other.counts) {
                return false;
            }
            self.remove(other);
        }

        let before = self.remove(instance);
        let known = before.is_some();
        let before = before.filter(|before| before.address.ip() == from.ip());
        let since = before.as_ref().map_or(now, |before| before.since);
        let counts = proven
            && match self.trust {
                Trust::Proven => true,
                Trust::Twice => {
                    before.is_some_and(|before| before.counts) || now.since(since) >= CONFIRM_AFTER
                }
            };

        if self.has_room(&hello, from.ip(), proven) {
            let member = Member {
                hello,
                address: from,
                heard: now,
                since,
                counts,
            };
            self.named.insert(name, instance);
            self.add(instance, member);
        }

        !known
    }

    /// Returns whether there is room for one more. Unconfirmed members give way to a proven one.
    fn has_room(&mut self, hello: &Hello, ip: IpAddr, proven: bool) -> bool {
        let fits = |table: &Self| {
            let each = table.at.get(&ip).map_or(0, |place| place.members);
            let trees = table.trees + hello.trees.len();
            table.members.len() < MAX_MEMBERS
                && each < MAX_MEMBERS_PER_ADDRESS
                && trees <= MAX_TREE_STATES
        };

        if !fits(self) && proven {
            let idle: Vec<InstanceId> = self
                .members
                .iter()
                .filter(|(_, m)| !m.counts)
                .map(|(id, _)| *id)
                .collect();
            idle.into_iter().for_each(|id| drop(self.remove(id)));
        }

        fits(self)
    }

    fn add(&mut self, instance: InstanceId, member: Member) {
        let ip = member.address.ip();
        self.trees += member.hello.trees.len();
        let place = self.at.entry(ip).or_default();
        place.members += 1;

        if member.counts {
            self.counted += 1;
            self.claim(ip, |claims| {
                *claims.entry(member.hello.members).or_default() += 1
            });
        }

        self.members.insert(instance, member);
    }

    /// Removes and returns a member.
    pub fn remove(&mut self, instance: InstanceId) -> Option<Member> {
        let member = self.members.remove(&instance)?;
        let ip = member.address.ip();
        self.trees -= member.hello.trees.len();

        if member.counts {
            self.counted -= 1;
            self.claim(ip, |claims| take(claims, member.hello.members));
        }

        if let Some(place) = self.at.get_mut(&ip) {
            place.members -= 1;
            if place.members == 0 {
                self.at.remove(&ip);
            }
        }

        let name = (member.hello.name.clone(), ip);
        if self.named.get(&name) == Some(&instance) {
            self.named.remove(&name);
        }

        Some(member)
    }

    /// Takes the goodbye of `instance`, only from the member's own address.
    pub fn on_bye(&mut self, instance: InstanceId, from: SocketAddr) {
        if self
            .members
            .get(&instance)
            .is_some_and(|member| member.address.ip() == from.ip())
        {
            self.remove(instance);
        }
    }

    /// Interval between the beacons of each of `members` hosts.
    pub(super) fn interval(&self, members: u32) -> Duration {
        match self.trust {
            Trust::Proven => interval(members),
            Trust::Twice => interval(members).min(MAX_PLAIN_INTERVAL),
        }
    }

    /// Changes the claims at an address.
    fn claim(&mut self, ip: IpAddr, change: impl FnOnce(&mut BTreeMap<u32, usize>)) {
        let Some(place) = self.at.get_mut(&ip) else {
            return;
        };

        let least =
            |place: &AddressEntry| place.claims.first_key_value().map(|(&members, _)| members);
        let before = least(place);
        change(&mut place.claims);
        let after = least(place);

        if before != after {
            before
                .into_iter()
                .for_each(|members| take(&mut self.claims, members));
            after
                .into_iter()
                .for_each(|members| *self.claims.entry(members).or_default() += 1);
        }
    }

    /// Forgets silent members. Scans all of them, so not at every call.
    pub fn expire(&mut self, now: Moment) {
        if now.since(self.swept) < EXPIRE_INTERVAL {
            return;
        }

        self.swept = now;
        let longest = self.interval(self.counted as u32) * MISSED_INTERVALS;
        let patience = |m: &Member| match (m.counts, self.trust) {
            (true, Trust::Proven) => longest,
            // A host present only briefly is not awaited much longer.
            (true, Trust::Twice) => longest.min(BRIEF_LIFETIME + m.heard.since(m.since) * 2),
            (false, _) => UNPROVEN_LIFETIME,
        };

        let gone = self
            .members
            .iter()
            .filter(|(_, m)| now.since(m.heard) > patience(m));

        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// Returns the hosts that may offer content: confirmed members, and hosts heard repeatedly.
    /// Their claims are verified by the content.
    pub fn candidates(&self) -> impl Iterator<Item = (&InstanceId, &Member)> {
        self.members.iter().filter(|(_, member)| {
            member.counts || member.heard.since(member.since) >= CONFIRM_AFTER
        })
    }

    /// Returns the confirmed members.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Member)> {
        self.members.iter().filter(|(_, member)| member.counts)
    }

    /// Returns the confirmed member with this instance.
    pub fn get(&self, instance: InstanceId) -> Option<&Member> {
        self.members.get(&instance).filter(|member| member.counts)
    }

    /// Number of confirmed members.
    pub fn len(&self) -> usize {
        self.counted
    }

    /// Returns true without any confirmed member.
    pub fn is_empty(&self) -> bool {
        self.counted == 0
    }

    /// Returns the fleet size claimed by the members, one vote for each address: after that many
    /// answers, all hosts have answered. A few votes above all others are ignored.
    pub fn claimed(&self) -> usize {
        let voices: usize = self.claims.values().sum();
        let mut liars = if voices > 1 {
            (voices / VOICES_PER_LIAR).max(1)
        } else {
            0
        };

        for (&members, &count) in self.claims.iter().rev() {
            if liars < count {
                return (members as usize).min(MAX_MEMBERS);
            }
            liars -= count;
        }

        0
    }
}

/// Decrements the count of a value.
fn take(counts: &mut BTreeMap<u32, usize>, value: u32) {
    if let Some(count) = counts.get_mut(&value) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&value);
        }
    }
}

fn interval(members: u32) -> Duration {
    BEACON_INTERVAL.max(Duration::from_secs(1) * members / GROUP_BEACONS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TreeName;
    use crate::wire::message::TreeState;

    const START: Moment = Moment(1_000_000_000);

    fn hello(name: &str, members: u32) -> Hello {
        Hello {
            name: HostName::new(name).expect("legal"),
            version: String::new(),
            trees: Vec::new(),
            members,
            heard: None,
            strangers: None,
            nonce: None,
            echoes: None,
            identity: None,
            shown: None,
        }
    }

    fn at(host: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + host), 5000))
    }

    #[test]
    fn the_table_knows_who_is_there_and_what_they_claim() {
        let mut table = Table::default();
        assert!(table.on_hello(START, at(1), InstanceId(1), hello("a", 1), true));
        assert!(table.on_hello(START, at(2), InstanceId(2), hello("b", 7), true));
        assert!(
            !table.on_hello(START, at(2), InstanceId(2), hello("b", 2), true),
            "it claims something else now"
        );

        assert_eq!(table.len(), 2);
        assert!(
            table.on_hello(START, at(1), InstanceId(3), hello("a", 2), true),
            "it was restarted"
        );
        assert!(table.claimed() == 2 && table.iter().all(|(id, _)| *id != InstanceId(1)));
        table.on_bye(InstanceId(2), at(1));

        assert_eq!(table.len(), 2, "from another address");
        table.on_bye(InstanceId(2), at(2));
        assert_eq!((table.len(), table.claimed()), (1, 2));
        table.expire(START + BEACON_INTERVAL * (MISSED_INTERVALS + 1));
        assert!(table.at.is_empty() && table.trees == 0);

        assert!(table.is_empty() && table.claimed() == 0 && table.named.is_empty());
    }

    #[test]
    fn a_beacon_that_proves_nothing_changes_nothing_that_is_reckoned_with() {
        let mut table = Table::default();
        for host in 1..=5 {
            table.on_hello(
                START,
                at(host),
                InstanceId(host.into()),
                hello(&format!("web{host}"), 5),
                true,
            );
        }

        for n in 0..30_000u32 {
            let id = InstanceId(u64::from(n) + 100);
            let name = format!("ghost{n}");
            table.on_hello(START, at(n + 100), id, hello(&name, u32::MAX), false);
        }

        // In the name of a present host and from its address, with a new instance and with its own.
        assert!(!table.on_hello(START, at(1), InstanceId(77), hello("web1", 9), false));
        assert!(!table.on_hello(START, at(1), InstanceId(1), hello("web1", 9), false));
        assert_eq!(
            (table.len(), table.claimed(), table.iter().count()),
            (5, 5, 5)
        );

        assert!(table.members.len() <= MAX_MEMBERS);
        // One more proven host finds room, and all others are soon forgotten.
        assert!(
            table.on_hello(START, at(6), InstanceId(6), hello("web6", 6), true) && table.len() == 6
        );
        table.expire(START + UNPROVEN_LIFETIME + EXPIRE_INTERVAL);

        assert!(table.members.is_empty());
    }

    #[test]
    fn a_single_voice_does_not_say_how_many_there_are() {
        let mut table = Table::default();
        for host in 1..=20 {
            table.on_hello(
                START,
                at(host),
                InstanceId(host.into()),
                hello(&format!("web{host}"), 20),
                true,
            );
        }

        // Two machines, one with any number of names.
        for n in 0..40u32 {
            let from = at(100 + n / 39);
            table.on_hello(
                START,
                from,
                InstanceId(1000 + u64::from(n)),
                hello(&format!("x{n}"), 4_000_000_000),
                true,
            );
        }

        assert_eq!(table.claimed(), 20);
        let mut pair = Table::default();
        pair.on_hello(START, at(1), InstanceId(1), hello("web1", u32::MAX), true);
        assert_eq!(pair.claimed(), MAX_MEMBERS, "a single vote");
        pair.on_hello(START, at(2), InstanceId(2), hello("web2", 2), true);

        assert_eq!(pair.claimed(), 2);
    }

    #[test]
    fn without_a_key_a_host_counts_when_it_was_there_for_a_while_and_for_as_long_after() {
        let after = |ms: u64| START + Duration::from_millis(ms);
        let mut table = Table::new(Trust::Twice);
        table.on_hello(after(0), at(1), InstanceId(1), hello("web1", 2), true);
        table.on_hello(after(0), at(2), InstanceId(2), hello("web2", 2), true);
        assert_eq!(
            (table.len(), table.claimed(), table.candidates().count()),
            (0, 0, 0)
        );

        table.on_hello(after(2000), at(1), InstanceId(1), hello("web1", 2), true);
        table.on_hello(after(2000), at(9), InstanceId(2), hello("web2", 2), true);
        assert_eq!(
            (table.len(), table.claimed(), table.candidates().count()),
            (1, 2, 1),
            "web2 has moved"
        );

        // A flood of four seconds with two proofs from each host.
        for round in [0, 3800] {
            for n in 0..19_000u32 {
                let id = InstanceId(u64::from(n) + 100);
                let name = format!("ghost{n}");
                table.on_hello(after(2000 + round), at(n + 100), id, hello(&name, 9), true);
            }
        }

        assert!(table.len() > 10_000);
        table.on_hello(after(8000), at(1), InstanceId(1), hello("web1", 2), true);
        table.expire(after(5800 + 12_700 + 250));

        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_flood_of_names_stays_bounded_at_one_address_and_at_all() {
        let mut table = Table::default();
        let tree = |n: usize| TreeState::nothing(TreeName::new(&format!("t{n}")).expect("legal"));
        for n in 0..1000u64 {
            table.on_hello(
                START,
                at(1),
                InstanceId(n),
                hello(&format!("h{n}"), 1),
                true,
            );
        }

        assert_eq!(table.len(), MAX_MEMBERS_PER_ADDRESS);
        for n in 0..2000u32 {
            let trees = (0..200).map(tree).collect();
            let id = InstanceId(10_000 + u64::from(n));
            table.on_hello(
                START,
                at(1000 + n),
                id,
                Hello {
                    trees,
                    ..hello("x", 1)
                },
                true,
            );
        }

        assert!(
            table.trees <= MAX_TREE_STATES
                && table.len() <= MAX_MEMBERS_PER_ADDRESS + MAX_TREE_STATES / 200
        );
    }
}
