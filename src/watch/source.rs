//! The source directory: identity, stat of files, and the errors for a lost source.

use std::os::fd::AsFd;
use std::path::Path;

use super::exclusion::WatchTarget;
use super::limits::shown;
use crate::manifest::TreePath;
use crate::tree::{FileId, FileStat, Root, open_file_at, sys};
use crate::{Error, Result};

/// Source with the identity of the opened directory.
pub(super) struct WatchedSource {
    target: WatchTarget,
    id: FileId,
}

impl WatchedSource {
    /// Opens the source of `target`.
    pub(super) fn open(target: WatchTarget) -> Result<(Self, Root)> {
        let root = Root::open(&target.source).map_err(|e| unreadable(&target.source, e))?;
        let id = root.id();
        Ok((Self { target, id }, root))
    }

    /// Source with its left-out paths.
    pub(super) fn target(&self) -> &WatchTarget {
        &self.target
    }

    /// Path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.target.source
    }

    /// Identity of the directory.
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Opens the directory again, if it is still the same.
    pub(super) fn root(&self) -> Result<Root> {
        match Root::open(&self.target.source) {
            Ok(root) if root.id() == self.id => Ok(root),
            Ok(_) => Err(self.gone("is another directory now")),
            Err(e) => Err(self.gone("is gone").because(e)),
        }
    }

    /// Checks that the source is still the same directory.
    pub(super) fn check(&self) -> Result<()> {
        self.root().map(drop)
    }

    /// Error for the loss of the source; `how` names which.
    pub(super) fn gone(&self, how: &str) -> Error {
        source_gone(&self.target.source, how)
    }
}

/// Error for a source that is gone or was replaced; `how` names which.
pub(super) fn source_gone(source: &Path, how: &str) -> Error {
    Error::refused(format!(
        "the source {} {how}: nothing is deployed any more",
        shown(source)
    ))
    .hint("every host keeps what it has; start again when the source is back")
}

pub(super) fn unreadable(source: &Path, e: std::io::Error) -> Error {
    Error::refused(format!("the source {} cannot be read", shown(source))).because(e)
}

pub(super) fn stat_of(root: &Root, path: &TreePath) -> Option<FileStat> {
    let (dir, name) = root.parent(path).ok()?;
    FileStat::at(dir.as_fd(), &name).ok()
}

/// Returns whether a process has the file open for writing; `None` if unknown.
pub(super) fn is_open_for_writing(root: &Root, path: &TreePath) -> Option<bool> {
    let (dir, name) = root.parent(path).ok()?;
    sys::is_open_for_writing(&open_file_at(dir.as_fd(), &name).ok()?)
}

pub(super) fn unmounted(at: &Path) -> Error {
    Error::refused(format!(
        "{} was unmounted: nothing is deployed any more",
        shown(at)
    ))
    .hint("every host keeps what it has; start again when it is back")
}
