//! The multicast segment of this process: its pings to the group, the processes that it hears, and
//! the label that it shares with them.
//!
//! A process pings its group again and again, each time with a new nonce. A process that hears it
//! repeats the nonce in its own messages, which shows that it hears this process now. The hosts
//! that hear each other call their segment after the lowest of them. That host pings the group at a
//! fixed interval; the interval of the others grows with their number.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::listing::Listing;
use super::peer::Peer;
use crate::id::{InstanceId, Nonce, SegmentId};
use crate::units::Moment;
use crate::wire::peer::Ping;

/// Interval of the first pings to the group; doubles with each ping.
const FIRST_GROUP_INTERVAL: Duration = Duration::from_millis(100);
/// Doublings until the longest interval is exceeded.
const MAX_GROUP_DOUBLINGS: u32 = 13;
/// Shortest interval between pings to the group after them.
const MIN_GROUP_INTERVAL: Duration = Duration::from_secs(3);
/// Longest interval that a ping to the group may state.
const MAX_GROUP_INTERVAL: Duration = Duration::from_secs(410);
/// Pings to the group that all hosts of a segment send in a second.
const GROUP_PINGS_A_SECOND: u32 = 10;
/// Intervals without a ping after which a process is not heard any more.
const HEARD_INTERVALS: f64 = 3.5;
/// Largest number of processes that are heard.
pub(super) const MAX_HEARD: usize = 4096;

/// Shortest time between two searches for old entries while there is no room.
const HEARD_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Facts about this process and its segment.
#[derive(Debug, Clone, Copy)]
pub struct SegmentSetup {
    /// Whether this process sends and receives multicast.
    pub multicast: bool,
    /// Segment of the configuration.
    pub named: Option<SegmentId>,
}

/// Own pings to the group, and those of others.
#[derive(Debug)]
pub(super) struct Segment {
    setup: SegmentSetup,
    /// This process, if it is a host.
    own: Option<InstanceId>,
    label: Option<SegmentId>,
    /// Other hosts of the segment.
    hosts: usize,
    /// Time of the next ping to the group.
    due: Moment,
    /// Pings sent to the group.
    count: u32,
    /// Nonces of the last pings to the group, each with the time until which it may be repeated.
    sent: VecDeque<(Nonce, Moment)>,
    heard: BTreeMap<InstanceId, HeardProcess>,
    /// Time from which on old entries of `heard` are looked for again.
    sweep: Moment,
}

/// Last ping to the group of another process.
#[derive(Debug)]
struct HeardProcess {
    nonce: Nonce,
    /// Where it came from.
    from: SocketAddr,
    /// End of the time without proof of the address.
    short: Moment,
    /// End of the time with proof.
    until: Moment,
}

/// What is known about the address of a ping to the group, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PingOrigin {
    /// Its process has not proven it.
    Unproven,
    /// Its process has proven it.
    Proven,
    /// It is in the list of hosts.
    Listed,
}

/// Addresses of this process's roster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) peers: &'a BTreeMap<SocketAddr, Peer>,
    pub(super) listing: &'a Listing,
}

impl Known<'_> {
    fn origin(self, process: InstanceId, from: SocketAddr) -> PingOrigin {
        let is_proven = self
            .peers
            .get(&from)
            .is_some_and(|peer| peer.is_proven_by(process));
        match is_proven {
            false => PingOrigin::Unproven,
            true if self.listing.address_of(process) == Some(from) => PingOrigin::Listed,
            true => PingOrigin::Proven,
        }
    }

    /// Returns whether a ping still shows that its process is heard.
    fn is_kept(self, now: Moment, process: InstanceId, heard: &HeardProcess) -> bool {
        match self.origin(process, heard.from) {
            PingOrigin::Unproven => now < heard.short,
            PingOrigin::Proven | PingOrigin::Listed => now < heard.until,
        }
    }
}

impl Segment {
    /// Creates the segment of a process; `own` is its instance if it is a host.
    pub(super) fn new(now: Moment, setup: SegmentSetup, own: Option<InstanceId>) -> Self {
        Self {
            setup,
            own,
            label: setup.named.filter(|_| setup.multicast),
            hosts: 0,
            due: now,
            count: 0,
            sent: VecDeque::new(),
            heard: BTreeMap::new(),
            sweep: now,
        }
    }

    /// Returns whether this process has no multicast, or has pinged the group.
    pub(super) fn has_pinged(&self) -> bool {
        !self.setup.multicast || self.count > 0
    }

    /// The configured word, or the label; `None` without another host.
    pub(super) fn label(&self) -> Option<SegmentId> {
        self.label
    }

