//! Transfer of one name from a tree to the other tree beside it.
//!
//! An arrival first gets a further name aside, then a note ([`crate::tree::commit::seen_names`]),
//! then its place by one rename: after a crash, the name aside shows whether the rename happened. A
//! removal goes the same way in reverse. The replaced entry is always checked: an unexpected one
//! was put there meanwhile and goes back.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::precedence::Inodes;
use crate::tree::commit::name_pair::NamePair;
use crate::tree::fs::dir::{discard, remove, stat};
use crate::tree::fs::fault::Faults;
use crate::tree::fs::stat::FileStat;

/// Attempts at a name that others keep replacing.
pub(crate) const MAX_ATTEMPTS: usize = 100;

/// State of a name before its transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It has a further name aside.
    Linked,
    /// It cannot have a further name, so it leaves the source.
    Moves,
    /// Another name of the same inode is in transfer.
    Busy,
    /// The entry changed or vanished.
    Changed,
}

/// Result of the removal of a name with the expected entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// The entry is removed.
    Left,
    /// The name was gone.
    Missing,
    /// Another entry was there, and is there again unless a later one took its place.
    Replaced,
}

impl Departure {
    fn of(left: bool) -> Self {
        if left { Self::Left } else { Self::Replaced }
    }
}

/// Name aside of the entry that leaves a tree in removal.
const LEAVING: &CStr = c"leaving";

/// The directory aside that holds names in transfer.
#[derive(Clone, Copy)]
pub(crate) struct NameTransfer<'a>(pub(crate) BorrowedFd<'a>);

/// Name aside of an arriving inode.
fn slot(ino: u64) -> io::Result<CString> {
    Ok(CString::new(format!("coming-{ino}"))?)
}

/// Name aside of a leaving inode.
fn way_out(ino: u64) -> io::Result<CString> {
    Ok(CString::new(format!("leaving-{ino}"))?)
}

