//! Timer for repeated messages: each repetition doubles the wait for the next one.

use std::time::Duration;

use crate::units::Moment;

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
