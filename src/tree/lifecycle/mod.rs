//! One tree of this host: its root, its state, and the rule that an interrupted commit ends before
//! anything else.

mod awaiting;
mod claim;
mod recovery;
mod sent;

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

pub(crate) use self::claim::Claim;
pub use self::recovery::Recovery;
use super::commit::journal::Journal;
use super::commit::run::{self, CommitReport, StagedRelease};
use super::commit::{refresh_index, swap_follow, swap_probe};
use super::fs::fault::Faults;
use super::history::{content, gathering};
use super::index::TEMPORARY_PREFIX;
use super::prepare::obstructions;
use super::prepare::resume::ResumableBlocks;
use super::state::reader::{BACKWARD, done_journal, kept_journal};
use super::state::worktree::{TreeOptions, Worktree};
use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::manifest::Release;
use crate::sync::locked;

/// One tree of this host, locked for this process.
#[derive(Debug)]
pub struct Tree {
    work: Worktree,
    busy: AtomicBool,
    recovery: Recovery,
    /// A commit that failed and cannot be undone, and the reason.
    torn: Mutex<Option<(Serial, String)>>,
}

/// Reads need no claim on the tree.
impl Deref for Tree {
    type Target = Worktree;

    fn deref(&self) -> &Worktree {
        &self.work
    }
}

impl Tree {
    /// Opens the tree `name` at `path` and ends a commit that an earlier process left unfinished.
    /// Creates the directory if only the last component is missing. A missing parent is an error:
    /// more likely a typo or a missing mount.
    pub fn open(
        name: TreeName,
        path: &Path,
        state_dir: Option<&Path>,
        options: TreeOptions,
    ) -> Result<Arc<Self>> {
        Self::open_with(name, path, state_dir, options, Faults::default()).map(Arc::new)
    }

    pub(crate) fn open_with(
        name: TreeName,
        path: &Path,
        state_dir: Option<&Path>,
        options: TreeOptions,
        crash: Faults,
    ) -> Result<Self> {
        let mut tree = Self {
            work: Worktree::open(name, path, state_dir, options, crash)?,
            busy: AtomicBool::new(false),
            recovery: Recovery::Nothing,
            torn: Mutex::default(),
        };

        match tree.recover() {
            Ok(recovery) => tree.recovery = recovery,
            Err(e) if tree.crash.happened() => return Err(e),
            // The remains of the commit are needed to make the tree whole: nothing is tidied up.
            Err(e) => {
                let why = tree.mark_torn(&e);
                tracing::error!("tree {}: {why}", tree.name());
                return Ok(tree);
            }
        }

        match tree.recovery {
            Recovery::Nothing => {}
            Recovery::Completed(serial) => {
                tracing::info!("tree {}: completed the commit of {serial}", tree.name())
            }
            Recovery::Undone(serial) => {
                tracing::warn!("tree {}: undid the commit of {serial}", tree.name())
            }
        }

        tree.state.sweep(TEMPORARY_PREFIX);
        tree.state.forget_next()?;
        let staged = tree.recover_staged();
        let tidied = staged.and_then(|()| ResumableBlocks::tidy(&tree.state));
        let tidied = tidied.and_then(|()| match tree.revertible()? {
            // The undo directory is kept for a revert.
            Some(_) => Ok(()),
            None => content::archive_all(&tree)
                .and_then(|()| tree.prune())
                .and_then(|()| tree.prune_nodes()),
        });

        if let Err(e) = tidied {
            if tree.crash.happened() {
                return Err(e);
            }
            tracing::warn!(
                "tree {}: what is not needed any more cannot be removed: {e}",
                tree.name()
            );
        }

        Ok(tree)
    }

    /// Refuses if the tree cannot be exchanged as a whole (layout `swap`), with reason and remedy.
    /// Tried with two empty directories, which are removed again.
    pub fn check_swap(&self) -> Result<()> {
        self.with_root(|root| swap_probe::probe(self, root))
    }

    /// Refuses a plan with an obstruction in the tree, such as a mounted filesystem.
    pub fn check_way(&self, plan: &Plan) -> Result<()> {
        obstructions::check(self, plan)
    }

