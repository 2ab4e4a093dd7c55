//! One name in two directories: the same path in two trees side by side.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use crate::manifest::TreePath;
use crate::tree::fs::dir::stat;
use crate::tree::fs::stat::FileStat;

/// One name in the source and the target of a transfer.
#[derive(Clone, Copy)]
pub(crate) struct NamePair<'p> {
    /// Whole path, the same in both trees.
    pub(crate) path: &'p TreePath,
    /// Last component.
    pub(crate) name: &'p CString,
    /// Source directory.
    pub(crate) from: BorrowedFd<'p>,
    /// Target directory.
    pub(crate) to: BorrowedFd<'p>,
}

impl NamePair<'_> {
    /// Present entry in the source.
    pub(crate) fn here(&self) -> io::Result<Option<FileStat>> {
        stat(self.from, self.name)
    }

    /// Present entry in the target.
    pub(crate) fn there(&self) -> io::Result<Option<FileStat>> {
        stat(self.to, self.name)
    }
}
