//! Overlay filesystems, as used for container images: a lower layer cannot be changed, only
//! covered.
//!
//! A directory of a lower layer cannot be renamed (EXDEV) unless the mount has `redirect_dir=on`. A
//! directory to remove is empty by then: an empty stand-in is created in the undo directory, and
//! the directory is removed. Whole trees cannot be exchanged this way and are refused before
//! staging.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, renameat};
use rustix::io::Errno;

use super::executor::Runner;
use crate::manifest::TreePath;
use crate::tree::fs::dir::{discard, rename_new, slot_name, stat};
use crate::tree::fs::metadata::{Metadata, handle_of};
use crate::tree::fs::stat::FileStat;
use crate::tree::state::worktree::Worktree;

/// Name of the probe in the state directory.
const LAYER_PROBE: &CStr = c"probe";

/// Reason why the directory `name` in `parent` cannot be exchanged, if known.
pub(crate) fn check_exchange(
    tree: &Worktree,
    parent: BorrowedFd<'_>,
    name: &CStr,
) -> io::Result<Option<&'static str>> {
    let file = FileStat::of(tempfile::tempfile_in(tree.state().here())?)?;
    if file.id.dev != FileStat::of(tree.state.handle())?.id.dev {
        // After a crash, the inode of a directory tells the two trees apart.
        return Ok(Some(
            "its overlay filesystem gives directories other inode numbers after a restart (mount \
             it with xino=on)",
        ));
    }

    // A rename onto a non-empty directory never succeeds, so the error shows the first obstacle.
    let state = tree.state.handle();

    discard(state, LAYER_PROBE)?;
    rustix::fs::mkdirat(state, LAYER_PROBE, Mode::RWXU)?;
    let probe = handle_of(state, LAYER_PROBE)?;
    rustix::fs::mkdirat(&probe, c"full", Mode::RWXU)?;
    let tried = renameat(parent, name, state, LAYER_PROBE);
    discard(state, LAYER_PROBE)?;

    match tried {
        Err(Errno::XDEV) => Ok(Some(
            "it is in a lower layer of an overlay filesystem (mount it with redirect_dir=on)",
        )),
        _ => Ok(None),
    }
}

/// Temporary name of the stand-in for a slot's directory.
fn stand_in(slot: u64) -> CString {
    CString::new(format!("{slot}.new")).expect("digits have no NUL")
}

impl Runner<'_> {
    /// Removes the directory at `path`, which cannot be moved, and leaves a stand-in in the slot.
    pub(crate) fn leave_stand_in(&mut self, path: &TreePath, slot: u64) -> io::Result<()> {
        let undo = Rc::clone(&self.undo);
        let spare = stand_in(slot);
        let (parent, last) = self.parent(path)?;
        let now = Metadata::present(parent, &last, true)?;
        match rustix::fs::mkdirat(&*undo, &spare, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }

        now.set(handle_of(undo.as_fd(), &spare)?)?;
        rustix::fs::fsync(&*undo)?;

        self.tree.crash.point()?;
        let (parent, last) = self.parent(path)?;
        rustix::fs::unlinkat(parent, &last, AtFlags::REMOVEDIR)?;

        self.finish_stand_in(slot)
    }

    /// Gives the stand-in for a removed directory its final name, if there is one.
    pub(crate) fn finish_stand_in(&mut self, slot: u64) -> io::Result<()> {
        let undo = Rc::clone(&self.undo);
        let spare = stand_in(slot);
        if stat(undo.as_fd(), &spare)?.is_some() {
            self.tree.crash.point()?;
            renameat(&*undo, &spare, &*undo, slot_name(slot))?;
        }
        Ok(())
    }

    /// Moves the stand-in for a directory into its place, unless the directory is still there.
    pub(crate) fn take_stand_in(&mut self, path: &TreePath, slot: u64) -> io::Result<()> {
        let undo = Rc::clone(&self.undo);
        let spare = stand_in(slot);
        if stat(undo.as_fd(), &spare)?.is_none() {
            return Ok(());
        }

        self.tree.crash.point()?;
        let (parent, last) = self.parent(path)?;
        match rename_new(undo.as_fd(), &spare, parent, &last) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                rustix::fs::unlinkat(&*undo, &spare, AtFlags::REMOVEDIR)?;
            }
            done => done?,
        }

        Ok(())
    }
}
