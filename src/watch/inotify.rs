//! Inotify watches on every directory of a source, and the changes derived from their events.
//!
//! Events are hints, and the disk is the truth: an event that leaves a question open (the target of
//! a move, files created before a watch was added) is settled by a look at the disk. A watch is
//! added before its directory is listed, so that no change falls in between. A directory is
//! identified by its watch, which a move does not change, so no event has to be paired with
//! another. Does not know the use of a change.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::Errno;

use super::batch::Batcher;
use super::dir_table::{DirId, DirTable, PutResult, TOP_DIR, Watch};
use super::dir_watch::{DIR_EVENTS, SOURCE_EVENTS, add, cannot_watch, watch_parent};
use super::exclusion::{Exclusion, WatchTarget};
use super::limits::{self, limit, shown};
use super::mounts::{MountChange, Mounts};
use super::polled_files::{Changed, PolledFiles};
use super::source::{is_open_for_writing, open, source_gone, stat_of, unmounted, unreadable};
use crate::error::IoResultExt;
use crate::manifest::TreePath;
use crate::tree::scan::Exposed;
use crate::tree::{FileId, FileStat, Root};
use crate::units::Moment;
use crate::{Error, Result};

/// Size in bytes of the buffer for events.
const EVENT_BUFFER: usize = 64 << 10;
/// Size in bytes of the buffer for directory entries.
const DIRENT_BUFFER: usize = 32 << 10;
/// Largest number of reads in a row before other work gets a turn.
const MAX_EVENT_READS: usize = 64;
/// Time for a moved directory to reappear; after it the directory has left the source.
const MOVE_TIMEOUT: Duration = Duration::from_secs(1);
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
    inotify: OwnedFd,
    target: WatchTarget,
    id: FileId,
    /// Watch on the parent of the source.
    parent_watch: Option<Watch>,
    exclusion: Exclusion,
    dirs: DirTable,
    mounts: Option<Mounts>,
    polled: PolledFiles,
    /// Directories moved to an unknown place, with the time of the move.
    moved_away: Vec<(Watch, Moment)>,
    /// Buffer for the path of an event, reused.
    path: Vec<u8>,
    buffer: Vec<MaybeUninit<u8>>,
    /// Test hook that runs in the gaps of a scan.
    #[cfg(test)]
    pub(super) gap: crate::tree::scan::Gap,
}

/// Reason to watch the source afresh, if any.
type Lost = Option<String>;

impl Watcher {
    /// Watches every directory of the source.
    pub fn establish(target: WatchTarget) -> Result<Self> {
        let root = open(&target.source)?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|e| limits::no_instance(e.into(), limit(limits::MAX_INOTIFY_INSTANCES)))?;
        let mounts = Mounts::of(&target.source).inspect_err(|e| {
            tracing::warn!("mounts in {} are not followed: {e}", shown(&target.source))
        });
        let parent_watch = watch_parent(inotify.as_fd(), &target.source);

        let dir = root.dir(None).map_err(|e| unreadable(&target.source, e))?;
        let top = match add(inotify.as_fd(), dir.as_fd(), SOURCE_EVENTS) {
            Ok(watch) => watch,
            Err(Errno::NOSPC) => {
                return Err(limits::too_few_watches(
                    &target.source,
                    1,
                    limits::watches(),
                ));
            }
            Err(e) => return Err(cannot_watch(&target.source, e)),
        };

        let mut watcher = Self {
            inotify,
            id: root.id(),
            parent_watch,
            exclusion: Exclusion::new(&target),
            dirs: DirTable::new(top),
            mounts: mounts.ok(),
            polled: PolledFiles::default(),
            moved_away: Vec::new(),
            path: Vec::new(),
            buffer: vec![MaybeUninit::uninit(); EVENT_BUFFER],
            target,
            #[cfg(test)]
            gap: crate::tree::scan::Gap::default(),
        };

        let start = Moment::default();
        if watcher.walk(&root, None, TOP_DIR, start, &mut |_| {})? {
            // Excluded paths may be part of the release after all.
            watcher.exclusion.include_all();
            watcher.polled = PolledFiles::default();
            watcher.walk(&root, None, TOP_DIR, start, &mut |_| {})?;
        }

