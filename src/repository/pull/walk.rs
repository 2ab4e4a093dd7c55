//! The walk through manifest and places: which nodes are missing, and where wanted blocks are.

use std::collections::HashSet;
use std::ops::Range;

use super::blocks::{has, merged, within};
use super::state::{PullPurpose, WalkState};
use super::{PullError, PullStep, RepositoryPull};
use crate::block::BlockRef;
use crate::id::Ordinal;
use crate::manifest::Node;
use crate::manifest::read::{NodeSource, ReadError};
use crate::repository::pack::Extent;
use crate::repository::places::StoredNode;
use crate::repository::slots::{NodeAt, Slots};

/// Largest number of nodes that one walk asks for.
const MAX_ASKED_NODES: usize = 4096;
/// Largest number of blocks that one walk asks for.
const MAX_ASKED_BLOCKS: usize = 1 << 16;
/// Bytes of blocks after which a walk asks for none of a further pack: a pack that is read in two
/// walks takes more requests.
const MAX_ASKED_BYTES: u64 = 12 << 20;
/// Bytes of blocks after which a walk asks for no more in any case.
const MOST_ASKED_BYTES: u64 = 2 * MAX_ASKED_BYTES;

/// A node that the walk has not visited.
type Open = (NodeAt, StoredNode);

/// Blocks that a walk found.
#[derive(Default)]
struct Found {
    blocks: Vec<(Ordinal, BlockRef, Extent)>,
    /// Their size when plain.
    bytes: u64,
    /// Set once enough was found.
    is_full: bool,
    /// Wanted ordinals that it did not reach.
    left: Vec<Range<u64>>,
}

impl Found {
    /// Adds a wanted block, unless enough was found.
    fn add(&mut self, ordinal: Ordinal, block: BlockRef, piece: Extent) {
        let is_further = self
            .blocks
            .last()
            .is_none_or(|(_, _, last)| last.pack != piece.pack);
        self.is_full |= self.bytes >= MAX_ASKED_BYTES && is_further;
        self.is_full |= self.bytes >= MOST_ASKED_BYTES || self.blocks.len() >= MAX_ASKED_BLOCKS;
        if self.is_full {
            self.left.push(ordinal.0..ordinal.0.saturating_add(1));
            return;
        }

        self.bytes += u64::from(block.size);
        self.blocks.push((ordinal, block, piece));
    }
}

impl RepositoryPull {
    /// Looks for what is missing: nodes first, then wanted blocks. `source` has the nodes that the
    /// caller stored; a node without children is not read if `is_here` returns true. An error is
    /// the caller's or the release's: the pull cannot go on.
    pub fn walk<S: NodeSource>(
        &mut self,
        source: &S,
        is_here: impl FnMut(&BlockRef) -> bool,
    ) -> Result<(), ReadError> {
        let Some(explorer) = &mut self.explorer else {
            return Ok(());
        };

        self.walks = WalkState::Loading;
        let mut seen = HashSet::new();
        let missing: Vec<u64> = explorer
            .advance(source, is_here)?
            .iter()
            .filter(|(_, child)| seen.insert(child.block().hash))
            .map(|(ordinal, _)| ordinal.0)
            .take(MAX_ASKED_NODES)
            .collect();

        if !missing.is_empty() {
            return self.ask_for_nodes(source, &missing);
        }

        if self.remaining.is_empty() {
            if !self.loader.is_idle() {
                return Ok(());
            }
            self.walks = WalkState::Idle;
            let step = if self.wanted {
                PullStep::Done
            } else {
                PullStep::Complete
            };
            self.steps.push_back(step);
            return Ok(());
        }

        self.ask_for_blocks(source)
    }

    /// Wants the blocks with these ordinals, after the manifest is complete. The next step is
    /// [`PullStep::Walk`], and [`PullStep::Done`] comes after the last block.
    pub fn want(&mut self, ordinals: impl IntoIterator<Item = Range<u64>>) {
        self.remaining.extend(ordinals);
        self.remaining = merged(std::mem::take(&mut self.remaining));
        self.wanted = true;
        self.walks = WalkState::Loading;
    }

