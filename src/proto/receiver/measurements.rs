//! Counts arrivals, losses and delay, the input of the sender's rate control.

use std::time::Duration;

use crate::id::{InstanceId, SessionId};
use crate::proto::report_interval;
use crate::proto::sender::reporters::REPORTERS;
use crate::units::Moment;
use crate::wire::Symbol;
use crate::wire::message::{ReceiverReport, SenderStatus};

/// Bytes of data after which a report is due, if [`REPORT_INTERVAL`] has not passed.
const REPORT_BYTES: u64 = 256 << 10;
/// Interval of reports while data arrives.
const REPORT_INTERVAL: Duration = Duration::from_millis(10);
/// Queueing delay above which a host reports without being chosen.
const DISTRESS_DELAY: Duration = Duration::from_millis(12);
/// Minimum number of datagrams for a loss report without being chosen, at a loss of one fifth.
const DISTRESS_DATAGRAMS: u64 = 256;
/// Same where hosts pass data on: more are on their way to each.
const DISTRESS_RELAYED_DATAGRAMS: u64 = 2048;

/// Measurements of received data in one session.
#[derive(Debug)]
pub(super) struct Measurements {
    duty: ReportDuty,
    /// Number of the sender's choice behind the duty, if it has one.
    choice: Option<u32>,
    distress: Distress,
    counts: Counts,
    /// Counts of the last report.
    reported: Counts,
    reported_at: Moment,
    /// Backlog in the last report.
    reported_backlog: u64,
    /// Arrival time of the last datagram.
    last_arrival: u64,
    /// Minimum of arrival minus sending time, in wrapping microseconds.
    base: Option<u32>,
    /// Minimum delay above `base` since the last report.
    delay: Option<u32>,
    /// Minimum wait of data to pass on since the last report.
    relay_wait: Option<u32>,
}

/// Distress of a host without a regular part in the reports.
///
/// What distresses one host may distress all at once, so each waits its own part of the interval.
#[derive(Debug, Clone, Copy)]
struct Distress {
    /// Part of the interval, from 0 to 1.
    part: f64,
    since: Option<Moment>,
    /// Number of datagrams from which losses count.
    least: u64,
}

impl Distress {
    /// Returns whether the wait is over where hosts report at this interval.
    fn is_due(&self, now: Moment, interval: Duration) -> bool {
        let wait = interval.mul_f64(self.part);
        self.since.is_some_and(|since| now.since(since) >= wait)
    }
}

/// Data received since the session began.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Highest counter of the sender's datagrams.
    seen: u64,
    datagrams: u64,
    bytes: u64,
    /// Datagrams to pass on that were dropped.
    unrelayed: u64,
}

/// Reporting duty of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportDuty {
    /// One of this many reporting hosts.
    Among(u32),
    /// Other hosts report; this one does in distress only.
    InDistress,
}

impl ReportDuty {
    /// Duty until the sender chooses its reporters.
    fn initial(hosts: u32) -> Self {
        if hosts as usize <= REPORTERS {
            ReportDuty::Among(hosts)
        } else {
            ReportDuty::InDistress
        }
    }
}

impl Measurements {
    /// Starts the measurements of a session with `hosts` hosts. In distress this host waits the
    /// random `part` of the interval.
    pub(super) fn new(now: Moment, hosts: u32, part: f64) -> Self {
        Self {
            duty: ReportDuty::initial(hosts),
            choice: None,
            distress: Distress {
                part,
                since: None,
                least: DISTRESS_DATAGRAMS,
            },
            counts: Counts::default(),
            reported: Counts::default(),
            reported_at: now,
            reported_backlog: 0,
            last_arrival: 0,
            base: None,
            delay: None,
            relay_wait: None,
        }
    }

    /// Records that hosts pass data on in this session.
    pub(super) fn on_relayed(&mut self) {
        self.distress.least = DISTRESS_RELAYED_DATAGRAMS;
    }

