//! Measurements of one host: its rate, its losses and its queue, from one report to the next.

use std::ops::Range;
use std::time::Duration;

use super::trial::Trial;
use crate::proto::rate::{QUEUE_LIMIT, Sample};
use crate::units::Moment;
use crate::wire::message::ReceiverReport;

/// Bounds of a host's window in bytes, for any reported value.
const MIN_WINDOW: u64 = 64 << 10;
/// See [`MIN_WINDOW`].
const MAX_WINDOW: u64 = 8 << 20;
/// Bytes allowed in flight to a host or not yet written there: a few generations, since hosts
/// verify whole ones.
const MAX_BACKLOG: u64 = 12 << 20;
/// Bound on the bytes of a symbol: the largest datagram.
pub const MAX_SYMBOL_BYTES: u64 = 65_535;
/// Share of datagrams lost in one report that counts as congestion.
const HEAVY_LOSS: f64 = 0.2;
/// Checks over which a host's blocking share is averaged.
const CHECKS_AVERAGED: f64 = 100.0;

/// Measurements of one host.
#[derive(Debug, Clone, Copy)]
pub struct HostStats {
    /// Time of the last report.
    pub at: Moment,
    report: ReceiverReport,
    /// Share of datagrams lost, smoothed.
    loss: f64,
    /// The same where hosts pass data on.
    reordered: Option<ReorderedLoss>,
    /// Received bits a second, smoothed.
    pub received: f64,
    /// Turn of the last report: a turn ends when a host reports for the second time.
    pub turn: u64,
    /// Consecutive congested reports.
    pub congestion: Congestion,
    /// What the last report showed.
    pub strain: Option<Strain>,
    /// Trials, in which the rate ignores the host.
    pub trial: Trial,
    /// Share of time in which the host blocked the others, smoothed.
    blocking_share: f64,
}

/// Losses where hosts pass data on, smoothed over about ten reports.
///
/// Datagrams come there in another order than they were sent, so a report lacks some that the next
/// one has in excess.
#[derive(Debug, Clone, Copy, Default)]
struct ReorderedLoss {
    missing: f64,
    expected: f64,
}

impl ReorderedLoss {
    /// Adds a report, and returns the share of datagrams lost.
    fn add(&mut self, expected: u64, got: u64) -> f64 {
        // At most twice as many: reports can be forged.
        let got = got.min(expected.saturating_mul(2));
        // The first report is no more than a tenth of the mean, either.
        if self.expected == 0.0 {
            self.expected = expected as f64;
        }
        let missing = expected as f64 - got as f64;
        self.missing = self.missing * 0.9 + missing * 0.1;
        self.expected = self.expected * 0.9 + expected as f64 * 0.1;
        (self.missing / self.expected.max(1.0)).clamp(0.0, 1.0)
    }
}

/// Consecutive congested reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct Congestion {
    /// Their number.
    pub reports: u32,
    /// Time that they cover.
    pub time: Duration,
}

/// Sign of too much data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strain {
    /// Data waits in a queue.
    Queue,
    /// Much is lost. Where hosts pass data on, that may be the fault of another.
    Loss,
}

impl Congestion {
    /// Adds a report that covers `over`.
    fn and(self, over: Duration) -> Self {
        Self {
            reports: self.reports + 1,
            time: self.time + over,
        }
    }
}

impl HostStats {
    /// Creates the measurements of a host with its first report.
    pub fn new(now: Moment, report: ReceiverReport) -> Self {
        Self {
            at: now,
            report,
            loss: 0.0,
            reordered: None,
            turn: 0,
            received: 0.0,
            congestion: Congestion::default(),
            strain: None,
            trial: Trial::default(),
            blocking_share: 0.0,
        }
    }

