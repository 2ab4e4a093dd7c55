//! Schedules full checks of the source, which find changes without events. Pure.
//!
//! Events name paths. A file can also change under a name that is gone before the scan: through a
//! hard link that is removed again, or through an open handle of an unlinked name. Each such change
//! leaves a trace in the file's stat, so a check of every path finds it without reading unchanged
//! files.

use std::time::Duration;

use crate::units::Moment;

/// Quiet time before a full check.
const QUIET_DELAY: Duration = Duration::from_secs(1);
/// Longest delay of a full check on a source that is never quiet.
const MAX_CHECK_DELAY: Duration = Duration::from_secs(60);
/// Full checks take at most one part in this many of the time.
const CHECK_TIME_DIVISOR: u32 = 20;
/// Interval of full checks without any events.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// Without events, full checks take at most one part in this many of the time.
const IDLE_TIME_DIVISOR: u32 = 200;

/// Schedule of full checks.
#[derive(Debug)]
pub struct Checks {
    /// Time of the first partial scan since the last full check.
    first: Option<Moment>,
    /// Time of the latest partial scan.
    last: Moment,
    /// Time and duration of the last full check.
    checked: Moment,
    took: Duration,
}

impl Checks {
    /// Creates a schedule whose last full check is `now`.
    pub fn new(now: Moment) -> Self {
        Self {
            first: None,
            last: now,
            checked: now,
            took: Duration::ZERO,
        }
    }

    /// Records a scan of named paths only.
    pub fn note_partial(&mut self, now: Moment) {
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// Records a full check and its duration, if known.
    pub fn note_full(&mut self, now: Moment, took: Option<Duration>) {
        *self = Self {
            first: None,
            last: now,
            checked: now,
            took: took.unwrap_or(self.took),
        };
    }

    /// Records the duration of a full scan.
    pub fn set_duration(&mut self, took: Duration) {
        self.took = took;
    }

    /// Returns whether a partial scan ran since the last full check.
    pub fn is_pending(&self) -> bool {
        self.first.is_some()
    }

    /// Time of the next full check if the source stays quiet.
    pub fn due(&self) -> Moment {
        match self.first {
            Some(_) => (self.last + QUIET_DELAY).max(self.checked + self.took * CHECK_TIME_DIVISOR),
            None => self.checked + IDLE_CHECK_INTERVAL.max(self.took * IDLE_TIME_DIVISOR),
        }
    }

    /// Time of the next full check even if changes continue.
    pub fn latest(&self) -> Moment {
        self.first.map_or_else(
            || self.due(),
            |first| (first + MAX_CHECK_DELAY).max(self.checked + self.took * CHECK_TIME_DIVISOR),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn it_is_due_when_it_is_quiet_and_at_last_when_it_is_not() {
        let mut checks = Checks::new(at(0));
        assert_eq!((checks.due(), checks.is_pending()), (at(600_000), false));
        for ms in (1000..100_000).step_by(500) {
            checks.note_partial(at(ms));
            assert_eq!((checks.due(), checks.latest()), (at(ms + 1000), at(61_000)));
        }

        checks.note_full(at(100_000), None);
        assert_eq!((checks.due(), checks.is_pending()), (at(700_000), false));
    }

    #[test]
    fn what_takes_long_is_done_seldom() {
        let mut checks = Checks::new(at(0));
        checks.note_full(at(10_000), Some(Duration::from_secs(5)));
        assert_eq!(checks.due(), at(1_010_000));
        checks.note_partial(at(20_000));
        assert_eq!((checks.due(), checks.latest()), (at(110_000), at(110_000)));
        checks.note_partial(at(120_000));
        assert_eq!((checks.due(), checks.latest()), (at(121_000), at(110_000)));

        // The duration is still known after a check that had something to send.
        checks.note_full(at(130_000), None);
        checks.note_partial(at(130_001));
        assert_eq!(checks.due(), at(230_000));
        checks.set_duration(Duration::from_secs(10));

        assert_eq!(checks.due(), at(330_000));
    }
}
