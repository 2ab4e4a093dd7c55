//! The tree that is not live: it stands in the undo directory of its commit as `tree`.
//!
//! That is first the next tree, after the exchange the old one, for a revert.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::seen_names::SeenNames;
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::Serial;
use crate::manifest::Mtime;
use crate::tree::fs::dir::stat;
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// Name of the tree that is not live, in the undo directory.
pub(crate) const ASIDE: &std::ffi::CStr = c"tree";
/// Name of the file there that records the time of the exchange.
const EXCHANGED: &std::ffi::CStr = c"exchanged";

/// Undo directory of a commit in the layout `swap`, with the tree that is not live.
pub(crate) struct Aside<'a> {
    tree: &'a Worktree,
    serial: Serial,
    dir: OwnedFd,
}

impl<'a> Aside<'a> {
    /// Opens the undo directory of the commit `serial`.
    pub(crate) fn open(tree: &'a Worktree, serial: Serial) -> Result<Self> {
        let dir = tree.state.undo_dir(serial)?;
        Ok(Self { tree, serial, dir })
    }

    /// Handle of the undo directory.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens the tree that is not live.
    pub(crate) fn root(&self) -> Result<Root> {
        let path = self.shown();
        Root::below(self.dir(), ASIDE, path.clone()).context("cannot open", &path)
    }

    /// Inode of the tree that is not live, if there is one.
    pub(super) fn standing(&self) -> Result<Option<u64>> {
        let found = stat(self.dir(), &ASIDE.to_owned())
            .context("cannot look into", self.tree.state.path())?;
        Ok(found
            .filter(|f| f.file_type == FileType::Directory)
            .map(|f| f.id.ino))
    }

    /// Names in both trees at the last look.
    pub(super) fn known(&self) -> Result<SeenNames> {
        SeenNames::read(self.dir()).context("cannot read the names in", self.tree.state.path())
    }

    /// Time of the exchange by the filesystem's clock, recorded as the time of a file.
    pub(super) fn exchanged_at(&self) -> Result<Mtime> {
        let noted = || -> io::Result<Mtime> {
            if let Some(found) = stat(self.dir(), &EXCHANGED.to_owned())? {
                return Ok(found.mtime);
            }
            // No other change of names aside happened since.
            let at = FileStat::of(&self.dir)?.ctime;
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&self.dir, EXCHANGED, flags, Mode::RUSR | Mode::WUSR)?;
            Metadata {
                mtime: Some(at),
                ..Metadata::default()
            }
            .set(&file)?;
            Ok(at)
        };

        noted().context("cannot note the exchange in", self.tree.state.path())
    }

    /// Removes the record of an earlier exchange.
    pub(super) fn forget_exchange(&self) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, EXCHANGED, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io(
                "cannot remove a note in",
                self.tree.state.path(),
                e,
            )),
        }
    }

    /// Refusal of a tree that is neither the old nor the new one.
    pub(super) fn strange(&self) -> Error {
        Error::refused(format!(
            "{} is neither the old nor the new tree of release {}",
            self.shown().display(),
            self.serial
        ))
        .hint("somebody moved it: put it back, and restart the daemon")
    }

    fn shown(&self) -> PathBuf {
        self.tree
            .state
            .path()
            .join("undo")
            .join(self.serial.to_string())
            .join("tree")
    }
}
