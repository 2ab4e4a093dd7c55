//! Keeps the log readable, whoever sends what: of each kind a few lines at once, then one in a while, which says how many
//! were left out. Whoever can send a datagram can cause a line.

use std::time::Duration;

use crate::units::Moment;

/// So many lines of a kind at once.
const BURST: u32 = 8;
/// From then on one in so long.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug)]
pub struct Quiet {
    left: u32,
    since: Moment,
    unsaid: u64,
}

impl Quiet {
    /// Nothing was said yet.
    pub fn new(now: Moment) -> Self {
        Self {
            left: BURST,
            since: now,
            unsaid: 0,
        }
    }

    /// Whether a line may be said now: then with how many were left out since the last.
    pub fn may_say(&mut self, now: Moment) -> Option<u64> {
        let waited =
            u32::try_from(now.since(self.since).as_secs() / EVERY.as_secs()).unwrap_or(u32::MAX);
        if waited > 0 {
            (self.left, self.since) = (self.left.saturating_add(waited).min(BURST), now);
        }

        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.unsaid))
            }
            None => {
                self.unsaid += 1;
                None
            }
        }
    }
}

/// The words for `unsaid` lines that were left out, behind a line; empty for none.
pub fn left_out(unsaid: u64) -> String {
    if unsaid == 0 {
        String::new()
    } else {
        format!(" (and {unsaid} more like this)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_none_is_forgotten() {
        let (mut quiet, at) = (Quiet::new(Moment(1)), |ms: u64| {
            Moment(1) + Duration::from_millis(ms)
        });
        let said: Vec<u64> = (0..90_000)
            .filter_map(|n| quiet.may_say(at(n / 10)))
            .collect();
        assert_eq!(said, [0; BURST as usize]);
        assert_eq!(quiet.may_say(at(10_000)), Some(90_000 - u64::from(BURST)));
        assert_eq!(quiet.may_say(at(10_001)), None);

        // A quiet hour earns no more than the first burst.
        let said = (0..100)
            .filter(|_| quiet.may_say(at(3_600_000)).is_some())
            .count();

        assert_eq!(said, BURST as usize);
    }
}
