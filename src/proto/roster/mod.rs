//! The processes of a network without multicast: their addresses, each proven by a challenge.
//!
//! A process starts with the addresses of its configuration, and any of them is a way in. It pings
//! each address; the answer proves the address and lists other hosts, which are pinged in turn. A
//! host that does not answer several pings is forgotten. Nothing but pings goes to an address
//! without proof, so a forged list makes nobody send data to a stranger.
//!
//! The interval of pings grows with the number of hosts. In a fleet of any size a process sends
//! about [`PINGS_A_SECOND`] pings a second, and each exchange proves both sides to each other.

mod budget;
mod challenge;
mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use self::budget::Budget;
use self::challenge::Challenge;
use self::peer::{Peer, PeerState};
use super::{Dest, Transmit};
use crate::id::{InstanceId, SegmentId};
use crate::units::Moment;
use crate::wire::Front;
use crate::wire::datagram::write_peer;
use crate::wire::peer::{MAX_LISTED_PEERS, PeerMessage, Ping, Pong};
use crate::wire::relay::RelayTargets;

/// Pings that a process sends in a second to hosts that answer.
pub const PINGS_A_SECOND: u32 = 4;
/// Shortest interval between two pings of a host that answers.
const MIN_PING_INTERVAL: Duration = Duration::from_secs(2);
/// Wait before a ping beyond the limit of its address.
const BUDGET_WAIT: Duration = Duration::from_millis(250);
/// Largest number of addresses known to a process.
pub const MAX_PEERS: usize = 4096;

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
}

