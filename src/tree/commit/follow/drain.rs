//! Removes the old tree after a commit was confirmed or reverted, and transfers late changes.
//!
//! A process with an open directory of the old tree can still work there until the directory is
//! gone. So a name leaves by a rename, which shows the entry that left: an unknown one returns and
//! moves into the live tree. A name that is missing without a removal by this module was removed by
//! others, in the live tree as well.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::Follow;
use super::precedence::Inodes;
use super::transfer::MAX_ATTEMPTS;
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::TreePath;
use crate::tree::commit::name_pair::NamePair;
use crate::tree::commit::seen_names::{SeenDir, Was};
use crate::tree::fs::dir::{discard, join, names_in, stat};
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::stat::FileStat;

/// Name aside of the entry that left last.
const LEFT: &CStr = c"left";
/// Name aside of the mark of a removal that began.
const BEGUN: &CStr = c"draining";

/// Removal of one tree.
pub(crate) struct Drain<'f, 'a> {
    follow: &'f mut Follow<'a>,
    /// Whether an earlier removal was interrupted: a missing name proves nothing.
    resumed: bool,
    /// Directories in which it removed names itself.
    visited: BTreeSet<Option<TreePath>>,
    /// Inode of the entry that left last.
    left: u64,
}

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

/// Result of moving a known name out of its directory.
enum Departure {
    /// It left.
    Left,
    /// Others removed it before.
    Missing,
    /// Another entry was there, and returned.
    Replaced,
}

impl<'f, 'a> Drain<'f, 'a> {
    /// Begins or resumes the removal of the tree `from` of a transfer.
    pub(crate) fn begin(follow: &'f mut Follow<'a>) -> Result<Self> {
        let path = follow.from.path();
        discard(follow.aside, LEFT).context("cannot remove what is beside", path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let resumed = match openat(follow.aside, BEGUN, flags, Mode::RUSR | Mode::WUSR) {
            Ok(_) => false,
            Err(Errno::EXIST) => true,
            Err(e) => return Err(Error::io("cannot note the removal of", path, e)),
        };

        // Durable before the first name is missing.
        if !resumed {
            rustix::fs::fsync(follow.aside).context("cannot sync the directory of", path)?;
        }

        Ok(Self {
            follow,
            resumed,
            visited: BTreeSet::new(),
            left: 0,
        })
    }

    /// Removes everything in the tree, and transfers changes by others.
    pub(crate) fn run(&mut self) -> Result<()> {
        self.dir(None, false)
    }

    fn dir(&mut self, path: Option<&TreePath>, closed: bool) -> Result<()> {
        let from = match self.follow.from.dir(path) {
            Err(e) if is_gone(&e) => return Ok(()),
            from => from.map_err(|e| self.follow.failed("cannot open", path, e))?,
        };
        let closed = closed || self.follow.is_closed(path, from.as_fd())?;
        let is_own = path.is_some_and(|path| self.follow.is_own(path));
        let record = self.follow.record(path);
        let common = record.is_some() && !is_own;
        let known = record.map(SeenDir::names).unwrap_or_default();
        let mut dir = Draining {
            path,
            handle: from.as_fd(),
            common,
            closed,
            known,
        };

        let mut unclear = self.visited.insert(path.cloned()) && self.resumed;
        for _ in 0..MAX_ATTEMPTS {
            let names =
                names_in(dir.handle).map_err(|e| self.follow.failed("cannot list", path, e))?;
            if std::mem::take(&mut unclear) {
                let names: HashSet<_> = names.iter().collect();
                dir.known.retain(|name, _| names.contains(name));
            }
            if names.is_empty() && !self.missing(&mut dir)? {
                break;
            }
            for name in names {
                self.name(&mut dir, &name)?;
            }
        }

        if common {
            // Separates later arrivals from earlier entries.
            let mut record = SeenDir::new(None);
            dir.known
                .iter()
                .for_each(|(name, was)| record.add(name, *was));
            self.follow.names.0.insert(path.cloned(), record);
        }

        Ok(())
    }

    /// Transfers the removal of the known names of an empty directory. Returns whether there were
    /// any.
    fn missing(&mut self, dir: &mut Draining<'_>) -> Result<bool> {
        if dir.closed || !dir.common {
            return Ok(false);
        }

        let is_there = |was: Was| was == Was::Directory || self.follow.sides(was).from != 0;
        let left = dir.known.iter().filter(|(_, was)| is_there(**was));
        let names: Vec<_> = left.map(|(name, _)| name.clone()).collect();
        let mut any = false;
        for name in names {
            let path = join(dir.path, &name)?;
            if !self.follow.is_own(&path) {
                self.removed(dir, (&path, &name))?;
                any = true;
            }
        }

        Ok(any)
    }

    fn name(&mut self, dir: &mut Draining<'_>, name: &CString) -> Result<()> {
        let path = join(dir.path, name)?;
        let failed = |e: io::Error| Error::io("cannot remove", self.follow.from.shown(&path), e);
        self.follow.tree.crash.point()?;
        let is_transferred = !dir.closed && !self.follow.is_own(&path);
        if is_transferred && let Some(expected) = self.known_file(dir, name) {
            match self.depart(dir.handle, name, expected).map_err(failed)? {
                Departure::Left => {
                    self.known_gone(dir, name);
                    return Ok(());
                }
                Departure::Missing => return self.removed(dir, (&path, name)),
                Departure::Replaced => {}
            }
        }

        let failed = |e: io::Error| Error::io("cannot remove", self.follow.from.shown(&path), e);
        let Some(now) = stat(dir.handle, name).map_err(failed)? else {
            return Ok(());
        };
        let is_dir = now.file_type == FileType::Directory;
        let same = is_dir && dir.known.contains_key(name);

        if is_transferred && !same {
            self.rescue(dir, (&path, name), &now)?;
            if !is_dir {
                // The next attempt removes it, as a known file by now.
                return Ok(());
            }
        }

        let failed = |e: io::Error| Error::io("cannot remove", self.follow.from.shown(&path), e);
        if is_dir && stat(dir.handle, name).map_err(failed)?.is_some() {
            self.dir(Some(&path), dir.closed)?;
        }

        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };

        match unlinkat(dir.handle, name, flags) {
            Ok(()) => {
                self.known_gone(dir, name);
                Ok(())
            }
            // Gone, moved, or retried by the next attempt.
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(e) => Err(self.follow.failed("cannot remove", Some(&path), e.into())),
        }
    }

