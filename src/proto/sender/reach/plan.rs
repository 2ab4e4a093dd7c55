//! Plan of a session's data: the hosts that get it directly, and the groups that pass it on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::detour::{BrokenWays, Detours};
use crate::id::{InstanceId, SegmentId, SessionId};
use crate::proto::roster::ReachedHost;
use crate::wire::relay::RelayTargets;

/// Number of groups up to which each host is a group of its own. With more, a relay would send
/// more copies of a train than the queue of a small switch holds.
const MAX_LONE_GROUPS: usize = 64;

/// Destinations of data for all hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataTargets {
    /// Hosts that get a copy each.
    pub hosts: Vec<SocketAddr>,
    /// Whether multicast reaches others.
    pub multicast: bool,
}

/// Ways to all hosts of a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RelayPlan {
    /// Destinations without relays.
    pub(super) data: DataTargets,
    groups: Vec<RelayGroup>,
    /// Hosts that the sender's multicast reaches, sorted.
    pub(super) near: Vec<InstanceId>,
    /// Hosts of other segments, until the plan is complete.
    segments: BTreeMap<SegmentId, Vec<InstanceId>>,
    /// Hosts of no segment, until the plan is complete.
    lone: Vec<InstanceId>,
    /// Number of groups among the hosts of no segment; 0 if each is a group.
    buckets: usize,
    /// Group of each host of no segment among these, if they are in groups.
    homes: BTreeMap<InstanceId, usize>,
    has_multicast: bool,
    /// Detours between hosts that are groups of their own.
    detours: Detours,
}

/// Hosts that get a train together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RelayGroup {
    /// In the order of their identifiers.
    hosts: Vec<InstanceId>,
    /// Whether multicast reaches the group.
    multicast: bool,
}

impl RelayPlan {
    /// Begins a plan that keeps hosts in their groups of the `last` one, if their number fits.
    pub(super) fn new(has_multicast: bool, last: &Self) -> Self {
        Self {
            buckets: last.buckets,
            homes: last.homes.clone(),
            has_multicast,
            ..Self::default()
        }
    }

    /// Adds a host, with its entry in the roster. Multicast does not reach it if `is_unreached`.
    pub(super) fn add(&mut self, id: InstanceId, host: Option<&ReachedHost>, is_unreached: bool) {
        let is_near = host.is_none_or(|host| host.hears && !is_unreached);
        if is_near && self.has_multicast {
            self.near.push(id);
        } else if let Some(host) = host {
            self.data.hosts.push(host.address);
            match host.segment.filter(|_| !is_unreached) {
                Some(segment) => self.segments.entry(segment).or_default().push(id),
                None => self.lone.push(id),
            }
        }
    }

    /// Forms the groups, and finds ways around those that are `broken`.
    pub(super) fn close(&mut self, broken: &BrokenWays) {
        self.form_groups();
        let alone = self.groups.iter().filter(|group| !group.multicast);
        let alone = alone.filter_map(|group| match group.hosts[..] {
            [host] => Some(host),
            _ => None,
        });
        let alone: BTreeSet<InstanceId> = alone.collect();
        self.detours = Detours::find(broken, &alone);
    }

    fn form_groups(&mut self) {
        self.data.hosts.sort_unstable();
        self.near.sort_unstable();
        self.data.multicast =
            self.has_multicast && (!self.near.is_empty() || self.data.hosts.is_empty());

        let groups = &mut self.groups;
        let mut form = |hosts, multicast| groups.push(RelayGroup { hosts, multicast });
        for (_, hosts) in std::mem::take(&mut self.segments) {
            match hosts.len() {
                1 => self.lone.extend(hosts),
                _ => form(hosts, true),
            }
        }

        self.lone.sort_unstable();
        let lone = std::mem::take(&mut self.lone);
        let last = self.buckets;
        self.buckets = bucket_count(lone.len(), last);
        if self.buckets != last {
            self.homes.clear();
        }
        if self.buckets == 0 {
            lone.into_iter().for_each(|host| form(vec![host], false));
            return;
        }

        let mut buckets = buckets_of(lone, self.buckets, &mut self.homes);
        buckets.retain(|hosts| !hosts.is_empty());
        buckets.into_iter().for_each(|hosts| form(hosts, false));
    }

    /// All hosts in groups, each with the index of its group.
    pub(super) fn members(&self) -> impl Iterator<Item = (InstanceId, usize)> {
        let groups = self.groups.iter().zip(0..);
        groups.flat_map(|(group, at)| group.hosts.iter().map(move |host| (*host, at)))
    }

