//! Carrying names from one tree into another beside it: what a release leaves alone is in both.
//!
//! Whatever is no directory gets a second name (a hard link), so that what is written to it through either is the
//! same; directories are made again. Nothing that has two names is ever changed here. Taking the steps once more does
//! no harm: what is there already stays.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::apply::{Metadata, handle_of};
use super::chains::{Chains, Operation};
use super::commit::stat;
use super::meta::{FileStat, is_mount_root, locked};
use super::root::{Root, open_dir_at};
use crate::error::{Error, Result};
use crate::manifest::{Mtime, TreePath};

/// How far a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Into every directory.
    All,
    /// Into directories that were not there yet.
    New,
}

/// Carries names from one tree to the other.
pub(super) struct Carry<'a> {
    pub(super) from: &'a Root,
    pub(super) to: &'a Root,
    /// What is not carried, sorted: what the release puts there or takes away.
    pub(super) changed: &'a [TreePath],
    pub(super) depth: Depth,
    /// Whether `to` shall be like `from`: else names are only added.
    pub(super) whole: bool,
    /// Where it is recorded what further names do to times of change.
    pub(super) chains: Option<&'a Mutex<Chains>>,
    /// The directories that were looked at, those inside first.
    pub(super) seen: Vec<Seen>,
}

/// A directory that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: Option<TreePath>,
    /// The time of its last change in the tree from which names are carried, before it was listed; `None` when a
    /// later change could bear the same time.
    pub(super) ctime: Option<Mtime>,
    /// Whether names in the other tree's directory changed.
    pub(super) touched: bool,
}

impl<'a> Carry<'a> {
    pub(super) fn new(from: &'a Root, to: &'a Root, changed: &'a [TreePath], depth: Depth) -> Self {
        Self { from, to, changed, depth, whole: false, chains: None, seen: Vec::new() }
    }

    /// Carries what is in the directory `path`.
    pub(super) fn run(&mut self, path: Option<&TreePath>) -> Result<()> {
        let from = self.from.dir(path).map_err(|e| self.failed("cannot open", path, e))?;
        let to = self.to.dir(path).map_err(|e| self.failed("cannot open the copy of", path, e))?;
        self.dir(path, from.as_fd(), to.as_fd())
    }

    fn dir(&mut self, path: Option<&TreePath>, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        let ctime = steady_ctime(from, to).map_err(|e| self.failed("cannot look at", path, e))?;
        let names = names_in(from).map_err(|e| self.failed("cannot list", path, e))?;
        let mut touched = false;
        for name in &names {
            let child = join(path, name)?;
            if self.changed.binary_search(&child).is_err() {
                touched |= self.child(&child, from, to, name)?;
            }
        }
        if self.whole {
            touched |= self.remove_others(path, &names, to)?;
        }
        self.seen.push(Seen { path: path.cloned(), ctime, touched });
        Ok(())
    }

    /// Says whether names in `to` changed.
    fn child(&mut self, path: &TreePath, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CString) -> Result<bool> {
        let failed = |e| self.failed("cannot look at", Some(path), e);
        let Some(now) = stat(from, name).map_err(failed)? else { return Ok(false) };
        let operation = Operation::on(now);
        if is_mount_root(from, name).map_err(failed)? {
            return Err(Error::refused(format!(
                "{}: a filesystem is mounted here, which cannot come along when the whole tree is exchanged",
                self.from.printed(path)
            ))
            .hint("unmount it, or set commit.layout = \"in-place\" in the spec"));
        }
        let there = stat(to, name).map_err(failed)?;
        if now.file_type == FileType::Directory {
            return self.directory(path, from, to, name, there.map(|t| t.file_type));
        }
        if there.is_some() && !self.whole {
            return Ok(false);
        }
        if there.is_some_and(|t| t.id == now.id) {
            return Ok(false);
        }
        if let Some(there) = there {
            remove(to, name, there.file_type).map_err(|e| self.failed("cannot replace the copy of", Some(path), e))?;
        }
        match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
            Ok(()) => {
                if let Some(chains) = self.chains.filter(|_| now.file_type == FileType::RegularFile) {
                    let after =
                        FileStat::at(to, name).map_err(|e| self.failed("cannot look at the copy of", Some(path), e))?;
                    operation.done(&after, &mut locked(chains));
                }
            }
            // It went away meanwhile.
            Err(Errno::NOENT) => return Ok(there.is_some()),
            Err(e) => return Err(self.unlinkable(path, e)),
        }
        Ok(true)
    }

    fn directory(
        &mut self,
        path: &TreePath,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        there: Option<FileType>,
    ) -> Result<bool> {
        let fresh = there != Some(FileType::Directory);
        let make = || -> io::Result<()> {
            if let Some(other) = there.filter(|_| fresh) {
                remove(to, name, other)?;
            }
            if fresh {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            }
            Ok(())
        };
        make().map_err(|e| self.failed("cannot make the copy of", Some(path), e))?;
        if fresh || self.depth == Depth::All {
            let ours = open_dir_at(from, name).map_err(|e| self.failed("cannot open", Some(path), e))?;
            let theirs = open_dir_at(to, name).map_err(|e| self.failed("cannot open the copy of", Some(path), e))?;
            self.dir(Some(path), ours.as_fd(), theirs.as_fd())?;
        }
        Ok(fresh)
    }

    fn remove_others(&mut self, path: Option<&TreePath>, names: &[CString], to: BorrowedFd<'_>) -> Result<bool> {
        let known: HashSet<&CStr> = names.iter().map(|n| n.as_c_str()).collect();
        let failed = |path: Option<&TreePath>, e| self.failed("cannot remove the copy of", path, e);
        let mut touched = false;
        for name in names_in(to).map_err(|e| failed(path, e))? {
            if known.contains(name.as_c_str()) {
                continue;
            }
            let child = join(path, &name)?;
            if self.changed.binary_search(&child).is_err() {
                let kind = FileStat::at(to, &name).map_err(|e| failed(Some(&child), e))?.file_type;
                remove(to, &name, kind).map_err(|e| failed(Some(&child), e))?;
                touched = true;
            }
        }
        Ok(touched)
    }

    fn failed(&self, action: &str, path: Option<&TreePath>, e: io::Error) -> Error {
        let shown = path.map_or_else(|| self.from.path().to_path_buf(), |p| self.from.shown(p));
        super::stage::with_space_hint(Error::io(action, shown, e))
    }

    fn unlinkable(&self, path: &TreePath, e: Errno) -> Error {
        let error = self.failed("cannot carry into the next tree", Some(path), e.into());
        match e {
            Errno::PERM | Errno::ACCESS => error.hint(
                "it gets a second name there, which needs the right to it: run the daemon as root, clear its immutable flag, or set commit.layout = \"in-place\" in the spec",
            ),
            Errno::MLINK => error.hint("it has as many names as its filesystem allows: set commit.layout = \"in-place\" in the spec"),
            _ => error,
        }
    }
}

