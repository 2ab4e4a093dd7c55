//! Layout of a stage: a slot for each item that the plan creates, and the targets of each block.

use std::collections::HashSet;
use std::sync::atomic::AtomicU32;

use super::targets::BlockTargets;
use crate::block::BlockHash;
use crate::diff::{Change, Plan, Shape};
use crate::error::Result;
use crate::manifest::Mode;
use crate::tree::fs::sparse;
use crate::tree::prepare::items::StagedItem;
use crate::tree::prepare::resume::ResumableBlocks;

/// Hashes of the blocks to fetch.
pub(super) fn names(plan: &Plan, targets: &BlockTargets) -> Result<HashSet<BlockHash>> {
    let mut names = HashSet::new();
    plan.each_fetched(targets.lists(), |_, block| {
        names.insert(block.hash);
    })?;
    Ok(names)
}

/// Returns whether the block is at all its targets.
pub(super) fn has(targets: &BlockTargets, hash: &BlockHash) -> bool {
    targets
        .of(hash)
        .is_ok_and(|mut targets| targets.all(|target| target.is_written()))
}

/// The mode of the release where nothing stands against it from the start: the last block of a file
/// sets what is left.
fn mode_at_creation(change: &Change) -> Mode {
    let wanted = change
        .want
        .as_ref()
        .map_or(0, |want| want.entry.mode.bits());
    Mode::from_bits(wanted & 0o777 | 0o600)
}

/// Assigns a slot to every change that creates an item, and targets to every block.
pub(super) fn lay_out(
    plan: &Plan,
    copied: &HashSet<usize>,
    targets: &mut BlockTargets,
    resumable: &mut ResumableBlocks,
) -> Result<(Vec<StagedItem>, u64, Vec<usize>)> {
    let mut further: Vec<_> = plan
        .further
        .iter()
        .filter(|f| copied.contains(&(f.first as usize)))
        .collect();

    further.sort_by_key(|f| f.first);
    let mut further = further.into_iter().peekable();

    let mut items = Vec::new();
    let mut resumed = Vec::new();
    let mut slot = resumable.next_slot();

    for (at, change) in plan.changes.iter().enumerate() {
        let copied = copied.contains(&at);
        if !(change.makes_anew() || copied) || change.shape() == Shape::Directory {
            continue;
        }
        let mut size = 0;
        let mut data = Vec::new();
        let mut blocks = 0;
        let mut places = Vec::new();
        if let Some(content) = plan.content(&change) {
            blocks = content.block_count() as u32;
            size = targets.add(items.len() as u32, content, |offset, block| {
                if resumable.is_open() {
                    places.push((block.hash, offset));
                }
                if !sparse::is_hole(block) {
                    sparse::extend(&mut data, offset..offset + u64::from(block.size));
                }
            })?;
        }
        let mut holes = (data.as_slice() != [0..size]).then(|| Box::new(data));
        if copied {
            // It may have holes: its size on disk is known when it is copied.
            size = change.want.as_ref().map_or(0, |w| w.entry.kind.size());
            holes = None;
        }
        let taken = resumable.take_slot(&places);
        if taken.is_some() {
            resumed.push(items.len());
        }
        let own = taken.unwrap_or(slot);
        items.push(StagedItem {
            size,
            holes,
            blocks,
            left: AtomicU32::new(blocks),
            mode: mode_at_creation(&change),
            ..StagedItem::new(own, at)
        });
        slot += u64::from(taken.is_none());
        while let Some(name) = further.next_if(|f| f.first as usize == at) {
            items.push(StagedItem {
                further: Some(Box::new(name.path.clone())),
                ..StagedItem::new(slot, at)
            });
            slot += 1;
        }
    }

    items.shrink_to_fit();
    targets.sort();
    Ok((items, slot, resumed))
}