    /// Notes when a distress begins or ends.
    pub(super) fn watch_distress(&mut self, now: Moment) {
        let is_distressed = self.duty == ReportDuty::InDistress && self.is_distressed();
        match is_distressed {
            true => self.distress.since = self.distress.since.or(Some(now)),
            false => self.distress.since = None,
        }
    }

    /// Returns the highest counter of the sender's datagrams.
    pub(super) fn seen(&self) -> u64 {
        self.counts.seen
    }

    /// Updates the highest counter from a status message.
    pub(super) fn on_counter(&mut self, counter: u64) {
        self.counts.seen = self.counts.seen.max(counter);
    }

    /// Updates the duty of this host from the sender's choice of reporters.
    pub(super) fn on_reporters(&mut self, me: InstanceId, status: &SenderStatus) {
        let reporters = &status.reporters[..];
        let is_known = status.choice.is_some() && status.choice == self.choice;
        if reporters.is_empty() && is_known {
            return;
        }

        self.choice = status.choice;
        self.duty = match reporters {
            [] => ReportDuty::initial(status.hosts),
            chosen if chosen.contains(&me) => ReportDuty::Among(chosen.len() as u32),
            _ => ReportDuty::InDistress,
        };
    }

    /// Counts a datagram of data.
    pub(super) fn on_data(&mut self, counter: u64, symbol: &Symbol<'_>, arrival: u64) {
        self.on_counter(counter);
        self.counts.datagrams += 1;
        self.counts.bytes += symbol.bytes.len() as u64;
        self.last_arrival = self.last_arrival.max(arrival);

        let way = (arrival as u32).wrapping_sub(symbol.header.sent);
        let base = match self.base {
            // Differences of wrapping clocks compare by sign.
            Some(base) if way.wrapping_sub(base) as i32 >= 0 => base,
            _ => *self.base.insert(way),
        };

        let delay = way.wrapping_sub(base);
        self.delay = Some(self.delay.map_or(delay, |d| d.min(delay)));
    }

    /// Counts `dropped` datagrams that were to be passed on, and notes how long others waited.
    pub(super) fn on_relay_load(&mut self, dropped: u64, wait: Option<Duration>) {
        self.counts.unrelayed += dropped;
        if let Some(wait) = wait {
            let wait = u32::try_from(wait.as_micros()).unwrap_or(u32::MAX);
            self.relay_wait = Some(self.relay_wait.map_or(wait, |least| least.min(wait)));
        }
    }

    /// Returns true if a report is due, in a fleet of `hosts` and with `backlog` bytes pending on
    /// the disk.
    pub(super) fn is_due(&self, now: Moment, hosts: u32, backlog: u64) -> bool {
        let fresh = self.unreported_bytes();
        let waited = now.since(self.reported_at);
        let least = self.min_interval(hosts);
        if waited < least || fresh == 0 && self.reported_backlog == 0 {
            return false;
        }

        if self.duty == ReportDuty::InDistress {
            return self.distress.is_due(now, least);
        }

        let drained = self.reported_backlog > REPORT_BYTES && backlog < self.reported_backlog / 2;
        drained || fresh >= REPORT_BYTES || (fresh > 0 && waited >= REPORT_INTERVAL)
    }

    /// Returns the time of the next report, if one is to be expected.
    pub(super) fn timeout(&self, now: Moment, hosts: u32, backlog: u64) -> Option<Moment> {
        let expected = self.duty != ReportDuty::InDistress && self.unreported_bytes() > 0
            || self.is_due(now, hosts, backlog);

        expected.then(|| self.reported_at + REPORT_INTERVAL.max(self.min_interval(hosts)))
    }

