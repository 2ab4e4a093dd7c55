//! Lists of the addresses with proof, one for each process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::peer::{Peer, PeerState};
use crate::id::{InstanceId, SegmentId};

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

/// Processes that answer, in the order of their addresses.
#[derive(Debug, Default)]
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

        let mut listing = Self::default();
        let mut processes = BTreeSet::new();
        for (address, facts) in proven() {
            let Some(instance) = facts.instance.filter(|id| processes.insert(*id)) else {
                continue;
            };

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
