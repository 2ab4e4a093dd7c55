//! Addresses of the hosts that a relay passes data on to.

use std::net::SocketAddr;
use std::sync::Arc;

use super::ReachedHost;
use crate::id::InstanceId;
use crate::wire::relay::{HostTag, RelayTargets, TagList};

/// Proven addresses of the targets of this host. A target without one is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetAddresses {
    /// One host of each other group.
    pub heads: Vec<SocketAddr>,
    /// The other hosts of the group.
    pub group: Vec<SocketAddr>,
}

impl TargetAddresses {
    /// Finds the `targets` of the host `own` among `hosts`.
    pub fn find(targets: &RelayTargets, hosts: &[ReachedHost], own: InstanceId) -> Self {
        let others = hosts.iter().filter(|host| host.instance != own);
        let tag = |host: InstanceId| HostTag::of(targets.session, host);
        let mut known: Vec<_> = others.map(|h| (tag(h.instance), h.address)).collect();
        known.sort_unstable();

        let addresses = |tags: &TagList| {
            let of_tag = |tag: HostTag| {
                let first = known.partition_point(|(other, _)| *other < tag);
                let same = known.iter().skip(first);
                same.take_while(move |(other, _)| *other == tag)
            };
            let found = tags.0.iter().copied().flat_map(of_tag);
            found.map(|(_, address)| *address).collect()
        };

        let tags = targets.tags();
        Self {
            heads: addresses(&tags.heads),
            group: addresses(&tags.group),
        }
    }
}

/// Addresses of the targets that were asked for last: much data goes to the same.
#[derive(Debug, Default)]
pub struct TargetLookup {
    targets: Option<Arc<RelayTargets>>,
    version: u64,
    addresses: TargetAddresses,
}

impl TargetLookup {
    /// Finds the `targets` of the host `own` among `hosts`, the roster with the number `version`.
    pub fn find(
        &mut self,
        targets: &Arc<RelayTargets>,
        (version, hosts): (u64, &[ReachedHost]),
        own: InstanceId,
    ) -> &TargetAddresses {
        let known = self.targets.as_ref();
        let is_known = known.is_some_and(|known| Arc::ptr_eq(known, targets));
        if !is_known || self.version != version {
            *self = Self {
                targets: Some(Arc::clone(targets)),
                version,
                addresses: TargetAddresses::find(targets, hosts, own),
            };
        }
        &self.addresses
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::SessionId;

    #[test]
    fn both_forms_of_targets_lead_to_the_addresses_of_the_known_ones() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let all: Vec<ReachedHost> = (0..rng.u16(1..60))
                .map(|n| ([10, 0, 0, 1], n).into())
                .map(|at| ReachedHost::alone(at, InstanceId(rng.u64(..))))
                .collect();
            let mut some = || {
                let count = rng.usize(0..=all.len());
                rng.choose_multiple(&all, count)
            };
            let (heads, mut group, known) = (some(), some(), some());
            let own = all[0];
            group.retain(|host| host.instance != own.instance);
            group.push(&own);

            let ids = |hosts: &[&ReachedHost]| hosts.iter().map(|h| h.instance).collect();
            let full = RelayTargets {
                session: SessionId(rng.u64(..)),
                number: 1,
                heads: ids(&heads),
                group: ids(&group),
                relays: Vec::new(),
                multicast: false,
                tags: None,
            };
            let known: Vec<ReachedHost> = known.into_iter().copied().collect();
            let expected = |hosts: &[&ReachedHost]| -> Vec<SocketAddr> {
                let is_found =
                    |host: &&&ReachedHost| known.contains(host) && host.instance != own.instance;
                hosts.iter().filter(is_found).map(|h| h.address).collect()
            };

            let found = TargetAddresses::find(&full, &known, own.instance);
            let same = TargetAddresses::find(&full.into_tagged(), &known, own.instance);
            assert_eq!(found, same, "seed {seed}");
            assert_eq!(found.heads, expected(&heads), "seed {seed}");
            assert_eq!(found.group, expected(&group), "seed {seed}");
        }
    }

    #[test]
    fn hosts_of_one_tag_get_a_copy_each() {
        // Of so many hosts some share a tag in most sessions.
        let mut rng = fastrand::Rng::with_seed(3);
        let hosts: Vec<ReachedHost> = (0..20_000u32)
            .map(|n| (n.to_be_bytes(), 5000).into())
            .map(|at| ReachedHost::alone(at, InstanceId(rng.u64(..))))
            .collect();
        let targets = RelayTargets {
            session: SessionId(rng.u64(..)),
            number: 1,
            heads: Vec::new(),
            group: hosts.iter().take(4_000).map(|host| host.instance).collect(),
            relays: Vec::new(),
            multicast: false,
            tags: None,
        };

        let found = TargetAddresses::find(&targets.into_tagged(), &hosts, InstanceId(0)).group;
        let once: BTreeSet<_> = found.iter().collect();
        assert_eq!(once.len(), found.len());
        assert!(
            hosts[..4_000]
                .iter()
                .all(|host| once.contains(&host.address))
        );
        assert!((4_001..4_050).contains(&found.len()), "{}", found.len());
    }
}
