//! Transfers changes by others from one tree to the other tree beside it.
//!
//! Two trees exchange places in one step, but other processes work in both: by path in the live
//! tree, and by handles from before in the other one. A name that changed in one tree since the
//! last look ([`SeenNames`]) is created, replaced or removed in the other, unless the other tree
//! takes precedence ([`precedence`]). Entries of the release itself are never touched.

pub(crate) mod drain;
pub(crate) mod precedence;
pub(crate) mod transfer;
mod verdict;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;

use super::journal::Move;
use super::name_pair::NamePair;
use super::seen_names::{SeenDir, SeenNames, Was, steady_ctime};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::{Mtime, TreePath};
use crate::tree::fs::dir::{join, names_in, stat};
use crate::tree::fs::dir_watch::DirWatch;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::handover;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;
use precedence::{Inodes, Rivals, follows};
use transfer::{MAX_ATTEMPTS, NameTransfer, Ready};
use verdict::NameVerdict;

/// A transfer from one tree to the other.
pub(crate) struct Follow<'a> {
    pub(crate) tree: &'a Worktree,
    pub(crate) from: &'a Root,
    pub(crate) to: &'a Root,
    /// Entries of the release itself, sorted.
    pub(crate) changed: &'a [TreePath],
    /// Names in both trees at the last look.
    pub(crate) known: &'a SeenNames,
    /// Directory for the notes on transfers in progress.
    pub(crate) aside: BorrowedFd<'a>,
    /// Other writers in `to`.
    pub(crate) rival: Rivals,
    /// Events of others in `to`, as far as received.
    pub(crate) heard: Option<&'a mut DirWatch>,
    /// Whether the transfer goes from the new tree to the old one.
    pub(crate) back: bool,
    /// Whether directories move at once; else they are only added to `moves`.
    pub(crate) moving: bool,
    /// Directories that `to` lacks.
    pub(crate) moves: Vec<Move>,
    /// Directories of `to` with changed names, with their mtime before; `None` for new directories.
    pub(crate) touched: BTreeMap<Option<TreePath>, Option<Mtime>>,
    /// Present names of both trees, for the directories visited.
    pub(crate) names: SeenNames,
}

/// A name to transfer.
struct FollowStep {
    path: TreePath,
    name: CString,
    /// Present entry in `from`.
    now: Option<FileStat>,
    was: Option<Was>,
    known: Inodes,
    ready: Ready,
}

impl<'a> Follow<'a> {
    pub(crate) fn new(
        tree: &'a Worktree,
        [from, to]: [&'a Root; 2],
        changed: &'a [TreePath],
        known: &'a SeenNames,
        aside: BorrowedFd<'a>,
        rival: Rivals,
    ) -> Self {
        Self {
            tree,
            from,
            to,
            changed,
            known,
            aside,
            rival,
            heard: None,
            back: false,
            moving: true,
            moves: Vec::new(),
            touched: BTreeMap::new(),
            names: SeenNames::default(),
        }
    }

    /// Visits the directories that changed since the last look.
    pub(crate) fn changed_dirs(&mut self) -> Result<()> {
        let known = self.known;
        for (path, was) in &known.0 {
            let now = match path {
                Some(path) => self
                    .from
                    .parent(path)
                    .and_then(|(parent, name)| stat(parent.as_fd(), &name)),
                None => FileStat::of(self.from).map(Some),
            };
            match now {
                Ok(Some(now))
                    if now.file_type == FileType::Directory && Some(now.ctime) != was.ctime =>
                {
                    self.dir(path.as_ref(), false)?;
                }
                Ok(_) => {}
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(self.failed("cannot look at", path.as_ref(), e)),
            }
        }

        Ok(())
    }

    /// Visits every directory of `from` that `to` has as well.
    pub(crate) fn all_dirs(&mut self) -> Result<()> {
        self.dir(None, true)
    }

    /// Finds entries of others in directories that belong to the release.
    pub(crate) fn owned_dirs<'p>(
        &mut self,
        dirs: impl Iterator<Item = &'p TreePath>,
    ) -> Result<()> {
        for path in dirs {
            let Ok(from) = self.from.dir(Some(path)) else {
                continue;
            };
            if self.is_closed(Some(path), from.as_fd())? {
                continue;
            }
            let known = self
                .record(Some(path))
                .map(SeenDir::names)
                .unwrap_or_default();
            let is_new = |name: &CString| -> Result<bool> {
                let child = join(Some(path), name)?;
                if self.changed.binary_search(&child).is_ok() {
                    return Ok(false);
                }
                let now = stat(from.as_fd(), name)
                    .map_err(|e| self.failed("cannot look at", Some(&child), e))?;
                let was = known.get(name).map_or(0, |was| self.sides(*was).from);
                Ok(now.is_some_and(|now| now.id.ino != was))
            };
            for name in
                names_in(from.as_fd()).map_err(|e| self.failed("cannot list", Some(path), e))?
            {
                if is_new(&name)? {
                    self.make_way(path)
                        .map_err(|e| self.failed("cannot make", Some(path), e))?;
                    self.to
                        .dir(Some(path))
                        .map_err(|e| self.failed("cannot open the other", Some(path), e))?;
                    self.dir(Some(path), false)?;
                    break;
                }
            }
        }

        Ok(())
    }

