//! Preflight for an exchange of whole trees: checks, and a trial with two empty directories, before
//! staging.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::root_place::RootPlace;
use super::stand_in;
use crate::error::{Error, Result};
use crate::tree::fs::dir::discard;
use crate::tree::fs::owners::Rights;
use crate::tree::fs::project_flags::ProjectFlags;
use crate::tree::fs::root::{Root, open_dir_at};
use crate::tree::fs::stat::{FileStat, is_mount_root};
use crate::tree::state::worktree::Worktree;

/// Name of the probe in the state directory.
const PROBE: &std::ffi::CStr = c"probe";

/// Checks whether the tree can be exchanged, with two empty directories in the same places.
pub(crate) fn probe(tree: &Worktree, root: &Root) -> Result<()> {
    let place = RootPlace::of(root)?;
    let shown = place.path.display();
    let in_place = "set commit.layout = \"in-place\" in the spec";
    if !tree.options.exchanges {
        return Err(Error::refused(format!(
            "this host does not let {shown} be exchanged as a whole"
        ))
        .hint(format!("write swap = true in its [[tree]], or {in_place}")));
    }

    let failed = |e: io::Error| Error::io("cannot look at", &place.path, e);
    if is_mount_root(place.parent.as_fd(), &place.name).map_err(failed)? {
        return Err(Error::refused(format!(
            "{shown} is a mount point, which cannot be exchanged as a whole"
        ))
        .hint(format!(
            "serve a directory below the mount point, or {in_place}"
        )));
    }

    if tree.state.is_inside() {
        return Err(Error::refused(format!(
            "{shown} cannot be exchanged as a whole: its state is inside of it"
        ))
        .hint(format!(
            "set state_dir to a directory on its filesystem, or {in_place}"
        )));
    }

    let rights = Rights::of_process();
    let now = FileStat::of(root).map_err(failed)?;
    let above = FileStat::of(&place.parent).map_err(failed)?;
    let sticky = above.mode.bits() & 0o1000 != 0;

    if sticky && !rights.changes_modes_of(now.uid) && !rights.changes_modes_of(above.uid) {
        return Err(Error::refused(format!(
            "{shown} cannot be exchanged as a whole: it belongs to user {}, and the directory it \
             is in is sticky",
            now.uid
        ))
        .hint(format!("give it to the daemon's user, or {in_place}")));
    }

    if !rights.overrides_modes() && !rights.changes_modes_of(now.uid) {
        return Err(Error::refused(format!(
            "{shown} cannot be exchanged as a whole: it belongs to user {}, and this daemon is \
             neither that user nor root",
            now.uid
        ))
        .hint(format!("run the daemon as root, or {in_place}")));
    }

    if tree.state.is_overlay() {
        stand_in::check_exchange(tree, place.parent.as_fd(), &place.name)
            .map_err(failed)?
            .map_or(Ok(()), |why| {
                Err(
                    Error::refused(format!("{shown} cannot be exchanged as a whole: {why}"))
                        .hint(in_place),
                )
            })?;
    }

    let parent = place
        .path
        .parent()
        .unwrap_or(Path::new("/"))
        .display()
        .to_string();

    try_exchange(tree, root, &place).map_err(|e| match e {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Error::refused(format!(
            "{shown} cannot be exchanged as a whole: this daemon cannot \
             write to {parent}: {e}"
        ))
        .hint(format!(
            "write swap = true in its [[tree]], let the daemon write to \
             {parent}, or {in_place}"
        )),
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => Error::refused(format!(
            "{shown} cannot be exchanged as a whole: the filesystem of {parent} has no exchange \
             of two names"
        ))
        .hint(in_place),
        Errno::XDEV => Error::refused(format!(
            "{shown} cannot be exchanged as a whole: {} is on another filesystem than {parent}",
            tree.state.path().display()
        ))
        .hint(format!(
            "set state_dir to a directory on the filesystem of {parent}, or {in_place}"
        )),
        e => Error::io("cannot try an exchange in", &parent, e).hint(in_place),
    })
}

fn try_exchange(tree: &Worktree, root: &Root, place: &RootPlace) -> rustix::io::Result<()> {
    let state = tree.state.handle();
    let parent = place.parent.as_fd();
    let other = CString::new(format!(".makuo-probe-{}", tree.name())).map_err(|_| Errno::INVAL)?;
    let gone = |dir: BorrowedFd<'_>, name: &std::ffi::CStr| match rustix::fs::unlinkat(
        dir,
        name,
        AtFlags::REMOVEDIR,
    ) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    };

    // Left by an interrupted probe, or put there by others.
    discard(state, PROBE).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    gone(parent, &other)?;
    rustix::fs::mkdirat(state, PROBE, Mode::RWXU)?;

    // As in the next tree: a directory may refuse entries of another project.
    if let (Ok(live), Ok(probe)) = (root.dir(None), open_dir_at(state, PROBE))
        && let Some(marks) = ProjectFlags::of(live.as_fd())
    {
        let _ = marks.set(probe.as_fd());
    }

    let tried = rustix::fs::mkdirat(parent, &other, Mode::RWXU).and_then(|()| {
        let tried = tree.crash.exchange(state, PROBE, parent, &other);
        tried.and(gone(parent, &other))
    });
    if tried.is_err() {
        let _ = gone(parent, &other);
    }

    tried.and(discard(state, PROBE).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)))
}
