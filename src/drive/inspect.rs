//! A host looks at its own tree without being asked: is it still what its release says?
//!
//! What drifted is said in the log and counted; making it good is a release like any other, pulled from a member that
//! has it. Owns the comparison and the counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::disk::ManagedTree;
use super::drift;
use super::look::Look;
use crate::Result;
use crate::id::TreeName;
use crate::manifest::Release;
use crate::proto::receiver::ScanMode;
use crate::tree::CommitReport;
use crate::units::{Moment, printable};
use crate::wire::query::Drifted;

/// The most paths that one line of the log names.
const NAMED: usize = 5;

/// What was found in a tree since the daemon started.
#[derive(Debug, Default)]
pub struct Inspections {
    looks: AtomicU64,
    drifted: AtomicU64,
    repaired: AtomicU64,
    /// How many paths differed in the last look.
    paths: AtomicU64,
}

impl Inspections {
    /// The counts; none before the first look.
    pub fn told(&self) -> Option<Drifted> {
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let told = Drifted {
            looks: count(&self.looks),
            drifted: count(&self.drifted),
            repaired: count(&self.repaired),
            paths: Some(count(&self.paths)),
        };

        (told.looks > 0 || told.repaired > 0).then_some(told)
    }

    /// The tree was made what a release says.
    pub(super) fn made_good(&self) {
        self.paths.store(0, Ordering::Relaxed);
    }

    /// The tree was made what its release says once more.
    pub(super) fn repaired(&self, release: &Release, done: &CommitReport) {
        self.repaired.fetch_add(1, Ordering::Relaxed);
        let (written, changed) = (
            done.files_written + done.directories_made,
            done.metadata_changed,
        );
        tracing::warn!(
            "{release}: repaired: {written} paths made anew, of {changed} mode, owner or time, {} removed",
            done.deleted
        );
    }
}

impl ManagedTree {
    /// Looks at the tree, and compares it with its release, for what is remembered of that.
    pub(super) fn get_to_know(&self) {
        if let Err(e) = differences(self) {
            tracing::debug!(
                "tree {}: it is looked at when the next release comes: {e}",
                self.tree.name()
            );
        }
    }
}

/// Compares a tree with its release, and says in the log what differs; true when something does.
pub(super) fn inspect(managed: &ManagedTree) -> bool {
    let tree = &managed.tree;
    match differences(managed) {
        Ok(None) => false,
        Ok(Some((paths, names))) => {
            managed.inspections.looks.fetch_add(1, Ordering::Relaxed);
            managed.inspections.paths.store(paths, Ordering::Relaxed);
            if paths > 0 {
                managed.inspections.drifted.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    "tree {}: drifted: {paths} paths are not as its release says: {names}",
                    tree.name()
                );
            }
            paths > 0
        }
        Err(e) => {
            tracing::warn!(
                "tree {}: it cannot be looked for what drifted: {e}",
                tree.name()
            );
            false
        }
    }
}

/// How many paths differ, and the first of them; `None` when there is no release, or one of a part of the tree.
fn differences(managed: &ManagedTree) -> Result<Option<(u64, String)>> {
    let tree = &managed.tree;
    let Some(current) = tree.current()? else {
        return Ok(None);
    };

    let header = current.release.header();
    if !header.scope.is_empty() {
        return Ok(None);
    }

    let scanned = Look::begin(managed, &current.release, ScanMode::default(), None)?.end()?;
    let plan = managed.compare(&scanned, header)?;
    let count =
        plan.summary.created + plan.summary.updated + plan.summary.metadata + plan.summary.deleted;
    let (list, _) = drift::encode(&plan, NAMED);
    let lines = drift::decode(&list)
        .map(|found| found.lines)
        .unwrap_or_default();

    let mut shown: Vec<String> = lines
        .iter()
        .take(NAMED)
        .map(|l| printable(&l.path))
        .collect();

    if count > shown.len() as u64 {
        shown.push("...".into());
    }

    Ok(Some((count, shown.join(", "))))
}

/// When which tree is looked at.
#[derive(Debug)]
pub(super) struct Schedule {
    due: BTreeMap<TreeName, (Moment, Duration)>,
}

impl Schedule {
    /// Each tree for the first time after its first interval.
    pub(super) fn new<'a>(
        now: Moment,
        trees: impl Iterator<Item = (&'a TreeName, &'a ManagedTree)>,
    ) -> Self {
        let due = trees
            .filter_map(|(name, m)| m.repair.map(|every| (name.clone(), (now + every, every))));
        Self { due: due.collect() }
    }

    /// A tree that could be opened only now.
    pub(super) fn add(&mut self, now: Moment, name: &TreeName, managed: &ManagedTree) {
        if let Some(every) = managed.repair {
            self.due.insert(name.clone(), (now + every, every));
        }
    }

    /// The next tree that is due; its next time follows.
    pub(super) fn poll(&mut self, now: Moment) -> Option<TreeName> {
        let (name, (at, every)) = self.due.iter_mut().find(|(_, (at, _))| *at <= now)?;
        *at = now + *every;
        Some(name.clone())
    }

    /// When the next one is due.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.due.values().map(|(at, _)| *at).min()
    }
}