    /// Returns whether a ping to the group is due.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.setup.multicast && now >= self.due
    }

    /// Returns the due ping to the group. `random` is from 0 to 1.
    pub(super) fn ping(&mut self, now: Moment, nonce: Nonce, random: f64) -> Option<Ping> {
        if !self.is_due(now) {
            return None;
        }

        let interval = self.interval();
        let early = FIRST_GROUP_INTERVAL * (1 << self.count.min(MAX_GROUP_DOUBLINGS));
        self.due = now + interval.min(early).mul_f64(0.75 + random / 2.0);
        self.count = self.count.saturating_add(1);
        self.sent.retain(|(_, until)| now < *until);
        self.sent
            .push_back((nonce, now + interval.mul_f64(HEARD_INTERVALS)));

        Some(Ping {
            nonce,
            echo: None,
            host: self.own.is_some(),
            list: false,
            heard: None,
            segment: self.label,
            interval: u32::try_from(interval.as_millis()).ok(),
        })
    }

    /// Interval between pings to the group.
    fn interval(&self) -> Duration {
        let is_lowest = self.own.map(SegmentId::of) == self.label;
        let hosts = u32::try_from(self.hosts).unwrap_or(u32::MAX);
        match is_lowest {
            true => MIN_GROUP_INTERVAL,
            false => (Duration::from_secs(1) * hosts / GROUP_PINGS_A_SECOND)
                .clamp(MIN_GROUP_INTERVAL, MAX_GROUP_INTERVAL),
        }
    }

    /// Time of the next ping to the group.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.setup.multicast.then_some(self.due)
    }

    /// Records a ping to the group; returns whether its process was not heard from there before.
    ///
    /// Anyone can send a ping in the name of another process. One from an address that its process
    /// has not proven replaces none from an address that it has.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        (source, from): (InstanceId, SocketAddr),
        ping: &Ping,
        known: Known<'_>,
    ) -> bool {
        let origin = known.origin(source, from);
        let held = self.heard.get(&source);
        let is_held = held.is_some();
        if let Some(held) = held
            && held.from != from
            && known.is_kept(now, source, held)
        {
            let of_held = known.origin(source, held.from);
            if of_held > PingOrigin::Unproven && origin <= of_held {
                return false;
            }
        }
        if !is_held && !self.has_room(now, origin, known) {
            return false;
        }

        let interval = ping.interval.map_or(MIN_GROUP_INTERVAL, |interval| {
            Duration::from_millis(interval.into()).clamp(MIN_GROUP_INTERVAL, MAX_GROUP_INTERVAL)
        });
        let is_new = self.heard(now, source, from).is_none();
        let heard = HeardProcess {
            nonce: ping.nonce,
            from,
            short: now + MIN_GROUP_INTERVAL.mul_f64(HEARD_INTERVALS),
            until: now + interval.mul_f64(HEARD_INTERVALS),
        };
        self.heard.insert(source, heard);
        is_new
    }

    /// Returns whether one more process can be heard. One with proof takes the place of those
    /// without.
    fn has_room(&mut self, now: Moment, origin: PingOrigin, known: Known<'_>) -> bool {
        if self.heard.len() >= MAX_HEARD && now >= self.sweep {
            self.heard
                .retain(|process, heard| known.is_kept(now, *process, heard));
            self.sweep = now + HEARD_SWEEP_INTERVAL;
        }
        if self.heard.len() >= MAX_HEARD && origin > PingOrigin::Unproven {
            self.heard
                .retain(|process, heard| known.origin(*process, heard.from) > PingOrigin::Unproven);
        }

        self.heard.len() < MAX_HEARD
    }

    /// Nonce of the last ping to the group that arrived from a process at an address that it has
    /// proven, if it is still heard.
    pub(super) fn heard(
        &self,
        now: Moment,
        source: InstanceId,
        address: SocketAddr,
    ) -> Option<Nonce> {
        let heard = self.heard.get(&source)?;
        (now < heard.until && heard.from == address).then_some(heard.nonce)
    }

    /// Forgets a process that ends.
    pub(super) fn forget(&mut self, source: InstanceId) {
        self.heard.remove(&source);
    }

    /// Returns whether `nonce` is of a late ping of this process to the group.
    pub(super) fn is_own(&self, now: Moment, nonce: Nonce) -> bool {
        self.sent
            .iter()
            .any(|(sent, until)| *sent == nonce && now < *until)
    }

    /// Returns whether a process that repeats the nonce `heard` is near. Where both segments have a
    /// configured word, they have to be the same.
    pub(super) fn is_near(
        &self,
        now: Moment,
        heard: Option<Nonce>,
        segment: Option<SegmentId>,
    ) -> bool {
        let other = segment.filter(|segment| segment.is_named());
        let may_be = self
            .setup
            .named
            .zip(other)
            .is_none_or(|(own, other)| own == other);
        may_be && heard.is_some_and(|nonce| self.is_own(now, nonce))
    }

    /// Sets the label, from the hosts that answer.
    pub(super) fn update(&mut self, now: Moment, known: Known<'_>) {
        if !self.setup.multicast {
            return;
        }

        let is_heard = |host: InstanceId| {
            self.heard.get(&host).is_some_and(|heard| {
                now < heard.until && known.origin(host, heard.from) > PingOrigin::Unproven
            })
        };
        let near: Vec<SegmentId> = known
            .listing
            .reached
            .iter()
            .filter(|host| host.hears && is_heard(host.instance))
            .map(|host| SegmentId::of(host.instance))
            .collect();
        let own = self.own.map(SegmentId::of).filter(|_| !near.is_empty());
        let lowest = near.iter().copied().chain(own).min();
        self.label = self.setup.named.or(lowest);
        self.hosts = near.len();
    }
}
