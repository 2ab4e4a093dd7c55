//! What a host counts for the sender's rate: arrivals, losses, delay.

use std::time::Duration;

use crate::units::Moment;
use crate::wire::Symbol;

/// Queueing delay of which a host tells that is not asked to report.
const DISTRESS_DELAY: Duration = Duration::from_millis(12);
/// Datagrams of which a fifth has to be lost for the same.
const DISTRESS_DATAGRAMS: u64 = 256;

/// What is counted for the sender's rate.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) seen: u64,
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// When the last datagram came.
    pub(super) at: u64,
    /// The least of arrival minus sending time, in wrapping microseconds.
    pub(super) base: Option<u32>,
    /// The least delay over it since the last report.
    pub(super) delay: Option<u32>,
    /// What was reported last: the counter, datagrams, bytes, and when.
    pub(super) last: (u64, u64, u64),
    pub(super) reported_at: Moment,
    /// The backlog that was reported last.
    pub(super) backlog: u64,
}

impl Measure {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            seen: 0,
            datagrams: 0,
            bytes: 0,
            at: 0,
            base: None,
            delay: None,
            last: (0, 0, 0),
            reported_at: now,
            backlog: 0,
        }
    }

    /// The way to this host is congested, and those who report may not notice.
    pub(super) fn is_distressed(&self) -> bool {
        let (seen, datagrams) = (
            self.seen.saturating_sub(self.last.0),
            self.datagrams - self.last.1,
        );
        let delayed = self
            .delay
            .is_some_and(|d| Duration::from_micros(u64::from(d)) > DISTRESS_DELAY);
        delayed || (seen > DISTRESS_DATAGRAMS && datagrams < seen - seen / 5)
    }

    pub(super) fn arrived(&mut self, counter: u64, symbol: &Symbol<'_>, arrival: u64) {
        self.seen = self.seen.max(counter);
        self.datagrams += 1;
        self.bytes += symbol.bytes.len() as u64;
        self.at = self.at.max(arrival);
        let way = (arrival as u32).wrapping_sub(symbol.header.sent);
        let base = match self.base {
            // Differences of wrapping clocks compare by sign.
            Some(base) if way.wrapping_sub(base) as i32 >= 0 => base,
            _ => *self.base.insert(way),
        };

        let delay = way.wrapping_sub(base);
        self.delay = Some(self.delay.map_or(delay, |d| d.min(delay)));
    }
}
