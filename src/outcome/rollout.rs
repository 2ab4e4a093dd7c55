//! Rollouts with pauses, by the answers of the hosts.

use std::collections::BTreeMap;

use super::fleet::Standing;
use crate::id::{NamedHost, Serial, TreeName};
use crate::manifest::{PausedCommit, ReleaseId};
use crate::proto::rollout::{NextBatch, ReleasePlace, Rollout, RolloutHost, RolloutRules};
use crate::wire::query::StagedReport;

/// The host of a standing, with the place of the release of this serial and identity.
pub fn rollout_host(standing: &Standing, serial: Serial, id: ReleaseId) -> RolloutHost {
    RolloutHost {
        named: standing.named.clone(),
        labels: standing.labels.clone(),
        place: place_of(standing, serial, id),
    }
}

fn place_of(standing: &Standing, serial: Serial, id: ReleaseId) -> ReleasePlace {
    let Some(status) = &standing.status else {
        return ReleasePlace::Unknown;
    };

    let is_at_work = status
        .work
        .as_ref()
        .is_some_and(|work| work.serial == serial);
    let is_it = |staged: &StagedReport| staged.id == id;
    match status.runs(serial, id) {
        // The release counts as unhealthy until its checks have passed.
        true if status.unhealthy && is_at_work => ReleasePlace::Checking,
        true if status.unhealthy => ReleasePlace::Failing,
        true => ReleasePlace::Well,
        false if status.running > Some(serial) => ReleasePlace::Newer,
        false if status.staged.as_ref().is_some_and(is_it) => ReleasePlace::Staged,
        false => ReleasePlace::Missing,
    }
}

/// A rollout that waits for somebody's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PausedRollout {
    /// Name of the tree.
    pub tree: TreeName,
    /// Serial of the release.
    pub serial: Serial,
    /// Hosts that have the release.
    pub having: Vec<NamedHost>,
    /// Hosts that a newer release has overtaken.
    pub newer: Vec<NamedHost>,
    /// The batch that is due.
    pub next: NextBatch,
}

/// Rollouts that wait for somebody's word, by the `standings` of any trees.
pub fn paused_rollouts(standings: &[Standing]) -> Vec<PausedRollout> {
    let mut staged: BTreeMap<_, &PausedCommit> = BTreeMap::new();
    for standing in standings {
        let report = standing.status.as_ref().and_then(|s| s.staged.as_ref());
        if let Some(report) = report
            && let Some(paused) = &report.paused
        {
            let release = (&standing.tree, report.serial, report.id);
            staged.entry(release).or_insert(paused);
        }
    }

    let rollout = |((tree, serial, id), paused): ((&TreeName, Serial, ReleaseId), _)| {
        let rules = RolloutRules::of(paused)?;
        let of_tree = standings.iter().filter(|s| s.tree == *tree);
        let hosts = of_tree.map(|s| rollout_host(s, serial, id));
        let rollout = Rollout::plan(&rules.batches, hosts);
        Some(PausedRollout {
            tree: tree.clone(),
            serial,
            having: rollout.having(),
            newer: rollout.newer().to_vec(),
            next: rollout.next(rules.require)?,
        })
    };
    staged.into_iter().filter_map(rollout).collect()
}
