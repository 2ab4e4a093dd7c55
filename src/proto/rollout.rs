//! A release that commits batch by batch, with a person's word in between: which hosts have it, and
//! which are next.
//!
//! Pure, and planned anew at each look, in the order of names, from the hosts that have the release
//! or keep it staged, and those that do not answer: they may have it. Other hosts are in no batch:
//! one that came later takes the release from the others once the last batch has it.
//!
//! A batch is done when enough of its hosts have the release and are well, so a look at a smaller
//! fleet may plan an earlier batch again. It may take a batch for the last one as well, or skip a
//! rule without hosts: the number of hosts in the header shows that.

use crate::id::{HostName, Labels, NamedHost};
use crate::manifest::PausedCommit;
use crate::proto::sender::Batches;
use crate::spec::BatchRule;
use crate::units::Quorum;

/// Place of a release on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleasePlace {
    /// Committed, without a known failure.
    Well,
    /// Committed, and failing its checks.
    Failing,
    /// Committed, and its checks run.
    Checking,
    /// Staged.
    Staged,
    /// Overtaken by a newer release.
    Newer,
    /// None of these.
    Missing,
    /// The host did not answer.
    Unknown,
}

/// A host and its place in a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutHost {
    /// The host as shown to people.
    pub named: NamedHost,
    /// Its labels.
    pub labels: Labels,
    /// Place of the release there.
    pub place: ReleasePlace,
}

impl RolloutHost {
    fn name(&self) -> &HostName {
        &self.named.name
    }
}

/// Rules of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutRules {
    /// Rules of the batches before the last one.
    pub batches: Vec<BatchRule>,
    /// Hosts of a batch that need the release before the next batch is due.
    pub require: Quorum,
    /// Whether a failure takes every host back.
    pub revert: bool,
    /// Number of hosts that the release was made for.
    pub hosts: Option<usize>,
}

impl RolloutRules {
    /// Reads the rules in a header; `None` if a later version wrote them.
    pub fn of(paused: &PausedCommit) -> Option<Self> {
        let batches = paused.batches.iter().map(|rule| rule.parse().ok());
        Some(Self {
            batches: batches.collect::<Option<_>>()?,
            require: paused.require.parse().ok()?,
            revert: paused.revert,
            hosts: paused.hosts.map(|hosts| hosts as usize),
        })
    }
}

/// The batch that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextBatch {
    /// Number of the batch, from 1.
    pub number: usize,
    /// Number of all batches.
    pub of: usize,
    /// Hosts that have to commit before the next batch is due.
    pub needed: usize,
    /// Hosts of the batch that keep the release staged.
    pub hosts: Vec<NamedHost>,
    /// Hosts of the batch that have the release and are not well.
    pub failing: Vec<NamedHost>,
    /// Hosts of the batch that have the release, and still run its checks.
    pub checking: Vec<NamedHost>,
    /// Hosts of the batch that did not answer.
    pub unknown: Vec<NamedHost>,
    /// Hosts of other batches that keep it staged.
    pub waiting: Vec<NamedHost>,
}

impl NextBatch {
    /// Returns whether no batch follows.
    pub fn is_last(&self) -> bool {
        self.number == self.of
    }
}

/// What a plan lacks to tell the last batch from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetGap {
    /// Fewer hosts than this one, the number that the release was made for.
    Fewer(usize),
    /// The release does not say for how many hosts it is.
    Unsaid,
}

/// A release on its way through a fleet.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Hosts of each batch.
    batches: Vec<Vec<RolloutHost>>,
    /// Hosts with a newer release.
    newer: Vec<NamedHost>,
    /// Hosts that neither have the release nor keep it staged.
    missing: Vec<NamedHost>,
}

