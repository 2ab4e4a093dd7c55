//! The release's own files in the next tree of a commit in the layout `swap`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode};

use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::ctime_chains::Operation;
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::errors::with_space_hint;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::{FileStat, Version};
use crate::tree::prepare::items::{StagedItem, is_copied};
use crate::tree::state::worktree::Worktree;

pub(super) fn stat(root: &Root, path: &TreePath) -> io::Result<FileStat> {
    let (parent, name) = root.parent(path)?;
    FileStat::at(parent.as_fd(), &name)
}

/// Files that are staged as copies, with their present version.
pub(super) fn copied(
    from: &Root,
    plan: &Plan,
    items: &[StagedItem],
) -> Result<Vec<(TreePath, Version)>> {
    let mut copied = Vec::new();
    for item in items {
        let change = plan.changes.get(item.change());
        if !is_copied(&change) || item.further().is_some() {
            continue;
        }
        let now = stat(from, &change.path)
            .map_err(|e| Error::io("cannot look at", from.shown(&change.path), e))?;
        // The version at the time of the copy, whatever happened since.
        if item.copied().is_some_and(|copied| copied != now.version()) {
            return Err(changed_since(from, &change.path));
        }
        copied.push((change.path.clone(), now.version()));
    }

    Ok(copied)
}

/// Versions of the copied files after links of theirs were added to the next tree: only the ctime
/// differs.
pub(super) fn linked(
    from: &Root,
    mut copied: Vec<(TreePath, Version)>,
) -> Result<Vec<(TreePath, Version)>> {
    for (path, version) in &mut copied {
        let now = stat(from, path).map_err(|e| Error::io("cannot look at", from.shown(path), e))?;
        let linked = Version {
            ctime: now.ctime,
            ..*version
        };
        if now.version() != linked {
            return Err(changed_since(from, path));
        }
        *version = linked;
    }

    Ok(copied)
}

pub(super) fn changed_since(from: &Root, path: &TreePath) -> Error {
    Error::refused(format!(
        "{} changed since the tree was compared",
        from.printed(path)
    ))
    .hint("deploy again")
}

/// Links a staged item into the next tree.
fn link_staged(
    tree: &Worktree,
    item: &StagedItem,
    parent: BorrowedFd<'_>,
    name: &std::ffi::CStr,
) -> io::Result<()> {
    let stage = tree.state.stage();
    let slot = slot_name(item.slot);
    let operation = Operation::on(FileStat::at(stage, &slot)?);
    rustix::fs::linkat(stage, slot, parent, name, AtFlags::empty())?;
    operation.done(&FileStat::at(parent, name)?, &mut locked(&tree.chains));
    Ok(())
}

/// Adds the release's entries to the next tree; returns the directories that it created.
pub(super) fn overlay(
    tree: &Worktree,
    plan: &Plan,
    items: &[StagedItem],
    to: &Root,
) -> Result<Vec<TreePath>> {
    let mut made = Vec::new();
    let mut dirs = DirCursor::default();
    let mut items = items.iter().peekable();
    for (at, change) in plan
        .changes
        .iter()
        .enumerate()
        .filter(|(_, c)| c.makes_anew() || is_copied(c))
    {
        let mut put = || -> io::Result<()> {
            let (parent, name) = dirs.parent(to, &change.path)?;
            match items.next_if(|i| i.change() == at) {
                Some(item) => {
                    link_staged(tree, item, parent, &name)?;
                    while let Some(further) = items.next_if(|i| i.change() == at) {
                        let path = further.further().unwrap_or(&change.path);
                        let (parent, name) = to.parent(path)?;
                        link_staged(tree, further, parent.as_fd(), &name)?;
                    }
                    Ok(())
                }
                None => {
                    made.push(change.path.clone());
                    Ok(rustix::fs::mkdirat(parent, &name, Mode::RWXU)?)
                }
            }
        };
        put().map_err(|e| {
            with_space_hint(Error::io(
                "cannot put into the next tree",
                to.shown(&change.path),
                e,
            ))
        })?;
    }

    Ok(made)
}
