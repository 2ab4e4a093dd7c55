//! How a server behaves, as its answers show: whether it honours byte ranges, and its clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio::time::Instant;

use super::StoreManners;
use crate::sync::locked;
use crate::units::WallTime;

/// What the answers of a server have shown so far.
#[derive(Debug, Default)]
pub(super) struct ObservedManners {
    gave_part: AtomicBool,
    gave_whole: AtomicBool,
    /// The last date, and when it came.
    date: Mutex<Option<(WallTime, Instant)>>,
}

impl ObservedManners {
    /// Records the date of an answer that came at `now`.
    pub(super) fn on_date(&self, date: &str, now: Instant) {
        let parsed = httpdate::parse_http_date(date).ok();
        let since = parsed.and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok());
        let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
        if let Some(seconds) = seconds {
            *locked(&self.date) = Some((WallTime(seconds), now));
        }
    }

    /// Records an answer to a request for a range: the range, or the whole object.
    pub(super) fn on_range(&self, is_part: bool) {
        let given = match is_part {
            true => &self.gave_part,
            false => &self.gave_whole,
        };
        given.store(true, Ordering::Relaxed);
    }

    /// What is known at `now`.
    pub(super) fn known(&self, now: Instant) -> StoreManners {
        let gave_whole = self.gave_whole.load(Ordering::Relaxed);
        let is_known = gave_whole || self.gave_part.load(Ordering::Relaxed);
        let clock = locked(&self.date).map(|(date, came)| {
            let since = now.duration_since(came).as_secs();
            WallTime(date.0.saturating_add_unsigned(since))
        });
        StoreManners {
            ranges: is_known.then_some(!gave_whole),
            clock,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_show_ranges_and_the_clock() {
        let seen = ObservedManners::default();
        let now = Instant::now();
        assert_eq!(seen.known(now), StoreManners::default());
        seen.on_range(true);
        assert_eq!(seen.known(now).ranges, Some(true));
        seen.on_range(false);
        seen.on_range(true);
        let ranges = seen.known(now).ranges;
        assert_eq!(ranges, Some(false), "one whole object is enough");

        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "soon"] {
            seen.on_date(date, now);
            let later = seen.known(now + Duration::from_secs(5));
            assert_eq!(later.clock, Some(WallTime(784_111_782)));
        }
    }
}
