//! Timer for repeated messages: each repetition doubles the wait for the next one.

use std::time::Duration;

use crate::units::Moment;

/// First wait between solicits, announcements and orders; doubled each time.
const FIRST_RESEND: Duration = Duration::from_millis(60);
/// Longest wait between solicits, announcements and orders.
const MAX_RESEND: Duration = Duration::from_secs(1);

/// Time of the next repetition, and the wait after it.
#[derive(Debug, Clone, Copy)]
pub struct RepeatTimer {
    due: Moment,
    wait: Duration,
    max: Duration,
}

impl RepeatTimer {
    /// Creates a timer due at `due`. The next wait is `wait`, and no wait exceeds `max`.
    pub fn new(due: Moment, wait: Duration, max: Duration) -> Self {
        Self { due, wait, max }
    }

    /// Time of the next repetition.
    pub fn due(&self) -> Moment {
        self.due
    }

    /// Returns whether the next repetition is due.
    pub fn is_due(&self, now: Moment) -> bool {
        self.due <= now
    }

    /// Schedules the next repetition.
    pub fn advance(&mut self, now: Moment) {
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(self.max);
    }
}

/// Returns a timer of solicits, announcements or orders, due at `due`.
pub fn resend_from(due: Moment) -> RepeatTimer {
    RepeatTimer::new(due, FIRST_RESEND, MAX_RESEND)
}

/// Like [`resend_from`], with half the first wait.
pub fn resend_early(due: Moment) -> RepeatTimer {
    RepeatTimer::new(due, FIRST_RESEND / 2, MAX_RESEND)
}
