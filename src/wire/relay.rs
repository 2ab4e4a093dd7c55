//! Message that tells a host whom to pass data on to, where multicast does not reach all hosts.
//!
//! The sender divides the hosts of its session into groups. A train goes to one host, its relay.
//! The relay passes it on to its own group and to one host of each other group, the head. Heads
//! pass it on within their groups. So no host sends more copies than there are groups and members
//! of its own.

use minicbor::{Decode, Encode};

use super::caps::within;
use crate::id::{InstanceId, SessionId};

/// Largest number of groups, and of hosts in one.
const MAX_RELAY_TARGETS: usize = 2_048;

/// Hosts that one host passes data on to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RelayTargets {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Number of this list among those of the session, from 1. A higher one replaces a lower one.
    #[n(1)]
    pub number: u32,
    /// One host of each other group. They get what the sender sent to this host.
    #[n(2)]
    pub heads: Vec<InstanceId>,
    /// All hosts of the group of this host, itself among them. They get what the sender sent to
    /// this host, and what a relay of another group sent to it as the head.
    #[n(3)]
    pub group: Vec<InstanceId>,
    /// Number of the first hosts of `group` that may be its head.
    #[n(4)]
    pub able: u32,
    /// Whether multicast reaches the group.
    #[n(5)]
    pub multicast: bool,
}

impl RelayTargets {
    /// Returns whether the host `own` passes on to its group what the host `relay` sent to it.
    pub fn is_head(&self, own: InstanceId, relay: InstanceId) -> bool {
        let is_far = !self.group.contains(&relay);
        is_far && self.group.len() > 1 && head_of(relay, self.able()) == Some(own)
    }

    /// Hosts of the group that may be its head.
    fn able(&self) -> &[InstanceId] {
        let able = (self.able as usize).min(self.group.len());
        self.group.get(..able).unwrap_or_default()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let most = self.heads.len().max(self.group.len());
        within(
            most <= MAX_RELAY_TARGETS,
            "too many hosts to pass data on to",
        )
    }
}

/// Returns the head of a group for the trains of `relay`: the host with the highest hash of both
/// (rendezvous hashing), so each relay has another head and few change when a host leaves.
pub fn head_of(relay: InstanceId, able: &[InstanceId]) -> Option<InstanceId> {
    able.iter().copied().max_by_key(|host| mix(relay, *host))
}

/// Mixes two identifiers (the finalizer of SplitMix64). The result is part of the protocol: all
/// hosts have to agree on it.
fn mix(relay: InstanceId, host: InstanceId) -> u64 {
    let mut z = relay.0.rotate_left(32) ^ host.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(group: &[u64], able: u32) -> RelayTargets {
        RelayTargets {
            session: SessionId(1),
            number: 1,
            heads: Vec::new(),
            group: group.iter().copied().map(InstanceId).collect(),
            able,
            multicast: false,
        }
    }

    #[test]
    fn a_group_has_one_head_for_each_relay_and_all_take_their_turn() {
        let mut rng = fastrand::Rng::with_seed(3);
        let group: Vec<u64> = (0..32).map(|_| rng.u64(..)).collect();
        let group = targets(&group, 30);
        let mut turns = vec![0; 32];

        for _ in 0..3_200 {
            let relay = InstanceId(rng.u64(..));
            let heads = (0..32).filter(|at| group.is_head(group.group[*at], relay));
            let heads: Vec<usize> = heads.collect();
            assert_eq!(heads.len(), 1, "{relay}");
            turns[heads[0]] += 1;
        }

        assert_eq!(turns[30..], [0, 0], "unable hosts are no heads");
        let (fewest, most) = (turns[..30].iter().min(), turns[..30].iter().max());
        assert!(fewest > Some(&60) && most < Some(&170), "{turns:?}");
    }

    #[test]
    fn what_a_host_of_the_group_sent_is_not_passed_on_again() {
        let group = targets(&[1, 2, 3], 3);
        let members = [1, 2, 3].map(InstanceId);
        for relay in members {
            assert!(!members.iter().any(|own| group.is_head(*own, relay)));
        }

        let alone = targets(&[1], 1);
        assert!(!alone.is_head(InstanceId(1), InstanceId(9)));
        assert!(!targets(&[1, 2], 0).is_head(InstanceId(1), InstanceId(9)));
    }
}
