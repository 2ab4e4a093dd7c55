//! Rate limit for log lines that anyone on the network can trigger.
//!
//! A few lines of a kind pass at once, then one in each interval; that line gives the number
//! suppressed.

use std::time::Duration;

use crate::units::Moment;

/// Lines of a kind in one burst.
const BURST_LINES: u32 = 8;
/// Time between lines after the burst.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Limit of one kind of line.
#[derive(Debug)]
pub struct LogLimit {
    left: u32,
    since: Moment,
    suppressed: u64,
}

impl LogLimit {
    /// A limit with the full burst available.
    pub fn new(now: Moment) -> Self {
        Self {
            left: BURST_LINES,
            since: now,
            suppressed: 0,
        }
    }

    /// Calls `line` if a line may pass now, with a suffix for the number of suppressed ones.
    pub fn log(&mut self, now: Moment, line: impl FnOnce(String)) {
        if let Some(suppressed) = self.allow(now) {
            line(suppressed_note(suppressed));
        }
    }

    /// Returns the number of suppressed lines if a line may pass now.
    fn allow(&mut self, now: Moment) -> Option<u64> {
        let waited = u32::try_from(now.since(self.since).as_secs() / LINE_INTERVAL.as_secs())
            .unwrap_or(u32::MAX);
        if waited > 0 {
            (self.left, self.since) = (self.left.saturating_add(waited).min(BURST_LINES), now);
        }

        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }
}

/// Suffix of a line after `suppressed` suppressed ones; empty for none.
fn suppressed_note(suppressed: u64) -> String {
    if suppressed == 0 {
        String::new()
    } else {
        format!(" (and {suppressed} more like this)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_none_is_forgotten() {
        let mut quiet = LogLimit::new(Moment(1));
        let at = |ms: u64| Moment(1) + Duration::from_millis(ms);
        let said: Vec<u64> = (0..90_000)
            .filter_map(|n| quiet.allow(at(n / 10)))
            .collect();
        assert_eq!(said, [0; BURST_LINES as usize]);
        assert_eq!(
            quiet.allow(at(10_000)),
            Some(90_000 - u64::from(BURST_LINES))
        );
        assert_eq!(quiet.allow(at(10_001)), None);

        // A quiet hour earns no more than the first burst.
        let said = (0..100)
            .filter(|_| quiet.allow(at(3_600_000)).is_some())
            .count();

        assert_eq!(said, BURST_LINES as usize);
    }
}
