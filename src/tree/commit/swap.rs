//! Exchanges the live tree with the one beside it by one rename: a reader finds all of the old
//! release or all of the new one.
//!
//! The tree that is not live is in the undo directory as `tree`: first the next one, after the
//! exchange the old one, for a revert. Its inode tells the two trees apart, so every step can be
//! repeated after a crash.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::follow::precedence::Rivals;
use super::follow::transfer::MAX_ATTEMPTS;
use super::follow::{Follow, note};
use super::journal::{Journal, Move, Side, Swap};
use super::link_copy::{present, set_dirs};
use super::moves;
use super::root_place::{RootPlace, open_parent};
use super::seen_names::SeenNames;
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::Serial;
use crate::manifest::{Mtime, TreePath};
use crate::sync::locked;
use crate::tree::fs::dir::{MAX_SINGLE_SYNCS, stat};
use crate::tree::fs::dir_watch::DirWatch;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::metadata::{Metadata, chmod, handle_of};
use crate::tree::fs::owners::Rights;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::reader::done_journal;
use crate::tree::state::worktree::Worktree;

/// Name of the tree that is not live, in the undo directory.
pub(crate) const ASIDE: &std::ffi::CStr = c"tree";
/// Name of the file there that records the time of the exchange.
const EXCHANGED: &std::ffi::CStr = c"exchanged";

/// Replaces the live tree with the next one, unless done already, and moves the host's own entries
/// into the next tree.
pub(crate) fn forward(tree: &Worktree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = tree.state.undo_dir(journal.serial())?;
    let now = standing_aside(tree, &aside)?;
    let mut heard = None;
    if now == Some(swap.new.ino) {
        heard = DirWatch::watch(
            &open_aside(tree, journal)?,
            known_in(tree, &aside)?.0.keys(),
        );
        // Repeated, so that little is left for the time after the exchange.
        follow_old(tree, journal, swap, Rivals::Nobody, None)?;
        tree.crash.point()?;
        exchange(tree, &aside, swap.old.ino, heard.as_mut())?;
    } else if now != Some(swap.old.ino) {
        return Err(strange(tree, journal));
    }

    let since = exchanged_at(tree, &aside)?;
    let old = open_aside(tree, journal)?;
    let new = tree.root();

    // First of all: these directories are missing from their paths until they have moved.
    moves::run(tree, &old, &new, swap.moves())?;
    moves::restore(&new, swap.above(), |dir| dir.new)?;
    moves::restore(&old, swap.above(), |dir| dir.old)?;
    tree.crash.point()?;
    settle(tree, &aside, [swap.new, swap.old], swap)?;
    follow_old(
        tree,
        journal,
        swap,
        Rivals::Everybody(since),
        heard.as_mut(),
    )?;

    *locked(&tree.heard) = heard;
    Ok(())
}

/// Transfers writes by handles into the old tree since the exchange to the new one.
pub(crate) fn follow_handles(tree: &Worktree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = tree.state.undo_dir(journal.serial())?;
    if standing_aside(tree, &aside)? != Some(swap.old.ino) {
        return Ok(());
    }

    let since = exchanged_at(tree, &aside)?;
    follow_old(
        tree,
        journal,
        swap,
        Rivals::Everybody(since),
        locked(&tree.heard).as_mut(),
    )
}

/// Transfers changes by others in the old tree since the last look to the new one, before or after
/// the exchange.
fn follow_old(
    tree: &Worktree,
    journal: &Journal,
    swap: &Swap,
    rival: Rivals,
    heard: Option<&mut DirWatch>,
) -> Result<()> {
    let aside = tree.state.undo_dir(journal.serial())?;
    let live = tree.root();
    let other = open_aside(tree, journal)?;
    let exchanged = rival != Rivals::Nobody;
    let (old, new) = if exchanged {
        (&other, &*live)
    } else {
        (&*live, &other)
    };

    let known = known_in(tree, &aside)?;
    let mut follow = Follow::new(
        tree,
        [old, new],
        &swap.changed,
        &known,
        aside.as_fd(),
        rival,
    );

    follow.heard = heard;
    // Only this process works in the next tree.
    follow.moving = exchanged;
    follow.changed_dirs()?;
    follow.owned_dirs(
        journal
            .dirs
            .iter()
            .filter(|dir| dir.new.is_none())
            .filter_map(|dir| dir.path.as_ref()),
    )?;

    let touched = follow.touched;
    let names = follow.names;
    set_touched(journal, old, new, touched, std::iter::empty())?;
    note(tree, aside.as_fd(), &names)
}

