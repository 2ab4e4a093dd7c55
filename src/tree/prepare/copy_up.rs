//! Copies files of a lower overlay layer up before a commit moves or changes them.
//!
//! A copy-up changes a file's ctime and perhaps its inode, so it comes before the file's version is
//! recorded for later comparison.
//!
//! A file with several names is copied up with all of them. The filesystem itself copies only the
//! changed name up; the others stay with the lower file, and a name moved aside and back would be a
//! separate file. So all names of a touched file first become names of one upper file. The
//! difference shows in inode numbers only, and needs no undo.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::diff::{Plan, Shape};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::rules::Layout;
use crate::manifest::{EntryKind, TreePath};
use crate::tree::fs::dir::{join, names_in, stat};
use crate::tree::fs::errors::{is_gone, with_space_hint};
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::root::{FileId, Root, open_dir_at};
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// Prefix of names in the stage during a copy-up.
const RAISED: &CStr = c"raised";
const FURTHER: &CStr = c"further";

/// Copies up each file that a commit of `plan` moves or changes.
pub(crate) fn all(tree: &Worktree, plan: &Plan) -> Result<()> {
    links(tree, plan)?;
    // The next tree of an exchange is separate: nothing in the live tree moves or changes.
    if plan.layout == Layout::InPlace {
        files(tree, plan)
    } else {
        Ok(())
    }
}

/// Makes all names of each file that `plan` touches names of one upper file.
fn links(tree: &Worktree, plan: &Plan) -> Result<()> {
    let root = tree.root();
    let touched = touched(&root, plan)?;
    if touched.is_empty() {
        return Ok(());
    }

    let mut names = BTreeMap::new();

    let top = root.dir(None).context("cannot open", root.path())?;
    find(
        &root,
        None,
        top.as_fd(),
        &touched,
        &tree.state().apart(),
        &mut names,
    )?;

    for (_, names) in names.iter().filter(|(_, names)| names.len() > 1) {
        clear(tree)?;
        let raised = raise(tree, &root, names);
        clear(tree)?;
        raised
            .map_err(|e| with_space_hint(Error::io("cannot copy up", root.shown(&names[0]), e)))?;
    }

    Ok(())
}

/// Copies up each other file that a commit of `plan` in place moves or changes, largest first. The
/// filesystem would do so in the middle of the commit, perhaps without room.
fn files(tree: &Worktree, plan: &Plan) -> Result<()> {
    let root = tree.root();
    let mut files = Vec::new();
    for change in plan
        .changes
        .iter()
        .filter(|c| c.is_applied() && c.was.is_some_and(|was| was != Shape::Directory))
    {
        let look = || -> io::Result<Option<FileStat>> {
            let (parent, name) = root.parent(&change.path)?;
            stat(parent.as_fd(), &name)
        };
        // The commit reports a missing file.
        let Ok(Some(now)) = look() else { continue };
        if now.file_type == FileType::RegularFile && !has_several_names(&now) {
            files.push((now.size, change.path.clone()));
        }
    }

    files.sort_by(|a, b| b.cmp(a));
    for (_, path) in files {
        clear(tree)?;
        let raise = || -> io::Result<()> {
            let (parent, name) = root.parent(&path)?;
            Ok(rustix::fs::linkat(
                &parent,
                &name,
                tree.state.stage(),
                RAISED,
                AtFlags::empty(),
            )?)
        };
        match raise() {
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOSPC | Errno::DQUOT)) => {
                return Err(with_space_hint(Error::io(
                    "cannot copy up",
                    root.shown(&path),
                    e,
                )));
            }
            // A name that this user may not link can still be moved.
            Ok(()) | Err(_) => {}
        }
    }

    clear(tree)
}

fn clear(tree: &Worktree) -> Result<()> {
    for left in [RAISED, FURTHER] {
        match rustix::fs::unlinkat(tree.state.stage(), left, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::io("cannot clear", tree.state.stage_path(), e)),
        }
    }
    Ok(())
}

