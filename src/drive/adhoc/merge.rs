//! Merges the many parts of a tree, those with and those without deletions separately. New hosts
//! and the history then hold fewer releases.
//!
//! A merged release is sent only if every host has the content already, so that nothing changes
//! unrequested.

use std::sync::Arc;

use super::plan::PlannedRequest;
use crate::Result;
use crate::drive::deploy::source::{PreparedRelease, ReleaseSource};
use crate::drive::deploy::{self, Interrupt, ReleaseOrigin};
use crate::outcome::{
    DriftGroup, DriftKind, DriftLine, Event, ExitStatus, Observer, Outcome, Purpose,
};
use crate::spec::Compress;
use crate::tree::{LiveTree, Merged, StoredSource, Tree};

/// Number of parts that are merged into one release.
const MERGE_FROM_PARTS: usize = 32;

/// Number of further parts before the next attempt to merge.
const MERGE_RETRY_PARTS: usize = 16;

/// Merges the parts of the tree of `work`, if they are many.
pub(super) fn run(work: &PlannedRequest<'_>, interrupt: &Interrupt) {
    let Some(tree) = work.service.handle().tree(&work.tree.name) else {
        return;
    };

    if !work.service.queue().may_merge(&work.tree.name) {
        return;
    }

    match tree.parts(usize::MAX) {
        Ok(parts)
            if parts.iter().filter(|(_, is_replaced)| !is_replaced).count() < MERGE_FROM_PARTS =>
        {
            return;
        }
        Ok(_) => {}
        Err(e) => {
            return tracing::warn!("tree {}: cannot merge its parts: {e}", tree.name());
        }
    }

    // The user waits for the merge, so a failed one is not repeated at once.
    work.service
        .queue()
        .merge_after(&work.tree.name, MERGE_RETRY_PARTS);
    for deletes in [true, false] {
        if let Err(e) = merge_kind(work, &tree, deletes, interrupt) {
            return tracing::warn!("tree {}: cannot merge its parts: {e}", tree.name());
        }
    }
}

/// Merges the parts with deletions, or those without, by the current history.
fn merge_kind(
    work: &PlannedRequest<'_>,
    tree: &Arc<Tree>,
    deletes: bool,
    interrupt: &Interrupt,
) -> Result<()> {
    let kind = if deletes {
        "with deletions"
    } else {
        "without deletions"
    };

    let stays = |why: &str| {
        tracing::debug!(
            "tree {}: its parts {kind} are not merged: {why}",
            tree.name()
        )
    };

    let merged = match tree.merged_part(deletes, MERGE_FROM_PARTS / 2)? {
        Ok(merged) => merged,
        Err(why) => {
            stays(why);
            return Ok(());
        }
    };

    if !changes_nothing(&put(work, tree, &merged, Purpose::DryRun, interrupt)?) {
        stays("hosts differ from it");
        return Ok(());
    }

    let outcome = put(work, tree, &merged, Purpose::Deploy, interrupt)?;
    tracing::info!(
        "tree {}: {} parts merged into one release: {:?}",
        tree.name(),
        merged.parts,
        outcome.exit
    );

    Ok(())
}

fn put(
    work: &PlannedRequest<'_>,
    tree: &Arc<Tree>,
    merged: &Merged,
    purpose: Purpose,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let mut options = work.options(purpose, &merged.scope)?;
    options.lists = purpose == Purpose::DryRun;
    // The message of the last part says nothing of the others.
    options.message = None;
    options.part.listed = false;
    options.scan.checksum = false;
    options.conditions.only_after = Some(merged.after);
    let facts = PreparedRelease {
        root: merged.root,
        top: None,
        scope: merged.scope.clone(),
        rules: merged.rules.clone(),
        scanned: None,
        notes: Vec::new(),
        files: Vec::new(),
    };

    let live = LiveTree::Served(Arc::clone(tree));
    let records = (*tree.state()).clone();
    let prepare = move || {
        let source = StoredSource::open(live, records, facts.root)?;
        Ok((ReleaseSource::of(Box::new(source), Compress::Auto), facts))
    };

    deploy::run(
        work.service.join()?,
        options,
        ReleaseOrigin::Prepared(Box::new(prepare)),
        interrupt,
        &mut NoObserver,
    )
}
/// Returns whether a release would change only times of directories, whose content other releases
/// change.
fn changes_nothing(found: &Outcome) -> bool {
    let is_time =
        |line: &DriftLine| line.what == DriftKind::Time && line.itemized.starts_with(".d");
    let lines = |group: &DriftGroup| {
        group.lines.len() as u64 == group.total() && group.lines.iter().all(is_time)
    };
    found.exit == ExitStatus::Success && found.drift.iter().all(lines)
}

/// Ignores the events of unrequested sessions, which are logged.
struct NoObserver;

impl Observer for NoObserver {
    fn event(&mut self, _: &Event) {}
}
