//! Real place of a tree's directory: its parent and its name there, after all links.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, openat};

use crate::error::{Error, IoResultExt as _, Result};
use crate::tree::fs::dir::stat;
use crate::tree::fs::root::{FileId, Root};

/// Flags of a readable handle, which a sync needs.
const READABLE: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Real place of the tree's directory, after all links.
pub(crate) struct RootPlace {
    pub(crate) parent: OwnedFd,
    pub(crate) name: CString,
    pub(crate) path: PathBuf,
}

impl RootPlace {
    pub(crate) fn of(root: &Root) -> Result<Self> {
        let path = root.real_path().context("cannot resolve", root.path())?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::refused(format!(
                "{} cannot be exchanged as a whole",
                path.display()
            ))
            .hint("set commit.layout = \"in-place\" in the spec"));
        };

        let name =
            CString::new(name.as_encoded_bytes()).map_err(|_| Error::refused("a path with NUL"))?;
        let above = open_parent(root).context("cannot open", parent)?;

        Ok(Self {
            parent: above,
            name,
            path,
        })
    }

    /// Returns whether the name leads to this directory.
    pub(crate) fn is(&self, id: FileId) -> io::Result<bool> {
        Ok(stat(self.parent.as_fd(), &self.name)?.is_some_and(|now| now.id == id))
    }
}

/// Opens the parent directory of the tree, for a sync.
pub(crate) fn open_parent(root: &Root) -> io::Result<OwnedFd> {
    Ok(openat(&root.above()?, c".", READABLE, Mode::empty())?)
}
