//! Items that are copies of files in the tree with other metadata.
//!
//! A copy has the content of the release, whatever its original is by now: the content is checked
//! out of reach of others, and rights that another user granted on the original are dropped.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Stage;
use crate::diff::Change;
use crate::manifest::{Content, Mode, TreePath};
use crate::sync::locked;
use crate::tree::fs::metadata::{Metadata, chmod, handle_of};
use crate::tree::fs::sparse;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::xattrs::LABEL;
use crate::tree::prepare::inheritance::Inheritance;
use crate::tree::prepare::items::StagedItem;
use crate::tree::scan;

impl Stage {
    /// Copies a file that only gets new metadata; the original in the live tree keeps its own.
    pub(super) fn copy(
        &self,
        inheritance: &mut Inheritance<'_>,
        item: &StagedItem,
        change: &Change,
        content: &Content,
    ) -> io::Result<()> {
        let from = self.open_original(&change.path)?;
        let to = self.open_slot(item)?;
        let before = FileStat::of(&from)?.version();
        sparse::copy(&from, &to)?;
        if FileStat::of(&from)?.version() != before {
            return Err(io::Error::other("it changed while it was copied"));
        }

        // A process with a memory map writes without a trace.
        if !scan::holds(&to, content)? {
            return Err(io::Error::other(
                "its content changed since the tree was compared",
            ));
        }

        // A repeated staging copies it again, and our own operations may have changed the original
        // in between.
        *locked(&item.copied) = Some(Box::new(before));

        self.seal_copy(inheritance, change, from.as_fd(), to)
    }

    /// Opens a file of the tree, even one whose mode bars its owner.
    fn open_original(&self, path: &TreePath) -> io::Result<File> {
        let root = self.tree.root();
        let opened = root.open_file(path);
        if !opened
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
        {
            return opened;
        }

        let (parent, name) = root.parent(path)?;

        let handle = handle_of(parent.as_fd(), &name)?;
        let mode = FileStat::of(&handle)?.mode;
        chmod(handle.as_fd(), Mode::from_bits(mode.bits() | 0o400))?;
        let opened = root.open_file(path);
        chmod(handle.as_fd(), mode)?;

        opened
    }

    /// Sets the release's metadata on `to`, and for the rest those of `from` in the live tree.
    pub(super) fn seal_copy(
        &self,
        inheritance: &mut Inheritance<'_>,
        change: &Change,
        from: BorrowedFd<'_>,
        to: impl AsFd,
    ) -> io::Result<()> {
        let new = Metadata::wanted(change, &self.plan);
        let mut now = Metadata::of(from, true)?;
        if now.is_foreign_to(new.uid) {
            now = now.handed_to(new.uid);
            let given = inheritance
                .of(change.path.parent().as_ref())?
                .xattrs(change);
            let (label, given): (Vec<_>, Vec<_>) =
                given.into_iter().partition(|xattr| xattr.name == LABEL);
            now.label = label.into_iter().next().map(|label| label.value);
            let mut xattrs = now.xattrs.unwrap_or_default();
            xattrs.extend(given);
            xattrs.sort_by(|a, b| a.name.cmp(&b.name));
            now.xattrs = Some(xattrs);
        }

        let whole = Metadata {
            mode: new.mode.or(now.mode),
            uid: new.uid.or(now.uid),
            gid: new.gid.or(now.gid),
            mtime: new.mtime.or(now.mtime),
            xattrs: new.xattrs.or(now.xattrs),
            label: now.label,
        };

        whole.set(to)
    }
}
