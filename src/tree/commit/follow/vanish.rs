//! Removes directories that left the other tree.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;

use super::Follow;
use super::transfer::NameTransfer;
use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::tree::commit::name_pair::NamePair;
use crate::tree::commit::seen_names::{SeenDir, Was};
use crate::tree::fs::dir::{join, stat};
use crate::tree::fs::errors::is_gone;

impl Follow<'_> {
    /// Removes a directory of `to` that left `from`, except for entries of the release and later
    /// arrivals.
    pub(super) fn vanish(&mut self, pair: NamePair<'_>) -> Result<()> {
        let failed = |e| Error::io("cannot remove the other of", self.from.shown(pair.path), e);
        self.tree.crash.point()?;
        let dir = match crate::tree::fs::root::open_dir_at(pair.to, pair.name) {
            Err(e) if is_gone(&e) => return Ok(()),
            dir => dir.map_err(failed)?,
        };

        self.touch(pair.path.parent(), pair.to)
            .map_err(|e| self.failed("cannot look at", Some(pair.path), e))?;
        for (name, was) in self
            .record(Some(pair.path))
            .map(SeenDir::names)
            .unwrap_or_default()
        {
            let child = join(Some(pair.path), &name)?;
            if !self.is_own(&child) {
                self.vanish_name(&child, &name, was, dir.as_fd())?;
            }
        }

        match unlinkat(pair.to, pair.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed("cannot remove the other of", Some(pair.path), e.into())),
        }
    }

    fn vanish_name(
        &mut self,
        path: &TreePath,
        name: &CString,
        was: Was,
        to: BorrowedFd<'_>,
    ) -> Result<()> {
        let there =
            stat(to, name).map_err(|e| self.failed("cannot look at the other", Some(path), e))?;
        let Some(there) = there else { return Ok(()) };

        // `from` has no such entry, in whatever directory it is looked up.
        let pair = NamePair {
            path,
            name,
            from: to,
            to,
        };

        if was == Was::Directory {
            return if there.file_type == FileType::Directory {
                self.vanish(pair)
            } else {
                Ok(())
            };
        }

        let known = self.sides(was);
        // Only in the other tree, or removed here by this process: its directory left without it.
        if known.from == 0 || known.to != there.id.ino || self.was_touched(pair) {
            return Ok(());
        }

        self.tree.crash.point()?;
        let taken = NameTransfer(self.aside).take_out(to, name, there.id.ino);
        taken
            .map(drop)
            .map_err(|e| self.failed("cannot remove the other of", Some(path), e))
    }

    pub(super) fn stays(&self, path: &TreePath) {
        tracing::warn!(
            "tree {}: {path} is of two kinds in the old and the new tree: the live one stays",
            self.tree.name()
        );
    }
}
