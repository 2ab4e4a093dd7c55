//! Walks the directories whose names may differ between the two trees.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::Follow;
use super::precedence::{Inodes, Rivals};
use super::step::FollowStep;
use super::transfer::{MAX_ATTEMPTS, Ready};
use super::verdict::NameVerdict;
use crate::error::Result;
use crate::manifest::TreePath;
use crate::tree::commit::name_pair::NamePair;
use crate::tree::commit::seen_names::{SeenDir, Was, steady_ctime};
use crate::tree::fs::dir::{join, names_in, stat};
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::handover;
use crate::tree::fs::stat::FileStat;

impl Follow<'_> {
    /// Visits the directories that changed since the last look.
    pub(crate) fn changed_dirs(&mut self) -> Result<()> {
        let known = self.known;
        for (path, was) in &known.0 {
            let now = match path {
                Some(path) => self
                    .from
                    .parent(path)
                    .and_then(|(parent, name)| stat(parent.as_fd(), &name)),
                None => FileStat::of(self.from).map(Some),
            };
            match now {
                Ok(Some(now))
                    if now.file_type == FileType::Directory && Some(now.ctime) != was.ctime =>
                {
                    self.dir(path.as_ref(), false)?;
                }
                Ok(_) => {}
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(self.failed("cannot look at", path.as_ref(), e)),
            }
        }

        Ok(())
    }

    /// Visits every directory of `from` that `to` has as well.
    pub(crate) fn all_dirs(&mut self) -> Result<()> {
        self.dir(None, true)
    }

    /// Finds entries of others in directories that belong to the release.
    pub(crate) fn owned_dirs<'p>(
        &mut self,
        dirs: impl Iterator<Item = &'p TreePath>,
    ) -> Result<()> {
        for path in dirs {
            let Ok(from) = self.from.dir(Some(path)) else {
                continue;
            };
            if self.is_closed(Some(path), from.as_fd())? {
                continue;
            }
            let known = self
                .record(Some(path))
                .map(SeenDir::names)
                .unwrap_or_default();
            let is_new = |name: &CString| -> Result<bool> {
                let child = join(Some(path), name)?;
                if self.is_own(&child) {
                    return Ok(false);
                }
                let now = stat(from.as_fd(), name)
                    .map_err(|e| self.failed("cannot look at", Some(&child), e))?;
                let was = known.get(name).map_or(0, |was| self.sides(*was).from);
                Ok(now.is_some_and(|now| now.id.ino != was))
            };
            for name in
                names_in(from.as_fd()).map_err(|e| self.failed("cannot list", Some(path), e))?
            {
                if is_new(&name)? {
                    self.make_way(path)
                        .map_err(|e| self.failed("cannot make", Some(path), e))?;
                    self.to
                        .dir(Some(path))
                        .map_err(|e| self.failed("cannot open the other", Some(path), e))?;
                    self.dir(Some(path), false)?;
                    break;
                }
            }
        }

        Ok(())
    }

    /// Creates the directory `path` of `to` with its ancestors, if missing.
    pub(crate) fn make_way(&mut self, path: &TreePath) -> io::Result<()> {
        let (parent, name) = match self.to.parent(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(above) = path.parent() {
                    self.make_way(&above)?;
                }
                self.to.parent(path)?
            }
            found => found?,
        };

        self.touch(path.parent(), parent.as_fd())?;
        match rustix::fs::mkdirat(&parent, &name, rustix::fs::Mode::RWXU) {
            Ok(()) => drop(self.touched.insert(Some(path.clone()), None)),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }

        Ok(())
    }

    pub(super) fn dir(&mut self, path: Option<&TreePath>, deep: bool) -> Result<()> {
        let mut was = self.record(path).cloned();
        // A change during the transfer is transferred as well.
        for _ in 0..MAX_ATTEMPTS {
            let Some((now, settled)) = self.dir_once(path, was.take(), deep)? else {
                break;
            };
            self.names.0.insert(path.cloned(), now.clone());
            if settled {
                break;
            }
            was = Some(now);
        }

        Ok(())
    }

    /// Returns the present names and whether all were transferred; `None` if the directory is gone
    /// from one of the trees.
    fn dir_once(
        &mut self,
        path: Option<&TreePath>,
        was: Option<SeenDir>,
        deep: bool,
    ) -> Result<Option<(SeenDir, bool)>> {
        let (from, to) = match (self.from.dir(path), self.to.dir(path)) {
            (Ok(from), Ok(to)) => (from, to),
            // Gone from one tree meanwhile: nothing to transfer, or no target.
            (Err(e), _) | (_, Err(e)) if is_gone(&e) => return Ok(None),
            (Err(e), _) | (_, Err(e)) => return Err(self.failed("cannot open", path, e)),
        };

        let from = from.as_fd();
        let to = to.as_fd();
        if self.is_closed(path, from)? {
            return Ok(None);
        }

        let look = |e| self.failed("cannot look at", path, e);
        let ctime = steady_ctime(&FileStat::of(from).map_err(look)?, to).map_err(look)?;

        let mut before = was.as_ref().map(SeenDir::names).unwrap_or_default();
        let mut present = Vec::new();

        for name in names_in(from).map_err(|e| self.failed("cannot list", path, e))? {
            let child = join(path, &name)?;
            let now =
                stat(from, &name).map_err(|e| self.failed("cannot look at", Some(&child), e))?;
            if self.is_own(&child) {
                before.remove(&name);
            } else if let Some(now) = now {
                let was = before.remove(&name);
                present.push((name, child, was, Some(now)));
            }
        }

        let mut known = SeenDir::new(ctime);
        for (name, was) in before {
            let child = join(path, &name)?;
            if self.is_own(&child) {
                continue;
            }
            if !self.arrivals_only {
                present.push((name, child, Some(was), None));
            } else if was != Was::Directory {
                let Inodes { to, .. } = self.sides(was);
                known.add(&name, self.other(Inodes { from: 0, to }));
            }
        }

        let mut steps = Vec::new();

        for (name, path, was, now) in present {
            let pair = NamePair {
                path: &path,
                name: &name,
                from,
                to,
            };
            match self.judge(pair, was, now.as_ref(), deep)? {
                NameVerdict::Done(held) => held.iter().for_each(|held| known.add(&name, *held)),
                NameVerdict::Follow(nodes) => {
                    steps.push(FollowStep {
                        path,
                        name,
                        now,
                        was,
                        known: nodes,
                        ready: Ready::Changed,
                    });
                }
            }
        }

        self.link(&mut steps, from, to)?;
        self.announce(path, &known, &steps)?;
        let mut settled = true;
        for step in steps {
            let held = match self.take(path, &step, from, to)? {
                Some(held) => Some(held),
                None => {
                    (settled, known.ctime) = (false, None);
                    step.was
                }
            };
            held.iter().for_each(|held| known.add(&step.name, *held));
        }

        Ok(Some((known, settled)))
    }

    /// Returns whether a process with an open handle of the directory `path` of `from` may change
    /// names there that it could not change in the other tree, or in the nearest existing ancestor.
    pub(crate) fn is_closed(&self, path: Option<&TreePath>, from: BorrowedFd<'_>) -> Result<bool> {
        if !matches!(self.rival, Rivals::Everybody(_)) {
            return Ok(false);
        }

        let mut above = path.cloned();
        loop {
            let there = self
                .to
                .handle_of(above.as_ref().map_or(b"", |path| path.as_bytes()));
            let stats = |there| Ok((FileStat::of(from)?, FileStat::of(there)?));
            match (there.and_then(stats), &above) {
                (Ok((from, to)), _) => return Ok(handover::is_closed(&from, &to)),
                (Err(e), Some(path)) if is_gone(&e) => above = path.parent(),
                (Err(e), _) => return Err(self.failed("cannot look at the other", path, e)),
            }
        }
    }
}
