//! Times of a head: when it was signed, how long it holds, and whether it is stale.

use super::{Head, VerifiedHead};
use crate::units::WallTime;

/// Time for which a head holds after its signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeadValidity {
    /// As long as the head before it; the first head has no end.
    #[default]
    AsBefore,
    /// As many seconds.
    For(u32),
    /// Without an end.
    Endless,
}

/// Times of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadTimes {
    /// Time of the signature.
    pub made: WallTime,
    /// Time from which the head is stale, if it has an end.
    pub valid_until: Option<WallTime>,
}

/// Reason for calling a head stale. A store that answers with an old state shows in this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// It held until this time.
    Ended(WallTime),
    /// It was signed as many seconds ago, which is more than the reader accepts.
    Old(u64),
}

impl HeadTimes {
    /// Returns why the head is stale at `now`, for a reader that accepts an age of `max_age`
    /// seconds.
    pub fn staleness(&self, now: WallTime, max_age: Option<u64>) -> Option<Staleness> {
        if let Some(until) = self.valid_until.filter(|until| *until <= now) {
            return Some(Staleness::Ended(until));
        }
        let age = u64::try_from(now.0.saturating_sub(self.made.0)).unwrap_or(0);
        (age > max_age?).then_some(Staleness::Old(age))
    }
}

impl Head {
    /// Its times.
    pub fn times(&self) -> HeadTimes {
        HeadTimes {
            made: self.made,
            valid_until: self.valid_until,
        }
    }

    /// Sets the time of the signature, and the end.
    pub(in crate::repository) fn date(&mut self, now: WallTime, validity: HeadValidity) {
        let before = |until: WallTime| until.0.saturating_sub(self.made.0).max(0);
        let seconds = match validity {
            HeadValidity::AsBefore => self.valid_until.map(before),
            HeadValidity::For(seconds) => Some(i64::from(seconds)),
            HeadValidity::Endless => None,
        };
        self.made = now;
        self.valid_until = seconds.map(|seconds| WallTime(now.0.saturating_add(seconds)));
    }
}

impl VerifiedHead {
    /// Returns whether the head does not hold any more at `now`.
    pub fn is_stale(&self, now: WallTime) -> bool {
        self.head().times().staleness(now, None).is_some()
    }
}
