//! Mounts within a source. Inotify does not report a mount, but polling the kernel's mount list
//! does.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::tree::mounts::{LIST, list};

/// Mounts at a directory and below.
#[derive(Debug)]
pub struct Mounts {
    /// Mount list; poll(2) on it reports a change.
    list: File,
    /// Directory, with symbolic links resolved.
    dir: PathBuf,
    /// Id and path of each mount.
    known: BTreeSet<(u64, PathBuf)>,
}

/// Change of the mount list.
#[derive(Debug, PartialEq, Eq)]
pub enum MountChange {
    /// No change within the directory.
    None,
    /// A file system was mounted here.
    Mounted(PathBuf),
    /// The file system mounted here is gone.
    Unmounted(PathBuf),
}

impl Mounts {
    /// Reads the present mounts.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let open = File::open(LIST)?;
        let dir = std::fs::canonicalize(dir)?;
        let known = list(&dir)?;
        Ok(Self {
            list: open,
            dir,
            known,
        })
    }

    /// Compares the mount list with the last one.
    pub fn change(&mut self) -> io::Result<MountChange> {
        let now = list(&self.dir)?;
        let known = std::mem::replace(&mut self.known, now);
        if let Some((_, gone)) = known.difference(&self.known).next() {
            return Ok(MountChange::Unmounted(gone.clone()));
        }

        Ok(self
            .known
            .difference(&known)
            .next()
            .map_or(MountChange::None, |(_, new)| {
                MountChange::Mounted(new.clone())
            }))
    }
}

impl AsFd for Mounts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.list.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        match Mounts::of(dir.path()) {
            Ok(mut mounts) => assert_eq!(mounts.change().expect("readable"), MountChange::None),
            Err(e) => crate::skip::skipped(e),
        }
    }
}
