//! The second pass: finds needed blocks that the host already has.

use super::{Have, LocalBlock, Plan, Refusal, Want, unreadable};
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::read::check_count;
use crate::manifest::{Content, EntryKind};

/// Distinct blocks of created files, each by its first ordinal.
#[derive(Default)]
pub(super) struct Needed(Vec<(Ordinal, BlockRef)>);

impl Needed {
    fn add(&mut self, first: Ordinal, blocks: &[BlockRef]) {
        self.0.extend(
            blocks
                .iter()
                .zip(first.0..)
                .map(|(block, ordinal)| (Ordinal(ordinal), *block)),
        );
    }

    /// Adds the blocks of a file in the release `want`; `first` is the ordinal of its first block.
    pub(super) fn add_file(
        &mut self,
        mut first: Ordinal,
        content: &Content,
        want: &dyn Want,
    ) -> Result<(), Refusal> {
        if let Content::Blocks(blocks) = content {
            self.add(first, blocks);
            return Ok(());
        }

        check_count(content).map_err(unreadable)?;
        for piece in content.pieces() {
            let blocks = want.blocks(&piece)?;
            self.add(first, &blocks);
            first.0 += blocks.len() as u64;
        }

        Ok(())
    }

    /// Looks for the blocks in the host's own files; the plan fetches the rest.
    pub(super) fn find_in(mut self, have: &dyn Have, plan: &mut Plan) -> Result<(), Refusal> {
        self.0
            .sort_unstable_by_key(|(ordinal, block)| (block.hash, *ordinal));
        self.0.dedup_by_key(|(_, block)| block.hash);
        self.0.shrink_to_fit();
        let mut here = vec![false; self.0.len()];
        let mut left = self.0.len();

        if left > 0 {
            let wanted =
                |hash: &BlockHash| self.0.binary_search_by(|(_, block)| block.hash.cmp(hash));
            for entry in have.holding(&mut self.0.iter().map(|(_, block)| &block.hash)) {
                let entry = entry?;
                let EntryKind::File(content) = &entry.kind else {
                    continue;
                };
                let mut offset = 0;
                for piece in content.pieces() {
                    for block in have.blocks(&piece)? {
                        if let Ok(at) = wanted(&block.hash)
                            && !std::mem::replace(&mut here[at], true)
                        {
                            left -= 1;
                            plan.summary.reuse_bytes += u64::from(block.size);
                            let place = LocalBlock {
                                path: entry.path.clone(),
                                offset,
                                size: block.size,
                            };
                            plan.reuse.insert(block.hash, place);
                        }
                        offset += u64::from(block.size);
                    }
                }
                if left == 0 {
                    break;
                }
            }
        }

        let mut found = here.into_iter();
        self.0.retain(|_| !found.next().unwrap_or(false));
        plan.set_fetch(self.0);

        Ok(())
    }
}