/// A host as others reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReachedHost {
    /// Its proven address.
    pub address: SocketAddr,
    /// The running process.
    pub instance: InstanceId,
    /// Its segment; `None` if it hears no other host by multicast.
    pub segment: Option<SegmentId>,
    /// Whether it hears the multicast of this process.
    pub hears: bool,
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
    /// Returns whether the host `own` passes the datagram on to any of `targets`.
    pub fn is_passed_on(self, own: InstanceId, targets: &RelayTargets) -> bool {
        match self {
            Self::First => true,
            Self::Second(relay) => targets.is_head(own, relay),
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
    /// Addresses with proof.
    proven: Vec<SocketAddr>,
    /// Those of hosts.
    hosts: Vec<SocketAddr>,
    /// Hosts whose instance is known, in the order of their addresses.
    reached: Vec<ReachedHost>,
    /// Their addresses.
    addresses: BTreeMap<InstanceId, SocketAddr>,
    /// Number of changes of these lists.
    version: u64,
    /// Hosts proven since the last call of [`Roster::take_new`].
    new: Vec<SocketAddr>,
    /// Time of the next ping, or an earlier time.
    due: Moment,
    out: Vec<(SocketAddr, PeerMessage)>,
    /// Limit of answers to addresses without proof.
    answers: Budget,
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
            proven: Vec::new(),
            hosts: Vec::new(),
            reached: Vec::new(),
            addresses: BTreeMap::new(),
            version: 1,
            new: Vec::new(),
            due: now,
            out: Vec::new(),
            answers: Budget::new(now, setup.seed ^ 2),
            pings: Budget::new(now, setup.seed ^ 3),
            rng: fastrand::Rng::with_seed(setup.seed ^ 1),
        }
    }

    /// Sets the addresses of this process, which are never pinged.
    pub fn set_own(&mut self, own: Vec<SocketAddr>) {
        self.own = own;
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
        &self.proven
    }

    /// Addresses of the hosts that answer, sorted.
    pub fn hosts(&self) -> &[SocketAddr] {
        &self.hosts
    }

    /// Hosts that answer, sorted by address.
    pub fn reached(&self) -> &[ReachedHost] {
        &self.reached
    }

    /// Number of the present lists; another one after each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Address of a host that answers.
    pub fn address_of(&self, host: InstanceId) -> Option<SocketAddr> {
        self.addresses.get(&host).copied()
    }

    /// Way of a datagram to be passed on that came from `from`. `None` from a stranger.
    pub fn hop(&self, from: SocketAddr) -> Option<Hop> {
        let peer = self.peers.get(&from)?;
        match peer.host {
            _ if peer.state != PeerState::Proven => None,
            false => Some(Hop::First),
            true => peer.instance.map(Hop::Second),
        }
    }

    /// Returns whether a command or a session, not a host, answers at this address.
    pub fn is_session(&self, address: SocketAddr) -> bool {
        self.peers
            .get(&address)
            .is_some_and(|peer| peer.state == PeerState::Proven && !peer.host)
    }

    /// Takes the hosts that have answered for the first time.
    pub fn take_new(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.new)
    }

    /// Returns whether each known address has answered, or has let pass the time for it.
    pub fn is_settled(&self) -> bool {
        self.out.is_empty() && !self.peers.values().any(Peer::may_still_answer)
    }

    /// Takes the content of a peer datagram.
    pub fn handle(&mut self, now: Moment, from: SocketAddr, source: InstanceId, bytes: &[u8]) {
        if source == self.setup.instance {
            // One of its own addresses, as others see it.
            self.peers.remove(&from);
            if !self.own.contains(&from) {
                self.own.push(from);
            }
            return;
        }

        if let Some(peer) = self.peers.get_mut(&from) {
            peer.instance = Some(source);
        }

        match PeerMessage::decode(bytes) {
            Some(PeerMessage::Ping(ping)) => self.on_ping(now, from, &ping),
            Some(PeerMessage::Pong(pong)) => self.on_pong(now, from, &pong),
            Some(PeerMessage::Leave(echo)) if self.challenge.holds(now, from, echo) => {
                self.on_leave(now, from);
            }
            Some(PeerMessage::Leave(_)) => {}
            None => {}
        }

        // The message may have made the entry.
        if let Some(peer) = self.peers.get_mut(&from)
            && peer.instance != Some(source)
        {
            peer.instance = Some(source);
            self.collect();
        }
    }

    /// Answers a ping. An address without proof gets a nonce and no memory: it proves itself with
    /// its next ping.
    fn on_ping(&mut self, now: Moment, from: SocketAddr, ping: &Ping) {
        let proves = ping
            .echo
            .is_some_and(|echo| self.challenge.holds(now, from, echo));

        if proves {
            self.on_proof(now, from, ping.host);
        } else if !self.answers.spend(now, from.ip()) {
            return;
        }

        if let Some(peer) = self.peers.get_mut(&from) {
            peer.challenge = Some(ping.nonce);
        }

        let pong = Pong {
            echo: ping.nonce,
            nonce: self.challenge.nonce(now, from),
            host: self.setup.host,
            known: self.hosts.len() as u32,
            peers: if proves && ping.list {
                self.sample(from)
            } else {
                Vec::new()
            },
        };
        self.out.push((from, PeerMessage::Pong(pong)));
    }

    fn on_pong(&mut self, now: Moment, from: SocketAddr, pong: &Pong) {
        if !self.challenge.holds(now, from, pong.echo) {
            return;
        }

        let is_first = !self.on_proof(now, from, pong.host);
        let hosts = self.hosts.len() as u32;
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.challenge = Some(pong.nonce);
            peer.on_answer(pong.known > hosts);
            // The first answer lists nobody, because it goes to an address without proof.
            if pong.host && (is_first || peer.asks_for_more()) {
                peer.ask_for_list(now);
                self.due = self.due.min(now);
            }
        }

        for &address in &pong.peers {
            if may_be_listed(address, from) {
                self.candidate(now, address);
            }
        }
    }

    /// Forgets a process that ends; a configured address may get another one.
    fn on_leave(&mut self, now: Moment, from: SocketAddr) {
        let configured = self.peers.remove(&from).is_some_and(|peer| peer.configured);
        if configured {
            self.peers.insert(from, Peer::silent(now));
        }
        self.collect();
    }

    /// Tells all proven processes that this one ends.
    pub fn leave(&mut self) {
        let challenges = self
            .proven
            .iter()
            .filter_map(|&to| Some((to, self.peers.get(&to)?.challenge?)));
        self.out
            .extend(challenges.map(|(to, echo)| (to, PeerMessage::Leave(echo))));
    }

    /// Records that the process at `from` receives there; returns whether that was known.
    fn on_proof(&mut self, now: Moment, from: SocketAddr, host: bool) -> bool {
        let interval = ping_interval(self.hosts.len()).mul_f64(0.75 + self.rng.f64() / 2.0);
        let Some(peer) = self.candidate(now, from) else {
            return false;
        };

        let known = peer.state == PeerState::Proven && peer.host == host;
        peer.host = host;
        peer.prove(now + peer.early_interval().unwrap_or(interval).min(interval));
        if !known {
            self.collect();
            if host && !self.new.contains(&from) {
                self.new.push(from);
            }
        }

        known
    }

    /// Returns the entry of an address, if necessary a new one that is pinged at once. `None` if
    /// there is no room or the address is this process's own.
    fn candidate(&mut self, now: Moment, address: SocketAddr) -> Option<&mut Peer> {
        let is_usable = address.port() > 0
            && !address.ip().is_unspecified()
            && !address.ip().is_multicast()
            && address.ip() != IpAddr::from([255; 4]);

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

    /// Up to [`MAX_LISTED_PEERS`] random hosts, for the process at `to`.
    fn sample(&mut self, to: SocketAddr) -> Vec<SocketAddr> {
        let listed = |address: &SocketAddr| *address != to && may_be_listed(*address, to);
        let hosts = self.hosts.iter().copied().filter(listed);
        self.rng.choose_multiple(hosts, MAX_LISTED_PEERS)
    }

    /// Lists the addresses with proof again, one for each process.
    fn collect(&mut self) {
        self.hosts.clear();
        self.proven.clear();
        self.reached.clear();
        let mut processes = BTreeSet::new();
        let proven = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.state == PeerState::Proven);

        for (&address, peer) in proven {
            if peer.instance.is_none_or(|id| processes.insert(id)) {
                self.proven.push(address);
                if peer.host {
                    self.hosts.push(address);
                    self.reached
                        .extend(peer.instance.map(|instance| ReachedHost {
                            address,
                            instance,
                            segment: peer.segment,
                            hears: peer.hears,
                        }));
                }
            }
        }

        let reached = self.reached.iter();
        self.addresses = reached.map(|host| (host.instance, host.address)).collect();
        self.version += 1;
    }

    /// Sends due pings, and forgets the processes that do not answer.
    pub fn handle_timeout(&mut self, now: Moment) {
        if self.due > now {
            return;
        }

        let mut lost = false;
        let mut next = None;
        self.peers.retain(|&address, peer| {
            let mut keep = true;
            if peer.due <= now {
                let was_proven = peer.state == PeerState::Proven;
                // Proven addresses have a share of their own, by the interval.
                let may_ping =
                    was_proven || !peer.is_pinged() || self.pings.spend(now, address.ip());
                if may_ping {
                    keep = peer.try_again(now);
                    lost |= was_proven && peer.state != PeerState::Proven;
                } else {
                    peer.due = now + BUDGET_WAIT;
                }

                if keep && may_ping && peer.is_pinged() {
                    let ping = Ping {
                        nonce: self.challenge.nonce(now, address),
                        echo: peer.challenge,
                        host: self.setup.host,
                        list: peer.takes_list(),
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
        if lost {
            self.collect();
        }
    }

    /// Time of the next event; in the past if one is due.
    pub fn timeout(&self) -> Moment {
        self.due
    }

    /// Writes the next datagram into `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (to, message) = self.out.pop()?;
        self.counter += 1;
        out.clear();
        let front = Front {
            source: self.setup.instance,
            counter: self.counter,
        };
        write_peer(out, front, &message.encode());
        out.resize(out.len() + self.setup.room, 0);

        Some(Transmit {
            dest: Dest::Host(to),
            segment: out.len(),
        })
    }
}

/// Interval between the pings of one host, in a fleet of `hosts`.
fn ping_interval(hosts: usize) -> Duration {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
    MIN_PING_INTERVAL.max(Duration::from_secs(1) * hosts / PINGS_A_SECOND)
}

/// Returns whether `address` has a meaning on another machine, or the peer `of` is on this one.
fn may_be_listed(address: SocketAddr, of: SocketAddr) -> bool {
    let is_near = match address.ip() {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback(),
    };
    let needs_scope = match address.ip() {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };

    !needs_scope && (!is_near || of.ip().is_loopback())
}

#[cfg(test)]
mod tests;
