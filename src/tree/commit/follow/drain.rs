//! Removes the old tree after a commit was confirmed or reverted, and transfers late arrivals.
//!
//! A process with an open directory of the old tree can still write there until the directory is
//! gone. An unknown entry moves into the live tree before its name here is removed, and a known
//! name is removed only with the known entry. A missing name is not transferred: this module may
//! have removed it, in an earlier run too.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;

use super::Follow;
use super::precedence::Inodes;
use super::transfer::{Departure, MAX_ATTEMPTS, NameTransfer};
use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::tree::commit::name_pair::NamePair;
use crate::tree::commit::seen_names::{SeenDir, Was};
use crate::tree::fs::dir::{join, names_in, stat};
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::stat::FileStat;

/// A directory in the process of removal.
struct Draining<'d> {
    path: Option<&'d TreePath>,
    handle: BorrowedFd<'d>,
    /// Whether both trees have the directory.
    common: bool,
    /// Whether late arrivals in the directory are dropped.
    closed: bool,
    known: HashMap<CString, Was>,
}

impl Draining<'_> {
    /// Inodes that a name had in both trees at the last look; `None` for a directory, and for an
    /// unknown name.
    fn known_file(&self, follow: &Follow<'_>, name: &CString) -> Option<Inodes> {
        let known = follow.sides(*self.known.get(name)?);
        (known.from != 0 && known.from != Inodes::UNKNOWN).then_some(known)
    }

    /// Records that the name is gone from this tree.
    fn set_gone(&mut self, follow: &Follow<'_>, name: &CString, known: Inodes) {
        let gone = follow.other(Inodes { from: 0, ..known });
        self.known.insert(name.clone(), gone);
    }
}

impl Follow<'_> {
    /// Removes everything in the directory `path` of `from`, and transfers unknown entries.
    pub(crate) fn drain(&mut self, path: Option<&TreePath>) -> Result<()> {
        self.arrivals_only = true;
        self.drain_dir(path, false)
    }

    fn drain_dir(&mut self, path: Option<&TreePath>, closed: bool) -> Result<()> {
        let from = match self.from.dir(path) {
            // Others removed it.
            Err(e) if is_gone(&e) => return Ok(()),
            from => from.map_err(|e| self.failed("cannot open", path, e))?,
        };
        let closed = closed || self.is_closed(path, from.as_fd())?;
        let is_own = path.is_some_and(|path| self.is_own(path));
        let record = self.record(path);

        let common = record.is_some() && !is_own;
        let known = record.map(SeenDir::names).unwrap_or_default();
        let mut dir = Draining {
            path,
            handle: from.as_fd(),
            common,
            closed,
            known,
        };

        for _ in 0..MAX_ATTEMPTS {
            self.tree.crash.point()?;
            let names = names_in(dir.handle).map_err(|e| self.failed("cannot list", path, e))?;
            if names.is_empty() {
                break;
            }
            for name in names {
                self.drain_name(&mut dir, &name)?;
            }
        }

        if common {
            // Separates later arrivals from earlier entries.
            let mut record = SeenDir::new(None);
            dir.known
                .iter()
                .for_each(|(name, was)| record.add(name, *was));
            self.names.0.insert(path.cloned(), record);
        }

        Ok(())
    }

    fn drain_name(&mut self, dir: &mut Draining<'_>, name: &CString) -> Result<()> {
        let path = join(dir.path, name)?;
        self.tree.crash.point()?;
        let failed = |e: io::Error| Error::io("cannot remove", self.from.shown(&path), e);
        let Some(now) = stat(dir.handle, name).map_err(failed)? else {
            return Ok(());
        };

        let is_dir = now.file_type == FileType::Directory;
        let known = dir.known_file(self, name).filter(|_| !is_dir);
        if dir.closed || self.is_own(&path) {
            return self.remove_name(dir, &path, name, is_dir, dir.closed);
        }

        match known {
            Some(known) if known.from == now.id.ino => self.remove_known(dir, &path, name, known),
            _ if is_dir && dir.known.get(name) == Some(&Was::Directory) => {
                self.remove_name(dir, &path, name, is_dir, dir.closed)
            }
            _ => {
                let is_dropped = !self.rescue(dir, (&path, name), &now)?;
                match is_dir {
                    // It moved, or stays because the live tree has another.
                    true => self.remove_name(dir, &path, name, is_dir, is_dropped),
                    // It is known by now, and the next attempt removes it.
                    false => Ok(()),
                }
            }
        }
    }

    /// Removes a known file, unless another entry takes its place at this moment: the next attempt
    /// transfers that.
    fn remove_known(
        &mut self,
        dir: &mut Draining<'_>,
        path: &TreePath,
        name: &CString,
        known: Inodes,
    ) -> Result<()> {
        self.tree.crash.point()?;
        let taken = NameTransfer(self.aside).remove_known(dir.handle, name, known.from);
        match taken.map_err(|e| self.failed("cannot remove", Some(path), e))? {
            Departure::Left | Departure::Missing => dir.set_gone(self, name, known),
            Departure::Replaced => {}
        }

        Ok(())
    }

    /// Removes a name with whatever it holds; in a `closed` directory nothing is transferred.
    fn remove_name(
        &mut self,
        dir: &mut Draining<'_>,
        path: &TreePath,
        name: &CString,
        is_dir: bool,
        closed: bool,
    ) -> Result<()> {
        let failed = |e: io::Error| Error::io("cannot remove", self.from.shown(path), e);
        if is_dir && stat(dir.handle, name).map_err(failed)?.is_some() {
            self.drain_dir(Some(path), closed)?;
            self.tree.crash.point()?;
        }

        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };

        match unlinkat(dir.handle, name, flags) {
            // Gone, moved, or retried by the next attempt.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(e) => Err(self.failed("cannot remove", Some(path), e.into())),
        }
    }

    /// Transfers an arrival out of a directory in the process of removal, unless it changed
    /// meanwhile. From here on it is a known name. Returns false if it is to be dropped.
    fn rescue(
        &mut self,
        dir: &mut Draining<'_>,
        (path, name): (&TreePath, &CString),
        now: &FileStat,
    ) -> Result<bool> {
        let open = |tree: &Self| match tree.to.dir(dir.path) {
            Err(e) if is_gone(&e) => Ok(None),
            to => to
                .map(Some)
                .map_err(|e| tree.failed("cannot open the other", dir.path, e)),
        };

        let mut to = open(self)?;
        // If both trees had the directory, a user removed it from the live one, and did not mean to
        // keep its entries.
        if to.is_none() && !dir.common {
            if let Some(path) = dir.path {
                self.make_way(path)
                    .map_err(|e| self.failed("cannot make", Some(path), e))?;
            }
            to = open(self)?;
        }

        let Some(to) = to else {
            let dropped = self.other(Inodes::of(Some(now), None));
            dir.known.insert(name.clone(), dropped);
            return Ok(false);
        };

        let held = self.one(
            NamePair {
                path,
                name,
                from: dir.handle,
                to: to.as_fd(),
            },
            &dir.known,
            now,
        )?;

        match held {
            Some(Some(held)) => drop(dir.known.insert(name.clone(), held)),
            Some(None) => drop(dir.known.remove(name)),
            None => {}
        }

        Ok(true)
    }
}
