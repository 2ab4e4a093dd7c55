//! The kernel's side: a watch on every directory of a source, and what the kernel tells of them.
//!
//! Events are hints, the disk is the truth: whatever an event leaves open (who was moved where, what was made before a
//! watch landed) is looked up. A watch lands before its directory is listed, so that nothing falls between the two. A
//! directory is known by its watch, which stays the same wherever it is moved: no event has to be paired with another.
//! It must not know what is done with a change.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{AtFlags, FileType, RawDir, statat};
use rustix::io::Errno;

use super::batch::Batcher;
use super::limits::{self, limit, shown};
use super::links::{Changed, Links};
use super::mounts::{Change, Mounts};
use super::places::{Place, Places, Put, TOP, Watch};
use crate::manifest::TreePath;
use crate::manifest::path::RESERVED;
use crate::manifest::rules::PathFilter;
use crate::tree::mounts::relative;
use crate::tree::scan::Exposed;
use crate::tree::{FileId, FileStat, Root, open_file_at, sys};
use crate::units::Moment;
use crate::{Error, Kind, Result};

/// What is asked of a directory.
const DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);
/// What is asked of the source itself, too.
const SOURCE: WatchFlags = DIRECTORY
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);
/// What is asked of the directory that the source's name is in.
const ABOVE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO);
/// Bytes of events that one system call returns.
const EVENTS: usize = 64 << 10;
/// Bytes of names that one system call returns.
const NAMES: usize = 32 << 10;
/// System calls in a row before others have their turn.
const READS: usize = 64;
/// A directory that was moved away has come out somewhere else by then, or it has left the source.
const AWAY: Duration = Duration::from_secs(1);
/// Files in a source that can take back what the spec excludes.
const IGNORE_FILES: [&[u8]; 2] = [b".makuoignore", b".gitignore"];
/// An ignore file of more bytes than this is taken to take something back.
const MAX_IGNORE_FILE: u64 = 1 << 20;

/// What is watched.
#[derive(Debug, Clone)]
pub struct Target {
    /// The directory.
    pub source: PathBuf,
    /// What the spec excludes.
    pub excluded: PathFilter,
    /// A directory that is left alone wherever it is: what is written there is makuo's own.
    pub own: Option<PathBuf>,
}

/// How reading events ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// There are no more now.
    All,
    /// There may be more.
    Some,
    /// Something was missed, for the reason that is given: everything has to be watched anew, and looked at.
    Lost(String),
}

/// The watches on a source.
pub struct Watcher {
    inotify: OwnedFd,
    target: Target,
    id: FileId,
    /// The directory that the source's name is in.
    above: Option<Watch>,
    own: Option<TreePath>,
    /// Without effect when an ignore file may take back what the spec excludes.
    excluded: Option<PathFilter>,
    places: Places,
    mounts: Option<Mounts>,
    links: Links,
    /// Directories that were moved to where nobody knows, and when.
    away: Vec<(Watch, Moment)>,
    /// The path of an event, to be written again.
    path: Vec<u8>,
    buffer: Vec<MaybeUninit<u8>>,
    /// What happens in the gaps of a look.
    #[cfg(test)]
    pub(super) gap: crate::tree::scan::Gap,
}

/// Why everything has to be watched anew, when it has to.
type Lost = Option<String>;

impl Watcher {
    /// Watches every directory of the source.
    pub fn establish(target: Target) -> Result<Self> {
        let root = open(&target.source)?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|e| limits::no_instance(e.into(), limit(limits::MAX_INSTANCES)))?;
        let mounts = Mounts::of(&target.source).inspect_err(|e| {
            tracing::warn!("mounts in {} are not followed: {e}", shown(&target.source))
        });
        let above = watch_above(inotify.as_fd(), &target.source);

