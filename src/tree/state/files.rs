//! Files of a state directory, written and removed durably.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, OFlags};

use super::dir::StateDir;
use super::reader::inside;
use crate::error::{Error, IoResultExt as _, Result};
use crate::tree::fs::dir::open_for_writing;

impl StateDir {
    /// Writes the file `name` atomically and durably.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_with(name, |file| file.write_all(bytes))
    }

    /// Like [`StateDir::write`], with content from `fill`.
    pub(crate) fn write_with(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<()> {
        let write = || {
            let (dir, last) = self.place(name)?;
            let temporary = CString::new([last.as_bytes(), b".new"].concat())?;
            let mut file = open_for_writing(dir.as_fd(), &temporary, OFlags::TRUNC)?;
            fill(&mut file)?;
            file.sync_all()?;
            rustix::fs::renameat(&dir, &temporary, &dir, &last)?;
            Ok(rustix::fs::fsync(&dir)?)
        };

        write().map_err(|e: io::Error| Error::io("cannot write", self.path().join(name), e))
    }

    /// Removes the file `name` durably; a missing file is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let remove = || {
            let (dir, last) = self.place(name)?;
            rustix::fs::unlinkat(&dir, &last, AtFlags::empty())?;
            Ok(rustix::fs::fsync(&dir)?)
        };

        match remove() {
            Err(e) if io::Error::kind(&e) != io::ErrorKind::NotFound => {
                Err(Error::io("cannot remove", self.path().join(name), e))
            }
            _ => Ok(()),
        }
    }

    /// Renames a file of the state durably.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let rename = || {
            let ((old, last), (new, name)) = (self.place(from)?, self.place(to)?);
            rustix::fs::renameat(&old, &last, &new, &name)?;
            Ok(rustix::fs::fsync(&new)?)
        };
        rename().map_err(|e: io::Error| Error::io("cannot rename", self.path().join(from), e))?;
        self.sync()
    }

    /// Parent directory of the file `name`, and the last component.
    fn place(&self, name: &str) -> io::Result<(OwnedFd, CString)> {
        let path = inside(name);
        Ok((
            self.root().dir(path.parent().as_ref())?,
            CString::new(path.name())?,
        ))
    }

    /// Syncs the names in the directory.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(self.handle()).context("cannot sync", self.path())
    }
}