impl Rollout {
    /// Plans the batches.
    pub fn plan(rules: &[BatchRule], hosts: impl IntoIterator<Item = RolloutHost>) -> Self {
        let mut hosts: Vec<RolloutHost> = hosts.into_iter().collect();
        let newer = in_place(&hosts, ReleasePlace::Newer);
        let missing = in_place(&hosts, ReleasePlace::Missing);
        hosts.retain(|host| !matches!(host.place, ReleasePlace::Newer | ReleasePlace::Missing));
        let labelled = |host: &RolloutHost| (host.name().clone(), host.labels.clone());
        let plan = Batches::plan(rules, hosts.iter().map(labelled).collect());

        let mut batches = vec![Vec::new(); plan.number().1];
        for host in hosts {
            let at = plan.index_of(host.name());
            batches[at].push(host);
        }
        Self {
            batches,
            newer,
            missing,
        }
    }

    /// The first batch in which fewer hosts than `require` are well; `None` once there is none.
    pub fn next(&self, require: Quorum) -> Option<NextBatch> {
        let needed = |batch: &Vec<RolloutHost>| {
            let well = in_place(batch, ReleasePlace::Well).len();
            require
                .of(batch.len())
                .min(batch.len())
                .saturating_sub(well)
        };
        let at = self.batches.iter().position(|batch| needed(batch) > 0)?;

        let others = self.batches.iter().enumerate().filter(|(n, _)| *n != at);
        let waiting = others.flat_map(|(_, batch)| in_place(batch, ReleasePlace::Staged));
        Some(NextBatch {
            number: at + 1,
            of: self.batches.len(),
            needed: needed(&self.batches[at]),
            hosts: in_place(&self.batches[at], ReleasePlace::Staged),
            failing: in_place(&self.batches[at], ReleasePlace::Failing),
            checking: in_place(&self.batches[at], ReleasePlace::Checking),
            unknown: in_place(&self.batches[at], ReleasePlace::Unknown),
            waiting: waiting.collect(),
        })
    }

    /// Hosts with a newer release: this one is no longer for anybody.
    pub fn newer(&self) -> &[NamedHost] {
        &self.newer
    }

    /// Hosts that neither have the release nor keep it staged.
    pub fn missing(&self) -> &[NamedHost] {
        &self.missing
    }

    /// Hosts that have the release.
    pub fn having(&self) -> Vec<NamedHost> {
        let mut having = self.hosts_in(ReleasePlace::Well);
        having.extend(self.hosts_in(ReleasePlace::Failing));
        having.extend(self.hosts_in(ReleasePlace::Checking));
        having.sort();
        having
    }

    /// Number of hosts that have the release or keep it staged.
    pub fn there(&self) -> usize {
        self.having().len() + self.hosts_in(ReleasePlace::Staged).len()
    }

    /// Returns whether a host of this name has the release or keeps it staged.
    pub fn is_at(&self, name: &HostName) -> bool {
        let mut hosts = self.batches.iter().flatten();
        hosts.any(|host| host.name() == name && host.place != ReleasePlace::Unknown)
    }

    /// Why the batch may be planned too early: it is for everybody left, or a rule selected nobody,
    /// and hosts may be left that were not heard. `None` if all are known.
    pub fn shortage(&self, rules: &RolloutRules, next: &NextBatch) -> Option<FleetGap> {
        let is_whole = !next.is_last() && next.of > rules.batches.len();
        match rules.hosts {
            _ if is_whole => None,
            Some(hosts) if hosts > self.there() => Some(FleetGap::Fewer(hosts)),
            None if next.is_last() => Some(FleetGap::Unsaid),
            _ => None,
        }
    }

    /// Hosts of all batches with the release in this place.
    pub fn hosts_in(&self, place: ReleasePlace) -> Vec<NamedHost> {
        let batches = self.batches.iter();
        batches.flat_map(|batch| in_place(batch, place)).collect()
    }
}

fn in_place(batch: &[RolloutHost], place: ReleasePlace) -> Vec<NamedHost> {
    let found = batch.iter().filter(|host| host.place == place);
    found.map(|host| host.named.clone()).collect()
}

#[cfg(test)]
mod tests;
