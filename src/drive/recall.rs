//! Blocks that this host has, read back for a generation that lost some of its symbols.
//!
//! What is not here, or is not what its hash says, is left out: the sender's coded symbols make up for it.

use super::session::Session;
use crate::proto::receiver::BlockPart;
use crate::tree::stage::{BlockReader, Stage};

impl Session<'_> {
    /// These parts of blocks, as far as they can be read; those of one block follow each other.
    pub(super) fn recall(&mut self, parts: Vec<BlockPart>) -> Vec<(BlockPart, Vec<u8>)> {
        let Some(stage) = &self.stage else {
            return Vec::new();
        };

        let recall = match self.recall.take() {
            Some(recall) => recall,
            None => match BlockReader::open(&self.managed.tree, self.release.header().root) {
                Ok(recall) => recall,
                Err(e) => {
                    tracing::debug!("{}: no block can be read back: {e}", self.release);
                    return Vec::new();
                }
            },
        };

        let asked = parts.len();
        let found = read_parts(self.recall.insert(recall), stage, parts);
        tracing::debug!(
            "{}: {} of {asked} parts of blocks read back",
            self.release,
            found.len()
        );

        found
    }
}

/// Each block is read and verified once, whatever the number of its parts.
fn read_parts(
    recall: &mut BlockReader,
    stage: &Stage,
    parts: Vec<BlockPart>,
) -> Vec<(BlockPart, Vec<u8>)> {
    let (mut block, mut found) = (Vec::new(), Vec::with_capacity(parts.len()));
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
