//! Lists of the addresses with proof: for each process the one that was proven last. Keeps what
//! changed since it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::peer::{MAX_PEERS, Peer, PeerState};
use crate::id::{InstanceId, SegmentId};
use crate::units::Moment;

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

#[cfg(test)]
impl ReachedHost {
    /// A host that no multicast reaches.
    pub(crate) fn alone(address: SocketAddr, instance: InstanceId) -> Self {
        Self {
            address,
            instance,
            segment: None,
            hears: false,
        }
    }
}

/// Processes that answer, in the order of their addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// All of them.
    pub(super) proven: Vec<SocketAddr>,
    /// Those that do not hear the multicast of this process.
    pub(super) distant: Vec<SocketAddr>,
    /// Hosts.
    pub(super) hosts: Vec<SocketAddr>,
    /// Hosts with their facts.
    pub(super) reached: Vec<ReachedHost>,
    addresses: BTreeMap<InstanceId, SocketAddr>,
}

/// Whether the lists are those of the present addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListState {
    /// They are, and the next change is listed at once.
    Idle,
    /// They are, and the next change waits for [`super::Roster::handle_timeout`].
    Collected,
    /// A change waits.
    Stale,
}

/// The present lists and their changes.
#[derive(Debug)]
pub(super) struct Lists {
    pub(super) listing: Listing,
    pub(super) state: ListState,
    /// Number of changes of the lists.
    pub(super) version: u64,
    /// Hosts proven since the last call of [`super::Roster::take_new`].
    pub(super) new: Vec<SocketAddr>,
    /// Hosts given up since the last call of [`super::Roster::take_gone`].
    pub(super) gone: Vec<SocketAddr>,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            listing: Listing::default(),
            state: ListState::Idle,
            version: 1,
            new: Vec::new(),
            gone: Vec::new(),
        }
    }
}

impl Lists {
    /// Takes the lists of the present addresses.
    pub(super) fn set(&mut self, listing: Listing) {
        if listing != self.listing {
            self.listing = listing;
            self.version += 1;
        }
        if self.state == ListState::Stale {
            self.state = ListState::Collected;
        }
    }

    /// Adds a host that has answered for the first time.
    pub(super) fn add_new(&mut self, host: SocketAddr) {
        if self.new.len() < MAX_PEERS && !self.new.contains(&host) {
            self.new.push(host);
        }
    }

    /// Adds the addresses of the processes `ended` that no address proves any more.
    pub(super) fn add_gone(
        &mut self,
        peers: &BTreeMap<SocketAddr, Peer>,
        mut ended: BTreeSet<InstanceId>,
    ) {
        let proven = peers
            .values()
            .filter(|peer| peer.state == PeerState::Proven);
        for instance in proven.filter_map(|peer| peer.facts.instance) {
            ended.remove(&instance);
        }

        for (&address, peer) in peers {
            let is_of = |instance: InstanceId| ended.contains(&instance) && peer.facts.host;
            if peer.facts.instance.is_some_and(is_of) && self.gone.len() < MAX_PEERS {
                self.gone.push(address);
            }
        }
    }
}

impl Listing {
    /// Lists `peers`.
    pub(super) fn of(peers: &BTreeMap<SocketAddr, Peer>) -> Self {
        let proven = || {
            peers
                .iter()
                .filter(|(_, peer)| peer.state == PeerState::Proven)
                .map(|(&address, peer)| (address, peer.facts))
        };
        // A process with several addresses may be heard at one of them.
        let hearing: BTreeSet<_> = proven()
            .filter(|(_, facts)| facts.hears)
            .filter_map(|(_, facts)| facts.instance)
            .collect();

        let newest = newest_addresses(peers);
        let mut listing = Self::default();
        for (address, facts) in proven() {
            let Some(instance) = facts.instance else {
                continue;
            };
            if newest.get(&instance).is_none_or(|(_, at)| *at != address) {
                continue;
            }

            let hears = hearing.contains(&instance);
            listing.proven.push(address);
            if !hears {
                listing.distant.push(address);
            }
            if facts.host {
                listing.hosts.push(address);
                listing.addresses.insert(instance, address);
                listing.reached.push(ReachedHost {
                    address,
                    instance,
                    segment: facts.segment,
                    hears,
                });
            }
        }

        listing
    }

    /// Address of a host.
    pub(super) fn address_of(&self, host: InstanceId) -> Option<SocketAddr> {
        self.addresses.get(&host).copied()
    }
}

/// Returns the address of each process that was proven last, with the time.
fn newest_addresses(
    peers: &BTreeMap<SocketAddr, Peer>,
) -> BTreeMap<InstanceId, (Moment, SocketAddr)> {
    let mut newest = BTreeMap::new();
    for (&address, peer) in peers {
        if let Some(instance) = peer
            .facts
            .instance
            .filter(|_| peer.state == PeerState::Proven)
        {
            let entry = (peer.since, address);
            let last = newest.entry(instance).or_insert(entry);
            *last = entry.max(*last);
        }
    }
    newest
}
