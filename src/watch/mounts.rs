//! What is mounted in a source: the kernel tells no watch of a mount, but it wakes who waits for the list of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::tree::mounts::{LIST, list};

/// The mounts at a directory and below it.
#[derive(Debug)]
pub struct Mounts {
    /// Whoever polls it is woken by a change of the list.
    list: File,
    /// The directory, without links in its path.
    dir: PathBuf,
    /// Number and place of each.
    known: BTreeSet<(u64, PathBuf)>,
}

/// How the list has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Not where it matters.
    None,
    /// Something is mounted now that was not.
    Mounted(PathBuf),
    /// Something is not mounted any more.
    Unmounted(PathBuf),
}

impl Mounts {
    /// What is mounted now.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let (open, dir) = (File::open(LIST)?, std::fs::canonicalize(dir)?);
        let known = list(&dir)?;
        Ok(Self {
            list: open,
            dir,
            known,
        })
    }

    /// Looks again.
    pub fn change(&mut self) -> io::Result<Change> {
        let now = list(&self.dir)?;
        let known = std::mem::replace(&mut self.known, now);
        if let Some((_, gone)) = known.difference(&self.known).next() {
            return Ok(Change::Unmounted(gone.clone()));
        }

        Ok(self
            .known
            .difference(&known)
            .next()
            .map_or(Change::None, |(_, new)| Change::Mounted(new.clone())))
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
            Ok(mut mounts) => assert_eq!(mounts.change().expect("readable"), Change::None),
            Err(e) => println!("skipped: {e}"),
        }
    }
}
