//! Switching a tree to a staged release: the journal, then its steps, in place, by renames.
//!
//! Order: directories are made, items go under their names, extras leave (deepest first), what takes a directory's
//! place follows, metadata, directories last. A replaced file and its successor change places in one rename, so that a
//! reader finds the old or the new, always whole. What cannot be done ends in undoing everything.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::apply::{Metadata, chmod, handle_of};
use super::journal::{DirStep, FORWARD, Journal, Step};
use super::meta::FileStat;
use super::open::Tree;
use super::owners::Rights;
use super::stage::Item;
use super::state::{MAX_SIGNATURE, Mark, open_dir, slot_name};
use super::undo;
use crate::diff::{Action, Change, Plan, Shape};
use crate::error::{Error, Result};
use crate::manifest::{Mode, Release, TreePath};

/// Up to this many touched paths are synced one by one; beyond, the whole filesystem once.
pub(super) const MAX_SINGLE_SYNCS: usize = 16;

/// What a commit did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// Files, links, pipes and devices that were made anew.
    pub files_written: u64,
    /// Directories that were made.
    pub directories_made: u64,
    /// Paths of which only metadata changed.
    pub metadata_changed: u64,
    /// Paths that were deleted.
    pub deleted: u64,
    /// Bytes of the files that were made anew.
    pub bytes_written: u64,
}

/// Commits what is staged: `items` are complete and durable.
pub(super) fn run(
    tree: &Tree,
    plan: &Plan,
    items: &[Item],
    next_slot: u64,
    release: &Release,
    signature: &[u8],
) -> Result<CommitReport> {
    let mark = Mark::of(release);
    if signature.len() > MAX_SIGNATURE {
        return Err(Error::refused(format!("a signature of {} bytes", signature.len())));
    }
    let (steps, dirs) = build(tree, plan, items, next_slot)?;
    let previous = tree.state.current()?;
    let (header, signature) = (release.bytes().to_vec(), signature.to_vec());
    let journal = Journal { release: mark, previous, steps, dirs, header, signature };
    tree.crash.point()?;
    tree.state.raise_highest(mark)?;
    tree.crash.point()?;
    tree.nodes().sync()?;
    tree.crash.point()?;
    tree.state.fresh_undo(mark.serial)?;
    tree.crash.point()?;
    journal.write(&tree.state)?;
    match complete(tree, &journal) {
        Ok(()) => {}
        Err(e) if tree.crash.happened() => return Err(e),
        Err(e) => {
            undo::begin(tree)?;
            undo::run(tree, &journal)?;
            return Err(e);
        }
    }
    if let Err(e) = tree.prune() {
        tracing::warn!("tree {}: old releases cannot be pruned: {e}", tree.name());
    }
    Ok(CommitReport {
        files_written: items.len() as u64,
        directories_made: journal.steps.iter().filter(|s| matches!(s, Step::Mkdir(_))).count() as u64,
        metadata_changed: plan.summary.metadata,
        deleted: plan.summary.deleted,
        bytes_written: plan.summary.write_bytes,
    })
}

/// Takes a journaled commit from wherever it is to its end. An error leaves the journal in place.
pub(super) fn complete(tree: &Tree, journal: &Journal) -> Result<()> {
    if tree.state.current()? != Some(journal.release) {
        let mut runner = Runner::new(tree, journal)?;
        runner.loosen(journal)?;
        for step in &journal.steps {
            runner.forward(step)?;
        }
        for dir in journal.dirs.iter().rev() {
            if let Some(new) = &dir.new {
                runner.set_dir(dir.path.as_ref(), new)?;
            }
        }
        runner.sync(journal)?;
        tree.crash.point()?;
        tree.state.store(journal.release.serial, &journal.header, &journal.signature)?;
        tree.crash.point()?;
        tree.state.set_current(Some(journal.release))?;
    }
    // From here on the release is the tree. The journal is kept with what it can undo.
    tree.crash.point()?;
    tree.state.rename(FORWARD, &format!("undo/{}/{FORWARD}", journal.release.serial))
}

