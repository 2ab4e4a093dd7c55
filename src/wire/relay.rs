//! Message that tells a host whom to pass data on to, where multicast does not reach all hosts.
//!
//! The sender divides the hosts of its session into groups. A train goes to one host, its relay.
//! The relay passes it on to its own group and to one host of each other group, the head. Heads
//! pass it on within their groups. So no host sends more copies than there are groups and members
//! of its own.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use super::caps::within;
use crate::id::{InstanceId, SessionId};

/// Largest number of groups, of hosts in one, and of relays with one head.
const MAX_RELAY_TARGETS: usize = 4_096;

/// Hosts that one host passes data on to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RelayTargets {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Number of this list among those of the session, from 1. The last one that arrives holds; a
    /// host states its number, and the sender repeats its own list until that is the number.
    #[n(1)]
    pub number: u32,
    /// One host of each other group. They get what the sender sent to this host.
    #[n(2)]
    pub heads: Vec<InstanceId>,
    /// All hosts of the group of this host, itself among them; with `multicast` itself alone. They
    /// get what the sender sent to this host, and what a relay of another group sent to it as the
    /// head.
    #[n(3)]
    pub group: Vec<InstanceId>,
    /// Hosts of other groups for which this host is the head, sorted.
    #[n(4)]
    pub relays: Vec<InstanceId>,
    /// Whether multicast reaches the group.
    #[n(5)]
    pub multicast: bool,
}

impl RelayTargets {
    /// Returns whether this host passes on to its group what the host `relay` sent to it.
    pub fn is_head(&self, relay: InstanceId) -> bool {
        self.relays.binary_search(&relay).is_ok()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let most = self.heads.len().max(self.group.len());
        let is_sorted = self.relays.is_sorted();
        let distinct = |hosts: &[InstanceId]| {
            let set: BTreeSet<_> = hosts.iter().collect();
            set.len() == hosts.len()
        };
        within(
            most.max(self.relays.len()) <= MAX_RELAY_TARGETS,
            "too many hosts to pass data on to",
        )?;
        within(is_sorted, "unsorted relays")?;
        let is_distinct = distinct(&self.heads) && distinct(&self.group);
        within(is_distinct, "a host twice among those to pass data on to")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;

    fn targets(relays: &[u64]) -> RelayTargets {
        RelayTargets {
            session: SessionId(1),
            number: 1,
            heads: vec![InstanceId(7)],
            group: vec![InstanceId(1), InstanceId(2)],
            relays: relays.iter().copied().map(InstanceId).collect(),
            multicast: false,
        }
    }

    #[test]
    fn targets_come_back_and_bad_ones_are_refused() {
        let good = Message::Targets(targets(&[3, 9, 40]));
        assert_eq!(Message::decode(&good.encode()), Ok(good));
        assert!(targets(&[3, 9, 40]).is_head(InstanceId(9)));
        assert!(!targets(&[3, 9, 40]).is_head(InstanceId(4)));

        let unsorted = Message::Targets(targets(&[9, 3]));
        assert!(Message::decode(&unsorted.encode()).is_err());
        let twice = RelayTargets {
            heads: vec![InstanceId(7); 2],
            ..targets(&[])
        };
        assert!(Message::decode(&Message::Targets(twice).encode()).is_err());
        let many: Vec<u64> = (0..=MAX_RELAY_TARGETS as u64).collect();
        let many = Message::Targets(targets(&many));
        assert!(Message::decode(&many.encode()).is_err());
    }
}
