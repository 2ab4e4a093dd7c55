//! Targets of every staged block, and whether each is filled.
//!
//! A target in a small file is stored in full. Targets in files that list their blocks in separate
//! nodes are known by a prefix of the block's hash and a number; the rest is read from the list
//! ([`ListCache`]). They take nine bytes each: a file of 10 GB has 160,000.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::list_cache::ListCache;
use crate::block::{BlockHash, BlockRef};
use crate::diff::BlockLists as _;
use crate::error::{Error, Result};
use crate::manifest::{Content, ListRef};
use crate::tree::lifecycle::Tree;

const MISSING: u8 = 0;
const WRITING: u8 = 1;
const WRITTEN: u8 = 2;

/// Targets of all blocks.
#[derive(Debug)]
pub(super) struct BlockTargets {
    /// Sorted once complete.
    direct: Vec<Direct>,
    files: Vec<Listed>,
    /// For all targets in listed files, sorted: prefix of the hash, and number of the target.
    index: Vec<(u32, u32)>,
    /// States by number.
    states: Vec<AtomicU8>,
    lists: ListCache,
}

/// One target of one block, with its state.
#[derive(Debug)]
pub(super) struct BlockTarget<'a> {
    pub(super) item: usize,
    pub(super) offset: u64,
    state: &'a AtomicU8,
}

/// A target in a file whose entry names its blocks.
#[derive(Debug)]
struct Direct {
    key: Key,
    offset: u64,
    item: u32,
    state: AtomicU8,
}

/// First half of a block's hash. A collision takes 2^64 attempts and spoils only the attacker's own
/// release. Half the hash halves the memory of a million targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key([u8; 16]);

/// A file with its blocks in lists.
#[derive(Debug)]
struct Listed {
    item: u32,
    /// Number of its first target.
    first: u32,
    lists: Vec<ListPart>,
}

/// One list of a file.
#[derive(Debug)]
struct ListPart {
    list: ListRef,
    /// Index of its first block among all blocks of the file.
    first: u32,
    /// Offset of its first block in bytes.
    offset: u64,
}

impl Key {
    fn of(hash: &BlockHash) -> Self {
        let (half, _) = hash.0.split_first_chunk().expect("a name has 32 bytes");
        Self(*half)
    }
}

