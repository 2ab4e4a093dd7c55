//! The clocks: the only place that reads them for the machines.
#![expect(clippy::disallowed_methods, reason = "the edge where time comes in")]

use std::time::{Duration, Instant, SystemTime};

use crate::units::{Moment, WallTime};

/// A steady clock with an origin of its own.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now; its first moment is not zero, so that "before the start" can be said.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        Moment(1_000_000_000) + self.origin.elapsed()
    }
}

/// The time of day.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The time of day in whole seconds.
pub fn wall_seconds() -> WallTime {
    WallTime(i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX))
}

/// The time since 1970.
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Random bits of the system for identities, nonces and jitter.
pub fn seed() -> u64 {
    match crate::keys::random_bytes() {
        Ok(bytes) => u64::from_be_bytes(bytes),
        // Better a weak number than none: what depends on it fails closed.
        Err(_) => fastrand::u64(1..),
    }
}
