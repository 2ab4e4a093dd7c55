//! Directories that bar their own user: opened for a scan, and barred again when it ends.
//!
//! A release may bring a directory of mode 000. Without root's rights the daemon that made it could not look into it
//! again, and no later release could be compared with the tree.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::FileType;

use crate::manifest::{Mode, TreePath};
use crate::tree::apply::{chmod, handle_of};
use crate::tree::meta::{FileStat, locked};
use crate::tree::root::Root;

/// What the owner of a directory needs to list it and to look at what is in it.
const LISTED: u32 = 0o500;

/// The directories that are open for now, with the modes that they get back.
#[derive(Debug)]
pub(super) struct Barred {
    opens: bool,
    opened: Mutex<Vec<(OwnedFd, Mode)>>,
}

impl Barred {
    /// None yet; none at all unless `opens`.
    pub(super) fn new(opens: bool) -> Self {
        Self { opens, opened: Mutex::default() }
    }

    /// As [`Root::dir`]; a directory of this user that bars it is opened first.
    pub(super) fn dir(&self, root: &Root, path: Option<&TreePath>) -> io::Result<OwnedFd> {
        let opened = root.dir(path);
        let Some(path) = path.filter(|_| self.opens) else { return opened };
        let is_barred = match &opened {
            Ok(dir) => FileStat::of(dir)?.mode.bits() & LISTED != LISTED,
            Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
        };
        if is_barred && self.open(root, path)? { root.dir(Some(path)) } else { opened }
    }

    /// Opens the directory; false when that is not this user's to do, or not needed.
    fn open(&self, root: &Root, path: &TreePath) -> io::Result<bool> {
        let (parent, name) = root.parent(path)?;
        let handle = handle_of(parent.as_fd(), &name)?;
        let mut opened = locked(&self.opened);
        let now = FileStat::of(&handle)?;
        if now.file_type != FileType::Directory || now.mode.bits() & LISTED == LISTED {
            return Ok(false);
        }
        match chmod(handle.as_fd(), Mode::from_bits(now.mode.bits() | LISTED)) {
            // Another user's: it may let this one in by other bits.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            done => {
                done?;
                opened.push((handle, now.mode));
                Ok(true)
            }
        }
    }
}

impl Drop for Barred {
    fn drop(&mut self) {
        for (handle, mode) in locked(&self.opened).drain(..).rev() {
            if let Err(e) = chmod(handle.as_fd(), mode) {
                tracing::warn!("a directory of mode {:o} stays open to its owner: {e}", mode.bits());
            }
        }
    }
}
