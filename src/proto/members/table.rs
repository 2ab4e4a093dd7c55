//! The members as one host or sender sees them, and how long each is remembered.
//!
//! Only those count that have shown that they are there now, see [`super::super::freshness`]. A beacon that shows nothing is
//! kept for a while and changes neither intervals nor turns nor what is told of the fleet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::id::{HostName, InstanceId};
use crate::units::Moment;
use crate::wire::message::Hello;

/// The shortest interval between beacons.
const BEACON: Duration = Duration::from_secs(2);
/// Beacons a second in the whole group, at most about.
const GROUP_BEACONS: u32 = 20;
/// A member is forgotten after this many of its intervals.
const MISSED: u32 = 4;
/// How often it is looked who is to be forgotten.
const SWEEP: Duration = Duration::from_millis(250);
/// The most members that are kept.
pub const MAX_MEMBERS: usize = 20_000;
/// The most of them at one address: a machine has one, a test some.
const MAX_EACH: usize = 64;
/// The most trees of all members together.
const MAX_TREE_STATES: usize = 200_000;
/// Without a group key, a host that was heard so long after its first word is reckoned with.
const AGAIN: Duration = Duration::from_secs(1);
/// A host that is not reckoned with is forgotten after this.
const UNPROVEN: Duration = Duration::from_secs(60);
/// Without a group key, a host is forgotten after this and twice the time for which it was there.
const FLEETING: Duration = Duration::from_secs(5);
/// Of so many voices one may lie about the number of hosts.
const LIARS: usize = 8;
/// The longest interval between beacons where hosts are reckoned with that were heard twice.
const LONGEST_PLAIN: Duration = Duration::from_secs(45);

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
    /// Whether it is reckoned with.
    counts: bool,
}

/// How easily a host is reckoned with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// Once it has shown that it is there: nobody else has the group key.
    #[default]
    Proven,
    /// When it has shown so twice, [`AGAIN`] apart, from the same address.
    Twice,
}

/// The members as one host or sender sees them.
#[derive(Debug, Default)]
pub struct Table {
    trust: Trust,
    members: BTreeMap<InstanceId, Member>,
    /// Who has a name.
    named: BTreeMap<(HostName, IpAddr), InstanceId>,
    /// What there is at each address.
    at: BTreeMap<IpAddr, Place>,
    /// Trees of all members.
    trees: usize,
    /// How many members are reckoned with.
    counted: usize,
    /// At how many addresses so many hosts are known, by the least that is said there.
    claims: BTreeMap<u32, usize>,
    /// When it was last looked who was not heard for long.
    swept: Moment,
}

/// The members at one address.
#[derive(Debug, Default)]
struct Place {
    members: usize,
    /// How many hosts they know, and how many of them say so, of those that are reckoned with.
    claims: BTreeMap<u32, usize>,
}

