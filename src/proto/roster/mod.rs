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

mod answers;
mod budget;
mod challenge;
mod exchange;
mod listing;
mod peer;
mod segment;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use self::answers::{GroupAnswer, GroupAnswers};
use self::budget::Budget;
use self::challenge::Challenge;
use self::listing::Listing;
pub use self::listing::ReachedHost;
use self::peer::{Peer, PeerState};
use self::segment::Segment;
pub use self::segment::SegmentSetup;
use super::{Dest, Transmit};
use crate::id::InstanceId;
use crate::units::Moment;
use crate::wire::Front;
use crate::wire::datagram::write_peer;
use crate::wire::peer::{PeerMessage, Ping};
use crate::wire::relay::RelayTargets;

/// Pings that a process sends in a second to hosts that answer.
pub const PINGS_A_SECOND: u32 = 4;
/// Shortest interval between two pings of a host that answers.
const MIN_PING_INTERVAL: Duration = Duration::from_secs(2);
/// Wait before a ping beyond the limit of its address.
const BUDGET_WAIT: Duration = Duration::from_millis(250);
/// Largest number of addresses known to a process.
pub const MAX_PEERS: usize = 8192;
/// Number of known addresses from which on no more are taken without proof: the rest is for
/// processes that prove theirs.
const MAX_FROM_LISTS: usize = MAX_PEERS / 2;

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

