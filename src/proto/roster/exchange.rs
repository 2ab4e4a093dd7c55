//! Messages of other processes: their answers, and the facts that they prove.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::answers::{GroupAnswer, answer_wait};
use super::outbox::SHARE_PERIOD;
use super::peer::{Peer, PeerFacts, PeerState};
use super::segment::Known;
use super::{Roster, ping_interval};
use crate::id::{InstanceId, Nonce, SegmentId};
use crate::units::Moment;
use crate::wire::peer::{MAX_LISTED_PEERS, PeerMessage, Ping, Pong};

impl Roster {
    /// Takes the content of a peer datagram.
    pub fn handle(&mut self, now: Moment, from: SocketAddr, source: InstanceId, bytes: &[u8]) {
        // Its own datagram came back, perhaps replayed from the address of another process.
        if source == self.setup.instance {
            return;
        }

        match PeerMessage::decode(bytes) {
            Some(PeerMessage::Ping(ping)) => self.on_ping(now, from, source, &ping),
            Some(PeerMessage::Pong(pong)) => self.on_pong(now, from, source, &pong),
            Some(PeerMessage::Leave(echo)) if self.challenge.holds(now, from, echo) => {
                self.on_leave(now, from);
            }
            Some(PeerMessage::Leave(_)) => {}
            None => {}
        }
    }

    /// Takes the content of a peer datagram that was sent to the group. It proves nothing, so a
    /// process that is not known gets an answer, and has to repeat the nonce of it.
    pub fn hear(&mut self, now: Moment, from: SocketAddr, source: InstanceId, bytes: &[u8]) {
        let Some(PeerMessage::Ping(ping)) = PeerMessage::decode(bytes) else {
            return;
        };
        if source == self.setup.instance || !self.setup.segment.multicast {
            return;
        }

        let wait = answer_wait(self.lists.listing.hosts.len(), self.rng.f64());
        let known = Known {
            peers: &self.peers,
            listing: &self.lists.listing,
        };
        let is_new = self.segment.hear(now, (source, from), &ping, known);
        if !self.is_proven(from, source) {
            let answer = GroupAnswer {
                to: from,
                instance: source,
                echo: ping.nonce,
            };
            self.group_answers.add(now, wait, answer);
        } else if is_new {
            // The ping of `handle_timeout` says that the process is heard.
            self.update_segment(now);
            self.due = self.due.min(now + wait);
        }
    }

    /// Returns whether this process has proven the address.
    pub(super) fn is_proven(&self, address: SocketAddr, source: InstanceId) -> bool {
        let peer = self.peers.get(&address);
        peer.is_some_and(|peer| peer.is_proven_by(source))
    }

    /// Notes that the process `source` sent a datagram from `from`. If another process had that
    /// address, the new one is asked at once to prove it: a host that was started again.
    pub fn on_source(&mut self, now: Moment, from: SocketAddr, source: InstanceId) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let is_other = peer.state == PeerState::Proven && !peer.is_proven_by(source);
        if !is_other || source == self.setup.instance || peer.awaits_answer() {
            return;
        }

