//! Commits that did not end: completed or undone at opening, undone after a failure.

use super::{Claim, Tree};
use crate::error::{Error, Result};
use crate::id::Serial;
use crate::sync::locked;
use crate::tree::commit::executor::Try;
use crate::tree::commit::journal::Journal;
use crate::tree::commit::{run, undo};
use crate::tree::history::content;
use crate::tree::state::reader::{BACKWARD, FORWARD};

/// Result of the recovery at opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// No commit was in progress.
    Nothing,
    /// A commit was in progress and is now complete.
    Completed(Serial),
    /// A commit was in progress and is now undone.
    Undone(Serial),
}

impl Tree {
    /// Reason why the tree is part new, part old, with the release whose commit failed and cannot
    /// be undone.
    pub fn torn(&self) -> Option<(Serial, String)> {
        locked(&self.torn).clone()
    }

    /// Records that a commit cannot be undone because of `e`; returns the message for people.
    pub(crate) fn mark_torn(&self, e: &Error) -> String {
        let journal = Journal::read(&self.state, BACKWARD).ok().flatten();
        let journal = journal.or_else(|| Journal::read(&self.state, FORWARD).ok().flatten());
        let serial = journal.map(|j| j.serial()).unwrap_or_default();
        let text = format!(
            "part new, part old: the commit of {}@{serial} failed and cannot be undone: \
             {e} (mend the cause, then deploy again or restart the daemon: the rest is \
             undone first)",
            self.name()
        );
        *locked(&self.torn) = Some((serial, text.clone()));

        text
    }

    /// Undoes the remains of a failed commit; an error while that is impossible.
    pub fn finish_undo(&self) -> Result<()> {
        if self.torn().is_none() {
            return Ok(());
        }
        let _busy = Claim::patient(self)?;
        self.check_state()?;
        self.undo_failed_commit().map(drop)
    }

    /// Undoes a commit that failed and could not be undone then; returns its serial. Until this
    /// succeeds nothing else may run on the tree: journal and undo directory are the only record of
    /// it.
    pub(crate) fn undo_failed_commit(&self) -> Result<Option<Serial>> {
        match self.undo_torn() {
            Err(e) if !self.crash.happened() => Err(Error::refused(format!(
                "the tree is {}",
                self.mark_torn(&e)
            ))),
            Ok(settled) => {
                *locked(&self.torn) = None;
                Ok(settled)
            }
            done => done,
        }
    }

    pub(super) fn complete_or_undo(&self, journal: &Journal) -> Result<()> {
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
            self.mark_torn(&why)
        )))
    }

    /// Undoes the commit of `journal`, reversed by [`undo::begin`], and removes the tree left
    /// aside.
    pub(super) fn undo(&self, journal: &Journal) -> Result<()> {
        undo::run(self, journal)?;

        if journal.swap.is_some()
            && let Err(e) = content::archive_all(self)
        {
            tracing::warn!(
                "tree {}: the tree that was taken back cannot be removed: {e}",
                self.name()
            );
        }

        Ok(())
    }

    fn undo_torn(&self) -> Result<Option<Serial>> {
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

    pub(super) fn recover(&self) -> Result<Recovery> {
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
