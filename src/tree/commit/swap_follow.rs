//! Transfers changes by others between the two trees of a commit in the layout `swap`, before and
//! after their exchange.

use std::collections::BTreeMap;
use std::io;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::aside::{ASIDE, Aside};
use super::dir_metadata::{present, set_dirs};
use super::follow::precedence::Rivals;
use super::follow::transfer::MAX_ATTEMPTS;
use super::follow::{Follow, note};
use super::journal::{Above, DirStep, Journal, Move, Swap};

use super::moves;
use super::seen_names::SeenNames;
use crate::error::{IoResultExt as _, Result};
use crate::id::Serial;
use crate::manifest::{Mtime, TreePath};
use crate::sync::locked;
use crate::tree::fs::dir_watch::DirWatch;
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::root::Root;
use crate::tree::state::reader::done_journal;
use crate::tree::state::worktree::Worktree;

/// Transfers between the two trees of one commit.
pub(super) struct SwapFollow<'a> {
    tree: &'a Worktree,
    journal: &'a Journal,
    swap: &'a Swap,
    aside: &'a Aside<'a>,
}

/// Result of one transfer.
struct Followed {
    touched: BTreeMap<Option<TreePath>, Option<Mtime>>,
    names: SeenNames,
    /// Directories that still have to move.
    moves: Vec<Move>,
}

impl<'a> SwapFollow<'a> {
    pub(super) fn new(
        tree: &'a Worktree,
        journal: &'a Journal,
        swap: &'a Swap,
        aside: &'a Aside<'a>,
    ) -> Self {
        Self {
            tree,
            journal,
            swap,
            aside,
        }
    }

    /// Transfers changes by others in the old tree since the last look to the new one, before or
    /// after the exchange.
    pub(super) fn old(&self, rival: Rivals, heard: Option<&mut DirWatch>) -> Result<()> {
        let live = self.tree.root();
        let other = self.aside.root()?;
        let exchanged = rival != Rivals::Nobody;
        let (old, new) = if exchanged {
            (&other, &*live)
        } else {
            (&*live, &other)
        };

        let followed = self.run([old, new], rival, heard, |follow| {
            // Only this process works in the next tree.
            follow.moving = exchanged;
            follow.changed_dirs()?;
            follow.owned_dirs(self.dirs_without(|dir| dir.new.is_some()))
        })?;

        set_touched(self.journal, [old, new], &followed.touched, [])?;
        note(self.tree, self.aside.dir(), &followed.names)
    }

    /// Transfers changes by others in the new tree since the last look to the old one; returns the
    /// directories that still have to move.
    pub(super) fn back(
        &self,
        [new, old]: [&Root; 2],
        rival: Rivals,
        heard: Option<&mut DirWatch>,
    ) -> Result<Vec<Move>> {
        let followed = self.run([new, old], rival, heard, |follow| {
            follow.back = true;
            follow.moving = rival != Rivals::Handles;
            follow.changed_dirs()
        })?;

        set_touched(self.journal, [new, old], &followed.touched, [])?;
        note(self.tree, self.aside.dir(), &followed.names)?;

        Ok(followed.moves)
    }

    /// Transfers changes by others in the whole new tree to the old one, whichever is live; returns
    /// the directories that still have to move.
    pub(super) fn new_tree(&self, moving: bool) -> Result<Vec<Move>> {
        let live = self.tree.root();
        let other = self.aside.root()?;
        let (new, old) = if moving {
            (&other, &*live)
        } else {
            (&*live, &other)
        };

        // While the old tree is not live, entries in the new one are later.
        let rival = if moving {
            Rivals::Everybody(self.aside.exchanged_at()?)
        } else {
            Rivals::Handles
        };

        let followed = self.run([new, old], rival, None, |follow| {
            follow.back = true;
            follow.moving = moving;
            follow.all_dirs()?;
            follow.owned_dirs(self.dirs_without(|dir| dir.old.is_some()))
        })?;

        // While the new tree is live, modes, owners and times that others changed are transferred
        // as well.
        let all = followed.names.0.keys().filter(|_| !moving).cloned();
        set_touched(self.journal, [new, old], &followed.touched, all)?;
        if moving {
            let moved = |dir: &&Above| followed.touched.contains_key(&Some(dir.path.clone()));
            moves::restore(old, self.swap.above().iter().filter(moved), |dir| dir.old)?;
        }

        note(self.tree, self.aside.dir(), &followed.names)?;
        Ok(followed.moves)
    }

