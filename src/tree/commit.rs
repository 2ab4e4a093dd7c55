//! Switching a tree to a staged release: the journal, then its steps, in place, by renames.
//!
//! Order: directories are made, items go under their names, extras leave (deepest first), what takes a directory's
//! place follows, metadata, directories, the tree's own directory last. A replaced file and its successor change places in one rename, so that a
//! reader finds the old or the new, always whole. What cannot be done ends in undoing everything.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::apply::{Metadata, chmod, handle_of, remove_acl};
use super::chains::Placement;
use super::inherit::DEFAULT_ACL;
use super::journal::{FORWARD, Inode, Journal, Step};
use super::meta::{FileStat, locked};
use super::next::Next;
use super::open::{Tree, kept_journal};
use super::owners::Rights;
use super::stage::Item;
use super::state::{CommitMark, MAX_SIGNATURE, Mark, slot_name};
use super::written::is_worth;
use super::{steps, swap, undo};
use crate::diff::{Plan, Shape};
use crate::error::{Error, Result};
use crate::manifest::{Mode, Release, TreePath};
use crate::packed::Packed;

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
    mut next: Option<Next>,
    release: &Release,
    signature: &[u8],
) -> Result<CommitReport> {
    let mark = Mark::of(release);
    if signature.len() > MAX_SIGNATURE {
        return Err(Error::refused(format!(
            "a signature of {} bytes",
            signature.len()
        )));
    }

    let (steps, dirs, exchange) = match &mut next {
        None => {
            locked(&tree.chains).begin(is_worth(plan));
            let (steps, dirs) = steps::build(tree, plan, items, next_slot)?;
            (steps, dirs, None)
        }
        Some(next) => {
            if next.refresh(tree, plan)? {
                rustix::fs::syncfs(tree.state.handle())
                    .map_err(|e| Error::io("cannot sync", tree.state.path(), e))?;
            }
            (
                Packed::default(),
                next.dirs.clone(),
                Some(next.journaled(tree)?),
            )
        }
    };

    let previous = tree.state.last_commit()?;
    let commit = CommitMark {
        release: mark,
        number: previous.map_or(0, |p| p.number) + 1,
    };

    let (header, signature) = (release.bytes().to_vec(), signature.to_vec());
    let journal = Journal {
        commit,
        previous,
        steps,
        dirs,
        header,
        signature,
        swap: exchange,
    };

    tree.crash.point()?;
    tree.state.accept(release)?;
    tree.crash.point()?;
    tree.nodes().sync()?;
    tree.crash.point()?;
    let undo = tree.state.fresh_undo(mark.serial)?;

    if let Some(next) = &next {
        tree.crash.point()?;
        next.names
            .append(undo.as_fd())
            .map_err(|e| Error::io("cannot note names in", tree.state.path(), e))?;
        tree.crash.point()?;
        let moved = renameat(tree.state.handle(), c"next", &undo, swap::ASIDE)
            .and_then(|()| rustix::fs::fsync(&undo))
            .and_then(|()| rustix::fs::fsync(tree.state.handle()));
        moved.map_err(|e| Error::io("cannot move", tree.state.next_path(), e))?;
    }

    tree.crash.point()?;
    if let Err(e) = journal.write(&tree.state) {
        // It may be there all the same, and nobody shall go on with what is called failed.
        tree.state.remove(FORWARD)?;
        return Err(e);
    }

    match complete(tree, &journal, Try::First) {
        Ok(()) => {}
        Err(e) if tree.crash.happened() => return Err(e),
        Err(e) => {
            if let Err(why) = undo::begin(tree).and_then(|()| undo::run(tree, &journal)) {
                tracing::error!(
                    "tree {}: release {} could not be undone: {why}",
                    tree.name(),
                    mark.serial
                );
                return match tree.crash.happened() {
                    true => Err(why),
                    false => Err(Error::refused(format!(
                        "{e}; the tree is {}",
                        tree.tear(&why)
                    ))),
                };
            }
            return Err(e);
        }
    }

    let made = |dirs: bool| {
        plan.changes
            .iter()
            .filter(move |c| c.makes_anew() && (c.shape() == Shape::Directory) == dirs)
    };

    Ok(CommitReport {
        files_written: made(false).count() as u64,
        directories_made: made(true).count() as u64,
        metadata_changed: plan.summary.metadata,
        deleted: plan.summary.deleted,
        bytes_written: plan.summary.write_bytes,
    })
}

