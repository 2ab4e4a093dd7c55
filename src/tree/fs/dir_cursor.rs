//! The parent directory of the last path, opened once for paths that follow each other.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::root::Root;
use crate::manifest::TreePath;

/// Parent directories of paths, with the last one kept open as `T`.
#[derive(Debug)]
pub(crate) struct DirCursor<T = OwnedFd> {
    last: Option<(Option<TreePath>, T)>,
}

impl<T> Default for DirCursor<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<T> DirCursor<T> {
    /// Returns the parent directory of `path`; `open` opens it, unless the last path had the same.
    pub(crate) fn parent_by<E>(
        &mut self,
        path: &TreePath,
        open: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        let above = path.parent();
        let last = match self.last.take().filter(|(dir, _)| *dir == above) {
            Some(last) => last,
            None => (above, open()?),
        };

        Ok(&self.last.insert(last).1)
    }
}

impl DirCursor {
    /// Returns the parent directory of `path` below `root` as an `O_PATH` handle, and the last
    /// component.
    pub(crate) fn parent(
        &mut self,
        root: &Root,
        path: &TreePath,
    ) -> io::Result<(BorrowedFd<'_>, CString)> {
        let name = CString::new(path.name())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let handle = self.parent_by(path, || root.parent(path).map(|(handle, _)| handle))?;

        Ok((handle.as_fd(), name))
    }
}
