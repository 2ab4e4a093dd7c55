//! Exchanging the live tree with the one beside it: one rename, so that a reader finds all of the old release or all
//! of the new one.
//!
//! The tree that is not live stands in the undo directory as `tree`: first the next one, after the exchange the old
//! one, by which the commit can be taken back. Which of the two it is is told by its inode, so that every step can be
//! taken again after a crash.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::apply::{Metadata, chmod, handle_of};
use super::carry::{Carry, Depth, present, remove, set_dirs};
use super::commit::stat;
use super::journal::{Journal, Swap};
use super::meta::{FileStat, is_mount_root};
use super::open::Tree;
use super::owners::Rights;
use super::root::Root;
use super::state::open_dir;
use crate::error::{Error, Result};

/// The name of the tree that is not live, in the undo directory.
pub(super) const ASIDE: &std::ffi::CStr = c"tree";
/// The name in the state directory of what a probe makes.
const PROBE: &std::ffi::CStr = c"probe";

/// Whether the tree can be exchanged as a whole: tried with two empty directories where the exchange would be.
pub(super) fn probe(tree: &Tree, root: &Root) -> Result<()> {
    let place = Place::of(root)?;
    let shown = place.path.display();
    let in_place = "set commit.layout = \"in-place\" in the spec";
    let failed = |e: io::Error| Error::io("cannot look at", &place.path, e);
    if is_mount_root(place.parent.as_fd(), &place.name).map_err(failed)? {
        return Err(Error::refused(format!("{shown} is a mount point, which cannot be exchanged as a whole"))
            .hint(format!("serve a directory below the mount point, or {in_place}")));
    }
    let rights = Rights::of_process();
    let (now, above) = (FileStat::of(root).map_err(failed)?, FileStat::of(&place.parent).map_err(failed)?);
    let sticky = above.mode.bits() & 0o1000 != 0;
    if sticky && !rights.changes_modes_of(now.uid) && !rights.changes_modes_of(above.uid) {
        return Err(Error::refused(format!(
            "{shown} cannot be exchanged as a whole: it belongs to user {}, and the directory it is in is sticky",
            now.uid
        ))
        .hint(format!("give it to the daemon's user, or {in_place}")));
    }
    if !rights.overrides_modes() && !rights.changes_modes_of(now.uid) {
        return Err(Error::refused(format!(
            "{shown} cannot be exchanged as a whole: it belongs to user {}, and this daemon is neither that user nor root",
            now.uid
        ))
        .hint(format!("run the daemon as root, or {in_place}")));
    }
    let parent = place.path.parent().unwrap_or(Path::new("/")).display().to_string();
    try_exchange(tree, &place).map_err(|e| match e {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            Error::refused(format!("{shown} cannot be exchanged as a whole: this daemon cannot write to {parent}: {e}"))
                .hint(format!("let the daemon write to {parent}, or {in_place}"))
        }
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => Error::refused(format!(
            "{shown} cannot be exchanged as a whole: the filesystem of {parent} has no exchange of two names"
        ))
        .hint(in_place),
        Errno::XDEV => Error::refused(format!(
            "{shown} cannot be exchanged as a whole: {} is on another filesystem than {parent}",
            tree.state.path().display()
        ))
        .hint(format!("set state_dir to a directory on the filesystem of {parent}, or {in_place}")),
        e => Error::io("cannot try an exchange in", &parent, e).hint(in_place),
    })
}

fn try_exchange(tree: &Tree, place: &Place) -> rustix::io::Result<()> {
    let (state, parent) = (tree.state.handle(), place.parent.as_fd());
    let other = CString::new(format!(".makuo-probe-{}", tree.name())).map_err(|_| Errno::INVAL)?;
    let gone = |dir: BorrowedFd<'_>, name: &std::ffi::CStr| match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    };
    // What a probe left that was interrupted.
    gone(state, PROBE)?;
    gone(parent, &other)?;
    rustix::fs::mkdirat(state, PROBE, Mode::RWXU)?;
    let tried = rustix::fs::mkdirat(parent, &other, Mode::RWXU).and_then(|()| {
        let tried = tree.crash.exchange(state, PROBE, parent, &other);
        tried.and(gone(parent, &other))
    });
    if tried.is_err() {
        let _ = gone(parent, &other);
    }
    tried.and(gone(state, PROBE))
}

/// Puts the next tree into the live one's place, unless it is there already.
pub(super) fn forward(tree: &Tree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = tree.state.undo_dir(journal.serial())?;
    let now = standing_aside(tree, &aside)?;
    if now == Some(swap.new.ino) {
        tree.crash.point()?;
        exchange(tree, &aside, swap.old.ino)?;
    } else if now != Some(swap.old.ino) {
        return Err(strange(tree, journal));
    }
    tree.crash.point()?;
    settle(tree, &aside, swap, swap.new.ino)
}

