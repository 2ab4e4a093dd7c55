//! How data reaches the hosts of a session: by the sender's multicast, by a copy for each host, or
//! over relays. Tells each relay its targets.
//!
//! Without a roster all hosts are reached by multicast, and nothing is planned.

mod detour;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::hosts::{Host, Hosts};
use crate::id::{InstanceId, SessionId};
use crate::proto::control::Control;
use crate::proto::roster::ReachedHost;
use crate::proto::{Dest, slot_interval};
use crate::units::Moment;
use crate::wire::message::Missing;
use crate::wire::{HostStage, Message};

use detour::BrokenWays;
pub use plan::DataTargets;
use plan::RelayPlan;

/// Interval at which the plan follows the hosts.
const PLAN_INTERVAL: Duration = Duration::from_millis(100);
/// The same while hosts have yet to confirm their targets.
const EARLY_PLAN_INTERVAL: Duration = Duration::from_millis(2);
/// Time for which the early interval holds.
const EARLY_TIME: Duration = Duration::from_millis(500);
/// First wait for a confirmation; doubled at each repetition.
const FIRST_REPEAT: Duration = Duration::from_millis(80);
/// Largest number of repetitions that double the wait.
const MAX_DOUBLINGS: u32 = 5;
/// Largest number of messages in one interval.
const MAX_TOLD: usize = 32;
/// Generations without a single datagram after which multicast does not reach a host.
const UNREACHED_GENERATIONS: u32 = 2;

/// What this process knows of other hosts, and whether it has multicast.
#[derive(Debug, Clone, Copy)]
pub struct RosterView<'a> {
    /// Changes whenever the rest does.
    pub version: u64,
    /// Whether this process has multicast.
    pub multicast: bool,
    /// Hosts that answer.
    pub hosts: &'a [ReachedHost],
    /// Number of processes that get a copy each of a message to the group.
    pub distant: usize,
}

/// Ways to the hosts of one session.
#[derive(Debug)]
pub struct Reach {
    session: SessionId,
    roster: KnownRoster,
    /// Hosts that multicast does not reach, by the generations of which nothing came.
    unreached: BTreeMap<InstanceId, UnreachedHost>,
    /// Hosts in no roster that have not received what was sent.
    stalls: BTreeMap<InstanceId, Stall>,
    /// Ways between hosts that carry nothing.
    broken: BrokenWays,
    plan: RelayPlan,
    /// Number of the plan; 0 before the first one.
    number: u32,
    /// Destinations of data without relays: those of the plan that are served now.
    data: DataTargets,
    /// Number of their choice; 0 before the first one.
    data_number: u32,
    /// Number of the session's hosts in the plan.
    hosts: usize,
    told: BTreeMap<InstanceId, ToldHost>,
    /// Time of the last change of the plan.
    changed: Moment,
    /// Time of the next plan.
    due: Moment,
    /// Time until which the plan is looked at early; set when the first host is told.
    early_until: Option<Moment>,
}

/// The roster at its last change.
#[derive(Debug, Default)]
struct KnownRoster {
    version: u64,
    multicast: bool,
    hosts: BTreeMap<InstanceId, ReachedHost>,
}

/// A host that misses whole generations.
#[derive(Debug, Clone, Copy)]
struct UnreachedHost {
    /// Last generation of which nothing came.
    generation: u32,
    /// Number of such generations.
    count: u32,
}

/// A host in no roster that has not received what was sent.
#[derive(Debug, Clone, Copy)]
struct Stall {
    /// Data counter that it has received.
    seen: u64,
    /// Time of the first request with this counter.
    since: Moment,
    /// Time of its last request.
    last: Moment,
}

/// A host that was told its targets.
#[derive(Debug, Clone, Copy)]
struct ToldHost {
    number: u32,
    times: u32,
    /// Time of the next repetition.
    again: Moment,
}

