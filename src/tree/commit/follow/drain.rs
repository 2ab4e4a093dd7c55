//! Removes the old tree after a commit was confirmed or reverted, and transfers late arrivals.
//!
//! A process with an open directory of the old tree can still write there until the directory is
//! gone. An unknown entry moves into the live tree before its name here is removed.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;

use super::Follow;
use super::transfer::{MAX_ATTEMPTS, NameTransfer};
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

impl Follow<'_> {
    /// Removes everything in the directory `path` of `from`, and transfers unknown entries.
    pub(crate) fn drain(&mut self, path: Option<&TreePath>) -> Result<()> {
        self.drain_dir(path, false)
    }

    fn drain_dir(&mut self, path: Option<&TreePath>, closed: bool) -> Result<()> {
        let from = self
            .from
            .dir(path)
            .map_err(|e| self.failed("cannot open", path, e))?;
        let closed = closed || self.is_closed(path, from.as_fd())?;
        let is_own = path.is_some_and(|path| self.changed.binary_search(path).is_ok());
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
        let failed = |e: io::Error| Error::io("cannot remove", self.from.shown(&path), e);
        let Some(now) = stat(dir.handle, name).map_err(failed)? else {
            return Ok(());
        };

        let is_dir = now.file_type == FileType::Directory;
        let same = dir
            .known
            .get(name)
            .is_some_and(|was| is_dir || self.sides(*was).from == now.id.ino);

        if !same && !dir.closed && self.changed.binary_search(&path).is_err() {
            let followed = self.rescue(dir, (&path, name), &now)?;
            if !is_dir {
                let taken = if followed {
                    NameTransfer(self.aside).take_out(dir.handle, name, now.id.ino)
                } else {
                    Ok(())
                };
                return taken.map_err(|e| self.failed("cannot remove", Some(&path), e));
            }
        }

        let failed = |e: io::Error| Error::io("cannot remove", self.from.shown(&path), e);
        if is_dir && stat(dir.handle, name).map_err(failed)?.is_some() {
            self.drain_dir(Some(&path), dir.closed)?;
        }

        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };

        match unlinkat(dir.handle, name, flags) {
            // Gone, moved, or retried by the next attempt.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(e) => Err(self.failed("cannot remove", Some(&path), e.into())),
        }
    }

    /// Transfers one name out of a directory in the process of removal; false if the name changed
    /// meanwhile.
    fn rescue(
        &mut self,
        dir: &mut Draining<'_>,
        (path, name): (&TreePath, &CString),
        now: &FileStat,
    ) -> Result<bool> {
        let to = match self.to.dir(dir.path) {
            Ok(to) => to,
            // The user who removed the directory from the live tree did not mean to keep its
            // entries.
            Err(e) if is_gone(&e) && dir.common => return Ok(true),
            Err(e) if is_gone(&e) => {
                if let Some(path) = dir.path {
                    self.make_way(path)
                        .map_err(|e| self.failed("cannot make", Some(path), e))?;
                }
                self.to
                    .dir(dir.path)
                    .map_err(|e| self.failed("cannot open the other", dir.path, e))?
            }
            Err(e) => return Err(self.failed("cannot open the other", dir.path, e)),
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

        if let Some(Some(held)) = held {
            dir.known.insert(name.clone(), held);
        }

        Ok(held.is_some())
    }
}
