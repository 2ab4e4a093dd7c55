//! The state directory of one tree: its place, its lock, and the small files inside.
//!
//! It is on the tree's own filesystem, since staged items enter the tree by rename: beside the
//! tree, or for a tree that is a mount point, in a directory inside that no release can name
//! ([`TreePath::is_reserved`]). Only this user can read it.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::location::StateLocation;
use super::reader::{FORWARD, StateReader, TOMBSTONES, inside};
use crate::error::{Error, IoResultExt as _, Result};
use crate::id::{Serial, TreeName};
use crate::tree::fs::abilities::FsAbilities;
use crate::tree::fs::dir::{
    c_name, is_overlay, names, open_dir, open_for_writing, private_dir, private_dir_at, sync_dir,
};
use crate::tree::fs::root::{FileId, Root};
use crate::tree::fs::volume::Volume;

/// Attempts at the lock, and the pause between them.
const LOCK_TRIES: usize = 20;

const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// State directory of one tree, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    records: StateReader,
    handle: OwnedFd,
    stage: OwnedFd,
    warning: Option<String>,
    is_overlay: bool,
    /// For a state inside the tree: the directory at the top of the tree that holds it.
    hidden: Option<FileId>,
    _lock: File,
}

/// Reads need no lock.
impl Deref for StateDir {
    type Target = StateReader;

    fn deref(&self) -> &StateReader {
        &self.records
    }
}

impl StateDir {
    /// Opens or creates the state directory of the tree `name` at `tree`: `state_dir`/NAME if given
    /// and on the tree's filesystem, else `.makuo`/NAME beside the tree.
    pub fn open(name: &TreeName, tree: &Root, state_dir: Option<&Path>) -> Result<Self> {
        Self::hold(name, StateLocation::choose(name, tree, state_dir)?)
    }

    /// Locks the directory, and makes the directories inside.
    fn hold(name: &TreeName, location: StateLocation) -> Result<Self> {
        let StateLocation {
            path,
            dir,
            warning,
            hidden,
        } = location;

        let lock_path = path.join("lock");
        let lock = open_for_writing(dir.as_fd(), c"lock", OFlags::empty());
        let lock = lock.context("cannot open", &lock_path)?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::refused(format!(
                    "another makuo daemon serves tree {name} ({})",
                    path.display()
                ))
                .hint("stop it first, or give this one another tree"));
            }
            Err(e) => return Err(Error::io("cannot lock", &lock_path, e)),
        }

        for sub in ["stage", "undo", "releases", TOMBSTONES] {
            private_dir_at(dir.as_fd(), Path::new(sub), &path.join(sub))?;
        }

        let handle = dir.dir(None).context("cannot open", &path)?;
        let stage = dir
            .dir(Some(&inside("stage")))
            .map_err(|e| Error::io("cannot open", path.join("stage"), e))?;
        let is_overlay = is_overlay(handle.as_fd());

        Ok(Self {
            records: StateReader::at(dir),
            handle,
            stage,
            warning,
            is_overlay,
            hidden,
            _lock: lock,
        })
    }

    /// Returns whether the path still leads to the opened directory.
    pub(crate) fn still_there(&self) -> io::Result<bool> {
        self.root().still_there()
    }

    /// Handle of the directory.
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Path of the next tree, which a commit in the layout `swap` exchanges with the live one.
    pub(crate) fn next_path(&self) -> PathBuf {
        self.here().join("next")
    }

    /// Creates an empty directory for the next tree.
    pub(crate) fn fresh_next(&self) -> Result<()> {
        self.forget_next()?;
        private_dir(&self.next_path())
    }

    /// Removes a next tree that was not committed.
    pub(crate) fn forget_next(&self) -> Result<()> {
        self.discard(self.handle(), c"next", &self.next_path())
    }

    /// Directories that belong to the state and not to the tree.
    pub fn apart(&self) -> Vec<FileId> {
        [Some(self.root().id()), self.hidden]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Returns whether the state is inside the tree, which is a mount point then.
    pub fn is_inside(&self) -> bool {
        self.hidden.is_some()
    }

    /// Returns whether state and tree are on an overlay filesystem.
    pub(crate) fn is_overlay(&self) -> bool {
        self.is_overlay
    }

    /// What the filesystem of the tree and its state can do, tried in the state directory.
    pub fn try_abilities(&self) -> FsAbilities {
        FsAbilities::try_in(self.handle())
    }

    /// The filesystem of the tree and its state.
    pub fn volume(&self) -> io::Result<Volume> {
        Volume::of(&self.stage)
    }

    /// Warning about the place of the state, for the operator.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Path of the handle in /proc; valid in this process while this value lives.
    pub fn here(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Path of the tree's index in this process.
    pub fn index_path(&self) -> PathBuf {
        self.here().join("index")
    }

    /// Directory of staged items.
    pub fn stage(&self) -> BorrowedFd<'_> {
        self.stage.as_fd()
    }

    /// Path of the directory of staged items in this process, for listings.
    pub fn stage_path(&self) -> PathBuf {
        self.here().join("stage")
    }

    /// Directory of all undo directories.
    pub(crate) fn undo_dirs(&self) -> PathBuf {
        self.here().join("undo")
    }

    /// Undo directory of `serial`: entries that its commit replaced or deleted.
    pub fn undo_path(&self, serial: Serial) -> PathBuf {
        self.undo_dirs().join(serial.to_string())
    }

    /// Opens the undo directory of a commit in progress.
    pub(crate) fn undo_dir(&self, serial: Serial) -> Result<OwnedFd> {
        let path = self.undo_path(serial);
        private_dir(&path)?;
        open_dir(&path)
    }

    /// Creates an empty undo directory and removes every other one.
    pub(crate) fn fresh_undo(&self, serial: Serial) -> Result<OwnedFd> {
        self.forget_undo()?;
        let path = self.undo_path(serial);
        private_dir(&path)?;
        sync_dir(&self.undo_dirs())?;
        open_dir(&path)
    }

    /// Removes all undo directories.
    pub fn forget_undo(&self) -> Result<()> {
        let path = self.undo_dirs();
        let undo = open_dir(&path)?;
        for name in names(&path)? {
            // The journal goes first: an undo from half a directory must not start.
            self.remove(&format!("undo/{}/{FORWARD}", name.to_string_lossy()))?;
            self.discard(undo.as_fd(), &c_name(&name)?, &path.join(&name))?;
        }

        Ok(())
    }
}

/// Waits a moment for a process that is about to end, or is between fork and exec.
fn try_lock(lock: &File) -> rustix::io::Result<()> {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            done => return done,
        }
    }
    Err(Errno::WOULDBLOCK)
}