impl Reach {
    /// Creates the state of a session.
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            roster: KnownRoster::default(),
            unreached: BTreeMap::new(),
            stalls: BTreeMap::new(),
            broken: BrokenWays::default(),
            plan: RelayPlan::default(),
            number: 0,
            data: DataTargets::default(),
            data_number: 0,
            hosts: 0,
            told: BTreeMap::new(),
            changed: Moment(0),
            due: Moment(0),
            early_until: None,
        }
    }

    /// Takes the present roster and returns whether it has changed.
    pub fn learn(&mut self, now: Moment, roster: RosterView<'_>) -> bool {
        if self.roster.version == roster.version {
            return false;
        }

        let hosts = roster.hosts.iter().map(|host| (host.instance, *host));
        self.roster = KnownRoster {
            version: roster.version,
            multicast: roster.multicast,
            hosts: hosts.collect(),
        };
        self.due = now;
        true
    }

    /// Addresses of the hosts that get messages to the group by unicast, and of those that get them
    /// by multicast: `None` without multicast.
    pub fn unicast_group(&self) -> (Vec<SocketAddr>, Option<Vec<SocketAddr>>) {
        let multicast = self.roster.multicast;
        let addresses = |by_multicast: bool| {
            let hosts = self.roster.hosts.values();
            let hosts = hosts.filter(move |host| (multicast && host.hears) == by_multicast);
            hosts.map(|host| host.address).collect()
        };
        (addresses(false), multicast.then(|| addresses(true)))
    }

    /// Returns whether a plan is due. The session has `hosts` hosts.
    pub fn is_due(&self, now: Moment, hosts: usize) -> bool {
        self.roster.version > 0 && (now >= self.due || hosts != self.hosts)
    }

    /// Plans the ways to `hosts`. Only those with `is_served` get copies of their own. Returns
    /// whether anything changed.
    pub fn plan(
        &mut self,
        now: Moment,
        hosts: &Hosts,
        is_served: impl Fn(InstanceId, &Host) -> bool,
    ) -> bool {
        self.hosts = hosts.len();
        let has_plan = self.plan_ways(now, hosts);
        let has_data = self.choose_data(hosts, is_served);
        has_plan || has_data
    }

    /// Plans the ways to `hosts`, and returns whether the plan changed.
    fn plan_ways(&mut self, now: Moment, hosts: &Hosts) -> bool {
        let unreached = &self.unreached;
        let is_unreached = |id: &InstanceId| {
            let host = unreached.get(id);
            host.is_some_and(|host| host.count >= UNREACHED_GENERATIONS)
        };

        let mut plan = RelayPlan::new(self.roster.multicast, &self.plan);
        for (id, _) in hosts.iter().filter(|(_, host)| takes_part(host)) {
            plan.add(*id, self.roster.hosts.get(id), is_unreached(id));
        }
        plan.close(&self.broken);

        // Hosts that come or go one after the other make one change.
        let has_changed = plan != self.plan;
        let is_soon = self.number > 0 && now.since(self.changed) < PLAN_INTERVAL;
        if !has_changed || is_soon {
            return false;
        }

        self.plan = plan;
        self.number += 1;
        self.changed = now;
        self.early_until = None;
        true
    }

    /// Chooses the destinations of data without relays, and returns whether they changed.
    fn choose_data(
        &mut self,
        hosts: &Hosts,
        is_served: impl Fn(InstanceId, &Host) -> bool,
    ) -> bool {
        let planned = &self.plan.data;
        let is_spared = |id: &InstanceId| hosts.get(*id).is_some_and(|host| !is_served(*id, host));
        let spared: BTreeSet<SocketAddr> = self
            .plan
            .members()
            .filter(|(id, _)| is_spared(id))
            .filter_map(|(id, _)| Some(self.roster.hosts.get(&id)?.address))
            .collect();

        let mut data = planned.clone();
        data.hosts.retain(|at| !spared.contains(at));
        // Hosts that are all silent may hear it all the same.
        if data.hosts.is_empty() && !data.multicast {
            data = planned.clone();
        }

        let has_changed = self.number > 0 && (data != self.data || self.data_number == 0);
        if has_changed {
            self.data = data;
            self.data_number += 1;
        }
        has_changed
    }

    /// Tells the hosts of `hosts` their targets that have not confirmed them: those first that were
    /// not told yet. Schedules the next plan.
    pub fn tell(&mut self, now: Moment, hosts: &Hosts, control: &mut Control) {
        // Hosts confirm in their slots.
        let first_repeat = FIRST_REPEAT + slot_interval(hosts.len() as u32) * 2;
        let mut waiting: Vec<(u32, InstanceId, usize)> = Vec::new();
        let mut is_complete = true;
        for (id, group) in self.plan.members() {
            let answers = hosts.get(id).filter(|host| host.stage.is_some());
            if answers.is_none_or(|host| host.transfer.targets == self.number) {
                continue;
            }

            is_complete = false;
            let told = self.told.get(&id).filter(|told| told.number == self.number);
            if told.is_none_or(|told| now >= told.again) {
                waiting.push((told.map_or(0, |told| told.times), id, group));
            }
        }

        waiting.sort_unstable();
        for (times, id, group) in waiting.into_iter().take(MAX_TOLD) {
            let Some(to) = self.roster.hosts.get(&id).map(|host| host.address) else {
                continue;
            };

            let told = ToldHost {
                number: self.number,
                times: times + 1,
                again: now + first_repeat * (1 << times.min(MAX_DOUBLINGS)),
            };
            self.told.insert(id, told);
            self.early_until = self.early_until.or(Some(now + EARLY_TIME + first_repeat));

            let targets = self.plan.targets(id, group, self.session, self.number);
            let reads_tags = hosts.get(id).is_some_and(|host| host.transfer.reads_tags);
            let targets = match reads_tags {
                true => targets.into_tagged(),
                false => targets,
            };
            control.send(Dest::Host(to), &Message::Targets(targets));
        }

        let is_early = !is_complete && self.early_until.is_none_or(|until| now < until);
        self.schedule(now, is_early);
    }

    /// Schedules the next plan.
    pub fn schedule(&mut self, now: Moment, is_early: bool) {
        self.due = now
            + if is_early {
                EARLY_PLAN_INTERVAL
            } else {
                PLAN_INTERVAL
            };
    }

    /// Makes the next plan due: who is to be served has changed.
    pub fn hasten(&mut self, now: Moment) {
        self.due = now;
    }

    /// Time of the next plan, if there is any to make.
    pub fn timeout(&self) -> Option<Moment> {
        (self.roster.version > 0).then_some(self.due)
    }

    /// Takes the losses of a host, which show whether multicast reaches it.
    pub fn on_missing(&mut self, now: Moment, host: InstanceId, missing: &[Missing]) {
        if self.roster.version == 0 || !self.plan.is_by_multicast(host) {
            return;
        }

        for missing in missing {
            let generation = missing.generation.0;
            if !missing.need.is_empty() {
                // Some of it came, so multicast reaches the host.
                self.unreached.remove(&host);
                continue;
            }

            let first = UnreachedHost {
                generation,
                count: 1,
            };
            let unreached = self.unreached.entry(host).or_insert(first);
            if generation <= unreached.generation {
                continue;
            }

            unreached.count = match generation == unreached.generation + 1 {
                true => unreached.count + 1,
                false => 1,
            };
            unreached.generation = generation;
            self.due = now;
        }
    }

    /// Takes a way from one host to another that carries nothing.
    pub fn on_broken(&mut self, now: Moment, from: InstanceId, to: InstanceId) {
        if self.broken.add(from, to) {
            self.due = now;
        }
    }

    /// Takes a request of a host that has received the data counter `seen` of `sent`.
    pub fn on_request(&mut self, now: Moment, host: InstanceId, seen: u64, sent: u64) {
        let is_listed = self.roster.hosts.contains_key(&host);
        if self.roster.version == 0 || is_listed || seen >= sent {
            self.stalls.remove(&host);
            return;
        }

        let stall = self.stalls.entry(host).or_insert(Stall {
            seen,
            since: now,
            last: now,
        });
        if stall.seen != seen {
            (stall.seen, stall.since) = (seen, now);
        }
        stall.last = now;
    }

    /// Hosts in no roster that have received nothing for `patience` and still ask for it: multicast
    /// does not reach them, and nothing else does.
    pub fn cut_off(&self, now: Moment, patience: Duration) -> Vec<InstanceId> {
        let is_cut_off =
            |stall: &Stall| now.since(stall.since) >= patience && now.since(stall.last) < patience;
        let stalls = self.stalls.iter().filter(|(_, stall)| is_cut_off(stall));
        let ids = stalls.map(|(id, _)| *id);
        ids.filter(|id| !self.roster.hosts.contains_key(id))
            .collect()
    }

    /// Number of the plan; 0 before the first one.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Destinations of data without relays.
    pub fn data(&self) -> &DataTargets {
        &self.data
    }

    /// Number of their choice; 0 before the first one.
    pub fn data_number(&self) -> u32 {
        self.data_number
    }

    /// Hosts that the sender's multicast reaches, sorted.
    pub fn near(&self) -> &[InstanceId] {
        &self.plan.near
    }

    /// Copies of a datagram that leave this machine without relays.
    pub fn copies(&self) -> usize {
        let data = self.data();
        match self.number {
            0 => 1,
            _ => (data.hosts.len() + usize::from(data.multicast)).max(1),
        }
    }

    /// Smallest number of relays that are worth it: one for a group of several hosts, else two.
    pub fn least_relays(&self) -> usize {
        if self.plan.has_large_group() { 1 } else { 2 }
    }

    /// Number of hosts in groups.
    pub fn grouped(&self) -> usize {
        self.plan.data.hosts.len()
    }

    /// Hosts that have confirmed their targets, with their addresses.
    pub fn confirmed<'a>(
        &'a self,
        hosts: &'a Hosts,
    ) -> impl Iterator<Item = (InstanceId, &'a Host, SocketAddr)> {
        self.plan.members().filter_map(|(id, _)| {
            let host = hosts.get(id)?;
            let address = self.roster.hosts.get(&id)?.address;
            (1..=self.number)
                .contains(&host.transfer.targets)
                .then_some((id, host, address))
        })
    }
}

/// Returns whether a host may still want data.
fn takes_part(host: &Host) -> bool {
    let is_out = |stage: HostStage| !stage.is_rightful() && stage != HostStage::Joined;
    !host.is_lost() && !host.stage.is_some_and(is_out)
}

#[cfg(test)]
mod tests;
