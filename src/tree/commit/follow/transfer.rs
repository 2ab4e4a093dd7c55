//! The way of one name from a tree into the other one beside it.
//!
//! What comes gets a further name aside first, then it is noted that it comes ([`crate::tree::commit::seen_names`]), then it takes its
//! place in one rename: after a crash the name aside tells whether it did. What leaves goes the same way out. Nothing is
//! replaced or removed without looking at what came out: anything but the expected was put there meanwhile, and goes
//! back.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat, renameat_with};
use rustix::io::Errno;

use super::precedence::Inodes;
use crate::tree::commit::name_pair::NamePair;
use crate::tree::fs::dir::{discard, stat};
use crate::tree::fs::stat::FileStat;

/// How often a name is tried that others replace all the time.
pub(crate) const MAX_ATTEMPTS: usize = 100;

/// How a name is ready to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It has a further name aside.
    Linked,
    /// It must not have one: it leaves the directory that is followed.
    Moves,
    /// It is on its way under another name of the same directory.
    Busy,
    /// Something else stands there by now, or nothing.
    Changed,
}

/// The directory aside, in which names are on their way.
#[derive(Clone, Copy)]
pub(crate) struct Transfer<'a>(pub(crate) BorrowedFd<'a>);

/// The name aside of an inode that comes.
fn slot(ino: u64) -> io::Result<CString> {
    Ok(CString::new(format!("coming-{ino}"))?)
}

/// The name aside of one that leaves.
fn way_out(ino: u64) -> io::Result<CString> {
    Ok(CString::new(format!("leaving-{ino}"))?)
}

impl Transfer<'_> {
    /// Makes what is at the name ready to come, when it is still `now`. Of an inode that is `busy` another name comes.
    pub(crate) fn link(self, pair: NamePair<'_>, now: &FileStat, busy: bool) -> io::Result<Ready> {
        if busy {
            return Ok(Ready::Busy);
        }

        let slot = slot(now.id.ino)?;
        // What a crash left may be all that tells whether it came.
        if stat(self.0, &slot)?.is_some_and(|aside| aside.id == now.id) {
            return Ok(Ready::Linked);
        }

        self.forget(now.id.ino)?;
        match linkat(pair.from, pair.name, self.0, &slot, AtFlags::empty()) {
            Ok(()) if FileStat::at(self.0, &slot)?.id != now.id => {
                self.forget(now.id.ino).map(|()| Ready::Changed)
            }
            Ok(()) => Ok(Ready::Linked),
            Err(Errno::NOENT) => Ok(Ready::Changed),
            Err(Errno::PERM | Errno::ACCESS | Errno::MLINK) => Ok(Ready::Moves),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives the inode `now`, which is linked aside, the name in the place of the inode `out`; zero for none.
    pub(crate) fn bring(self, pair: NamePair<'_>, now: u64, out: u64) -> io::Result<()> {
        let slot = slot(now)?;
        if out == 0 {
            return match renameat_with(self.0, &slot, pair.to, pair.name, RenameFlags::NOREPLACE) {
                // Somebody was quicker, and later than what comes here.
                Err(Errno::EXIST) => self.forget(now),
                done => Ok(done?),
            };
        }

        let (mut goes_in, mut out) = (now, out);
        for _ in 0..MAX_ATTEMPTS {
            match renameat_with(self.0, &slot, pair.to, pair.name, RenameFlags::EXCHANGE) {
                // Removed there at this very moment.
                Err(Errno::NOENT) => break,
                done => done?,
            }
            let came_out = FileStat::at(self.0, &slot)?.id.ino;
            if came_out == out {
                break;
            }
            // It was put there meanwhile, later than what went in: it goes back.
            out = std::mem::replace(&mut goes_in, came_out);
        }

        self.forget(now)
    }

    /// Moves what must not have a further name, in the place of the inode `out`; zero for none.
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
            // Put there meanwhile, later than what went in: it goes back.
            Some(now) if out != 0 && now.id.ino != out => Ok(rename()?),
            Some(_) if out != 0 => self.take_out(pair.from, pair.name, out),
            _ => Ok(()),
        }
    }

    /// Removes the name from a directory when it is still the inode `expected`.
    pub(crate) fn take_out(
        self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        expected: u64,
    ) -> io::Result<()> {
        let slot = way_out(expected)?;
        discard(self.0, &slot)?;
        match renameat(dir, name, self.0, &slot) {
            Err(Errno::NOENT) => return Ok(()),
            done => done?,
        }
        self.check_out(dir, name, expected).map(drop)
    }

    /// Removes what came out of a directory, or puts it back when it is not the inode `expected`; says what it is.
    fn check_out(self, dir: BorrowedFd<'_>, name: &CStr, expected: u64) -> io::Result<u64> {
        let slot = way_out(expected)?;
        let found = FileStat::at(self.0, &slot)?.id.ino;
        if found != expected {
            match renameat_with(self.0, &slot, dir, name, RenameFlags::NOREPLACE) {
                // Something later stands there by now.
                Err(Errno::EXIST) => {}
                done => return Ok(done.map(|()| found)?),
            }
        }

        discard(self.0, &slot).map(|()| found)
    }

    /// What a name stands for that was on its way when a process ended: `now` (zero for nothing) came into the place of
    /// `before` in the directory `to`, or did not. Says the same as often as it is asked.
    pub(crate) fn resolve(
        self,
        to: BorrowedFd<'_>,
        name: &CString,
        now: u64,
        before: u64,
    ) -> io::Result<Inodes> {
        let there = stat(to, name)?.map_or(0, |there| there.id.ino);
        // What stands there by now came later than what was on its way.
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
            // To remove a name once more does no harm.
            None if now == 0 => Ok(not_yet),
            None => Ok(Inodes { from: now, to: now }),
            Some(_) if now == 0 => {
                let found = self.check_out(to, name, before)?;
                Ok(Inodes {
                    from: 0,
                    to: if found == before { 0 } else { found },
                })
            }
            Some(found) if found == now => Ok(not_yet),
            Some(found) if found == before => Ok(Inodes { from: now, to: now }),
            // Put there meanwhile, later than what went in.
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

    /// Removes the name aside of an inode that comes.
    pub(crate) fn forget(self, ino: u64) -> io::Result<()> {
        discard(self.0, &slot(ino)?)
    }
}