    /// Returns whether a group has several hosts.
    pub(super) fn has_large_group(&self) -> bool {
        self.groups.iter().any(|group| group.hosts.len() > 1)
    }

    /// Returns whether a host is to be reached by multicast, of the sender or of others.
    pub(super) fn is_by_multicast(&self, host: InstanceId) -> bool {
        let mut groups = self.groups.iter().filter(|group| group.multicast);
        self.near.binary_search(&host).is_ok() || groups.any(|group| group.hosts.contains(&host))
    }

    /// Returns the targets of a host in the group with the index `own`.
    pub(super) fn targets(
        &self,
        host: InstanceId,
        own: usize,
        session: SessionId,
        number: u32,
    ) -> RelayTargets {
        let group = self.groups.get(own);
        let place = self.members().position(|(id, _)| id == host).unwrap_or(0);
        let others = self.groups.iter().zip(0..).filter(|(_, at)| *at != own);
        let heads = others.filter_map(|(group, at)| group.head(group.turn(place, own, at)));
        let heads = heads.filter(|head| !self.detours.goes_around(host, *head));
        let detour = self.detours.of(host);

        let mut relays = Vec::new();
        if let Some(group) = group.filter(|group| group.hosts.len() > 1) {
            let relay = |(place, (relay, at)): (usize, (InstanceId, usize))| {
                let head = group.head(group.turn(place, at, own));
                (at != own && head == Some(host)).then_some(relay)
            };
            relays.extend(self.members().enumerate().filter_map(relay));
            relays.sort_unstable();
        }
        relays.extend(detour.iter().flat_map(|detour| &detour.relays));

        RelayTargets {
            session,
            number,
            heads: heads.collect(),
            group: match group {
                // Multicast needs no list.
                Some(group) if !group.multicast => {
                    let target = detour.map(|detour| detour.target);
                    group.hosts.iter().copied().chain(target).collect()
                }
                _ => vec![host],
            },
            relays,
            multicast: group.is_some_and(|group| group.multicast),
            tags: None,
        }
    }
}

impl RelayGroup {
    /// Turn of this group, with the index `at`, for a relay at `place` among all hosts and in the
    /// group `relay_at`: hosts of this group have none.
    fn turn(&self, place: usize, relay_at: usize, at: usize) -> usize {
        match relay_at < at {
            true => place,
            false => place.saturating_sub(self.hosts.len()),
        }
    }

    /// Returns the head in a turn. All hosts take as many turns. A slow one loses its share of the
    /// rows for the group, which repairs replace.
    fn head(&self, turn: usize) -> Option<InstanceId> {
        let at = turn.checked_rem(self.hosts.len())?;
        self.hosts.get(at).copied()
    }
}

/// Divides `hosts` into `count` groups: each stays in its group of `homes`, and new ones fill up
/// the smallest. A host of a larger group would pass more on than the others.
fn buckets_of(
    hosts: Vec<InstanceId>,
    count: usize,
    homes: &mut BTreeMap<InstanceId, usize>,
) -> Vec<Vec<InstanceId>> {
    let last = std::mem::take(homes);
    let mut buckets = vec![Vec::new(); count];
    let (settled, new): (Vec<_>, Vec<_>) =
        hosts.into_iter().partition(|host| last.contains_key(host));
    for host in settled {
        let home = last.get(&host).and_then(|at| buckets.get_mut(*at));
        home.into_iter().for_each(|bucket| bucket.push(host));
    }

    for host in new {
        let smallest = buckets.iter_mut().min_by_key(|bucket| bucket.len());
        smallest.into_iter().for_each(|bucket| bucket.push(host));
    }

    for (bucket, at) in buckets.iter_mut().zip(0..) {
        bucket.sort_unstable();
        homes.extend(bucket.iter().map(|host| (*host, at)));
    }
    buckets
}

/// Returns the number of groups for this number of hosts: the square root, so that a relay has as
/// many heads as hosts in its own group. The number of the last plan stays if it is near, because
/// hosts change their group with it.
fn bucket_count(hosts: usize, last: usize) -> usize {
    let best = hosts.isqrt();
    match hosts {
        ..=MAX_LONE_GROUPS => 0,
        _ if (best / 2..=best * 2).contains(&last) => last,
        _ => best,
    }
}
