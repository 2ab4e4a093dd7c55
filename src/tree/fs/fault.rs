//! Faults that tests inject: a crash between two changes to the disk, a filesystem that lacks an
//! ability, other processes that change the tree.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
#[cfg(test)]
use std::sync::{Arc, atomic::Ordering};

use crate::error::Error;

/// Faults of one tree: crash points and missing abilities of the filesystem.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    #[cfg(test)]
    pub(crate) after: Option<std::sync::atomic::AtomicI64>,
    /// Acts as a filesystem that cannot exchange two names.
    #[cfg(test)]
    pub(crate) no_exchange: bool,
    /// Acts as an overlay filesystem, where lower directories cannot be renamed.
    #[cfg(test)]
    pub(crate) no_directories: bool,
    /// Acts as a user who cannot give other users' files a second name.
    #[cfg(test)]
    pub(crate) no_links: bool,
    /// Actions of other processes at every point, and around an exchange.
    #[cfg(test)]
    pub(crate) others: OtherProcesses,
}

/// A test stopped the process here; no value exists outside of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crashed {
    #[cfg(test)]
    Here,
}

impl From<Crashed> for Error {
    fn from(crashed: Crashed) -> Self {
        match crashed {
            #[cfg(test)]
            Crashed::Here => Error::refused("crashed here"),
        }
    }
}

impl From<Crashed> for io::Error {
    fn from(crashed: Crashed) -> Self {
        match crashed {
            #[cfg(test)]
            Crashed::Here => io::Error::other("crashed here"),
        }
    }
}

/// Actions of other processes, in tests.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct OtherProcesses(pub(crate) Option<Arc<dyn Fn() + Send + Sync>>);

#[cfg(test)]
impl OtherProcesses {
    fn act(&self) {
        if let Some(act) = &self.0 {
            act();
        }
    }
}

#[cfg(test)]
impl std::fmt::Debug for OtherProcesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Others")
    }
}

impl Faults {
    /// Exchanges two names.
    pub(crate) fn exchange(
        &self,
        from: BorrowedFd<'_>,
        old: &CStr,
        to: BorrowedFd<'_>,
        new: &CStr,
    ) -> rustix::io::Result<()> {
        #[cfg(test)]
        if self.no_exchange {
            return Err(rustix::io::Errno::INVAL);
        }

        #[cfg(test)]
        self.others.act();
        let done = rustix::fs::renameat_with(from, old, to, new, rustix::fs::RenameFlags::EXCHANGE);
        #[cfg(test)]
        self.others.act();

        done
    }

    /// Gives an entry a second name.
    pub(crate) fn link(
        &self,
        from: BorrowedFd<'_>,
        old: &CStr,
        to: BorrowedFd<'_>,
        new: &CStr,
    ) -> rustix::io::Result<()> {
        #[cfg(test)]
        if self.no_links {
            return Err(rustix::io::Errno::PERM);
        }
        rustix::fs::linkat(from, old, to, new, rustix::fs::AtFlags::empty())
    }

    /// Renames an entry that may be a directory.
    pub(crate) fn rename(
        &self,
        is_dir: bool,
        from: BorrowedFd<'_>,
        old: &CStr,
        to: BorrowedFd<'_>,
        new: &CStr,
    ) -> rustix::io::Result<()> {
        #[cfg(test)]
        if self.no_directories && is_dir {
            return Err(rustix::io::Errno::XDEV);
        }
        let _ = is_dir;
        rustix::fs::renameat(from, old, to, new)
    }

    /// A point at which the machine may stop; stands before every change to the disk.
    #[cfg(not(test))]
    pub(crate) fn point(&self) -> Result<(), Crashed> {
        Ok(())
    }

    #[cfg(not(test))]
    pub(crate) fn happened(&self) -> bool {
        false
    }

    #[cfg(test)]
    pub(crate) fn point(&self) -> Result<(), Crashed> {
        self.others.act();
        match &self.after {
            Some(left) if left.fetch_sub(1, Ordering::SeqCst) <= 0 => Err(Crashed::Here),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(crate) fn happened(&self) -> bool {
        self.after
            .as_ref()
            .is_some_and(|left| left.load(Ordering::SeqCst) < 0)
    }
}
