//! Hosts that are reached by unicast, where each message to the group is one copy for each.
//!
//! By multicast a message to all costs as much as one to a single host. Of the others, repetitions
//! go only to those that have not answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::proto::Dest;

/// Largest number of hosts that get a message one by one. A message to the group is paced.
const MAX_ADDRESSED: usize = 64;

/// Hosts that multicast does not reach.
#[derive(Debug, Default)]
pub struct UnicastGroup {
    /// Sorted.
    addresses: Vec<SocketAddr>,
    /// Hosts that hear the multicast of this process, sorted; `None` without multicast.
    hearing: Option<Vec<SocketAddr>>,
}

impl UnicastGroup {
    /// Sets the addresses, and those that hear the multicast of this process: `None` without
    /// multicast.
    pub fn set(&mut self, mut addresses: Vec<SocketAddr>, mut hearing: Option<Vec<SocketAddr>>) {
        addresses.sort_unstable();
        hearing.iter_mut().for_each(|hosts| hosts.sort_unstable());
        self.addresses = addresses;
        self.hearing = hearing;
    }

    /// Returns whether no host is reached by multicast.
    pub fn is_unicast(&self) -> bool {
        self.has_any() && self.hearing.is_none()
    }

    /// Returns whether some hosts get their own copy of a message.
    pub fn has_any(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Returns whether the host at this address gets its own copy.
    pub fn contains(&self, host: SocketAddr) -> bool {
        self.addresses.binary_search(&host).is_ok()
    }

    /// Returns whether messages are known to reach the host at this address, by unicast or by
    /// multicast.
    pub fn reaches(&self, host: SocketAddr) -> bool {
        let mut hearing = self.hearing.iter();
        self.contains(host) || hearing.any(|hosts| hosts.binary_search(&host).is_ok())
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Destination that costs one copy, if there is any.
    pub fn cheap(&self) -> Option<Dest> {
        match (self.has_any(), self.hearing.is_some()) {
            (false, _) => Some(Dest::Group),
            (true, true) => Some(Dest::Multicast),
            (true, false) => None,
        }
    }

    /// Destinations of a message to all hosts but those at the addresses `done`.
    pub fn dests_without(&self, done: &BTreeSet<SocketAddr>) -> Vec<Dest> {
        if done.is_empty() || !self.has_any() {
            return vec![Dest::Group];
        }

        let missing = self.addresses.iter().filter(|at| !done.contains(at));
        match &dests_of(missing.copied())[..] {
            all @ [Dest::Group] => all.to_vec(),
            single => self.cheap().into_iter().chain(single.to_vec()).collect(),
        }
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

        group.set(all.clone(), None);
        assert_eq!(group.dests_without(&done(0)), [Dest::Group]);
        assert_eq!(group.dests_without(&done(100)), [Dest::Group]);
        assert_eq!(group.dests_without(&done(199)), [Dest::Host(all[199])]);
        assert_eq!(group.dests_without(&done(200)), []);

        // Those that multicast reaches get each repetition.
        group.set(all.clone(), Some(Vec::new()));
        assert_eq!(group.dests_without(&done(0)), [Dest::Group]);
        assert_eq!(group.dests_without(&done(100)), [Dest::Group]);
        let last = [Dest::Multicast, Dest::Host(all[199])];
        assert_eq!(group.dests_without(&done(199)), last);
        assert_eq!(group.dests_without(&done(200)), [Dest::Multicast]);
    }

    #[test]
    fn only_known_hosts_are_known_to_be_reached() {
        let all = addresses(6);
        let mut group = UnicastGroup::default();
        let reached = |group: &UnicastGroup| {
            let reached = all.iter().filter(|at| group.reaches(**at));
            reached.map(|at| at.port()).collect::<Vec<_>>()
        };
        assert_eq!(reached(&group), [0; 0]);
        group.set(vec![all[3], all[0]], None);
        assert_eq!(reached(&group), [1, 4]);
        group.set(vec![all[3], all[0]], Some(vec![all[4], all[1]]));
        assert_eq!(reached(&group), [1, 2, 4, 5]);
    }
}
