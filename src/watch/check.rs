//! When everything is looked at again, although nothing more was heard. Pure.
//!
//! What is heard names paths, and a file can change under a name that is gone before anybody looks: written through a
//! link that is removed again, or through a handle whose name is. Each such change leaves a trace in the file's stat,
//! so that a look at every path, which reads nothing that is as it was, finds it.

use std::time::Duration;

use crate::units::Moment;

/// How long it is quiet before everything is looked at,
const AFTER: Duration = Duration::from_secs(1);
/// and how long that waits at most where it never is.
const MOST: Duration = Duration::from_secs(60);
/// Looks take at most one in so many parts of the time.
const SHARE: u32 = 20;
/// How often everything is looked at where nothing is heard at all,
const EVERY: Duration = Duration::from_secs(600);
/// and in how many parts of the time at most.
const IDLE_SHARE: u32 = 200;

/// When the next look at everything is due.
#[derive(Debug)]
pub struct Checks {
    /// The first look since the last one at everything that saw only what was named.
    first: Option<Moment>,
    /// The last such look.
    last: Moment,
    /// When everything was looked at last, and how long that took.
    checked: Moment,
    took: Duration,
}

impl Checks {
    /// Everything is looked at now.
    pub fn new(now: Moment) -> Self {
        Self {
            first: None,
            last: now,
            checked: now,
            took: Duration::ZERO,
        }
    }

    /// Only what was named was looked at.
    pub fn looked(&mut self, now: Moment) {
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// Everything was looked at; how long that took, when it is known.
    pub fn checked(&mut self, now: Moment, took: Option<Duration>) {
        *self = Self {
            first: None,
            last: now,
            checked: now,
            took: took.unwrap_or(self.took),
        };
    }

    /// A look at everything took so long.
    pub fn timed(&mut self, took: Duration) {
        self.took = took;
    }

    /// Whether something was looked at since everything was.
    pub fn is_pending(&self) -> bool {
        self.first.is_some()
    }

    /// When everything is to be looked at, if nothing else happens before.
    pub fn due(&self) -> Moment {
        match self.first {
            Some(_) => (self.last + AFTER).max(self.checked + self.took * SHARE),
            None => self.checked + EVERY.max(self.took * IDLE_SHARE),
        }
    }

    /// When everything is to be looked at whatever happens.
    pub fn latest(&self) -> Moment {
        self.first.map_or_else(
            || self.due(),
            |first| (first + MOST).max(self.checked + self.took * SHARE),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn it_is_due_when_it_is_quiet_and_at_last_when_it_is_not() {
        let mut checks = Checks::new(at(0));
        assert_eq!((checks.due(), checks.is_pending()), (at(600_000), false));
        for ms in (1000..100_000).step_by(500) {
            checks.looked(at(ms));
            assert_eq!((checks.due(), checks.latest()), (at(ms + 1000), at(61_000)));
        }

        checks.checked(at(100_000), None);
        assert_eq!((checks.due(), checks.is_pending()), (at(700_000), false));
    }

    #[test]
    fn what_takes_long_is_done_seldom() {
        let mut checks = Checks::new(at(0));
        checks.checked(at(10_000), Some(Duration::from_secs(5)));
        assert_eq!(checks.due(), at(1_010_000));
        checks.looked(at(20_000));
        assert_eq!((checks.due(), checks.latest()), (at(110_000), at(110_000)));
        checks.looked(at(120_000));
        assert_eq!((checks.due(), checks.latest()), (at(121_000), at(110_000)));

        // How long it took is known still when the next one had something to send.
        checks.checked(at(130_000), None);
        checks.looked(at(130_001));
        assert_eq!(checks.due(), at(230_000));
        checks.timed(Duration::from_secs(10));

        assert_eq!(checks.due(), at(330_000));
    }
}