/// Takes a journaled commit from wherever it is to its end. An error leaves the journal in place.
pub(super) fn complete(tree: &Tree, journal: &Journal, attempt: Try) -> Result<()> {
    if tree.state.last_commit()? != Some(journal.commit) {
        match &journal.swap {
            Some(exchange) => swap::forward(tree, journal, exchange)?,
            None => take_steps(tree, journal, attempt)?,
        }
        if let Some(twin) = journal.twin() {
            tree.crash.point()?;
            tree.state.set_aside(twin)?;
        }
        tree.crash.point()?;
        tree.state
            .store(journal.serial(), &journal.header, &journal.signature)?;
        tree.crash.point()?;
        tree.state.set_last_commit(Some(journal.commit))?;
    }

    // From here on the release is the tree. The journal is kept with what it can undo.
    tree.crash.point()?;
    tree.state.rename(FORWARD, &kept_journal(journal.serial()))
}

fn take_steps(tree: &Tree, journal: &Journal, attempt: Try) -> Result<()> {
    let mut runner = Runner::new(tree, journal)?;
    runner.attempt = attempt;
    runner.loosen(journal)?;
    runner.disinherit(journal)?;
    for step in &journal.steps {
        runner.forward(&step)?;
    }

    for dir in journal.dirs.iter().rev() {
        if let Some(new) = &dir.new {
            runner.set_dir(dir.path.as_ref(), new)?;
        }
    }

    runner.sync(journal)
}

/// Whether steps may have been taken before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Try {
    /// The journal was just written.
    First,
    /// A crash, or an error, stopped an earlier one somewhere.
    Again,
}

/// Does steps, in either direction. Remembers the directory that it was in last.
pub(super) struct Runner<'a> {
    pub(super) tree: &'a Tree,
    pub(super) undo: Rc<OwnedFd>,
    rights: Rights,
    last: Option<(Option<TreePath>, OwnedFd)>,
    attempt: Try,
}

impl<'a> Runner<'a> {
    pub(super) fn new(tree: &'a Tree, journal: &Journal) -> Result<Self> {
        let undo = Rc::new(tree.state.undo_dir(journal.serial())?);
        Ok(Self {
            tree,
            undo,
            rights: Rights::of_process(),
            last: None,
            attempt: Try::Again,
        })
    }

