//! Executes the steps of a journal one by one. Every step detects whether it was taken already, so
//! it can be repeated.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, renameat};
use rustix::io::Errno;

use super::journal::{Inode, Journal, Step};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::{Mode, TreePath};
use crate::sync::locked;
use crate::tree::fs::ctime_chains::Placement;
use crate::tree::fs::dir::{MAX_SINGLE_SYNCS, is_empty, rename_new, slot_name, stat};
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::errors::{is_absent, is_gone, is_unsupported};
use crate::tree::fs::metadata::{Metadata, chmod, handle_of, remove_acl};
use crate::tree::fs::owners::Rights;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::xattrs::DEFAULT_ACL;
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
    rights: Rights,
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

    /// Gives this process the right to change names in the directories that it will touch.
    pub(crate) fn loosen(&mut self, journal: &Journal) -> Result<()> {
        if self.rights.overrides_modes() {
            return Ok(());
        }

        for dir in &journal.dirs {
            self.loosen_one(dir.path.as_ref())
                .map_err(|e| self.named(e, "cannot write to", dir.path.as_ref()))?;
        }

        Ok(())
    }

    fn loosen_one(&mut self, path: Option<&TreePath>) -> io::Result<()> {
        let handle = match self.dir_handle(path) {
            // A directory that this commit creates, perhaps in the place of a file or symlink.
            Err(e) if is_gone(&e) => return Ok(()),
            handle => handle?,
        };

        let now = FileStat::of(&handle)?;
        if now.file_type == FileType::Directory && now.mode.bits() & 0o700 != 0o700 {
            match chmod(handle.as_fd(), Mode::from_bits(now.mode.bits() | 0o700)) {
                // Another user's directory: other bits may admit this process, or the first change
                // fails.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                done => done?,
            }
        }

        Ok(())
    }

    /// Removes the default ACL that another user set on a directory, before anything is created
    /// inside.
    pub(crate) fn disinherit(&mut self, journal: &Journal) -> Result<()> {
        for dir in &journal.dirs {
            let (Some(old), Some(new)) = (&dir.old, &dir.new) else {
                continue;
            };
            if new.xattrs.is_some() || !old.is_foreign_to(new.uid) {
                continue;
            }
            self.tree.crash.point()?;
            let done = self
                .dir_handle(dir.path.as_ref())
                .and_then(|handle| remove_acl(handle.as_fd(), DEFAULT_ACL));
            done.map_err(|e| self.named(e, "cannot remove the ACL of", dir.path.as_ref()))?;
        }

        Ok(())
    }

    pub(crate) fn set_dir(&mut self, path: Option<&TreePath>, metadata: &Metadata) -> Result<()> {
        self.tree.crash.point()?;
        let set = self.dir_handle(path).and_then(|handle| {
            if FileStat::of(&handle)?.file_type != FileType::Directory {
                return Err(Errno::NOTDIR.into());
            }
            metadata.set(&handle)
        });
        set.map_err(|e| self.named(e, "cannot set mode, owner or time of", path))
    }

    fn dir_handle(&mut self, path: Option<&TreePath>) -> io::Result<OwnedFd> {
        match path {
            // The handle from the opening of the tree works whatever the directory's mode is now.
            None => Ok(rustix::io::dup(self.tree.root())?),
            Some(path) => {
                let (parent, name) = self.parent(path)?;
                handle_of(parent, &name)
            }
        }
    }

    /// Handle of the parent directory of `path`, and the last component.
    pub(crate) fn parent(&mut self, path: &TreePath) -> io::Result<(BorrowedFd<'_>, CString)> {
        self.dirs.parent(&self.tree.root(), path)
    }

    /// Syncs all changes.
    pub(crate) fn sync(&mut self, journal: &Journal) -> Result<()> {
        let tree = self.tree;
        tree.crash.point()?;
        let sets = journal.steps.iter().any(|s| matches!(s, Step::Set { .. }));
        if sets || journal.dirs.len() > MAX_SINGLE_SYNCS {
            rustix::fs::syncfs(tree.root()).context("cannot sync", tree.root().path())?;
            return Ok(());
        }

        for dir in journal.dirs.iter() {
            match tree.root().dir(dir.path.as_ref()) {
                Ok(handle) => rustix::fs::fsync(&handle).map_err(io::Error::from),
                Err(e) if is_absent(&e) => Ok(()),
                // This process cannot read the directory, so there is no handle to sync.
                Err(_) => rustix::fs::syncfs(tree.root()).map_err(io::Error::from),
            }
            .map_err(|e| self.named(e, "cannot sync", dir.path.as_ref()))?;
        }

        for fd in [self.undo.as_fd(), tree.state.stage()] {
            rustix::fs::fsync(fd).context("cannot sync", tree.state.path())?;
        }

        Ok(())
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
