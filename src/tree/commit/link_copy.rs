//! Copies names by hard links from the live tree into the next one: entries outside of the release
//! are in both.
//!
//! Every entry except directories gets a further name (a hard link), so a write through either name
//! is the same write. Governed directories are created again. A directory that no release governs
//! is only noted here: it moves when the trees exchange places ([`super::moves`]). Repeatable.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::journal::Move;
use super::name_pair::NamePair;
use super::seen_names::{SeenDir, SeenNames, Was, steady_ctime};
use crate::error::{Error, Result};
use crate::manifest::TreePath;
use crate::sync::locked;
use crate::tree::fs::ctime_chains::{CtimeChains, Operation};
use crate::tree::fs::dir::{is_overlay, join, names_in, remove, stat};
use crate::tree::fs::dir_access::IN_PLACE_HINT;
use crate::tree::fs::errors::with_space_hint;
use crate::tree::fs::root::{Root, open_dir_at};
use crate::tree::fs::stat::FileStat;

/// Copies names from one tree to the other.
pub(crate) struct LinkCopy<'a> {
    pub(crate) from: &'a Root,
    pub(crate) to: &'a Root,
    /// Paths that are not copied, sorted: entries that the release creates or removes.
    pub(crate) changed: &'a [TreePath],
    /// Whether `to` was built before and is only updated: directories that it has are not visited.
    pub(crate) mirror: bool,
    /// Returns whether a directory is wholly outside of the release.
    pub(crate) alone: &'a dyn Fn(&TreePath) -> bool,
    /// Whether the trees are on an overlay filesystem.
    layered: bool,
    /// Record of the ctime changes that further names cause.
    pub(crate) chains: Option<&'a Mutex<CtimeChains>>,
    /// Visited directories, and whether names in the copy changed.
    pub(crate) visited: Vec<(Option<TreePath>, bool)>,
    /// Names in these directories.
    pub(crate) names: SeenNames,
    /// Directories that will move.
    pub(crate) moves: Vec<Move>,
}

impl<'a> LinkCopy<'a> {
    pub(crate) fn new(
        from: &'a Root,
        to: &'a Root,
        changed: &'a [TreePath],
        alone: &'a dyn Fn(&TreePath) -> bool,
    ) -> Self {
        Self {
            from,
            to,
            changed,
            mirror: false,
            alone,
            layered: is_overlay(from.as_fd()),
            chains: None,
            visited: Vec::new(),
            names: SeenNames::default(),
            moves: Vec::new(),
        }
    }

    /// Copies the entries of the directory `path`.
    pub(crate) fn run(&mut self, path: Option<&TreePath>) -> Result<()> {
        let from = self
            .from
            .dir(path)
            .map_err(|e| self.failed("cannot open", path, e))?;
        let to = self
            .to
            .dir(path)
            .map_err(|e| self.failed("cannot open the copy of", path, e))?;
        self.dir(path, from.as_fd(), to.as_fd())
    }

