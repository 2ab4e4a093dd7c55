//! Attributes of staged items outside of the release: from the replaced entry, or from the
//! directory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::Stage;
use crate::diff::{Action, Change, Shape};
use crate::error::Result;
use crate::manifest::TreePath;
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::metadata::{add_xattrs, handle_of};
use crate::tree::fs::project_flags::ProjectFlags;
use crate::tree::fs::root::open_dir_at;
use crate::tree::prepare::inheritance::Inheritance;
use crate::tree::prepare::items::StagedItem;

/// Directory in the stage for entries that take their project at creation.
const NURSERY: &CStr = c"nursery";

impl Stage {
    /// Gives every item the attributes that a file created in its place would have.
    ///
    /// Runs last, so changes during the transfer are not lost.
    pub(super) fn settle_attributes(&self) -> Result<()> {
        let root = self.tree.root();
        let mut inheritance = Inheritance::new(&root, &self.plan);
        let failed = |item, e| self.failed("cannot set attributes of", item, e);
        let Some(first) = self.items.first() else {
            return Ok(());
        };

        if !inheritance.has_attributes().map_err(|e| failed(first, e))? {
            return Ok(());
        }

        // Entries created here have these values.
        let stage = ProjectFlags::of(self.tree.state.stage())
            .map(ProjectFlags::given)
            .map(|given| given.of_file(given));

        for item in &self.items {
            let change = self.plan.changes.get(item.change());
            self.settle(&mut inheritance, item, &change, stage)
                .map_err(|e| failed(item, e))?;
        }

        Ok(())
    }

    fn settle(
        &self,
        inheritance: &mut Inheritance<'_>,
        item: &StagedItem,
        change: &Change,
        stage: Option<ProjectFlags>,
    ) -> io::Result<()> {
        let shape = change.shape();
        // A further name shares the attributes of its file.
        if shape == Shape::Hardlink {
            return Ok(());
        }

        let given = inheritance.of(change.path.parent().as_ref())?;
        if let Some(marks) = given.marks().filter(|_| shape == Shape::File) {
            self.mark(inheritance, item, change, [stage.unwrap_or(marks), marks])?;
        }

        let xattrs = match change.action {
            // A copy was created with all attributes.
            Action::Meta => return Ok(()),
            // The kind of a further name is unknown without a look.
            Action::Update
                if change.was != Some(Shape::Hardlink)
                    || inheritance.is_kind(&change.path, shape)? =>
            {
                match inheritance.kept(change) {
                    // It vanished meanwhile.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                    kept => kept?,
                }
            }
            _ => given.xattrs(change),
        };

        let Some(want) = change.want.as_ref().filter(|_| !xattrs.is_empty()) else {
            return Ok(());
        };

        let handle = handle_of(self.tree.state.stage(), &slot_name(item.slot))?;
        add_xattrs(handle.as_fd(), want.entry.mode, &xattrs)
    }

    /// Gives a file with the project and flags `here` those of the replaced file, else those that
    /// its directory gives.
    fn mark(
        &self,
        inheritance: &Inheritance<'_>,
        item: &StagedItem,
        change: &Change,
        [here, given]: [ProjectFlags; 2],
    ) -> io::Result<()> {
        let is_new = matches!(change.action, Action::Create | Action::Replace);
        let had = if is_new {
            None
        } else {
            inheritance.marks_of(&change.path)
        };

        let wanted = had.unwrap_or(given).of_file(given);
        if wanted == here {
            return Ok(());
        }

        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(
            self.tree.state.stage(),
            slot_name(item.slot),
            flags,
            Mode::empty(),
        ) {
            // An ordinary user may be unable to read its own file.
            Err(Errno::ACCESS) if given.binding().is_none() => return Ok(()),
            file => file?,
        };

        if ProjectFlags::of(file.as_fd()) == Some(wanted) {
            Ok(())
        } else {
            wanted.set(file.as_fd())
        }
    }

    /// Directory in which to create an entry that is no file, so that it gets the project that
    /// `dir` gives; `None` is the stage. Its project cannot change later.
    pub(super) fn nursery(
        &self,
        inheritance: &mut Inheritance<'_>,
        dir: Option<&TreePath>,
    ) -> io::Result<Option<OwnedFd>> {
        let Some(given) = inheritance
            .of(dir)?
            .marks()
            .filter(|marks| marks.binding().is_some())
        else {
            return Ok(None);
        };

        let stage = self.tree.state.stage();
        match rustix::fs::mkdirat(stage, NURSERY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }

        let made = open_dir_at(stage, NURSERY)?;
        given.set(made.as_fd())?;
        Ok(Some(made))
    }
}