    fn ask_for_nodes<S: NodeSource>(
        &mut self,
        source: &S,
        missing: &[u64],
    ) -> Result<(), ReadError> {
        let mut open: Vec<Open> = self.root().into_iter().collect();
        while let Some((at, stored)) = open.pop() {
            let beneath = at.ordinal.0..at.ordinal.0.saturating_add(at.nodes());
            let first = missing.partition_point(|ordinal| *ordinal < beneath.start);
            let Some(next) = missing.get(first).filter(|next| beneath.contains(*next)) else {
                continue;
            };

            if *next == at.ordinal.0 {
                let purpose = PullPurpose::Node(at.child.block());
                self.structure.insert(purpose);
                self.loader.ask(stored.node, purpose);
                self.ask_for_places(&stored);
            } else if let Some(slots) = self.expand(source, &at, &stored)? {
                open.extend(slots);
            }
        }

        Ok(())
    }

    fn ask_for_blocks<S: NodeSource>(&mut self, source: &S) -> Result<(), ReadError> {
        let wants = std::mem::take(&mut self.remaining);
        let mut found = Found::default();
        let mut open: Vec<Open> = self.root().into_iter().collect();
        while let Some((at, stored)) = open.pop() {
            let beneath = at.first_block..at.first_block.saturating_add(at.blocks());
            if within(&wants, beneath.clone()).next().is_none() {
                continue;
            }

            if found.is_full {
                found.left.extend(within(&wants, beneath));
                continue;
            }

            match self.slots(source, &at, &stored)? {
                None => found.left.extend(within(&wants, beneath)),
                Some(slots) => {
                    let Some(places) = self.pages.get(&stored.places) else {
                        continue;
                    };
                    let blocks = slots.blocks.iter().zip(places.blocks());
                    let wanted = blocks.filter(|((ordinal, _), _)| has(&wants, ordinal.0));
                    for ((ordinal, block), piece) in wanted {
                        found.add(*ordinal, *block, piece);
                    }
                    // The last is visited first.
                    let at = open.len();
                    open.extend(slots.stored(places));
                    open[at..].reverse();
                }
            }
        }

        self.remaining = merged(found.left);
        for (ordinal, block, piece) in found.blocks {
            self.loader.ask(piece, PullPurpose::Block(ordinal, block));
        }

        Ok(())
    }

    fn root(&self) -> Option<Open> {
        let record = self.followed.as_ref()?.record.as_ref()?;
        let root = &record.release.header().root;
        Some((NodeAt::root(root), record.root))
    }

    fn ask_for_places(&mut self, stored: &StoredNode) {
        if !self.pages.contains_key(&stored.places) {
            let purpose = PullPurpose::Places(stored.places);
            self.structure.insert(purpose);
            self.loader.ask(stored.places.extent, purpose);
        }
    }

    /// Returns the children of a node with their places; `None` if its places page has to come
    /// first.
    fn expand<S: NodeSource>(
        &mut self,
        source: &S,
        at: &NodeAt,
        stored: &StoredNode,
    ) -> Result<Option<Vec<Open>>, ReadError> {
        let slots = self.slots(source, at, stored)?;
        let places = self.pages.get(&stored.places);
        Ok(slots
            .zip(places)
            .map(|(slots, places)| slots.stored(places).collect()))
    }

    /// Returns the slots of a node, which its places page fits; `None` if the page has to come
    /// first.
    fn slots<S: NodeSource>(
        &mut self,
        source: &S,
        at: &NodeAt,
        stored: &StoredNode,
    ) -> Result<Option<Slots>, ReadError> {
        let Some(places) = self.pages.get(&stored.places) else {
            self.ask_for_places(stored);
            return Ok(None);
        };

        let node = Node::decode(&source.node(&at.child.block().hash)?)?;
        at.child.check(&node)?;
        let slots = at.slots(&node);
        if slots.fit(places) {
            return Ok(Some(slots));
        }

        self.fail(PullError::Misplaced);
        Ok(None)
    }
}
