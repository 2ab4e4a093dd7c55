//! Verifies and stores the blocks of a delivered payload: nodes of the manifest, or staged content.

use crate::block::BlockHash;
use crate::id::Ordinal;
use crate::manifest::missing_nodes::Explorer;
use crate::proto::RangeSet;
use crate::proto::generation::PlacedBlock;
use crate::proto::receiver::ReasonText;
use crate::tree::{NodeStore, Stage};

/// Smallest content worth a second thread.
const PARALLEL_BYTES: usize = 512 << 10;

/// Verifies and stores nodes of the manifest.
pub(super) fn keep_nodes(
    explorer: &Explorer,
    nodes: &NodeStore,
    content: &[u8],
    blocks: &[PlacedBlock],
) -> Result<(RangeSet, u64), ReasonText> {
    let mut wrong = RangeSet::default();
    let mut bytes = 0;
    for placed in blocks {
        let node = content.get(placed.bytes.clone()).unwrap_or_default();
        let Some(block) = explorer.missing(placed.ordinal) else {
            continue;
        };
        match nodes.put_node(block, node).map_err(|e| e.with_hint())? {
            true => bytes += node.len() as u64,
            false => wrong.insert(placed.ordinal.0..placed.ordinal.0 + 1),
        }
    }

    Ok((wrong, bytes))
}

/// Verifies and writes blocks on two threads, which share the content by bytes.
pub(super) fn stage_blocks(
    stage: &Stage,
    content: &[u8],
    blocks: &[PlacedBlock],
) -> Result<(RangeSet, u64), ReasonText> {
    let put = |blocks: &[PlacedBlock]| -> Result<(RangeSet, u64), ReasonText> {
        let contents = blocks
            .iter()
            .map(|placed| content.get(placed.bytes.clone()));
        let contents: Vec<&[u8]> = contents.map(Option::unwrap_or_default).collect();
        let hashes = BlockHash::many(&contents);

        let mut wrong = RangeSet::default();
        let mut bytes = 0;
        for ((placed, block), hash) in blocks.iter().zip(contents).zip(&hashes) {
            let Ordinal(ordinal) = placed.ordinal;
            match stage
                .put_hashed(placed.ordinal, block, hash)
                .map_err(|e| e.with_hint())?
            {
                true => bytes += block.len() as u64,
                false => wrong.insert(ordinal..ordinal + 1),
            }
        }
        Ok((wrong, bytes))
    };

    let middle = blocks
        .iter()
        .position(|b| b.bytes.start >= content.len() / 2)
        .unwrap_or(0);
    if content.len() < PARALLEL_BYTES || middle == 0 {
        return put(blocks);
    }

    let (first, second) = blocks.split_at(middle);
    let (a, b) = std::thread::scope(|scope| {
        match std::thread::Builder::new().spawn_scoped(scope, || put(second)) {
            Ok(other) => (
                put(first),
                other
                    .join()
                    .unwrap_or_else(|_| Err("a staging thread failed".into())),
            ),
            // Slower, with the same result.
            Err(_) => (put(first), put(second)),
        }
    });

    let ((mut wrong, bytes), (more_wrong, more_bytes)) = (a?, b?);
    wrong.extend(&more_wrong);
    Ok((wrong, bytes + more_bytes))
}
