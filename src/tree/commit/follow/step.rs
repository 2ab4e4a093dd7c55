//! Transfers single names: linked first, announced, then taken.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use super::precedence::{Inodes, Rivals, follows};
use super::transfer::{NameTransfer, Ready};
use super::verdict::NameVerdict;
use super::{Follow, note};
use crate::error::{Error, Result};
use crate::manifest::{Mtime, TreePath};
use crate::tree::commit::name_pair::NamePair;
use crate::tree::commit::seen_names::{SeenDir, SeenNames, Was};
use crate::tree::fs::stat::FileStat;

/// A name to transfer.
pub(super) struct FollowStep {
    pub(super) path: TreePath,
    pub(super) name: CString,
    /// Present entry in `from`.
    pub(super) now: Option<FileStat>,
    pub(super) was: Option<Was>,
    pub(super) known: Inodes,
    pub(super) ready: Ready,
}

impl Follow<'_> {
    /// Transfers one name outside of a listing. Returns the state of the name, unless it moved;
    /// `None` if it changed meanwhile.
    pub(crate) fn one(
        &mut self,
        pair: NamePair<'_>,
        known: &HashMap<CString, Was>,
        now: &FileStat,
    ) -> Result<Option<Option<Was>>> {
        let was = known.get(pair.name).copied();
        let nodes = match self.judge(pair, was, Some(now), true)? {
            NameVerdict::Done(held) => return Ok(Some(held)),
            NameVerdict::Follow(nodes) => nodes,
        };

        let path = pair.path.clone();
        let name = pair.name.clone();
        let mut steps = [FollowStep {
            path,
            name,
            now: Some(*now),
            was,
            known: nodes,
            ready: Ready::Changed,
        }];

        self.link(&mut steps, pair.from, pair.to)?;
        let dir = pair.path.parent();
        let mut record = SeenDir::new(None);
        known
            .iter()
            .filter(|(name, _)| *name != pair.name)
            .for_each(|(name, was)| record.add(name, *was));

        self.announce(dir.as_ref(), &record, &steps)?;
        let [step] = steps;
        Ok(self
            .take(dir.as_ref(), &step, pair.from, pair.to)?
            .map(Some))
    }

    /// Like [`Self::sides`], including names that a crash left in transfer.
    pub(super) fn resolve(&self, pair: NamePair<'_>, was: Option<Was>) -> io::Result<Inodes> {
        let (now, before, forward) = match was {
            Some(Was::ComingNew(now, before)) => (now, before, !self.back),
            Some(Was::ComingOld(now, before)) => (now, before, self.back),
            was => return Ok(was.map_or(Inodes::NONE, |was| self.sides(was))),
        };

        let to = if forward { pair.to } else { pair.from };
        let Inodes { from, to } = NameTransfer(self.aside).resolve(to, pair.name, now, before)?;
        Ok(if forward {
            Inodes { from, to }
        } else {
            Inodes { from: to, to: from }
        })
    }

    pub(super) fn was_touched(&mut self, pair: NamePair<'_>) -> bool {
        self.heard
            .as_mut()
            .is_some_and(|heard| heard.touched(pair.path.parent().as_ref(), pair.name))
    }

    /// Time of the last change of the directory that others reach by path.
    pub(super) fn live(&self, pair: NamePair<'_>) -> io::Result<Mtime> {
        let dir = if self.rival == Rivals::Handles {
            pair.from
        } else {
            pair.to
        };
        FileStat::of(dir).map(|dir| dir.ctime)
    }

    /// Prepares the present entry for the transfer. The further name changes its ctime, which later
    /// comparisons expect.
    pub(super) fn link(
        &self,
        steps: &mut [FollowStep],
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut busy = HashSet::new();
        for FollowStep {
            path,
            name,
            now,
            known,
            ready,
            ..
        } in steps
        {
            let pair = NamePair {
                path,
                name,
                from,
                to,
            };
            let failed = |e| self.failed("cannot follow", Some(pair.path), e);
            *now = pair.here().map_err(failed)?;
            let Some(now) = now else { continue };
            let there = pair.there().map_err(failed)?;
            let is_dir = now.file_type == FileType::Directory;
            let live = self.live(pair).map_err(failed)?;
            if is_dir || !follows(*known, Some(now), there.as_ref(), false, self.rival, live) {
                continue;
            }
            *ready = NameTransfer(self.aside)
                .link(&self.tree.crash, pair, now, busy.contains(&now.id.ino))
                .map_err(failed)?;
            if *ready == Ready::Linked {
                busy.insert(now.id.ino);
            }
        }

        Ok(())
    }

    /// Notes the arrivals and removals ahead, if any, beside the `known` names.
    pub(super) fn announce(
        &self,
        path: Option<&TreePath>,
        known: &SeenDir,
        steps: &[FollowStep],
    ) -> Result<()> {
        let mut all = known.clone();
        all.ctime = None;
        for step in steps {
            let way = if self.back {
                Was::ComingOld
            } else {
                Was::ComingNew
            };
            match (&step.now, step.ready) {
                (Some(now), Ready::Linked) => all.add(&step.name, way(now.id.ino, step.known.to)),
                (None, _) => all.add(&step.name, way(0, step.known.to)),
                // The present entries show the result of the transfer.
                _ => step.was.iter().for_each(|was| all.add(&step.name, *was)),
            }
        }

        let any = steps
            .iter()
            .any(|step| step.now.is_none() || step.ready == Ready::Linked);

        if any {
            note(
                self.tree,
                self.aside,
                &SeenNames([(path.cloned(), all)].into()),
            )
        } else {
            Ok(())
        }
    }

    /// Takes one step; returns the new state of the name, `None` if it changed meanwhile.
    pub(super) fn take(
        &mut self,
        dir: Option<&TreePath>,
        step: &FollowStep,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<Option<Was>> {
        let pair = NamePair {
            path: &step.path,
            name: &step.name,
            from,
            to,
        };

        let now = step.now.as_ref();
        if now.is_some() && matches!(step.ready, Ready::Busy | Ready::Changed) {
            return Ok(None);
        }

        self.tree.crash.point()?;
        let look = |e| Error::io("cannot look at", self.from.shown(&step.path), e);
        let there = pair.there().map_err(look)?;
        let is_dir = there
            .as_ref()
            .is_some_and(|there| there.file_type == FileType::Directory);
        let touched = self.was_touched(pair);

        let transfer = NameTransfer(self.aside);
        let nodes = Inodes::of(now, there.as_ref());
        let failed = |e| Error::io("cannot follow", self.from.shown(&step.path), e);
        let live = self.live(pair).map_err(failed)?;

        if is_dir || !follows(step.known, now, there.as_ref(), touched, self.rival, live) {
            if step.ready == Ready::Linked {
                transfer.forget(nodes.from).map_err(failed)?;
            }
            return Ok(Some(self.other(nodes.unfollowed(step.known))));
        }

        self.touch(dir.cloned(), to)
            .map_err(|e| self.failed("cannot look at the other", dir, e))?;
        let mut held = Inodes {
            from: nodes.from,
            to: nodes.from,
        };
        match now {
            Some(now) if step.ready == Ready::Linked => transfer.bring(pair, now.id.ino, nodes.to),
            Some(_) => {
                // Only the target has it from here on, so a way back transfers it.
                held = Inodes {
                    from: 0,
                    to: Inodes::UNKNOWN,
                };
                transfer.shift(pair, nodes.to)
            }
            None => transfer.take_out(to, pair.name, nodes.to).map(drop),
        }
        .map_err(|e| self.failed("cannot follow", Some(pair.path), e))?;

        if let Some(heard) = &mut self.heard {
            heard.forget(dir, pair.name);
        }

        Ok(Some(self.other(held)))
    }
}
