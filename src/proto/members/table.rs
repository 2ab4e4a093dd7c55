//! Table of the members known to one host or sender, and the lifetime of its entries.
//!
//! Only confirmed members count: members that have proven to be alive now, see
//! [`super::super::freshness`]. An unproven beacon is kept for a while, but changes neither
//! intervals nor slots nor the reported size of the fleet.

mod claims;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use claims::{FleetClaims, take};

use crate::id::{HostName, InstanceId};
use crate::units::Moment;
use crate::wire::message::Hello;

/// Shortest interval between beacons.
const BEACON_INTERVAL: Duration = Duration::from_secs(2);
/// Approximate bound on beacons a second in the whole group.
const GROUP_BEACONS: u32 = 20;
/// The same for the copies of one host's beacons in a network without multicast.
const COPIED_BEACONS: u32 = 4;
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
    /// Copies of each beacon that leave this host: several without multicast.
    copies: u32,
    members: BTreeMap<InstanceId, Member>,
    /// Member with each name and address.
    named: BTreeMap<(HostName, IpAddr), InstanceId>,
    /// Number of members at each address.
    at: BTreeMap<IpAddr, usize>,
    /// Number of trees of all members.
    trees: usize,
    /// Number of confirmed members.
    counted: usize,
    claims: FleetClaims,
    /// Time of the last scan for silent members.
    swept: Moment,
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
            let each = table.at.get(&ip).copied().unwrap_or(0);
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
        *self.at.entry(ip).or_default() += 1;

        if member.counts {
            self.counted += 1;
            self.claims.add(ip, member.hello.members);
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
            self.claims.remove(ip, member.hello.members);
        }

        take(&mut self.at, ip);
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

    /// Sets the copies of each beacon that leave this host.
    pub(super) fn set_copies(&mut self, copies: u32) {
        self.copies = copies;
    }

    /// Copies of each beacon that leave this host.
    pub(super) fn copies(&self) -> u32 {
        self.copies
    }

    /// Removes the members at an address.
    pub(super) fn remove_at(&mut self, address: SocketAddr) {
        let here = self.members.iter().filter(|(_, m)| m.address == address);
        let here: Vec<InstanceId> = here.map(|(id, _)| *id).collect();
        here.into_iter().for_each(|id| drop(self.remove(id)));
    }

    /// Interval between the beacons of each of `members` hosts.
    pub(super) fn interval(&self, members: u32) -> Duration {
        match self.trust {
            Trust::Proven => interval(members, self.copies),
            Trust::Twice => interval(members, self.copies).min(MAX_PLAIN_INTERVAL),
        }
    }

    /// Longest interval between the beacons of a member. One that reaches all others by unicast
    /// sends fewer of them than this host may.
    fn longest_interval(&self) -> Duration {
        let members = self.counted as u32;
        let copies = match self.copies {
            0 => 0,
            copies => copies.max(members),
        };

        match self.trust {
            Trust::Proven => interval(members, copies),
            Trust::Twice => interval(members, copies).min(MAX_PLAIN_INTERVAL),
        }
    }

    /// Forgets silent members. Scans all of them, so not at every call.
    pub fn expire(&mut self, now: Moment) {
        if now.since(self.swept) < EXPIRE_INTERVAL {
            return;
        }

        self.swept = now;
        let longest = self.longest_interval() * MISSED_INTERVALS;
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

    /// Returns the fleet size claimed by the members: after that many answers, all hosts have
    /// answered. A few votes above all others are ignored.
    pub fn claimed(&self) -> usize {
        self.claims.fleet_size().min(MAX_MEMBERS)
    }

    /// Returns whether the members claim the size of the table; of many, a few may be behind.
    pub fn is_vouched_for(&self) -> bool {
        self.claims.agree_on(self.len())
    }

    /// Returns the largest fleet size that any member claims.
    pub fn most_claimed(&self) -> usize {
        self.claims.most().min(MAX_MEMBERS)
    }
}

fn interval(members: u32, copies: u32) -> Duration {
    let second = Duration::from_secs(1);
    BEACON_INTERVAL
        .max(second * members / GROUP_BEACONS)
        .max(second * copies / COPIED_BEACONS)
}

#[cfg(test)]
mod tests;
