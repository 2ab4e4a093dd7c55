//! How long it takes until a deploy that failed is tried again. Pure.

use std::time::Duration;

/// After the first failure,
const FIRST: Duration = Duration::from_secs(2);
/// and at the most.
const MOST: Duration = Duration::from_secs(60);

/// A wait that doubles with every failure in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// One more failure; how long to wait now.
    pub fn failed(&mut self) -> Duration {
        let wait = FIRST
            .saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(MOST);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// All is well again.
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
        let waits: Vec<u64> = (0..40).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(waits[..7], [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[39], 60);
        backoff.reset();
        assert_eq!(backoff.failed().as_secs(), 2);
    }
}