    /// Takes a report and returns the measurements since the previous one. A datagram has
    /// `overhead` bytes besides its symbol. A time without data to send shows nothing of the link:
    /// `idle` is the data counter at the last such moment. Of the datagrams in a range of data
    /// counters, `excused` were lost by a relay: they show nothing of this host's path.
    pub fn on_report(
        &mut self,
        now: Moment,
        report: ReceiverReport,
        idle: u64,
        overhead: u64,
        excused: impl FnOnce(Range<u64>) -> u64,
    ) -> Option<Sample> {
        let last = std::mem::replace(&mut self.report, report);
        self.at = now;
        let over = Duration::from_micros(report.at.checked_sub(last.at).filter(|&t| t > 0)?);
        let expected = report
            .seen
            .checked_sub(last.seen)
            .filter(|&n| n > 0 && last.seen > idle)?;

        let got = report.datagrams.saturating_sub(last.datagrams);
        let excused = excused(last.seen.saturating_add(1)..report.seen.saturating_add(1));
        let own = expected.saturating_sub(excused).max(1);
        let loss = self.add_loss(own, got);

        // At most the number sent: reports can be forged.
        let got = got.min(expected);
        let bytes = report.bytes.saturating_sub(last.bytes);
        let sample = Sample {
            bytes: bytes.min(got.saturating_mul(MAX_SYMBOL_BYTES)) + got * overhead,
            over,
            loss: self.loss,
            delay: Duration::from_micros(u64::from(report.delay)),
        };

        let received = sample.bytes as f64 * 8.0 / over.as_secs_f64();
        self.received = if self.received == 0.0 {
            received
        } else {
            self.received * 0.75 + received * 0.25
        };

        self.strain = match sample.delay > QUEUE_LIMIT {
            true => Some(Strain::Queue),
            false => (loss > HEAVY_LOSS).then_some(Strain::Loss),
        };
        self.congestion = match loss > HEAVY_LOSS || sample.delay > QUEUE_LIMIT * 2 {
            true => self.congestion.and(over),
            false => Congestion::default(),
        };

        Some(sample)
    }

    /// Adds the losses among `expected` datagrams, and returns their share in this report. Where
    /// hosts pass data on, only the smoothed share shows anything.
    fn add_loss(&mut self, expected: u64, got: u64) -> f64 {
        if let Some(reordered) = &mut self.reordered {
            self.loss = reordered.add(expected, got);
            return self.loss;
        }

        let loss = 1.0 - (got as f64 / expected as f64).min(1.0);
        // A lost train is thirty datagrams in a row, so one report shows little of the loss rate.
        self.loss = self.loss * 0.9 + loss * 0.1;
        loss
    }

    /// Records that hosts pass data on.
    pub fn on_relayed(&mut self) {
        self.reordered.get_or_insert_default();
    }

    /// Forgets the losses so far: a relay caused them.
    pub fn excuse_losses(&mut self) {
        self.loss = 0.0;
        if let Some(reordered) = &mut self.reordered {
            *reordered = ReorderedLoss::default();
        }
        // A queue is on the host's own path.
        if self.strain == Some(Strain::Loss) {
            self.congestion = Congestion::default();
            self.strain = None;
        }
    }

    /// Records one check: whether this host, alone or with few others, blocks the rest. Returns the
    /// moving average.
    pub fn on_check(&mut self, blocks: bool) -> f64 {
        let blocking = if blocks { 1.0 } else { 0.0 };
        self.blocking_share += (blocking - self.blocking_share) / CHECKS_AVERAGED;
        self.blocking_share
    }

    /// Returns the bytes that may still go in flight to this host. `segment` is the size of a
    /// datagram, and `counter` the last one sent.
    pub fn room(&self, counter: u64, segment: usize) -> u64 {
        let window = u64::from(self.report.window).clamp(MIN_WINDOW, MAX_WINDOW);
        let flight = counter.saturating_sub(self.report.seen) * segment as u64;
        let backlog = MAX_BACKLOG.saturating_sub(self.report.backlog);
        window
            .saturating_sub(flight)
            .min(backlog.saturating_sub(flight))
    }
}