/// What a commit of `items` under `plan` will do, and what is there now.
fn build(tree: &Tree, plan: &Plan, items: &[Item], mut slot: u64) -> Result<(Vec<Step>, Vec<DirStep>)> {
    let mut steps = Vec::with_capacity(plan.changes.len());
    let (mut removals, mut late, mut sets) = (Vec::new(), Vec::new(), Vec::new());
    let mut remove = |change: &Change| {
        slot += 1;
        let is_dir = change.was == Some(Shape::Directory);
        Step::Remove { path: change.path.clone(), slot, is_dir }
    };
    let mut items = items.iter().peekable();
    let mut dirs = Dirs::new(tree, plan);
    for change in plan.changes.iter().filter(|c| c.is_applied()) {
        let becomes_dir = change.want.is_some() && change.shape() == Shape::Directory;
        let was_dir = change.was == Some(Shape::Directory);
        match change.action {
            Action::Delete => removals.push(remove(change)),
            Action::Meta if becomes_dir => {}
            Action::Meta => sets.push(set_step(tree, plan, change)?),
            _ if becomes_dir => {
                if change.action == Action::Replace {
                    steps.push(remove(change));
                }
                steps.push(Step::Mkdir(change.path.clone()));
            }
            _ => {
                let item = items.next_if(|i| i.path == change.path);
                let item = item.ok_or_else(|| Error::refused(format!("{} is not staged", change.path)))?;
                let replaces = !was_dir && change.was.is_some();
                let ino = stage_stat(tree, item.slot)?.id.ino;
                let place = Step::Place { path: change.path.clone(), slot: item.slot, ino, replaces };
                if was_dir {
                    removals.push(remove(change));
                    late.push(place);
                } else {
                    steps.push(place);
                }
            }
        }
        dirs.add(change)?;
    }
    steps.extend(removals.into_iter().rev());
    steps.extend(late);
    steps.extend(sets);
    Ok((steps, dirs.finish()?))
}

fn set_step(tree: &Tree, plan: &Plan, change: &Change) -> Result<Step> {
    let failed = |e: io::Error| Error::io("cannot look at", tree.root.shown(&change.path), e);
    let (parent, name) = tree.root.parent(&change.path).map_err(failed)?;
    let old = Metadata::present(parent.as_fd(), &name, plan.sets_xattrs).map_err(failed)?;
    Ok(Step::Set { path: change.path.clone(), old, new: Metadata::wanted(change, plan) })
}

fn stage_stat(tree: &Tree, slot: u64) -> Result<FileStat> {
    let name = slot_name(slot);
    FileStat::at(tree.state.stage(), &name)
        .map_err(|e| Error::io("cannot look at staged item", name.to_string_lossy().as_ref(), e))
}

/// Collects the directories that a commit touches.
struct Dirs<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    own: Vec<DirStep>,
    /// Directories in which a name changes.
    parents: BTreeSet<Option<TreePath>>,
}

impl<'a> Dirs<'a> {
    fn new(tree: &'a Tree, plan: &'a Plan) -> Self {
        Self { tree, plan, own: Vec::new(), parents: BTreeSet::new() }
    }

    fn add(&mut self, change: &Change) -> Result<()> {
        if change.action != Action::Meta {
            let parent = change.path.parent();
            if !self.parents.contains(&parent) {
                self.parents.insert(parent);
            }
        }
        let is_dir = change.want.is_some() && change.shape() == Shape::Directory;
        let was_dir = change.was == Some(Shape::Directory);
        if is_dir || was_dir {
            let path = Some(change.path.clone());
            let old = if was_dir { Some(self.present(path.as_ref())?) } else { None };
            let new = is_dir.then(|| Metadata::wanted(change, self.plan));
            self.own.push(DirStep { path, old, new });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<DirStep>> {
        for dir in &self.own {
            self.parents.remove(&dir.path);
        }
        for path in std::mem::take(&mut self.parents) {
            let old = self.present(path.as_ref())?;
            // What the release does not change keeps its mode, and its time where the release governs times.
            let mtime = if path.is_some() && self.plan.sets_mtime { old.mtime } else { None };
            let new = Metadata { mode: old.mode, mtime, ..Metadata::default() };
            self.own.push(DirStep { path, old: Some(old), new: Some(new) });
        }
        self.own.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.own)
    }

    fn present(&self, path: Option<&TreePath>) -> Result<Metadata> {
        let failed = |e: io::Error| Error::io("cannot look at", shown(self.tree, path), e);
        match path {
            Some(path) => {
                let (parent, name) = self.tree.root.parent(path).map_err(failed)?;
                Metadata::present(parent.as_fd(), &name, self.plan.sets_xattrs).map_err(failed)
            }
            None => Metadata::present(self.tree.root.as_fd(), c".", false).map_err(failed),
        }
    }
}

/// Does steps, in either direction. Remembers the directory that it was in last.
pub(super) struct Runner<'a> {
    pub(super) tree: &'a Tree,
    pub(super) undo: OwnedFd,
    rights: Rights,
    last: Option<(Option<TreePath>, OwnedFd)>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(tree: &'a Tree, journal: &Journal) -> Result<Self> {
        let undo = open_dir(&tree.state.undo_path(journal.release.serial))?;
        Ok(Self { tree, undo, rights: Rights::of_process(), last: None })
    }

