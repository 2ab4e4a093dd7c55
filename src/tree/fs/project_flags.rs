//! Project quota ids and chattr flags: values that a directory gives to new entries, and values of
//! a file.
//!
//! The kernel takes them from the directory of creation, which is the stage. And it refuses to
//! rename an entry into a directory that enforces another project.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use super::sys;

/// `FS_NOCOMP_FL`.
const NOT_COMPRESSED: IFlags = IFlags::from_bits_retain(0x400);
/// Flags that files inherit from their directories.
const OF_FILES: IFlags = IFlags::NODUMP
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::COMPRESSED)
    .union(NOT_COMPRESSED)
    .union(IFlags::JOURNALING);
/// Flags that directories inherit.
const OF_DIRS: IFlags = OF_FILES
    .union(IFlags::DIRSYNC)
    .union(IFlags::PROJECT_INHERIT);

/// A project id and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProjectFlags {
    project: u32,
    flags: IFlags,
}

impl ProjectFlags {
    /// Project and flags of an open file or directory; `None` on a filesystem without them.
    pub(crate) fn of(handle: BorrowedFd<'_>) -> Option<Self> {
        let project = sys::project(handle).ok()?;
        Some(Self {
            project,
            flags: ioctl_getflags(handle).ok()?.intersection(OF_DIRS),
        })
    }

    /// Values that a directory with these values gives to a new subdirectory.
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

    /// Values of a file in a directory that gives `given`.
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

    /// Project that every entry of the directory must have; `None` for any.
    pub(crate) fn binding(self) -> Option<u32> {
        self.gives_project().then_some(self.project)
    }

    fn gives_project(self) -> bool {
        self.flags.contains(IFlags::PROJECT_INHERIT)
    }

    /// Sets the values on an open file or directory. Unsupported flags are left out.
    pub(crate) fn set(self, handle: BorrowedFd<'_>) -> io::Result<()> {
        sys::set_project(handle, self.project)?;
        let now = ioctl_getflags(handle)?;
        let wanted = now.difference(OF_DIRS).union(self.flags);
        if wanted == now {
            return Ok(());
        }

        match ioctl_setflags(handle, wanted) {
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                // One by one: a filesystem may support some flags only, and some are for root.
                for flag in now.symmetric_difference(wanted).iter() {
                    let now = ioctl_getflags(handle)?;
                    let _ = ioctl_setflags(handle, now.symmetric_difference(flag));
                }
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// Stops a directory from enforcing its project: entries of other projects move in.
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