    /// Builds a report and starts the next interval.
    pub(super) fn report(
        &mut self,
        now: Moment,
        session: SessionId,
        backlog: u64,
        window: u32,
    ) -> ReceiverReport {
        // The queue that counts may be the one out of this host.
        let delay = self.delay.take().unwrap_or(0);
        let relay_wait = self.relay_wait.take().unwrap_or(0);
        let report = ReceiverReport {
            session,
            seen: self.counts.seen,
            datagrams: self.counts.datagrams,
            bytes: self.counts.bytes,
            delay: delay.max(relay_wait),
            backlog,
            window,
            at: self.last_arrival,
            unrelayed: Some(self.counts.unrelayed).filter(|n| *n > 0),
        };

        self.reported = self.counts;
        self.reported_at = now;
        self.reported_backlog = backlog;
        self.distress.since = None;

        report
    }

    fn unreported_bytes(&self) -> u64 {
        self.counts.bytes - self.reported.bytes
    }

    /// Returns the minimum interval between two reports.
    fn min_interval(&self, hosts: u32) -> Duration {
        match self.duty {
            ReportDuty::Among(reporters) => report_interval(reporters),
            ReportDuty::InDistress => report_interval(hosts),
        }
    }

    /// Returns true if the path to this host is congested, a fact other reporters may miss.
    fn is_distressed(&self) -> bool {
        let seen = self.counts.seen.saturating_sub(self.reported.seen);
        let datagrams = self.counts.datagrams - self.reported.datagrams;
        let delayed = self
            .delay
            .is_some_and(|d| Duration::from_micros(u64::from(d)) > DISTRESS_DELAY);

        let unrelayed = self.counts.unrelayed > self.reported.unrelayed;
        delayed || unrelayed || (seen > self.distress.least && datagrams < seen - seen / 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::StatusPhase;

    #[test]
    fn a_reporter_keeps_its_part_until_the_number_of_the_choice_changes() {
        let me = InstanceId(7);
        let status = |reporters: &[InstanceId], choice| SenderStatus {
            session: SessionId(1),
            phase: StatusPhase::Serving,
            sent: Default::default(),
            hosts: 100,
            counter: 0,
            pass: 0,
            reporters: reporters.to_vec(),
            choice,
        };

        let mut measurements = Measurements::new(Moment(1), 100, 0.0);
        let mut duty_after = |reporters: &[InstanceId], choice| {
            measurements.on_reporters(me, &status(reporters, choice));
            measurements.duty
        };
        assert_eq!(duty_after(&[], Some(1)), ReportDuty::InDistress);
        assert_eq!(duty_after(&[me], Some(2)), ReportDuty::Among(1));
        assert_eq!(duty_after(&[], Some(2)), ReportDuty::Among(1));
        assert_eq!(duty_after(&[], Some(3)), ReportDuty::InDistress);

        // With multicast each status has the list.
        assert_eq!(duty_after(&[me, InstanceId(8)], None), ReportDuty::Among(2));
        assert_eq!(duty_after(&[InstanceId(8)], None), ReportDuty::InDistress);
    }

    #[test]
    fn a_relay_reports_what_it_dropped_and_how_long_data_waited() {
        let at = |ms: u64| Moment(0) + Duration::from_millis(ms);
        let mut measurements = Measurements::new(at(0), 1000, 0.5);
        let report = |measurements: &mut Measurements, ms: u64| {
            let report = measurements.report(at(ms), SessionId(1), 0, 1);
            (report.unrelayed, report.delay)
        };

        measurements.counts.bytes = 1;
        assert!(!measurements.is_due(at(1000), 1000, 0));
        assert_eq!(report(&mut measurements, 1000), (None, 0));

        measurements.counts.bytes = 2;
        measurements.on_relay_load(3, Some(Duration::from_millis(40)));
        measurements.on_relay_load(2, Some(Duration::from_millis(30)));
        measurements.watch_distress(at(1800));
        assert!(!measurements.is_due(at(2000), 1000, 0), "not all at once");
        measurements.watch_distress(at(2050));
        assert!(measurements.is_due(at(2050), 1000, 0), "in distress");
        assert_eq!(report(&mut measurements, 2050), (Some(5), 30_000));
        assert_eq!(report(&mut measurements, 3000), (Some(5), 0));
    }
}
