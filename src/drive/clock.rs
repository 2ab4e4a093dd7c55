//! The clocks: the only source of time for the machines.
#![expect(clippy::disallowed_methods, reason = "the edge where time comes in")]

use std::time::{Duration, Instant, SystemTime};

use crate::units::{Moment, WallTime};

/// A monotonic clock with an arbitrary origin.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts a clock. The first moment is not zero, so earlier moments exist.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Current moment.
    pub fn now(&self) -> Moment {
        Moment(1_000_000_000) + self.origin.elapsed()
    }
}

/// Time of day.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Time of day in whole seconds.
pub fn wall_seconds() -> WallTime {
    WallTime(i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX))
}

/// Time since 1970.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Random bits of the system for identities, nonces and jitter.
pub fn seed() -> u64 {
    match crate::keys::random_bytes() {
        Ok(bytes) => u64::from_be_bytes(bytes),
        // A weak number is better than none: all users fail closed.
        Err(_) => fastrand::u64(1..),
    }
}
