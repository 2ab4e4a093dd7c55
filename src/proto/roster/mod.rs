//! The processes of a network without multicast: their addresses, each proven by a challenge.
//!
//! A process starts with the addresses of its configuration, and any of them is a way in. It pings
//! each address; the answer proves the address and lists other hosts, which are pinged in turn. A
//! host that does not answer several pings is forgotten. Nothing but pings goes to an address
//! without proof, so a forged list makes nobody send data to a stranger.
//!
//! The interval of pings grows with the number of hosts. In a fleet of any size a process sends
//! about [`PINGS_A_SECOND`] pings a second, and each exchange proves both sides to each other.
//!
//! With multicast a process also pings its group, and hosts that it did not know answer. Messages
//! to a process say whether its multicast arrives, so each knows who hears it.

mod addresses;
mod answers;
mod budget;
mod challenge;
mod exchange;
mod listing;
mod outbox;
mod peer;
mod pings;
mod segment;
mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use self::answers::GroupAnswers;
use self::budget::Budget;
use self::challenge::Challenge;
pub use self::listing::ReachedHost;
use self::listing::{ListState, Listing, Lists};
use self::outbox::{Outbox, Shares};
pub use self::peer::MAX_PEERS;
use self::peer::{Peer, PeerState};
pub use self::segment::SegmentSetup;
use self::segment::{Known, Segment};
pub use self::targets::{TargetAddresses, TargetLookup};
use super::{Dest, Transmit};
use crate::id::InstanceId;
use crate::units::Moment;
use crate::wire::Front;
use crate::wire::datagram::write_peer;
use crate::wire::peer::PeerMessage;
use crate::wire::relay::RelayTargets;

/// Pings that a process sends in a second to hosts that answer.
pub const PINGS_A_SECOND: u32 = 4;
/// Shortest interval between two pings of a host that answers.
const MIN_PING_INTERVAL: Duration = Duration::from_secs(2);

/// Facts about this process.
#[derive(Debug, Clone, Copy)]
pub struct RosterSetup {
    /// Instance of this process, for the front of each datagram.
    pub instance: InstanceId,
    /// Random seed.
    pub seed: u64,
    /// Bytes to leave free behind each datagram.
    pub room: usize,
    /// Whether this process takes releases.
    pub host: bool,
    /// Its multicast.
    pub segment: SegmentSetup,
}

/// Way of a datagram that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// It came from the sender.
    First,
    /// It came from this host.
    Second(InstanceId),
}

impl Hop {
    /// Returns whether a host with these `targets` passes the datagram on to any of them.
    pub fn is_passed_on(self, targets: &RelayTargets) -> bool {
        match self {
            Self::First => true,
            Self::Second(relay) => targets.is_head(relay),
        }
    }
}

/// Limits of messages to single addresses.
#[derive(Debug)]
struct RosterLimits {
    /// Of what proven addresses cause.
    shares: Shares,
    /// Of answers to addresses without proof.
    answers: Budget,
    /// Of pings to them.
    pings: Budget,
}

/// Addresses of the other processes.
#[derive(Debug)]
pub struct Roster {
    setup: RosterSetup,
    challenge: Challenge,
    counter: u64,
    /// Addresses of this process.
    own: Vec<SocketAddr>,
    /// Configured addresses.
    ways_in: Vec<SocketAddr>,
    peers: BTreeMap<SocketAddr, Peer>,
    /// Those with proof.
    lists: Lists,
    segment: Segment,
    /// Time of the next ping, or an earlier time.
    due: Moment,
    out: Outbox,
    limits: RosterLimits,
    /// Answers to pings to the group.
    group_answers: GroupAnswers,
    rng: fastrand::Rng,
}

impl Roster {
    /// Creates a roster without addresses.
    pub fn new(now: Moment, setup: RosterSetup) -> Self {
        Self {
            setup,
            challenge: Challenge::new(setup.seed),
            counter: 0,
            own: Vec::new(),
            ways_in: Vec::new(),
            peers: BTreeMap::new(),
            lists: Lists::default(),
            segment: Segment::new(now, setup.segment, setup.host.then_some(setup.instance)),
            due: now,
            out: Outbox::default(),
            limits: RosterLimits {
                shares: Shares::new(now),
                answers: Budget::new(now, setup.seed ^ 2),
                pings: Budget::new(now, setup.seed ^ 3),
            },
            group_answers: GroupAnswers::new(now, setup.seed ^ 4),
            rng: fastrand::Rng::with_seed(setup.seed ^ 1),
        }
    }

