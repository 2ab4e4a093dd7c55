//! Whole files that the tree has under another name: a clone shares the space of the original
//! (reflinks: btrfs, XFS and others) and is verified. On other filesystems, or if the file changed,
//! blocks are copied instead.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Stage;
use crate::block::{BlockHash, BlockRef};
use crate::diff::{BlockLists as _, Change};
use crate::error::Result;
use crate::manifest::{Content, TreePath};
use crate::tree::prepare::items::StagedItem;

/// Result of an attempt to clone a file.
enum Cloned {
    Yes,
    /// The file is not as expected.
    No,
    /// The filesystem cannot clone.
    Never,
}

impl Stage {
    /// Clones all suitable files; returns their number.
    pub(super) fn clone_files(&self) -> Result<u64> {
        let mut count = 0;
        if self.plan.reuse.is_empty() {
            return Ok(0);
        }

        for (at, item) in self.items.iter().enumerate() {
            // No block may be written yet: a clone would overwrite it.
            if item.blocks == 0 || item.left.load(Ordering::Acquire) != item.blocks {
                continue;
            }
            let change = self.plan.changes.get(item.change());
            let blocks = self.blocks(&change)?;
            let Some(twin) = self.twin(&blocks) else {
                continue;
            };
            match self
                .clone_file(at, item, &blocks, twin)
                .map_err(|e| self.failed("cannot stage", item, e))?
            {
                Cloned::Yes => count += 1,
                Cloned::No => {}
                Cloned::Never => break,
            }
        }

        Ok(count)
    }

    /// All blocks of the file that `change` creates; none if the tree lacks the first, since there
    /// is no twin then.
    fn blocks(&self, change: &Change) -> Result<Vec<BlockRef>> {
        let mut all = Vec::new();
        match self.plan.content(change) {
            None => {}
            Some(Content::Blocks(blocks)) => all.extend_from_slice(blocks),
            Some(Content::Lists(lists)) => {
                for list in lists {
                    all.extend_from_slice(&self.targets.lists().list(list)?);
                    if all
                        .first()
                        .is_none_or(|first| !self.plan.reuse.contains_key(&first.hash))
                    {
                        return Ok(Vec::new());
                    }
                }
            }
        }

        Ok(all)
    }

    /// A file of the tree with most of the blocks at the same offsets.
    fn twin(&self, blocks: &[BlockRef]) -> Option<&TreePath> {
        let path = &self.plan.reuse.get(&blocks.first()?.hash)?.path;
        let mut offset = 0;
        let fits = blocks.iter().filter(|block| {
            let here = self
                .plan
                .reuse
                .get(&block.hash)
                .is_some_and(|l| l.path == *path && l.offset == offset);
            offset += u64::from(block.size);
            here
        });
        (fits.count() * 2 > blocks.len()).then_some(path)
    }

    fn clone_file(
        &self,
        at: usize,
        item: &StagedItem,
        blocks: &[BlockRef],
        twin: &TreePath,
    ) -> io::Result<Cloned> {
        let Ok(original) = self.tree.root().open_file(twin) else {
            return Ok(Cloned::No);
        };

        if original.metadata()?.len() != item.size {
            return Ok(Cloned::No);
        }

        let clone = self.open_slot(item)?;
        match rustix::fs::ioctl_ficlone(&clone, &original) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY | Errno::INVAL | Errno::XDEV) => {
                return Ok(Cloned::Never);
            }
            Err(e) => return Err(e.into()),
        }

        if !holds(&clone, blocks)? {
            clone.set_len(0)?;
            return Ok(Cloned::No);
        }

        self.seal(item, &clone)?;
        let mut offset = 0;
        for (block, nth) in blocks.iter().zip(0..) {
            self.targets.mark_present(at, nth, block, offset);
            self.log
                .add(&block.hash, block.size as usize, item.slot, offset);
            offset += u64::from(block.size);
        }

        item.left.store(0, Ordering::Release);
        Ok(Cloned::Yes)
    }
}

/// Returns whether the file consists of these blocks.
fn holds(file: &File, blocks: &[BlockRef]) -> io::Result<bool> {
    let mut bytes = Vec::new();
    let mut offset = 0;
    for block in blocks {
        bytes.resize(block.size as usize, 0);
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) if BlockHash::of(&bytes) == block.hash => {}
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => return Ok(false),
        }
        offset += u64::from(block.size);
    }

    Ok(true)
}