/// Puts the old tree back, unless done already, and transfers later entries outside of the release.
pub(crate) fn backward(tree: &Worktree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = tree.state.undo_dir(journal.serial())?;
    let sides = match standing_aside(tree, &aside)? {
        Some(ino) if ino == swap.old.ino => exchange_back(tree, journal, swap, &aside)?,
        // Not exchanged yet, or back already.
        Some(ino) if ino == swap.new.ino => {
            follow_new(tree, journal, swap, &aside, true)?;
            [swap.old, swap.new]
        }
        None => return Ok(()),
        Some(_) => return Err(strange(tree, journal)),
    };

    tree.crash.point()?;
    settle(tree, &aside, sides, swap)
}

/// Reverses the exchange; returns the values that the live tree and the other one must have.
fn exchange_back(
    tree: &Worktree,
    journal: &Journal,
    swap: &Swap,
    aside: &OwnedFd,
) -> Result<[Side; 2]> {
    let live = tree.root();
    let old = open_aside(tree, journal)?;
    let mut moves = follow_new(tree, journal, swap, aside, false)?;
    tree.crash.point()?;
    rustix::fs::syncfs(aside).context("cannot sync", tree.state.path())?;
    let mut heard = DirWatch::watch(&old, known_in(tree, aside)?.0.keys());

    // Repeated, so that little is left for the time after the exchange.
    moves.extend(follow_back(
        tree,
        journal,
        swap,
        aside,
        [&live, &old],
        Rivals::Handles,
        None,
    )?);

    let above = moves::above(&live, &old, &moves)?;
    let time = |root: &Root| FileStat::of(root).context("cannot look at", root.path());
    let sides = [
        Side {
            mtime: Some(time(&old)?.mtime),
            ..swap.old
        },
        Side {
            mtime: Some(time(&live)?.mtime),
            ..swap.new
        },
    ];

    drop(live);
    tree.crash.point()?;
    exchange(tree, aside, swap.new.ino, heard.as_mut())?;
    let since = exchanged_at(tree, aside)?;
    let new = open_aside(tree, journal)?;
    let live = tree.root();
    moves::run(tree, &new, &live, &moves)?;
    moves::restore(&live, &above, |dir| dir.new)?;

    moves::restore(&new, &above, |dir| dir.old)?;
    // Arrivals at the moment of the exchange.
    follow_back(
        tree,
        journal,
        swap,
        aside,
        [&new, &live],
        Rivals::Everybody(since),
        heard.as_mut(),
    )?;

    *locked(&tree.heard) = heard;
    Ok(sides)
}

/// Transfers changes by others in the new tree since the last look to the old one; returns the
/// directories that still have to move.
fn follow_back(
    tree: &Worktree,
    journal: &Journal,
    swap: &Swap,
    aside: &OwnedFd,
    [new, old]: [&Root; 2],
    rival: Rivals,
    heard: Option<&mut DirWatch>,
) -> Result<Vec<Move>> {
    let known = known_in(tree, aside)?;
    let mut follow = Follow::new(
        tree,
        [new, old],
        &swap.changed,
        &known,
        aside.as_fd(),
        rival,
    );

    follow.back = true;
    follow.heard = heard;
    follow.moving = rival != Rivals::Handles;
    follow.changed_dirs()?;
    let touched = follow.touched;
    let names = follow.names;
    let moves = follow.moves;
    set_touched(journal, new, old, touched, std::iter::empty())?;
    note(tree, aside.as_fd(), &names)?;

    Ok(moves)
}

/// Transfers changes by others in the whole new tree to the old one, whichever is live; returns the
/// directories that still have to move.
fn follow_new(
    tree: &Worktree,
    journal: &Journal,
    swap: &Swap,
    aside: &OwnedFd,
    moving: bool,
) -> Result<Vec<Move>> {
    let live = tree.root();
    let other = open_aside(tree, journal)?;
    let (new, old) = if moving {
        (&other, &*live)
    } else {
        (&*live, &other)
    };

    let known = known_in(tree, aside)?;
    // While the old tree is not live, entries in the new one are later.
    let rival = if moving {
        Rivals::Everybody(exchanged_at(tree, aside)?)
    } else {
        Rivals::Handles
    };

    let mut follow = Follow::new(
        tree,
        [new, old],
        &swap.changed,
        &known,
        aside.as_fd(),
        rival,
    );

    follow.back = true;
    follow.moving = moving;
    follow.all_dirs()?;
    follow.owned_dirs(
        journal
            .dirs
            .iter()
            .filter(|dir| dir.old.is_none())
            .filter_map(|dir| dir.path.as_ref()),
    )?;

    let touched = follow.touched;
    let names = follow.names;
    let moves = follow.moves;
    let moved: Vec<_> = swap
        .above()
        .iter()
        .filter(|dir| touched.contains_key(&Some(dir.path.clone())))
        .collect();

    // While the new tree is live, modes, owners and times that others changed are transferred as
    // well.
    let all = names.0.keys().filter(|_| !moving).cloned();
    set_touched(journal, new, old, touched, all)?;
    if moving {
        moves::restore(old, moved, |dir| dir.old)?;
    }

    note(tree, aside.as_fd(), &names)?;
    Ok(moves)
}