/// Addresses of the other processes.
#[derive(Debug)]
pub struct Roster {
    setup: RosterSetup,
    challenge: Challenge,
    counter: u64,
    /// Addresses of this process.
    own: Vec<SocketAddr>,
    peers: BTreeMap<SocketAddr, Peer>,
    /// Those with proof.
    listing: Listing,
    /// Number of changes of the lists.
    version: u64,
    segment: Segment,
    /// Hosts proven since the last call of [`Roster::take_new`].
    new: Vec<SocketAddr>,
    /// Hosts given up since the last call of [`Roster::take_gone`].
    gone: Vec<SocketAddr>,
    /// Time of the next ping, or an earlier time.
    due: Moment,
    out: Vec<(SocketAddr, PeerMessage)>,
    /// A ping to the group, which is sent before `out`: answers to it say who hears it.
    group_ping: Option<Ping>,
    /// Limit of answers to addresses without proof.
    answers: Budget,
    /// Answers to pings to the group.
    group_answers: GroupAnswers,
    /// Limit of pings to addresses without proof.
    pings: Budget,
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
            peers: BTreeMap::new(),
            listing: Listing::default(),
            version: 1,
            segment: Segment::new(now, setup.segment, setup.host.then_some(setup.instance)),
            new: Vec::new(),
            gone: Vec::new(),
            due: now,
            out: Vec::new(),
            group_ping: None,
            answers: Budget::new(now, setup.seed ^ 2),
            group_answers: GroupAnswers::new(now, setup.seed ^ 4),
            pings: Budget::new(now, setup.seed ^ 3),
            rng: fastrand::Rng::with_seed(setup.seed ^ 1),
        }
    }

    /// Sets the addresses of this process, which are never pinged.
    pub fn set_own(&mut self, now: Moment, own: Vec<SocketAddr>) {
        if own == self.own {
            return;
        }

        self.own = own;
        self.peers.retain(|address, _| !self.own.contains(address));
        self.collect(now);
        for peer in self.peers.values_mut().filter(|peer| peer.is_pinged()) {
            peer.challenge = None;
            peer.due = now;
            self.due = self.due.min(now);
        }
    }

    /// Sets the configured addresses, which are pinged until they answer.
    pub fn configure(&mut self, now: Moment, ways_in: &[SocketAddr]) {
        for (address, peer) in &mut self.peers {
            peer.configured = ways_in.contains(address);
        }

        for &address in ways_in {
            if let Some(peer) = self.candidate(now, address) {
                peer.configured = true;
            }
        }
    }

    /// Addresses of all processes that answer.
    pub fn proven(&self) -> &[SocketAddr] {
        &self.listing.proven
    }

    /// Addresses of the processes that answer and do not hear the multicast of this one.
    pub fn distant(&self) -> &[SocketAddr] {
        &self.listing.distant
    }

    /// Addresses of the hosts that answer, sorted.
    pub fn hosts(&self) -> &[SocketAddr] {
        &self.listing.hosts
    }

    /// Hosts that answer, sorted by address.
    pub fn reached(&self) -> &[ReachedHost] {
        &self.listing.reached
    }

    /// Number of the present lists; another one after each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Address of a host that answers.
    pub fn address_of(&self, host: InstanceId) -> Option<SocketAddr> {
        self.listing.address_of(host)
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
        std::mem::take(&mut self.new)
    }

    /// Takes the hosts that do not answer any more.
    pub fn take_gone(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.gone)
    }

    /// Returns whether each known address has answered, or has let pass the time for it.
    pub fn is_settled(&self) -> bool {
        let is_sent = self.out.is_empty() && self.segment.has_pinged();
        is_sent && !self.peers.values().any(Peer::may_still_answer)
    }

    /// Tells all proven processes that this one ends.
    pub fn leave(&mut self) {
        let challenges = self
            .listing
            .proven
            .iter()
            .filter_map(|&to| Some((to, self.peers.get(&to)?.challenge?)));
        self.out
            .extend(challenges.map(|(to, echo)| (to, PeerMessage::Leave(echo))));
    }

    /// Returns the entry of an address, if necessary a new one that is pinged at once. `None` if
    /// there is no room, if the address is this process's own, or if no link has its family.
    fn candidate(&mut self, now: Moment, address: SocketAddr) -> Option<&mut Peer> {
        let is_usable = address.port() > 0
            && !address.ip().is_unspecified()
            && !address.ip().is_multicast()
            && address.ip() != IpAddr::from([255; 4])
            && is_reachable(&self.own, address);

        let is_known = self.peers.contains_key(&address);
        if !is_usable || self.own.contains(&address) || (!is_known && self.peers.len() >= MAX_PEERS)
        {
            return None;
        }

        if !is_known {
            self.due = self.due.min(now);
        }

        Some(self.peers.entry(address).or_insert_with(|| Peer::new(now)))
    }

    /// Lists the addresses with proof again.
    fn collect(&mut self, now: Moment) {
        let listing = Listing::of(&self.peers);
        if listing != self.listing {
            self.listing = listing;
            self.version += 1;
        }
        self.segment.update(now, &self.listing.reached);
    }

    /// Pings the group, and answers such pings of others.
    fn handle_group_timeout(&mut self, now: Moment) {
        let nonce = self.challenge.group_nonce(now);
        if let Some(ping) = self.segment.ping(now, nonce, self.rng.f64()) {
            self.group_ping = Some(ping);
        }

        while let Some(GroupAnswer { to, instance, echo }) = self.group_answers.next(now) {
            if !self.is_proven(to, instance) {
                let pong = self.pong(now, to, echo);
                self.out.push((to, PeerMessage::Pong(pong)));
            }
        }
    }

    /// Sends due pings, and forgets the processes that do not answer.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.handle_group_timeout(now);
        if self.due > now {
            return;
        }

        let mut lost = false;
        let mut next = None;
        self.peers.retain(|&address, peer| {
            let mut keep = true;
            let was_proven = peer.state == PeerState::Proven;
            let instance = peer.facts.instance;
            let heard = instance.and_then(|instance| self.segment.heard(now, instance));
            if was_proven && peer.told != heard.is_some() {
                peer.due = peer.due.min(now);
            }

            if peer.due <= now {
                // Proven addresses have a share of their own, by the interval.
                let may_ping =
                    was_proven || !peer.is_pinged() || self.pings.spend(now, address.ip());
                if may_ping {
                    keep = peer.try_again(now);
                    if was_proven && peer.state != PeerState::Proven {
                        lost = true;
                        if peer.facts.host && self.gone.len() < MAX_PEERS {
                            self.gone.push(address);
                        }
                    }
                } else {
                    peer.due = now + BUDGET_WAIT;
                }

                if keep && may_ping && peer.is_pinged() {
                    peer.told = heard.is_some();
                    let ping = Ping {
                        nonce: self.challenge.nonce(now, address),
                        echo: peer.challenge,
                        host: self.setup.host,
                        list: peer.takes_list(),
                        heard,
                        segment: self.segment.label(),
                        interval: None,
                    };
                    self.out.push((address, PeerMessage::Ping(ping)));
                }
            }

            if keep {
                next = Some(next.map_or(peer.due, |next: Moment| next.min(peer.due)));
            }
            keep
        });

        self.due = next.unwrap_or(now + MIN_PING_INTERVAL);
        match lost {
            true => self.collect(now),
            false => self.segment.update(now, &self.listing.reached),
        }
    }

    /// Time of the next event; in the past if one is due.
    pub fn timeout(&self) -> Moment {
        let group = [self.segment.timeout(), self.group_answers.timeout()];
        group.into_iter().flatten().fold(self.due, Moment::min)
    }

    /// Writes the next datagram into `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let group_ping = self.group_ping.take();
        let (dest, message) = match group_ping {
            Some(ping) => (Dest::Group, PeerMessage::Ping(ping)),
            None => {
                let (to, message) = self.out.pop()?;
                (Dest::Host(to), message)
            }
        };
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
