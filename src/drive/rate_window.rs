//! The rate of a transfer over the last seconds.

use std::collections::VecDeque;
use std::time::Duration;

use crate::units::{Moment, Rate};

/// Shortest time over which a rate is measured.
const MIN_SPAN: Duration = Duration::from_secs(1);

/// Measures the rate over the last span of time.
#[derive(Debug)]
pub(super) struct RateWindow {
    span: Duration,
    /// Times and byte counts, oldest first.
    samples: VecDeque<(Moment, u64)>,
}

impl RateWindow {
    /// A window without samples.
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            samples: VecDeque::new(),
        }
    }

    /// Adds the total of `bytes` at the time `now`.
    pub(super) fn add(&mut self, now: Moment, bytes: u64) {
        self.samples.push_back((now, bytes));
        // The first sample is the last one before the window.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.since(*at) >= self.span)
        {
            self.samples.pop_front();
        }
    }

    /// Forgets all samples.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Measured rate; `None` until the samples span some time.
    pub(super) fn rate(&self) -> Option<Rate> {
        let (since, before) = self.samples.front()?;
        let (now, bytes) = self.samples.back()?;
        let took = now.since(*since);
        if took < MIN_SPAN {
            return None;
        }

        let bits = bytes.saturating_sub(*before).saturating_mul(8) as f64;
        Some(Rate((bits / took.as_secs_f64()) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(0) + Duration::from_millis(ms)
    }

    #[test]
    fn the_rate_is_that_of_the_last_span() {
        let mut window = RateWindow::new(Duration::from_secs(3));
        assert_eq!(window.rate(), None);

        // 1 MB/s for five seconds, then nothing.
        for ms in (0..=5_000).step_by(100) {
            window.add(at(ms), ms * 1_000);
        }
        assert_eq!(window.rate(), Some(Rate(8_000_000)));

        for ms in (5_100..=6_500).step_by(100) {
            window.add(at(ms), 5_000_000);
        }
        assert_eq!(window.rate(), Some(Rate(4_000_000)));

        for ms in (6_600..=8_000).step_by(100) {
            window.add(at(ms), 5_000_000);
        }
        assert_eq!(window.rate(), Some(Rate(0)));
        assert!(window.samples.len() <= 32);
    }

    #[test]
    fn a_moment_has_no_rate() {
        let mut window = RateWindow::new(Duration::from_secs(3));
        window.add(at(0), 0);
        window.add(at(900), 1_000_000);
        assert_eq!(window.rate(), None);
        window.add(at(1_000), 1_000_000);
        assert_eq!(window.rate(), Some(Rate(8_000_000)));
        window.clear();
        assert_eq!(window.rate(), None);
    }
}
