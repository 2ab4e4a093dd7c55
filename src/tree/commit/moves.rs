//! Moves directories from one tree into the other when the two exchange places.
//!
//! A directory outside of the release belongs to the host: a process may work in it or hold it
//! open. It is never copied, but moves right after the exchange. Repeatable.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Access, AtFlags, FileType, RenameFlags};
use rustix::io::Errno;

use super::journal::{Above, Move, Times};
use crate::error::{Error, Result};
use crate::manifest::{Mode, TreePath};
use crate::tree::fs::dir::stat;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::metadata::{Metadata, chmod, handle_of};
use crate::tree::fs::owners::Rights;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// Refuses if one of the directories cannot be moved out of `root`, and names it.
pub(crate) fn check<'a>(root: &Root, moves: impl Iterator<Item = &'a Move>) -> Result<()> {
    let rights = Rights::of_process();
    for Move { path, .. } in moves {
        let failed = |e: io::Error| Error::io("cannot look at", root.shown(path), e);
        let (parent, name) = root.parent(path).map_err(failed)?;
        let Some(now) = stat(parent.as_fd(), &name).map_err(failed)? else {
            continue;
        };
        let above = FileStat::of(&parent).map_err(failed)?;
        if let Some(why) = refused(&rights, parent.as_fd(), &name, &now, &above) {
            return Err(Error::refused(format!(
                "{} is left alone by releases and would move with the exchange, but {why}",
                root.printed(path)
            ))
            .hint(
                "mend that, run the daemon as root, or set commit.layout = \"in-place\" in the \
                 spec",
            ));
        }
    }

    Ok(())
}

fn refused(
    rights: &Rights,
    parent: BorrowedFd<'_>,
    name: &CStr,
    now: &FileStat,
    above: &FileStat,
) -> Option<String> {
    if let Some(flag) = now.fixed() {
        return Some(format!("it is {flag}"));
    }

    if rights.overrides_modes() && rights.changes_modes_of_all() {
        return None;
    }

    let sticky = above.mode.bits() & 0o1000 != 0;
    if sticky && !rights.changes_modes_of(now.uid) && !rights.changes_modes_of(above.uid) {
        return Some(format!(
            "it belongs to user {}, and the directory it is in is sticky",
            now.uid
        ));
    }

    // A move changes the `..` of a directory.
    let writable = |dir: BorrowedFd<'_>, name: &CStr, uid: u32| {
        rights.changes_modes_of(uid)
            || rustix::fs::accessat(dir, name, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    };

    if !writable(parent, name, now.uid) {
        return Some(format!(
            "this daemon cannot write to it (it belongs to user {})",
            now.uid
        ));
    }

    let there = writable(parent, c".", above.uid);
    (!there).then(|| {
        format!(
            "this daemon cannot write to the directory it is in (of user {})",
            above.uid
        )
    })
}

/// Values that moves into or out of the parents of `moves` change in both trees.
pub(crate) fn above(old: &Root, new: &Root, moves: &[Move]) -> Result<Vec<Above>> {
    let mut paths: Vec<TreePath> = moves.iter().filter_map(|m| m.path.parent()).collect();
    paths.sort();
    paths.dedup();
    let times = |root: &Root, path: &TreePath| {
        let (parent, name) = root.parent(path)?;
        FileStat::at(parent.as_fd(), &name).map(|now| Times {
            mode: now.mode,
            mtime: now.mtime,
        })
    };

    let both = |path: TreePath| match (times(old, &path), times(new, &path)) {
        (Ok(old), Ok(new)) => Some(Ok(Above { path, old, new })),
        (Err(e), _) | (_, Err(e)) if is_gone(&e) => None,
        (Err(e), _) | (_, Err(e)) => Some(Err(Error::io("cannot look at", old.shown(&path), e))),
    };

    paths.into_iter().filter_map(both).collect()
}

/// Moves the directories of `moves` that are in `from` into `to`.
pub(crate) fn run(tree: &Worktree, from: &Root, to: &Root, moves: &[Move]) -> Result<()> {
    for Move { path, ino } in moves {
        let there = || -> io::Result<_> {
            let (parent, name) = from.parent(path)?;
            Ok(stat(parent.as_fd(), &name)?
                .filter(|now| now.id.ino == *ino)
                .map(|_| (parent, name)))
        };
        let found = match there() {
            Err(e) if is_gone(&e) => None,
            found => found.map_err(|e| Error::io("cannot look at", from.shown(path), e))?,
        };
        let Some((parent, name)) = found else {
            continue;
        };
        tree.crash.point()?;
        let taken = to
            .parent(path)
            .and_then(|(other, _)| take(parent.as_fd(), &name, other.as_fd()));
        match taken {
            // Others removed it, or the directory that it would be in.
            Err(e) if is_gone(&e) => {}
            taken => taken
                .map_err(|e| Error::io("cannot move along with the exchange", to.shown(path), e))?,
        }
    }

    Ok(())
}

/// Moves the directory `name` from `from` to `to`. A directory that others created there at this
/// moment takes its place in `from`, unless it is empty.
pub(crate) fn take(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>) -> io::Result<()> {
    match rename(from, name, to) {
        Err(e)
            if e.kind() == io::ErrorKind::PermissionDenied
                && !Rights::of_process().overrides_modes() =>
        {
            let opened = [open(from, c".")?, open(to, c".")?, open(from, name)?];
            let renamed = rename(from, name, to);
            for (handle, mode) in opened.into_iter().flatten().rev() {
                chmod(handle.as_fd(), mode)?;
            }
            renamed
        }
        done => done,
    }
}

fn rename(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => {
            match rustix::fs::renameat(from, name, to, name) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(
                    rustix::fs::renameat_with(from, name, to, name, RenameFlags::EXCHANGE)?,
                ),
                done => Ok(done?),
            }
        }
        done => Ok(done?),
    }
}

/// Makes `name` writable for this process; returns the old mode if it was changed.
fn open(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<(std::os::fd::OwnedFd, Mode)>> {
    let handle = handle_of(dir, name)?;
    let now = FileStat::of(&handle)?;
    if now.file_type != FileType::Directory || now.mode.bits() & 0o300 == 0o300 {
        return Ok(None);
    }

    match chmod(handle.as_fd(), Mode::from_bits(now.mode.bits() | 0o300)) {
        // Another user's directory: other bits may admit this process, or the move fails.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        done => done.map(|()| Some((handle, now.mode))),
    }
}

/// Restores the values that moves changed in the directories of `above`; `of` selects them.
pub(crate) fn restore<'a>(
    root: &Root,
    above: impl IntoIterator<Item = &'a Above>,
    of: impl Fn(&Above) -> Times,
) -> Result<()> {
    for dir in above {
        let set = || -> io::Result<()> {
            let (parent, name) = root.parent(&dir.path)?;
            set_times(handle_of(parent.as_fd(), &name)?, of(dir))
        };
        match set() {
            Err(e) if is_gone(&e) => {}
            done => done
                .map_err(|e| Error::io("cannot set mode and time of", root.shown(&dir.path), e))?,
        }
    }

    Ok(())
}

fn set_times(handle: impl AsFd, times: Times) -> io::Result<()> {
    let Times { mode, mtime } = times;
    Metadata {
        mode: Some(mode),
        mtime: Some(mtime),
        ..Metadata::default()
    }
    .set(handle)
}
