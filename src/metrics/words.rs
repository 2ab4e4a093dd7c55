//! Labels with a fixed set of values, so that no peer can add a time series.

use crate::hook::Phase;
use crate::repository::object::GetReply;
use crate::wire::HostStage;

/// A label's value.
pub trait Word: Copy + PartialEq + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// The value as text.
    fn word(self) -> &'static str;
}

/// One cell for each value of a label.
#[derive(Debug)]
pub struct PerWord<W, T> {
    cells: Vec<(W, T)>,
}

impl<W: Word, T: Default> Default for PerWord<W, T> {
    fn default() -> Self {
        let cells = W::ALL.iter().map(|word| (*word, T::default()));
        Self {
            cells: cells.collect(),
        }
    }
}

impl<W: Word, T> PerWord<W, T> {
    /// The cell of `word`.
    pub fn of(&self, word: W) -> &T {
        let found = self.cells.iter().find(|(other, _)| *other == word);
        // Every word is in `ALL`; a test holds that.
        &found.unwrap_or(&self.cells[0]).1
    }

    /// Every cell with its word.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.cells.iter().map(|(word, cell)| (word.word(), cell))
    }
}

/// Defines a label's values with their words.
macro_rules! words {
    ($(#[$of:meta])* $name:ident { $($(#[$about:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $value,)+
        }

        impl Word for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}

words! {
    /// Side of a session.
    SessionRole {
        /// Took part as a host.
        Receiver = "receiver",
        /// Sent the release.
        Sender = "sender",
    }
}

words! {
    /// How a session ended on this host.
    SessionEnd {
        /// The release is in place.
        Committed = "committed",
        /// Differences were told, and nothing was to change.
        Compared = "compared",
        /// The release is in place, and its checks failed.
        Unhealthy = "unhealthy",
        /// The release was taken back.
        Reverted = "reverted",
        /// The release could not be taken back.
        Stuck = "stuck",
        /// Refused before any change.
        Refused = "refused",
        /// The sender gave up.
        Aborted = "aborted",
        /// The release stays staged.
        Staged = "staged",
        /// The release could not be put in place.
        Failed = "failed",
        /// Some hosts have the release, others do not.
        Mixed = "mixed",
        /// The other side vanished.
        Lost = "lost",
    }
}

impl SessionEnd {
    /// The end of a session that this host received, by its last stage.
    pub fn of_stage(stage: HostStage, is_audit: bool) -> Self {
        match stage {
            HostStage::Committed | HostStage::Checking => Self::Committed,
            HostStage::Unhealthy => Self::Unhealthy,
            HostStage::Reverted => Self::Reverted,
            HostStage::Stuck => Self::Stuck,
            HostStage::Refused => Self::Refused,
            HostStage::Aborted => Self::Aborted,
            HostStage::Staged => Self::Staged,
            HostStage::Failed => Self::Failed,
            HostStage::Staging | HostStage::Ready if is_audit => Self::Compared,
            _ => Self::Lost,
        }
    }
}

words! {
    /// Way of bytes between this host and others.
    DataWay {
        /// To or from the group.
        Multicast = "multicast",
        /// To or from one host.
        Unicast = "unicast",
        /// To or from a repository.
        Store = "store",
    }
}

words! {
    /// Rule by which an offer was refused.
    RefusalCauseWord {
        /// No valid signature.
        Signature = "signature",
        /// The key is not listed, or not for this.
        Key = "key",
        /// Expired, or a comparison that was signed too long ago.
        Time = "time",
        /// Signed for another session, or an order that does not fit.
        Order = "order",
        /// Not newer than the newest release accepted here.
        Serial = "serial",
        /// Aborted or reverted before.
        Reverted = "reverted",
        /// The tree is not here, or cannot be served.
        Tree = "tree",
        /// The comparison with the tree broke a rule of this host, or failed.
        Comparison = "comparison",
        /// Too much to do, or asked too often.
        Busy = "busy",
        /// The tree is held, or its window is closed.
        Held = "held",
    }
}

words! {
    /// Last reply to a request to a store.
    StoreReplyWord {
        /// Answered.
        Done = "ok",
        /// The object is as it was.
        Unchanged = "not_modified",
        /// There is no such object.
        Missing = "missing",
        /// Failed.
        Failed = "failed",
    }
}

impl StoreReplyWord {
    /// The word of a last reply; `None` for a part of a body.
    pub fn of(reply: &GetReply) -> Option<Self> {
        match reply {
            GetReply::Bytes(_) => None,
            GetReply::End { .. } => Some(Self::Done),
            GetReply::NotModified => Some(Self::Unchanged),
            GetReply::Missing => Some(Self::Missing),
            GetReply::Failed(_) => Some(Self::Failed),
        }
    }
}

words! {
    /// State of a tree.
    TreeCondition {
        /// Nothing to do.
        Idle = "idle",
        /// Compares, or receives blocks.
        Staging = "staging",
        /// Has a complete release beside the tree.
        Staged = "staged",
        /// Puts a release in place, or checks it.
        Committing = "committing",
        /// Fetches a release that it missed.
        CatchingUp = "catching_up",
        /// The tree is out of order, or its last release failed.
        Failed = "failed",
    }
}

impl Word for Phase {
    const ALL: &'static [Self] = &[Phase::Before, Phase::After, Phase::Health];

    fn word(self) -> &'static str {
        self.key()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn each_word_has_a_cell_of_its_own() {
        let cells: PerWord<SessionEnd, Counter> = PerWord::default();
        for (n, end) in (1..).zip(SessionEnd::ALL) {
            cells.of(*end).add(n);
        }

        let counts: Vec<u64> = cells.iter().map(|(_, cell)| cell.get()).collect();
        let expected: Vec<u64> = (1..).take(SessionEnd::ALL.len()).collect();
        assert_eq!(counts, expected);
        let mut words: Vec<&str> = cells.iter().map(|(word, _)| word).collect();
        words.dedup();
        assert_eq!(words.len(), SessionEnd::ALL.len());
    }

    #[test]
    fn a_comparison_is_no_commit() {
        use HostStage::*;
        let of = SessionEnd::of_stage;
        assert_eq!(of(Ready, true), SessionEnd::Compared);
        assert_eq!(of(Ready, false), SessionEnd::Lost);
        assert_eq!(of(Refused, true), SessionEnd::Refused);
        assert_eq!(of(Checking, false), SessionEnd::Committed);
    }
}
