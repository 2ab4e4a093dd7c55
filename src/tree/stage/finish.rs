//! The end of staging: blocks from the tree itself, links, pipes and devices, and a sync.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::Stage;
use super::layout::has;
use super::staged::Staged;
use crate::block::BlockHash;
use crate::diff::Shape;
use crate::error::{Error, Result};
use crate::manifest::rules::Layout;
use crate::manifest::{EntryKind, TreePath};
use crate::tree::commit::next_tree::NextTree;
use crate::tree::fs::dir::{MAX_SINGLE_SYNCS, slot_name, sync_dir};
use crate::tree::fs::dir_access::OpenedDirs;
use crate::tree::fs::metadata::handle_of;
use crate::tree::fs::stat::FileStat;
use crate::tree::prepare::copy_up;
use crate::tree::prepare::inheritance::Inheritance;
use crate::tree::prepare::items::{StagedItem, is_copied};

impl Stage {
    /// Ends the staging: copies blocks from the host itself, creates links, pipes and devices, and
    /// syncs everything. An error leaves the tree unchanged and aborts the stage.
    pub fn finish(self) -> Result<Staged> {
        let next = self.complete()?;
        Ok(Staged { stage: self, next })
    }

    /// Completes and syncs all items; returns the next tree, in the layout `swap`.
    fn complete(&self) -> Result<Option<NextTree>> {
        // Not in the layout `swap`: the next tree would get the temporary modes.
        let barred = (self.plan.layout == Layout::InPlace)
            .then(|| OpenedDirs::of_plan(&self.tree.root(), &self.plan));
        let _barred = barred.transpose()?;

        // Changes to files of the live tree come before their versions are recorded.
        if self.tree.state.is_overlay() {
            copy_up::all(&self.tree, &self.plan)?;
        }

        let cloned = self.clone_files()?;
        tracing::debug!(
            "tree {}: {cloned} files share the space of others",
            self.tree.name()
        );
        self.copy_local()?;
        self.make_others()?;

        self.settle_attributes()?;
        let missing: u64 = self
            .items
            .iter()
            .map(|i| u64::from(i.left.load(Ordering::Acquire)))
            .sum();

        if missing > 0 {
            return Err(Error::refused(format!(
                "{missing} blocks of the release have not come"
            )));
        }

        let next = (self.plan.layout == Layout::Swap)
            .then(|| NextTree::build(&self.tree, &self.plan, &self.items));
        let next = next.transpose()?;

        self.sync()?;
        Ok(next)
    }

