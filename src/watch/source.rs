//! Opens the source directory, reads the stat of its files, and builds the errors for a lost
//! source.

use std::os::fd::AsFd;
use std::path::Path;

use super::limits::shown;
use crate::manifest::TreePath;
use crate::tree::{FileStat, Root, open_file_at, sys};
use crate::{Error, Result};

/// Error for a source that is gone or was replaced; `how` names which.
pub(super) fn source_gone(source: &Path, how: &str) -> Error {
    Error::refused(format!(
        "the source {} {how}: nothing is deployed any more",
        shown(source)
    ))
    .hint("every host keeps what it has; start again when the source is back")
}

pub(super) fn open(source: &Path) -> Result<Root> {
    Root::open(source).map_err(|e| unreadable(source, e))
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
