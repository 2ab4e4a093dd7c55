//! The choice of reporters.
//!
//! In a fleet of up to [`REPORTERS`] every host reports. In a larger one a few chosen hosts do,
//! renewed every second: the recently worst and some at random.

use std::time::Duration;

use crate::id::InstanceId;
use crate::units::Moment;

/// Largest number of regular reporters.
pub const REPORTERS: usize = 16;
/// Reporters chosen as the recently worst.
const WORST_REPORTERS: usize = 10;
/// Interval between choices of reporters.
const CHOOSE_INTERVAL: Duration = Duration::from_secs(1);
/// Age up to which a report counts for the choice.
pub const COUNTED_FOR: Duration = Duration::from_secs(2);

/// Chosen reporters.
#[derive(Debug)]
pub struct Reporters {
    chosen: Vec<InstanceId>,
    /// Time of the last choice.
    chosen_at: Moment,
    rng: fastrand::Rng,
}

/// A host that may be chosen for its recent reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReporterCandidate {
    /// Bits a second that the host received recently.
    pub received: u64,
    /// The host.
    pub host: InstanceId,
}

impl Reporters {
    /// Creates an empty choice.
    pub fn new(seed: u64) -> Self {
        Self {
            chosen: Vec::new(),
            chosen_at: Moment(0),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Regular reporters; empty when all hosts report.
    pub fn all(&self) -> &[InstanceId] {
        &self.chosen
    }

    /// Ends the choice if every one of `hosts` hosts may report. Returns whether the choice
    /// changed, or `None` in a larger fleet.
    pub fn clear_in_small_fleet(&mut self, hosts: usize) -> Option<bool> {
        if hosts > REPORTERS {
            return None;
        }

        let had = !self.chosen.is_empty();
        self.chosen.clear();
        Some(had)
    }

    /// Returns whether a new choice is due.
    pub fn is_due(&self, now: Moment) -> bool {
        self.chosen.is_empty() || now.since(self.chosen_at) >= CHOOSE_INTERVAL
    }

    /// Chooses the worst of `recent`, and some of the eligible `hosts` at random. Returns whether
    /// the choice changed.
    pub fn choose(
        &mut self,
        now: Moment,
        mut recent: Vec<ReporterCandidate>,
        hosts: impl Iterator<Item = InstanceId>,
    ) -> bool {
        self.chosen_at = now;
        recent.sort();
        let mut chosen: Vec<InstanceId> = recent
            .into_iter()
            .take(WORST_REPORTERS)
            .map(|candidate| candidate.host)
            .collect();

        let others: Vec<InstanceId> = hosts.filter(|id| !chosen.contains(id)).collect();
        while chosen.len() < REPORTERS && !others.is_empty() {
            chosen.push(others[self.rng.usize(..others.len())]);
        }

        chosen.sort();
        chosen.dedup();
        std::mem::replace(&mut self.chosen, chosen) != self.chosen
    }
}
