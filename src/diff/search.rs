//! The second pass: where the blocks that the release needs lie on the host already.

use std::collections::{HashMap, HashSet};

use super::plan::ranges;
use super::{Have, LocalBlock, Plan, Refusal};
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::EntryKind;

/// The distinct blocks of the files that are made anew, each by its first ordinal.
#[derive(Default)]
pub(super) struct Needed(HashMap<BlockHash, (Ordinal, u32)>);

impl Needed {
    pub(super) fn add(&mut self, first: Ordinal, blocks: &[BlockRef]) {
        for (block, ordinal) in blocks.iter().zip(first.0..) {
            self.0.entry(block.hash).or_insert((Ordinal(ordinal), block.size));
        }
    }

    /// Looks for the blocks in the host's own files; the rest is what the plan fetches.
    pub(super) fn find_in(mut self, have: &dyn Have, plan: &mut Plan) -> Result<(), Refusal> {
        if !self.0.is_empty() {
            let names: HashSet<BlockHash> = self.0.keys().copied().collect();
            for entry in have.holding(&names) {
                let entry = entry?;
                let EntryKind::File(content) = &entry.kind else { continue };
                let mut offset = 0;
                for block in have.blocks(content)? {
                    if let Some((_, size)) = self.0.remove(&block.hash) {
                        plan.summary.reuse_bytes += u64::from(size);
                        plan.reuse.insert(block.hash, LocalBlock { path: entry.path.clone(), offset, size });
                    }
                    offset += u64::from(block.size);
                }
                if self.0.is_empty() {
                    break;
                }
            }
        }
        plan.summary.fetch_bytes = self.0.values().map(|&(_, size)| u64::from(size)).sum();
        plan.fetch = self.0.into_iter().map(|(hash, (ordinal, size))| (ordinal, BlockRef { hash, size })).collect();
        plan.wants = ranges(plan.fetch.keys().map(|o| o.0).collect());
        Ok(())
    }
}