    /// Addresses of all processes that answer.
    pub fn proven(&self) -> &[SocketAddr] {
        &self.lists.listing.proven
    }

    /// Addresses of the processes that answer and do not hear the multicast of this one.
    pub fn distant(&self) -> &[SocketAddr] {
        &self.lists.listing.distant
    }

    /// Addresses of the hosts that answer, sorted.
    pub fn hosts(&self) -> &[SocketAddr] {
        &self.lists.listing.hosts
    }

    /// Hosts that answer, sorted by address.
    pub fn reached(&self) -> &[ReachedHost] {
        &self.lists.listing.reached
    }

    /// Number of the present lists; another one after each change.
    pub fn version(&self) -> u64 {
        self.lists.version
    }

    /// Way of a datagram to be passed on that came from `from`. `None` from a stranger.
    pub fn hop(&self, from: SocketAddr) -> Option<Hop> {
        let peer = self.peers.get(&from)?;
        match peer.facts.host {
            _ if peer.state != PeerState::Proven => None,
            false => Some(Hop::First),
            true => peer.facts.instance.map(Hop::Second),
        }
    }

    /// Takes the hosts that have answered for the first time.
    pub fn take_new(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.lists.new)
    }

    /// Takes the hosts that do not answer any more.
    pub fn take_gone(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.lists.gone)
    }

    /// Returns whether each known address has answered, or has let pass the time for it.
    pub fn is_settled(&self) -> bool {
        let is_sent = self.out.is_empty() && self.segment.has_pinged();
        let is_listed = self.lists.state != ListState::Stale;
        is_sent && is_listed && !self.peers.values().any(Peer::may_still_answer)
    }

    /// Tells all proven processes that this one ends.
    pub fn leave(&mut self) {
        let challenges = self
            .lists
            .listing
            .proven
            .iter()
            .filter_map(|&to| Some((to, self.peers.get(&to)?.challenge?)));
        for (to, echo) in challenges {
            self.out.push(to, PeerMessage::Leave(echo));
        }
    }

    /// Lists the addresses with proof again: the first change at once, the others all together,
    /// since a process may state new facts in each of its datagrams.
    fn collect(&mut self, now: Moment) {
        if self.lists.state == ListState::Idle {
            self.relist(now);
            self.lists.state = ListState::Collected;
        } else {
            self.lists.state = ListState::Stale;
            self.due = self.due.min(now);
        }
    }

    /// Lists the addresses with proof again at once.
    fn relist(&mut self, now: Moment) {
        self.lists.set(Listing::of(&self.peers));
        self.update_segment(now);
    }

    /// Sets the label of the segment.
    fn update_segment(&mut self, now: Moment) {
        let known = Known {
            peers: &self.peers,
            listing: &self.lists.listing,
        };
        self.segment.update(now, known);
    }

    /// Time of the next event; in the past if one is due.
    pub fn timeout(&self) -> Moment {
        let group = [self.segment.timeout(), self.group_answers.timeout()];
        group.into_iter().flatten().fold(self.due, Moment::min)
    }

    /// Writes the next datagram into `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (to, message) = self.out.pop()?;
        let dest = to.map_or(Dest::Group, Dest::Host);
        self.counter += 1;
        out.clear();
        let front = Front {
            source: self.setup.instance,
            counter: self.counter,
        };
        write_peer(out, front, &message.encode());
        out.resize(out.len() + self.setup.room, 0);

        Some(Transmit {
            dest,
            segment: out.len(),
        })
    }
}

/// Returns whether a process with the addresses `own`, if they are known, has one of the family of
/// `address`.
pub fn is_reachable(own: &[SocketAddr], address: SocketAddr) -> bool {
    let fits = |own: &SocketAddr| own.is_ipv4() == address.is_ipv4();
    own.is_empty() || own.iter().any(fits)
}

/// Interval between the pings of one host, in a fleet of `hosts`.
fn ping_interval(hosts: usize) -> Duration {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
    MIN_PING_INTERVAL.max(Duration::from_secs(1) * hosts / PINGS_A_SECOND)
}

#[cfg(test)]
mod tests;
