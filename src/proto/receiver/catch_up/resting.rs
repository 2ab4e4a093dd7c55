//! Releases that this host could not put in place. It takes no offer of one, and asks nobody for
//! it, until its pause is over: another attempt prepares the release again and runs the host's
//! commands, and there may be as many offers as members.
//!
//! A new release of a sender is no such offer and has no pause.

use std::collections::BTreeMap;
use std::time::Duration;

use super::missing::{MAX_ROUND_PAUSE, ROUND_PAUSE};
use crate::id::TreeName;
use crate::manifest::ReleaseId;
use crate::units::Moment;

/// Largest number of such releases; the disk remembers fewer of each tree.
const MAX_RELEASES: usize = 1024;

/// Pause after a release failed here `failures` times: 5 s, and twice as long each time, up to
/// 120 s.
pub fn failure_pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (ROUND_PAUSE * (1 << doublings)).min(MAX_ROUND_PAUSE)
}

/// Releases with a pause, and its end.
#[derive(Debug, Default)]
pub(super) struct RestingReleases(BTreeMap<(TreeName, ReleaseId), Moment>);

impl RestingReleases {
    /// Begins the pause of `release`.
    pub(super) fn add(&mut self, now: Moment, tree: TreeName, release: ReleaseId, pause: Duration) {
        self.expire(now);
        if self.0.len() < MAX_RELEASES {
            self.0
                .insert((tree, release), now + pause.min(MAX_ROUND_PAUSE));
        }
    }

    /// Ends the pauses of all releases of `tree`.
    pub(super) fn resume(&mut self, tree: &TreeName) {
        self.0.retain(|(of, _), _| of != tree);
    }

    /// Returns true during the pause of `release`.
    pub(super) fn has(&self, now: Moment, tree: &TreeName, release: ReleaseId) -> bool {
        // Almost always empty, so the key is not made in vain.
        !self.0.is_empty()
            && self
                .0
                .get(&(tree.clone(), release))
                .is_some_and(|until| *until > now)
    }

    /// Forgets the pauses that are over.
    pub(super) fn expire(&mut self, now: Moment) {
        self.0.retain(|_, until| *until > now);
    }

    /// Returns the end of the next pause.
    pub(super) fn timeout(&self) -> Option<Moment> {
        self.0.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let pauses: Vec<u64> = (0..8).map(|n| failure_pause(n).as_secs()).collect();
        assert_eq!(pauses, [5, 5, 10, 20, 40, 80, 120, 120]);
        assert_eq!(failure_pause(u32::MAX), MAX_ROUND_PAUSE);
    }
}