        let dir = root.dir(None).map_err(|e| unreadable(&target.source, e))?;
        let top = match add(inotify.as_fd(), dir.as_fd(), SOURCE) {
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

        let full = |path: &Path| std::fs::canonicalize(path).ok();
        let own = target
            .own
            .as_deref()
            .and_then(full)
            .zip(full(&target.source));

        let own = own.and_then(|(own, source)| TreePath::new(relative(&own, &source)?).ok());
        let excluded = Some(target.excluded.clone()).filter(|filter| !filter.is_empty());
        let mut watcher = Self {
            inotify,
            id: root.id(),
            above,
            own,
            excluded,
            places: Places::new(top),
            mounts: mounts.ok(),
            links: Links::default(),
            away: Vec::new(),
            path: Vec::new(),
            buffer: vec![MaybeUninit::uninit(); EVENTS],
            target,
            #[cfg(test)]
            gap: crate::tree::scan::Gap::default(),
        };

        let start = Moment::default();
        if watcher.walk(&root, None, TOP, start, &mut |_| {})? {
            // What the spec excludes may be part of the release after all.
            watcher.excluded = None;
            watcher.links = Links::default();
            watcher.walk(&root, None, TOP, start, &mut |_| {})?;
        }

        Ok(watcher)
    }

    /// Lets a test do something between two steps.
    fn pass_gap(&self) {
        #[cfg(test)]
        self.gap.pass();
    }

    /// What is watched.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Which directory it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// How many directories are watched.
    pub fn directories(&self) -> usize {
        self.places.len()
    }

    /// The watched files that have several names.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Looks at files that can change unheard: see [`Links::look`].
    pub fn look_at_links(&mut self, now: Moment, batcher: &mut Batcher) {
        // Without a source it is not the links that matter.
        let Ok(root) = self.root() else { return };
        let changed = self.links.look(
            now,
            |path| stat_of(&root, path),
            |path| is_open_for_writing(&root, path),
        );

        for Changed {
            paths,
            is_open,
            is_other,
        } in changed
        {
            for path in paths {
                match batcher.is_written(&path) {
                    // Who writes to it will close it.
                    true if is_open => {}
                    true => batcher.closed(now, &path),
                    false if is_open => batcher.wrote(now, &path),
                    false if is_other => batcher.touched(now, &path),
                    false => {}
                }
            }
        }
    }

    /// Files that a scan found exposed: they are looked at from time to time.
    pub fn expose(&mut self, now: Moment, exposed: &[Exposed]) {
        exposed
            .iter()
            .for_each(|exposed| self.links.expose(now, exposed));
    }

    /// Goes on looking at the files that another watcher of the source knew to be open.
    pub fn keep_open_files(&mut self, before: Links) {
        self.links.keep_open_files(before);
    }

    /// The files that can change unheard, for [`Watcher::keep_open_files`].
    pub fn into_links(self) -> Links {
        self.links
    }

    /// Takes files that were written to and that nobody has open any more as written.
    pub fn ask(&self, now: Moment, batcher: &mut Batcher) {
        let Ok(root) = self.root() else { return };
        for path in batcher.ask(now) {
            if is_open_for_writing(&root, &path) == Some(false) {
                batcher.closed(now, &path);
            }
        }
    }