    /// Copies blocks from the tree itself: read in the order of files, verified, written.
    fn copy_local(&self) -> Result<()> {
        let mut local: Vec<_> = self.plan.reuse.iter().collect();
        local.sort_by(|(_, a), (_, b)| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        let mut open: Option<(&TreePath, File)> = None;
        let mut bytes = Vec::new();

        for (hash, place) in local {
            if has(&self.targets, hash) {
                continue;
            }
            let failed = |e: io::Error| {
                Error::io("cannot read", self.tree.root().shown(&place.path), e)
                    .hint("it changed since the tree was compared: deploy again")
            };
            let file = match open.take().filter(|(path, _)| *path == &place.path) {
                Some((_, file)) => file,
                None => self.tree.root().open_file(&place.path).map_err(failed)?,
            };
            bytes.resize(place.size as usize, 0);
            file.read_exact_at(&mut bytes, place.offset)
                .map_err(failed)?;
            if BlockHash::of(&bytes) != *hash {
                return Err(failed(io::Error::other("its content is not what it was")));
            }
            self.place(hash, &bytes)?;
            open = Some((&place.path, file));
        }

        Ok(())
    }

    /// Creates empty files, links, pipes and devices; hard links last, since they need their files.
    fn make_others(&self) -> Result<()> {
        let root = self.tree.root();
        let mut inheritance = Inheritance::new(&root, &self.plan);
        for links in [false, true] {
            for item in self.items.iter().filter(|i| i.blocks == 0) {
                let change = self.plan.changes.get(item.change());
                if (item.further.is_some() || change.shape() == Shape::Hardlink) == links {
                    let made = self.make_other(&mut inheritance, item);
                    made.map_err(|e| self.failed("cannot stage", item, e))?;
                }
            }
        }

        Ok(())
    }

    fn make_other(&self, inheritance: &mut Inheritance<'_>, item: &StagedItem) -> io::Result<()> {
        let stage = self.tree.state.stage();
        let name = slot_name(item.slot);
        let change = &*self.plan.changes.get(item.change());
        let Some(entry) = change.want.as_ref().map(|w| &w.entry) else {
            return Ok(());
        };

        match rustix::fs::unlinkat(stage, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }

        if item.further.is_some() {
            let first = slot_name(
                self.first(item.change())
                    .ok_or(io::ErrorKind::NotFound)?
                    .slot,
            );
            return Ok(rustix::fs::linkat(
                stage,
                &first,
                stage,
                &name,
                AtFlags::empty(),
            )?);
        }

        let private = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let nursery = match entry.kind {
            EntryKind::Directory | EntryKind::Hardlink(_) | EntryKind::File(_) => None,
            _ => self.nursery(inheritance, change.path.parent().as_ref())?,
        };

        let place = nursery.as_ref().map_or(stage, AsFd::as_fd);
        let node = |kind, device| rustix::fs::mknodat(place, &name, kind, private, device);
        match &entry.kind {
            EntryKind::Directory => return Ok(()),
            EntryKind::Hardlink(first) => return self.link(first, &name),
            EntryKind::File(content) if is_copied(change) => {
                return self.copy(inheritance, item, change, content);
            }
            EntryKind::File(_) => return self.seal(item, self.open_slot(item)?),
            EntryKind::Symlink(target) => rustix::fs::symlinkat(target.as_slice(), place, &name)?,
            EntryKind::Fifo => node(FileType::Fifo, 0)?,
            EntryKind::CharDevice(major, minor) => node(
                FileType::CharacterDevice,
                rustix::fs::makedev(*major, *minor),
            )?,
            EntryKind::BlockDevice(major, minor) => {
                node(FileType::BlockDevice, rustix::fs::makedev(*major, *minor))?
            }
        }

        if let Some(nursery) = &nursery {
            rustix::fs::renameat(nursery, &name, stage, &name)?;
        }

        let made = handle_of(stage, &name)?;
        if !is_copied(change) {
            return self.seal(item, made);
        }

        let (parent, name) = self.tree.root().parent(&change.path)?;
        self.seal_copy(
            inheritance,
            change,
            handle_of(parent.as_fd(), &name)?.as_fd(),
            made,
        )
    }

    /// Item of the change at index `at` in the plan, to which further names refer.
    fn first(&self, at: usize) -> Option<&StagedItem> {
        self.items
            .get(self.items.partition_point(|item| item.change() < at))
            .filter(|item| item.change() == at)
    }

    /// Creates a further name of a staged file, or else of the file in the tree.
    fn link(&self, first: &TreePath, name: &std::ffi::CStr) -> io::Result<()> {
        let stage = self.tree.state.stage();
        let staged = self.plan.changes.find(first).and_then(|at| self.first(at));
        let (dir, old) = match staged {
            Some(item) => (rustix::io::dup(stage)?, slot_name(item.slot)),
            None => self.tree.root().parent(first)?,
        };

        if matches!(
            FileStat::at(dir.as_fd(), &old)?.file_type,
            FileType::Directory | FileType::Socket
        ) {
            return Err(io::Error::other(format!(
                "{first}, which it is a hard link to, is not a file"
            )));
        }

        Ok(rustix::fs::linkat(
            &dir,
            &old,
            stage,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Makes all items durable.
    fn sync(&self) -> Result<()> {
        let stage = self.tree.state.stage();
        let failed = |e: io::Error| Error::io("cannot sync", self.tree.state.stage_path(), e);
        if self.items.len() > MAX_SINGLE_SYNCS || self.plan.layout == Layout::Swap {
            return rustix::fs::syncfs(stage).map_err(|e| failed(e.into()));
        }

        for item in self
            .items
            .iter()
            .filter(|i| self.plan.changes.get(i.change()).shape() == Shape::File)
        {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(
                stage,
                slot_name(item.slot),
                flags,
                rustix::fs::Mode::empty(),
            ) {
                Ok(file) => rustix::fs::fsync(file).map_err(|e| failed(e.into()))?,
                // The file's own mode keeps this process from opening it again.
                Err(Errno::ACCESS) => {
                    return rustix::fs::syncfs(stage).map_err(|e| failed(e.into()));
                }
                Err(e) => return Err(failed(e.into())),
            }
        }

        sync_dir(&self.tree.state.stage_path())
    }
}