impl Table {
    /// An empty table.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            ..Self::default()
        }
    }

    /// Takes a beacon or answer; says whether the host is new. `proven`: it was made lately. What proves nothing does not
    /// take the place of what did.
    pub fn heard(
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

        // A restarted daemon has a new instance: the old one must not stay as a ghost.
        if let Some(&other) = self.named.get(&name).filter(|id| **id != instance) {
            if !proven && self.members.get(&other).is_some_and(|other| other.counts) {
                return false;
            }
            self.left(other);
        }

        let before = self.left(instance);
        let known = before.is_some();
        let before = before.filter(|before| before.address.ip() == from.ip());
        let since = before.as_ref().map_or(now, |before| before.since);
        let counts = proven
            && match self.trust {
                Trust::Proven => true,
                Trust::Twice => {
                    before.is_some_and(|before| before.counts) || now.since(since) >= AGAIN
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

    /// Whether there is room for one more; a host that is there is not kept out by those that prove nothing.
    fn has_room(&mut self, hello: &Hello, ip: IpAddr, proven: bool) -> bool {
        let fits = |table: &Self| {
            let each = table.at.get(&ip).map_or(0, |place| place.members);
            let trees = table.trees + hello.trees.len();
            table.members.len() < MAX_MEMBERS && each < MAX_EACH && trees <= MAX_TREE_STATES
        };

        if !fits(self) && proven {
            let idle: Vec<InstanceId> = self
                .members
                .iter()
                .filter(|(_, m)| !m.counts)
                .map(|(id, _)| *id)
                .collect();
            idle.into_iter().for_each(|id| drop(self.left(id)));
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

    /// Takes a farewell; gives who it was.
    pub fn left(&mut self, instance: InstanceId) -> Option<Member> {
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

    /// The farewell of `instance` from the address `from`: nobody says it for somebody else.
    pub fn farewell(&mut self, instance: InstanceId, from: SocketAddr) {
        if self
            .members
            .get(&instance)
            .is_some_and(|member| member.address.ip() == from.ip())
        {
            self.left(instance);
        }
    }

    /// The time between two beacons of each of `members` hosts.
    pub(super) fn interval(&self, members: u32) -> Duration {
        match self.trust {
            Trust::Proven => interval(members),
            Trust::Twice => interval(members).min(LONGEST_PLAIN),
        }
    }

    /// Changes what is claimed at an address.
    fn claim(&mut self, ip: IpAddr, change: impl FnOnce(&mut BTreeMap<u32, usize>)) {
        let Some(place) = self.at.get_mut(&ip) else {
            return;
        };

        let least = |place: &Place| place.claims.first_key_value().map(|(&members, _)| members);
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

    /// Forgets who was not heard for long. All are looked at, so not at every call.
    pub fn expire(&mut self, now: Moment) {
        if now.since(self.swept) < SWEEP {
            return;
        }

        self.swept = now;
        let longest = self.interval(self.counted as u32) * MISSED;
        let patience = |m: &Member| match (m.counts, self.trust) {
            (true, Trust::Proven) => longest,
            // Whoever was there for a moment is not waited for longer than that.
            (true, Trust::Twice) => longest.min(FLEETING + m.heard.since(m.since) * 2),
            (false, _) => UNPROVEN,
        };

        let gone = self
            .members
            .iter()
            .filter(|(_, m)| now.since(m.heard) > patience(m));

        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.left(id);
        }
    }

    /// The hosts that may have something to give: those that are reckoned with, and those that were heard several times.
    /// What they say is to be proven by what they give.
    pub fn around(&self) -> impl Iterator<Item = (&InstanceId, &Member)> {
        self.members
            .iter()
            .filter(|(_, member)| member.counts || member.heard.since(member.since) >= AGAIN)
    }

    /// The members that are reckoned with.
    pub fn iter(&self) -> impl Iterator<Item = (&InstanceId, &Member)> {
        self.members.iter().filter(|(_, member)| member.counts)
    }

    /// The member with this process.
    pub fn get(&self, instance: InstanceId) -> Option<&Member> {
        self.members.get(&instance).filter(|member| member.counts)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.counted
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counted == 0
    }

    /// How many hosts there are as the members know it, an address being one voice: when we have heard so many, we have
    /// heard all. A few voices that say more than all others are left out.
    pub fn claimed(&self) -> usize {
        let voices: usize = self.claims.values().sum();
        let mut liars = if voices > 1 {
            (voices / LIARS).max(1)
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

/// Takes away one of a value.
fn take(counts: &mut BTreeMap<u32, usize>, value: u32) {
    if let Some(count) = counts.get_mut(&value) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&value);
        }
    }
}

fn interval(members: u32) -> Duration {
    BEACON.max(Duration::from_secs(1) * members / GROUP_BEACONS)
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
        assert!(table.heard(START, at(1), InstanceId(1), hello("a", 1), true));
        assert!(table.heard(START, at(2), InstanceId(2), hello("b", 7), true));
        assert!(
            !table.heard(START, at(2), InstanceId(2), hello("b", 2), true),
            "it claims something else now"
        );

        assert_eq!(table.len(), 2);
        assert!(
            table.heard(START, at(1), InstanceId(3), hello("a", 2), true),
            "it was restarted"
        );
        assert!(table.claimed() == 2 && table.iter().all(|(id, _)| *id != InstanceId(1)));
        table.farewell(InstanceId(2), at(1));

        assert_eq!(table.len(), 2, "somebody else says so");
        table.farewell(InstanceId(2), at(2));
        assert_eq!((table.len(), table.claimed()), (1, 2));
        table.expire(START + BEACON * (MISSED + 1));
        assert!(table.at.is_empty() && table.trees == 0);

        assert!(table.is_empty() && table.claimed() == 0 && table.named.is_empty());
    }

    #[test]
    fn a_beacon_that_proves_nothing_changes_nothing_that_is_reckoned_with() {
        let mut table = Table::default();
        for host in 1..=5 {
            table.heard(
                START,
                at(host),
                InstanceId(host.into()),
                hello(&format!("web{host}"), 5),
                true,
            );
        }

        for n in 0..30_000u32 {
            let (id, name) = (InstanceId(u64::from(n) + 100), format!("ghost{n}"));
            table.heard(START, at(n + 100), id, hello(&name, u32::MAX), false);
        }

        // In the name of one that is there, from its address, with and without its number.
        assert!(!table.heard(START, at(1), InstanceId(77), hello("web1", 9), false));
        assert!(!table.heard(START, at(1), InstanceId(1), hello("web1", 9), false));
        assert_eq!(
            (table.len(), table.claimed(), table.iter().count()),
            (5, 5, 5)
        );

        assert!(table.members.len() <= MAX_MEMBERS);
        // One more that proves itself finds room, and all others are forgotten soon.
        assert!(
            table.heard(START, at(6), InstanceId(6), hello("web6", 6), true) && table.len() == 6
        );
        table.expire(START + UNPROVEN + SWEEP);

        assert!(table.members.is_empty());
    }

    #[test]
    fn a_single_voice_does_not_say_how_many_there_are() {
        let mut table = Table::default();
        for host in 1..=20 {
            table.heard(
                START,
                at(host),
                InstanceId(host.into()),
                hello(&format!("web{host}"), 20),
                true,
            );
        }

        // Two machines, one with as many names as it likes.
        for n in 0..40u32 {
            let from = at(100 + n / 39);
            table.heard(
                START,
                from,
                InstanceId(1000 + u64::from(n)),
                hello(&format!("x{n}"), 4_000_000_000),
                true,
            );
        }

        assert_eq!(table.claimed(), 20);
        let mut pair = Table::default();
        pair.heard(START, at(1), InstanceId(1), hello("web1", u32::MAX), true);
        assert_eq!(pair.claimed(), MAX_MEMBERS, "nobody else says anything");
        pair.heard(START, at(2), InstanceId(2), hello("web2", 2), true);

        assert_eq!(pair.claimed(), 2);
    }

    #[test]
    fn without_a_key_a_host_counts_when_it_was_there_for_a_while_and_for_as_long_after() {
        let after = |ms: u64| START + Duration::from_millis(ms);
        let mut table = Table::new(Trust::Twice);
        table.heard(after(0), at(1), InstanceId(1), hello("web1", 2), true);
        table.heard(after(0), at(2), InstanceId(2), hello("web2", 2), true);
        assert_eq!(
            (table.len(), table.claimed(), table.around().count()),
            (0, 0, 0)
        );

        table.heard(after(2000), at(1), InstanceId(1), hello("web1", 2), true);
        table.heard(after(2000), at(9), InstanceId(2), hello("web2", 2), true);
        assert_eq!(
            (table.len(), table.claimed(), table.around().count()),
            (1, 2, 1),
            "web2 spoke from elsewhere"
        );

        // A flood that lasts four seconds, whose hosts all prove themselves twice.
        for round in [0, 3800] {
            for n in 0..19_000u32 {
                let (id, name) = (InstanceId(u64::from(n) + 100), format!("ghost{n}"));
                table.heard(after(2000 + round), at(n + 100), id, hello(&name, 9), true);
            }
        }

        assert!(table.len() > 10_000);
        table.heard(after(8000), at(1), InstanceId(1), hello("web1", 2), true);
        table.expire(after(5800 + 12_700 + 250));

        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_flood_of_names_stays_bounded_at_one_address_and_at_all() {
        let mut table = Table::default();
        let tree = |n: usize| TreeState::nothing(TreeName::new(&format!("t{n}")).expect("legal"));
        for n in 0..1000u64 {
            table.heard(
                START,
                at(1),
                InstanceId(n),
                hello(&format!("h{n}"), 1),
                true,
            );
        }

        assert_eq!(table.len(), MAX_EACH);
        for n in 0..2000u32 {
            let trees = (0..200).map(tree).collect();
            let id = InstanceId(10_000 + u64::from(n));
            table.heard(
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

        assert!(table.trees <= MAX_TREE_STATES && table.len() <= MAX_EACH + MAX_TREE_STATES / 200);
    }
}
