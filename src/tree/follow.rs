//! Following what others changed in one tree into the other one beside it.
//!
//! Two trees change places in one step, but others work in them all the time: by path in the one that is live, and by
//! handles that they opened before in the other. A name that changed in one since it was looked at last ([`Names`]) is
//! made, replaced or removed in the other, unless it changed there as well and later. Nothing of the release's own is
//! touched, and nothing is replaced without looking at what comes out.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, RenameFlags, linkat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::carry::{join, names_in, steady_ctime};
use super::commit::stat;
use super::grants;
use super::journal::Move;
use super::meta::FileStat;
use super::moves;
use super::names::{Known, Names, Was};
use super::open::Tree;
use super::root::Root;
use crate::error::{Error, Result};
use crate::manifest::{Mtime, TreePath};

/// The name in the state directory of what is on its way from one tree to the other.
const PASSING: &CStr = c"passing";
/// How often a name is tried that others replace all the time.
pub(super) const MAX_TRIES: usize = 100;

/// What became of a name.
enum Followed {
    /// It stands for this afterwards, unless it moved.
    Done(Option<Was>),
    /// It changed while it was followed.
    Not,
}

/// What is followed, from where to where.
pub(super) struct Follow<'a> {
    pub(super) tree: &'a Tree,
    pub(super) from: &'a Root,
    pub(super) to: &'a Root,
    /// What is the release's own, sorted.
    pub(super) changed: &'a [TreePath],
    /// What `from` held when it was looked at last, which `to` held then, too.
    pub(super) known: &'a Names,
    /// Names that changed later than this in `from` came by a handle.
    pub(super) since: Mtime,
    /// Where it is noted what is on its way.
    pub(super) aside: BorrowedFd<'a>,
    /// Whether it goes from the new tree to the old one.
    pub(super) back: bool,
    /// Whether directories move at once; else they are only noted in `moves`.
    pub(super) moving: bool,
    /// The directories that `to` lacks.
    pub(super) moves: Vec<Move>,
    /// The directories of `to` in which names changed, with their times before; `None` for those that were made.
    pub(super) touched: BTreeMap<Option<TreePath>, Option<Mtime>>,
    /// What `from` holds now, of the directories that were looked into.
    pub(super) names: Names,
}

