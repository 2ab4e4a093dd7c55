//! Senders that find a tree taken by another one: refused when that one is there, asked to wait when it may be gone.
//!
//! A sender that was killed leaves its session behind. A heartbeat of it after a rival's first announcement shows that
//! it lives; without one the rival waits until the old session gives way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::SessionId;
use crate::units::Moment;

/// Longer than a sender that is there is ever silent: from then on a rival is told what it waits for.
const SILENT: Duration = Duration::from_millis(700);
/// A rival is forgotten after this; long before, it has the tree or is gone.
const FORGET: Duration = Duration::from_secs(30);
/// The rivals that may wait at one time; others are refused at once.
const MAX_WAITING: usize = 64;

/// What becomes of a rival's announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The other sender is there.
    Refuse,
    /// Nothing is known yet; the rival will announce again.
    Hesitate,
    /// The other sender seems to be gone; the rival is told so and will announce again.
    Wait,
}

/// Since when rivals wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    since: BTreeMap<SessionId, Moment>,
}

impl Waiting {
    /// The rival `id` announces while a sender has the tree that was heard `silent` ago.
    pub(super) fn weigh(&mut self, now: Moment, id: SessionId, silent: Duration) -> Verdict {
        self.since.retain(|_, since| now.since(*since) < FORGET);
        if self.since.len() >= MAX_WAITING && !self.since.contains_key(&id) {
            return Verdict::Refuse;
        }

        let waited = now.since(*self.since.entry(id).or_insert(now));
        match waited {
            waited if silent < waited => Verdict::Refuse,
            waited if waited < SILENT => Verdict::Hesitate,
            _ => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    #[test]
    fn a_sign_of_life_after_the_first_announcement_refuses_and_none_lets_wait() {
        let (mut waiting, id) = (Waiting::default(), SessionId(1));
        let silent = |ms| Duration::from_millis(ms);
        assert_eq!(waiting.weigh(at(0), id, silent(0)), Verdict::Hesitate);
        assert_eq!(waiting.weigh(at(60), id, silent(60)), Verdict::Hesitate);
        assert_eq!(waiting.weigh(at(900), id, silent(950)), Verdict::Wait);
        assert_eq!(waiting.weigh(at(1900), id, silent(30)), Verdict::Refuse);

        assert_eq!(
            waiting.weigh(at(40_000), id, silent(30)),
            Verdict::Hesitate,
            "a new beginning"
        );
    }

    #[test]
    fn a_flood_of_rivals_stays_bounded() {
        let mut waiting = Waiting::default();
        let verdicts: Vec<_> = (0..1000)
            .map(|id| waiting.weigh(at(1), SessionId(id), SILENT))
            .collect();
        assert_eq!(waiting.since.len(), MAX_WAITING);
        assert_eq!(verdicts.last(), Some(&Verdict::Refuse));
    }
}
