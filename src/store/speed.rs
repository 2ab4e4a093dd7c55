//! Two bounds on speed: a floor below which a connection counts as stuck, and a ceiling for all
//! connections together. Pure: time comes in as an argument.

use std::time::Duration;

use crate::units::{Moment, Rate};

/// Bytes a second below which a connection is stuck.
pub(super) const FLOOR_BYTES: u64 = 1024;
/// Bytes that may go at once although the ceiling is lower.
const BURST_BYTES: u64 = 256 << 10;

/// Bytes of one connection while somebody waited for them. The window moves by halves: a connection
/// that stops is noticed after one and a half at the latest.
#[derive(Debug, Clone)]
pub(super) struct SpeedFloor {
    window: Duration,
    /// Time and bytes of the present half.
    waited: Duration,
    bytes: u64,
    /// Bytes of the half before.
    before: Option<u64>,
}

impl SpeedFloor {
    /// A connection that is stuck after `window` with too few bytes.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            waited: Duration::ZERO,
            bytes: 0,
            before: None,
        }
    }

    /// Time left until the next look at the speed.
    pub fn left(&self) -> Duration {
        (self.window / 2).saturating_sub(self.waited)
    }

    /// Counts a wait of `time` that brought `bytes`. Returns false if the connection is stuck.
    pub fn waited(&mut self, time: Duration, bytes: u64) -> bool {
        self.waited = self.waited.saturating_add(time);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.window / 2 {
            return true;
        }

        let is_whole = self.waited >= self.window;
        let seen = match self.before {
            _ if is_whole => Some(self.bytes),
            before => before.map(|before| before.saturating_add(self.bytes)),
        };
        let enough = (self.window.as_secs_f64() * FLOOR_BYTES as f64).max(1.0);
        self.before = Some(self.bytes);
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        seen.is_none_or(|seen| seen as f64 >= enough)
    }
}

/// The ceiling that all connections share.
#[derive(Debug)]
pub(super) struct SpeedCeiling {
    rate: Option<Rate>,
    /// The time up to which bytes were given away.
    used: Moment,
}

impl SpeedCeiling {
    /// A ceiling of `rate`; `None` is no ceiling.
    pub fn new(rate: Option<Rate>) -> Self {
        Self {
            rate,
            used: Moment(0),
        }
    }

    /// Takes `bytes` and returns the time to wait before the next ones.
    pub fn take(&mut self, now: Moment, bytes: u64) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };

        // An idle time is not saved up for later beyond the burst.
        let earliest = now - rate.time_for(BURST_BYTES);
        self.used = self.used.max(earliest) + rate.time_for(bytes);
        self.used.since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slow_connection_is_stuck_and_a_steady_one_is_not() {
        let mut floor = SpeedFloor::new(10 * SECOND);
        for _ in 0..100 {
            assert!(floor.waited(SECOND, 2 * FLOOR_BYTES));
        }

        let mut floor = SpeedFloor::new(10 * SECOND);
        let stuck = (0..10).position(|_| !floor.waited(SECOND, FLOOR_BYTES / 2));
        assert_eq!(stuck, Some(9));
        let mut floor = SpeedFloor::new(Duration::from_millis(1));
        assert!(!floor.waited(SECOND, 0), "nothing at all is always too few");
    }

    #[test]
    fn a_connection_that_stops_is_noticed_within_one_and_a_half_windows() {
        for fast in 1..40 {
            let mut floor = SpeedFloor::new(10 * SECOND);
            assert!((0..fast).all(|_| floor.waited(SECOND, 1 << 20)));
            let stuck = (1..).find(|_| !floor.waited(SECOND, 0)).expect("an end");
            assert!((5..=15).contains(&stuck), "{stuck} s");
        }
    }

    #[test]
    fn only_waiting_counts() {
        let mut floor = SpeedFloor::new(SECOND);
        assert!((0..100).all(|_| floor.waited(Duration::ZERO, 0)));
        assert_eq!(floor.left(), SECOND / 2);
    }

    #[test]
    fn the_ceiling_holds_over_time_and_allows_a_burst() {
        let rate = Rate(8 << 20);
        let mut ceiling = SpeedCeiling::new(Some(rate));
        let (mut now, mut sent) = (Moment(5_000_000_000), 0);
        assert_eq!(ceiling.take(now, BURST_BYTES / 2), Duration::ZERO);
        let began = now;
        for _ in 0..1000 {
            now = now + ceiling.take(now, 64 << 10);
            sent += 64 << 10;
        }

        let time = now.since(began).as_secs_f64();
        let shown = sent as f64 / time / f64::from(1 << 20);
        assert!((0.99..1.02).contains(&shown), "{shown} MiB a second");
        assert_eq!(SpeedCeiling::new(None).take(now, u64::MAX), Duration::ZERO);
    }
}
