//! Report about one tree for queries, read from its state.

use super::gate::held_report;
use super::managed::ManagedTree;
use super::staleness;
use crate::drive::clock;
use crate::error::Error;
use crate::keys::Fingerprint;
use crate::manifest::ReleaseId;
use crate::tree::{AwaitingRelease, KeptRelease, Tree};
use crate::units::WallTime;
use crate::wire::query::{
    FullRelease, MAX_ANSWER_PARTS, MAX_ANSWER_RELEASES, MAX_ANSWER_TARGETS, MAX_ANSWER_TOMBSTONES,
    PartRelease, ReleaseBytes, ReleaseReport, StagedReport, TreeActivity, TreeReport, Trouble,
};

/// Trouble reported for interrupted checks after a commit.
const CUT_SHORT: &str =
    "its checks after the commit were cut short: the next deploy runs them again";

/// Reports the tree's state; `list` adds its kept releases. `work` and `trouble` come from the
/// machine.
pub(super) fn tree_report(
    managed: &ManagedTree,
    list: bool,
    work: Option<TreeActivity>,
    trouble: Option<Trouble>,
) -> TreeReport {
    let tree = &managed.tree;
    let unreadable = |e: Error| {
        tracing::debug!(
            "tree {}: its state is asked for and cannot be read: {e}",
            tree.name()
        )
    };

    let running = tree.current().map_err(unreadable).ok().flatten();
    let message = running
        .as_ref()
        .and_then(|stored| stored.release.header().message.clone());
    let trouble = trouble.or_else(|| {
        let running = running.as_ref().filter(|_| work.is_none())?;
        stored_trouble(tree, running.release.id())
    });

    let unhealthy = running
        .as_ref()
        .map(|stored| tree.state().unhealthy(stored.release.id()).is_some());
    let runs_part = running
        .as_ref()
        .is_some_and(|stored| !stored.release.header().is_whole());
    let targets = running
        .as_ref()
        .map(|stored| stored.release.header().targets.clone());

    let targets = targets.filter(|list| (1..=MAX_ANSWER_TARGETS).contains(&list.len()));
    let parts = if runs_part {
        tree.parts(MAX_ANSWER_PARTS)
            .map_err(unreadable)
            .unwrap_or_default()
    } else {
        Vec::new()
    };

    let parts = parts
        .into_iter()
        .map(|(serial, replaced)| PartRelease { serial, replaced })
        .collect();
    let base = tree
        .base()
        .map_err(unreadable)
        .ok()
        .flatten()
        .map(|(serial, content)| FullRelease { serial, content });

    let kept = if list {
        tree.kept().map_err(unreadable).unwrap_or_default()
    } else {
        Vec::new()
    };

    let stones = tree
        .state()
        .tombstones()
        .map_err(unreadable)
        .unwrap_or_default();

    let shown = running
        .as_ref()
        .filter(|_| list)
        .map(|stored| ReleaseBytes {
            header: stored.release.bytes().to_vec(),
            signature: stored.signature.clone(),
        });

    TreeReport {
        shown,
        tree: tree.name().clone(),
        release: running.as_ref().map(|stored| stored.release.id()),
        tombstones: Some(
            stones
                .into_iter()
                .map(|buried| buried.stone)
                .take(MAX_ANSWER_TOMBSTONES)
                .collect(),
        ),
        running: running.map(|stored| stored.release.header().serial),
        highest: tree.highest_serial().ok().flatten().unwrap_or_default(),
        work,
        trouble,
        releases: kept
            .into_iter()
            .take(MAX_ANSWER_RELEASES)
            .map(release_report)
            .collect(),
        stale: staleness::stale(managed, clock::wall_seconds()),
        drifted: managed.drift_counts.counts(),
        sent: tree.state().sent().ok().flatten().map(|mark| mark.serial),
        parts_only: runs_part && base.is_none(),
        base,
        targets,
        parts: Some(parts),
        repository: managed.repository.report(clock::wall_seconds()),
        message,
        unhealthy,
        held: held_report(managed, clock::wall_seconds()),
        staged: tree
            .awaiting()
            .map_err(unreadable)
            .ok()
            .flatten()
            .and_then(|found| staged_report(&found, clock::wall_seconds())),
    }
}

/// Report of a staged release, unless it has expired.
fn staged_report(found: &AwaitingRelease, now: WallTime) -> Option<StagedReport> {
    let release = &found.stored.release;
    let expires = release.header().expires;
    (!found.is_expired(now)).then(|| StagedReport {
        serial: found.serial(),
        id: release.id(),
        age: now.0.saturating_sub(found.since.0).max(0) as u64,
        left: expires.map(|at| at.0.abs_diff(now.0)),
        paused: release.header().paused.clone(),
    })
}

/// Failure from before the daemon's start, which is stored with the tree.
fn stored_trouble(tree: &Tree, running: ReleaseId) -> Option<Trouble> {
    let failed = tree.state().unhealthy(running)?;
    let age = tree.state().unhealthy_for(clock::wall()).as_secs();
    let text = if failed.text.is_empty() {
        CUT_SHORT.to_string()
    } else {
        failed.text
    };

    Some(Trouble {
        serial: failed.mark.serial,
        age,
        text,
    })
}

fn release_report(kept: KeptRelease) -> ReleaseReport {
    let KeptRelease {
        serial,
        id,
        created,
        key,
        entries,
        bytes,
        content,
        part,
        running,
        message,
        pinned,
    } = kept;

    let key = key.map(|key: Fingerprint| key.to_string());
    ReleaseReport {
        serial,
        id,
        created,
        key,
        entries,
        bytes: bytes.0,
        running,
        content: Some(content),
        part,
        message,
        pinned,
    }
}
