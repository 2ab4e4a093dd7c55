//! A session open on a simulated disk: its release, and the content that is still missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blocks::BlockMap;
use crate::block::frame::Expander;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::missing_nodes::Explorer;
use crate::manifest::read::Manifest;
use crate::manifest::{EntryKind, Release};
use crate::proto::RangeSet;
use crate::proto::generation::Encoding;
use crate::proto::receiver::{BlockPart, Delivery};
use crate::wire::message::DiffSummary;

/// A session open on a disk.
#[derive(Debug, Clone)]
pub(super) struct OpenSession {
    pub(super) release: Release,
    /// The release was committed elsewhere.
    pub(super) granted: bool,
    /// The release has to be on the disk already.
    staged: bool,
    /// Missing nodes and blocks, by ordinal.
    wants: BTreeMap<u64, BlockRef>,
}

/// Blocks of a delivered payload.
#[derive(Debug, Default)]
pub(super) struct DeliveredBlocks {
    /// Wanted blocks.
    pub(super) sound: Vec<(BlockHash, Arc<[u8]>)>,
    /// Ordinals of wrong blocks.
    pub(super) wrong: RangeSet,
    /// Bytes of the wanted blocks.
    pub(super) bytes: u64,
}

impl OpenSession {
    /// Creates a session that wants nothing yet.
    pub(super) fn new(release: Release, granted: bool, staged: bool) -> Self {
        Self {
            release,
            granted,
            staged,
            wants: BTreeMap::new(),
        }
    }

    /// Returns the missing nodes.
    pub(super) fn explore(&mut self, blocks: &BlockMap) -> Result<RangeSet, String> {
        let mut explorer = Explorer::new(self.release.header().root);
        let missing = explorer
            .advance(&blocks, |_| false)
            .map_err(|e| e.to_string())?;
        self.wants = missing
            .iter()
            .map(|(ordinal, child)| (ordinal.0, child.block()))
            .collect();
        if self.staged && !self.wants.is_empty() {
            return Err("its manifest is not whole".to_string());
        }

        Ok(self.wanted())
    }

    fn wanted(&self) -> RangeSet {
        self.wants.keys().map(|&o| o..o + 1).collect()
    }

    /// Compares the release with the disk: a summary, the missing blocks, and a list of the
    /// differences. `votes` is set on a disk with a hook before the commit.
    pub(super) fn diff(
        &mut self,
        blocks: &BlockMap,
        votes: bool,
    ) -> Result<(DiffSummary, RangeSet, Arc<[u8]>), String> {
        let manifest = Manifest::of(self.release.header(), blocks);
        let mut summary = DiffSummary {
            votes: Some(votes),
            ..DiffSummary::default()
        };

        for located in manifest.entries() {
            let located = located.map_err(|e| e.to_string())?;
            let EntryKind::File(content) = &located.entry.kind else {
                continue;
            };
            let refs = manifest.blocks(content).map_err(|e| e.to_string())?;
            for (block, ordinal) in refs.into_iter().zip(located.first.0..) {
                if blocks.get(&block.hash).is_none() {
                    summary.written += 1;
                    summary.fetch += u64::from(block.size);
                    self.wants.insert(ordinal, block);
                }
            }
        }

        if self.staged && !self.wants.is_empty() {
            return Err("what was staged is not whole".to_string());
        }

        // Hosts with the same missing blocks have the same list.
        let list = format!("{:?}", self.wants.keys().collect::<Vec<_>>());

        if !self.wants.is_empty() {
            let hash = BlockHash::of(list.as_bytes());
            summary.drift = u64::from_be_bytes(hash.0[..8].try_into().expect("eight bytes")) | 1;
            summary.drift_bytes = list.len() as u64;
        }

        Ok((summary, self.wanted(), Arc::from(list.as_bytes())))
    }

    /// Takes a delivered payload.
    pub(super) fn deliver(&mut self, delivery: &Delivery) -> DeliveredBlocks {
        let body = delivery.body;
        let content = &delivery.payload[body.start..];
        let mut expander = Expander::default();
        let content = match body.encoding {
            Encoding::Plain => Some(content),
            Encoding::Zstd => expander.expand(content, body.plain),
        };

        let mut delivered = DeliveredBlocks::default();
        for placed in &delivery.blocks {
            let Ordinal(ordinal) = placed.ordinal;
            let Some(whole) = content else {
                delivered.wrong.insert(ordinal..ordinal + 1);
                continue;
            };

            let bytes = whole.get(placed.bytes.clone()).unwrap_or_default();
            match self.wants.get(&ordinal) {
                Some(block) if block.matches(bytes) => {
                    delivered.sound.push((block.hash, bytes.into()));
                    delivered.bytes += bytes.len() as u64;
                    self.wants.remove(&ordinal);
                }
                Some(_) => delivered.wrong.insert(ordinal..ordinal + 1),
                None => {}
            }
        }

        delivered
    }

    /// Reads parts of blocks; absent ones are left out.
    pub(super) fn read_back(
        &self,
        blocks: &BlockMap,
        parts: Vec<BlockPart>,
    ) -> Vec<(BlockPart, Vec<u8>)> {
        let manifest = Manifest::of(self.release.header(), blocks);
        let read = |part: &BlockPart| {
            let located = manifest.entry_of_block(part.ordinal).ok()?;
            let EntryKind::File(content) = &located.entry.kind else {
                return None;
            };
            let nth = usize::try_from(part.ordinal.0 - located.first.0).ok()?;
            let block = *manifest.blocks(content).ok()?.get(nth)?;
            let bytes = blocks.get(&block.hash)?;
            bytes.get(part.bytes.clone()).map(<[u8]>::to_vec)
        };

        parts
            .into_iter()
            .filter_map(|part| read(&part).map(|bytes| (part, bytes)))
            .collect()
    }

    /// Returns an error if content is missing.
    pub(super) fn finish(&self) -> Result<(), String> {
        if self.wants.is_empty() {
            Ok(())
        } else {
            Err("blocks are missing".into())
        }
    }
}
