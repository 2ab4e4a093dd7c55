//! Transfers changes by others from one tree to the other tree beside it.
//!
//! Two trees exchange places in one step, but other processes work in both: by path in the live
//! tree, and by handles from before in the other one. A name that changed in one tree since the
//! last look ([`SeenNames`]) is created, replaced or removed in the other, unless the other tree
//! takes precedence ([`precedence`]). Entries of the release itself are never touched.

mod dirs;
pub(crate) mod drain;
pub(crate) mod precedence;
mod step;
pub(crate) mod transfer;
mod vanish;
mod verdict;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::BorrowedFd;

use self::precedence::{Inodes, Rivals};
use super::journal::Move;
use super::seen_names::{SeenDir, SeenNames, Was};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::{Mtime, TreePath};
use crate::tree::fs::dir_watch::DirWatch;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// A transfer from one tree to the other.
pub(crate) struct Follow<'a> {
    pub(crate) tree: &'a Worktree,
    pub(crate) from: &'a Root,
    pub(crate) to: &'a Root,
    /// Entries of the release itself, sorted.
    pub(crate) changed: &'a [TreePath],
    /// Names in both trees at the last look.
    pub(crate) known: &'a SeenNames,
    /// Directory for the notes on transfers in progress.
    pub(crate) aside: BorrowedFd<'a>,
    /// Other writers in `to`.
    pub(crate) rival: Rivals,
    /// Events of others in `to`, as far as received.
    pub(crate) heard: Option<&'a mut DirWatch>,
    /// Whether the transfer goes from the new tree to the old one.
    pub(crate) back: bool,
    /// Whether directories move at once; else they are only added to `moves`.
    pub(crate) moving: bool,
    /// Whether names that are missing in `from` are left alone in `to`.
    pub(crate) arrivals_only: bool,
    /// Directories that `to` lacks.
    pub(crate) moves: Vec<Move>,
    /// Directories of `to` with changed names, with their mtime before; `None` for new directories.
    pub(crate) touched: BTreeMap<Option<TreePath>, Option<Mtime>>,
    /// Present names of both trees, for the directories visited.
    pub(crate) names: SeenNames,
}

impl<'a> Follow<'a> {
    pub(crate) fn new(
        tree: &'a Worktree,
        [from, to]: [&'a Root; 2],
        changed: &'a [TreePath],
        known: &'a SeenNames,
        aside: BorrowedFd<'a>,
        rival: Rivals,
    ) -> Self {
        Self {
            tree,
            from,
            to,
            changed,
            known,
            aside,
            rival,
            heard: None,
            back: false,
            moving: true,
            arrivals_only: false,
            moves: Vec::new(),
            touched: BTreeMap::new(),
            names: SeenNames::default(),
        }
    }

    /// Record of a directory; entries transferred already take precedence.
    pub(crate) fn record(&self, path: Option<&TreePath>) -> Option<&SeenDir> {
        let key = path.cloned();
        self.names.0.get(&key).or_else(|| self.known.0.get(&key))
    }

    /// Returns whether the release itself has, or removes, the entry.
    fn is_own(&self, path: &TreePath) -> bool {
        self.changed.binary_search(path).is_ok()
    }

    /// Inodes of a name in both trees, for names that are not directories of both.
    pub(crate) fn sides(&self, was: Was) -> Inodes {
        match was {
            Was::Directory => Inodes {
                from: Inodes::UNKNOWN,
                to: Inodes::UNKNOWN,
            },
            Was::Other(from, to) if !self.back => Inodes { from, to },
            Was::Other(to, from) => Inodes { from, to },
            // Only `resolve` can tell.
            Was::ComingNew(..) | Was::ComingOld(..) => Inodes {
                from: Inodes::UNKNOWN,
                to: Inodes::UNKNOWN,
            },
        }
    }

    fn other(&self, Inodes { from, to }: Inodes) -> Was {
        if self.back {
            Was::Other(to, from)
        } else {
            Was::Other(from, to)
        }
    }

    /// Records the mtime of a directory of `to` before a name inside changes.
    fn touch(&mut self, path: Option<TreePath>, to: BorrowedFd<'_>) -> io::Result<()> {
        if let Entry::Vacant(entry) = self.touched.entry(path) {
            entry.insert(Some(FileStat::of(to)?.mtime));
        }
        Ok(())
    }

    pub(crate) fn failed(&self, action: &str, path: Option<&TreePath>, e: io::Error) -> Error {
        Error::io(
            action,
            path.map_or_else(|| self.from.path().to_path_buf(), |p| self.from.shown(p)),
            e,
        )
    }
}

/// Adds to the record of the tree aside.
pub(crate) fn note(tree: &Worktree, aside: BorrowedFd<'_>, names: &SeenNames) -> Result<()> {
    if names.0.is_empty() {
        return Ok(());
    }
    tree.crash.point()?;
    names
        .append(aside)
        .context("cannot note names in", tree.state.path())
}