    /// Creates the directory `path` of `to` with its ancestors, if missing.
    pub(crate) fn make_way(&mut self, path: &TreePath) -> io::Result<()> {
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

        Ok(())
    }

    /// Record of a directory; entries transferred already take precedence.
    pub(crate) fn record(&self, path: Option<&TreePath>) -> Option<&SeenDir> {
        let key = path.cloned();
        self.names.0.get(&key).or_else(|| self.known.0.get(&key))
    }

    fn dir(&mut self, path: Option<&TreePath>, deep: bool) -> Result<()> {
        let mut was = self.record(path).cloned();
        // A change during the transfer is transferred as well.
        for _ in 0..MAX_ATTEMPTS {
            let Some((now, settled)) = self.dir_once(path, was.take(), deep)? else {
                break;
            };
            self.names.0.insert(path.cloned(), now.clone());
            if settled {
                break;
            }
            was = Some(now);
        }

        Ok(())
    }

    /// Returns the present names and whether all were transferred; `None` if the directory is gone
    /// from one of the trees.
    fn dir_once(
        &mut self,
        path: Option<&TreePath>,
        was: Option<SeenDir>,
        deep: bool,
    ) -> Result<Option<(SeenDir, bool)>> {
        let (from, to) = match (self.from.dir(path), self.to.dir(path)) {
            (Ok(from), Ok(to)) => (from, to),
            // Gone from one tree meanwhile: nothing to transfer, or no target.
            (Err(e), _) | (_, Err(e)) if is_gone(&e) => return Ok(None),
            (Err(e), _) | (_, Err(e)) => return Err(self.failed("cannot open", path, e)),
        };

        let from = from.as_fd();
        let to = to.as_fd();
        if self.is_closed(path, from)? {
            return Ok(None);
        }

        let look = |e| self.failed("cannot look at", path, e);
        let ctime = steady_ctime(&FileStat::of(from).map_err(look)?, to).map_err(look)?;

        let mut before = was.as_ref().map(SeenDir::names).unwrap_or_default();
        let mut present = Vec::new();

        for name in names_in(from).map_err(|e| self.failed("cannot list", path, e))? {
            let child = join(path, &name)?;
            let now =
                stat(from, &name).map_err(|e| self.failed("cannot look at", Some(&child), e))?;
            if self.changed.binary_search(&child).is_ok() {
                before.remove(&name);
            } else if let Some(now) = now {
                let was = before.remove(&name);
                present.push((name, child, was, Some(now)));
            }
        }

        for (name, was) in before {
            let child = join(path, &name)?;
            if self.changed.binary_search(&child).is_err() {
                present.push((name, child, Some(was), None));
            }
        }

        let mut known = SeenDir::new(ctime);
        let mut steps = Vec::new();

        for (name, path, was, now) in present {
            let pair = NamePair {
                path: &path,
                name: &name,
                from,
                to,
            };
            match self.judge(pair, was, now.as_ref(), deep)? {
                NameVerdict::Done(held) => held.iter().for_each(|held| known.add(&name, *held)),
                NameVerdict::Follow(nodes) => {
                    steps.push(FollowStep {
                        path,
                        name,
                        now,
                        was,
                        known: nodes,
                        ready: Ready::Changed,
                    });
                }
            }
        }

        self.link(&mut steps, from, to)?;
        self.announce(path, &known, &steps)?;
        let mut settled = true;
        for step in steps {
            let held = match self.take(path, &step, from, to)? {
                Some(held) => Some(held),
                None => {
                    (settled, known.ctime) = (false, None);
                    step.was
                }
            };
            held.iter().for_each(|held| known.add(&step.name, *held));
        }

        Ok(Some((known, settled)))
    }