impl NameTransfer<'_> {
    /// Prepares the entry at the name if it is still `now`. For a `busy` inode, another name is in
    /// transfer.
    pub(crate) fn link(
        self,
        faults: &Faults,
        pair: NamePair<'_>,
        now: &FileStat,
        busy: bool,
    ) -> io::Result<Ready> {
        if busy {
            return Ok(Ready::Busy);
        }

        let slot = slot(now.id.ino)?;
        // A name aside from before a crash may be the only evidence of the transfer.
        if stat(self.0, &slot)?.is_some_and(|aside| aside.id == now.id) {
            return Ok(Ready::Linked);
        }

        self.forget(now.id.ino)?;
        match faults.link(pair.from, pair.name, self.0, &slot) {
            Ok(()) if FileStat::at(self.0, &slot)?.id != now.id => {
                self.forget(now.id.ino).map(|()| Ready::Changed)
            }
            Ok(()) => Ok(Ready::Linked),
            Err(Errno::NOENT) => Ok(Ready::Changed),
            Err(Errno::PERM | Errno::ACCESS | Errno::MLINK) => Ok(Ready::Moves),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives the inode `now`, linked aside, the name in the place of the inode `out`; zero for
    /// none.
    pub(crate) fn bring(self, pair: NamePair<'_>, now: u64, out: u64) -> io::Result<()> {
        let slot = slot(now)?;
        if out == 0 {
            return match renameat_with(self.0, &slot, pair.to, pair.name, RenameFlags::NOREPLACE) {
                // Another process was faster, and is later than this arrival: with an entry of its
                // own, or with the removal of the directory.
                Err(Errno::EXIST | Errno::NOENT) => self.forget(now),
                done => Ok(done?),
            };
        }

        let mut goes_in = now;
        let mut out = out;
        for _ in 0..MAX_ATTEMPTS {
            match renameat_with(self.0, &slot, pair.to, pair.name, RenameFlags::EXCHANGE) {
                // Removed by another process at this moment.
                Err(Errno::NOENT) => break,
                done => done?,
            }
            let came_out = FileStat::at(self.0, &slot)?.id.ino;
            if came_out == out {
                break;
            }
            // Put there meanwhile, later than the arrival: it goes back.
            out = std::mem::replace(&mut goes_in, came_out);
        }

        self.forget(now)
    }

    /// Moves an entry without a further name into the place of the inode `out`; zero for none.
    pub(crate) fn shift(self, pair: NamePair<'_>, out: u64) -> io::Result<()> {
        let flags = if out == 0 {
            RenameFlags::NOREPLACE
        } else {
            RenameFlags::EXCHANGE
        };

        let rename = || renameat_with(pair.from, pair.name, pair.to, pair.name, flags);
        match rename() {
            Err(Errno::EXIST | Errno::NOENT) => return Ok(()),
            done => done?,
        }

        match pair.here()? {
            // Put there meanwhile, later than the arrival: it goes back.
            Some(now) if out != 0 && now.id.ino != out => Ok(rename()?),
            Some(_) if out != 0 => self.take_out(pair.from, pair.name, out).map(drop),
            _ => Ok(()),
        }
    }

    /// Removes the name from a directory if it is still the inode `expected`.
    pub(crate) fn take_out(
        self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        expected: u64,
    ) -> io::Result<Departure> {
        let slot = way_out(expected)?;
        discard(self.0, &slot)?;
        match renameat(dir, name, self.0, &slot) {
            Err(Errno::NOENT) => return Ok(Departure::Missing),
            done => done?,
        }

        let found = self.check_out(&slot, dir, name, expected)?;
        Ok(Departure::of(found == expected))
    }

    /// Like [`Self::take_out`] with fewer system calls, for a name whose removal may wait for a
    /// second attempt: after a crash an entry aside can be in the way of the first.
    pub(crate) fn remove_known(
        self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        expected: u64,
    ) -> io::Result<Departure> {
        let moved = match renameat(dir, name, self.0, LEAVING) {
            Err(Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                discard(self.0, LEAVING)?;
                renameat(dir, name, self.0, LEAVING)
            }
            moved => moved,
        };
        match moved {
            Err(Errno::NOENT) => return Ok(Departure::Missing),
            moved => moved?,
        }

        let found = self.check_out(LEAVING, dir, name, expected)?;
        Ok(Departure::of(found == expected))
    }

    /// Removes the entry that came out of a directory into the slot, or puts it back if it is not
    /// the inode `expected`. Returns its inode.
    fn check_out(
        self,
        slot: &CStr,
        dir: BorrowedFd<'_>,
        name: &CStr,
        expected: u64,
    ) -> io::Result<u64> {
        let found = FileStat::at(self.0, slot)?;
        let ino = found.id.ino;
        if ino != expected {
            match renameat_with(self.0, slot, dir, name, RenameFlags::NOREPLACE) {
                // A later entry is there by now, or the directory was removed.
                Err(Errno::EXIST | Errno::NOENT) => {}
                done => return Ok(done.map(|()| ino)?),
            }
        }

        remove(self.0, slot, found.file_type).map(|()| ino)
    }

    /// Resolves a name that was in transfer when a process ended: `now` (zero for none) either took
    /// the place of `before` in the directory `to` or did not. Idempotent.
    pub(crate) fn resolve(
        self,
        to: BorrowedFd<'_>,
        name: &CString,
        now: u64,
        before: u64,
    ) -> io::Result<Inodes> {
        let there = stat(to, name)?.map_or(0, |there| there.id.ino);
        // The present entry came later than the transfer.
        let not_yet = Inodes {
            from: if there == before {
                Inodes::UNKNOWN
            } else {
                now
            },
            to: before,
        };

        let aside = stat(
            self.0,
            &if now == 0 {
                way_out(before)?
            } else {
                slot(now)?
            },
        )?
        .map(|found| found.id.ino);

        match aside {
            // A repeated removal does no harm.
            None if now == 0 => Ok(not_yet),
            None => Ok(Inodes { from: now, to: now }),
            Some(_) if now == 0 => {
                let found = self.check_out(&way_out(before)?, to, name, before)?;
                Ok(Inodes {
                    from: 0,
                    to: if found == before { 0 } else { found },
                })
            }
            Some(found) if found == now => Ok(not_yet),
            Some(found) if found == before => Ok(Inodes { from: now, to: now }),
            // Put there meanwhile, later than the arrival.
            Some(_) => {
                if there == now {
                    renameat_with(self.0, slot(now)?, to, name, RenameFlags::EXCHANGE)?;
                }
                Ok(Inodes {
                    from: now,
                    to: before,
                })
            }
        }
    }

    /// Removes the name aside of an arriving inode.
    pub(crate) fn forget(self, ino: u64) -> io::Result<()> {
        discard(self.0, &slot(ino)?)
    }
}