/// Sets metadata of the directories of `to` with transferred names, and of `others` that are in
/// both trees.
fn set_touched(
    journal: &Journal,
    from: &Root,
    to: &Root,
    touched: BTreeMap<Option<TreePath>, Option<Mtime>>,
    others: impl Iterator<Item = Option<TreePath>>,
) -> Result<()> {
    let governed = |path: Option<&TreePath>| {
        journal
            .dirs
            .binary_search_by(|d| d.path.as_ref().cmp(&path))
            .is_ok()
    };

    let others: Vec<_> = others
        .filter(|path| path.is_some() && !governed(path.as_ref()))
        .collect();
    set_dirs(to, touched.keys().cloned().chain(others), |path| {
        let before = touched.get(&path.cloned()).copied();
        match before {
            // As in the release, or in the tree before.
            Some(Some(mtime)) if governed(path) || path.is_none() => Ok(Metadata {
                mtime: Some(mtime),
                ..Metadata::default()
            }),
            // Only others changed it: keep their values.
            _ => match present(from, path) {
                Ok(now) => Ok(Metadata {
                    mtime: now.mtime.max(before.flatten()),
                    ..now
                }),
                Err(e) if e.is_os(io::ErrorKind::NotFound) => Ok(Metadata::default()),
                Err(e) => Err(e),
            },
        }
    })?;

    let sync = !touched.is_empty();
    if sync {
        rustix::fs::syncfs(to).context("cannot sync", to.path())
    } else {
        Ok(())
    }
}

fn known_in(tree: &Worktree, aside: &OwnedFd) -> Result<SeenNames> {
    SeenNames::read(aside.as_fd()).context("cannot read the names in", tree.state.path())
}

/// Time of the exchange by the filesystem's clock, recorded as the time of a file.
fn exchanged_at(tree: &Worktree, aside: &OwnedFd) -> Result<Mtime> {
    let noted = || -> io::Result<Mtime> {
        if let Some(found) = stat(aside.as_fd(), &EXCHANGED.to_owned())? {
            return Ok(found.mtime);
        }
        // No other change of names aside happened since.
        let at = FileStat::of(aside)?.ctime;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(aside, EXCHANGED, flags, Mode::RUSR | Mode::WUSR)?;
        Metadata {
            mtime: Some(at),
            ..Metadata::default()
        }
        .set(&file)?;
        Ok(at)
    };

    noted().context("cannot note the exchange in", tree.state.path())
}

