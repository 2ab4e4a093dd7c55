//! Attributes of staged items that the release does not govern: those of what is replaced, or of the directory.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};

use super::super::apply::{add_xattrs, handle_of};
use super::super::inherit::Inheritance;
use super::super::state::slot_name;
use super::super::sys;
use super::{Item, Stage};
use crate::diff::{Action, Change, Shape};
use crate::error::Result;

impl Stage {
    /// Gives every item the attributes that a file in its place would have had.
    ///
    /// It comes last, so that what changes while blocks are fetched is not lost.
    pub(super) fn settle_attributes(&self) -> Result<()> {
        let root = self.tree.root();
        let mut inheritance = Inheritance::new(&root, &self.plan);
        let failed = |item, e| self.failed("cannot set attributes of", item, e);
        let Some(first) = self.items.first() else { return Ok(()) };
        if !inheritance.has_attributes().map_err(|e| failed(first, e))? {
            return Ok(());
        }
        for item in &self.items {
            let change = self.plan.changes.get(item.change());
            self.settle(&mut inheritance, item, &change).map_err(|e| failed(item, e))?;
        }
        Ok(())
    }

    fn settle(&self, inheritance: &mut Inheritance<'_>, item: &Item, change: &Change) -> io::Result<()> {
        let shape = change.shape();
        // A further name has what the file has.
        if shape == Shape::Hardlink {
            return Ok(());
        }
        let given = inheritance.of(change.path.parent().as_ref())?;
        // A file of another project cannot be renamed into the directory.
        if let Some(project) = given.project().filter(|_| shape == Shape::File) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(self.tree.state.stage(), slot_name(item.slot), flags, Mode::empty())?;
            sys::set_project(file.as_fd(), project)?;
        }
        let xattrs = match change.action {
            // A copy was made with all of it.
            Action::Meta => return Ok(()),
            // Of a further name only a look says what it is.
            Action::Update if change.was != Some(Shape::Hardlink) || inheritance.is_kind(&change.path, shape)? => {
                match inheritance.kept(change) {
                    // It went away meanwhile.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                    kept => kept?,
                }
            }
            _ => given.xattrs(change),
        };
        let Some(want) = change.want.as_ref().filter(|_| !xattrs.is_empty()) else { return Ok(()) };
        let handle = handle_of(self.tree.state.stage(), &slot_name(item.slot))?;
        add_xattrs(handle.as_fd(), want.entry.mode, &xattrs)
    }
}
