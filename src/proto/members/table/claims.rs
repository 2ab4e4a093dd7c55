//! Size of the fleet, as claimed by its members: one vote for each address.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Addresses of which one may lie about the number of hosts.
const VOICES_PER_LIAR: usize = 8;

/// Claimed fleet sizes.
#[derive(Debug, Default)]
pub(super) struct FleetClaims {
    /// Number of members for each claimed size, by address.
    by_address: BTreeMap<IpAddr, BTreeMap<u32, usize>>,
    /// Number of addresses for each claimed size, by the smallest claim at the address.
    votes: BTreeMap<u32, usize>,
}

impl FleetClaims {
    /// Adds the claim of a member at `address`.
    pub(super) fn add(&mut self, address: IpAddr, hosts: u32) {
        self.change(address, |claims| {
            *claims.entry(hosts).or_default() += 1;
        });
    }

    /// Removes a claim.
    pub(super) fn remove(&mut self, address: IpAddr, hosts: u32) {
        self.change(address, |claims| take(claims, hosts));
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeMap<u32, usize>)) {
        let claims = self.by_address.entry(address).or_default();
        let least =
            |claims: &BTreeMap<u32, usize>| claims.first_key_value().map(|(&hosts, _)| hosts);
        let before = least(claims);
        change(claims);
        let after = least(claims);

        if claims.is_empty() {
            self.by_address.remove(&address);
        }

        if before != after {
            if let Some(hosts) = before {
                take(&mut self.votes, hosts);
            }
            if let Some(hosts) = after {
                *self.votes.entry(hosts).or_default() += 1;
            }
        }
    }

    /// Returns whether all addresses claim this size; of many, a few may be behind.
    pub(super) fn agree_on(&self, hosts: usize) -> bool {
        let voices: usize = self.votes.values().sum();
        let agreeing = u32::try_from(hosts)
            .ok()
            .and_then(|hosts| self.votes.get(&hosts));
        agreeing.is_some_and(|agreeing| agreeing + voices / VOICES_PER_LIAR >= voices)
    }

    /// Returns the largest claimed size.
    pub(super) fn most(&self) -> usize {
        self.votes
            .last_key_value()
            .map_or(0, |(&hosts, _)| hosts as usize)
    }

    /// Returns the largest claimed size, apart from a few votes above all others.
    pub(super) fn fleet_size(&self) -> usize {
        let voices: usize = self.votes.values().sum();
        let mut liars = if voices > 1 {
            (voices / VOICES_PER_LIAR).max(1)
        } else {
            0
        };

        for (&hosts, &count) in self.votes.iter().rev() {
            if liars < count {
                return hosts as usize;
            }
            liars -= count;
        }

        0
    }
}

/// Decrements the count of a value.
pub(super) fn take<K: Ord>(counts: &mut BTreeMap<K, usize>, value: K) {
    if let Some(count) = counts.get_mut(&value) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&value);
        }
    }
}
