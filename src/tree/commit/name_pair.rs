//! One name in two directories: a path of the tree that stands for something in each of two trees side by side.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use crate::manifest::TreePath;
use crate::tree::fs::dir::stat;
use crate::tree::fs::stat::FileStat;

/// One name in two directories, one of which follows the other.
#[derive(Clone, Copy)]
pub(crate) struct NamePair<'p> {
    /// The whole path, which is the same in both trees.
    pub(crate) path: &'p TreePath,
    /// Its last component.
    pub(crate) name: &'p CString,
    /// The directory that is followed.
    pub(crate) from: BorrowedFd<'p>,
    /// The directory that follows.
    pub(crate) to: BorrowedFd<'p>,
}

impl NamePair<'_> {
    /// What is there in the directory that is followed.
    pub(crate) fn here(&self) -> io::Result<Option<FileStat>> {
        stat(self.from, self.name)
    }

    /// What is there in the directory that follows.
    pub(crate) fn there(&self) -> io::Result<Option<FileStat>> {
        stat(self.to, self.name)
    }
}
