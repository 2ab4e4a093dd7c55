//! Inotify watches on a source, and the changes read from the kernel.
//!
//! Owns the order of the reads: events, moved directories, mounts and polled files. Does not know
//! the use of a change.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::inotify::{self, CreateFlags, Reader};
use rustix::io::Errno;

use super::batch::Batcher;
use super::dir_table::Watch;
use super::dir_watch::{SOURCE_EVENTS, add, cannot_watch, watch_parent};
use super::events::EventHandler;
use super::exclusion::{Exclusion, WatchTarget};
use super::limits::{self, limit, shown};
use super::mounts::{MountChange, Mounts};
use super::polled_files::{Changed, PolledFiles};
use super::source::{WatchedSource, is_open_for_writing, stat_of, unmounted, unreadable};
use super::watched_dirs::WatchedDirs;
use crate::Result;
use crate::error::IoResultExt;
use crate::tree::FileId;
use crate::tree::scan::Exposed;
use crate::units::Moment;

/// Size in bytes of the buffer for events.
const EVENT_BUFFER: usize = 64 << 10;
/// Largest number of reads in a row before other work gets a turn.
const MAX_EVENT_READS: usize = 64;
/// Message for a failed read of events.
const EVENTS_FAILED: &str = "cannot read inotify events";

/// Result of reading events.
#[derive(Debug, PartialEq, Eq)]
pub enum Events {
    /// The queue is empty.
    Drained,
    /// More events may be queued.
    More,
    /// Events were missed for this reason: the source must be watched afresh and rescanned.
    Lost(String),
}

/// Watches on a source.
pub struct Watcher {
    source: WatchedSource,
    /// Watch on the parent of the source.
    parent_watch: Option<Watch>,
    dirs: WatchedDirs,
    mounts: Option<Mounts>,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Watcher {
    /// Watches every directory of the source.
    pub fn establish(target: WatchTarget) -> Result<Self> {
        let (source, root) = WatchedSource::open(target)?;
        let path = source.path();
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|e| limits::no_instance(e.into(), limit(limits::MAX_INOTIFY_INSTANCES)))?;
        let mounts = Mounts::of(path)
            .inspect_err(|e| tracing::warn!("mounts in {} are not followed: {e}", shown(path)));
        let parent_watch = watch_parent(inotify.as_fd(), path);

        let dir = root.dir(None).map_err(|e| unreadable(path, e))?;
        let top = match add(inotify.as_fd(), dir.as_fd(), SOURCE_EVENTS) {
            Ok(watch) => watch,
            Err(Errno::NOSPC) => {
                return Err(limits::too_few_watches(path, 1, limits::watches()));
            }
            Err(e) => return Err(cannot_watch(path, e)),
        };

        let exclusion = Exclusion::new(source.target());
        let dirs = WatchedDirs::establish(inotify, &root, top, exclusion)?;
        Ok(Self {
            source,
            parent_watch,
            dirs,
            mounts: mounts.ok(),
            buffer: vec![MaybeUninit::uninit(); EVENT_BUFFER],
        })
    }

    /// Lets a test act in the gaps of a scan.
    #[cfg(test)]
    pub(super) fn set_gap(&mut self, gap: crate::tree::scan::Gap) {
        self.dirs.gap = gap;
    }

    /// Watched target.
    pub fn target(&self) -> &WatchTarget {
        self.source.target()
    }

    /// Identity of the watched directory.
    pub fn id(&self) -> FileId {
        self.source.id()
    }

    /// Number of watched directories.
    pub fn directories(&self) -> usize {
        self.dirs.table().len()
    }

    /// Watched files with several names.
    pub fn polled(&self) -> &PolledFiles {
        self.dirs.polled()
    }

