//! A session's content beside the tree, from the first block to the commit.

use crate::error::{Error, Result};
use crate::tree::{Stage, Staged};

/// Progress of a session's content.
#[derive(Default)]
pub(super) enum Staging {
    /// Nothing is staged: before the comparison, or after the stage was given up or committed.
    #[default]
    Empty,
    /// The stage takes blocks.
    Open(Stage),
    /// The release is complete and can be committed.
    Complete(Staged),
}

impl Staging {
    /// The stage, while it takes blocks.
    pub(super) fn open(&self) -> Option<&Stage> {
        match self {
            Staging::Open(stage) => Some(stage),
            Staging::Empty | Staging::Complete(_) => None,
        }
    }

    /// Completes the stage. An error aborts it.
    pub(super) fn finish(&mut self) -> Result<()> {
        *self = match std::mem::take(self) {
            Staging::Open(stage) => Staging::Complete(stage.finish()?),
            Staging::Complete(staged) => Staging::Complete(staged),
            Staging::Empty => return Err(Error::refused("nothing is staged")),
        };

        Ok(())
    }

    /// Returns whether the release can be committed.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Staging::Complete(_))
    }

    /// Takes the complete release out for its commit.
    pub(super) fn take_complete(&mut self) -> Option<Staged> {
        match std::mem::take(self) {
            Staging::Complete(staged) => Some(staged),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Aborts: the tree stays unchanged, fetched content is kept for the next attempt.
    pub(super) fn abort(&mut self) {
        *self = Staging::Empty;
    }
}
