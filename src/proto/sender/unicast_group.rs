//! Hosts that are all reached by unicast, where each message to the group is one copy for each.
//!
//! With multicast a message to all costs as much as one to a single host. Without it, repetitions
//! go only to the hosts that have not answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::proto::Dest;

/// Largest number of hosts that get a message one by one. A message to the group is paced.
const MAX_ADDRESSED: usize = 64;

/// Addresses of the hosts; none if multicast reaches any.
#[derive(Debug, Default)]
pub struct UnicastGroup {
    addresses: Vec<SocketAddr>,
}

impl UnicastGroup {
    /// Sets the addresses.
    pub fn set(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
    }

    /// Returns whether each host gets its own copy of a message.
    pub fn is_unicast(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Number of hosts; 0 if multicast reaches any.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Destinations of a message to all hosts but those at the addresses `done`.
    pub fn dests_without(&self, done: &BTreeSet<SocketAddr>) -> Vec<Dest> {
        if done.is_empty() || !self.is_unicast() {
            return vec![Dest::Group];
        }

        let missing = self.addresses.iter().filter(|at| !done.contains(at));
        dests_of(missing.copied())
    }
}

/// Destinations of a message to the hosts at these addresses.
pub fn dests_of(hosts: impl Iterator<Item = SocketAddr>) -> Vec<Dest> {
    let dests: Vec<Dest> = hosts.map(Dest::Host).take(MAX_ADDRESSED + 1).collect();
    match dests.len() > MAX_ADDRESSED {
        true => vec![Dest::Group],
        false => dests,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(hosts: u16) -> Vec<SocketAddr> {
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        (1..=hosts).map(at).collect()
    }

    #[test]
    fn a_repetition_goes_to_the_rest_one_by_one_unless_that_is_many() {
        let all = addresses(200);
        let mut group = UnicastGroup::default();
        let done = |hosts: usize| all[..hosts].iter().copied().collect();
        assert_eq!(group.dests_without(&done(199)), [Dest::Group]);

        group.set(all.clone());
        assert_eq!(group.dests_without(&done(0)), [Dest::Group]);
        assert_eq!(group.dests_without(&done(100)), [Dest::Group]);
        assert_eq!(group.dests_without(&done(199)), [Dest::Host(all[199])]);
        assert_eq!(group.dests_without(&done(200)), []);
    }
}
