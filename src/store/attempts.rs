//! Decides when a failed request is made again. Pure: randomness comes in as an argument.

use std::time::Duration;

/// Wait after the first failure; it doubles with each further one.
const FIRST_RETRY_WAIT: Duration = Duration::from_millis(200);
/// Longest wait that is chosen here.
const MAX_CHOSEN_WAIT: Duration = Duration::from_secs(20);
/// Longest wait that a server may ask for.
const MAX_ASKED_WAIT: Duration = Duration::from_secs(60);
/// Bytes of progress that pay for one failure.
const PAID_BY: u64 = 256 << 10;

/// Failures of one request, and how many of them it may have.
#[derive(Debug, Clone)]
pub(super) struct RequestAttempts {
    most: u32,
    failed: u32,
    progress: u64,
}

impl RequestAttempts {
    /// A request that is made at most `most` times.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            failed: 0,
            progress: 0,
        }
    }

    /// Number of failures that count.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Counts bytes that arrived. They pay for failures: a long body may be cut more often.
    pub fn progressed(&mut self, bytes: u64) {
        self.progress = self.progress.saturating_add(bytes);
        let paid = u32::try_from(self.progress / PAID_BY).unwrap_or(u32::MAX);
        if paid > 0 {
            self.progress %= PAID_BY;
            self.failed = self.failed.saturating_sub(paid);
        }
    }

    /// Returns the wait before the next attempt, or `None` if this failure was the last one.
    /// `asked` is the wait that the server asks for; `random` is within 0..1.
    pub fn next(&mut self, asked: Option<Duration>, random: f64) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        if self.failed >= self.most || asked.is_some_and(|asked| asked > MAX_ASKED_WAIT) {
            return None;
        }

        let doubled = FIRST_RETRY_WAIT.saturating_mul(1 << (self.failed - 1).min(10));
        // Many hosts fail at the same time and should not come back at the same time.
        let share = if (0.0..=1.0).contains(&random) {
            random
        } else {
            0.5
        };
        let spread = doubled.min(MAX_CHOSEN_WAIT).mul_f64(0.5 + share);
        Some(match asked {
            Some(asked) => asked + spread.min(asked.max(FIRST_RETRY_WAIT)),
            None => spread,
        })
    }
}

/// Parses `Retry-After` as seconds. A date would need this host's clock, which may be wrong.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| Duration::from_secs(value.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let mut attempts = RequestAttempts::new(4);
        let waits: Vec<_> = std::iter::from_fn(|| attempts.next(None, 0.5)).collect();
        assert_eq!(waits, [200, 400, 800].map(Duration::from_millis));
    }

    #[test]
    fn a_server_may_ask_for_a_longer_wait() {
        let asked = Duration::from_secs(3);
        let wait = RequestAttempts::new(4)
            .next(Some(asked), 0.0)
            .expect("again");
        assert!(wait >= asked && wait < 2 * asked);
        assert_eq!(
            RequestAttempts::new(4).next(Some(2 * MAX_ASKED_WAIT), 0.0),
            None
        );
        assert_eq!(
            RequestAttempts::new(4).next(retry_after("99999999999999999999"), 0.0),
            None
        );
    }

    #[test]
    fn hosts_come_back_at_different_times() {
        let wait = |random| RequestAttempts::new(9).next(None, random).expect("again");
        assert!(wait(0.9) > wait(0.1));
        assert!(RequestAttempts::new(9).next(None, f64::NAN).is_some());
    }

    #[test]
    fn progress_pays_for_failures() {
        let mut attempts = RequestAttempts::new(2);
        for _ in 0..100 {
            assert!(attempts.next(None, 0.0).is_some());
            attempts.progressed(PAID_BY);
        }

        assert!(attempts.next(None, 0.0).is_some());
        attempts.progressed(PAID_BY - 1);
        assert!(attempts.next(None, 0.0).is_none(), "a drip is no progress");
    }

    #[test]
    fn only_seconds_are_taken() {
        assert_eq!(retry_after(" 5 "), Some(Duration::from_secs(5)));
        for odd in ["", "-1", "soon", "Fri, 31 Dec 1999 23:59:59 GMT", "1.5"] {
            assert_eq!(retry_after(odd), None, "{odd}");
        }
    }
}