impl<'a> Follow<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        [from, to]: [&'a Root; 2],
        changed: &'a [TreePath],
        known: &'a Names,
        (aside, since): (BorrowedFd<'a>, Mtime),
    ) -> Self {
        Self {
            tree,
            from,
            to,
            changed,
            known,
            since,
            aside,
            back: false,
            moving: true,
            moves: Vec::new(),
            touched: BTreeMap::new(),
            names: Names::default(),
        }
    }

    /// Looks into the directories that changed since they were looked at.
    pub(super) fn changed_dirs(&mut self) -> Result<()> {
        let known = self.known;
        for (path, was) in &known.0 {
            let now = match path {
                Some(path) => self.from.parent(path).and_then(|(parent, name)| stat(parent.as_fd(), &name)),
                None => FileStat::of(self.from).map(Some),
            };
            match now {
                Ok(Some(now)) if now.file_type == FileType::Directory && Some(now.ctime) != was.ctime => {
                    self.dir(path.as_ref(), false)?;
                }
                Ok(_) => {}
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(self.failed("cannot look at", path.as_ref(), e)),
            }
        }
        Ok(())
    }

    /// Looks into every directory of `from` that is in `to` as well.
    pub(super) fn all_dirs(&mut self) -> Result<()> {
        self.dir(None, true)
    }

    /// Looks for what others put into directories that are the release's own.
    pub(super) fn owned_dirs<'p>(&mut self, dirs: impl Iterator<Item = &'p TreePath>) -> Result<()> {
        for path in dirs {
            let Ok(from) = self.from.dir(Some(path)) else { continue };
            if self.is_closed(Some(path), from.as_fd())? {
                continue;
            }
            let names = names_in(from.as_fd()).map_err(|e| self.failed("cannot list", Some(path), e))?;
            for name in names {
                let child = join(Some(path), &name)?;
                if self.changed.binary_search(&child).is_ok() {
                    continue;
                }
                let made = self.make_way(path).map_err(|e| self.failed("cannot make", Some(path), e))?;
                let to = self.to.dir(made.as_ref()).map_err(|e| self.failed("cannot open the other", Some(path), e))?;
                let now = stat(from.as_fd(), &name).map_err(|e| self.failed("cannot look at", Some(&child), e))?;
                if let Some(now) = now {
                    self.came(&child, from.as_fd(), to.as_fd(), &name, None, &now)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the directory `path` of `to`, with those above it, when it is not there.
    fn make_way(&mut self, path: &TreePath) -> io::Result<Option<TreePath>> {
        let (parent, name) = match self.to.parent(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(above) = path.parent() {
                    self.make_way(&above)?;
                }
                self.to.parent(path)?
            }
            found => found?,
        };
        self.touch(path.parent(), parent.as_fd())?;
        match rustix::fs::mkdirat(&parent, &name, rustix::fs::Mode::RWXU) {
            Ok(()) => drop(self.touched.insert(Some(path.clone()), None)),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(Some(path.clone()))
    }

    /// Removes everything in the directory `path` of `from`, and follows what is in it that was not known.
    pub(super) fn drain(&mut self, path: Option<&TreePath>) -> Result<()> {
        self.drain_dir(path, false)
    }

    fn drain_dir(&mut self, path: Option<&TreePath>, closed: bool) -> Result<()> {
        let from = self.from.dir(path).map_err(|e| self.failed("cannot open", path, e))?;
        let closed = closed || self.is_closed(path, from.as_fd())?;
        let known = self.known;
        let record = known.0.get(&path.cloned());
        let before = record.map(Known::names).unwrap_or_default();
        for _ in 0..MAX_TRIES {
            let names = names_in(from.as_fd()).map_err(|e| self.failed("cannot list", path, e))?;
            if names.is_empty() {
                break;
            }
            for name in names {
                let child = join(path, &name)?;
                let failed = |e: io::Error| Error::io("cannot remove", self.from.shown(&child), e);
                let Some(now) = stat(from.as_fd(), &name).map_err(failed)? else { continue };
                let is_dir = now.file_type == FileType::Directory;
                let was = before.get(&name).copied();
                let same = if is_dir { was.is_some() } else { was == Some(Was::Other(now.id.ino)) };
                if !same && !closed && self.changed.binary_search(&child).is_err() {
                    let followed = self.rescue(path, record.is_some(), &child, from.as_fd(), &name, was, &now)?;
                    if !is_dir {
                        if followed {
                            self.take_out(from.as_fd(), &name, now.id.ino).map_err(failed)?;
                        }
                        continue;
                    }
                }
                if is_dir && stat(from.as_fd(), &name).map_err(failed)?.is_some() {
                    self.drain_dir(Some(&child), closed)?;
                }
                let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                match unlinkat(&from, &name, flags) {
                    // Gone, moved, or once more.
                    Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                    Err(e) => return Err(Error::io("cannot remove", self.from.shown(&child), e)),
                }
            }
        }
        Ok(())
    }

    /// Follows one name out of a directory that is being removed; false when it changed meanwhile.
    #[expect(clippy::too_many_arguments, reason = "one name of two directories")]
    fn rescue(
        &mut self,
        dir: Option<&TreePath>,
        common: bool,
        path: &TreePath,
        from: BorrowedFd<'_>,
        name: &CString,
        was: Option<Was>,
        now: &FileStat,
    ) -> Result<bool> {
        let to = match self.to.dir(dir) {
            Ok(to) => to,
            // Whoever removed the directory from the live tree did not mean to keep what is in it.
            Err(e) if is_gone(&e) && common => return Ok(true),
            Err(e) if is_gone(&e) => {
                if let Some(dir) = dir {
                    self.make_way(dir).map_err(|e| self.failed("cannot make", Some(dir), e))?;
                }
                self.to.dir(dir).map_err(|e| self.failed("cannot open the other", dir, e))?
            }
            Err(e) => return Err(self.failed("cannot open the other", dir, e)),
        };
        Ok(matches!(self.name(path, from, to.as_fd(), name, was, now, true)?, Followed::Done(_)))
    }

    fn dir(&mut self, path: Option<&TreePath>, deep: bool) -> Result<()> {
        let known = self.known;
        // What was followed already is known better.
        let key = path.cloned();
        let mut was = self.names.0.get(&key).or_else(|| known.0.get(&key)).cloned();
        // What changes while it is followed is followed again.
        for _ in 0..MAX_TRIES {
            let Some((now, settled)) = self.dir_once(path, was.take(), deep)? else { break };
            self.names.0.insert(path.cloned(), now.clone());
            if settled {
                break;
            }
            was = Some(now);
        }
        Ok(())
    }

    /// Says what the directory holds and whether all of it was followed; `None` when it is gone from one of the trees.
    fn dir_once(&mut self, path: Option<&TreePath>, was: Option<Known>, deep: bool) -> Result<Option<(Known, bool)>> {
        let (from, to) = match (self.from.dir(path), self.to.dir(path)) {
            (Ok(from), Ok(to)) => (from, to),
            // Gone from one of them meanwhile: there is nothing to follow, or nobody to follow it.
            (Err(e), _) | (_, Err(e)) if is_gone(&e) => return Ok(None),
            (Err(e), _) | (_, Err(e)) => return Err(self.failed("cannot open", path, e)),
        };
        if self.is_closed(path, from.as_fd())? {
            return Ok(None);
        }
        let look = |e| self.failed("cannot look at", path, e);
        let mut now_known = Known::new(steady_ctime(&FileStat::of(&from).map_err(look)?, to.as_fd()).map_err(look)?);
        let listed = names_in(from.as_fd()).map_err(|e| self.failed("cannot list", path, e))?;
        let mut before = was.as_ref().map(Known::names).unwrap_or_default();
        let mut present = Vec::new();
        for name in listed {
            let child = join(path, &name)?;
            let now = stat(from.as_fd(), &name).map_err(|e| self.failed("cannot look at", Some(&child), e))?;
            if self.changed.binary_search(&child).is_ok() {
                before.remove(&name);
            } else if let Some(now) = now {
                present.push((name, child, now));
            }
        }
        self.announce(path, &before, &present)?;
        let mut settled = true;
        for (name, child, now) in present {
            let was = before.remove(&name);
            let held = match self.name(&child, from.as_fd(), to.as_fd(), &name, was, &now, deep)? {
                Followed::Done(held) => held,
                Followed::Not => {
                    (settled, now_known.ctime) = (false, None);
                    was
                }
            };
            held.iter().for_each(|held| now_known.add(&name, *held));
        }
        self.gone(path, to.as_fd(), before)?;
        Ok(Some((now_known, settled)))
    }

    /// Whether somebody who has the directory `path` of `from` open by a handle of before the exchange may change names
    /// in it that he must not change in the other tree, or in the nearest directory that is there.
    fn is_closed(&self, path: Option<&TreePath>, from: BorrowedFd<'_>) -> Result<bool> {
        if self.since.secs == i64::MIN {
            return Ok(false);
        }
        let mut above = path.cloned();
        loop {
            let there = self.to.handle_of(above.as_ref().map_or(b"", |path| path.as_bytes()));
            let stats = |there| Ok((FileStat::of(from)?, FileStat::of(there)?));
            match (there.and_then(stats), &above) {
                (Ok((from, to)), _) => return Ok(grants::is_closed(&from, &to)),
                (Err(e), Some(path)) if is_gone(&e) => above = path.parent(),
                (Err(e), _) => return Err(self.failed("cannot look at the other", path, e)),
            }
        }
    }

    /// Whether a crash left open if the inode came into the other tree.
    fn is_coming(&self, was: Was, inode: u64) -> bool {
        match was {
            Was::ComingNew(now, _) => !self.back && now == inode,
            Was::ComingOld(now, _) => self.back && now == inode,
            _ => false,
        }
    }

    /// Notes what is about to come into the other tree, when anything is.
    fn announce(
        &self,
        path: Option<&TreePath>,
        before: &HashMap<CString, Was>,
        present: &[(CString, TreePath, FileStat)],
    ) -> Result<()> {
        let is_new = |name: &CString, now: &FileStat| {
            now.file_type != FileType::Directory && before.get(name).is_none_or(|was| was.inode() != now.id.ino)
        };
        if !present.iter().any(|(name, _, now)| is_new(name, now)) {
            return Ok(());
        }
        let mut all = before.clone();
        let coming = present.iter().filter(|(name, _, now)| is_new(name, now));
        all.extend(coming.map(|(name, _, now)| {
            let was = before.get(name).map_or(0, |was| was.inode());
            let way = if self.back { Was::ComingOld } else { Was::ComingNew };
            (name.clone(), way(now.id.ino, was))
        }));
        let mut known = Known::new(None);
        all.iter().for_each(|(name, was)| known.add(name, *was));
        super::swap::note(self.tree, self.aside, &Names([(path.cloned(), known)].into()))
    }

    #[expect(clippy::too_many_arguments, reason = "one name of two directories")]
    fn name(
        &mut self,
        path: &TreePath,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        was: Option<Was>,
        now: &FileStat,
        deep: bool,
    ) -> Result<Followed> {
        if now.file_type != FileType::Directory {
            let same = was.is_some_and(|was| !self.is_coming(was, now.id.ino) && was.inode() == now.id.ino);
            return match same || self.came(path, from, to, name, was, now)? {
                true => Ok(Followed::Done(Some(Was::Other(now.id.ino)))),
                false => Ok(Followed::Not),
            };
        }
        let there = stat(to, name).map_err(|e| self.failed("cannot look at the other", Some(path), e))?;
        let is_dir = there.as_ref().is_some_and(|there| there.file_type == FileType::Directory);
        match (was, is_dir) {
            // Whoever removed it there did so later.
            (Some(Was::Directory), false) => {}
            (_, true) if deep || was != Some(Was::Directory) => self.dir(Some(path), true)?,
            (_, true) => {}
            (_, false) => {
                self.came(path, from, to, name, was, now)?;
                return Ok(Followed::Done(None));
            }
        }
        Ok(Followed::Done(Some(Was::Directory)))
    }

    /// Follows a name that came into `from`, or stands for something else since; false when it changed meanwhile.
    fn came(
        &mut self,
        path: &TreePath,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        was: Option<Was>,
        now: &FileStat,
    ) -> Result<bool> {
        let there = stat(to, name).map_err(|e| self.failed("cannot look at the other", Some(path), e))?;
        // Whether that was done before a crash is seen from what is there.
        let announced = was.is_some_and(|was| self.is_coming(was, now.id.ino));
        let expected = match there {
            Some(there) if there.id == now.id => return Ok(true),
            // Replaced here, and then removed there: by path, unless it came here by a handle after the exchange.
            None if was.is_some() && !announced && now.ctime <= self.since => return Ok(true),
            None => None,
            Some(there) if there.file_type == FileType::Directory => {
                if was == Some(Was::Directory) {
                    self.vanish(path, to, name)?;
                }
                if stat(to, name).map_err(|e| self.failed("cannot look at the other", Some(path), e))?.is_some() {
                    return self.stays(path).map(|()| true);
                }
                None
            }
            Some(there) if was.is_some_and(|was| was.is(there.id.ino)) || later(now, &there) => Some(there.id.ino),
            Some(there) if announced && !later(&there, now) => Some(there.id.ino),
            Some(_) => return Ok(true),
        };
        self.tree.crash.point()?;
        if now.file_type == FileType::Directory {
            return self.directory(path, from, to, name, now, expected).map(|()| true);
        }
        let put = self.touch(path.parent(), to).and_then(|()| self.put(from, to, name, now, expected));
        put.map_err(|e| self.failed("cannot follow", Some(path), e))
    }

    fn directory(
        &mut self,
        path: &TreePath,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        now: &FileStat,
        expected: Option<u64>,
    ) -> Result<()> {
        self.touch(path.parent(), to).map_err(|e| self.failed("cannot look at the other", Some(path), e))?;
        if let Some(expected) = expected {
            self.take_out(to, name, expected).map_err(|e| self.failed("cannot move", Some(path), e))?;
        }
        if !self.moving {
            self.moves.push(Move { path: path.clone(), ino: now.id.ino });
            return Ok(());
        }
        let failed = |e| self.failed("cannot move", Some(path), e);
        if stat(to, name).map_err(failed)?.is_some() {
            return self.stays(path);
        }
        moves::take(from, name, to).map_err(failed)
    }

    /// Gives `now`, at `name` in `from`, the same name in `to`, in the place of the inode `expected`; false when
    /// something else stands there in `from` by now.
    fn put(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        now: &FileStat,
        expected: Option<u64>,
    ) -> io::Result<bool> {
        let state = self.tree.state.handle();
        self.clear_passing()?;
        match linkat(from, name, state, PASSING, AtFlags::empty()) {
            Ok(()) if FileStat::at(state, PASSING)?.id != now.id => return self.clear_passing().map(|()| false),
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            // Not ours to link: it can leave, though.
            Err(Errno::PERM | Errno::ACCESS | Errno::MLINK) => renameat(from, name, state, PASSING)?,
            Err(e) => return Err(e.into()),
        }
        let Some(mut out) = expected else {
            return match renameat_with(state, PASSING, to, name, RenameFlags::NOREPLACE) {
                // Somebody was quicker, and later than what comes here.
                Err(Errno::EXIST) => self.clear_passing().map(|()| true),
                done => Ok(done.map(|()| true)?),
            };
        };
        let mut goes_in = FileStat::at(state, PASSING)?.id.ino;
        for _ in 0..MAX_TRIES {
            match renameat_with(state, PASSING, to, name, RenameFlags::EXCHANGE) {
                // Removed there at this very moment.
                Err(Errno::NOENT) => break,
                done => done?,
            }
            let came_out = FileStat::at(state, PASSING)?.id.ino;
            if came_out == out {
                break;
            }
            // It was put there meanwhile, later than what went in: it goes back.
            out = std::mem::replace(&mut goes_in, came_out);
        }
        self.clear_passing().map(|()| true)
    }

    /// Removes the name from `to` when it is still the inode `expected`.
    fn take_out(&self, to: BorrowedFd<'_>, name: &CStr, expected: u64) -> io::Result<()> {
        let state = self.tree.state.handle();
        self.clear_passing()?;
        match renameat(to, name, state, PASSING) {
            Err(Errno::NOENT) => return Ok(()),
            done => done?,
        }
        if FileStat::at(state, PASSING)?.id.ino != expected {
            match renameat_with(state, PASSING, to, name, RenameFlags::NOREPLACE) {
                // Something later stands there by now.
                Err(Errno::EXIST) => {}
                done => return Ok(done?),
            }
        }
        self.clear_passing()
    }

    fn clear_passing(&self) -> io::Result<()> {
        super::swap::discard(self.tree.state.handle(), PASSING)
    }

    /// Removes from a directory of `to` the names `left`, which `from` had and has no more.
    fn gone(&mut self, path: Option<&TreePath>, to: BorrowedFd<'_>, left: HashMap<CString, Was>) -> Result<()> {
        for (name, was) in left {
            let child = join(path, &name)?;
            if self.changed.binary_search(&child).is_ok() {
                continue;
            }
            let there = stat(to, &name).map_err(|e| self.failed("cannot look at the other", Some(&child), e))?;
            let Some(there) = there else { continue };
            let is_dir = there.file_type == FileType::Directory;
            if if is_dir { was != Was::Directory } else { !was.is(there.id.ino) } {
                continue;
            }
            self.tree.crash.point()?;
            self.touch(path.cloned(), to).map_err(|e| self.failed("cannot look at the other", path, e))?;
            match is_dir {
                true => self.vanish(&child, to, &name)?,
                false => {
                    let taken = self.take_out(to, &name, there.id.ino);
                    taken.map_err(|e| self.failed("cannot remove the other", Some(&child), e))?;
                }
            }
        }
        Ok(())
    }

    /// Removes a directory of `to` that left `from`, except for what is the release's own or came since.
    fn vanish(&mut self, path: &TreePath, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let known = self.known;
        let failed = |e| self.failed("cannot remove the other", Some(path), e);
        let dir = super::root::open_dir_at(to, name).map_err(failed)?;
        if let Some(was) = known.0.get(&Some(path.clone())) {
            self.gone(Some(path), dir.as_fd(), was.names())?;
        }
        match unlinkat(to, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed("cannot remove the other", Some(path), e.into())),
        }
    }

    /// Notes the time of a directory of `to` before a name in it changes.
    fn touch(&mut self, path: Option<TreePath>, to: BorrowedFd<'_>) -> io::Result<()> {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.touched.entry(path) {
            entry.insert(Some(FileStat::of(to)?.mtime));
        }
        Ok(())
    }

    fn stays(&self, path: &TreePath) -> Result<()> {
        tracing::warn!(
            "tree {}: {path} is of two kinds in the old and the new tree: the live one stays",
            self.tree.name()
        );
        Ok(())
    }

    fn failed(&self, action: &str, path: Option<&TreePath>, e: io::Error) -> Error {
        Error::io(action, path.map_or_else(|| self.from.path().to_path_buf(), |p| self.from.shown(p)), e)
    }
}

fn later(a: &FileStat, b: &FileStat) -> bool {
    (a.ctime.secs, a.ctime.nanos) > (b.ctime.secs, b.ctime.nanos)
}

pub(super) fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || e.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}
