//! Undoes a journaled commit, from any point, back to the tree before.
//!
//! Entries that others added meanwhile stay.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, renameat};
use rustix::io::Errno;

use super::executor::{Runner, is_known};
use super::journal::{Inode, Journal, Step};
use super::{refresh_index, swap};
use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::tree::fs::dir::{rename_new, slot_name, stat};
use crate::tree::fs::errors::{is_absent, is_unsupported};
use crate::tree::fs::metadata::Metadata;
use crate::tree::state::reader::{BACKWARD, FORWARD, done_journal};
use crate::tree::state::worktree::Worktree;

/// Reverses the commit in progress: from here on it is undone, whatever crashes.
pub(crate) fn begin(tree: &Worktree) -> Result<()> {
    tree.crash.point()?;
    tree.state.rename(FORWARD, BACKWARD)
}

/// Undoes a commit that [`begin`] reversed.
pub(crate) fn run(tree: &Worktree, journal: &Journal) -> Result<()> {
    match &journal.swap {
        Some(exchange) => swap::backward(tree, journal, exchange)?,
        None => take_steps_back(tree, journal)?,
    }

    tree.crash.point()?;
    if tree.state.last_commit()? != journal.previous {
        tree.state.set_last_commit(journal.previous)?;
    }

    if let Some(twin) = journal.twin() {
        tree.crash.point()?;
        tree.state.bring_back(twin)?;
    } else if journal
        .previous
        .is_none_or(|before| before.release.serial < journal.serial())
    {
        // A release below the previous one may have been kept at the commit.
        tree.crash.point()?;
        tree.state.forget(journal.serial())?;
    }

    tree.crash.point()?;
    match &journal.swap {
        // Late writes into the reverted tree are transferred during its removal.
        Some(_) => tree
            .state
            .rename(BACKWARD, &done_journal(journal.serial()))?,
        None => tree.state.remove(BACKWARD)?,
    }

    if let Some(exchange) = &journal.swap {
        // The remaining work holds up nothing.
        if let Err(e) = refresh_index::relink(tree, journal, exchange.old.ino, &[]) {
            tracing::warn!(
                "tree {}: its files are read anew by the next comparison: {e}",
                tree.name()
            );
        }
    }

    Ok(())
}

/// Undoes every step that can be undone. The first failure is the error: the journal stays, and all
/// steps are tried again later.
fn take_steps_back(tree: &Worktree, journal: &Journal) -> Result<()> {
    let mut runner = Runner::new(tree, journal)?;
    if let Err(e) = runner.loosen(journal) {
        // The affected steps report the error.
        tracing::debug!("tree {}: {e}", tree.name());
    }

    let mut unset = Unset::default();
    let mut stuck = None;
    for step in journal.steps.iter().rev() {
        let (done, path) = match &step {
            Step::Mkdir(path) => (runner.unmake(path), path),
            Step::Place {
                path,
                slot,
                ino,
                born,
                ..
            } => (
                runner.unplace(
                    path,
                    *slot,
                    Inode {
                        ino: *ino,
                        born: *born,
                    },
                ),
                path,
            ),
            Step::Remove { path, slot, .. } => (runner.put_back(path, *slot), path),
            Step::Set {
                path,
                old,
                new,
                ino,
            } => (runner.set_back(path, *ino, [old, new]), path),
        };
        match done {
            Ok(()) => {}
            Err(e) if tree.crash.happened() => return Err(runner.named(e, "cannot restore", path)),
            Err(e) if is_absent(&e) => {}
            Err(e) if matches!(step, Step::Set { .. }) => {
                unset.add(runner.named(e, "cannot restore", path))
            }
            Err(e) => {
                let e = runner.named(e, "cannot restore", path);
                tracing::error!("tree {}: {e}", tree.name());
                stuck.get_or_insert(e);
            }
        }
    }

    for dir in journal.dirs.iter().rev() {
        let Some(old) = &dir.old else { continue };
        match runner.set_dir(dir.path.as_ref(), old) {
            Err(e) if e.os().is_some_and(is_absent) => {}
            Err(e) if tree.crash.happened() => return Err(e),
            Err(e) => unset.add(e),
            Ok(()) => {}
        }
    }

    runner.sync(journal)?;
    stuck.map_or(Ok(()), Err)?;
    unset.end(tree)
}

