//! Projects of quotas and flags of chattr: what a directory gives to what is made in it, and what a file has.
//!
//! The kernel gives them by the directory in which something is made, which is the stage. And it renames nothing of
//! another project into a directory that gives its own.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use super::sys;

/// `FS_NOCOMP_FL`.
const NOT_COMPRESSED: IFlags = IFlags::from_bits_retain(0x400);
/// The flags that files have of their directories.
const OF_FILES: IFlags = IFlags::NODUMP
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::COMPRESSED)
    .union(NOT_COMPRESSED)
    .union(IFlags::JOURNALING);
/// The same of directories.
const OF_DIRS: IFlags = OF_FILES
    .union(IFlags::DIRSYNC)
    .union(IFlags::PROJECT_INHERIT);

/// A project and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProjectFlags {
    project: u32,
    flags: IFlags,
}

impl ProjectFlags {
    /// Those of an open file or directory; `None` where its filesystem has none.
    pub(crate) fn of(handle: BorrowedFd<'_>) -> Option<Self> {
        let project = sys::project(handle).ok()?;
        Some(Self {
            project,
            flags: ioctl_getflags(handle).ok()?.intersection(OF_DIRS),
        })
    }

    /// What a directory that has these gives to a directory that is made in it.
    pub(crate) fn given(self) -> Self {
        Self {
            project: if self.gives_project() {
                self.project
            } else {
                0
            },
            flags: self.flags,
        }
    }

    /// What a file has of these, in a directory that gives `given`.
    pub(crate) fn of_file(self, given: Self) -> Self {
        let project = if given.gives_project() {
            given.project
        } else {
            self.project
        };

        Self {
            project,
            flags: self.flags.intersection(OF_FILES),
        }
    }

    /// The project that everything in the directory has to have; `None`: any.
    pub(crate) fn binding(self) -> Option<u32> {
        self.gives_project().then_some(self.project)
    }

    fn gives_project(self) -> bool {
        self.flags.contains(IFlags::PROJECT_INHERIT)
    }

    /// Gives them to an open file or directory. Flags that it cannot have are left out.
    pub(crate) fn set(self, handle: BorrowedFd<'_>) -> io::Result<()> {
        sys::set_project(handle, self.project)?;
        let now = ioctl_getflags(handle)?;
        let wanted = now.difference(OF_DIRS).union(self.flags);
        if wanted == now {
            return Ok(());
        }

        match ioctl_setflags(handle, wanted) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                // One by one: a filesystem may know some of them, and some are for root alone.
                for flag in now.symmetric_difference(wanted).iter() {
                    let now = ioctl_getflags(handle)?;
                    let _ = ioctl_setflags(handle, now.symmetric_difference(flag));
                }
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// Keeps a directory from giving its project: names of other projects come into it.
    pub(crate) fn unbind(handle: BorrowedFd<'_>) -> io::Result<()> {
        match ioctl_getflags(handle) {
            Ok(now) if now.contains(IFlags::PROJECT_INHERIT) => Ok(ioctl_setflags(
                handle,
                now.difference(IFlags::PROJECT_INHERIT),
            )?),
            _ => Ok(()),
        }
    }
}
