//! Lines of progress for a file or a pipe: one at each change of phase, and one every ten seconds.
//! A session that ends within a second has none.

use std::time::Duration;

use super::frame;
use crate::outcome::{ProgressReport, SessionPhase};

/// Time without lines at the start of a session.
const QUIET: Duration = Duration::from_secs(1);
/// Interval between lines of one phase.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Chooses the lines.
#[derive(Debug, Default)]
pub(super) struct ProgressLines {
    /// Title of the phase and time of the last line.
    last: Option<(String, Duration)>,
}

impl ProgressLines {
    /// Returns a line if it is time for one.
    pub(super) fn next(&mut self, progress: &ProgressReport) -> Option<String> {
        let ProgressReport { phase, elapsed, .. } = *progress;
        // A publication shows its result, and lines only if it takes long.
        let quiet = match phase {
            SessionPhase::Publishing => LINE_INTERVAL,
            _ => QUIET,
        };

        let title = frame::title(phase);
        let is_due = match &self.last {
            None => true,
            // Each session starts at zero.
            Some((shown, at)) => *shown != title || elapsed < *at || elapsed - *at >= LINE_INTERVAL,
        };
        if elapsed < quiet || !is_due {
            return None;
        }

        self.last = Some((title, elapsed));
        Some(frame::line(progress))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::sample;
    use super::*;

    #[test]
    fn a_line_at_each_change_of_phase_and_every_ten_seconds() {
        let mut lines = ProgressLines::default();
        let committing = |batch| SessionPhase::Committing { batch, of: 2 };
        let phases = [
            (0, SessionPhase::Discovering),
            (500, SessionPhase::Sending),
            (25_000, committing(1)),
            (26_000, committing(2)),
            (26_500, committing(2)),
        ];

        let mut told = Vec::new();
        for ms in (0..30_000).step_by(100) {
            let (_, phase) = phases[phases.partition_point(|(from, _)| *from <= ms) - 1];
            let progress = ProgressReport {
                phase,
                elapsed: Duration::from_millis(ms),
                ..sample()
            };
            told.extend(lines.next(&progress).map(|_| ms));
        }

        assert_eq!(told, [1_000, 11_000, 21_000, 25_000, 26_000]);
    }

    #[test]
    fn a_short_publication_fills_no_log() {
        let mut lines = ProgressLines::default();
        let mut at = |secs| {
            lines.next(&ProgressReport {
                phase: SessionPhase::Publishing,
                elapsed: Duration::from_secs(secs),
                ..sample()
            })
        };
        let told = (0..25).filter(|secs| at(*secs).is_some());
        assert_eq!(told.collect::<Vec<_>>(), [10, 20]);
    }
}
