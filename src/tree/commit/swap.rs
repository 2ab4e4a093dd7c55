//! Exchanges the live tree with the one beside it by one rename: a reader finds all of the old
//! release or all of the new one.
//!
//! The inode of the tree aside tells the two trees apart, so every step can be repeated after a
//! crash.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::aside::{ASIDE, Aside};
use super::follow::precedence::Rivals;
use super::journal::{Journal, Side, Swap};
use super::moves;
use super::root_place::{RootPlace, open_parent};
use super::swap_follow::SwapFollow;
use crate::error::{Error, IoResultExt as _, Result};
use crate::sync::locked;
use crate::tree::fs::dir::MAX_SINGLE_SYNCS;
use crate::tree::fs::dir_watch::DirWatch;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::metadata::{Metadata, chmod, handle_of};
use crate::tree::fs::owners::Rights;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// Replaces the live tree with the next one, unless done already, and moves the host's own entries
/// into the next tree.
pub(crate) fn forward(tree: &Worktree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = Aside::open(tree, journal.serial())?;
    let follow = SwapFollow::new(tree, journal, swap, &aside);
    let now = aside.standing()?;
    let mut heard = None;
    if now == Some(swap.new.ino) {
        heard = DirWatch::watch(&aside.root()?, aside.known()?.0.keys());
        // Repeated, so that little is left for the time after the exchange.
        follow.old(Rivals::Nobody, None)?;
        tree.crash.point()?;
        exchange(tree, &aside, swap.old.ino, heard.as_mut())?;
    } else if now != Some(swap.old.ino) {
        return Err(aside.strange());
    }

    let since = aside.exchanged_at()?;
    let old = aside.root()?;
    let new = tree.root();

    // First of all: these directories are missing from their paths until they have moved.
    moves::run(tree, &old, &new, swap.moves())?;
    moves::restore(&new, swap.above(), |dir| dir.new)?;
    moves::restore(&old, swap.above(), |dir| dir.old)?;
    tree.crash.point()?;
    settle(tree, &aside, [swap.new, swap.old], swap)?;
    follow.old(Rivals::Everybody(since), heard.as_mut())?;

    *locked(&tree.heard) = heard;
    Ok(())
}

/// Puts the old tree back, unless done already, and transfers later entries outside of the release.
pub(crate) fn backward(tree: &Worktree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = Aside::open(tree, journal.serial())?;
    let follow = SwapFollow::new(tree, journal, swap, &aside);
    let sides = match aside.standing()? {
        Some(ino) if ino == swap.old.ino => exchange_back(tree, swap, &aside, &follow)?,
        // Not exchanged yet, or back already.
        Some(ino) if ino == swap.new.ino => {
            follow.new_tree(true)?;
            [swap.old, swap.new]
        }
        None => return Ok(()),
        Some(_) => return Err(aside.strange()),
    };

    tree.crash.point()?;
    settle(tree, &aside, sides, swap)
}

/// Reverses the exchange; returns the values that the live tree and the other one must have.
fn exchange_back(
    tree: &Worktree,
    swap: &Swap,
    aside: &Aside<'_>,
    follow: &SwapFollow<'_>,
) -> Result<[Side; 2]> {
    let live = tree.root();
    let old = aside.root()?;
    let mut moves = follow.new_tree(false)?;
    tree.crash.point()?;
    rustix::fs::syncfs(aside.dir()).context("cannot sync", tree.state.path())?;
    let mut heard = DirWatch::watch(&old, aside.known()?.0.keys());

    // Repeated, so that little is left for the time after the exchange.
    moves.extend(follow.back([&live, &old], Rivals::Handles, None)?);

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
    let since = aside.exchanged_at()?;
    let new = aside.root()?;
    let live = tree.root();
    moves::run(tree, &new, &live, &moves)?;
    moves::restore(&live, &above, |dir| dir.new)?;

    moves::restore(&new, &above, |dir| dir.old)?;
    // Arrivals at the moment of the exchange.
    let everybody = Rivals::Everybody(since);
    follow.back([&new, &live], everybody, heard.as_mut())?;

    *locked(&tree.heard) = heard;
    Ok(sides)
}

/// Exchanges the live tree, with the inode `live`, and the tree aside. From here on `heard`
/// receives events of the tree that becomes live.
fn exchange(
    tree: &Worktree,
    aside: &Aside<'_>,
    live: u64,
    heard: Option<&mut DirWatch>,
) -> Result<()> {
    aside.forget_exchange()?;
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
        let new = Root::below(aside.dir(), ASIDE, place.path.clone()).map_err(failed)?;
        loosen(root.as_fd()).map_err(failed)?;
        loosen(new.as_fd()).map_err(failed)?;

        let change = || {
            tree.crash
                .exchange(aside.dir(), ASIDE, place.parent.as_fd(), &place.name)
        };
        change().map_err(|e| failed(e.into()))?;
        // A process with write access beside the tree may have put another entry there.
        if FileStat::at(aside.dir(), ASIDE).map_err(failed)?.id != root.id() {
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
fn settle(tree: &Worktree, aside: &Aside<'_>, [here, there]: [Side; 2], swap: &Swap) -> Result<()> {
    let root = tree.root();
    let set = || -> io::Result<()> {
        Metadata {
            mode: Some(here.mode),
            mtime: here.mtime,
            ..Metadata::default()
        }
        .set(&root)?;
        let other = handle_of(aside.dir(), ASIDE)?;
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
        rustix::fs::fsync(aside.dir())?;
        if many {
            return Ok(rustix::fs::syncfs(aside.dir())?);
        }
        for path in swap.moves().iter().map(|m| m.path.parent()) {
            match root.dir(path.as_ref()) {
                Ok(handle) => rustix::fs::fsync(&handle)?,
                Err(e) if is_gone(&e) => {}
                // This process cannot read the directory, so there is no handle to sync.
                Err(_) => rustix::fs::syncfs(aside.dir())?,
            }
        }
        Ok(())
    };

    syncs().context("cannot sync", root.path())
}
