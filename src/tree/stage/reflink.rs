//! Files that the tree has already under another name, taken over whole: the clone shares the space of the original
//! (reflinks: btrfs, XFS and others) and is verified before it counts. Where the filesystem cannot do that, or the file
//! is not what it was, blocks are copied as they are elsewhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::{Item, MISSING, Stage, WRITTEN};
use crate::block::{BlockHash, BlockRef};
use crate::error::Result;
use crate::manifest::TreePath;

/// What came of trying to clone a file.
enum Cloned {
    Yes,
    /// It is not what was expected.
    No,
    /// The filesystem has no clones.
    Never,
}

impl Stage {
    /// Clones what can be; says how many files that were.
    pub(super) fn clone_files(&self) -> Result<u64> {
        let mut count = 0;
        if self.plan.reuse.is_empty() {
            return Ok(0);
        }
        for (at, item) in self.items.iter().enumerate() {
            // Nothing of it may have been written: it would be written over.
            if item.blocks == 0 || item.left.load(Ordering::Acquire) != item.blocks {
                continue;
            }
            let change = self.plan.changes.get(item.change());
            let blocks = self.plan.blocks(&change);
            let Some(twin) = self.twin(blocks) else { continue };
            match self.clone_file(at, item, blocks, twin).map_err(|e| self.failed("cannot stage", item, e))? {
                Cloned::Yes => count += 1,
                Cloned::No => {}
                Cloned::Never => break,
            }
        }
        Ok(count)
    }

    /// A file of the tree that has most of the blocks, where they belong.
    fn twin(&self, blocks: &[BlockRef]) -> Option<&TreePath> {
        let path = &self.plan.reuse.get(&blocks.first()?.hash)?.path;
        let mut offset = 0;
        let fits = blocks.iter().filter(|block| {
            let here = self.plan.reuse.get(&block.hash).is_some_and(|l| l.path == *path && l.offset == offset);
            offset += u64::from(block.size);
            here
        });
        (fits.count() * 2 > blocks.len()).then_some(path)
    }

    fn clone_file(&self, at: usize, item: &Item, blocks: &[BlockRef], twin: &TreePath) -> io::Result<Cloned> {
        let Ok(original) = self.tree.root().open_file(twin) else { return Ok(Cloned::No) };
        if original.metadata()?.len() != item.size {
            return Ok(Cloned::No);
        }
        let clone = self.open_slot(item.slot)?;
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
        for block in blocks {
            self.written(at, item, block, offset);
            offset += u64::from(block.size);
        }
        item.left.store(0, Ordering::Release);
        Ok(Cloned::Yes)
    }

    /// One block of the item is where it belongs.
    fn written(&self, at: usize, item: &Item, block: &BlockRef, offset: u64) {
        let first = self.placements.partition_point(|p| (p.hash, p.item as usize, p.offset) < (block.hash, at, offset));
        if let Some(placement) = self.placements.get(first).filter(|p| p.item as usize == at && p.offset == offset) {
            let _ = placement.state.compare_exchange(MISSING, WRITTEN, Ordering::AcqRel, Ordering::Acquire);
            self.log.add(&block.hash, block.size as usize, item.slot, offset);
        }
    }
}

/// Whether the file is these blocks.
fn holds(file: &File, blocks: &[BlockRef]) -> io::Result<bool> {
    let (mut bytes, mut offset) = (Vec::new(), 0);
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
