//! Verdict on one name of two trees: whether the tree that follows gets the other tree's entry.

use super::Follow;

use rustix::fs::FileType;

use super::precedence::{Inodes, follows};
use super::transfer::NameTransfer;
use crate::error::{Error, Result};
use crate::tree::commit::journal::Move;
use crate::tree::commit::moves;
use crate::tree::commit::name_pair::NamePair;
use crate::tree::commit::seen_names::Was;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::stat::FileStat;

/// Decision about a name.
pub(super) enum NameVerdict {
    /// Nothing to do: the name has this state, unless it moved.
    Done(Option<Was>),
    /// `to` gets the entry of `from`; the inodes are those of both trees.
    Follow(Inodes),
}

impl Follow<'_> {
    /// Decides about a name with the entry `now` in `from`. Directories are visited at once.
    pub(super) fn judge(
        &mut self,
        pair: NamePair<'_>,
        was: Option<Was>,
        now: Option<&FileStat>,
        deep: bool,
    ) -> Result<NameVerdict> {
        let look = |e| Error::io("cannot look at", self.from.shown(pair.path), e);
        let mut known = self.resolve(pair, was).map_err(look)?;
        let is_dir = |found: Option<&FileStat>| {
            found.is_some_and(|found| found.file_type == FileType::Directory)
        };

        let mut there = pair.there().map_err(look)?;
        match (is_dir(now), is_dir(there.as_ref())) {
            (true, true) => {
                if deep || was != Some(Was::Directory) {
                    self.dir(Some(pair.path), true)?;
                }
                return Ok(NameVerdict::Done(Some(Was::Directory)));
            }
            // Its removal in the other tree came later.
            (true, false) if was == Some(Was::Directory) => return Ok(NameVerdict::Done(was)),
            (false, true) => {
                if was == Some(Was::Directory) && !self.arrivals_only {
                    self.vanish(pair)?;
                    there = pair
                        .there()
                        .map_err(|e| self.failed("cannot look at", Some(pair.path), e))?;
                    known.to = 0;
                }
                if is_dir(there.as_ref()) {
                    if now.is_some() && known.from != Inodes::of(now, None).from {
                        self.stays(pair.path);
                    }
                    return Ok(NameVerdict::Done(now.map(|_| {
                        self.other(Inodes::of(now, there.as_ref()).unfollowed(known))
                    })));
                }
            }
            _ => {}
        }

        let touched = self.was_touched(pair);
        let live = self
            .live(pair)
            .map_err(|e| self.failed("cannot look at", Some(pair.path), e))?;

        if !follows(known, now, there.as_ref(), touched, self.rival, live) {
            let nodes = Inodes::of(now, there.as_ref());
            return Ok(NameVerdict::Done(Some(self.other(nodes.unfollowed(known)))));
        }

        match now.filter(|now| now.file_type == FileType::Directory) {
            Some(now) => self
                .directory(pair, now, there.as_ref())
                .map(|()| NameVerdict::Done(None)),
            None => Ok(NameVerdict::Follow(known)),
        }
    }

    /// Moves a new directory of `from` into the place of the entry `there`.
    fn directory(
        &mut self,
        pair: NamePair<'_>,
        now: &FileStat,
        there: Option<&FileStat>,
    ) -> Result<()> {
        let failed = |e| Error::io("cannot move", self.from.shown(pair.path), e);
        if there.is_some() || self.moving {
            self.tree.crash.point()?;
        }

        if let Some(there) = there {
            NameTransfer(self.aside)
                .take_out(pair.to, pair.name, there.id.ino)
                .map_err(failed)?;
        }

        if !self.moving {
            self.moves.push(Move {
                path: pair.path.clone(),
                ino: now.id.ino,
            });
            return Ok(());
        }

        if pair.there().map_err(failed)?.is_some() {
            self.stays(pair.path);
            return Ok(());
        }

        self.touch(pair.path.parent(), pair.to)
            .map_err(|e| self.failed("cannot look at", Some(pair.path), e))?;
        match moves::take(pair.from, pair.name, pair.to) {
            // Others removed it, or the directory that it would be in.
            Err(e) if is_gone(&e) => Ok(()),
            taken => taken.map_err(|e| self.failed("cannot move", Some(pair.path), e)),
        }
    }
}