    /// Returns whether a process with an open handle of the directory `path` of `from` may change
    /// names there that it could not change in the other tree, or in the nearest existing ancestor.
    pub(crate) fn is_closed(&self, path: Option<&TreePath>, from: BorrowedFd<'_>) -> Result<bool> {
        if !matches!(self.rival, Rivals::Everybody(_)) {
            return Ok(false);
        }

        let mut above = path.cloned();
        loop {
            let there = self
                .to
                .handle_of(above.as_ref().map_or(b"", |path| path.as_bytes()));
            let stats = |there| Ok((FileStat::of(from)?, FileStat::of(there)?));
            match (there.and_then(stats), &above) {
                (Ok((from, to)), _) => return Ok(handover::is_closed(&from, &to)),
                (Err(e), Some(path)) if is_gone(&e) => above = path.parent(),
                (Err(e), _) => return Err(self.failed("cannot look at the other", path, e)),
            }
        }
    }

    /// Transfers one name outside of a listing. Returns the state of the name, unless it moved;
    /// `None` if it changed meanwhile.
    pub(crate) fn one(
        &mut self,
        pair: NamePair<'_>,
        known: &HashMap<CString, Was>,
        now: &FileStat,
    ) -> Result<Option<Option<Was>>> {
        let was = known.get(pair.name).copied();
        let nodes = match self.judge(pair, was, Some(now), true)? {
            NameVerdict::Done(held) => return Ok(Some(held)),
            NameVerdict::Follow(nodes) => nodes,
        };

        let path = pair.path.clone();
        let name = pair.name.clone();
        let mut steps = [FollowStep {
            path,
            name,
            now: Some(*now),
            was,
            known: nodes,
            ready: Ready::Changed,
        }];

        self.link(&mut steps, pair.from, pair.to)?;
        let dir = pair.path.parent();
        let mut record = SeenDir::new(None);
        known
            .iter()
            .filter(|(name, _)| *name != pair.name)
            .for_each(|(name, was)| record.add(name, *was));

        self.announce(dir.as_ref(), &record, &steps)?;
        let [step] = steps;
        Ok(self
            .take(dir.as_ref(), &step, pair.from, pair.to)?
            .map(Some))
    }

    /// Inodes of a name in both trees, for names that are not directories of both.
    pub(crate) fn sides(&self, was: Was) -> Inodes {
        match was {
            Was::Directory => Inodes {
                from: Inodes::UNKNOWN,
                to: Inodes::UNKNOWN,
            },
            Was::Other(from, to) if !self.back => Inodes { from, to },
            Was::Other(to, from) => Inodes { from, to },
            // Only `resolve` can tell.
            Was::ComingNew(..) | Was::ComingOld(..) => Inodes {
                from: Inodes::UNKNOWN,
                to: Inodes::UNKNOWN,
            },
        }
    }

    /// Like [`Self::sides`], including names that a crash left in transfer.
    fn resolve(&self, pair: NamePair<'_>, was: Option<Was>) -> io::Result<Inodes> {
        let (now, before, forward) = match was {
            Some(Was::ComingNew(now, before)) => (now, before, !self.back),
            Some(Was::ComingOld(now, before)) => (now, before, self.back),
            was => return Ok(was.map_or(Inodes::NONE, |was| self.sides(was))),
        };

        let to = if forward { pair.to } else { pair.from };
        let Inodes { from, to } = NameTransfer(self.aside).resolve(to, pair.name, now, before)?;
        Ok(if forward {
            Inodes { from, to }
        } else {
            Inodes { from: to, to: from }
        })
    }

