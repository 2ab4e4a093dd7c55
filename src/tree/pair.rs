//! One name in two directories: a path of the tree that stands for something in each of two trees side by side.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use super::fs::dir::stat;
use super::meta::FileStat;
use crate::manifest::TreePath;

/// One name in two directories, one of which follows the other.
#[derive(Clone, Copy)]
pub(super) struct Pair<'p> {
    /// The whole path, which is the same in both trees.
    pub(super) path: &'p TreePath,
    /// Its last component.
    pub(super) name: &'p CString,
    /// The directory that is followed.
    pub(super) from: BorrowedFd<'p>,
    /// The directory that follows.
    pub(super) to: BorrowedFd<'p>,
}

impl Pair<'_> {
    /// What is there in the directory that is followed.
    pub(super) fn here(&self) -> io::Result<Option<FileStat>> {
        stat(self.from, self.name)
    }

    /// What is there in the directory that follows.
    pub(super) fn there(&self) -> io::Result<Option<FileStat>> {
        stat(self.to, self.name)
    }
}
