//! Executes the steps of a journal one by one. Every step detects whether it was taken already, so
//! it can be repeated.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, renameat};
use rustix::io::Errno;

use super::journal::{Inode, Journal, Step};
use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::ctime_chains::Placement;
use crate::tree::fs::dir::{is_empty, rename_new, slot_name, stat};
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::errors::is_unsupported;
use crate::tree::fs::metadata::{Metadata, handle_of};
use crate::tree::fs::owners::Rights;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// Whether earlier attempts may have taken steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    /// The journal was just written.
    First,
    /// A crash or an error stopped an earlier attempt.
    Again,
}

/// Takes steps in either direction. Caches the directory of the last step.
pub(crate) struct Runner<'a> {
    pub(crate) tree: &'a Worktree,
    pub(crate) undo: Rc<OwnedFd>,
    pub(super) rights: Rights,
    dirs: DirCursor,
    pub(crate) attempt: Try,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(tree: &'a Worktree, journal: &Journal) -> Result<Self> {
        let undo = Rc::new(tree.state.undo_dir(journal.serial())?);
        Ok(Self {
            tree,
            undo,
            rights: Rights::of_process(),
            dirs: DirCursor::default(),
            attempt: Try::Again,
        })
    }

    pub(crate) fn forward(&mut self, step: &Step) -> Result<()> {
        let done = match step {
            Step::Mkdir(path) => self.mkdir(path),
            Step::Place {
                path,
                slot,
                ino,
                replaces,
                born,
                ..
            } => self.place(
                path,
                *slot,
                Inode {
                    ino: *ino,
                    born: *born,
                },
                *replaces,
            ),
            Step::Remove { path, slot, is_dir } => self.remove(path, *slot, *is_dir),
            Step::Set {
                path,
                old,
                new,
                ino,
            } => self.set(path, *ino, new, [old, new]),
        };

        done.map_err(|e| self.named(e, "cannot change", step_path(step)))
    }

    fn mkdir(&mut self, path: &TreePath) -> io::Result<()> {
        self.tree.crash.point()?;
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(parent, &name, rustix::fs::Mode::RWXU) {
            Err(Errno::EXIST) if FileStat::at(parent, &name)?.file_type == FileType::Directory => {}
            done => done?,
        }
        Ok(())
    }

    fn place(
        &mut self,
        path: &TreePath,
        slot: u64,
        inode: Inode,
        replaces: bool,
    ) -> io::Result<()> {
        let name = slot_name(slot);
        let tree = self.tree;
        let stage = tree.state.stage();
        let is_staged = match self.attempt {
            Try::First => true,
            Try::Again => match stat(stage, &name)? {
                Some(found) => inode.is(&found),
                None => return Ok(()),
            },
        };

        if is_staged {
            self.tree.crash.point()?;
            let placement = Placement::begin();
            if replaces {
                match self.exchange(path, &name)? {
                    Exchange::OldInSlot => self.placed(path, placement)?,
                    Exchange::Done => return self.placed(path, placement),
                }
            } else {
                let (parent, last) = self.parent(path)?;
                rename_new(stage, &name, parent, &last)?;
                return self.placed(path, placement);
            }
        }

        // The slot now holds the replaced entry.
        self.tree.crash.point()?;
        if stat(stage, &name)?.is_some_and(|s| s.file_type == FileType::Directory) {
            return Err(io::Error::other(
                "a directory appeared here since the tree was compared",
            ));
        }

        renameat(stage, &name, &*self.undo, &name)?;
        Ok(())
    }

    /// Records the ctime that `placement` left on the entry.
    fn placed(&mut self, path: &TreePath, placement: Placement) -> io::Result<()> {
        let tree = self.tree;
        if !locked(&tree.chains).wanted() {
            return Ok(());
        }

        let (parent, last) = self.parent(path)?;
        if let Some(after) = stat(parent, &last)? {
            placement.done(&after, &mut locked(&tree.chains));
        }

        Ok(())
    }

    /// Exchanges the staged item with the entry at `path`.
    fn exchange(&mut self, path: &TreePath, name: &CString) -> io::Result<Exchange> {
        let tree = self.tree;
        let stage = tree.state.stage();
        let undo = Rc::clone(&self.undo);
        let (parent, last) = self.parent(path)?;

        match tree.crash.exchange(stage, name, parent, &last) {
            Ok(()) => Ok(Exchange::OldInSlot),
            Err(Errno::NOENT) => rename_new(stage, name, parent, &last).map(|()| Exchange::Done),
            Err(e) if is_unsupported(e) => {
                // The old entry gets a second name, then the new one replaces the first.
                match rustix::fs::linkat(parent, &last, &*undo, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                tree.crash.point()?;
                renameat(stage, name, parent, &last)?;
                Ok(Exchange::Done)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn remove(&mut self, path: &TreePath, slot: u64, is_dir: bool) -> io::Result<()> {
        let name = slot_name(slot);
        let tree = self.tree;
        let undo = Rc::clone(&self.undo);
        if stat(undo.as_fd(), &name)?.is_some() {
            return Ok(());
        }

        self.tree.crash.point()?;
        let (parent, last) = self.parent(path)?;
        let Some(now) = stat(parent, &last)? else {
            return self.finish_stand_in(slot);
        };

        if (now.file_type == FileType::Directory) != is_dir {
            return Err(io::Error::other(
                "another kind of file appeared here since the tree was compared",
            ));
        }

        match tree
            .crash
            .rename(is_dir, parent, &last, undo.as_fd(), &name)
        {
            Err(Errno::XDEV) if is_dir => return self.leave_stand_in(path, slot),
            done => done?,
        }

        if is_dir && !is_empty(undo.as_fd(), &name)? {
            renameat(&*undo, &name, parent, &last)?;
            return Err(Errno::NOTEMPTY.into());
        }

        Ok(())
    }

    /// Sets the metadata of the inode `ino` at `path`, if its owners match one of `sides`. A reused
    /// inode number of others does not match.
    pub(crate) fn set(
        &mut self,
        path: &TreePath,
        ino: u64,
        metadata: &Metadata,
        sides: [&Metadata; 2],
    ) -> io::Result<()> {
        self.tree.crash.point()?;
        let (parent, name) = self.parent(path)?;
        let handle = handle_of(parent, &name)?;
        if !is_known(&FileStat::of(&handle)?, ino, sides) {
            return Err(io::Error::other(
                "another file appeared here since the tree was compared",
            ));
        }

        metadata.set(&handle)?;
        Ok(())
    }

    /// Handle of the parent directory of `path`, and the last component.
    pub(crate) fn parent(&mut self, path: &TreePath) -> io::Result<(BorrowedFd<'_>, CString)> {
        self.dirs.parent(&self.tree.root(), path)
    }

    pub(crate) fn named<'p>(
        &self,
        e: io::Error,
        action: &str,
        path: impl Into<Option<&'p TreePath>>,
    ) -> Error {
        let error = Error::io(action, self.tree.root().shown_dir(path.into()), e);
        if error.is_os(io::ErrorKind::DirectoryNotEmpty) {
            return error.hint("something was put there since the tree was compared: deploy again");
        }
        error
    }
}

/// Returns whether an inode is `ino` with the owners of one of `sides`.
pub(crate) fn is_known(now: &FileStat, ino: u64, sides: [&Metadata; 2]) -> bool {
    let owned = |uid, gid| {
        sides.iter().any(|s| s.uid == Some(uid)) && sides.iter().any(|s| s.gid == Some(gid))
    };
    now.id.ino == ino && owned(now.uid, now.gid)
}

/// Place of the old entry after an exchange: in the stage's slot, still to be moved, or in the undo
/// directory or gone.
enum Exchange {
    OldInSlot,
    Done,
}

fn step_path(step: &Step) -> &TreePath {
    match step {
        Step::Mkdir(path)
        | Step::Place { path, .. }
        | Step::Remove { path, .. }
        | Step::Set { path, .. } => path,
    }
}