    fn other(&self, Inodes { from, to }: Inodes) -> Was {
        if self.back {
            Was::Other(to, from)
        } else {
            Was::Other(from, to)
        }
    }

    fn was_touched(&mut self, pair: NamePair<'_>) -> bool {
        self.heard
            .as_mut()
            .is_some_and(|heard| heard.touched(pair.path.parent().as_ref(), pair.name))
    }

    /// Time of the last change of the directory that others reach by path.
    fn live(&self, pair: NamePair<'_>) -> io::Result<Mtime> {
        let dir = if self.rival == Rivals::Handles {
            pair.from
        } else {
            pair.to
        };
        FileStat::of(dir).map(|dir| dir.ctime)
    }

    /// Prepares the present entry for the transfer. The further name changes its ctime, which later
    /// comparisons expect.
    fn link(
        &self,
        steps: &mut [FollowStep],
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut busy = HashSet::new();
        for FollowStep {
            path,
            name,
            now,
            known,
            ready,
            ..
        } in steps
        {
            let pair = NamePair {
                path,
                name,
                from,
                to,
            };
            let failed = |e| self.failed("cannot follow", Some(pair.path), e);
            *now = pair.here().map_err(failed)?;
            let Some(now) = now else { continue };
            let there = pair.there().map_err(failed)?;
            let is_dir = now.file_type == FileType::Directory;
            let live = self.live(pair).map_err(failed)?;
            if is_dir || !follows(*known, Some(now), there.as_ref(), false, self.rival, live) {
                continue;
            }
            *ready = NameTransfer(self.aside)
                .link(pair, now, busy.contains(&now.id.ino))
                .map_err(failed)?;
            if *ready == Ready::Linked {
                busy.insert(now.id.ino);
            }
        }

        Ok(())
    }

    /// Notes the arrivals and removals ahead, if any, beside the `known` names.
    fn announce(
        &self,
        path: Option<&TreePath>,
        known: &SeenDir,
        steps: &[FollowStep],
    ) -> Result<()> {
        let mut all = known.clone();
        all.ctime = None;
        for step in steps {
            let way = if self.back {
                Was::ComingOld
            } else {
                Was::ComingNew
            };
            match (&step.now, step.ready) {
                (Some(now), Ready::Linked) => all.add(&step.name, way(now.id.ino, step.known.to)),
                (None, _) => all.add(&step.name, way(0, step.known.to)),
                // The present entries show the result of the transfer.
                _ => step.was.iter().for_each(|was| all.add(&step.name, *was)),
            }
        }

        let any = steps
            .iter()
            .any(|step| step.now.is_none() || step.ready == Ready::Linked);

        if any {
            note(
                self.tree,
                self.aside,
                &SeenNames([(path.cloned(), all)].into()),
            )
        } else {
            Ok(())
        }
    }

