//! Counters that threads share without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::units::WallTime;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets the number to a time of day.
    pub fn set_time(&self, at: WallTime) {
        self.set(u64::try_from(at.0).unwrap_or(0));
    }

    /// The present number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The present number, unless it was never set or is 0.
    pub fn known(&self) -> Option<u64> {
        Some(self.get()).filter(|value| *value > 0)
    }
}

/// Upper bounds of the buckets, from a small change on a fast network to a large tree on a slow
/// one.
const BOUNDS: [Duration; 8] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
];

/// Counts of durations by size.
#[derive(Debug, Default)]
pub struct DurationHistogram {
    /// Durations within each bound and above the bound before.
    buckets: [Counter; BOUNDS.len()],
    longer: Counter,
    micros: Counter,
}

impl DurationHistogram {
    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took <= *bound);
        let bucket = bucket.and_then(|at| self.buckets.get(at));
        bucket.unwrap_or(&self.longer).add(1);
        self.micros
            .add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Durations up to each bound, all of them, and their sum in seconds.
    pub(super) fn read(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut sum = 0;
        let buckets = BOUNDS.iter().zip(&self.buckets).map(|(bound, bucket)| {
            sum += bucket.get();
            (bound.as_secs_f64(), sum)
        });
        let buckets: Vec<(f64, u64)> = buckets.collect();
        let all = sum + self.longer.get();

        (buckets, all, self.micros.get() as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_every_bucket_that_holds_it() {
        let histogram = DurationHistogram::default();
        for millis in [1, 100, 101, 2_000, 4_000_000] {
            histogram.observe(Duration::from_millis(millis));
        }

        let (buckets, all, sum) = histogram.read();
        let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 3, 3, 4, 4, 4, 4, 4]);
        assert_eq!((all, sum), (5, 4_002.202));
    }
}
