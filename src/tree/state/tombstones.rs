//! Tombstones: signed orders that aborted or reverted releases, kept so that none of these releases
//! returns. Also decides whether a release may follow the present one.
//!
//! **On disk.** `tombstones/SERIAL-ID` in a tree's state is one signed order. The newest
//! [`MAX_KEPT`] of each kind stay; of those below the present release, none that is older than
//! [`OLD`], since no host asks for such a release any more. Orders are verified before they are
//! kept, and read back as signed.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use super::dir::StateDir;
use super::reader::{Mark, StateReader, TOMBSTONES, inside};
use super::worktree::Worktree;
use crate::error::{Error, Result};
use crate::id::Serial;
use crate::manifest::node::to_vec;
use crate::manifest::{Release, ReleaseId};
use crate::tree::fs::dir::names_in;
use crate::wire::message::{Order, SignedOrder, Tombstone};

/// Largest number of tombstones of one kind.
const MAX_KEPT: usize = 16;
/// Lifetime of a tombstone below the present release.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// A tombstone with the order that proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buried {
    /// The release.
    pub stone: Tombstone,
    /// Order that aborted or reverted it.
    pub order: SignedOrder,
}

impl Buried {
    /// Tombstone of an abort or revert order.
    pub fn of(order: SignedOrder) -> Option<Self> {
        let stone = Order::decode(&order.order)?.tombstone()?.1;
        Some(Self { stone, order })
    }
}

/// Relation of a new release to the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// Newer than every accepted release.
    Newer,
    /// The present release, committed again over changes by others.
    Again,
    /// The present release was reverted, and this one preceded it or runs elsewhere instead.
    Back,
    /// Same serial as the present release, which was created earlier; of two created in one
    /// second, the higher id stays.
    Twin,
}

impl StateReader {
    /// Stored tombstones, newest first. Invalid files are skipped with a log line.
    pub fn tombstones(&self) -> Result<Vec<Buried>> {
        let listed = self
            .root()
            .dir(Some(&inside(TOMBSTONES)))
            .and_then(|dir| names_in(dir.as_fd()));
        let names = match listed {
            // The state of an older makuo.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => {
                names.map_err(|e| Error::io("cannot list", self.path().join(TOMBSTONES), e))?
            }
        };

        let mut found = Vec::new();
        for name in names {
            let Some(name) = name.to_str().ok().filter(|name| !name.ends_with(".new")) else {
                continue;
            };
            let file = format!("{TOMBSTONES}/{name}");
            let Some(bytes) = self.read(&file)? else {
                continue;
            };
            match minicbor::decode(&bytes).ok().and_then(Buried::of) {
                Some(buried) => found.push(buried),
                None => tracing::warn!("{} is no order", self.path().join(&file).display()),
            }
        }

        found.sort_by_key(|buried| std::cmp::Reverse(buried.stone));
        Ok(found)
    }

    /// Tombstone of the release `id`, if any.
    pub fn tombstone(&self, id: ReleaseId) -> Result<Option<Tombstone>> {
        Ok(self
            .tombstones()?
            .into_iter()
            .map(|buried| buried.stone)
            .find(|stone| stone.release == id))
    }

    /// Relation of `release` to the present one; `None` if it may not follow.
    pub fn following(&self, release: &Release) -> Result<Option<Following>> {
        let mark = Mark::of(release);
        let current = self.current()?;
        let stones: Vec<Tombstone> = self
            .tombstones()?
            .into_iter()
            .map(|buried| buried.stone)
            .collect();

        let stone = |id: ReleaseId| stones.iter().find(|stone| stone.release == id);
        if stone(mark.id).is_some_and(|stone| stone.revert || current != Some(mark)) {
            return Ok(None);
        }

        let highest = self
            .highest()?
            .map(|highest| highest.serial)
            .unwrap_or_default();

        let Some(current) = current else {
            return Ok((mark.serial > highest).then_some(Following::Newer));
        };

        if current == mark {
            return Ok(Some(Following::Again));
        }

        if mark.serial > highest {
            return Ok(Some(Following::Newer));
        }

        if stone(current.id).is_some_and(|stone| stone.revert) {
            // Never older than the release before the reverted one: a recorded old release must not
            // return.
            let mut before = Serial::default();
            for serial in self
                .serials()?
                .into_iter()
                .filter(|&serial| serial < current.serial)
            {
                if self
                    .stored(serial)?
                    .is_some_and(|kept| stone(kept.release.id()).is_none())
                {
                    before = before.max(serial);
                }
            }
            return Ok((mark.serial >= before).then_some(Following::Back));
        }

        if current.serial == mark.serial
            && let Some(stored) = self.stored(current.serial)?
            && (stored.release.header().created, current.id) < (release.header().created, mark.id)
        {
            return Ok(Some(Following::Twin));
        }

        Ok(None)
    }
}

impl StateDir {
    /// Records `release` as accepted, durably; refuses a release that may not follow.
    pub(crate) fn accept(&self, release: &Release) -> Result<()> {
        let mark = Mark::of(release);

        match self.following(release)? {
            Some(Following::Newer) => self.raise_highest(mark),
            Some(Following::Twin)
                if self
                    .highest()?
                    .is_none_or(|highest| highest.serial == mark.serial) =>
            {
                self.write_mark("serial", mark, 0)
            }
            Some(Following::Again | Following::Back | Following::Twin) => Ok(()),
            None if self.tombstone(mark.id)?.is_some() => Err(Error::refused(format!(
                "release {} was taken back",
                mark.serial
            ))
            .hint("release again")),
            None => self.raise_highest(mark),
        }
    }
}

impl Worktree {
    /// Stores an order that aborts or reverts a release of this tree, durably; `now` dates the
    /// others. Returns whether the order is new. The caller verifies the signature.
    pub fn bury(&self, order: &SignedOrder, now: SystemTime) -> Result<bool> {
        let Some(Buried { stone, .. }) = Buried::of(order.clone()) else {
            return Err(Error::refused("no order to abort or revert a release"));
        };

        if self
            .state()
            .tombstone(stone.release)?
            .is_some_and(|known| known.revert || !stone.revert)
        {
            return Ok(false);
        }

        self.crash.point()?;
        self.state().write(&file_of(&stone), &to_vec(order))?;
        self.prune_tombstones(now)?;

        Ok(true)
    }

    /// Removes expired and surplus tombstones.
    fn prune_tombstones(&self, now: SystemTime) -> Result<()> {
        let current = self
            .state()
            .current()?
            .map(|mark| mark.serial)
            .unwrap_or_default();

        let mut reverts = 0;
        let mut aborts = 0;
        for Buried { stone, .. } in self.state().tombstones()? {
            let count = if stone.revert {
                &mut reverts
            } else {
                &mut aborts
            };
            *count += 1;
            let name = file_of(&stone);
            let kept =
                std::fs::metadata(self.state().here().join(&name)).and_then(|meta| meta.modified());
            let old = kept.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > OLD));
            if *count > MAX_KEPT || (old && stone.serial < current) {
                self.crash.point()?;
                self.state().remove(&name)?;
            }
        }

        Ok(())
    }
}

fn file_of(stone: &Tombstone) -> String {
    let id = stone.release.to_string();
    format!(
        "{TOMBSTONES}/{}-{}",
        stone.serial,
        id.get(..16).unwrap_or(&id)
    )
}