    fn dir(
        &mut self,
        path: Option<&TreePath>,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<()> {
        let look = |e| self.failed("cannot look at", path, e);
        let before = FileStat::of(from).map_err(look)?;
        if let Some(flag) = before.fixed() {
            return Err(self.fixed(path, flag));
        }

        let mut known = SeenDir::new(steady_ctime(&before, to).map_err(look)?);
        let mut names = names_in(from).map_err(|e| self.failed("cannot list", path, e))?;

        // Lookups in a plan are cheapest in its own order.
        names.sort_unstable();
        let mut touched = false;
        let mut all = Vec::new();
        for name in &names {
            let child = join(path, name)?;
            if self.changed.binary_search(&child).is_err()
                && let Some((was, new)) = self.child(NamePair {
                    path: &child,
                    name,
                    from,
                    to,
                })?
            {
                touched |= new;
                all.extend(was.map(|was| (name, was)));
            }
        }

        let steady = FileStat::of(from)
            .map_err(|e| self.failed("cannot look at", path, e))?
            .ctime
            == before.ctime;

        for (name, mut was) in all {
            // A name that was replaced between two calls is recorded with the linked inode.
            if !steady && let Was::Other(..) = was {
                let now = stat(to, name)
                    .map_err(|e| self.failed("cannot look at the copy of", path, e))?;
                was = now.map_or(was, |now| Was::Other(now.id.ino, now.id.ino));
            }
            known.add(name, was);
        }

        if self.mirror {
            touched |= self.remove_others(path, &names, to)?;
        }

        self.visited.push((path.cloned(), touched));
        self.names.0.insert(path.cloned(), known);
        Ok(())
    }

    /// Returns the state of the name, unless it moves, and whether the copy of its directory
    /// changed; `None` if the name is gone.
    fn child(&mut self, pair: NamePair<'_>) -> Result<Option<(Option<Was>, bool)>> {
        let NamePair {
            path,
            name,
            from,
            to,
        } = pair;

        let failed = |e| self.failed("cannot look at", Some(path), e);
        let Some(now) = pair.here().map_err(failed)? else {
            // It vanished since the listing, and so does its copy.
            let copied = self.mirror && pair.there().map_err(failed)?.is_some();
            if copied {
                self.remove(to, path, name)?;
            }
            return Ok(copied.then_some((None, true)));
        };

        let operation = Operation::on(now);
        if now.is_mount_root() {
            return Err(Error::refused(format!(
                "{}: a filesystem is mounted here, which cannot come along when the whole tree \
                 is exchanged",
                self.from.printed(path)
            ))
            .hint("unmount it, or set commit.layout = \"in-place\" in the spec"));
        }

        let there = pair.there().map_err(failed)?;
        if now.file_type == FileType::Directory {
            return self.directory(pair, &now, there).map(Some);
        }

        let was = Some(Was::Other(now.id.ino, now.id.ino));
        if there.is_some_and(|t| t.id == now.id) {
            return Ok(Some((was, false)));
        }

        if there.is_some() {
            self.remove(to, path, name)?;
        }

        match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
            Ok(()) => {
                if self.layered && now.nlink > 1 {
                    self.check_same(path, &now, to, name)?;
                }
                if let Some(chains) = self
                    .chains
                    .filter(|_| now.file_type == FileType::RegularFile)
                {
                    let after = FileStat::at(to, name)
                        .map_err(|e| self.failed("cannot look at the copy of", Some(path), e))?;
                    operation.done(&after, &mut locked(chains));
                }
            }
            // It vanished meanwhile.
            Err(Errno::NOENT) => return Ok(there.map(|_| (None, true))),
            Err(e) => return Err(self.unlinkable(path, e)),
        }

        Ok(Some((was, true)))
    }

