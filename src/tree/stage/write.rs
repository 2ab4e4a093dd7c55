//! Blocks written into the slots of a stage. The last block of a file seals it with its metadata.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::Stage;
use crate::block::{BlockHash, BlockRef};
use crate::error::Result;
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::metadata::Metadata;
use crate::tree::fs::sparse;
use crate::tree::fs::stat::FileStat;
use crate::tree::prepare::items::StagedItem;
use crate::tree::prepare::space;

/// Smallest file whose space is preallocated, in bytes.
const PREALLOCATE_FROM: u64 = 1 << 20;

impl Stage {
    /// Preallocates the space of large files. [`Stage::begin`] checked that there is enough; this
    /// may run while the first blocks arrive.
    pub fn reserve(&self) -> Result<()> {
        if space::is_memory(&self.tree) {
            return Ok(());
        }

        for item in self
            .items
            .iter()
            .filter(|i| i.size >= PREALLOCATE_FROM && i.left.load(Ordering::Acquire) > 0)
        {
            let file = self
                .open_slot(item)
                .map_err(|e| self.failed("cannot stage", item, e))?;
            for data in item.data() {
                let length = data.end - data.start;
                match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, data.start, length) {
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                    Err(e) => return Err(self.failed("cannot take space for", item, e.into())),
                }
            }
        }

        Ok(())
    }

    /// Writes a verified block to all its targets.
    pub(super) fn place(&self, hash: &BlockHash, bytes: &[u8]) -> Result<()> {
        let is_hole = sparse::is_hole(&BlockRef {
            hash: *hash,
            size: bytes.len() as u32,
        });

        for target in self.targets.of(hash)? {
            if !target.claim() {
                continue;
            }
            let item = &self.items[target.item];
            let done = if is_hole {
                self.leave_out(item)
            } else {
                self.write(item, target.offset, bytes)
            };
            target.finish(done.is_ok());
            done.map_err(|e| self.failed("cannot stage", item, e))?;
            if !is_hole {
                self.log.add(hash, bytes.len(), item.slot, target.offset);
            }
        }

        Ok(())
    }

    /// Writes one block; the last block of a file seals it.
    fn write(&self, item: &StagedItem, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.open_slot(item)?;
        sparse::write(&file, bytes, offset)?;
        self.count(item, || Ok(file))
    }

    /// Skips a block of a long hole; a file can have millions.
    fn leave_out(&self, item: &StagedItem) -> io::Result<()> {
        self.count(item, || self.open_slot(item))
    }

    /// Counts a present block; the last one seals the file.
    fn count(&self, item: &StagedItem, file: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        if item.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }

        let seal = || {
            let file = file()?;
            let now = FileStat::of(&file)?;
            // It may end with a hole.
            if now.size != item.size {
                file.set_len(item.size)?;
            }
            self.seal_over(item, &file, &now)
        };

        seal().inspect_err(|_| {
            item.left.fetch_add(1, Ordering::AcqRel);
        })
    }

    /// Opens the slot for writing, and creates its file if it is missing.
    pub(super) fn open_slot(&self, item: &StagedItem) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = rustix::fs::Mode::from_raw_mode(item.mode.bits());
        Ok(File::from(rustix::fs::openat(
            self.tree.state.stage(),
            slot_name(item.slot),
            flags,
            mode,
        )?))
    }

    /// Sets the release's metadata on the item.
    pub(super) fn seal(&self, item: &StagedItem, handle: impl AsFd) -> io::Result<()> {
        let now = FileStat::of(&handle)?;
        self.seal_over(item, handle, &now)
    }

    /// Sets the release's metadata on the item, whose status is `now`.
    fn seal_over(&self, item: &StagedItem, handle: impl AsFd, now: &FileStat) -> io::Result<()> {
        Metadata::wanted(&self.plan.changes.get(item.change()), &self.plan)
            .set_over(handle.as_fd(), now)?;
        item.ino.store(now.id.ino, Ordering::Release);
        Ok(())
    }
}
