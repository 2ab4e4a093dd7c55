//! Builds the journal's steps from a plan and its staged items, and records the state of each path
//! before.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use super::dir_steps::DirSteps;
use super::journal::{DirStep, Inode, Step};
use crate::diff::{Action, Change, Plan, Shape};
use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::packed::Packed;
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::dir_access::OpenedDirs;
use crate::tree::fs::metadata::{Metadata, handle_of};
use crate::tree::fs::stat::FileStat;
use crate::tree::prepare::copies;
use crate::tree::prepare::items::StagedItem;
use crate::tree::state::worktree::Worktree;

/// Directories that a commit of `plan` touches, sorted.
pub(crate) fn dirs(tree: &Worktree, plan: &Plan) -> Result<Vec<DirStep>> {
    let root = tree.root();
    let mut dirs = DirSteps::new(tree, &root, plan, BTreeMap::new());
    plan.changes
        .iter()
        .filter(|c| c.is_applied())
        .try_for_each(|c| dirs.add(&c))?;
    dirs.finish()
}

/// Builds the steps for `items` under `plan`.
pub(crate) fn build(
    tree: &Worktree,
    plan: &Plan,
    items: &[StagedItem],
    mut slot: u64,
) -> Result<(Packed<Step>, Vec<DirStep>)> {
    let mut steps = Packed::default();
    let (mut removals, mut late, mut sets) =
        (Packed::default(), Packed::default(), Packed::default());
    let mut copies: Packed<Step> = Packed::default();
    let mut remove = |change: &Change| {
        slot += 1;
        let is_dir = change.was == Some(Shape::Directory);
        Step::Remove {
            path: change.path.clone(),
            slot,
            is_dir,
        }
    };

    let mut items = items.iter().peekable();
    let root = tree.root();

    // Closed again once everything is known: the steps open directories themselves.
    let opened = OpenedDirs::of_plan(&root, plan)?;
    let mut dirs = DirSteps::new(tree, &root, plan, opened.modes());
    for (at, change) in plan
        .changes
        .iter()
        .enumerate()
        .filter(|(_, c)| c.is_applied())
    {
        let becomes_dir = change.want.is_some() && change.shape() == Shape::Directory;
        let was_dir = change.was == Some(Shape::Directory);
        match change.action {
            Action::Delete => removals.push(remove(&change)),
            Action::Meta if becomes_dir => {}
            Action::Meta => match items.next_if(|i| i.change() == at) {
                None => sets.push(set_step(tree, plan, &change)?),
                Some(item) => {
                    check_unchanged(tree, &change, item)?;
                    copies.push(place(tree, &change.path, item)?);
                    while let Some(further) = items.next_if(|i| i.change() == at) {
                        let path = further.further().unwrap_or(&change.path);
                        copies.push(place(tree, path, further)?);
                        dirs.touch(path.parent());
                    }
                    dirs.touch(change.path.parent());
                }
            },
            _ if becomes_dir => {
                if change.action == Action::Replace {
                    steps.push(remove(&change));
                }
                steps.push(Step::Mkdir(change.path.clone()));
            }
            _ => {
                let item = items.next_if(|i| i.change() == at);
                let item =
                    item.ok_or_else(|| Error::refused(format!("{} is not staged", change.path)))?;
                let replaces = !was_dir && change.was.is_some();
                let Inode { ino, born } = inode(tree, item)?;
                let path = change.path.clone();
                let slot = item.slot;
                let place = Step::Place {
                    path,
                    slot,
                    ino,
                    replaces,
                    copy: None,
                    born,
                };
                if was_dir {
                    removals.push(remove(&change));
                    late.push(place);
                } else {
                    steps.push(place);
                }
            }
        }
        dirs.add(&change)?;
    }

    steps.extend(removals.iter().rev());
    steps.extend(late.iter());
    steps.extend(copies.iter());
    steps.extend(sets.iter());

    Ok((steps, dirs.finish()?))
}

/// Step that replaces an original with its copy.
fn place(tree: &Worktree, path: &TreePath, item: &StagedItem) -> Result<Step> {
    let Inode { ino, born } = inode(tree, item)?;
    Ok(Step::Place {
        path: path.clone(),
        slot: item.slot,
        ino,
        replaces: true,
        copy: Some(true),
        born,
    })
}

/// Identity of a staged item. An overlay has files of several filesystems, which may share inode
/// numbers.
fn inode(tree: &Worktree, item: &StagedItem) -> Result<Inode> {
    match item.ino().filter(|_| !tree.state.is_overlay()) {
        Some(ino) => Ok(Inode { ino, born: None }),
        None => {
            let staged = stage_stat(tree, item.slot)?;
            Ok(Inode {
                ino: staged.id.ino,
                born: staged.born.filter(|_| tree.state.is_overlay()),
            })
        }
    }
}

/// Refuses if the original changed since the copy: the change would be lost.
fn check_unchanged(tree: &Worktree, change: &Change, item: &StagedItem) -> Result<()> {
    let Some(copied) = item.copied() else {
        return Ok(());
    };

    let failed = |e: io::Error| Error::io("cannot look at", tree.root().shown(&change.path), e);
    let (parent, name) = tree.root().parent(&change.path).map_err(failed)?;
    if FileStat::at(parent.as_fd(), &name)
        .map_err(failed)?
        .version()
        != copied
    {
        return Err(changed_since(tree, &change.path));
    }

    Ok(())
}

fn changed_since(tree: &Worktree, path: &TreePath) -> Error {
    Error::refused(format!(
        "{} changed since the tree was compared",
        tree.root().printed(path)
    ))
    .hint("deploy again")
}

fn set_step(tree: &Worktree, plan: &Plan, change: &Change) -> Result<Step> {
    let failed = |e: io::Error| Error::io("cannot look at", tree.root().shown(&change.path), e);
    let (parent, name) = tree.root().parent(&change.path).map_err(failed)?;
    let handle = handle_of(parent.as_fd(), &name).map_err(failed)?;
    let now = FileStat::of(&handle).map_err(failed)?;
    if copies::is_taken_from_others(&now, change) {
        return Err(changed_since(tree, &change.path));
    }

    let old = Metadata::of(&handle, plan.sets_xattrs).map_err(failed)?;
    let old = Box::new(old);
    let new = Box::new(Metadata::wanted(change, plan));
    Ok(Step::Set {
        path: change.path.clone(),
        old,
        new,
        ino: now.id.ino,
    })
}

fn stage_stat(tree: &Worktree, slot: u64) -> Result<FileStat> {
    let name = slot_name(slot);
    FileStat::at(tree.state.stage(), &name).map_err(|e| {
        Error::io(
            "cannot look at staged item",
            name.to_string_lossy().as_ref(),
            e,
        )
    })
}