    /// Refuses if the new name belongs to another file: a file of a lower layer arrives without its
    /// other names.
    fn check_same(
        &self,
        path: &TreePath,
        now: &FileStat,
        to: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<()> {
        let made = FileStat::at(to, name)
            .map_err(|e| self.failed("cannot look at the copy of", Some(path), e))?;
        if made.id == now.id {
            return Ok(());
        }

        Err(Error::refused(format!(
            "{}: a file with several names in a lower layer of the overlay filesystem cannot be \
             carried into the next tree",
            self.from.printed(path)
        ))
        .hint("set commit.layout = \"in-place\" in the spec"))
    }

    fn directory(
        &mut self,
        NamePair {
            path,
            name,
            from,
            to,
        }: NamePair<'_>,
        now: &FileStat,
        there: Option<FileStat>,
    ) -> Result<(Option<Was>, bool)> {
        if there.is_some_and(|t| t.file_type == FileType::Directory) {
            return Ok((Some(Was::Directory), false));
        }

        if there.is_some() {
            self.remove(to, path, name)?;
        }

        // The release knows nothing of entries that arrived after the comparison.
        if self.mirror || (self.alone)(path) {
            self.moves.push(Move {
                path: path.clone(),
                ino: now.id.ino,
            });
            return Ok((None, there.is_some()));
        }

        rustix::fs::mkdirat(to, name, Mode::RWXU)
            .map_err(|e| self.failed("cannot make the copy of", Some(path), e.into()))?;
        let ours = open_dir_at(from, name).map_err(|e| {
            self.failed("cannot open", Some(path), e)
                .hint(IN_PLACE_HINT)
        })?;
        let theirs = open_dir_at(to, name)
            .map_err(|e| self.failed("cannot open the copy of", Some(path), e))?;
        self.dir(Some(path), ours.as_fd(), theirs.as_fd())?;

        Ok((Some(Was::Directory), true))
    }

    fn remove_others(
        &mut self,
        path: Option<&TreePath>,
        names: &[CString],
        to: BorrowedFd<'_>,
    ) -> Result<bool> {
        let known: HashSet<&CStr> = names.iter().map(|n| n.as_c_str()).collect();
        let mut touched = false;
        for name in names_in(to).map_err(|e| self.failed("cannot remove the copy of", path, e))? {
            if known.contains(name.as_c_str()) {
                continue;
            }
            let child = join(path, &name)?;
            if self.changed.binary_search(&child).is_err() {
                self.remove(to, &child, &name)?;
                touched = true;
            }
        }

        Ok(touched)
    }

    fn remove(&self, to: BorrowedFd<'_>, path: &TreePath, name: &CStr) -> Result<()> {
        remove_carried(to, path, name, self.changed)
            .map_err(|e| self.failed("cannot remove the copy of", Some(path), e))
    }

    fn fixed(&self, path: Option<&TreePath>, flag: &str) -> Error {
        let shown = path.map_or_else(
            || self.from.path().display().to_string(),
            |p| self.from.printed(p),
        );
        Error::refused(format!(
            "{shown} is {flag} and cannot be exchanged with the whole tree"
        ))
        .hint("clear its flag (chattr -i -a), or set commit.layout = \"in-place\" in the spec")
    }

    fn failed(&self, action: &str, path: Option<&TreePath>, e: io::Error) -> Error {
        with_space_hint(Error::io(action, self.from.shown_dir(path), e))
    }

    fn unlinkable(&self, path: &TreePath, e: Errno) -> Error {
        let error = self.failed("cannot carry into the next tree", Some(path), e.into());
        match e {
            Errno::PERM | Errno::ACCESS => error.hint(
                "it gets a second name there, which needs the right to it: run the daemon as \
                 root, clear its immutable flag, or set commit.layout = \"in-place\" in the spec",
            ),
            Errno::MLINK => error.hint(
                "it has as many names as its filesystem allows: set \
                 commit.layout = \"in-place\" in the spec",
            ),
            _ => error,
        }
    }
}

/// Removes `name` with everything below, except for the release's entries (`changed`) and their
/// ancestors.
fn remove_carried(
    dir: BorrowedFd<'_>,
    path: &TreePath,
    name: &CStr,
    changed: &[TreePath],
) -> io::Result<()> {
    let kind = FileStat::at(dir, name)?.file_type;
    if kind != FileType::Directory || !has_within(changed, path) {
        return remove(dir, name, kind);
    }

    let handle = open_dir_at(dir, name)?;
    for child in names_in(handle.as_fd())? {
        let below = join(Some(path), &child).map_err(io::Error::other)?;
        if changed.binary_search(&below).is_err() {
            remove_carried(handle.as_fd(), &below, &child, changed)?;
        }
    }

    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Returns whether the sorted `paths` contain a path below `dir`.
pub(crate) fn has_within(paths: &[TreePath], dir: &TreePath) -> bool {
    let first = paths.partition_point(|path| path <= dir);
    paths.get(first).is_some_and(|path| path.is_within(dir))
}
