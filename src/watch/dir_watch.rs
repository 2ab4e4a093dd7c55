//! Adds inotify watches, with the events requested for each kind of directory.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::dir_table::Watch;
use super::limits::shown;
use crate::{Error, Kind};

/// Events requested for a directory.
pub(super) const DIR_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);
/// Events requested for the source itself.
pub(super) const SOURCE_EVENTS: WatchFlags = DIR_EVENTS
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);
/// Events requested for the parent of the source.
pub(super) const PARENT_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO);

/// Watches an open directory by its handle, so that a symbolic link in the path cannot lead
/// elsewhere.
pub(super) fn add(
    inotify: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    what: WatchFlags,
) -> rustix::io::Result<Watch> {
    inotify::add_watch(inotify, format!("/proc/self/fd/{}", dir.as_raw_fd()), what)
}

/// Watches the parent of the source. Only there a changed link or a new directory of the same name
/// shows; without this watch the next batch finds out.
pub(super) fn watch_parent(inotify: BorrowedFd<'_>, source: &Path) -> Option<Watch> {
    source.file_name()?;
    let above = source
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    inotify::add_watch(inotify, above, PARENT_EVENTS | WatchFlags::ONLYDIR).ok()
}

pub(super) fn cannot_watch(path: &Path, e: Errno) -> Error {
    Error::new(Kind::Io, format!("cannot watch {}", shown(path))).because(std::io::Error::from(e))
}