/// Files with several names that `plan` changes, removes or links.
fn touched(root: &Root, plan: &Plan) -> Result<HashSet<FileId>> {
    let mut touched = HashSet::new();
    for change in plan.changes.iter().filter(|c| c.is_applied()) {
        let first = change
            .want
            .as_ref()
            .and_then(|want| match &want.entry.kind {
                EntryKind::Hardlink(first) => Some(first.clone()),
                _ => None,
            });
        let here = change
            .was
            .is_some_and(|was| was != Shape::Directory)
            .then(|| change.path.clone());
        for path in here.into_iter().chain(first) {
            let look = || -> io::Result<Option<FileStat>> {
                let (parent, name) = root.parent(&path)?;
                stat(parent.as_fd(), &name)
            };
            match look() {
                Ok(now) => touched.extend(now.filter(has_several_names).map(|now| now.id)),
                // The plan creates the parent.
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(Error::io("cannot look at", root.shown(&path), e)),
            }
        }
    }

    Ok(touched)
}

fn has_several_names(now: &FileStat) -> bool {
    now.nlink > 1 && now.file_type != FileType::Directory
}

/// Finds all names of the files `wanted` below a directory.
fn find(
    root: &Root,
    path: Option<&TreePath>,
    dir: BorrowedFd<'_>,
    wanted: &HashSet<FileId>,
    apart: &[FileId],
    names: &mut BTreeMap<FileId, Vec<TreePath>>,
) -> Result<()> {
    let failed = |e: io::Error| Error::io("cannot look into", root.shown_dir(path), e);

    for name in names_in(dir).map_err(failed)? {
        let Some(now) = stat(dir, &name).map_err(failed)? else {
            continue;
        };
        let child = join(path, &name)?;
        if now.file_type != FileType::Directory {
            if wanted.contains(&now.id) {
                names.entry(now.id).or_default().push(child);
            }
        } else if !now.is_mount_root() && !apart.contains(&now.id) {
            match open_dir_at(dir, &name) {
                Ok(below) => find(root, Some(&child), below.as_fd(), wanted, apart, names)?,
                // This user cannot change names that it cannot see.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
                    ) => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }

    Ok(())
}

/// Makes `names`, all of one file, names of one upper file.
fn raise(tree: &Worktree, root: &Root, names: &[TreePath]) -> io::Result<()> {
    let stage = tree.state.stage();
    let Some((first, others)) = names.split_first() else {
        return Ok(());
    };

    let (parent, name) = root.parent(first)?;
    let before = FileStat::at(parent.as_fd(), &name)?;
    rustix::fs::linkat(&parent, &name, stage, RAISED, AtFlags::empty())?;

    if FileStat::at(parent.as_fd(), &name)?.id == before.id {
        // The file is in the upper layer with all names, or the mount keeps them together.
        return Ok(());
    }

    others
        .iter()
        .try_for_each(|other| put(tree, root, other, &before))
}

/// Replaces `path`, a name of the lower file `before`, with a further name of the upper file.
fn put(tree: &Worktree, root: &Root, path: &TreePath, before: &FileStat) -> io::Result<()> {
    let stage = tree.state.stage();
    let (parent, name) = root.parent(path)?;
    if stat(parent.as_fd(), &name)?.is_none_or(|now| now.id != before.id) {
        return Ok(());
    }

    let above = Metadata {
        mtime: Some(FileStat::of(&parent)?.mtime),
        ..Metadata::default()
    };

    rustix::fs::linkat(stage, RAISED, stage, FURTHER, AtFlags::empty())?;
    exchange(tree, &parent, &name)?;
    let alike = |s: &FileStat| (s.size, s.mtime, s.mode, s.uid, s.gid);
    if alike(&FileStat::at(stage, FURTHER)?) != alike(before) {
        // Another process changed it at this moment.
        exchange(tree, &parent, &name)?;
    }

    rustix::fs::unlinkat(stage, FURTHER, AtFlags::empty())?;
    above.set(&parent)
}

fn exchange(tree: &Worktree, parent: &impl AsFd, name: &CString) -> io::Result<()> {
    Ok(tree
        .crash
        .exchange(tree.state.stage(), FURTHER, parent.as_fd(), name)?)
}
