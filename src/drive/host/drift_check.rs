//! The drift check: a host compares its own tree with the current release, without any request.
//!
//! Logs and counts drift. A repair is a release like any other, pulled from a member that has it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::managed::ManagedTree;
use super::own_scan::ScanTask;
use crate::Result;
use crate::diff::ProtectedPaths;
use crate::drive::{clock, drift};
use crate::id::TreeName;
use crate::proto::receiver::ScanMode;
use crate::units::{Moment, printable};

/// Largest number of paths named in one log line.
const MAX_LOGGED_PATHS: usize = 5;

/// Scans the tree and compares it with its release, to prepare the next comparison.
pub(super) fn remember(managed: &ManagedTree) {
    if let Err(e) = differences(managed) {
        tracing::debug!(
            "tree {}: the next release scans it: {e}",
            managed.tree.name()
        );
    }
}

/// Compares a tree with its release and logs the drift. Returns whether there is any.
pub(super) fn check_drift(managed: &ManagedTree) -> bool {
    let name = managed.tree.name();
    let (paths, names) = match differences(managed) {
        Ok(Some(found)) => found,
        Ok(None) => return false,
        Err(e) => {
            tracing::warn!("tree {name}: cannot check for drift: {e}");
            return false;
        }
    };

    managed.drift_counts.found(paths);
    managed
        .figures
        .drift_checked
        .set_time(clock::wall_seconds());
    if paths > 0 {
        tracing::warn!("tree {name}: drifted: {paths} paths are not as its release says: {names}");
    }

    paths > 0
}

/// Number of differing paths and the first of them; `None` without a whole release.
fn differences(managed: &ManagedTree) -> Result<Option<(u64, String)>> {
    let tree = &managed.tree;
    let Some(current) = tree.current()? else {
        return Ok(None);
    };

    let header = current.release.header();
    if !header.scope.is_empty() {
        return Ok(None);
    }

    let rules = managed.rules();
    let scanned =
        ScanTask::begin(managed, &rules, &current.release, ScanMode::default(), None)?.end()?;
    let plan = managed.compare(&rules, &scanned, header)?;
    let count =
        plan.summary.created + plan.summary.updated + plan.summary.metadata + plan.summary.deleted;
    let (list, _) = drift::encode(&plan, &ProtectedPaths::default(), MAX_LOGGED_PATHS);
    let lines = drift::decode(&list)
        .map(|found| found.lines)
        .unwrap_or_default();

    let mut shown: Vec<String> = lines
        .iter()
        .take(MAX_LOGGED_PATHS)
        .map(|l| printable(&l.path))
        .collect();

    if count > shown.len() as u64 {
        shown.push("...".into());
    }

    Ok(Some((count, shown.join(", "))))
}

/// Times of the next drift checks.
#[derive(Debug)]
pub(super) struct DriftSchedule {
    due: BTreeMap<TreeName, (Moment, Duration)>,
}

impl DriftSchedule {
    /// Schedules the first check of each tree after one interval.
    pub(super) fn new<'a>(
        now: Moment,
        trees: impl Iterator<Item = (&'a TreeName, &'a ManagedTree)>,
    ) -> Self {
        let due = trees
            .filter_map(|(name, m)| m.repair.map(|every| (name.clone(), (now + every, every))));
        Self { due: due.collect() }
    }

    /// Adds a tree opened late.
    pub(super) fn add(&mut self, now: Moment, name: &TreeName, managed: &ManagedTree) {
        if let Some(every) = managed.repair {
            self.due.insert(name.clone(), (now + every, every));
        }
    }

    /// Returns a tree that is due and schedules its next check.
    pub(super) fn poll(&mut self, now: Moment) -> Option<TreeName> {
        let (name, (at, every)) = self.due.iter_mut().find(|(_, (at, _))| *at <= now)?;
        *at = now + *every;
        Some(name.clone())
    }

    /// Time of the next check.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.due.values().map(|(at, _)| *at).min()
    }
}
