//! Permissions of this process for everything in a plan, checked before staging.

use std::collections::HashSet;

use crate::diff::{Action, Delta, Plan, Shape};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::TreePath;
use crate::tree::fs::errors::is_absent;
use crate::tree::fs::owners::Rights;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// Checks whether this process may create everything in the plan. Values that a release leaves to
/// the host (the owner of a new version of a file) stay as they are, if this process may set them.
pub(crate) fn check_owners(plan: &mut Plan, strangers: &HashSet<usize>) -> Result<()> {
    let rights = Rights::of_process();
    let mut at = 0..;

    plan.changes.try_update_owners(|change, owner| {
        let is_strange = at.next().is_some_and(|at| strangers.contains(&at));
        if change.want.is_none() || !change.is_applied() {
            return Ok(());
        }
        if (change.makes_anew() || change.delta.user || change.delta.group)
            && let Some(why) = rights.refuses_owner(change.owner)
        {
            return Err(
                Error::refused(format!("{}: its owner cannot be set: {why}", change.path)).hint(
                    "run the daemon as root, or set owner.user and owner.group to \"ignore\" \
                     in the spec",
                ),
            );
        }

        if !is_strange && rights.refuses_owner(change.kept).is_none() {
            owner.uid = owner.uid.or(change.kept.uid);
            owner.gid = owner.gid.or(change.kept.gid);
        }

        if change.makes_anew() && change.shape() == Shape::Device && !rights.makes_devices() {
            return Err(
                Error::refused(format!("{}: only root may make devices", change.path))
                    .hint("run the daemon as root, or exclude devices in the spec"),
            );
        }
        Ok(())
    })
}

/// Checks whether this process may set the plan's metadata on existing paths, and the times of
/// directories with changed names: only the owner of a path may.
pub(crate) fn check_metadata(tree: &Worktree, plan: &Plan) -> Result<()> {
    let rights = Rights::of_process();
    if rights.changes_modes_of_all() {
        return Ok(());
    }

    let check = |path: &TreePath, what: &str| {
        match tree.root().stat(path) {
            Ok(stat) if rights.changes_modes_of(stat.st_uid) => Ok(()),
            Ok(stat) => Err(Error::refused(format!(
                "{}: its {what} cannot be set: it belongs to user {}, and this daemon is neither \
                 that user nor root",
                tree.root().shown(path).display(),
                stat.st_uid
            ))
            .hint("run the daemon as root, or give it what the tree contains")),
            // Not there yet.
            Err(e) if is_absent(&e) => Ok(()),
            Err(e) => Err(Error::io("cannot look at", tree.root().shown(path), e)),
        }
    };

    let leaves = |dir: &TreePath| {
        let found = plan.changes.find(dir).map(|at| plan.changes.get(at).action);
        matches!(found, Some(Action::Delete | Action::Replace))
    };

    let mut last = None;
    for change in plan.changes.iter().filter(|c| c.is_applied()) {
        if change.action == Action::Meta {
            check(&change.path, "metadata")?;
            continue;
        }
        let parent = change.path.parent();
        if parent == last {
            continue;
        }
        if let Some(dir) = parent
            .as_ref()
            .filter(|dir| plan.sets_mtime && !leaves(dir))
        {
            check(dir, "time")?;
        }
        last = parent;
    }

    Ok(())
}

/// Checks whether this process may set owner, mode and mtime of the tree's root directory, as far
/// as the commit does.
pub(crate) fn check_top(tree: &Worktree, plan: &Plan) -> Result<()> {
    let Some(top) = &plan.top else { return Ok(()) };
    let rights = Rights::of_process();
    let root = tree.root();
    let shown = root.path().display();
    if (top.delta.user || top.delta.group)
        && let Some(why) = rights.refuses_owner(top.owner)
    {
        return Err(
            Error::refused(format!("{shown}: its owner cannot be set: {why}")).hint(
                "run the daemon as root, or set owner.user and owner.group to \"ignore\" in \
                 the spec",
            ),
        );
    }

    let renames = plan
        .changes
        .iter()
        .any(|c| c.is_applied() && c.action != Action::Meta && c.path.parent().is_none());
    let only_owner = Delta {
        user: top.delta.user,
        group: top.delta.group,
        ..Delta::default()
    };

    if top.delta == only_owner && !(renames && plan.sets_mtime) {
        return Ok(());
    }

    let stat = FileStat::of(tree.root()).context("cannot look at", tree.root().path())?;
    match rights.changes_modes_of(stat.uid) {
        true => Ok(()),
        false => Err(Error::refused(format!(
            "{shown}: its mode and time cannot be set: it belongs to user {}, and this daemon is \
             neither that user nor root",
            stat.uid
        ))
        .hint("run the daemon as root, or give it the directory")),
    }
}