        if self.limits.shares.spend_ping(now, from) {
            peer.due = peer.due.min(now);
            self.due = self.due.min(now);
        }
    }

    /// Answers a ping. An address without proof gets a nonce and no memory: it proves itself with
    /// its next ping.
    fn on_ping(&mut self, now: Moment, from: SocketAddr, source: InstanceId, ping: &Ping) {
        let proves = ping
            .echo
            .is_some_and(|echo| self.challenge.holds(now, from, echo));

        if proves {
            let facts = self.facts(now, source, ping.host, (ping.heard, ping.segment));
            self.on_proof(now, from, facts);
        } else if !self.limits.answers.spend(now, from.ip()) {
            return;
        }

        let heard = self.segment.heard(now, source, from).filter(|_| proves);
        let may_answer =
            (!proves || self.limits.shares.spend_answer(now, from)) && self.out.takes_answers();
        if let Some(peer) = self.peers.get_mut(&from) {
            if may_answer {
                peer.told = heard.is_some();
            }
            // A forged ping must not replace the nonce of a proven process.
            if proves || peer.state != PeerState::Proven {
                peer.challenge = Some(ping.nonce);
            }
        }

        if !may_answer {
            return;
        }

        let gets_list = proves && ping.list && self.limits.shares.spend_list(now, from);
        let pong = Pong {
            peers: if gets_list {
                self.sample(from)
            } else {
                Vec::new()
            },
            heard,
            segment: self.segment.label().filter(|_| proves),
            ..self.pong(now, from, ping.nonce)
        };
        self.out.push_answer(from, PeerMessage::Pong(pong));
    }

    /// Answer to the ping with the nonce `echo`, for an address without proof.
    pub(super) fn pong(&self, now: Moment, to: SocketAddr, echo: Nonce) -> Pong {
        Pong {
            echo,
            nonce: self.challenge.nonce(now, to),
            host: self.setup.host,
            known: self.lists.listing.hosts.len() as u32,
            peers: Vec::new(),
            heard: None,
            segment: None,
        }
    }

    /// Facts from a message of the process `source`.
    fn facts(
        &self,
        now: Moment,
        source: InstanceId,
        host: bool,
        (heard, segment): (Option<Nonce>, Option<SegmentId>),
    ) -> PeerFacts {
        PeerFacts {
            instance: Some(source),
            host,
            segment,
            hears: self.segment.is_near(now, heard, segment),
        }
    }

    fn on_pong(&mut self, now: Moment, from: SocketAddr, source: InstanceId, pong: &Pong) {
        if self.segment.is_own(now, pong.echo) {
            return self.on_group_answer(now, from, pong);
        }
        if !self.challenge.holds(now, from, pong.echo) {
            return;
        }

        let facts = self.facts(now, source, pong.host, (pong.heard, pong.segment));
        let is_first = !self.on_proof(now, from, facts);
        let hosts = self.lists.listing.hosts.len() as u32;
        if let Some(peer) = self.peers.get_mut(&from) {
            let is_unproven = peer.challenge.replace(pong.nonce).is_none();
            peer.on_answer(pong.known > hosts);
            // The first answer lists nobody, because it goes to an address without proof.
            if pong.host && (is_first || is_unproven || peer.asks_for_more()) {
                peer.ask_for_list(now);
                self.due = self.due.min(now);
            }
        }

        for &address in &pong.peers {
            if may_be_listed(address, from) && self.takes_unproven(address) {
                self.candidate(now, address);
            }
        }
    }

    /// Pings the address of an answer to a ping to the group, unless it is known. The answer proves
    /// nothing, since everyone there hears the ping.
    fn on_group_answer(&mut self, now: Moment, from: SocketAddr, pong: &Pong) {
        if self.takes_unproven(from)
            && let Some(peer) = self.candidate(now, from)
            && peer.challenge.is_none()
        {
            peer.challenge = Some(pong.nonce);
        }
    }

    /// Forgets a process that ends; a configured address may get another one.
    fn on_leave(&mut self, now: Moment, from: SocketAddr) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let instance = peer
            .facts
            .instance
            .filter(|_| peer.state == PeerState::Proven);
        if instance.is_some() && !self.limits.shares.spend_change(now, from) {
            return;
        }

        peer.state = PeerState::Silent;
        if let Some(instance) = instance {
            self.segment.forget(instance);
            self.doubt_addresses(now, instance);
        }
        let was = self.peers.remove(&from);
        if was.is_some_and(|peer| peer.configured) {
            self.peers.insert(from, Peer::silent(now));
        }
        self.collect(now);
    }

    /// Asks the other addresses of a process for a new proof, and gives it up until one comes.
    fn doubt_addresses(&mut self, now: Moment, instance: InstanceId) {
        for peer in self.peers.values_mut() {
            if peer.is_proven_by(instance) {
                peer.doubt(now);
                self.due = self.due.min(now);
            }
        }
        self.lists.add_gone(&self.peers, BTreeSet::from([instance]));
    }

    /// Returns the facts to keep of `facts`: the known ones after too many changes. The process is
    /// asked again soon.
    fn limited(&mut self, now: Moment, from: SocketAddr, facts: PeerFacts) -> PeerFacts {
        let peer = self.peers.get(&from);
        let known = peer.filter(|peer| peer.state == PeerState::Proven);
        match known.map(|peer| peer.facts) {
            Some(known) if known != facts && !self.limits.shares.spend_change(now, from) => {
                self.due = self.due.min(now + SHARE_PERIOD);
                known
            }
            _ => facts,
        }
    }

    /// Records that the process at `from` receives there; returns whether that was known.
    fn on_proof(&mut self, now: Moment, from: SocketAddr, facts: PeerFacts) -> bool {
        let hosts = self.lists.listing.hosts.len();
        let interval = ping_interval(hosts).mul_f64(0.75 + self.rng.f64() / 2.0);
        let stated = facts;
        let facts = self.limited(now, from, stated);
        let Some(peer) = self.candidate(now, from) else {
            return false;
        };

        let last = (peer.facts.instance, peer.facts.host);
        let known = peer.state == PeerState::Proven && last == (facts.instance, facts.host);
        if !known {
            peer.since = now;
        }
        let next = match facts == stated {
            true => peer.early_interval().unwrap_or(interval).min(interval),
            false => SHARE_PERIOD,
        };
        if peer.prove(facts, now + next) {
            self.collect(now);
        }
        if !known && facts.host {
            self.lists.add_new(from);
        }

        known
    }

    /// Up to [`MAX_LISTED_PEERS`] random hosts, for the process at `to`.
    fn sample(&mut self, to: SocketAddr) -> Vec<SocketAddr> {
        let listed = |address: &SocketAddr| *address != to && may_be_listed(*address, to);
        let hosts = self.lists.listing.hosts.iter().copied().filter(listed);
        self.rng.choose_multiple(hosts, MAX_LISTED_PEERS)
    }
}

/// Returns whether `address` has a meaning on another machine, or the peer `of` is on this one.
pub(super) fn may_be_listed(address: SocketAddr, of: SocketAddr) -> bool {
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