    fn forward(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Mkdir(path) => self.mkdir(path),
            Step::Place {
                path,
                slot,
                ino,
                replaces,
                born,
                ..
            } => self.place(
                path,
                *slot,
                Inode {
                    ino: *ino,
                    born: *born,
                },
                *replaces,
            ),
            Step::Remove { path, slot, is_dir } => self.remove(path, *slot, *is_dir),
            Step::Set {
                path,
                old,
                new,
                ino,
            } => self.set(path, *ino, new, [old, new]),
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

    fn place(
        &mut self,
        path: &TreePath,
        slot: u64,
        inode: Inode,
        replaces: bool,
    ) -> io::Result<Outcome> {
        let (name, tree) = (slot_name(slot), self.tree);
        let stage = tree.state.stage();
        let is_staged = match self.attempt {
            Try::First => true,
            Try::Again => match stat(stage, &name)? {
                Some(found) => inode.is(&found),
                None => return Ok(Outcome::Done),
            },
        };

        if is_staged {
            stop!(self);
            let placement = Placement::begin();
            if replaces {
                match self.exchange(path, &name)? {
                    Exchange::OldInSlot => self.placed(path, placement)?,
                    Exchange::Done => return self.placed(path, placement).map(|()| Outcome::Done),
                    Exchange::Stopped(e) => return Ok(Outcome::Stopped(e)),
                }
            } else {
                let (parent, last) = self.parent(path)?;
                rename_new(stage, &name, parent, &last)?;
                return self.placed(path, placement).map(|()| Outcome::Done);
            }
        }

        // The slot now holds what was replaced.
        stop!(self);
        if stat(stage, &name)?.is_some_and(|s| s.file_type == FileType::Directory) {
            return Err(io::Error::other(
                "a directory appeared here since the tree was compared",
            ));
        }

        renameat(stage, &name, &*self.undo, &name)?;
        Ok(Outcome::Done)
    }

    /// Records the time of change that `placement` left to what it put under its name.
    fn placed(&mut self, path: &TreePath, placement: Placement) -> io::Result<()> {
        let tree = self.tree;
        if !locked(&tree.chains).wanted() {
            return Ok(());
        }

        let (parent, last) = self.parent(path)?;
        if let Some(after) = stat(parent, &last)? {
            placement.done(&after, &mut locked(&tree.chains));
        }

        Ok(())
    }

    /// Lets the staged item and what is at `path` change places.
    fn exchange(&mut self, path: &TreePath, name: &CString) -> io::Result<Exchange> {
        let tree = self.tree;
        let (stage, undo) = (tree.state.stage(), Rc::clone(&self.undo));
        let (parent, last) = self.parent(path)?;
        match tree.crash.exchange(stage, name, parent, &last) {
            Ok(()) => Ok(Exchange::OldInSlot),
            Err(Errno::NOENT) => rename_new(stage, name, parent, &last).map(|()| Exchange::Done),
            Err(e) if is_unsupported(e) => {
                // The old gets a second name, then the new takes the first.
                match rustix::fs::linkat(parent, &last, &*undo, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                if let Err(e) = tree.crash.point() {
                    return Ok(Exchange::Stopped(e));
                }
                renameat(stage, name, parent, &last)?;
                Ok(Exchange::Done)
            }
            Err(e) => Err(e.into()),
        }
    }

    fn remove(&mut self, path: &TreePath, slot: u64, is_dir: bool) -> io::Result<Outcome> {
        let (name, tree) = (slot_name(slot), self.tree);
        let undo = Rc::clone(&self.undo);
        if stat(undo.as_fd(), &name)?.is_some() {
            return Ok(Outcome::Done);
        }

        stop!(self);
        let (parent, last) = self.parent(path)?;
        let Some(now) = stat(parent, &last)? else {
            return self.finish_stand_in(slot);
        };

        if (now.file_type == FileType::Directory) != is_dir {
            return Err(io::Error::other(
                "another kind of file appeared here since the tree was compared",
            ));
        }

        match tree
            .crash
            .rename(is_dir, parent, &last, undo.as_fd(), &name)
        {
            Err(Errno::XDEV) if is_dir => return self.leave_stand_in(path, slot),
            done => done?,
        }

        if is_dir && !is_empty(undo.as_fd(), &name)? {
            renameat(&*undo, &name, parent, &last)?;
            return Err(Errno::NOTEMPTY.into());
        }

        Ok(Outcome::Done)
    }

    /// Sets the metadata of the inode `ino` at `path`, which has what one of `sides` says of owners: one of the same
    /// number that others made has not.
    pub(super) fn set(
        &mut self,
        path: &TreePath,
        ino: u64,
        metadata: &Metadata,
        sides: [&Metadata; 2],
    ) -> io::Result<Outcome> {
        stop!(self);
        let (parent, name) = self.parent(path)?;
        let handle = handle_of(parent, &name)?;
        if !is_known(&FileStat::of(&handle)?, ino, sides) {
            return Err(io::Error::other(
                "another file appeared here since the tree was compared",
            ));
        }

        metadata.set(&handle)?;
        Ok(Outcome::Done)
    }

    /// Gives this process the right to change names in the directories that it is going to touch.
    pub(super) fn loosen(&mut self, journal: &Journal) -> Result<()> {
        if self.rights.overrides_modes() {
            return Ok(());
        }

        for dir in &journal.dirs {
            self.loosen_one(dir.path.as_ref())
                .map_err(|e| self.named(e, "cannot write to", dir.path.as_ref()))?;
        }

        Ok(())
    }

    fn loosen_one(&mut self, path: Option<&TreePath>) -> io::Result<()> {
        let handle = match self.dir_handle(path) {
            // A directory that this commit makes, perhaps where a file or a symlink stands now.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => return Ok(()),
            handle => handle?,
        };

        let now = FileStat::of(&handle)?;
        if now.file_type == FileType::Directory && now.mode.bits() & 0o700 != 0o700 {
            match chmod(handle.as_fd(), Mode::from_bits(now.mode.bits() | 0o700)) {
                // Another user's: it lets this process in by other bits, or the first change in it fails.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                done => done?,
            }
        }

        Ok(())
    }

    /// Takes the access list that another user's directory gives away before anything is made in it.
    fn disinherit(&mut self, journal: &Journal) -> Result<()> {
        for dir in &journal.dirs {
            let (Some(old), Some(new)) = (&dir.old, &dir.new) else {
                continue;
            };
            if new.xattrs.is_some() || !old.is_foreign_to(new.uid) {
                continue;
            }
            self.tree.crash.point()?;
            let done = self
                .dir_handle(dir.path.as_ref())
                .and_then(|handle| remove_acl(handle.as_fd(), DEFAULT_ACL));
            done.map_err(|e| self.named(e, "cannot remove the ACL of", dir.path.as_ref()))?;
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
            // The handle that was opened when the tree was: whatever the directory's mode has become.
            None => Ok(rustix::io::dup(self.tree.root())?),
            Some(path) => {
                let (parent, name) = self.parent(path)?;
                handle_of(parent, &name)
            }
        }
    }

    /// The handle of the directory that holds `path`, and the component that is left.
    pub(super) fn parent(&mut self, path: &TreePath) -> io::Result<(BorrowedFd<'_>, CString)> {
        let above = path.parent();
        let name = CString::new(path.name())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;

        if self.last.as_ref().is_none_or(|(dir, _)| *dir != above) {
            let (handle, _) = self.tree.root().parent(path)?;
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
            rustix::fs::syncfs(tree.root())
                .map_err(|e| Error::io("cannot sync", tree.root().path(), e))?;
            return Ok(());
        }

        for dir in journal.dirs.iter() {
            match tree.root().dir(dir.path.as_ref()) {
                Ok(handle) => rustix::fs::fsync(&handle).map_err(io::Error::from),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    Ok(())
                }
                // Not readable by us, so that there is no handle to sync.
                Err(_) => rustix::fs::syncfs(tree.root()).map_err(io::Error::from),
            }
            .map_err(|e| self.named(e, "cannot sync", dir.path.as_ref()))?;
        }

        for fd in [self.undo.as_fd(), tree.state.stage()] {
            rustix::fs::fsync(fd).map_err(|e| Error::io("cannot sync", tree.state.path(), e))?;
        }

        Ok(())
    }

    pub(super) fn named<'p>(
        &self,
        e: io::Error,
        action: &str,
        path: impl Into<Option<&'p TreePath>>,
    ) -> Error {
        let error = Error::io(action, shown(self.tree, path.into()), e);
        if error.is_os(io::ErrorKind::DirectoryNotEmpty) {
            return error.hint("something was put there since the tree was compared: deploy again");
        }
        error
    }
}

