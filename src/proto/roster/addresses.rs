//! Addresses that the roster takes: those of the configuration, and a limited number of others.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::peer::{Peer, PeerState};
use super::{MAX_PEERS, Roster, is_reachable};
use crate::units::Moment;

/// Number of known addresses from which on no more are taken without proof: the rest is for
/// processes that prove theirs.
const MAX_FROM_LISTS: usize = MAX_PEERS / 2;
/// Largest number of addresses of one machine that answer or may answer.
const MAX_AT_IP: usize = 64;
/// The same from which on no more are taken without proof.
const MAX_AT_IP_FROM_LISTS: usize = MAX_AT_IP / 2;

impl Roster {
    /// Sets the addresses of this process, which are never pinged.
    pub fn set_own(&mut self, now: Moment, own: Vec<SocketAddr>) {
        if own == self.own {
            return;
        }

        self.own = own;
        self.peers.retain(|address, _| !self.own.contains(address));
        self.relist(now);
        for peer in self.peers.values_mut().filter(|peer| peer.is_pinged()) {
            peer.challenge = None;
            peer.due = now;
            self.due = self.due.min(now);
        }

        // A way in may have been an address of this process.
        let ways_in = std::mem::take(&mut self.ways_in);
        self.configure(now, &ways_in);
    }

    /// Sets the configured addresses, which are pinged until they answer.
    pub fn configure(&mut self, now: Moment, ways_in: &[SocketAddr]) {
        for (address, peer) in &mut self.peers {
            peer.configured &= ways_in.contains(address);
        }

        for &address in ways_in {
            let due = self.candidate(now, address).map(|peer| {
                peer.configure(now);
                peer.due
            });
            self.due = due.map_or(self.due, |due| self.due.min(due));
        }
        self.ways_in = ways_in.to_vec();
    }

    /// Returns the entry of an address, if necessary a new one that is pinged at once. `None` if
    /// there is no room, if the address is this process's own, or if no link has its family.
    pub(super) fn candidate(&mut self, now: Moment, address: SocketAddr) -> Option<&mut Peer> {
        let is_usable = address.port() > 0
            && !address.ip().is_unspecified()
            && !address.ip().is_multicast()
            && address.ip() != IpAddr::from([255; 4])
            && is_reachable(&self.own, address);

        let is_known = self.peers.contains_key(&address);
        let has_room =
            is_known || (self.peers.len() < MAX_PEERS && self.count_at(address) < MAX_AT_IP);
        if !is_usable || self.own.contains(&address) || !has_room {
            return None;
        }

        if !is_known {
            self.due = self.due.min(now);
        }

        Some(self.peers.entry(address).or_insert_with(|| Peer::new(now)))
    }

    /// Returns whether `address` is known, or may be without proof.
    pub(super) fn takes_unproven(&self, address: SocketAddr) -> bool {
        let has_room =
            || self.peers.len() < MAX_FROM_LISTS && self.count_at(address) < MAX_AT_IP_FROM_LISTS;
        self.peers.contains_key(&address) || has_room()
    }

    /// Counts the known addresses of the machine of `address` that are not silent, up to
    /// [`MAX_AT_IP`]. This machine may have any number.
    fn count_at(&self, address: SocketAddr) -> usize {
        let all = match address {
            _ if address.ip().is_loopback() => return 0,
            SocketAddr::V4(v4) => {
                let at = |port| SocketAddr::V4(SocketAddrV4::new(*v4.ip(), port));
                at(0)..=at(u16::MAX)
            }
            SocketAddr::V6(v6) => {
                let at =
                    |port, other| SocketAddr::V6(SocketAddrV6::new(*v6.ip(), port, other, other));
                at(0, 0)..=at(u16::MAX, u32::MAX)
            }
        };

        let peers = self.peers.range(all);
        peers
            .filter(|(_, peer)| peer.state != PeerState::Silent)
            .take(MAX_AT_IP)
            .count()
    }
}
