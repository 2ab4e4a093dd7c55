//! Staging: everything new in a plan, complete and verified beside the tree before the tree
//! changes.
//!
//! Staged items have numbers, never names from a peer. Every block is verified before it is
//! written. Mode, owner, attributes and mtime are set by handle before an item gets its final name.
//! A small log records the blocks in each staged file, so the remains of an aborted session serve
//! the next one.

mod attributes;
mod copy;
mod finish;
mod layout;
mod list_cache;
mod readback;
mod reflink;
mod resume;
mod staged;
mod targets;
mod write;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::fs::errors::with_space_hint;
use super::history::content;
use super::lifecycle::{Claim, Tree};
use super::prepare::items::StagedItem;
use super::prepare::resume::{ResumableBlocks, StageLog};
use super::prepare::{copies, preflight, space};
use crate::block::{BlockHash, BlockRef};
use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::id::Ordinal;
use crate::manifest::rules::Layout;
use layout::{has, lay_out, names};
pub use readback::BlockReader;
pub use staged::{Committed, NotReverted, Staged};
use targets::BlockTargets;

/// A release in preparation beside its tree: takes blocks until [`Stage::finish`] completes it. A
/// drop is an abort: the tree stays unchanged, and fetched content is kept for the next attempt.
#[derive(Debug)]
pub struct Stage {
    tree: Arc<Tree>,
    plan: Plan,
    items: Vec<StagedItem>,
    targets: BlockTargets,
    next_slot: u64,
    log: StageLog,
    _claim: Claim<Arc<Tree>>,
}

impl Stage {
    /// Begins to stage `plan`: checks rights and space, takes over the remains of an aborted
    /// session and content of older releases. [`Stage::wants`] lists the blocks to fetch. A second
    /// stage at the same time is refused.
    pub fn begin(tree: &Arc<Tree>, mut plan: Plan) -> Result<Self> {
        let claim = Claim::new(Arc::clone(tree))?;
        tree.check_there()?;
        if let Some(serial) = tree.undo_failed_commit()? {
            return Err(Error::refused(format!(
                "tree {}: the failed commit of {serial} was undone only now, after the tree was \
                 compared",
                tree.name()
            ))
            .hint("deploy again"));
        }

        if plan.layout == Layout::Swap {
            tree.check_swap()?;
        }
        let _opened = preflight::check(tree, &mut plan)?;

        tree.confirm()?;
        tree.state.forget_next()?;
        let mut targets = BlockTargets::new(tree);
        let mut resumable = ResumableBlocks::load(&tree.state, || names(&plan, &targets))?;
        let copied = copies::chosen(&tree.root(), &plan)?;
        let (items, next_slot, resumed) = lay_out(&plan, &copied, &mut targets, &mut resumable)?;

        plan.summary.write_bytes += items
            .iter()
            .filter(|i| copied.contains(&i.change()))
            .map(|i| i.size)
            .sum::<u64>();

        let held = resumable.held();
        let keeps = content::kept_dirs(&tree.state.here()).is_ok_and(|kept| !kept.is_empty());
        if let Err(e) = space::check(tree, &plan, &items, &held, keeps) {
            // Remains that cannot be continued take space that is needed.
            if !resumable.give_up(&tree.state)? {
                return Err(e);
            }
            space::check(tree, &plan, &items, &held, keeps)?;
        }

        let log = StageLog::create(&tree.state, resumable.next_slot())?;
        let mut stage = Self {
            tree: Arc::clone(tree),
            plan,
            items,
            targets,
            next_slot,
            log,
            _claim: claim,
        };

        stage.take_over(resumable, &resumed)?;
        stage.take_kept()?;
        Ok(stage)
    }

    /// The plan, as far as known now.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Ordinals to fetch, sorted: the plan's, without blocks from an aborted session or older
    /// releases.
    pub fn wants(&self) -> &[Range<u64>] {
        &self.plan.wants
    }

    /// The block `ordinal`, if it is to be fetched.
    pub fn wanted(&self, ordinal: Ordinal) -> Result<Option<BlockRef>> {
        self.plan.wanted(ordinal, self.targets.lists())
    }

    /// All blocks to fetch, in the order of their ordinals.
    pub fn fetched(&self) -> Result<Vec<(Ordinal, BlockRef)>> {
        let mut all = Vec::new();
        self.plan
            .each_fetched(self.targets.lists(), |ordinal, block| {
                all.push((ordinal, *block))
            })?;
        Ok(all)
    }

    /// Like [`Self::put_hashed`], for bytes without a name.
    #[cfg(test)]
    pub fn put(&self, ordinal: Ordinal, bytes: &[u8]) -> Result<bool> {
        self.put_hashed(ordinal, bytes, &BlockHash::of(bytes))
    }

    /// Writes `bytes`, whose name is `hash`, to all their targets. False if they do not match
    /// `ordinal`, or if the block is not wanted. Several threads may call this at once.
    pub fn put_hashed(&self, ordinal: Ordinal, bytes: &[u8], hash: &BlockHash) -> Result<bool> {
        let Some(block) = self.wanted(ordinal)? else {
            return Ok(false);
        };

        if block.hash != *hash || block.size as usize != bytes.len() {
            return Ok(false);
        }

        self.place(&block.hash, bytes)?;
        Ok(true)
    }

    /// Aborts: the tree stays unchanged, fetched content is kept for the next attempt.
    pub fn abort(self) {}

    /// Takes blocks from older releases; damaged ones stay wanted.
    fn take_kept(&mut self) -> Result<()> {
        let state = self.tree.state.here();
        if self.plan.wants.is_empty()
            || content::kept_dirs(&state).is_ok_and(|kept| kept.is_empty())
        {
            return Ok(());
        }
        let wanted = names(&self.plan, &self.targets)?;
        if self.take(|found| content::find(&state, &wanted, found))? {
            self.drop_wants()?;
        }
        Ok(())
    }

    /// Writes blocks that are on the host; returns whether there were any.
    fn take(&self, blocks: impl FnOnce(&mut dyn FnMut(&BlockHash, &[u8]))) -> Result<bool> {
        let mut trouble = None;
        let mut found = false;
        blocks(&mut |hash, bytes| {
            found = true;
            if let Err(e) = self.place(hash, bytes) {
                trouble = Some(e);
            }
        });
        trouble.map_or(Ok(found), Err)
    }

    /// Blocks that are in place need not be fetched any more.
    fn drop_wants(&mut self) -> Result<()> {
        let saved = self.plan.drop_wants(self.targets.lists(), |block| {
            has(&self.targets, &block.hash)
        })?;
        self.plan.summary.reuse_bytes += saved;

        Ok(())
    }

    fn failed(&self, action: &str, item: &StagedItem, e: io::Error) -> Error {
        let path = &self.plan.changes.get(item.change()).path;
        with_space_hint(Error::io(action, self.tree.root().shown(path), e))
    }
}