/// Whether it is the inode `ino` with owners that one of `sides` says.
pub(super) fn is_known(now: &FileStat, ino: u64, sides: [&Metadata; 2]) -> bool {
    let owned = |uid, gid| {
        sides.iter().any(|s| s.uid == Some(uid)) && sides.iter().any(|s| s.gid == Some(gid))
    };
    now.id.ino == ino && owned(now.uid, now.gid)
}

/// Where an exchange left the old: in the stage's slot, still to be moved, or in the undo directory or nowhere.
enum Exchange {
    OldInSlot,
    Done,
    Stopped(Error),
}

/// Whether a filesystem says that it has no exchange of two names.
pub(super) fn is_unsupported(e: Errno) -> bool {
    matches!(e, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
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
pub(super) fn rename_new(
    from: BorrowedFd<'_>,
    old: &CString,
    to: BorrowedFd<'_>,
    new: &CString,
) -> io::Result<()> {
    match renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if stat(to, new)?.is_none() => {
            Ok(renameat(from, old, to, new)?)
        }
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
        Step::Mkdir(path)
        | Step::Place { path, .. }
        | Step::Remove { path, .. }
        | Step::Set { path, .. } => path,
    }
}

pub(super) fn shown(tree: &Tree, path: Option<&TreePath>) -> std::path::PathBuf {
    path.map_or_else(
        || tree.root().path().to_path_buf(),
        |p| tree.root().shown(p),
    )
}
