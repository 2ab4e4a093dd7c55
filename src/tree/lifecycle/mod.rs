//! One tree of this host: its root, its state, and the rule that an interrupted commit is ended before anything else.

mod sent;

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::commit::executor::Try;
use super::commit::journal::Journal;
use super::commit::run::{self, CommitReport, Staged};
use super::commit::{refresh_index, swap, swap_probe, undo};
use super::fs::fault::Faults;
use super::history::content;
use super::index::TEMPORARY_PREFIX;
use super::prepare::obstructions;
use super::prepare::resume::ResumableBlocks;
use super::state::reader::{BACKWARD, FORWARD, done_journal, kept_journal};
use super::state::worktree::{TreeOptions, Worktree};
use crate::diff::Plan;
use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::manifest::Release;
use crate::sync::locked;

/// How often a tree is tried to be claimed that somebody else has for a moment, and the pause between.
const CLAIMS: usize = 50;
const CLAIM_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// What opening a tree found to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing was under way.
    Nothing,
    /// A commit was under way and has been completed.
    Completed(Serial),
    /// A commit was under way and has been undone.
    Undone(Serial),
}

/// One tree of this host, locked for this process.
#[derive(Debug)]
pub struct Tree {
    work: Worktree,
    busy: AtomicBool,
    recovery: Recovery,
    /// A commit that failed and cannot be undone: which, and why.
    torn: Mutex<Option<(Serial, String)>>,
}

/// Reading needs no claim on the tree.
impl Deref for Tree {
    type Target = Worktree;

    fn deref(&self) -> &Worktree {
        &self.work
    }
}

