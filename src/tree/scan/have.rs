//! Presents a scanned tree to the comparison with a release.

use std::ops::RangeInclusive;

use super::errors::unreadable_index;
use super::scanned::Scanned;
use crate::Result;
use crate::block::{BlockHash, BlockRef};
use crate::diff::{Have, Paged};
use crate::manifest::pages::PageKey;
use crate::manifest::{Content, Entry, Top, TreePath};
use crate::tree::index::{Index, PageRow};

/// Largest number of blocks looked up in page filters. More blocks are searched in every page, as
/// each would cost a lookup.
const MAX_FILTERED_BLOCKS: usize = 256;

impl Have for Scanned {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        Box::new(
            self.index
                .entries()
                .map(|found| found.map(|e| e.entry).map_err(unreadable_index)),
        )
    }

    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>> {
        self.index.blocks(content).map_err(unreadable_index)
    }

    fn top(&self) -> Option<&Top> {
        Some(&self.top)
    }

    fn holding(
        &self,
        blocks: &mut dyn ExactSizeIterator<Item = &BlockHash>,
    ) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        if blocks.len() > MAX_FILTERED_BLOCKS {
            return self.entries();
        }

        let blocks: Vec<BlockHash> = blocks.copied().collect();
        let mut buffer = Vec::new();
        let rows = (0..self.index.rows().len())
            .filter(move |&row| may_hold(&self.index, row, &blocks, &mut buffer));

        Box::new(rows.flat_map(|row| match self.index.page(row) {
            Ok(page) => page.into_iter().map(|e| Ok(e.entry)).collect(),
            Err(e) => vec![Err(unreadable_index(e))],
        }))
    }

    fn paged(&self) -> Option<&dyn Paged> {
        Some(self)
    }
}

impl Paged for Scanned {
    fn keys(&self) -> Vec<PageKey> {
        self.index.keys()
    }

    fn count(&self) -> u64 {
        self.index.count()
    }

    fn within(&self, bounds: &RangeInclusive<TreePath>) -> Result<Vec<Entry>> {
        self.index.within(bounds)
    }
}

impl Paged for Index {
    fn keys(&self) -> Vec<PageKey> {
        let key = |row: &PageRow| PageKey {
            hash: row.node.block.hash,
            bounds: row.first.clone()..=row.last.clone(),
        };
        self.rows().iter().map(key).collect()
    }

    fn count(&self) -> u64 {
        self.totals().entries
    }

    fn within(&self, bounds: &RangeInclusive<TreePath>) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let first = self.row_of(bounds.start()).unwrap_or(0);
        for row in first..self.rows().len() {
            if self.rows()[row].first > *bounds.end() {
                break;
            }
            let page = self.cached_page(row).map_err(unreadable_index)?;
            all.extend(
                page.iter()
                    .map(|found| &found.entry)
                    .filter(|e| bounds.contains(&e.path))
                    .cloned(),
            );
        }

        Ok(all)
    }
}

/// Returns whether the page may have one of the blocks. Always true for pages with list nodes,
/// since filters omit the blocks in lists.
fn may_hold(index: &Index, row: usize, blocks: &[BlockHash], buffer: &mut Vec<u8>) -> bool {
    index.rows()[row].node.nodes > 1
        || index.filter(row, buffer).map_or(true, |filter| {
            blocks.iter().any(|hash| filter.may_have(hash))
        })
}
