//! Backoff between attempts of a failed deploy. Pure.

use std::time::Duration;

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
