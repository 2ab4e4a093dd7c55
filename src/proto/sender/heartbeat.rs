//! Timer of the sender's heartbeats: at even intervals during data, soon after data, then ever more
//! rarely.

use std::time::Duration;

use super::repeat_timer::RepeatTimer;
use crate::proto::slot_interval;
use crate::units::Moment;

/// First wait between heartbeats after data; doubled each time.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(10);
/// Longest wait between heartbeats.
const MAX_HEARTBEAT: Duration = Duration::from_millis(500);
/// Wait between heartbeats during data, which is no sign of life: twice within the silence that a
/// host tolerates.
const HEARTBEAT_WITH_DATA: Duration = Duration::from_millis(250);

/// Wait between two statuses that are one copy for each host, in a small fleet.
const MIN_COPIED: Duration = Duration::from_millis(500);
/// Wait between two such statuses in a large fleet. Hosts tolerate several seconds of silence.
const MAX_COPIED: Duration = Duration::from_secs(2);
/// Part of the wait for each host.
const COPIED_PER_HOST: Duration = Duration::from_millis(2);

/// Timer of the heartbeats.
#[derive(Debug)]
pub struct Heartbeat {
    timer: RepeatTimer,
    /// Time of the last status.
    last_status: Moment,
    /// Time of the last status to all hosts.
    last_to_all: Moment,
    /// Time of the last one to each host that is not done.
    last_to_open: Moment,
}

impl Heartbeat {
    /// Creates a timer with the first heartbeat due now.
    pub fn new(now: Moment) -> Self {
        Self {
            timer: timer_from(now),
            last_status: now,
            last_to_all: now,
            last_to_open: Moment(0),
        }
    }

    /// Returns whether a heartbeat is due, and schedules the next one.
    pub fn poll(&mut self, now: Moment, has_data: bool) -> bool {
        if has_data {
            self.timer = timer_from(now + FIRST_HEARTBEAT);
            let is_due = self.last_status + HEARTBEAT_WITH_DATA <= now;
            if is_due {
                self.last_status = now;
            }
            return is_due;
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

    /// Records that a status was sent to all.
    pub fn on_status(&mut self, now: Moment) {
        self.last_status = now;
        self.last_to_all = now;
    }

    /// Returns whether each of `hosts` hosts needs its copy of a status as a sign of life.
    pub fn is_due_to_all(&self, now: Moment, hosts: u32) -> bool {
        let wait = (COPIED_PER_HOST * hosts).clamp(MIN_COPIED, MAX_COPIED);
        now.since(self.last_to_all) >= wait
    }

    /// Returns whether each of `hosts` hosts may get its copy of a status at the end of data: not
    /// much more often than all can answer.
    pub fn may_repeat_to_all(&self, now: Moment, hosts: u32) -> bool {
        now.since(self.last_to_all) >= slot_interval(hosts) / 4
    }

    /// Returns whether each host that is not done may get its copy of a status at the end of data:
    /// not much more often than all `hosts` hosts can answer. Records that they get it.
    pub fn may_repeat_to_open(&mut self, now: Moment, hosts: u32) -> bool {
        let may_repeat = now.since(self.last_to_open) >= slot_interval(hosts) / 4;
        if may_repeat {
            self.last_to_open = now;
        }
        may_repeat
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
