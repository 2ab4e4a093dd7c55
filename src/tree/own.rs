//! A host's own tree, scanned, as the comparison with a release reads it.

use std::ops::RangeInclusive;

use super::index::Index;
use super::scan::Scanned;
use crate::block::{BlockHash, BlockRef};
use crate::diff::{Have, Paged};
use crate::manifest::pages::PageKey;
use crate::manifest::{Content, Entry, Top, TreePath};
use crate::{Error, Kind, Result};

/// More blocks than this are looked for in every page: its filter would have to be asked for each of them.
const MAX_FILTERED: usize = 256;

impl Have for Scanned {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        Box::new(
            self.index
                .entries()
                .map(|found| found.map(|e| e.entry).map_err(unreadable)),
        )
    }

    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>> {
        self.index.blocks(content).map_err(unreadable)
    }

    fn top(&self) -> Option<&Top> {
        Some(&self.top)
    }

    fn holding(
        &self,
        blocks: &mut dyn ExactSizeIterator<Item = &BlockHash>,
    ) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        if blocks.len() > MAX_FILTERED {
            return self.entries();
        }

        let blocks: Vec<BlockHash> = blocks.copied().collect();
        let mut buffer = Vec::new();
        let rows = (0..self.index.rows().len())
            .filter(move |&row| may_hold(&self.index, row, &blocks, &mut buffer));

        Box::new(rows.flat_map(|row| match self.index.page(row) {
            Ok(page) => page.into_iter().map(|e| Ok(e.entry)).collect(),
            Err(e) => vec![Err(unreadable(e))],
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
        let key = |row: &super::index::PageRow| PageKey {
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
            let page = self.page_at_hand(row).map_err(unreadable)?;
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

/// Whether the page may have one of the blocks. Of large files, whose blocks stand elsewhere, it cannot say.
fn may_hold(index: &Index, row: usize, blocks: &[BlockHash], buffer: &mut Vec<u8>) -> bool {
    index.rows()[row].node.nodes > 1
        || index.filter(row, buffer).map_or(true, |filter| {
            blocks.iter().any(|hash| filter.may_have(hash))
        })
}

fn unreadable(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Io, "the index cannot be read").because(e)
}
