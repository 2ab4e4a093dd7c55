//! Files that an aborted session began: continued in place, with their intact blocks.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;

use super::Stage;
use super::layout::has;
use crate::block::BlockRef;
use crate::diff::BlockLists as _;
use crate::error::Result;
use crate::manifest::{Content, Mode};
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::metadata::{Metadata, handle_of};
use crate::tree::fs::sparse;
use crate::tree::prepare::items::StagedItem;
use crate::tree::prepare::resume::ResumableBlocks;

impl Stage {
    /// Continues the items in `resumed`, whose slots an aborted session filled in part, and moves
    /// all other remains to their new targets.
    pub(super) fn take_over(
        &mut self,
        mut resumable: ResumableBlocks,
        resumed: &[usize],
    ) -> Result<()> {
        for &at in resumed {
            let item = &self.items[at];
            self.resume(at, item, &resumable)
                .map_err(|e| self.failed("cannot go on with", item, e))?;
        }

        resumable.retain(|hash| !has(&self.targets, hash));
        let moved = self.take(|found| resumable.for_each(found))?;
        if moved || !resumed.is_empty() {
            self.drop_wants()?;
        }

        // Until here, the old log describes the same blocks as the new one.
        self.log.close();
        resumable.remove(&self.tree.state)
    }

    fn resume(&self, at: usize, item: &StagedItem, resumable: &ResumableBlocks) -> io::Result<()> {
        // It may have been complete, with owner and mode of a release that is not wanted any more.
        let private = Metadata {
            mode: Some(Mode::from_bits(0o600)),
            uid: Some(nix::unistd::geteuid().as_raw()),
            gid: Some(nix::unistd::getegid().as_raw()),
            xattrs: Some(Vec::new()),
            ..Metadata::default()
        };

        private.set(handle_of(self.tree.state.stage(), &slot_name(item.slot))?)?;
        let file = self.open_slot(item)?;
        if file.metadata()?.len() > item.size {
            file.set_len(item.size)?;
        }

        let mut right = Vec::new();
        let mut wrong = Vec::new();

        let mut offset = 0;
        let mut bytes = Vec::new();
        self.each_block(item, |nth, block| {
            bytes.resize(block.size as usize, 0);
            let is_right = resumable.is_at(&block.hash, offset, item.slot)
                && file.read_exact_at(&mut bytes, offset).is_ok()
                && block.matches(&bytes);
            match is_right {
                true => right.push((nth, *block, offset)),
                false => sparse::extend(&mut wrong, offset..offset + u64::from(block.size)),
            }
            offset += u64::from(block.size);
        })?;

        // Zeros are not written, so other bytes in their place must go.
        for range in wrong {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(&file, flags, range.start, range.end - range.start).is_err() {
                return file.set_len(0);
            }
        }

        for (nth, block, offset) in &right {
            self.targets.mark_present(at, *nth, block, *offset);
            self.log
                .add(&block.hash, block.size as usize, item.slot, *offset);
        }

        let found = right.len() as u32;
        if item.left.fetch_sub(found, Ordering::AcqRel) == found {
            file.set_len(item.size)?;
            self.seal(item, &file)?;
        }

        Ok(())
    }

    fn each_block(
        &self,
        item: &StagedItem,
        mut each: impl FnMut(u32, &BlockRef),
    ) -> io::Result<()> {
        let change = self.plan.changes.get(item.change());
        let mut nth = 0..;
        let mut all = |blocks: &[BlockRef]| {
            blocks
                .iter()
                .zip(&mut nth)
                .for_each(|(block, nth)| each(nth, block))
        };

        match self.plan.content(&change) {
            None => {}
            Some(Content::Blocks(blocks)) => all(blocks),
            Some(Content::Lists(lists)) => {
                for list in lists {
                    all(&self.targets.lists().list(list).map_err(io::Error::other)?);
                }
            }
        }

        Ok(())
    }
}
