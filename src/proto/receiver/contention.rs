//! Decides between two senders of one tree: a rival is refused while the holder is alive, and waits
//! if the holder may be gone.
//!
//! A killed sender leaves its session behind. A heartbeat after the rival's first announcement
//! shows that the holder is alive. Without one the rival waits until the old session gives way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::SessionId;
use crate::units::Moment;

/// Silence longer than any live sender's: the rival then learns the reason of the wait.
const LONGEST_HEARTBEAT_GAP: Duration = Duration::from_millis(700);
/// Time after which a rival is forgotten; long before, the rival has the tree or is gone.
const RIVAL_LIFETIME: Duration = Duration::from_secs(30);
/// Largest number of waiting rivals; others are refused at once.
const MAX_RIVALS: usize = 64;

/// Decision on a rival's announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The holder is alive.
    Refuse,
    /// Still undecided; the rival will announce again.
    Undecided,
    /// The holder seems to be gone; the rival is notified and will announce again.
    Wait,
}

/// Rival senders and the start of their wait.
#[derive(Debug, Default)]
pub(super) struct Contenders {
    since: BTreeMap<SessionId, Moment>,
}

impl Contenders {
    /// Decides on an announcement of the rival `id` while the holder of the tree has been silent
    /// for `silent`.
    pub(super) fn verdict(&mut self, now: Moment, id: SessionId, silent: Duration) -> Verdict {
        self.since
            .retain(|_, since| now.since(*since) < RIVAL_LIFETIME);
        if self.since.len() >= MAX_RIVALS && !self.since.contains_key(&id) {
            return Verdict::Refuse;
        }

        let waited = now.since(*self.since.entry(id).or_insert(now));
        match waited {
            waited if silent < waited => Verdict::Refuse,
            waited if waited < LONGEST_HEARTBEAT_GAP => Verdict::Undecided,
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
    fn a_heartbeat_after_the_first_announcement_refuses_the_rival_and_silence_makes_it_wait() {
        let mut waiting = Contenders::default();
        let id = SessionId(1);
        let silent = |ms| Duration::from_millis(ms);
        assert_eq!(waiting.verdict(at(0), id, silent(0)), Verdict::Undecided);
        assert_eq!(waiting.verdict(at(60), id, silent(60)), Verdict::Undecided);
        assert_eq!(waiting.verdict(at(900), id, silent(950)), Verdict::Wait);
        assert_eq!(waiting.verdict(at(1900), id, silent(30)), Verdict::Refuse);

        assert_eq!(
            waiting.verdict(at(40_000), id, silent(30)),
            Verdict::Undecided,
            "a new beginning"
        );
    }

    #[test]
    fn a_flood_of_rivals_stays_bounded() {
        let mut waiting = Contenders::default();
        let verdicts: Vec<_> = (0..1000)
            .map(|id| waiting.verdict(at(1), SessionId(id), LONGEST_HEARTBEAT_GAP))
            .collect();
        assert_eq!(waiting.since.len(), MAX_RIVALS);
        assert_eq!(verdicts.last(), Some(&Verdict::Refuse));
    }
}