/// Puts the old tree back into its place, unless it is there already, with what came since into what the release had
/// left alone.
pub(super) fn backward(tree: &Tree, journal: &Journal, swap: &Swap) -> Result<()> {
    let aside = tree.state.undo_dir(journal.serial())?;
    match standing_aside(tree, &aside)? {
        Some(ino) if ino == swap.old.ino => {
            take_along(tree, journal, swap)?;
            tree.crash.point()?;
            rustix::fs::syncfs(&aside).map_err(|e| Error::io("cannot sync", tree.state.path(), e))?;
            tree.crash.point()?;
            exchange(tree, &aside, swap.new.ino)?;
        }
        // Not exchanged yet, or back already.
        Some(ino) if ino == swap.new.ino => {}
        None => return Ok(()),
        Some(_) => return Err(strange(tree, journal)),
    }
    tree.crash.point()?;
    settle(tree, &aside, swap, swap.old.ino)
}

/// The tree that is not live.
pub(super) fn open_aside(tree: &Tree, journal: &Journal) -> Result<Root> {
    let path = tree.state.undo_path(journal.serial()).join("tree");
    Root::open(&path).map_err(|e| Error::io("cannot open", &path, e))
}

/// Removes what stands aside.
pub(super) fn discard(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    match FileStat::at(dir, name) {
        Ok(found) => remove(dir, name, found.file_type),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn standing_aside(tree: &Tree, aside: &OwnedFd) -> Result<Option<u64>> {
    let found =
        stat(aside.as_fd(), &ASIDE.to_owned()).map_err(|e| Error::io("cannot look into", tree.state.path(), e))?;
    Ok(found.filter(|f| f.file_type == FileType::Directory).map(|f| f.id.ino))
}

fn exchange(tree: &Tree, aside: &OwnedFd, live: u64) -> Result<()> {
    tree.replace_root(|root| {
        let place = Place::of(root)?;
        let failed = |e: io::Error| Error::io("cannot exchange", &place.path, e);
        if FileStat::at(place.parent.as_fd(), &place.name).map_err(failed)?.id.ino != live {
            return Err(Error::refused(format!(
                "{} is not the directory any more that was opened",
                place.path.display()
            ))
            .hint("it was moved or replaced: put it back, and restart the daemon"));
        }
        loosen(place.parent.as_fd(), &place.name).map_err(failed)?;
        loosen(aside.as_fd(), ASIDE).map_err(failed)?;
        tree.crash.exchange(aside.as_fd(), ASIDE, place.parent.as_fd(), &place.name).map_err(|e| failed(e.into()))
    })
}

/// To move a directory an ordinary user needs the right to write to it.
fn loosen(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    let mode = FileStat::at(dir, name)?.mode;
    if Rights::of_process().overrides_modes() || mode.bits() & 0o200 != 0 {
        return Ok(());
    }
    chmod(handle_of(dir, name)?.as_fd(), crate::manifest::Mode::from_bits(mode.bits() | 0o200))
}

/// Gives both directories their modes, and makes the exchange durable.
fn settle(tree: &Tree, aside: &OwnedFd, swap: &Swap, live: u64) -> Result<()> {
    let root = tree.root();
    let (here, there) = if live == swap.new.ino { (swap.new, swap.old) } else { (swap.old, swap.new) };
    let set = || -> io::Result<()> {
        Metadata { mode: Some(here.mode), ..Metadata::default() }.set(&root)?;
        let other = handle_of(aside.as_fd(), ASIDE)?;
        Metadata { mode: Some(there.mode), ..Metadata::default() }.set(other)
    };
    set().map_err(|e| Error::io("cannot set the mode of", root.path(), e))?;
    tree.crash.point()?;
    let place = Place::of(&root)?;
    let syncs = rustix::fs::fsync(&place.parent).and_then(|()| rustix::fs::fsync(aside));
    syncs.map_err(|e| Error::io("cannot sync", &place.path, e))
}

/// Carries into the old tree what was changed in the new one since, except for what the release itself changed.
fn take_along(tree: &Tree, journal: &Journal, swap: &Swap) -> Result<()> {
    let (live, old) = (tree.root(), open_aside(tree, journal)?);
    let mut carry = Carry::new(&live, &old, &swap.changed, Depth::All);
    carry.whole = true;
    carry.run(None)?;
    set_dirs(&old, carry.seen.into_iter().map(|s| s.path), |path| {
        match journal.dirs.binary_search_by(|d| d.path.as_ref().cmp(&path)) {
            Ok(at) => Ok(journal.dirs[at].old.clone().unwrap_or_default()),
            // Nobody but others changed it: as they left it.
            Err(_) if path.is_some() => present(&live, path),
            Err(_) => Ok(Metadata::default()),
        }
    })
}

fn strange(tree: &Tree, journal: &Journal) -> Error {
    let path = tree.state.undo_path(journal.serial()).join("tree");
    Error::refused(format!("{} is neither the old nor the new tree of release {}", path.display(), journal.serial()))
        .hint("somebody moved it: put it back, and restart the daemon")
}

/// Where the tree's directory stands: its real place, whatever links led to it.
struct Place {
    parent: OwnedFd,
    name: CString,
    path: PathBuf,
}

impl Place {
    fn of(root: &Root) -> Result<Self> {
        let path = std::fs::canonicalize(root.path()).map_err(|e| Error::io("cannot resolve", root.path(), e))?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::refused(format!("{} cannot be exchanged as a whole", path.display()))
                .hint("set commit.layout = \"in-place\" in the spec"));
        };
        let name = CString::new(name.as_encoded_bytes()).map_err(|_| Error::refused("a path with NUL"))?;
        Ok(Self { parent: open_dir(parent)?, name, path })
    }
}
