//! Directories whose mode bars their own user: opened for a scan or a preflight check, restored
//! afterwards.
//!
//! A release may create a directory of mode 000. A daemon without root's rights could not enter
//! such a directory again, and no later release could be compared or staged.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::FileType;

use super::errors::is_gone;
use super::metadata::{chmod, handle_of};
use super::owners::Rights;
use super::root::Root;
use super::stat::FileStat;
use crate::diff::{Plan, Shape};
use crate::error::{Error, Result};
use crate::manifest::{Mode, TreePath};
use crate::sync::locked;

/// Bits that an owner needs to list a directory and to look up names.
const LIST_AND_LOOK: u32 = 0o500;

/// Hint for trees with directories that an ordinary user cannot enter.
pub(crate) const IN_PLACE_HINT: &str =
    "run the daemon as root, or set commit.layout = \"in-place\" in the spec";

/// Directories that are open at present, with the modes to restore.
#[derive(Debug)]
pub(crate) struct OpenedDirs {
    opens: bool,
    opened: Mutex<Vec<OpenedDir>>,
}

#[derive(Debug)]
struct OpenedDir {
    path: TreePath,
    handle: OwnedFd,
    mode: Mode,
}

impl OpenedDirs {
    /// Starts with no directory open; opens none unless `opens`.
    pub(crate) fn new(opens: bool) -> Self {
        Self {
            opens,
            opened: Mutex::default(),
        }
    }

    /// Opens the directories on the way to everything that `plan` changes, removes or copies.
    pub(crate) fn of_plan(root: &Root, plan: &Plan) -> Result<Self> {
        let barred = Self::new(!Rights::of_process().overrides_modes());
        if !barred.opens {
            return Ok(barred);
        }

        let mut seen = HashSet::new();
        for change in plan.changes.iter().filter(|c| c.is_applied()) {
            let own = (change.was == Some(Shape::Directory)).then(|| change.path.clone());
            barred.open_down_to(root, own.or_else(|| change.path.parent()), &mut seen)?;
        }

        for local in plan.reuse.values() {
            barred.open_down_to(root, local.path.parent(), &mut seen)?;
        }

        Ok(barred)
    }

    /// Opens the directory and its ancestors, outermost first.
    fn open_down_to(
        &self,
        root: &Root,
        dir: Option<TreePath>,
        seen: &mut HashSet<TreePath>,
    ) -> Result<()> {
        let above =
            std::iter::successors(dir, TreePath::parent).take_while(|dir| !seen.contains(dir));
        let mut above: Vec<TreePath> = above.collect();
        while let Some(dir) = above.pop() {
            match self.open(root, &dir) {
                Ok(_) => {}
                // The plan creates the directory or replaces a link with one.
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(Error::io("cannot look at", root.shown(&dir), e)),
            }
            seen.insert(dir);
        }

        Ok(())
    }

    /// Refuses an exchange of the whole tree if any directory is open.
    pub(crate) fn refuse_exchange(&self, root: &Root) -> Result<()> {
        match self.modes().first_key_value() {
            None => Ok(()),
            Some((path, _)) => Err(Error::refused(format!(
                "{}: its mode keeps this daemon's user out, and a tree with it cannot be \
                 exchanged as a whole",
                root.printed(path)
            ))
            .hint(IN_PLACE_HINT)),
        }
    }

    /// Returns the open directories with the modes to restore.
    pub(crate) fn modes(&self) -> BTreeMap<TreePath, Mode> {
        locked(&self.opened)
            .iter()
            .map(|opened| (opened.path.clone(), opened.mode))
            .collect()
    }

    /// Like [`Root::dir`], but first opens a directory that bars this user as its owner.
    pub(crate) fn dir(&self, root: &Root, path: Option<&TreePath>) -> io::Result<OwnedFd> {
        let opened = root.dir(path);
        let Some(path) = path.filter(|_| self.opens) else {
            return opened;
        };

        let is_barred = match &opened {
            Ok(dir) => FileStat::of(dir)?.mode.bits() & LIST_AND_LOOK != LIST_AND_LOOK,
            Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
        };

        if is_barred && self.open(root, path)? {
            root.dir(Some(path))
        } else {
            opened
        }
    }

    /// Opens the directory; false if another user owns it or if no change is needed.
    fn open(&self, root: &Root, path: &TreePath) -> io::Result<bool> {
        let (parent, name) = root.parent(path)?;
        let handle = handle_of(parent.as_fd(), &name)?;
        let mut opened = locked(&self.opened);
        let now = FileStat::of(&handle)?;
        if now.file_type != FileType::Directory || now.mode.bits() & LIST_AND_LOOK == LIST_AND_LOOK
        {
            return Ok(false);
        }

        match chmod(
            handle.as_fd(),
            Mode::from_bits(now.mode.bits() | LIST_AND_LOOK),
        ) {
            // Another user's directory may still admit this user by other bits.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            done => {
                done?;
                opened.push(OpenedDir {
                    path: path.clone(),
                    handle,
                    mode: now.mode,
                });
                Ok(true)
            }
        }
    }
}

impl Drop for OpenedDirs {
    fn drop(&mut self) {
        for OpenedDir { handle, mode, .. } in locked(&self.opened).drain(..).rev() {
            if let Err(e) = chmod(handle.as_fd(), mode) {
                tracing::warn!(
                    "a directory of mode {:o} stays open to its owner: {e}",
                    mode.bits()
                );
            }
        }
    }
}