        Ok(watcher)
    }

    /// Lets a test act between two steps.
    fn pass_gap(&self) {
        #[cfg(test)]
        self.gap.pass();
    }

    /// Watched target.
    pub fn target(&self) -> &WatchTarget {
        &self.target
    }

    /// Identity of the watched directory.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Number of watched directories.
    pub fn directories(&self) -> usize {
        self.dirs.len()
    }

    /// Watched files with several names.
    pub fn polled(&self) -> &PolledFiles {
        &self.polled
    }

    /// Polls files that can change without an event: see [`PolledFiles::poll`].
    pub fn poll_files(&mut self, now: Moment, batcher: &mut Batcher) {
        // A missing source is reported elsewhere.
        let Ok(root) = self.root() else { return };
        let changed = self.polled.poll(
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
            .for_each(|exposed| self.polled.expose(now, exposed));
    }

    /// Takes over the open files of an earlier watcher of the source.
    pub fn keep_open_files(&mut self, before: PolledFiles) {
        self.polled.keep_open_files(before);
    }

    /// Returns the polled files, for [`Watcher::keep_open_files`].
    pub fn into_polled(self) -> PolledFiles {
        self.polled
    }

    /// Marks written files as closed if no process has them open.
    pub fn check_open_files(&self, now: Moment, batcher: &mut Batcher) {
        let Ok(root) = self.root() else { return };
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
        !self.moved_away.is_empty()
    }

    /// Checks that the source is still the watched directory.
    pub fn check(&self) -> Result<()> {
        self.root().map(drop)
    }

    fn root(&self) -> Result<Root> {
        match Root::open(&self.target.source) {
            Ok(root) if root.id() == self.id => Ok(root),
            Ok(_) => Err(self.source_gone("is another directory now")),
            Err(e) => Err(self.source_gone("is gone").because(e)),
        }
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
        let mut buffer = std::mem::take(&mut self.buffer);
        // The reader borrows the buffer while event handling needs the rest of `self`.
        let result = self.read_events_into(&mut buffer, now, batcher);
        self.buffer = buffer;
        result
    }

    fn read_events_into(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Events> {
        let inotify = self.inotify.try_clone().io_context(EVENTS_FAILED)?;
        let mut reader = Reader::new(inotify, buffer);
        let mut reads = 0;

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
            if let Some(why) =
                self.dispatch_event(event.wd(), event.events(), name, now, batcher)?
            {
                return Ok(Events::Lost(why));
            }
        }
    }

    /// Removes the watches on directories that left the source.
    pub fn forget(&mut self, now: Moment) {
        let (old, young) = self
            .moved_away
            .iter()
            .partition(|(_, since)| now.since(*since) >= MOVE_TIMEOUT);
        self.moved_away = young;
        let old: Vec<(Watch, Moment)> = old;

        for (watch, _) in old {
            if !self.dirs.is_away(watch) {
                continue;
            }
            let below = self
                .dirs
                .of(watch)
                .map(|dir_id| self.dirs.below(dir_id))
                .unwrap_or_default();
            for watch in below {
                // Fails for a watch that already ended, which is fine.
                let _ = inotify::remove_watch(&self.inotify, watch);
                self.dirs.remove(watch);
            }
        }
    }

    fn dispatch_event(
        &mut self,
        watch: Watch,
        flags: ReadFlags,
        name: &[u8],
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Ok(Some(limits::overflowed(limit(limits::MAX_QUEUED_EVENTS))));
        }

        if self.parent_watch == Some(watch) {
            if flags.contains(ReadFlags::IGNORED) {
                self.parent_watch = None;
            }
            if self.target.source.file_name() == Some(OsStr::from_bytes(name)) || name.is_empty() {
                self.check()?;
            }
        }

        let Some(dir_id) = self.dirs.of(watch) else {
            return Ok(None);
        };

        if dir_id == TOP_DIR
            && flags.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT)
        {
            return Err(self.source_gone(if flags.contains(ReadFlags::UNMOUNT) {
                "was unmounted"
            } else {
                "was removed"
            }));
        }

        if dir_id == TOP_DIR && flags.contains(ReadFlags::MOVE_SELF) {
            return self.check().map(|()| None);
        }

        if flags.contains(ReadFlags::UNMOUNT) {
            let mut path = Vec::new();
            self.dirs.path(dir_id, &mut path);
            return Err(unmounted(
                &self.target.source.join(OsStr::from_bytes(&path)),
            ));
        }

        let others = self.dirs.more(watch);
        if flags.contains(ReadFlags::IGNORED) {
            return self.handle_watch_end(watch, dir_id, now, batcher);
        }

        for dir_id in std::iter::once(dir_id).chain(others) {
            if let Some(why) = self.handle_event(dir_id, flags, name, now, batcher)? {
                return Ok(Some(why));
            }
        }

        Ok(None)
    }

    /// Handles the end of a watch: the directory was removed, or the kernel dropped the watch for
    /// its own reasons.
    fn handle_watch_end(
        &mut self,
        watch: Watch,
        dir_id: DirId,
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        let mut path = Vec::new();
        let known = self
            .dirs
            .path(dir_id, &mut path)
            .then(|| TreePath::new(&*path).ok())
            .flatten();
        let parent = self.dirs.parent(dir_id);
        self.dirs.remove(watch);
        let (Some(path), Some(parent)) = (known, parent) else {
            return Ok(None);
        };

        batcher.touched(now, &path);
        self.update_dir(parent, &path, now, batcher)
    }

    /// Handles an event on the directory `dir_id`, or on `name` in it.
    fn handle_event(
        &mut self,
        dir_id: DirId,
        flags: ReadFlags,
        name: &[u8],
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        self.pass_gap();
        let mut path = std::mem::take(&mut self.path);
        if !self.dirs.path(dir_id, &mut path) {
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
            batcher.top(now);
            Ok(None)
        } else if flags == ReadFlags::ATTRIB && batcher.knows(&path) {
            batcher.again(now, &path);
            Ok(None)
        } else if flags == ReadFlags::MODIFY && batcher.wrote_again(now, &path) {
            Ok(None)
        } else if let Ok(path) = TreePath::new(&*path) {
            if self.exclusion.leaves_out(&path, is_dir) {
                // The entry is not part of the release, but the mtime of its directory is.
                if flags.intersects(names) {
                    match path.parent() {
                        Some(above) => batcher.touched(now, &above),
                        None => batcher.top(now),
                    }
                    Ok(None)
                } else if !is_dir && self.has_several_names(&path) {
                    // Another name of the file may be part of the release: a full check finds the
                    // change.
                    self.record_change(dir_id, &path, flags, now, batcher)
                } else {
                    Ok(None)
                }
            } else if name.is_empty() {
                batcher.touched(now, &path);
                Ok(None)
            } else {
                self.record_change(dir_id, &path, flags, now, batcher)
            }
        } else {
            // Not a legal tree path; the scan reports the problem.
            batcher.top(now);
            Ok(None)
        };

        self.path = path;
        found
    }

    fn record_change(
        &mut self,
        dir_id: DirId,
        path: &TreePath,
        flags: ReadFlags,
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        let is_dir = flags.contains(ReadFlags::ISDIR);
        let name = path.name();
        if flags.contains(ReadFlags::MODIFY) {
            batcher.wrote(now, path);
        } else if flags.contains(ReadFlags::CLOSE_WRITE) {
            batcher.closed(now, path);
        } else if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            batcher.gone(now, path);
        } else {
            batcher.touched(now, path);
        }

        self.note_polled(path, flags);
        if self.exclusion.may_include_again(path, is_dir) {
            return Ok(Some(format!(
                "{path} may re-include paths that the spec excludes: rescanning the source"
            )));
        }

        let comes = ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM;
        let unwatched =
            || flags.contains(ReadFlags::ATTRIB) && self.dirs.child(dir_id, name).is_none();
        if is_dir && (flags.intersects(comes) || unwatched()) {
            return self.update_dir(dir_id, path, now, batcher);
        }

        Ok(None)
    }

    /// Starts polling a new file with several names, and records that a change of a polled file is
    /// known.
    fn note_polled(&mut self, path: &TreePath, flags: ReadFlags) {
        let comes = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        let changes =
            flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB) && self.polled.has(path);
        if flags.contains(ReadFlags::ISDIR) || !(comes || changes) {
            return;
        }

        if self.has_several_names(path)
            && let Some(stat) = self.root().ok().and_then(|root| stat_of(&root, path))
        {
            self.polled.add(path, &stat);
            self.polled.seen(&stat);
        }
    }

    fn has_several_names(&self, path: &TreePath) -> bool {
        let found = std::fs::symlink_metadata(self.target.source.join(path.as_path()));
        found.is_ok_and(|meta| meta.is_file() && meta.nlink() > 1)
    }

    /// Updates the table with the directory now at `path` in `dir_id`, because an event may be
    /// older than an earlier update.
    fn update_dir(
        &mut self,
        dir_id: DirId,
        path: &TreePath,
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        self.pass_gap();
        let root = self.root()?;
        if root.dir(Some(path)).is_err() {
            if let Some(child) = self.dirs.child(dir_id, path.name()) {
                self.dirs.detach(child);
                self.moved_away
                    .extend(self.dirs.watch(child).map(|watch| (watch, now)));
            }
            return Ok(None);
        }

        let re_included = self.walk(&root, Some(path), dir_id, now, &mut |found| {
            batcher.touched(now, found)
        })?;

        Ok(re_included.then(|| {
            format!("an ignore file in {path} may re-include paths that the spec excludes")
        }))
    }

    /// Watches the directory `from` in `parent` and everything below, and passes each path found to
    /// `found`. Returns whether an ignore file may re-include excluded paths.
    fn walk(
        &mut self,
        root: &Root,
        from: Option<&TreePath>,
        parent: DirId,
        now: Moment,
        found: &mut dyn FnMut(&TreePath),
    ) -> Result<bool> {
        let mut open = vec![(from.cloned(), parent)];
        let mut re_included = false;
        let mut names: Vec<TreePath> = Vec::new();
        let mut full = false;
        let mut more = 0;

        while let Some((path, parent)) = open.pop() {
            // The directory is gone, or the scan reports the problem.
            let Ok(dir) = root.dir(path.as_ref()) else {
                continue;
            };
            self.pass_gap();
            let dir_id = match &path {
                None => TOP_DIR,
                Some(_) if full => parent,
                Some(path) => match add(self.inotify.as_fd(), dir.as_fd(), DIR_EVENTS) {
                    Ok(watch) => match self.record_dir(root, parent, path.name(), watch, now) {
                        Some(dir_id) => dir_id,
                        None => continue,
                    },
                    // Out of watches: the rest is only counted.
                    Err(Errno::NOSPC) => {
                        full = true;
                        parent
                    }
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
                    Err(e) => return Err(cannot_watch(&root.shown(path), e)),
                },
            };
            more += u64::from(full);
            self.pass_gap();
            re_included |= self.list(dir.as_fd(), path.as_ref(), &mut names, found);
            names.sort_unstable_by(|a, b| b.cmp(a));
            open.extend(names.drain(..).map(|path| (Some(path), dir_id)));
        }

        if full {
            let directories = self.dirs.len() as u64 + more;
            return Err(limits::too_few_watches(
                &self.target.source,
                directories,
                limits::watches(),
            ));
        }

        Ok(re_included)
    }

    /// Records a directory where the walk found it. `None` if that is impossible: an event still
    /// queued will clarify.
    fn record_dir(
        &mut self,
        root: &Root,
        parent: DirId,
        name: &[u8],
        watch: Watch,
        now: Moment,
    ) -> Option<DirId> {
        let known = self
            .dirs
            .of(watch)
            .filter(|known| self.dirs.child(parent, name) != Some(*known));

        if let Some(known) = known {
            let mut path = Vec::new();
            let there = self.dirs.path(known, &mut path);
            // A directory appears in two places when one of them is a mount of it.
            let old = TreePath::new(&*path).ok().filter(|_| there);
            let is_there = |dir: Option<&TreePath>| {
                let dir = root.dir(dir).ok()?;
                add(
                    self.inotify.as_fd(),
                    dir.as_fd(),
                    if known == TOP_DIR {
                        SOURCE_EVENTS
                    } else {
                        DIR_EVENTS
                    },
                )
                .ok()
            };
            if (known == TOP_DIR || old.is_some()) && is_there(old.as_ref()) == Some(watch) {
                return Some(self.dirs.put_again(parent, name, watch));
            }
        }

        self.pass_gap();
        let replaced = self
            .dirs
            .child(parent, name)
            .and_then(|child| self.dirs.watch(child));
        let put = self.dirs.put(parent, name, watch);
        self.moved_away.extend(
            replaced
                .filter(|watch| self.dirs.is_away(*watch))
                .map(|watch| (watch, now)),
        );

        match put {
            PutResult::Known(dir_id) | PutResult::New(dir_id) | PutResult::Moved(dir_id) => {
                Some(dir_id)
            }
            PutResult::Impossible => None,
        }
    }

    /// Lists a directory: passes every included path to `found` and collects the subdirectories.
    fn list(
        &mut self,
        dir: BorrowedFd<'_>,
        at: Option<&TreePath>,
        directories: &mut Vec<TreePath>,
        found: &mut dyn FnMut(&TreePath),
    ) -> bool {
        let mut re_included = false;
        let mut buffer = Vec::with_capacity(DIRENT_BUFFER);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| {
                        FileType::from_raw_mode(stat.st_mode)
                    }),
                known => known,
            };
            self.pass_gap();
            let Ok(path) = at.map_or_else(|| TreePath::new(name), |at| at.join(name)) else {
                continue;
            };
            let is_dir = file_type == FileType::Directory;
            re_included |= self.exclusion.may_include_again(&path, is_dir);
            if self.exclusion.leaves_out(&path, is_dir) {
                continue;
            }
            found(&path);
            if file_type == FileType::RegularFile
                && let Ok(stat) = FileStat::at(dir, entry.file_name())
                && stat.nlink > 1
            {
                self.polled.add(&path, &stat);
            }
            if is_dir {
                directories.push(path);
            }
        }

        re_included
    }

    fn source_gone(&self, how: &str) -> Error {
        source_gone(&self.target.source, how)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
#[path = "inotify_tests.rs"]
mod tests;
