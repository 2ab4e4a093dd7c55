//! Derives changes from inotify events.
//!
//! Events are hints, and the disk is the truth: an event that leaves a question open (the target of
//! a move, files created before a watch was added) is settled by a look at the disk. A directory is
//! identified by its watch, which a move does not change, so no event has to be paired with
//! another.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::inotify::ReadFlags;

use super::batch::Batcher;
use super::dir_table::{DirId, TOP_DIR, Watch};
use super::limits::{self, limit};
use super::source::{WatchedSource, stat_of, unmounted};
use super::watched_dirs::WatchedDirs;
use crate::Result;
use crate::manifest::TreePath;
use crate::units::Moment;

/// Reason to watch the source afresh, if any.
type Lost = Option<String>;

/// Handles the events of one read.
pub(super) struct EventHandler<'a> {
    pub(super) source: &'a WatchedSource,
    /// Watch on the parent of the source.
    pub(super) parent_watch: &'a mut Option<Watch>,
    pub(super) dirs: &'a mut WatchedDirs,
    pub(super) batcher: &'a mut Batcher,
    /// Time of the read.
    pub(super) now: Moment,
    /// Buffer for the path of an event, reused.
    pub(super) path: Vec<u8>,
}

impl EventHandler<'_> {
    /// Handles an event of `watch`, on its directory or on `name` in it.
    pub(super) fn dispatch(&mut self, watch: Watch, flags: ReadFlags, name: &[u8]) -> Result<Lost> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Ok(Some(limits::overflowed(limit(limits::MAX_QUEUED_EVENTS))));
        }

        if *self.parent_watch == Some(watch) {
            if flags.contains(ReadFlags::IGNORED) {
                *self.parent_watch = None;
            }
            if self.source.path().file_name() == Some(OsStr::from_bytes(name)) || name.is_empty() {
                self.source.check()?;
            }
        }

        let Some(dir_id) = self.dirs.table().of(watch) else {
            return Ok(None);
        };

        if dir_id == TOP_DIR
            && flags.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT)
        {
            return Err(self.source.gone(if flags.contains(ReadFlags::UNMOUNT) {
                "was unmounted"
            } else {
                "was removed"
            }));
        }

        if dir_id == TOP_DIR && flags.contains(ReadFlags::MOVE_SELF) {
            return self.source.check().map(|()| None);
        }

        if flags.contains(ReadFlags::UNMOUNT) {
            let mut path = Vec::new();
            self.dirs.table().path(dir_id, &mut path);
            return Err(unmounted(
                &self.source.path().join(OsStr::from_bytes(&path)),
            ));
        }

        let others = self.dirs.table().more(watch);
        if flags.contains(ReadFlags::IGNORED) {
            return self.handle_watch_end(watch, dir_id);
        }

        for dir_id in std::iter::once(dir_id).chain(others) {
            if let Some(why) = self.handle_event(dir_id, flags, name)? {
                return Ok(Some(why));
            }
        }

        Ok(None)
    }

    /// Handles the end of a watch: the directory was removed, or the kernel dropped the watch for
    /// its own reasons.
    fn handle_watch_end(&mut self, watch: Watch, dir_id: DirId) -> Result<Lost> {
        let mut path = Vec::new();
        let known = self
            .dirs
            .table()
            .path(dir_id, &mut path)
            .then(|| TreePath::new(&*path).ok())
            .flatten();
        let parent = self.dirs.table().parent(dir_id);
        self.dirs.remove(watch);
        let (Some(path), Some(parent)) = (known, parent) else {
            return Ok(None);
        };

        self.batcher.touched(self.now, &path);
        self.update_dir(parent, &path)
    }

    /// Handles an event on the directory `dir_id`, or on `name` in it.
    fn handle_event(&mut self, dir_id: DirId, flags: ReadFlags, name: &[u8]) -> Result<Lost> {
        self.dirs.pass_gap();
        let mut path = std::mem::take(&mut self.path);
        if !self.dirs.table().path(dir_id, &mut path) {
            self.path = path;
            return Ok(None);
        }

        if !name.is_empty() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }

        let is_dir = flags.contains(ReadFlags::ISDIR);
        let names =
            ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        let found = if path.is_empty() {
            self.batcher.top(self.now);
            Ok(None)
        } else if flags == ReadFlags::ATTRIB && self.batcher.knows(&path) {
            self.batcher.again(self.now, &path);
            Ok(None)
        } else if flags == ReadFlags::MODIFY && self.batcher.wrote_again(self.now, &path) {
            Ok(None)
        } else if let Ok(path) = TreePath::new(&*path) {
            if self.dirs.exclusion().leaves_out(&path, is_dir) {
                // The entry is not part of the release, but the mtime of its directory is.
                if flags.intersects(names) {
                    match path.parent() {
                        Some(above) => self.batcher.touched(self.now, &above),
                        None => self.batcher.top(self.now),
                    }
                    Ok(None)
                } else if !is_dir && self.has_several_names(&path) {
                    // Another name of the file may be part of the release: a full check finds the
                    // change.
                    self.record_change(dir_id, &path, flags)
                } else {
                    Ok(None)
                }
            } else if name.is_empty() {
                self.batcher.touched(self.now, &path);
                Ok(None)
            } else {
                self.record_change(dir_id, &path, flags)
            }
        } else {
            // Not a legal tree path; the scan reports the problem.
            self.batcher.top(self.now);
            Ok(None)
        };

        self.path = path;
        found
    }

    fn record_change(&mut self, dir_id: DirId, path: &TreePath, flags: ReadFlags) -> Result<Lost> {
        let is_dir = flags.contains(ReadFlags::ISDIR);
        let name = path.name();
        if flags.contains(ReadFlags::MODIFY) {
            self.batcher.wrote(self.now, path);
        } else if flags.contains(ReadFlags::CLOSE_WRITE) {
            self.batcher.closed(self.now, path);
        } else if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.batcher.gone(self.now, path);
        } else {
            self.batcher.touched(self.now, path);
        }

        self.note_polled(path, flags);
        if self.dirs.exclusion().may_include_again(path, is_dir) {
            return Ok(Some(format!(
                "{path} may re-include paths that the spec excludes: rescanning the source"
            )));
        }

        let comes = ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM;
        let unwatched =
            || flags.contains(ReadFlags::ATTRIB) && self.dirs.table().child(dir_id, name).is_none();
        if is_dir && (flags.intersects(comes) || unwatched()) {
            return self.update_dir(dir_id, path);
        }

        Ok(None)
    }

    /// Starts polling a new file with several names, and records that a change of a polled file is
    /// known.
    fn note_polled(&mut self, path: &TreePath, flags: ReadFlags) {
        let comes = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        let changes = flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB)
            && self.dirs.polled().has(path);
        if flags.contains(ReadFlags::ISDIR) || !(comes || changes) {
            return;
        }

        if self.has_several_names(path)
            && let Some(stat) = self
                .source
                .root()
                .ok()
                .and_then(|root| stat_of(&root, path))
        {
            self.dirs.polled_mut().add(path, &stat);
            self.dirs.polled_mut().seen(&stat);
        }
    }

    fn has_several_names(&self, path: &TreePath) -> bool {
        let found = std::fs::symlink_metadata(self.source.path().join(path.as_path()));
        found.is_ok_and(|meta| meta.is_file() && meta.nlink() > 1)
    }

    /// Updates the table with the directory now at `path` in `dir_id`, because an event may be
    /// older than an earlier update.
    fn update_dir(&mut self, dir_id: DirId, path: &TreePath) -> Result<Lost> {
        self.dirs.pass_gap();
        let root = self.source.root()?;
        if root.dir(Some(path)).is_err() {
            self.dirs.detach(dir_id, path.name(), self.now);
            return Ok(None);
        }

        let re_included = self
            .dirs
            .walk(&root, Some(path), dir_id, self.now, &mut |found| {
                self.batcher.touched(self.now, found)
            })?;

        Ok(re_included.then(|| {
            format!("an ignore file in {path} may re-include paths that the spec excludes")
        }))
    }
}
