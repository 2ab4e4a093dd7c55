//! Pause after a release of the repository that was not taken: another attempt prepares the release
//! again and runs the host's hooks.

use std::time::Duration;

use crate::drive::clock::Clock;
use crate::manifest::ReleaseId;
use crate::units::Moment;

/// First pause; doubles with each failure of one release, as in a catch-up between hosts.
const FIRST_REST: Duration = Duration::from_secs(5);
/// Longest pause.
const MAX_REST: Duration = Duration::from_secs(120);

/// The release that was not taken.
struct FailedRelease {
    id: ReleaseId,
    pause: Duration,
    until: Moment,
}

/// Pause between the attempts for one release.
pub(super) struct Rest {
    clock: Clock,
    failed: Option<FailedRelease>,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self {
            clock: Clock::start(),
            failed: None,
        }
    }

    /// Records that `id` was not taken.
    pub(super) fn on_failure(&mut self, id: ReleaseId) {
        let before = self.failed.take().filter(|failed| failed.id == id);
        let pause = before.map_or(FIRST_REST, |failed| (failed.pause * 2).min(MAX_REST));
        self.failed = Some(FailedRelease {
            id,
            pause,
            until: self.clock.now() + pause,
        });
    }

    /// Records that a release was taken.
    pub(super) fn on_success(&mut self) {
        self.failed = None;
    }

    /// Returns whether a release failed, and may be tried again.
    pub(super) fn is_over(&self) -> bool {
        let failed = self.failed.as_ref();
        failed.is_some_and(|failed| failed.until <= self.clock.now())
    }

    /// Returns whether `id` has to wait.
    pub(super) fn holds(&self, id: ReleaseId) -> bool {
        let failed = self.failed.as_ref().filter(|failed| failed.id == id);
        failed.is_some() && !self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;

    #[test]
    fn a_release_rests_ever_longer_and_another_one_does_not() {
        let id = |n: &[u8]| ReleaseId(BlockHash::of(n));
        let mut rest = Rest::new();
        assert!(!rest.holds(id(b"a")) && !rest.is_over());

        let mut pauses = Vec::new();
        for _ in 0..7 {
            rest.on_failure(id(b"a"));
            assert!(rest.holds(id(b"a")) && !rest.holds(id(b"b")) && !rest.is_over());
            pauses.push(
                rest.failed
                    .as_ref()
                    .map_or(0, |failed| failed.pause.as_secs()),
            );
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 120, 120]);

        rest.on_failure(id(b"b"));
        assert!(rest.holds(id(b"b")) && !rest.holds(id(b"a")));
        rest.on_success();
        assert!(!rest.holds(id(b"b")) && !rest.is_over());
    }
}
