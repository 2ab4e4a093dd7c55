//! Detours around broken ways: a third host passes on what does not come from one host to another.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::InstanceId;

/// Bound on the broken ways of a session.
const MAX_BROKEN_WAYS: usize = 256;

/// Ways from a host to another that carry nothing, by the host at their end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BrokenWays(BTreeMap<InstanceId, BTreeSet<InstanceId>>);

/// Part of a host in a detour: it passes on to `target` what `relays` sent to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detour {
    pub(super) target: InstanceId,
    /// Sorted.
    pub(super) relays: Vec<InstanceId>,
}

/// Detours by the host that helps; each helps one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Detours(BTreeMap<InstanceId, Detour>);

impl BrokenWays {
    /// Records a broken way, and returns whether it is new.
    pub(super) fn add(&mut self, from: InstanceId, to: InstanceId) -> bool {
        let known: usize = self.0.values().map(BTreeSet::len).sum();
        known < MAX_BROKEN_WAYS && self.0.entry(to).or_default().insert(from)
    }

    fn has(&self, from: InstanceId, to: InstanceId) -> bool {
        self.0.get(&to).is_some_and(|relays| relays.contains(&from))
    }
}

impl Detours {
    /// Finds a helper for each broken way between two of `hosts`. Repairs make up for a way without
    /// one.
    pub(super) fn find(broken: &BrokenWays, hosts: &BTreeSet<InstanceId>) -> Self {
        let mut detours = Self::default();
        for (&target, relays) in broken.0.iter().filter(|(to, _)| hosts.contains(to)) {
            let relays: Vec<InstanceId> = relays.intersection(hosts).copied().collect();
            let hears = |host| !relays.iter().any(|relay| broken.has(*relay, host));
            // What it passes on to one target must not be passed on to another.
            let is_chain = |host: InstanceId| {
                let mut all = detours.0.iter();
                all.any(|(helper, detour)| {
                    detour.target == host && relays.contains(helper)
                        || *helper == target && detour.relays.contains(&host)
                })
            };
            let helps = |host: &InstanceId| {
                let is_other = *host != target && !relays.contains(host);
                let is_free = !detours.0.contains_key(host) && !is_chain(*host);
                is_other && is_free && !broken.has(*host, target) && hears(*host)
            };

            // The next in their order, so that different ones help.
            let after = hosts.range(target..).chain(hosts.range(..target));
            let helper = after.copied().find(helps).filter(|_| !relays.is_empty());
            if let Some(helper) = helper {
                detours.0.insert(helper, Detour { target, relays });
            }
        }
        detours
    }

    /// The part of a host, if it has one.
    pub(super) fn of(&self, helper: InstanceId) -> Option<&Detour> {
        self.0.get(&helper)
    }

    /// Returns whether `relay` leaves `target` to another host.
    pub(super) fn goes_around(&self, relay: InstanceId, target: InstanceId) -> bool {
        let mut all = self.0.iter();
        all.any(|(helper, detour)| {
            let is_part = *helper == relay || detour.relays.binary_search(&relay).is_ok();
            detour.target == target && is_part
        })
    }
}
