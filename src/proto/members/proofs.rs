//! Proofs of serials in answers to solicits.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::TreeName;
use crate::units::Moment;
use crate::wire::message::SerialProof;

/// At most [`MAX_SHOWN_A_SECOND`] answers carry a proof of a serial in this time.
const SHOW_WINDOW: Duration = Duration::from_secs(1);
/// See [`SHOW_WINDOW`].
const MAX_SHOWN_A_SECOND: u32 = 32;

/// Proofs of the highest serial of each tree.
#[derive(Debug)]
pub(super) struct ShownProofs {
    by_tree: BTreeMap<TreeName, SerialProof>,
    /// Start of the rate limit's window.
    since: Moment,
    /// Proofs sent in this window.
    used: u32,
}

impl ShownProofs {
    /// Starts without any proof.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            by_tree: BTreeMap::new(),
            since: now,
            used: 0,
        }
    }

    /// Replaces the proofs.
    pub(super) fn set(&mut self, by_tree: BTreeMap<TreeName, SerialProof>) {
        self.by_tree = by_tree;
    }

    /// Returns the proof of `tree`. Rate limited, because a proof is much larger than a solicit.
    pub(super) fn show(&mut self, now: Moment, tree: &TreeName) -> Option<SerialProof> {
        if !self.spend(now) {
            return None;
        }

        self.by_tree.get(tree).cloned()
    }

    /// Returns whether one more answer may carry a proof.
    fn spend(&mut self, now: Moment) -> bool {
        if now.since(self.since) >= SHOW_WINDOW {
            self.since = now;
            self.used = 0;
        }

        self.used += 1;
        self.used <= MAX_SHOWN_A_SECOND
    }
}
