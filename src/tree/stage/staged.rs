//! A complete stage, and the commit that it becomes: each step takes the value before it, so none
//! can be taken twice or out of order.

use std::io;
use std::sync::Arc;

use rustix::fs::AtFlags;

use super::Stage;
use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::id::Serial;
use crate::manifest::Release;
use crate::manifest::rules::Layout;
use crate::sync::locked;
use crate::tree::commit::next_tree::NextTree;
use crate::tree::commit::run::{CommitReport, StagedRelease};
use crate::tree::fs::ctime_chains::Operation;
use crate::tree::fs::dir::slot_name;
use crate::tree::fs::metadata::handle_of;
use crate::tree::fs::stat::FileStat;
use crate::tree::lifecycle::Tree;
use crate::tree::prepare::resume::ResumableBlocks;

/// A release that is complete and durable beside its tree. A drop is an abort, as that of a
/// [`Stage`].
#[derive(Debug)]
pub struct Staged {
    pub(super) stage: Stage,
    /// Next tree, in the layout `swap`.
    pub(super) next: Option<NextTree>,
}

impl Staged {
    /// The plan that a commit carries out.
    pub fn plan(&self) -> &Plan {
        &self.stage.plan
    }

    /// Commits the release, all or nothing. An error leaves the tree as before, unless the commit
    /// cannot be undone ([`Tree::torn`]).
    pub fn commit(mut self, release: &Release, signature: &[u8]) -> Result<Committed> {
        let Stage { tree, log, .. } = &self.stage;
        // From now on slots may hold replaced entries.
        log.retire(&tree.state)?;
        tree.check_there()?;
        let staged = StagedRelease {
            plan: &self.stage.plan,
            items: &self.stage.items,
            next_slot: self.stage.next_slot,
            next: self.next.take(),
        };
        let report = tree.commit(staged, release, signature)?;

        log.close();
        let cleared = self
            .drop_slots()
            .and_then(|()| ResumableBlocks::clear(&tree.state));
        if let Err(e) = cleared {
            tracing::warn!("tree {}: the stage cannot be cleared: {e}", tree.name());
        }

        let Stage { tree, plan, .. } = self.stage;
        Ok(Committed { tree, plan, report })
    }

    /// Aborts: the tree stays unchanged, fetched content is kept for the next attempt.
    pub fn abort(self) {}

    /// Removes the staged names of the new tree's entries after an exchange.
    fn drop_slots(&self) -> Result<()> {
        let Stage {
            tree, plan, items, ..
        } = &self.stage;
        if plan.layout != Layout::Swap {
            return Ok(());
        }

        let stage = tree.state.stage();
        for item in items {
            let name = slot_name(item.slot);
            let drop_name = || -> io::Result<()> {
                let handle = handle_of(stage, &name)?;
                let operation = Operation::on(FileStat::of(&handle)?);
                rustix::fs::unlinkat(stage, &name, AtFlags::empty())?;
                operation.done(&FileStat::of(&handle)?, &mut locked(&tree.chains));
                Ok(())
            };
            drop_name().map_err(|e| self.stage.failed("cannot clear the stage of", item, e))?;
        }

        Ok(())
    }
}

/// A release that is the current one of its tree and can still be reverted, until a later stage on
/// the tree confirms it. A drop decides nothing.
#[derive(Debug)]
pub struct Committed {
    tree: Arc<Tree>,
    plan: Plan,
    report: CommitReport,
}

impl Committed {
    /// Work of the commit, in numbers.
    pub fn report(&self) -> &CommitReport {
        &self.report
    }

    /// The plan that was carried out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Reverts the commit: tree and current release are as before ([`Tree::revert`]).
    pub fn revert(self) -> Result<Serial, Box<NotReverted>> {
        self.tree.revert().map_err(|error| {
            Box::new(NotReverted {
                committed: self,
                error,
            })
        })
    }

    /// Confirms the commit: it cannot be reverted any more ([`Tree::forget_undo`]). Written content
    /// is recorded for the next scan.
    pub fn confirm(self) -> Result<()> {
        self.tree.note_written(&self.plan);
        self.tree.forget_undo()
    }
}

/// A commit that could not be reverted.
#[derive(Debug)]
pub struct NotReverted {
    /// The commit, still to be reverted or confirmed.
    pub committed: Committed,
    /// Reason of the failure.
    pub error: Error,
}