impl Tree {
    /// Opens the tree `name` at `path` and ends what an earlier process left unfinished. The directory itself is made
    /// when only it is missing; a missing parent is an error, since that is more likely a typo or a missing mount.
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
            // What is left of the commit is all that can make the tree whole: nothing is tidied up.
            Err(e) => {
                let why = tree.tear(&e);
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
        let tidied = ResumableBlocks::tidy(&tree.state).and_then(|()| match tree.revertible()? {
            // What it may go back to is kept.
            Some(_) => Ok(()),
            None => content::put_away(&tree)
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

    /// Refuses when the tree cannot be exchanged as a whole (layout `swap`), and says why and what to do. Tried with two
    /// empty directories, which are removed again.
    pub fn check_swap(&self) -> Result<()> {
        self.with_root(|root| swap_probe::probe(self, root))
    }

    /// Refuses a plan that something in the tree stands in the way of, such as a mounted filesystem.
    pub fn check_way(&self, plan: &Plan) -> Result<()> {
        obstructions::check(self, plan)
    }

    /// What opening the tree found to end.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Takes the last commit back as long as it is not confirmed ([`Tree::forget_undo`], or a stage that was begun
    /// since): the tree and its current release are again what they were before. Says which release was taken back.
    /// Its serial stays the highest that was accepted, and is never accepted again.
    pub fn revert(&self) -> Result<Serial> {
        let _busy = Claim::new(self)?;
        self.check_state()?;
        if let Some(serial) = self.settle()? {
            return Ok(serial);
        }

        let none = || {
            Error::refused(format!(
                "tree {}: the last commit can no longer be undone",
                self.name()
            ))
        };

        let journal = self.unconfirmed()?.ok_or_else(none)?;
        content::keep_nothing(self, journal.serial())?;
        self.crash.point()?;
        self.state
            .rename(&kept_journal(journal.serial()), BACKWARD)?;

        match self.undo(&journal) {
            Err(e) if !self.crash.happened() => {
                Err(Error::refused(format!("the tree is {}", self.tear(&e))))
            }
            done => done.map(|()| journal.serial()),
        }
    }

    /// The release that [`Tree::revert`] would take back; `None` when there is none.
    pub fn revertible(&self) -> Result<Option<Serial>> {
        Ok(self.unconfirmed()?.map(|journal| journal.serial()))
    }

    /// Confirms the last commit: it cannot be taken back any more. What it replaced and deleted is kept as the content
    /// of the release before, as long as that is kept; the oldest releases beyond those to be kept go.
    pub fn forget_undo(&self) -> Result<()> {
        let _busy = Claim::new(self)?;
        self.check_state()?;
        self.settle()?;
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
            // There is no way back from here on: the old tree is taken apart.
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
        content::put_away(self)?;
        self.prune()
    }

    /// Follows what others wrote into the old tree by handles that they opened before the exchange.
    fn follow_last(&self, journal: &Journal) -> Result<()> {
        let Some(exchange) = &journal.swap else {
            return Ok(());
        };

        match swap::follow_handles(self, journal, exchange) {
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

    /// The journal of the last commit, when it can be taken back.
    fn unconfirmed(&self) -> Result<Option<Journal>> {
        let Some(last) = self.state.last_commit()? else {
            return Ok(None);
        };
        Ok(
            Journal::read(&self.state, &kept_journal(last.release.serial))?
                .filter(|j| j.commit == last),
        )
    }

    /// Why the tree is part new, part old, and with which release: its commit failed and cannot be undone.
    pub fn torn(&self) -> Option<(Serial, String)> {
        locked(&self.torn).clone()
    }

    /// Takes note that a commit cannot be undone, for the reason `e`; what to tell people.
    pub(crate) fn tear(&self, e: &Error) -> String {
        let journal = Journal::read(&self.state, BACKWARD).ok().flatten();
        let journal = journal.or_else(|| Journal::read(&self.state, FORWARD).ok().flatten());
        let serial = journal.map(|j| j.serial()).unwrap_or_default();
        let text = format!(
            "part new, part old: the commit of {}@{serial} failed and cannot be undone: {e} (mend the cause, then \
             deploy again or restart the daemon: the rest is undone first)",
            self.name()
        );
        *locked(&self.torn) = Some((serial, text.clone()));

        text
    }

    /// Undoes what is left of a commit that failed; an error as long as that cannot be done.
    pub fn mend(&self) -> Result<()> {
        if self.torn().is_none() {
            return Ok(());
        }
        let _busy = Claim::patient(self)?;
        self.check_state()?;
        self.settle().map(drop)
    }

    /// Undoes the commit that could neither be ended nor undone and was therefore called failed; says which. As long
    /// as that cannot be done nothing else may be: its journal and what is beside the tree are all that is left of it.
    pub(crate) fn settle(&self) -> Result<Option<Serial>> {
        match self.undo_failed() {
            Err(e) if !self.crash.happened() => {
                Err(Error::refused(format!("the tree is {}", self.tear(&e))))
            }
            Ok(settled) => {
                *locked(&self.torn) = None;
                Ok(settled)
            }
            done => done,
        }
    }

    /// Commits what is staged, all or nothing.
    pub(crate) fn commit(
        &self,
        staged: Staged<'_>,
        release: &Release,
        signature: &[u8],
    ) -> Result<CommitReport> {
        let plan = staged.plan;
        let journal = run::begin(self, staged, release, signature)?;
        self.complete_or_undo(&journal)?;

        Ok(CommitReport::of(plan))
    }

    fn complete_or_undo(&self, journal: &Journal) -> Result<()> {
        let Err(e) = run::complete(self, journal, Try::First) else {
            return Ok(());
        };
        if self.crash.happened() {
            return Err(e);
        }

        let Err(why) = undo::begin(self).and_then(|()| self.undo(journal)) else {
            return Err(e);
        };
        tracing::error!(
            "tree {}: release {} could not be undone: {why}",
            self.name(),
            journal.serial()
        );

        if self.crash.happened() {
            return Err(why);
        }
        Err(Error::refused(format!(
            "{e}; the tree is {}",
            self.tear(&why)
        )))
    }

    /// Undoes the commit of `journal`, which [`undo::begin`] turned round, and removes the tree that it leaves aside.
    fn undo(&self, journal: &Journal) -> Result<()> {
        undo::run(self, journal)?;

        if journal.swap.is_some()
            && let Err(e) = content::put_away(self)
        {
            tracing::warn!(
                "tree {}: the tree that was taken back cannot be removed: {e}",
                self.name()
            );
        }

        Ok(())
    }

    fn undo_failed(&self) -> Result<Option<Serial>> {
        let mut journal = Journal::read(&self.state, BACKWARD)?;
        if journal.is_none() {
            journal = Journal::read(&self.state, FORWARD)?;
            if journal.is_some() {
                undo::begin(self)?;
            }
        }

        let Some(journal) = journal else {
            return Ok(None);
        };

        self.undo(&journal)?;
        tracing::warn!(
            "tree {}: undid the commit of {}, which had failed",
            self.name(),
            journal.serial()
        );

        Ok(Some(journal.serial()))
    }

    fn recover(&self) -> Result<Recovery> {
        if let Some(journal) = Journal::read(&self.state, BACKWARD)? {
            self.undo(&journal)?;
            return Ok(Recovery::Undone(journal.serial()));
        }

        let Some(journal) = Journal::read(&self.state, FORWARD)? else {
            return Ok(Recovery::Nothing);
        };

        let serial = journal.serial();
        match run::complete(self, &journal, Try::Again) {
            Ok(_) => Ok(Recovery::Completed(serial)),
            Err(e) if self.crash.happened() => Err(e),
            Err(e) => {
                tracing::warn!(
                    "tree {}: release {serial} cannot be completed, undoing it: {e}",
                    self.name()
                );
                undo::begin(self)?;
                self.undo(&journal)?;
                Ok(Recovery::Undone(serial))
            }
        }
    }
}

/// The tree is being staged, committed or reverted by one caller.
#[derive(Debug)]
pub(crate) struct Claim<T: Deref<Target = Tree>>(T);

impl<'a> Claim<&'a Tree> {
    /// As [`Claim::new`], after a while when somebody else has the tree for a moment.
    pub(crate) fn patient(tree: &'a Tree) -> Result<Self> {
        for _ in 0..CLAIMS {
            if let Ok(claim) = Self::new(tree) {
                return Ok(claim);
            }
            std::thread::sleep(CLAIM_PAUSE);
        }
        Self::new(tree)
    }
}

impl<T: Deref<Target = Tree>> Claim<T> {
    pub(crate) fn new(tree: T) -> Result<Self> {
        if tree.busy.swap(true, Ordering::AcqRel) {
            return Err(Error::refused(format!(
                "tree {} is in the middle of another release",
                tree.name()
            ))
            .hint("wait for it to end, then try again"));
        }

        Ok(Self(tree))
    }
}

impl<T: Deref<Target = Tree>> Drop for Claim<T> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}
