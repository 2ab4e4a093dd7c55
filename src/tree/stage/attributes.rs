//! Attributes of staged items that the release does not govern: those of what is replaced, or of the directory.

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

/// The directory in the stage for what has its project from where it is made.
const NURSERY: &CStr = c"nursery";

impl Stage {
    /// Gives every item the attributes that a file in its place would have had.
    ///
    /// It comes last, so that what changes while blocks are fetched is not lost.
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

        // What is made here has these.
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
        // A further name has what the file has.
        if shape == Shape::Hardlink {
            return Ok(());
        }

        let given = inheritance.of(change.path.parent().as_ref())?;
        if let Some(marks) = given.marks().filter(|_| shape == Shape::File) {
            self.mark(inheritance, item, change, [stage.unwrap_or(marks), marks])?;
        }

        let xattrs = match change.action {
            // A copy was made with all of it.
            Action::Meta => return Ok(()),
            // Of a further name only a look says what it is.
            Action::Update
                if change.was != Some(Shape::Hardlink)
                    || inheritance.is_kind(&change.path, shape)? =>
            {
                match inheritance.kept(change) {
                    // It went away meanwhile.
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

    /// Gives a file, which has the project and flags `here`, those of the one that it replaces, else those that its
    /// directory gives.
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
            // An ordinary user may not read what it has made.
            Err(Errno::ACCESS) if given.binding().is_none() => return Ok(()),
            file => file?,
        };

        if ProjectFlags::of(file.as_fd()) == Some(wanted) {
            Ok(())
        } else {
            wanted.set(file.as_fd())
        }
    }

    /// Where something that is no file is made so that it is of the project that `dir` gives; `None`: in the stage. No
    /// later call changes its project.
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
