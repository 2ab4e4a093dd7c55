//! Timer of the sender's heartbeats: at even intervals during data, soon after data, then ever more
//! rarely.

use std::time::Duration;

use super::repeat_timer::RepeatTimer;
use crate::units::Moment;

/// First wait between heartbeats after data; doubled each time.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(10);
/// Longest wait between heartbeats.
const MAX_HEARTBEAT: Duration = Duration::from_millis(500);
/// Wait between heartbeats during data, which is no sign of life: twice within the silence that a
/// host tolerates.
const HEARTBEAT_WITH_DATA: Duration = Duration::from_millis(250);

/// Timer of the heartbeats.
#[derive(Debug)]
pub struct Heartbeat {
    timer: RepeatTimer,
    /// Time of the last status.
    last_status: Moment,
}

impl Heartbeat {
    /// Creates a timer with the first heartbeat due now.
    pub fn new(now: Moment) -> Self {
        Self {
            timer: timer_from(now),
            last_status: now,
        }
    }

    /// Returns whether a heartbeat is due, and schedules the next one.
    pub fn poll(&mut self, now: Moment, has_data: bool) -> bool {
        if has_data {
            self.timer = timer_from(now + FIRST_HEARTBEAT);
            return self.last_status + HEARTBEAT_WITH_DATA <= now;
        }

        let is_due = self.timer.is_due(now);
        if is_due {
            self.timer.advance(now);
        }
        is_due
    }

    /// Makes a heartbeat due at the end of the data.
    pub fn on_end_of_data(&mut self, now: Moment) {
        self.timer = timer_from(now);
    }

    /// Records that a status was sent.
    pub fn on_status(&mut self, now: Moment) {
        self.last_status = now;
    }

    /// Time of the next heartbeat.
    pub fn due(&self, has_data: bool) -> Moment {
        if has_data {
            self.last_status + HEARTBEAT_WITH_DATA
        } else {
            self.timer.due()
        }
    }
}

fn timer_from(due: Moment) -> RepeatTimer {
    RepeatTimer::new(due, FIRST_HEARTBEAT, MAX_HEARTBEAT)
}