    /// Transfers from the first to the second tree what `visit` finds.
    fn run(
        &self,
        trees: [&Root; 2],
        rival: Rivals,
        heard: Option<&mut DirWatch>,
        visit: impl FnOnce(&mut Follow<'_>) -> Result<()>,
    ) -> Result<Followed> {
        let known = self.aside.known()?;
        let changed = &self.swap.changed;
        let mut follow = Follow::new(self.tree, trees, changed, &known, self.aside.dir(), rival);
        follow.heard = heard;
        visit(&mut follow)?;

        Ok(Followed {
            touched: follow.touched,
            names: follow.names,
            moves: follow.moves,
        })
    }

    /// Directories that the journal lists and one of the trees lacks.
    fn dirs_without(&self, has: impl Fn(&DirStep) -> bool) -> impl Iterator<Item = &'a TreePath> {
        let lacking = self.journal.dirs.iter().filter(move |dir| !has(dir));
        lacking.filter_map(|dir| dir.path.as_ref())
    }
}

/// Transfers writes by handles into the old tree since the exchange to the new one.
pub(crate) fn follow_handles(tree: &Worktree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = Aside::open(tree, journal.serial())?;
    if aside.standing()? != Some(swap.old.ino) {
        return Ok(());
    }

    let since = aside.exchanged_at()?;
    SwapFollow::new(tree, journal, swap, &aside)
        .old(Rivals::Everybody(since), locked(&tree.heard).as_mut())
}

/// Sets metadata of the directories of `to` with transferred names, and of `others` that are in
/// both trees.
fn set_touched(
    journal: &Journal,
    [from, to]: [&Root; 2],
    touched: &BTreeMap<Option<TreePath>, Option<Mtime>>,
    others: impl IntoIterator<Item = Option<TreePath>>,
) -> Result<()> {
    let governed = |path: Option<&TreePath>| {
        journal
            .dirs
            .binary_search_by(|d| d.path.as_ref().cmp(&path))
            .is_ok()
    };

    let others: Vec<_> = others
        .into_iter()
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

/// Removes the tree aside after the commit `serial` was confirmed or reverted, and transfers late
/// arrivals to the live tree. An error ends the transfer, and the rest is dropped.
pub(crate) fn drain(tree: &Worktree, serial: Serial) -> Result<()> {
    let aside = Aside::open(tree, serial)?;
    if aside.standing()?.is_none() {
        return Ok(());
    }

    let drained = || -> Result<()> {
        let Some(journal) = Journal::read(&tree.state, &done_journal(serial))? else {
            return Ok(());
        };
        let Some(swap) = &journal.swap else {
            return Ok(());
        };
        let gone = aside.root()?;
        let live = tree.root();
        let known = aside.known()?;
        let since = aside.exchanged_at()?;
        let rival = Rivals::Everybody(since);
        let mut follow = Follow::new(
            tree,
            [&gone, &live],
            &swap.changed,
            &known,
            aside.dir(),
            rival,
        );
        follow.back = gone.id().ino == swap.new.ino;
        let mut heard = locked(&tree.heard).take();
        follow.heard = heard.as_mut();
        for _ in 0..MAX_ATTEMPTS {
            follow.drain(None)?;
            match rustix::fs::unlinkat(aside.dir(), ASIDE, AtFlags::REMOVEDIR) {
                // An entry arrived at the last moment.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                done => {
                    done.context("cannot remove", gone.path())?;
                    break;
                }
            }
        }
        let touched = follow.touched;
        set_touched(&journal, [&gone, &live], &touched, [])
    };

    match drained() {
        Err(e) if tree.crash.happened() => Err(e),
        Err(e) => {
            tracing::warn!(
                "tree {}: what was written into the old tree may be missing: {e}",
                tree.name()
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
