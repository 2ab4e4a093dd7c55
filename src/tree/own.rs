//! A host's own tree, scanned, as the comparison with a release reads it.

use super::scan::Scanned;
use crate::block::BlockRef;
use crate::diff::Have;
use crate::manifest::{Content, Entry, Top};
use crate::{Error, Kind, Result};

impl Have for Scanned {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        Box::new(self.index.entries().map(|found| found.map(|e| e.entry).map_err(unreadable)))
    }

    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>> {
        self.index.blocks(content).map_err(unreadable)
    }

    fn top(&self) -> Option<&Top> {
        Some(&self.top)
    }
}

fn unreadable(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Io, "the index cannot be read").because(e)
}