    /// Polls files that can change without an event: see [`PolledFiles::poll`].
    pub fn poll_files(&mut self, now: Moment, batcher: &mut Batcher) {
        // A missing source is reported elsewhere.
        let Ok(root) = self.source.root() else { return };
        let changed = self.dirs.polled_mut().poll(
            now,
            |path| stat_of(&root, path),
            |path| is_open_for_writing(&root, path),
        );

        for Changed {
            paths,
            is_open,
            is_changed,
        } in changed
        {
            for path in paths {
                match batcher.is_written(&path) {
                    // The writer will close the file.
                    true if is_open => {}
                    true => batcher.closed(now, &path),
                    false if is_open => batcher.wrote(now, &path),
                    false if is_changed => batcher.touched(now, &path),
                    false => {}
                }
            }
        }
    }

    /// Adds files that a scan found exposed to the polled files.
    pub fn expose(&mut self, now: Moment, exposed: &[Exposed]) {
        exposed
            .iter()
            .for_each(|exposed| self.dirs.polled_mut().expose(now, exposed));
    }

    /// Takes over the open files of an earlier watcher of the source.
    pub fn keep_open_files(&mut self, before: PolledFiles) {
        self.dirs.polled_mut().keep_open_files(before);
    }

    /// Returns the polled files, for [`Watcher::keep_open_files`].
    pub fn into_polled(self) -> PolledFiles {
        self.dirs.into_polled()
    }

    /// Marks written files as closed if no process has them open.
    pub fn check_open_files(&self, now: Moment, batcher: &mut Batcher) {
        let Ok(root) = self.source.root() else { return };
        for path in batcher.take_open_checks(now) {
            if is_open_for_writing(&root, &path) == Some(false) {
                batcher.closed(now, &path);
            }
        }
    }

    /// File descriptor of the mount list, which reports changes to poll(2).
    pub fn mounts(&self) -> Option<BorrowedFd<'_>> {
        self.mounts.as_ref().map(AsFd::as_fd)
    }

    /// Returns whether moved directories wait for [`Watcher::forget`].
    pub fn is_waiting(&self) -> bool {
        self.dirs.is_waiting()
    }

    /// Checks that the source is still the watched directory.
    pub fn check(&self) -> Result<()> {
        self.source.check()
    }

    /// Handles a change of the mount list.
    pub fn mounted(&mut self) -> Result<Events> {
        self.check()?;
        let change = self
            .mounts
            .as_mut()
            .map_or(Ok(MountChange::None), Mounts::change);

        match change.io_context("cannot read the list of mounts")? {
            MountChange::None => Ok(Events::Drained),
            MountChange::Mounted(at) => Ok(Events::Lost(format!(
                "{} was mounted: rescanning the source",
                shown(&at)
            ))),
            MountChange::Unmounted(at) => Err(unmounted(&at)),
        }
    }

    /// Reads events and records the changes.
    pub fn read_events(&mut self, now: Moment, batcher: &mut Batcher) -> Result<Events> {
        // The reader borrows a descriptor while the handler adds watches.
        let inotify = self.dirs.as_fd().try_clone_to_owned();
        let mut reader = Reader::new(inotify.io_context(EVENTS_FAILED)?, &mut self.buffer);
        let mut reads = 0;
        let mut handler = EventHandler {
            source: &self.source,
            parent_watch: &mut self.parent_watch,
            dirs: &mut self.dirs,
            batcher,
            now,
            path: Vec::new(),
        };

        loop {
            if reader.is_buffer_empty() {
                if reads == MAX_EVENT_READS {
                    return Ok(Events::More);
                }
                reads += 1;
            }
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(Events::Drained),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e).io_context(EVENTS_FAILED),
            };
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            if let Some(why) = handler.dispatch(event.wd(), event.events(), name)? {
                return Ok(Events::Lost(why));
            }
        }
    }

    /// Removes the watches on directories that left the source.
    pub fn forget(&mut self, now: Moment) {
        self.dirs.forget(now);
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dirs.as_fd()
    }
}

#[cfg(test)]
mod tests;
