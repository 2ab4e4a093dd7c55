//! The watched directories of a source: a watch on each, and the table from watches to paths.
//!
//! A watch is added before its directory is listed, so that no change falls in between. Does not
//! read events.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::inotify;
use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::Errno;

use super::dir_table::{DirId, DirTable, PutResult, TOP_DIR, Watch};
use super::dir_watch::{DIR_EVENTS, SOURCE_EVENTS, add, cannot_watch};
use super::exclusion::Exclusion;
use super::limits;
use super::polled_files::PolledFiles;
use crate::Result;
use crate::manifest::TreePath;
use crate::tree::{FileStat, Root};
use crate::units::Moment;

/// Size in bytes of the buffer for directory entries.
const DIRENT_BUFFER: usize = 32 << 10;
/// Time for a moved directory to reappear; after it the directory has left the source.
pub(super) const MOVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Watches on the directories of a source.
pub(super) struct WatchedDirs {
    inotify: OwnedFd,
    table: DirTable,
    exclusion: Exclusion,
    polled: PolledFiles,
    /// Directories moved to an unknown place, with the time of the move.
    moved_away: Vec<(Watch, Moment)>,
    /// Test hook that runs in the gaps of a scan.
    #[cfg(test)]
    pub(super) gap: crate::tree::scan::Gap,
}

impl WatchedDirs {
    /// Watches every directory below `root`, which `inotify` watches as `top` already.
    pub(super) fn establish(
        inotify: OwnedFd,
        root: &Root,
        top: Watch,
        exclusion: Exclusion,
    ) -> Result<Self> {
        let mut dirs = Self {
            inotify,
            table: DirTable::new(top),
            exclusion,
            polled: PolledFiles::default(),
            moved_away: Vec::new(),
            #[cfg(test)]
            gap: crate::tree::scan::Gap::default(),
        };

        let start = Moment::default();
        if dirs.walk(root, None, TOP_DIR, start, &mut |_| {})? {
            // Excluded paths may be part of the release after all.
            dirs.exclusion.include_all();
            dirs.polled = PolledFiles::default();
            dirs.walk(root, None, TOP_DIR, start, &mut |_| {})?;
        }

        Ok(dirs)
    }

    /// Lets a test act between two steps.
    pub(super) fn pass_gap(&self) {
        #[cfg(test)]
        self.gap.pass();
    }

    /// Watches and their paths.
    pub(super) fn table(&self) -> &DirTable {
        &self.table
    }

    /// Decides which paths are left out.
    pub(super) fn exclusion(&self) -> &Exclusion {
        &self.exclusion
    }

    /// Watched files with several names.
    pub(super) fn polled(&self) -> &PolledFiles {
        &self.polled
    }

    /// Mutable form of [`WatchedDirs::polled`].
    pub(super) fn polled_mut(&mut self) -> &mut PolledFiles {
        &mut self.polled
    }

    /// Returns the polled files; every watch ends.
    pub(super) fn into_polled(self) -> PolledFiles {
        self.polled
    }

    /// Returns whether moved directories wait for [`WatchedDirs::forget`].
    pub(super) fn is_waiting(&self) -> bool {
        !self.moved_away.is_empty()
    }

    /// Removes the watches on directories that left the source.
    pub(super) fn forget(&mut self, now: Moment) {
        let (old, young) = self
            .moved_away
            .iter()
            .partition(|(_, since)| now.since(*since) >= MOVE_TIMEOUT);
        self.moved_away = young;
        let old: Vec<(Watch, Moment)> = old;

        for (watch, _) in old {
            if !self.table.is_away(watch) {
                continue;
            }
            let below = self
                .table
                .of(watch)
                .map(|dir_id| self.table.below(dir_id))
                .unwrap_or_default();
            for watch in below {
                // Fails for a watch that already ended, which is fine.
                let _ = inotify::remove_watch(&self.inotify, watch);
                self.table.remove(watch);
            }
        }
    }

    /// Forgets an ended watch.
    pub(super) fn remove(&mut self, watch: Watch) {
        self.table.remove(watch);
    }

    /// Detaches the directory `name` of `parent`, which may reappear elsewhere.
    pub(super) fn detach(&mut self, parent: DirId, name: &[u8], now: Moment) {
        if let Some(child) = self.table.child(parent, name) {
            self.table.detach(child);
            self.moved_away
                .extend(self.table.watch(child).map(|watch| (watch, now)));
        }
    }

    /// Watches the directory `from` in `parent` and everything below, and passes each path found to
    /// `found`. Returns whether an ignore file may re-include excluded paths.
    pub(super) fn walk(
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
                Some(path) => match add(self.as_fd(), dir.as_fd(), DIR_EVENTS) {
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
            let directories = self.table.len() as u64 + more;
            return Err(limits::too_few_watches(
                root.path(),
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
            .table
            .of(watch)
            .filter(|known| self.table.child(parent, name) != Some(*known));

        if let Some(known) = known {
            let mut path = Vec::new();
            let there = self.table.path(known, &mut path);
            // A directory appears in two places when one of them is a mount of it.
            let old = TreePath::new(&*path).ok().filter(|_| there);
            let is_there = |dir: Option<&TreePath>| {
                let dir = root.dir(dir).ok()?;
                add(
                    self.as_fd(),
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
                return Some(self.table.put_again(parent, name, watch));
            }
        }

        self.pass_gap();
        let replaced = self
            .table
            .child(parent, name)
            .and_then(|child| self.table.watch(child));
        let put = self.table.put(parent, name, watch);
        self.moved_away.extend(
            replaced
                .filter(|watch| self.table.is_away(*watch))
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
}

impl AsFd for WatchedDirs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