    fn forward(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Mkdir(path) => self.mkdir(path),
            Step::Place { path, slot, ino, replaces } => self.place(path, *slot, *ino, *replaces),
            Step::Remove { path, slot, is_dir } => self.remove(path, *slot, *is_dir),
            Step::Set { path, new, .. } => self.set(path, new),
        }
        .map_err(|e| self.named(e, "cannot change", step_path(step)))?
        .into_result()
    }

    fn mkdir(&mut self, path: &TreePath) -> io::Result<Outcome> {
        stop!(self);
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(parent, &name, rustix::fs::Mode::RWXU) {
            Err(Errno::EXIST) if FileStat::at(parent, &name)?.file_type == FileType::Directory => {}
            done => done?,
        }
        Ok(Outcome::Done)
    }

    fn place(&mut self, path: &TreePath, slot: u64, ino: u64, replaces: bool) -> io::Result<Outcome> {
        let (name, tree) = (slot_name(slot), self.tree);
        let stage = tree.state.stage();
        let Some(staged) = stat(stage, &name)? else { return Ok(Outcome::Done) };
        if staged.id.ino == ino {
            stop!(self);
            let (parent, last) = self.parent(path)?;
            if replaces {
                if !self.exchange(path, &name)? {
                    return Ok(Outcome::Done);
                }
            } else {
                return rename_new(stage, &name, parent, &last).map(|()| Outcome::Done);
            }
        }
        // The slot now holds what was replaced.
        stop!(self);
        if stat(stage, &name)?.is_some_and(|s| s.file_type == FileType::Directory) {
            return Err(io::Error::other("a directory appeared here since the tree was compared"));
        }
        renameat(stage, &name, &self.undo, &name)?;
        Ok(Outcome::Done)
    }

    /// Lets the staged item and what is at `path` change places; says whether the slot now holds the old.
    fn exchange(&mut self, path: &TreePath, name: &CString) -> io::Result<bool> {
        let tree = self.tree;
        let (stage, undo) = (tree.state.stage(), self.undo.try_clone()?);
        let (parent, last) = self.parent(path)?;
        match renameat_with(stage, name, parent, &last, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => rename_new(stage, name, parent, &last).map(|()| false),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                // No exchange on this filesystem: the old gets a second name, then the new takes the first.
                match rustix::fs::linkat(parent, &last, &undo, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                renameat(stage, name, parent, &last)?;
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn remove(&mut self, path: &TreePath, slot: u64, is_dir: bool) -> io::Result<Outcome> {
        let name = slot_name(slot);
        let undo = self.undo.try_clone()?;
        if stat(undo.as_fd(), &name)?.is_some() {
            return Ok(Outcome::Done);
        }
        stop!(self);
        let (parent, last) = self.parent(path)?;
        let Some(now) = stat(parent, &last)? else { return Ok(Outcome::Done) };
        if (now.file_type == FileType::Directory) != is_dir {
            return Err(io::Error::other("another kind of file appeared here since the tree was compared"));
        }
        renameat(parent, &last, &undo, &name)?;
        if is_dir && !is_empty(undo.as_fd(), &name)? {
            renameat(&undo, &name, parent, &last)?;
            return Err(Errno::NOTEMPTY.into());
        }
        Ok(Outcome::Done)
    }

    pub(super) fn set(&mut self, path: &TreePath, metadata: &Metadata) -> io::Result<Outcome> {
        stop!(self);
        let (parent, name) = self.parent(path)?;
        let handle = handle_of(parent, &name)?;
        metadata.set(&handle)?;
        Ok(Outcome::Done)
    }

    /// Gives this process the right to change names in the directories that it is going to touch.
    pub(super) fn loosen(&mut self, journal: &Journal) -> Result<()> {
        if self.rights.overrides_modes() {
            return Ok(());
        }
        for dir in &journal.dirs {
            self.loosen_one(dir.path.as_ref()).map_err(|e| self.named(e, "cannot write to", dir.path.as_ref()))?;
        }
        Ok(())
    }

    fn loosen_one(&mut self, path: Option<&TreePath>) -> io::Result<()> {
        let handle = match self.dir_handle(path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
            handle => handle?,
        };
        let now = FileStat::of(&handle)?;
        if now.file_type == FileType::Directory && now.mode.bits() & 0o700 != 0o700 {
            chmod(handle.as_fd(), Mode::from_bits(now.mode.bits() | 0o700))?;
        }
        Ok(())
    }

    pub(super) fn set_dir(&mut self, path: Option<&TreePath>, metadata: &Metadata) -> Result<()> {
        self.tree.crash.point()?;
        let set = self.dir_handle(path).and_then(|handle| {
            if FileStat::of(&handle)?.file_type != FileType::Directory {
                return Err(Errno::NOTDIR.into());
            }
            metadata.set(&handle)
        });
        set.map_err(|e| self.named(e, "cannot set mode, owner or time of", path))
    }

    fn dir_handle(&mut self, path: Option<&TreePath>) -> io::Result<OwnedFd> {
        match path {
            None => self.tree.root.dir(None),
            Some(path) => {
                let (parent, name) = self.parent(path)?;
                handle_of(parent, &name)
            }
        }
    }

    /// The handle of the directory that holds `path`, and the component that is left.
    pub(super) fn parent(&mut self, path: &TreePath) -> io::Result<(BorrowedFd<'_>, CString)> {
        let above = path.parent();
        let name = CString::new(path.name()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        if self.last.as_ref().is_none_or(|(dir, _)| *dir != above) {
            let (handle, _) = self.tree.root.parent(path)?;
            self.last = Some((above, handle));
        }
        match &self.last {
            Some((_, handle)) => Ok((handle.as_fd(), name)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes everything that was changed durable.
    pub(super) fn sync(&mut self, journal: &Journal) -> Result<()> {
        let tree = self.tree;
        tree.crash.point()?;
        let sets = journal.steps.iter().any(|s| matches!(s, Step::Set { .. }));
        if sets || journal.dirs.len() > MAX_SINGLE_SYNCS {
            rustix::fs::syncfs(&tree.root).map_err(|e| Error::io("cannot sync", tree.root.path(), e))?;
            return Ok(());
        }
        for dir in journal.dirs.iter() {
            match tree.root.dir(dir.path.as_ref()) {
                Ok(handle) => rustix::fs::fsync(&handle).map_err(io::Error::from),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
                // Not readable by us, so that there is no handle to sync.
                Err(_) => rustix::fs::syncfs(&tree.root).map_err(io::Error::from),
            }
            .map_err(|e| self.named(e, "cannot sync", dir.path.as_ref()))?;
        }
        for fd in [self.undo.as_fd(), tree.state.stage()] {
            rustix::fs::fsync(fd).map_err(|e| Error::io("cannot sync", tree.state.path(), e))?;
        }
        Ok(())
    }

    pub(super) fn named<'p>(&self, e: io::Error, action: &str, path: impl Into<Option<&'p TreePath>>) -> Error {
        let error = Error::io(action, shown(self.tree, path.into()), e);
        if error.is_os(io::ErrorKind::DirectoryNotEmpty) {
            return error.hint("something was put there since the tree was compared: deploy again");
        }
        error
    }
}

/// How a step went: done, or stopped by a test.
pub(super) enum Outcome {
    Done,
    Stopped(Error),
}

impl Outcome {
    pub(super) fn into_result(self) -> Result<()> {
        match self {
            Outcome::Done => Ok(()),
            Outcome::Stopped(e) => Err(e),
        }
    }
}

/// A point at which the machine may stop.
macro_rules! stop {
    ($runner:expr) => {
        if let Err(e) = $runner.tree.crash.point() {
            return Ok(Outcome::Stopped(e));
        }
    };
}
pub(super) use stop;

pub(super) fn stat(dir: BorrowedFd<'_>, name: &CString) -> io::Result<Option<FileStat>> {
    match FileStat::at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A rename that never replaces.
pub(super) fn rename_new(from: BorrowedFd<'_>, old: &CString, to: BorrowedFd<'_>, new: &CString) -> io::Result<()> {
    match renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if stat(to, new)?.is_none() => Ok(renameat(from, old, to, new)?),
        Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST.into()),
        done => Ok(done?),
    }
}

fn is_empty(dir: BorrowedFd<'_>, name: &CString) -> io::Result<bool> {
    let handle = super::root::open_dir_at(dir, name)?;
    for entry in rustix::fs::Dir::read_from(&handle)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn step_path(step: &Step) -> &TreePath {
    match step {
        Step::Mkdir(path) | Step::Place { path, .. } | Step::Remove { path, .. } | Step::Set { path, .. } => path,
    }
}

fn shown(tree: &Tree, path: Option<&TreePath>) -> std::path::PathBuf {
    path.map_or_else(|| tree.root.path().to_path_buf(), |p| tree.root.shown(p))
}