impl BlockTarget<'_> {
    /// Claims the target for a write; false if it is claimed or filled.
    pub(super) fn claim(&self) -> bool {
        self.state
            .compare_exchange(MISSING, WRITING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Ends a claim: the block is written, or not.
    pub(super) fn finish(&self, written: bool) {
        self.state
            .store(if written { WRITTEN } else { MISSING }, Ordering::Release);
    }

    pub(super) fn is_written(&self) -> bool {
        self.state.load(Ordering::Acquire) == WRITTEN
    }
}

impl BlockTargets {
    /// No targets yet, for a release whose lists `tree` has.
    pub(super) fn new(tree: &Arc<Tree>) -> Self {
        Self {
            direct: Vec::new(),
            files: Vec::new(),
            index: Vec::new(),
            states: Vec::new(),
            lists: ListCache::new(tree),
        }
    }

    /// Reader of the lists of large files.
    pub(super) fn lists(&self) -> &ListCache {
        &self.lists
    }

    /// Adds the blocks of `content` for an item and calls back for each; returns their bytes.
    pub(super) fn add(
        &mut self,
        item: u32,
        content: &Content,
        mut each: impl FnMut(u64, &BlockRef),
    ) -> Result<u64> {
        let mut offset = 0;
        match content {
            Content::Blocks(blocks) => {
                for block in blocks {
                    each(offset, block);
                    let state = AtomicU8::new(MISSING);
                    self.direct.push(Direct {
                        key: Key::of(&block.hash),
                        offset,
                        item,
                        state,
                    });
                    offset += u64::from(block.size);
                }
            }
            Content::Lists(lists) => {
                let first = self.states.len() as u64;
                let all = content.block_count();
                let Ok(end) = u32::try_from(first + all) else {
                    return Err(Error::refused(
                        "the release has more blocks than a host can stage at once",
                    ));
                };
                self.index.reserve(all as usize);
                self.states.resize_with(end as usize, AtomicU8::default);
                let mut file = Listed {
                    item,
                    first: first as u32,
                    lists: Vec::with_capacity(lists.len()),
                };
                let mut number = file.first;
                for list in lists {
                    file.lists.push(ListPart {
                        list: *list,
                        first: number - file.first,
                        offset,
                    });
                    for block in &*self.lists.list(list)? {
                        each(offset, block);
                        self.index.push((beginning(&block.hash), number));
                        offset += u64::from(block.size);
                        number += 1;
                    }
                }
                self.files.push(file);
            }
        }

        Ok(offset)
    }

    /// Sorts the targets once all are added.
    pub(super) fn sort(&mut self) {
        self.direct.shrink_to_fit();
        self.direct
            .sort_unstable_by_key(|d| (d.key, d.item, d.offset));
        self.index.sort_unstable();
    }

    /// Targets of the block `hash`.
    pub(super) fn of(&self, hash: &BlockHash) -> Result<impl Iterator<Item = BlockTarget<'_>>> {
        let key = Key::of(hash);
        let first = self.direct.partition_point(|d| d.key < key);
        let direct = self.direct[first..]
            .iter()
            .take_while(move |d| d.key == key);
        let direct = direct.map(|d| BlockTarget {
            item: d.item as usize,
            offset: d.offset,
            state: &d.state,
        });

        Ok(direct.chain(self.listed(hash)?))
    }

    fn listed(&self, hash: &BlockHash) -> Result<Vec<BlockTarget<'_>>> {
        let beginning = beginning(hash);
        let first = self.index.partition_point(|(b, _)| *b < beginning);
        let mut targets = Vec::new();
        for &(_, number) in self.index[first..]
            .iter()
            .take_while(|(b, _)| *b == beginning)
        {
            let (block, target) = self.numbered(number)?;
            if block == *hash {
                targets.push(target);
            }
        }

        Ok(targets)
    }

    /// Hash and target for the number `number` of the listed files.
    fn numbered(&self, number: u32) -> Result<(BlockHash, BlockTarget<'_>)> {
        let file = &self.files[self.files.partition_point(|f| f.first <= number) - 1];
        let nth = number - file.first;
        let part = &file.lists[file.lists.partition_point(|p| p.first <= nth) - 1];
        let blocks = self.lists.list(&part.list)?;
        let before = &blocks[..(nth - part.first) as usize];
        let block = &blocks[(nth - part.first) as usize];

        let offset = part.offset + before.iter().map(|b| u64::from(b.size)).sum::<u64>();
        Ok((
            block.hash,
            BlockTarget {
                item: file.item as usize,
                offset,
                state: &self.states[number as usize],
            },
        ))
    }

    /// Marks the item's block `nth`, at `offset`, as present.
    pub(super) fn mark_present(&self, item: usize, nth: u32, block: &BlockRef, offset: u64) {
        let state = match self.files.binary_search_by_key(&item, |f| f.item as usize) {
            Ok(at) => Some(&self.states[(self.files[at].first + nth) as usize]),
            Err(_) => {
                let place = (Key::of(&block.hash), item as u32, offset);
                let at = self
                    .direct
                    .binary_search_by_key(&place, |d| (d.key, d.item, d.offset));
                at.ok().map(|at| &self.direct[at].state)
            }
        };

        if let Some(state) = state {
            let _ = state.compare_exchange(MISSING, WRITTEN, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

fn beginning(hash: &BlockHash) -> u32 {
    let (first, _) = hash.0.split_first_chunk().expect("a name has 32 bytes");
    u32::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::build::ContentBuilder;

    /// A tree whose store has the lists of a file of `blocks`.
    fn listed(dir: &tempfile::TempDir, blocks: &[BlockRef]) -> (Arc<Tree>, Content) {
        let name = crate::id::TreeName::new("www").unwrap();
        let path = dir.path().join("www");
        std::fs::create_dir(&path).unwrap();
        let tree = Tree::open(name, &path, None, Default::default()).unwrap();
        let mut content = ContentBuilder::default();
        blocks
            .iter()
            .for_each(|block| content.push(*block, &mut tree.nodes()).unwrap());
        let content = content.finish(&mut tree.nodes()).unwrap();
        assert!(matches!(content, Content::Lists(_)));

        (tree, content)
    }

    #[test]
    fn every_block_is_found_at_all_its_places_in_small_files_and_in_listed_ones() {
        let dir = tempfile::tempdir().unwrap();
        // Every hash twice, and more than one list can hold.
        let block = |n: u32| BlockRef {
            size: n % 6000 + 1,
            ..BlockRef::of(&(n % 6000).to_le_bytes())
        };

        let blocks: Vec<BlockRef> = (0..12_000).map(block).collect();
        let (tree, content) = listed(&dir, &blocks);
        let mut targets = BlockTargets::new(&tree);
        let mut met = Vec::new();
        let small = Content::Blocks(blocks[..100].to_vec());
        assert_eq!(targets.add(0, &small, |_, _| {}).unwrap(), 5050);
        let size = targets
            .add(1, &content, |offset, block| met.push((offset, *block)))
            .unwrap();

        assert_eq!(targets.add(2, &content, |_, _| {}).unwrap(), size);
        targets.sort();
        let half = size / 2;
        assert!(
            met.iter()
                .map(|(_, block)| *block)
                .eq(blocks.iter().copied())
        );

        for (nth, (offset, block)) in met.iter().enumerate().take(6000).step_by(7) {
            let places: Vec<_> = targets
                .of(&block.hash)
                .unwrap()
                .map(|s| (s.item, s.offset))
                .collect();
            let listed = [
                (1, *offset),
                (1, offset + half),
                (2, *offset),
                (2, offset + half),
            ];
            assert_eq!(places[places.len() - 4..], listed, "{nth}");
            assert_eq!(places.len(), if nth < 100 { 5 } else { 4 }, "{nth}");
        }

        assert_eq!(targets.of(&BlockHash::of(b"another")).unwrap().count(), 0);
    }

    #[test]
    fn a_place_is_claimed_once_and_what_could_not_be_written_is_missing_again() {
        let dir = tempfile::tempdir().unwrap();
        let blocks: Vec<BlockRef> = (0..300u32)
            .map(|n| BlockRef::of(&n.to_le_bytes()))
            .collect();
        let (tree, content) = listed(&dir, &blocks);
        let mut targets = BlockTargets::new(&tree);
        targets.add(0, &content, |_, _| {}).unwrap();

        targets.sort();
        let target = || targets.of(&blocks[7].hash).unwrap().next().unwrap();
        assert!(target().claim() && !target().claim() && !target().is_written());
        target().finish(false);
        assert!(target().claim());
        target().finish(true);
        assert!(!target().claim() && target().is_written());

        targets.mark_present(0, 8, &blocks[8], 32);
        assert!(
            targets
                .of(&blocks[8].hash)
                .unwrap()
                .all(|target| target.is_written())
        );

        assert!(
            !targets
                .of(&blocks[9].hash)
                .unwrap()
                .any(|target| target.is_written())
        );
    }
}
