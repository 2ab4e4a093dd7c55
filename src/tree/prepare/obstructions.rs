//! Obstructions to a plan in the tree itself: found before staging, so no commit has to be undone
//! for a known reason.
//!
//! A scan skips entries that no release can hold (sockets), takes mount points for directories, and
//! does not see flags that bind even root (immutable, append-only).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;

use crate::diff::{Action, Change, Plan, Shape, TopChange};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::TreePath;
use crate::tree::fs::dir::{join, names_in, stat};
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::{Root, open_dir_at};
use crate::tree::fs::stat::{FileStat, mount_of};
use crate::tree::state::worktree::Worktree;

/// Refuses an obstruction where `plan` creates or removes an entry, and names it.
pub(crate) fn check(tree: &Worktree, plan: &Plan) -> Result<()> {
    let root = tree.root();
    let mount = mount_of(root.as_fd()).context("cannot look at", root.path())?;
    let mut dirs = DirCursor::default();
    let way = ObstructionCheck {
        root: &root,
        plan,
        mount,
    };

    for change in plan.changes.iter().filter(|c| c.is_applied()) {
        way.check(&mut dirs, &change)?;
    }

    if plan.top.as_ref().is_some_and(TopChange::differs) {
        way.fixed(
            None,
            &FileStat::of(&root).context("cannot look at", root.path())?,
        )?;
    }

    Ok(())
}

struct ObstructionCheck<'a> {
    root: &'a Root,
    plan: &'a Plan,
    mount: (u64, Option<u64>),
}

impl ObstructionCheck<'_> {
    /// Checks the entry at the path of `change`. `dirs` has no handle of a directory that does not
    /// exist yet.
    fn check(&self, dirs: &mut DirCursor<Option<OwnedFd>>, change: &Change) -> Result<()> {
        let Some(parent) = dirs.parent_by(&change.path, || self.parent(&change.path))? else {
            return Ok(());
        };

        let failed = |e: io::Error| Error::io("cannot look at", self.root.shown(&change.path), e);
        let name = CString::new(change.path.name()).map_err(|e| failed(e.into()))?;
        let Some(found) = stat(parent.as_fd(), &name).map_err(failed)? else {
            return Ok(());
        };

        self.fixed(Some(&change.path), &found)?;
        if change.action == Action::Meta {
            return Ok(());
        }

        if found.is_mount_root() {
            return Err(self.mounted(&change.path));
        }

        if change.action == Action::Create {
            return Err(self.in_the_way(&change.path, found.file_type));
        }

        if change.was == Some(Shape::Directory) && found.file_type == FileType::Directory {
            let dir = open_dir_at(parent.as_fd(), &name).map_err(failed)?;
            self.leaves_empty(&change.path, dir)?;
        }

        Ok(())
    }

    /// Parent directory of `path`, unless the plan creates it.
    fn parent(&self, path: &TreePath) -> Result<Option<OwnedFd>> {
        let handle = match self.root.parent(path) {
            Ok((handle, _)) => handle,
            // A symbolic link may become a directory.
            Err(e) if is_gone(&e) => return Ok(None),
            Err(e) => return Err(Error::io("cannot look at", self.root.shown(path), e)),
        };

        let mount = mount_of(handle.as_fd())
            .map_err(|e| Error::io("cannot look at", self.root.shown(path), e))?;
        if mount != self.mount {
            return Err(self.mounted(path));
        }

        let above = FileStat::of(&handle)
            .map_err(|e| Error::io("cannot look at", self.root.shown(path), e))?;
        self.fixed(path.parent().as_ref(), &above)?;

        Ok(Some(handle))
    }

    /// Refuses an entry that a filesystem flag protects even from root.
    fn fixed(&self, path: Option<&TreePath>, found: &FileStat) -> Result<()> {
        let Some(flag) = found.fixed() else {
            return Ok(());
        };

        let shown = path.map_or_else(
            || self.root.path().display().to_string(),
            |path| self.root.printed(path),
        );
        Err(
            Error::refused(format!("{shown} is {flag}, and the release changes it")).hint(
                "clear its flag (chattr -i -a), exclude it in the spec, or protect it on the host",
            ),
        )
    }

    /// Returns whether everything in a directory to remove is known to go.
    fn leaves_empty(&self, path: &TreePath, dir: OwnedFd) -> Result<()> {
        let mut names = names_in(dir.as_fd())
            .map_err(|e| Error::io("cannot list", self.root.shown(path), e))?;

        // Lookups in a plan are cheapest in its own order.
        names.sort_unstable();
        for name in names {
            let child = join(Some(path), &name)?;
            let planned = self.plan.changes.find(&child);
            if planned.is_none_or(|at| !self.plan.changes.get(at).is_applied()) {
                let found = stat(dir.as_fd(), &name)
                    .map_err(|e| Error::io("cannot look at", self.root.shown(&child), e))?;
                if let Some(found) = found {
                    return Err(self.in_the_way(&child, found.file_type));
                }
            }
        }

        Ok(())
    }

    fn mounted(&self, path: &TreePath) -> Error {
        Error::refused(format!(
            "{}: a filesystem is mounted here, and a release changes one filesystem",
            self.root.printed(path)
        ))
        .hint("unmount it, exclude it in the spec, or protect it on the host")
    }

    fn in_the_way(&self, path: &TreePath, kind: FileType) -> Error {
        let shown = self.root.printed(path);
        match kind {
            FileType::Socket => Error::refused(format!("{shown}: a socket is in the way")).hint(
                "end the process that it belongs to and remove it, or exclude it in the spec",
            ),
            _ => Error::refused(format!(
                "{shown}: something was put there since the tree was compared"
            ))
            .hint("deploy again"),
        }
    }
}
