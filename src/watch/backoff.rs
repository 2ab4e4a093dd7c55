//! Attempts after a failed deploy, with a growing wait in between. Pure.

use std::time::Duration;

use crate::units::Moment;

/// Wait after the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// Longest wait between two attempts.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(60);

/// Wait that doubles with each consecutive failure.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and returns the wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        let wait = FIRST_RETRY
            .saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(MAX_RETRY_WAIT);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Schedule of the next deploy of everything, independent of collected changes.
#[derive(Debug, Default)]
pub struct RetrySchedule {
    due: Option<Moment>,
    backoff: Backoff,
}

impl RetrySchedule {
    /// A schedule with a first attempt at `due`.
    pub fn new(due: Option<Moment>) -> Self {
        Self {
            due,
            backoff: Backoff::default(),
        }
    }

    /// Time of the next attempt.
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Cancels the next attempt; returns the time.
    pub fn cancel(&mut self) -> Option<Moment> {
        self.due.take()
    }

    /// Schedules a cancelled attempt again.
    pub fn restore(&mut self, due: Option<Moment>) {
        self.due = due;
    }

    /// Schedules an attempt after a failure at `now`; returns the wait.
    pub fn retry(&mut self, now: Moment) -> Duration {
        let wait = self.backoff.next_wait();
        self.due = Some(now + wait);
        wait
    }

    /// Starts the backoff over after a success.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_minute_and_begins_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..40).map(|_| backoff.next_wait().as_secs()).collect();
        assert_eq!(waits[..7], [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[39], 60);
        backoff.reset();
        assert_eq!(backoff.next_wait().as_secs(), 2);
    }
}
