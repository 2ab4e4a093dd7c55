//! A tree that this host manages, with the host's own rules.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::failures::ReleaseFailures;
use super::repository_notice::RepositoryNotice;
use super::rules::TreeRules;
use super::spared::spared;
use super::state_size::StateSize;
use crate::config::{CatchUp, TreeConfig};
use crate::diff::{HostRules, Memory, Plan, ProtectedPaths, protected};
use crate::drive::clock;
use crate::manifest::read::Manifest;
use crate::manifest::{Header, Intent, Release};
use crate::metrics::TreeFigures;
use crate::sync::locked;
use crate::tree::HostNames;
use crate::tree::scan::Scanned;
use crate::tree::{CommitReport, FsAbilities, HoldRecord, Tree};
use crate::wire::query::Drifted;

/// A tree with the host's own rules.
#[derive(Debug)]
pub struct ManagedTree {
    /// The tree, locked by this process.
    pub tree: Arc<Tree>,
    /// The host's own rules, see [`ManagedTree::rules`].
    rules: Mutex<Arc<TreeRules>>,
    /// Results of the last comparison, for the next one.
    pub memory: Mutex<Memory>,
    /// Whether the tree catches up with other hosts and serves them.
    pub catch_up: CatchUp,
    /// Interval of drift checks.
    pub repair: Option<Duration>,
    /// Results of drift checks.
    pub drift_counts: DriftCounts,
    /// Trouble with the tree's repository.
    pub repository: RepositoryNotice,
    /// Releases that could not be put in place.
    pub failures: ReleaseFailures,
    /// Counters of the tree.
    pub figures: TreeFigures,
    /// Size of its state.
    pub state_size: StateSize,
    /// What the filesystem of the tree can do.
    pub(super) abilities: FsAbilities,
    /// Holds of the tree, as recorded in its state.
    pub(super) holding: Mutex<HoldRecord>,
}

impl ManagedTree {
    /// The host's own rules at present.
    pub fn rules(&self) -> Arc<TreeRules> {
        Arc::clone(&locked(&self.rules))
    }

    /// Replaces the host's own rules, for sessions that begin from now on.
    pub fn set_rules(&self, rules: TreeRules) {
        *locked(&self.rules) = Arc::new(rules);
    }

    /// Plans the changes from the `scanned` tree to `header`, within the host's `own` rules. An
    /// audit changes nothing: the plan reports limits that a commit would exceed.
    pub(super) fn compare(
        &self,
        own: &TreeRules,
        scanned: &Scanned,
        header: &Header,
    ) -> crate::Result<Plan> {
        let manifest = Manifest::of(header, self.tree.nodes());
        let names = HostNames::default();
        let spared = spared(&self.tree, header)?;
        let rules = HostRules {
            protect: &own.protect,
            spared: &spared,
            max_delete: own.max_delete,
            reports_limits: header.intent == Intent::Audit,
            owners: &names,
        };

        let mut memory = locked(&self.memory);

        Ok(memory.diff(scanned, &manifest, &header.rules, &header.scope, &rules)?)
    }

    /// Paths of a release that this host protects.
    pub(super) fn protected(
        &self,
        own: &TreeRules,
        header: &Header,
    ) -> crate::Result<ProtectedPaths> {
        protected(&Manifest::of(header, self.tree.nodes()), &own.protect)
    }
}

/// Opens a tree by its configuration; recovers an interrupted commit first.
pub fn open_tree(config: &TreeConfig, state_dir: Option<&Path>) -> crate::Result<ManagedTree> {
    let options = crate::tree::TreeOptions {
        keep: config.keep as usize,
        follow_links: config.follow_links,
        exchanges: config.swap != Some(false),
    };

    let name = &config.name;
    let tree = Tree::open(name.clone(), &config.path, state_dir, options)?;
    if let Some(warning) = tree.state().warning() {
        tracing::warn!("tree {name}: {warning}");
    }

    match tree.recovery() {
        crate::tree::Recovery::Nothing => {}
        crate::tree::Recovery::Completed(serial) => {
            tracing::warn!(
                "tree {name}: the commit of {name}@{serial} was interrupted and is completed now"
            );
        }
        crate::tree::Recovery::Undone(serial) => {
            tracing::warn!(
                "tree {name}: the commit of {name}@{serial} was interrupted and is undone now"
            );
        }
    }

    let holding = tree.state().hold_record()?;
    let failures = ReleaseFailures::load(tree.state(), clock::wall_seconds());
    Ok(ManagedTree {
        abilities: tree.state().try_abilities(),
        tree,
        rules: Mutex::new(Arc::new(config.into())),
        memory: Mutex::default(),
        catch_up: config.catch_up,
        repair: config.repair,
        drift_counts: DriftCounts::default(),
        repository: RepositoryNotice::default(),
        failures,
        figures: TreeFigures::default(),
        state_size: StateSize::unknown(),
        holding: Mutex::new(holding),
    })
}

/// Results of drift checks since the daemon started.
#[derive(Debug, Default)]
pub struct DriftCounts {
    looks: AtomicU64,
    drifted: AtomicU64,
    repaired: AtomicU64,
    /// Differing paths in the last check.
    paths: AtomicU64,
}

impl DriftCounts {
    /// The counts; `None` before the first check.
    pub fn counts(&self) -> Option<Drifted> {
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let told = Drifted {
            looks: count(&self.looks),
            drifted: count(&self.drifted),
            repaired: count(&self.repaired),
            paths: Some(count(&self.paths)),
        };

        (told.looks > 0 || told.repaired > 0).then_some(told)
    }

    /// Counts a check that found `paths` to differ.
    pub(super) fn found(&self, paths: u64) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.paths.store(paths, Ordering::Relaxed);
        if paths > 0 {
            self.drifted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a commit removed all drift.
    pub(super) fn clear(&self) {
        self.paths.store(0, Ordering::Relaxed);
    }

    /// Counts and logs a repair: a commit of the current release.
    pub(super) fn repaired(&self, release: &Release, done: &CommitReport) {
        self.repaired.fetch_add(1, Ordering::Relaxed);
        let written = done.files_written + done.directories_made;
        let changed = done.metadata_changed;
        tracing::warn!(
            "{release}: repaired: {written} paths made anew, of {changed} mode, owner or time, \
            {} removed",
            done.deleted
        );
    }
}