/// Metadata that could not be restored. This stops no file from returning to its place.
#[derive(Default)]
struct Unset {
    denied: Option<Error>,
    failed: Option<Error>,
}

impl Unset {
    fn add(&mut self, e: Error) {
        // Values that this process may not set now will fail at the next attempt, too.
        let denied =
            e.is_os(io::ErrorKind::PermissionDenied) || e.is_os(io::ErrorKind::Unsupported);

        if denied {
            &mut self.denied
        } else {
            &mut self.failed
        }
        .get_or_insert(e);
    }

    /// Returns an error if another attempt makes sense; else only logs.
    fn end(self, tree: &Worktree) -> Result<()> {
        if let Some(e) = self.denied {
            tracing::error!(
                "tree {}: undone, but not in all modes, owners and times; the first: {e}",
                tree.name()
            );
        }
        self.failed.map_or(Ok(()), Err)
    }
}

impl Runner<'_> {
    fn unmake(&mut self, path: &TreePath) -> io::Result<()> {
        self.tree.crash.point()?;
        let (parent, name) = self.parent(path)?;
        match rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR) {
            // Others added an entry, or the directory is not ours.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn unplace(&mut self, path: &TreePath, slot: u64, inode: Inode) -> io::Result<()> {
        let name = slot_name(slot);
        let tree = self.tree;
        let stage = tree.state.stage();
        let undo = Rc::clone(&self.undo);
        if let Some(staged) = stat(stage, &name)? {
            if !inode.is(&staged) {
                // Only the exchange happened: reverse it.
                self.tree.crash.point()?;
                let (parent, last) = self.parent(path)?;
                tree.crash.exchange(stage, &name, parent, &last)?;
            } else if stat(undo.as_fd(), &name)?.is_some() {
                // A second name of the old entry, on a filesystem without exchange.
                self.tree.crash.point()?;
                rustix::fs::unlinkat(&*undo, &name, AtFlags::empty())?;
            }
            return Ok(());
        }

        let (parent, last) = self.parent(path)?;
        match stat(undo.as_fd(), &name)? {
            Some(old) if !inode.is(&old) => {
                self.tree.crash.point()?;
                let (parent, last) = self.parent(path)?;
                match tree.crash.exchange(undo.as_fd(), &name, parent, &last) {
                    Ok(()) => {}
                    Err(e) if e == Errno::NOENT || is_unsupported(e) => {
                        renameat(&*undo, &name, parent, &last)?;
                        return Ok(());
                    }
                    Err(e) => return Err(e.into()),
                }
                self.tree.crash.point()?;
                renameat(&*undo, &name, stage, &name)?;
            }
            Some(_) => {
                self.tree.crash.point()?;
                renameat(&*undo, &name, stage, &name)?;
            }
            None if stat(parent, &last)?.is_some_and(|now| inode.is(&now)) => {
                self.tree.crash.point()?;
                let (parent, last) = self.parent(path)?;
                renameat(parent, &last, stage, &name)?;
            }
            None => {}
        }

        Ok(())
    }

    fn set_back(&mut self, path: &TreePath, ino: u64, sides: [&Metadata; 2]) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match stat(parent, &name)? {
            Some(now) if is_known(&now, ino, sides) => self.set(path, ino, sides[0], sides),
            // Others put another entry there.
            _ => Ok(()),
        }
    }

    fn put_back(&mut self, path: &TreePath, slot: u64) -> io::Result<()> {
        let name = slot_name(slot);
        let undo = Rc::clone(&self.undo);
        if stat(undo.as_fd(), &name)?.is_none() {
            return self.take_stand_in(path, slot);
        }

        self.tree.crash.point()?;
        let (parent, last) = self.parent(path)?;
        match rename_new(undo.as_fd(), &name, parent, &last) {
            // Others created a new entry under the old name: theirs stays.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }
}
