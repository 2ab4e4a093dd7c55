//! Pause after a release of the repository that did not come as far as this host's tree: the store
//! or the network failed. [`crate::drive::host::ReleaseFailures`] has the failures of the tree.

use crate::drive::clock::Clock;
use crate::manifest::ReleaseId;
use crate::proto::receiver::failure_pause;
use crate::units::Moment;

/// The release that did not come.
struct FailedTake {
    id: ReleaseId,
    failures: u32,
    until: Moment,
}

/// Pause between the attempts for one release.
pub(super) struct Rest {
    clock: Clock,
    failed: Option<FailedTake>,
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
        let failures = before.map_or(1, |failed| failed.failures.saturating_add(1));
        self.failed = Some(FailedTake {
            id,
            failures,
            until: self.clock.now() + failure_pause(failures),
        });
    }

    /// Records that a release was taken.
    pub(super) fn on_success(&mut self) {
        self.failed = None;
    }

    /// Returns whether `id` has to wait.
    pub(super) fn holds(&self, id: ReleaseId) -> bool {
        let failed = self.failed.as_ref().filter(|failed| failed.id == id);
        failed.is_some_and(|failed| failed.until > self.clock.now())
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
        assert!(!rest.holds(id(b"a")));

        for failures in 1..7 {
            rest.on_failure(id(b"a"));
            assert!(rest.holds(id(b"a")) && !rest.holds(id(b"b")));
            let failed = rest.failed.as_ref().expect("a failure");
            assert_eq!(failed.failures, failures);
        }

        rest.on_failure(id(b"b"));
        assert!(rest.holds(id(b"b")) && !rest.holds(id(b"a")));
        rest.on_success();
        assert!(!rest.holds(id(b"b")));
    }
}
