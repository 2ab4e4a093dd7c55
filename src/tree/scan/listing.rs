//! The listing of one directory.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir};

use super::ignore::IgnoreFilter;
use super::scanned::Skipped;
use crate::manifest::rules::Exclude;
use crate::manifest::{TreePath, Xattr};
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::{FileStat, Version};
use crate::units::printable;
use crate::{Error, Result};

/// Bytes of names per system call.
const NAMES_BUFFER_BYTES: usize = 64 << 10;

/// A directory to be listed.
#[derive(Debug)]
pub(super) struct ListJob {
    pub(super) path: Option<TreePath>,
    pub(super) filter: Arc<IgnoreFilter>,
    /// Whether to read the files in the directory.
    pub(super) reads: bool,
}

impl ListJob {
    /// Returns the path of `name` in the directory.
    pub(super) fn child(&self, root: &Root, name: &CStr) -> Result<TreePath> {
        let path = match &self.path {
            None => TreePath::new(name.to_bytes()),
            Some(parent) => parent.join(name.to_bytes()),
        };

        path.map_err(|e| {
            let dir = self
                .path
                .as_ref()
                .map_or(root.path().to_path_buf(), |dir| root.shown(dir));
            let at = dir.join(OsStr::from_bytes(name.to_bytes()));
            Error::usage(format!("{}: {e}", printable(at.as_os_str().as_bytes())))
                .hint("shorten the path or exclude its directory")
        })
    }
}

/// The children of a directory except excluded ones, sorted.
#[derive(Debug)]
pub(super) struct DirListing {
    pub(super) children: Vec<ListedPath>,
    pub(super) filter: Arc<IgnoreFilter>,
    pub(super) patterns: Vec<Exclude>,
    /// The ignore files with those patterns.
    pub(super) ignore_files: Vec<(TreePath, Version)>,
    pub(super) skipped: Vec<Skipped>,
    /// Whether a name was passed over that may join the tree later without a change of the
    /// directory.
    ///
    /// Such a directory must not be recorded as seen.
    pub(super) passed_over: bool,
}

impl DirListing {
    /// Returns an empty listing with `filter`.
    pub(super) fn of(filter: Arc<IgnoreFilter>) -> Self {
        Self {
            children: Vec::new(),
            filter,
            patterns: Vec::new(),
            ignore_files: Vec::new(),
            skipped: Vec::new(),
            passed_over: false,
        }
    }
}

/// A path found by listing its directory.
#[derive(Debug)]
pub(super) struct ListedPath {
    pub(super) path: TreePath,
    pub(super) stat: FileStat,
    /// Target of a symbolic link.
    pub(super) target: Vec<u8>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) detail: Detail,
    /// Whether only the directory itself is described, since its content is known.
    pub(super) alone: bool,
}

/// Level of detail at which a path is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Everything.
    Whole,
    /// Everything but the content of files.
    Unhashed,
    /// The path alone: neither the content of a file nor the entries of a directory.
    Closed,
}

impl ListedPath {
    /// Returns whether the path is a directory with its children to follow.
    pub(super) fn is_walked(&self) -> bool {
        self.stat.file_type == FileType::Directory && self.detail != Detail::Closed && !self.alone
    }

    pub(super) fn listing(&self, filter: &Arc<IgnoreFilter>) -> ListJob {
        ListJob {
            path: Some(self.path.clone()),
            filter: Arc::clone(filter),
            reads: self.detail == Detail::Whole,
        }
    }
}

pub(super) fn read_names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(NAMES_BUFFER_BYTES);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }

    Ok(names)
}

/// Returns the current stat of `path`.
pub(super) fn stat_of(root: &Root, path: &TreePath) -> io::Result<FileStat> {
    let (parent, name) = root.parent(path)?;
    FileStat::at(parent.as_fd(), &name)
}