/// Sets metadata of directories in `to`, those inside first.
pub(super) fn set_dirs(
    to: &Root,
    dirs: impl IntoIterator<Item = Option<TreePath>>,
    metadata: impl Fn(Option<&TreePath>) -> Result<Metadata>,
) -> Result<()> {
    let mut dirs: Vec<_> = dirs.into_iter().collect();
    dirs.sort();
    dirs.dedup();
    for path in dirs.iter().rev() {
        let wanted = metadata(path.as_ref())?;
        let set = || match path {
            Some(path) => {
                let (parent, name) = to.parent(path)?;
                wanted.set(handle_of(parent.as_fd(), &name)?)
            }
            None => wanted.set(to),
        };
        let shown = || path.as_ref().map_or_else(|| to.path().to_path_buf(), |p| to.shown(p));
        match set() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|e| {
                Error::io("cannot set mode, owner or time of", shown(), e)
                    .hint("run the daemon as root, or set commit.layout = \"in-place\" in the spec")
            })?,
        }
    }
    Ok(())
}

/// What the directory `path` of `root` has now, attributes included.
pub(super) fn present(root: &Root, path: Option<&TreePath>) -> Result<Metadata> {
    let shown = || path.map_or_else(|| root.path().to_path_buf(), |p| root.shown(p));
    let look = || match path {
        Some(path) => {
            let (parent, name) = root.parent(path)?;
            Metadata::present(parent.as_fd(), &name, true)
        }
        None => Metadata::present(root.as_fd(), c".", true),
    };
    look().map_err(|e| Error::io("cannot look at", shown(), e))
}

/// The names in a directory, without the two dots.
pub(super) fn names_in(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// The path of `name` in the directory `dir`.
pub(super) fn join(dir: Option<&TreePath>, name: &CStr) -> Result<TreePath> {
    let joined = match dir {
        Some(dir) => dir.join(name.to_bytes()),
        None => TreePath::new(name.to_bytes()),
    };
    joined.map_err(|e| Error::refused(e.to_string()).hint("shorten the path"))
}

/// Removes `name` with all that is in it.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &CStr, kind: FileType) -> io::Result<()> {
    if kind != FileType::Directory {
        return Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?);
    }
    // Its own mode binds an ordinary user.
    let handle = match open_dir_at(dir, name) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            loosen(dir, name)?;
            open_dir_at(dir, name)?
        }
        handle => handle?,
    };
    for child in names_in(handle.as_fd())? {
        let kind = FileStat::at(handle.as_fd(), &child)?.file_type;
        match remove(handle.as_fd(), &child, kind) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                loosen(dir, name)?;
                remove(handle.as_fd(), &child, kind)?;
            }
            done => done?,
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

fn loosen(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    super::apply::chmod(handle_of(dir, name)?.as_fd(), crate::manifest::Mode::from_bits(0o700))
}

/// Clocks of filesystems stand still for this long, in nanoseconds, and as much again.
const TICK: i128 = 20_000_000;

/// The time at which `dir` changed last, unless that is so close to the last change of `other`, which was made or
/// changed just now, that another change could follow within the same tick.
fn steady_ctime(dir: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<Option<Mtime>> {
    let nanos = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    let (changed, now) = (FileStat::of(dir)?.ctime, FileStat::of(other)?.ctime);
    Ok((nanos(changed) + TICK < nanos(now)).then_some(changed))
}
