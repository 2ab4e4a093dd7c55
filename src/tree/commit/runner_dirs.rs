//! Directories of a commit in place: loosened before its steps, set and synced after them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::executor::Runner;
use super::journal::{Journal, Step};
use crate::error::{IoResultExt as _, Result};
use crate::manifest::{Mode, TreePath};
use crate::tree::fs::dir::MAX_SINGLE_SYNCS;
use crate::tree::fs::errors::{is_absent, is_gone};
use crate::tree::fs::metadata::{Metadata, chmod, handle_of, remove_acl};
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::xattrs::DEFAULT_ACL;

impl Runner<'_> {
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

    /// Syncs all changes.
    pub(crate) fn sync(&mut self, journal: &Journal) -> Result<()> {
        let tree = self.tree;
        tree.crash.point()?;
        let sets = || journal.steps.iter().any(|s| matches!(s, Step::Set { .. }));
        if journal.dirs.len() > MAX_SINGLE_SYNCS || sets() {
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
}
