//! Directories that bar their own user: opened for a scan or a look at what a plan changes, and barred again after it.
//!
//! A release may bring a directory of mode 000. Without root's rights the daemon that made it could not look into it
//! again, and no later release could be compared with the tree or staged.

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

/// What the owner of a directory needs to list it and to look at what is in it.
const LISTED: u32 = 0o500;

/// What to do where an ordinary user cannot look into all of a tree.
pub(crate) const IN_PLACE: &str =
    "run the daemon as root, or set commit.layout = \"in-place\" in the spec";

/// The directories that are open for now, with the modes that they get back.
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
    /// None yet; none at all unless `opens`.
    pub(crate) fn new(opens: bool) -> Self {
        Self {
            opens,
            opened: Mutex::default(),
        }
    }

    /// Opens the directories that lead to what `plan` changes, removes or copies from.
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

    /// Opens the directory and those above it, the outermost first.
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
                // The plan makes it, or puts it in the place of a link.
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(Error::io("cannot look at", root.shown(&dir), e)),
            }
            seen.insert(dir);
        }

        Ok(())
    }

    /// Refuses when there is one: a tree with it is not exchanged as a whole.
    pub(crate) fn refuse_exchange(&self, root: &Root) -> Result<()> {
        match self.modes().first_key_value() {
            None => Ok(()),
            Some((path, _)) => Err(Error::refused(format!(
                "{}: its mode keeps this daemon's user out, and a tree with it cannot be exchanged as a whole",
                root.printed(path)
            ))
            .hint(IN_PLACE)),
        }
    }

    /// The directories that were opened, with the modes that they get back.
    pub(crate) fn modes(&self) -> BTreeMap<TreePath, Mode> {
        locked(&self.opened)
            .iter()
            .map(|opened| (opened.path.clone(), opened.mode))
            .collect()
    }

    /// As [`Root::dir`]; a directory of this user that bars it is opened first.
    pub(crate) fn dir(&self, root: &Root, path: Option<&TreePath>) -> io::Result<OwnedFd> {
        let opened = root.dir(path);
        let Some(path) = path.filter(|_| self.opens) else {
            return opened;
        };

        let is_barred = match &opened {
            Ok(dir) => FileStat::of(dir)?.mode.bits() & LISTED != LISTED,
            Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
        };

        if is_barred && self.open(root, path)? {
            root.dir(Some(path))
        } else {
            opened
        }
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