    /// The list of mounts, to wait for a change of it.
    pub fn mounts(&self) -> Option<BorrowedFd<'_>> {
        self.mounts.as_ref().map(AsFd::as_fd)
    }

    /// Whether something has to be forgotten soon: [`Watcher::forget`].
    pub fn is_waiting(&self) -> bool {
        !self.away.is_empty()
    }

    /// Refuses a source that is not the directory any more that is watched.
    pub fn check(&self) -> Result<()> {
        self.root().map(drop)
    }

    fn root(&self) -> Result<Root> {
        match Root::open(&self.target.source) {
            Ok(root) if root.id() == self.id => Ok(root),
            Ok(_) => Err(self.gone("is another directory now")),
            Err(e) => Err(self.gone("is gone").because(e)),
        }
    }

    /// The list of mounts has changed.
    pub fn mounted(&mut self) -> Result<Heard> {
        self.check()?;
        let change = self
            .mounts
            .as_mut()
            .map_or(Ok(Change::None), Mounts::change);

        match change
            .map_err(|e| Error::new(Kind::Io, "cannot read the list of mounts").because(e))?
        {
            Change::None => Ok(Heard::All),
            Change::Mounted(at) => Ok(Heard::Lost(format!(
                "{} was mounted: the source is looked at",
                shown(&at)
            ))),
            Change::Unmounted(at) => Err(unmounted(&at)),
        }
    }

    /// Takes what the kernel has to tell.
    pub fn hear(&mut self, now: Moment, batcher: &mut Batcher) -> Result<Heard> {
        let mut buffer = std::mem::take(&mut self.buffer);
        // The handle is lent to the reader, and what it reads needs the rest.
        let heard = self.hear_into(&mut buffer, now, batcher);
        self.buffer = buffer;
        heard
    }

    fn hear_into(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Heard> {
        let inotify = self
            .inotify
            .try_clone()
            .map_err(|e| Error::new(Kind::Io, "cannot hear of changes").because(e))?;
        let mut reader = Reader::new(inotify, buffer);
        let mut reads = 0;

        loop {
            if reader.is_buffer_empty() {
                if reads == READS {
                    return Ok(Heard::Some);
                }
                reads += 1;
            }
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(Heard::All),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Error::new(Kind::Io, "cannot hear of changes").because(e)),
            };
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            if let Some(why) = self.event(event.wd(), event.events(), name, now, batcher)? {
                return Ok(Heard::Lost(why));
            }
        }
    }

    /// Takes the watches off directories that left the source.
    pub fn forget(&mut self, now: Moment) {
        let (old, young) = self
            .away
            .iter()
            .partition(|(_, since)| now.since(*since) >= AWAY);
        self.away = young;
        let old: Vec<(Watch, Moment)> = old;

        for (watch, _) in old {
            if !self.places.is_away(watch) {
                continue;
            }
            let below = self
                .places
                .of(watch)
                .map(|place| self.places.below(place))
                .unwrap_or_default();
            for watch in below {
                // One that has ended by itself is as well.
                let _ = inotify::remove_watch(&self.inotify, watch);
                self.places.remove(watch);
            }
        }
    }

    fn event(
        &mut self,
        watch: Watch,
        what: ReadFlags,
        name: &[u8],
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Ok(Some(limits::overflowed(limit(limits::MAX_QUEUED))));
        }

        if self.above == Some(watch) {
            if what.contains(ReadFlags::IGNORED) {
                self.above = None;
            }
            if self.target.source.file_name() == Some(OsStr::from_bytes(name)) || name.is_empty() {
                self.check()?;
            }
        }

        let Some(place) = self.places.of(watch) else {
            return Ok(None);
        };

        if place == TOP
            && what.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT)
        {
            return Err(self.gone(if what.contains(ReadFlags::UNMOUNT) {
                "was unmounted"
            } else {
                "was removed"
            }));
        }

        if place == TOP && what.contains(ReadFlags::MOVE_SELF) {
            return self.check().map(|()| None);
        }

        if what.contains(ReadFlags::UNMOUNT) {
            let mut path = Vec::new();
            self.places.path(place, &mut path);
            return Err(unmounted(
                &self.target.source.join(OsStr::from_bytes(&path)),
            ));
        }

        let others = self.places.more(watch);
        if what.contains(ReadFlags::IGNORED) {
            return self.ended(watch, place, now, batcher);
        }

        for place in std::iter::once(place).chain(others) {
            if let Some(why) = self.happened(place, what, name, now, batcher)? {
                return Ok(Some(why));
            }
        }

        Ok(None)
    }

    /// The watch has ended: the directory was removed, or the kernel took the watch for reasons of its own.
    fn ended(
        &mut self,
        watch: Watch,
        place: Place,
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        let mut path = Vec::new();
        let known = self
            .places
            .path(place, &mut path)
            .then(|| TreePath::new(&*path).ok())
            .flatten();
        let parent = self.places.parent(place);
        self.places.remove(watch);
        let (Some(path), Some(parent)) = (known, parent) else {
            return Ok(None);
        };

        batcher.touched(now, &path);
        self.look(parent, &path, now, batcher)
    }

    /// Something happened to the directory `place`, or to `name` in it.
    fn happened(
        &mut self,
        place: Place,
        what: ReadFlags,
        name: &[u8],
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        self.pass_gap();
        let mut path = std::mem::take(&mut self.path);
        if !self.places.path(place, &mut path) {
            self.path = path;
            return Ok(None);
        }

        if !name.is_empty() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }

        let is_dir = what.contains(ReadFlags::ISDIR);
        let names =
            ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        let found = if path.is_empty() {
            batcher.top(now);
            Ok(None)
        } else if what == ReadFlags::ATTRIB && batcher.knows(&path) {
            batcher.again(now, &path);
            Ok(None)
        } else if what == ReadFlags::MODIFY && batcher.wrote_again(now, &path) {
            Ok(None)
        } else if let Ok(path) = TreePath::new(&*path) {
            if self.leaves_out(&path, is_dir) {
                // It is no part of the release, but the time of its directory is.
                if what.intersects(names) {
                    match path.parent() {
                        Some(above) => batcher.touched(now, &above),
                        None => batcher.top(now),
                    }
                    Ok(None)
                } else if !is_dir && self.has_several_names(&path) {
                    // Another name of the file may be part of it: a look at everything finds it.
                    self.changed(place, &path, what, now, batcher)
                } else {
                    Ok(None)
                }
            } else if name.is_empty() {
                batcher.touched(now, &path);
                Ok(None)
            } else {
                self.changed(place, &path, what, now, batcher)
            }
        } else {
            // No path of a tree; the scan says what is wrong with it.
            batcher.top(now);
            Ok(None)
        };

        self.path = path;
        found
    }

    fn changed(
        &mut self,
        place: Place,
        path: &TreePath,
        what: ReadFlags,
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        let is_dir = what.contains(ReadFlags::ISDIR);
        let name = path.name();
        if what.contains(ReadFlags::MODIFY) {
            batcher.wrote(now, path);
        } else if what.contains(ReadFlags::CLOSE_WRITE) {
            batcher.closed(now, path);
        } else if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            batcher.gone(now, path);
        } else {
            batcher.touched(now, path);
        }

        self.note_links(path, what);
        let ignore = !is_dir && IGNORE_FILES.contains(&name) && self.excluded.is_some();
        if ignore && takes_back(&self.target.source.join(path.as_path())) {
            return Ok(Some(format!(
                "{path} may take back what the spec excludes: the source is looked at"
            )));
        }

        let comes = ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::MOVED_FROM;
        let unwatched =
            || what.contains(ReadFlags::ATTRIB) && self.places.child(place, name).is_none();
        if is_dir && (what.intersects(comes) || unwatched()) {
            return self.look(place, path, now, batcher);
        }

        Ok(None)
    }

    /// Keeps in mind a file that comes and has several names, and that a change of one is known.
    fn note_links(&mut self, path: &TreePath, what: ReadFlags) {
        let comes = what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        let changes =
            what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB) && self.links.has(path);
        if what.contains(ReadFlags::ISDIR) || !(comes || changes) {
            return;
        }

        if self.has_several_names(path)
            && let Some(stat) = self.root().ok().and_then(|root| stat_of(&root, path))
        {
            self.links.add(path, &stat);
            self.links.seen(&stat);
        }
    }

    fn has_several_names(&self, path: &TreePath) -> bool {
        let found = std::fs::symlink_metadata(self.target.source.join(path.as_path()));
        found.is_ok_and(|meta| meta.is_file() && meta.nlink() > 1)
    }

    /// Looks which directory is at `path` now, in the directory `place`: an event may be older than another look.
    fn look(
        &mut self,
        place: Place,
        path: &TreePath,
        now: Moment,
        batcher: &mut Batcher,
    ) -> Result<Lost> {
        self.pass_gap();
        let root = self.root()?;
        if root.dir(Some(path)).is_err() {
            if let Some(child) = self.places.child(place, path.name()) {
                self.places.detach(child);
                self.away
                    .extend(self.places.watch(child).map(|watch| (watch, now)));
            }
            return Ok(None);
        }

        let took_back = self.walk(&root, Some(path), place, now, &mut |found| {
            batcher.touched(now, found)
        })?;

        Ok(took_back
            .then(|| format!("an ignore file in {path} may take back what the spec excludes")))
    }

    /// Watches the directory at `from`, which is in `parent`, and all below it, and tells what is in them. Says whether
    /// there is an ignore file that may take back what the spec excludes.
    fn walk(
        &mut self,
        root: &Root,
        from: Option<&TreePath>,
        parent: Place,
        now: Moment,
        tell: &mut dyn FnMut(&TreePath),
    ) -> Result<bool> {
        let mut open = vec![(from.cloned(), parent)];
        let mut took_back = false;
        let mut names: Vec<TreePath> = Vec::new();
        let mut full = false;
        let mut more = 0;

        while let Some((path, parent)) = open.pop() {
            // What cannot be opened is gone, or the scan says what is wrong with it.
            let Ok(dir) = root.dir(path.as_ref()) else {
                continue;
            };
            self.pass_gap();
            let place = match &path {
                None => TOP,
                Some(_) if full => parent,
                Some(path) => match add(self.inotify.as_fd(), dir.as_fd(), DIRECTORY) {
                    Ok(watch) => match self.put(root, parent, path.name(), watch, now) {
                        Some(place) => place,
                        None => continue,
                    },
                    // The rest is only counted.
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
            took_back |= self.list(dir.as_fd(), path.as_ref(), &mut names, tell);
            names.sort_unstable_by(|a, b| b.cmp(a));
            open.extend(names.drain(..).map(|path| (Some(path), place)));
        }

        if full {
            let directories = self.places.len() as u64 + more;
            return Err(limits::too_few_watches(
                &self.target.source,
                directories,
                limits::watches(),
            ));
        }

        Ok(took_back)
    }

    /// Puts a directory where it was found. `None` when that cannot be: an event that is on its way will say more.
    fn put(
        &mut self,
        root: &Root,
        parent: Place,
        name: &[u8],
        watch: Watch,
        now: Moment,
    ) -> Option<Place> {
        let known = self
            .places
            .of(watch)
            .filter(|known| self.places.child(parent, name) != Some(*known));

        if let Some(known) = known {
            let mut path = Vec::new();
            let there = self.places.path(known, &mut path);
            // A directory is in two places when one of them is a mount of it.
            let old = TreePath::new(&*path).ok().filter(|_| there);
            let is_there = |dir: Option<&TreePath>| {
                let dir = root.dir(dir).ok()?;
                add(
                    self.inotify.as_fd(),
                    dir.as_fd(),
                    if known == TOP { SOURCE } else { DIRECTORY },
                )
                .ok()
            };
            if (known == TOP || old.is_some()) && is_there(old.as_ref()) == Some(watch) {
                return Some(self.places.put_again(parent, name, watch));
            }
        }

        self.pass_gap();
        let replaced = self
            .places
            .child(parent, name)
            .and_then(|child| self.places.watch(child));
        let put = self.places.put(parent, name, watch);
        self.away.extend(
            replaced
                .filter(|watch| self.places.is_away(*watch))
                .map(|watch| (watch, now)),
        );

        match put {
            Put::Known(place) | Put::New(place) | Put::Moved(place) => Some(place),
            Put::Impossible => None,
        }
    }

    /// Lists a directory: tells every path that is not left out, and gathers the directories among them.
    fn list(
        &mut self,
        dir: BorrowedFd<'_>,
        at: Option<&TreePath>,
        directories: &mut Vec<TreePath>,
        tell: &mut dyn FnMut(&TreePath),
    ) -> bool {
        let mut took_back = false;
        let mut buffer = Vec::with_capacity(NAMES);
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
            if self.excluded.is_some() && !is_dir && IGNORE_FILES.contains(&name) {
                took_back |= takes_back(&self.target.source.join(path.as_path()));
            }
            if self.leaves_out(&path, is_dir) {
                continue;
            }
            tell(&path);
            if file_type == FileType::RegularFile
                && let Ok(stat) = FileStat::at(dir, entry.file_name())
                && stat.nlink > 1
            {
                self.links.add(&path, &stat);
            }
            if is_dir {
                directories.push(path);
            }
        }

        took_back
    }

    fn leaves_out(&self, path: &TreePath, is_dir: bool) -> bool {
        self.own.as_ref() == Some(path)
            || is_dir && path.name() == RESERVED.as_bytes()
            || self
                .excluded
                .as_ref()
                .is_some_and(|filter| filter.matches_here(path, is_dir))
    }

    fn gone(&self, how: &str) -> Error {
        gone(&self.target.source, how)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The source is not there any more, or is another one: `how` says it.
pub fn gone(source: &Path, how: &str) -> Error {
    Error::refused(format!(
        "the source {} {how}: nothing is deployed any more",
        shown(source)
    ))
    .hint("every host keeps what it has; start again when the source is back")
}

fn open(source: &Path) -> Result<Root> {
    Root::open(source).map_err(|e| unreadable(source, e))
}

fn unreadable(source: &Path, e: std::io::Error) -> Error {
    Error::refused(format!("the source {} cannot be read", shown(source))).because(e)
}

fn stat_of(root: &Root, path: &TreePath) -> Option<FileStat> {
    let (dir, name) = root.parent(path).ok()?;
    FileStat::at(dir.as_fd(), &name).ok()
}

/// Whether a process has the file open for writing, where that can be told.
fn is_open_for_writing(root: &Root, path: &TreePath) -> Option<bool> {
    let (dir, name) = root.parent(path).ok()?;
    sys::is_open_for_writing(&open_file_at(dir.as_fd(), &name).ok()?)
}

fn unmounted(at: &Path) -> Error {
    Error::refused(format!(
        "{} was unmounted: nothing is deployed any more",
        shown(at)
    ))
    .hint("every host keeps what it has; start again when it is back")
}

fn cannot_watch(path: &Path, e: Errno) -> Error {
    Error::new(Kind::Io, format!("cannot watch {}", shown(path))).because(std::io::Error::from(e))
}

/// Watches an open directory: by its handle, so that no link in its path can lead elsewhere.
fn add(
    inotify: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    what: WatchFlags,
) -> rustix::io::Result<Watch> {
    inotify::add_watch(inotify, format!("/proc/self/fd/{}", dir.as_raw_fd()), what)
}

/// Watches the directory that the source's name is in: a link that is turned, or another directory of this name, is
/// seen there only. Without it that is found when the next batch is due.
fn watch_above(inotify: BorrowedFd<'_>, source: &Path) -> Option<Watch> {
    source.file_name()?;
    let above = source
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    inotify::add_watch(inotify, above, ABOVE | WatchFlags::ONLYDIR).ok()
}

/// Whether an ignore file has a line that takes something back.
fn takes_back(path: &Path) -> bool {
    let small =
        std::fs::symlink_metadata(path).map(|meta| meta.is_file() && meta.len() <= MAX_IGNORE_FILE);
    match small {
        Ok(true) => std::fs::read(path).is_ok_and(|text| {
            text.split(|&b| b == b'\n')
                .any(|line| line.starts_with(b"!"))
        }),
        Ok(false) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
#[path = "inotify_tests.rs"]
mod tests;