    /// Inode that a name had at the last look, unless it was absent or a directory.
    fn known_file(&self, dir: &Draining<'_>, name: &CString) -> Option<u64> {
        let was = dir.known.get(name).copied()?;
        let known = self.follow.sides(was).from;
        (known != 0 && known != Inodes::UNKNOWN).then_some(known)
    }

    /// Records that this module removed a name: its absence is not to be transferred.
    fn known_gone(&self, dir: &mut Draining<'_>, name: &CString) {
        match dir.known.get(name).copied() {
            None => {}
            Some(Was::Directory) => drop(dir.known.remove(name)),
            Some(was) => {
                let to = self.follow.sides(was).to;
                let gone = self.follow.other(Inodes { from: 0, to });
                dir.known.insert(name.clone(), gone);
            }
        }
    }

    /// Moves a name out of its directory, in the place of the entry that left before. A removal
    /// could not tell whether the entry was still the inode `expected`.
    fn depart(&mut self, dir: BorrowedFd<'_>, name: &CStr, expected: u64) -> io::Result<Departure> {
        let aside = self.follow.aside;
        // A rename between two names of one inode has no effect.
        if self.left == expected {
            discard(aside, LEFT)?;
        }

        let moved = match renameat(dir, name, aside, LEFT) {
            // A directory came into the place of the file, or the other way round.
            Err(Errno::NOTDIR | Errno::ISDIR) => {
                discard(aside, LEFT)?;
                renameat(dir, name, aside, LEFT)
            }
            moved => moved,
        };
        match moved {
            Err(Errno::NOENT) => return Ok(Departure::Missing),
            moved => moved?,
        }

        self.left = FileStat::at(aside, LEFT)?.id.ino;
        if self.left == expected {
            return Ok(Departure::Left);
        }
        match renameat_with(aside, LEFT, dir, name, RenameFlags::NOREPLACE) {
            // A later entry is there by now, or the directory was removed.
            Err(Errno::EXIST | Errno::NOENT) => {}
            done => done?,
        }

        Ok(Departure::Replaced)
    }

    /// Transfers the removal of a known name.
    fn removed(
        &mut self,
        dir: &mut Draining<'_>,
        (path, name): (&TreePath, &CString),
    ) -> Result<()> {
        let to = match self.follow.to.dir(dir.path) {
            Ok(to) => to,
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) => return Err(self.follow.failed("cannot open the other", dir.path, e)),
        };

        let pair = NamePair {
            path,
            name,
            from: dir.handle,
            to: to.as_fd(),
        };
        match self.follow.one(pair, &dir.known, None)? {
            Some(Some(held)) => drop(dir.known.insert(name.clone(), held)),
            Some(None) => drop(dir.known.remove(name)),
            // It is there again: the next attempt finds it.
            None => {}
        }

        Ok(())
    }

    /// Transfers an arrival out of a directory in the process of removal, unless it changed
    /// meanwhile. From here on it is a known name.
    fn rescue(
        &mut self,
        dir: &mut Draining<'_>,
        (path, name): (&TreePath, &CString),
        now: &FileStat,
    ) -> Result<()> {
        let to = match self.follow.to.dir(dir.path) {
            Ok(to) => to,
            // The user who removed the directory from the live tree did not mean to keep its
            // entries.
            Err(e) if is_gone(&e) && dir.common => {
                let inodes = Inodes::of(Some(now), None);
                dir.known.insert(name.clone(), self.follow.other(inodes));
                return Ok(());
            }
            Err(e) if is_gone(&e) => {
                if let Some(path) = dir.path {
                    self.follow
                        .make_way(path)
                        .map_err(|e| self.follow.failed("cannot make", Some(path), e))?;
                }
                self.follow
                    .to
                    .dir(dir.path)
                    .map_err(|e| self.follow.failed("cannot open the other", dir.path, e))?
            }
            Err(e) => return Err(self.follow.failed("cannot open the other", dir.path, e)),
        };

        let held = self.follow.one(
            NamePair {
                path,
                name,
                from: dir.handle,
                to: to.as_fd(),
            },
            &dir.known,
            Some(now),
        )?;

        match held {
            Some(Some(held)) => drop(dir.known.insert(name.clone(), held)),
            Some(None) => drop(dir.known.remove(name)),
            None => {}
        }

        Ok(())
    }
}
