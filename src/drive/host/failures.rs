//! Releases that this host could not put in place, by whatever session, with the pause of each
//! before the host itself tries again.
//!
//! They are stored with the tree, so a restart of the daemon tries nothing again early.

use std::sync::Mutex;
use std::time::Duration;

use crate::drive::clock::{self, Clock};
use crate::manifest::ReleaseId;
use crate::proto::receiver::failure_pause;
use crate::sync::locked;
use crate::tree::{FailedRelease, MAX_FAILED_RELEASES, Mark, StateDir, StateReader};
use crate::units::{Moment, WallTime};

/// Releases of one tree that could not be put in place.
#[derive(Debug)]
pub struct ReleaseFailures {
    clock: Clock,
    known: Mutex<Vec<KnownFailure>>,
}

#[derive(Debug)]
struct KnownFailure {
    failed: FailedRelease,
    /// End of the pause.
    until: Moment,
}

impl ReleaseFailures {
    /// Failures that are stored with the tree. The clock may have been set since: a pause is
    /// never longer than at its begin.
    pub(super) fn load(state: &StateReader, now: WallTime) -> Self {
        let clock = Clock::start();
        let known = state.failed_releases().into_iter().map(|failed| {
            let since = u64::try_from(now.0.saturating_sub(failed.at.0)).unwrap_or(0);
            let pause = failure_pause(failed.failures);
            let left = pause.saturating_sub(Duration::from_secs(since));
            KnownFailure {
                failed,
                until: clock.now() + left,
            }
        });

        let known = Mutex::new(known.collect());
        Self { clock, known }
    }

    /// Records that `mark` could not be put in place; returns its pause.
    pub(super) fn on_failure(&self, state: &StateDir, mark: Mark) -> Duration {
        let mut known = locked(&self.known);
        let at = known.iter().position(|known| known.failed.mark == mark);
        let before = at.map_or(0, |at| known.remove(at).failed.failures);
        let failed = FailedRelease {
            mark,
            failures: before.saturating_add(1),
            at: clock::wall_seconds(),
        };

        let pause = failure_pause(failed.failures);
        let until = self.clock.now() + pause;
        known.push(KnownFailure { failed, until });
        if known.len() > MAX_FAILED_RELEASES {
            known.remove(0);
        }
        store(state, &known);
        pause
    }

    /// Records that `mark` is in place: older releases matter no more.
    pub(super) fn on_commit(&self, state: &StateDir, mark: Mark) {
        let mut known = locked(&self.known);
        let before = known.len();
        known.retain(|known| known.failed.mark.serial > mark.serial);
        if known.len() < before {
            store(state, &known);
        }
    }

    /// Ends all pauses: a person wants the release now.
    pub fn end_pauses(&self) {
        let now = self.clock.now();
        for known in locked(&self.known).iter_mut() {
            known.until = now;
        }
    }

    /// Number of failures of `id`.
    pub fn count(&self, id: ReleaseId) -> u32 {
        let known = locked(&self.known);
        let known = known.iter().find(|known| known.failed.mark.id == id);
        known.map_or(0, |known| known.failed.failures)
    }

    /// Rest of the pause of `id`, if any.
    pub fn pause(&self, id: ReleaseId) -> Option<Duration> {
        let now = self.clock.now();
        let known = locked(&self.known);
        let known = known.iter().find(|known| known.failed.mark.id == id)?;
        (known.until > now).then(|| known.until.since(now))
    }

    /// All pauses that are not over.
    pub(super) fn pauses(&self) -> Vec<(ReleaseId, Duration)> {
        let now = self.clock.now();
        let known = locked(&self.known);
        let open = known.iter().filter(|known| known.until > now);
        open.map(|known| (known.failed.mark.id, known.until.since(now)))
            .collect()
    }
}

fn store(state: &StateDir, known: &[KnownFailure]) {
    let failed: Vec<FailedRelease> = known.iter().map(|known| known.failed).collect();
    if let Err(e) = state.keep_failed_releases(&failed) {
        tracing::warn!("a restart will try a release again that failed: {e}");
    }
}