/// Removes the tree aside after the commit `serial` was confirmed or reverted, and transfers late
/// arrivals to the live tree. Entries that cannot be removed stay.
pub(crate) fn drain(tree: &Worktree, serial: Serial) -> Result<()> {
    let aside = tree.state.undo_dir(serial)?;
    if standing_aside(tree, &aside)?.is_none() {
        return Ok(());
    }

    let drained = || -> Result<()> {
        let Some(journal) = Journal::read(&tree.state, &done_journal(serial))? else {
            return Ok(());
        };
        let Some(swap) = &journal.swap else {
            return Ok(());
        };
        let gone = open_aside(tree, &journal)?;
        let live = tree.root();
        let known = known_in(tree, &aside)?;
        let since = exchanged_at(tree, &aside)?;
        let rival = Rivals::Everybody(since);
        let mut follow = Follow::new(
            tree,
            [&gone, &live],
            &swap.changed,
            &known,
            aside.as_fd(),
            rival,
        );
        follow.back = gone.id().ino == swap.new.ino;
        let mut heard = locked(&tree.heard).take();
        follow.heard = heard.as_mut();
        for _ in 0..MAX_ATTEMPTS {
            follow.drain(None)?;
            match rustix::fs::unlinkat(&aside, ASIDE, AtFlags::REMOVEDIR) {
                // An entry arrived at the last moment.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                done => {
                    done.context("cannot remove", gone.path())?;
                    break;
                }
            }
        }
        let touched = follow.touched;
        set_touched(&journal, &gone, &live, touched, std::iter::empty())
    };

    match drained() {
        Err(e) if tree.crash.happened() => Err(e),
        Err(e) => {
            tracing::debug!("tree {}: {e}", tree.name());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The tree that is not live.
pub(crate) fn open_aside(tree: &Worktree, journal: &Journal) -> Result<Root> {
    let aside = tree.state.undo_dir(journal.serial())?;
    let path = shown_aside(tree, journal);
    Root::below(aside.as_fd(), ASIDE, path.clone()).context("cannot open", &path)
}

fn shown_aside(tree: &Worktree, journal: &Journal) -> PathBuf {
    tree.state
        .path()
        .join("undo")
        .join(journal.serial().to_string())
        .join("tree")
}

fn standing_aside(tree: &Worktree, aside: &OwnedFd) -> Result<Option<u64>> {
    let found =
        stat(aside.as_fd(), &ASIDE.to_owned()).context("cannot look into", tree.state.path())?;
    Ok(found
        .filter(|f| f.file_type == FileType::Directory)
        .map(|f| f.id.ino))
}

/// Exchanges the live tree, with the inode `live`, and the tree aside. From here on `heard`
/// receives events of the tree that becomes live.
fn exchange(
    tree: &Worktree,
    aside: &OwnedFd,
    live: u64,
    heard: Option<&mut DirWatch>,
) -> Result<()> {
    match rustix::fs::unlinkat(aside, EXCHANGED, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(Error::io("cannot remove a note in", tree.state.path(), e)),
    }

    if let Some(heard) = heard {
        heard.begin();
    }

    tree.replace_root(|root| {
        let place = RootPlace::of(root)?;
        let failed = |e: io::Error| Error::io("cannot exchange", &place.path, e);
        let gone = || {
            Error::refused(format!(
                "{} is not the directory any more that was opened",
                place.path.display()
            ))
            .hint("it was moved or replaced: put it back, and restart the daemon")
        };
        let is_there = || Ok(root.still_there()? && place.is(root.id())?);
        if root.id().ino != live || !is_there().map_err(failed)? {
            return Err(gone());
        }
        let new = Root::below(aside.as_fd(), ASIDE, place.path.clone()).map_err(failed)?;
        loosen(root.as_fd()).map_err(failed)?;
        loosen(new.as_fd()).map_err(failed)?;

        let change = || {
            tree.crash
                .exchange(aside.as_fd(), ASIDE, place.parent.as_fd(), &place.name)
        };
        change().map_err(|e| failed(e.into()))?;
        // A process with write access beside the tree may have put another entry there.
        if FileStat::at(aside.as_fd(), ASIDE).map_err(failed)?.id != root.id() {
            if place.is(new.id()).map_err(failed)? {
                change().map_err(|e| failed(e.into()))?;
            }
            return Err(gone());
        }
        Ok(new)
    })
}

/// Makes a directory writable: an ordinary user needs this for a move.
fn loosen(dir: BorrowedFd<'_>) -> io::Result<()> {
    let mode = FileStat::of(dir)?.mode;
    if Rights::of_process().overrides_modes() || mode.bits() & 0o200 != 0 {
        return Ok(());
    }
    chmod(dir, crate::manifest::Mode::from_bits(mode.bits() | 0o200))
}

/// Sets modes and times of both directories and syncs the exchange.
fn settle(tree: &Worktree, aside: &OwnedFd, [here, there]: [Side; 2], swap: &Swap) -> Result<()> {
    let root = tree.root();
    let set = || -> io::Result<()> {
        Metadata {
            mode: Some(here.mode),
            mtime: here.mtime,
            ..Metadata::default()
        }
        .set(&root)?;
        let other = handle_of(aside.as_fd(), ASIDE)?;
        Metadata {
            mode: Some(there.mode),
            mtime: there.mtime,
            ..Metadata::default()
        }
        .set(other)
    };

    set().context("cannot set mode and time of", root.path())?;
    tree.crash.point()?;
    let parent = open_parent(&root).context("cannot open the directory of", root.path())?;
    let many = swap.moves().len() > MAX_SINGLE_SYNCS;

    let syncs = || -> io::Result<()> {
        rustix::fs::fsync(&parent)?;
        rustix::fs::fsync(aside)?;
        if many {
            return Ok(rustix::fs::syncfs(aside)?);
        }
        for path in swap.moves().iter().map(|m| m.path.parent()) {
            match root.dir(path.as_ref()) {
                Ok(handle) => rustix::fs::fsync(&handle)?,
                Err(e) if is_gone(&e) => {}
                // This process cannot read the directory, so there is no handle to sync.
                Err(_) => rustix::fs::syncfs(aside)?,
            }
        }
        Ok(())
    };

    syncs().context("cannot sync", root.path())
}

fn strange(tree: &Worktree, journal: &Journal) -> Error {
    let path = shown_aside(tree, journal);
    Error::refused(format!(
        "{} is neither the old nor the new tree of release {}",
        path.display(),
        journal.serial()
    ))
    .hint("somebody moved it: put it back, and restart the daemon")
}
