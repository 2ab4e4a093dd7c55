//! Removal of entries of a state directory. Entries that cannot be removed wait in a trash.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::dir::StateDir;
use crate::error::{Error, IoResultExt as _, Result};
use crate::tree::fs::dir::{discard, names, open_dir, private_dir, slot_name};

/// Directory for entries that could not be removed.
const TRASH: &str = "trash";

impl StateDir {
    /// Removes `name` in the directory `dir` of the state, at `path`, with everything below. An
    /// entry that cannot be removed now (an immutable file, say) moves to the trash for a later
    /// attempt, so new work does not wait.
    pub(crate) fn discard(&self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<()> {
        let Err(why) = discard(dir, name) else {
            return Ok(());
        };

        let trash = self.here().join(TRASH);
        let aside = || -> Result<()> {
            private_dir(&trash)?;
            let there = open_dir(&trash)?;
            for number in 1u64.. {
                match rustix::fs::renameat_with(
                    dir,
                    name,
                    &there,
                    slot_name(number),
                    RenameFlags::NOREPLACE,
                ) {
                    Err(Errno::EXIST) => {}
                    done => return done.context("cannot put aside", path),
                }
            }
            Ok(())
        };

        match aside() {
            Ok(()) => {
                tracing::warn!(
                    "{}: it is in {} and goes as soon as that can be done",
                    Error::io("cannot remove", path, why),
                    self.path().join(TRASH).display()
                );
                Ok(())
            }
            Err(e) => {
                tracing::debug!("{e}");
                Err(Error::io("cannot remove", path, why))
            }
        }
    }

    /// Retries the removal of everything in the trash.
    pub(crate) fn empty_trash(&self) {
        let path = self.here().join(TRASH);
        let Ok(dir) = open_dir(&path) else { return };
        for name in names(&path).into_iter().flatten() {
            let gone = CString::new(name.as_encoded_bytes()).map_err(io::Error::from);
            if let Err(e) = gone.and_then(|name| discard(dir.as_fd(), &name)) {
                tracing::debug!("{} is still there: {e}", path.join(&name).display());
            }
        }
    }

    /// Removes files with the prefix `prefix`: partial writes of processes that ended early.
    pub(crate) fn sweep(&self, prefix: &str) {
        for name in names(&self.here()).into_iter().flatten() {
            if name.to_string_lossy().starts_with(prefix) {
                // A file that stays costs disk space only.
                let _ = std::fs::remove_file(self.here().join(name));
            }
        }
    }
}
