//! Blocks of this host, read back for a generation with lost symbols.
//!
//! A missing or damaged block is left out and replaced by the sender's coded symbols.

use super::offer::AdmittedOffer;
use crate::proto::receiver::BlockPart;
use crate::tree::stage::{BlockReader, Stage};

/// Reader of a session's blocks, opened by the first request.
#[derive(Default)]
pub(super) struct Readback(Option<BlockReader>);

impl Readback {
    /// Returns the readable `parts` of blocks; parts of one block follow each other.
    pub(super) fn read(
        &mut self,
        offer: &AdmittedOffer<'_>,
        stage: Option<&Stage>,
        parts: Vec<BlockPart>,
    ) -> Vec<(BlockPart, Vec<u8>)> {
        let Some(stage) = stage else {
            return Vec::new();
        };

        let recall = match self.0.take() {
            Some(recall) => recall,
            None => match BlockReader::open(&offer.managed.tree, offer.release.header().root) {
                Ok(recall) => recall,
                Err(e) => {
                    tracing::debug!("{}: no block can be read back: {e}", offer.release);
                    return Vec::new();
                }
            },
        };

        let asked = parts.len();
        let found = read_parts(self.0.insert(recall), stage, parts);
        tracing::debug!(
            "{}: {} of {asked} parts of blocks read back",
            offer.release,
            found.len()
        );

        found
    }
}

/// Reads and verifies each block once, for any number of parts.
fn read_parts(
    recall: &mut BlockReader,
    stage: &Stage,
    parts: Vec<BlockPart>,
) -> Vec<(BlockPart, Vec<u8>)> {
    let mut block = Vec::new();
    let mut found = Vec::with_capacity(parts.len());
    for parts in parts.chunk_by(|a, b| a.ordinal == b.ordinal) {
        let here = parts
            .first()
            .is_some_and(|first| recall.read(stage, first.ordinal, &mut block));
        let read = parts
            .iter()
            .filter(|_| here)
            .filter_map(|p| Some((p.clone(), block.get(p.bytes.clone())?.to_vec())));
        found.extend(read);
    }

    found
}