    /// Takes one step; returns the new state of the name, `None` if it changed meanwhile.
    fn take(
        &mut self,
        dir: Option<&TreePath>,
        step: &FollowStep,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<Option<Was>> {
        let pair = NamePair {
            path: &step.path,
            name: &step.name,
            from,
            to,
        };

        let now = step.now.as_ref();
        if now.is_some() && matches!(step.ready, Ready::Busy | Ready::Changed) {
            return Ok(None);
        }

        self.tree.crash.point()?;
        let look = |e| Error::io("cannot look at", self.from.shown(&step.path), e);
        let there = pair.there().map_err(look)?;
        let is_dir = there
            .as_ref()
            .is_some_and(|there| there.file_type == FileType::Directory);
        let touched = self.was_touched(pair);

        let transfer = NameTransfer(self.aside);
        let nodes = Inodes::of(now, there.as_ref());
        let failed = |e| Error::io("cannot follow", self.from.shown(&step.path), e);
        let live = self.live(pair).map_err(failed)?;

        if is_dir || !follows(step.known, now, there.as_ref(), touched, self.rival, live) {
            if step.ready == Ready::Linked {
                transfer.forget(nodes.from).map_err(failed)?;
            }
            return Ok(Some(self.other(nodes.unfollowed(step.known))));
        }

        self.touch(dir.cloned(), to)
            .map_err(|e| self.failed("cannot look at the other", dir, e))?;
        match now {
            Some(now) if step.ready == Ready::Linked => transfer.bring(pair, now.id.ino, nodes.to),
            Some(_) => transfer.shift(pair, nodes.to),
            None => transfer.take_out(to, pair.name, nodes.to),
        }
        .map_err(|e| self.failed("cannot follow", Some(pair.path), e))?;

        if let Some(heard) = &mut self.heard {
            heard.forget(dir, pair.name);
        }

        Ok(Some(self.other(Inodes {
            from: nodes.from,
            to: nodes.from,
        })))
    }

    /// Removes a directory of `to` that left `from`, except for entries of the release and later
    /// arrivals.
    fn vanish(&mut self, pair: NamePair<'_>) -> Result<()> {
        let failed = |e| Error::io("cannot remove the other of", self.from.shown(pair.path), e);
        self.tree.crash.point()?;
        let dir = match crate::tree::fs::root::open_dir_at(pair.to, pair.name) {
            Err(e) if is_gone(&e) => return Ok(()),
            dir => dir.map_err(failed)?,
        };

        self.touch(pair.path.parent(), pair.to)
            .map_err(|e| self.failed("cannot look at", Some(pair.path), e))?;
        for (name, was) in self
            .record(Some(pair.path))
            .map(SeenDir::names)
            .unwrap_or_default()
        {
            let child = join(Some(pair.path), &name)?;
            if self.changed.binary_search(&child).is_err() {
                self.vanish_name(&child, &name, was, dir.as_fd())?;
            }
        }

        match unlinkat(pair.to, pair.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed("cannot remove the other of", Some(pair.path), e.into())),
        }
    }

    fn vanish_name(
        &mut self,
        path: &TreePath,
        name: &CString,
        was: Was,
        to: BorrowedFd<'_>,
    ) -> Result<()> {
        let there =
            stat(to, name).map_err(|e| self.failed("cannot look at the other", Some(path), e))?;
        let Some(there) = there else { return Ok(()) };

        // `from` has no such entry, in whatever directory it is looked up.
        let pair = NamePair {
            path,
            name,
            from: to,
            to,
        };

        if was == Was::Directory {
            return if there.file_type == FileType::Directory {
                self.vanish(pair)
            } else {
                Ok(())
            };
        }

        if self.sides(was).to != there.id.ino || self.was_touched(pair) {
            return Ok(());
        }

        self.tree.crash.point()?;
        let taken = NameTransfer(self.aside).take_out(to, name, there.id.ino);
        taken.map_err(|e| self.failed("cannot remove the other of", Some(path), e))
    }

    /// Records the mtime of a directory of `to` before a name inside changes.
    fn touch(&mut self, path: Option<TreePath>, to: BorrowedFd<'_>) -> io::Result<()> {
        if let Entry::Vacant(entry) = self.touched.entry(path) {
            entry.insert(Some(FileStat::of(to)?.mtime));
        }
        Ok(())
    }

    fn stays(&self, path: &TreePath) {
        tracing::warn!(
            "tree {}: {path} is of two kinds in the old and the new tree: the live one stays",
            self.tree.name()
        );
    }

    pub(crate) fn failed(&self, action: &str, path: Option<&TreePath>, e: io::Error) -> Error {
        Error::io(
            action,
            path.map_or_else(|| self.from.path().to_path_buf(), |p| self.from.shown(p)),
            e,
        )
    }
}

/// Adds to the record of the tree aside.
pub(crate) fn note(tree: &Worktree, aside: BorrowedFd<'_>, names: &SeenNames) -> Result<()> {
    if names.0.is_empty() {
        return Ok(());
    }
    tree.crash.point()?;
    names
        .append(aside)
        .context("cannot note names in", tree.state.path())
}