    /// Result of the recovery at opening.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Reverts the last commit, as long as it is not confirmed ([`Tree::forget_undo`], or a later
    /// stage): tree and current release are as before. Returns the serial of the reverted release,
    /// which stays the highest accepted one and is never accepted again.
    pub fn revert(&self) -> Result<Serial> {
        let _busy = Claim::new(self)?;
        self.check_state()?;
        if let Some(serial) = self.undo_failed_commit()? {
            return Ok(serial);
        }

        let none = || {
            Error::refused(format!(
                "tree {}: the last commit can no longer be undone",
                self.name()
            ))
        };

        let journal = self.unconfirmed()?.ok_or_else(none)?;
        gathering::drop_replaced_index(self, journal.serial())?;
        self.crash.point()?;
        self.state
            .rename(&kept_journal(journal.serial()), BACKWARD)?;

        match self.undo(&journal) {
            Err(e) if !self.crash.happened() => Err(Error::refused(format!(
                "the tree is {}",
                self.mark_torn(&e)
            ))),
            done => done.map(|()| journal.serial()),
        }
    }

    /// Release that [`Tree::revert`] would revert, if any.
    pub fn revertible(&self) -> Result<Option<Serial>> {
        Ok(self.unconfirmed()?.map(|journal| journal.serial()))
    }

    /// Confirms the last commit: it cannot be reverted any more. Replaced and deleted entries
    /// become kept content of the release before, as long as that release is kept; the oldest
    /// releases beyond the limit go.
    pub fn forget_undo(&self) -> Result<()> {
        let _busy = Claim::new(self)?;
        self.check_state()?;
        self.undo_failed_commit()?;
        self.confirm()
    }

    pub(crate) fn confirm(&self) -> Result<()> {
        let journal = self.unconfirmed()?;
        if let Some(journal) = &journal {
            self.follow_last(journal)?;
            match self.keep(journal) {
                Err(e) if self.crash.happened() => return Err(e),
                Err(e) => {
                    tracing::warn!(
                        "tree {}: what release {} replaced is not kept: {e}",
                        self.name(),
                        journal.serial()
                    )
                }
                Ok(()) => {}
            }
        }

        if let Some((journal, swap)) = journal.as_ref().and_then(|j| Some((j, j.swap.as_ref()?))) {
            // No way back from here on: the old tree is removed.
            self.crash.point()?;
            self.state.rename(
                &kept_journal(journal.serial()),
                &done_journal(journal.serial()),
            )?;
            if let Err(e) = refresh_index::relink(self, journal, swap.old.ino, &swap.changed) {
                tracing::warn!(
                    "tree {}: its files are read anew by the next comparison: {e}",
                    self.name()
                );
            }
        }

        locked(&self.chains).begin(false);
        content::archive_all(self)?;
        self.prune()
    }

    /// Transfers writes into the old tree through handles from before the exchange.
    fn follow_last(&self, journal: &Journal) -> Result<()> {
        let Some(exchange) = &journal.swap else {
            return Ok(());
        };

        match swap_follow::follow_handles(self, journal, exchange) {
            Err(e) if self.crash.happened() => Err(e),
            Err(e) => {
                tracing::warn!(
                    "tree {}: what was written into the old tree may be missing: {e}",
                    self.name()
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Journal of the last commit, if it can be reverted.
    fn unconfirmed(&self) -> Result<Option<Journal>> {
        let Some(last) = self.state.last_commit()? else {
            return Ok(None);
        };
        Ok(
            Journal::read(&self.state, &kept_journal(last.release.serial))?
                .filter(|j| j.commit == last),
        )
    }

    /// Commits a stage, all or nothing.
    pub(crate) fn commit(
        &self,
        staged: StagedRelease<'_>,
        release: &Release,
        signature: &[u8],
    ) -> Result<CommitReport> {
        let plan = staged.plan;
        let journal = run::begin(self, staged, release, signature)?;
        self.complete_or_undo(&journal)?;

        Ok(CommitReport::of(plan))
    }
}
