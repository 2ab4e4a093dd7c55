//! Measurements reported by hosts: the window for data in flight, the detection of slow hosts, and
//! the choice of reporters.
//!
//! In a fleet of up to [`REPORTERS`] every host reports. In a larger one a few chosen hosts do,
//! renewed every second: the recently worst and some at random. Any other host reports only in
//! distress.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::InstanceId;
use crate::proto::rate::{QUEUE_LIMIT, Sample};
use crate::units::{Floor, Moment};
use crate::wire::message::ReceiverReport;

/// Largest number of regular reporters.
pub const REPORTERS: usize = 16;
/// Reporters chosen as the recently worst.
const WORST_REPORTERS: usize = 10;
/// Interval between choices of reporters.
const CHOOSE_INTERVAL: Duration = Duration::from_secs(1);
/// Age from which a report no longer limits the window.
const STALE_AFTER: Duration = Duration::from_millis(200);
/// Age from which a report is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(5);
/// Window before the first report, in bytes.
const FIRST_WINDOW: u64 = 256 << 10;
/// Bounds of a host's window in bytes, for any reported value.
const MIN_WINDOW: u64 = 64 << 10;
/// See [`MIN_WINDOW`].
const MAX_WINDOW: u64 = 8 << 20;
/// Bytes allowed in flight to a host or not yet written there: a few generations, since hosts
/// verify whole ones.
const MAX_BACKLOG: u64 = 12 << 20;
/// Bound on the bytes of a symbol: the largest datagram.
const MAX_SYMBOL_BYTES: u64 = 65_535;
/// Consecutive congested reports after which a host may count as slow.
const SLOW_REPORTS: u32 = 4;
/// Share of datagrams lost in one report that counts as congestion.
const HEAVY_LOSS: f64 = 0.2;
/// Time for which the rate ignores a host congested alone. Otherwise the rate would drop to that
/// host's before the others have shown how much more they can take.
const TRIAL_LENGTH: Duration = Duration::from_millis(500);
/// Interval between checks of blocking hosts.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// Checks over which a host's blocking share is averaged.
const CHECKS_AVERAGED: f64 = 100.0;

#[derive(Debug, Clone, Copy)]
struct HostStats {
    at: Moment,
    report: ReceiverReport,
    /// Share of datagrams lost, smoothed.
    loss: f64,
    /// Received bits a second, smoothed.
    received: f64,
    /// Consecutive congested reports.
    congested: u32,
    /// The last report showed a queue or heavy loss.
    strained: bool,
    trial: Trial,
    /// Share of time in which the host blocked the others, smoothed.
    blocking_share: f64,
}

/// State of a trial: the rate ignores a host to find out if the host is far slower than the others.
#[derive(Debug, Clone, Copy)]
enum Trial {
    /// May begin once the host receives fewer bits a second than this.
    Below(f64),
    /// Has been running since this time.
    Since(Moment),
}

/// Measurements of all hosts.
#[derive(Debug)]
pub struct ReceiverStats {
    receivers: BTreeMap<InstanceId, HostStats>,
    /// Bytes of a datagram on the network besides its symbol.
    overhead: u64,
    floor: Floor,
    slow: BTreeSet<InstanceId>,
    /// Hosts of the fast pass that still fetch. A slow host blocks nobody when it is the only one.
    fetching: usize,
    reporters: Vec<InstanceId>,
    chosen: Moment,
    checked: Moment,
    rng: fastrand::Rng,
}

impl ReceiverStats {
    /// Creates an empty set. A datagram has `overhead` bytes besides its symbol, and a host below
    /// `floor` is far slower than the rest.
    pub fn new(overhead: usize, floor: Floor, seed: u64) -> Self {
        Self {
            receivers: BTreeMap::new(),
            overhead: overhead as u64,
            floor,
            slow: BTreeSet::new(),
            fetching: usize::MAX,
            reporters: Vec::new(),
            chosen: Moment(0),
            checked: Moment(0),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Returns whether the host was dropped from the fast pass.
    pub fn is_slow(&self, host: InstanceId) -> bool {
        self.slow.contains(&host)
    }

    /// Hosts dropped from the fast pass.
    pub fn slow(&self) -> &BTreeSet<InstanceId> {
        &self.slow
    }

    /// Bits a second that a host received recently.
    pub fn received(&self, host: InstanceId) -> u64 {
        self.receivers.get(&host).map_or(0, |r| r.received as u64)
    }

    /// Sets the number of hosts in the fast pass that still fetch.
    pub fn set_fetching(&mut self, hosts: usize) {
        self.fetching = hosts;
    }

    /// Readmits the slow hosts once the others are served.
    pub fn readmit(&mut self) {
        self.slow.clear();
        self.receivers.clear();
    }

    /// Regular reporters; empty when all hosts report.
    pub fn reporters(&self) -> &[InstanceId] {
        &self.reporters
    }

    /// Chooses reporters among `hosts` once due and returns whether the choice changed.
    pub fn choose(
        &mut self,
        now: Moment,
        hosts: impl ExactSizeIterator<Item = InstanceId>,
    ) -> bool {
        if hosts.len() <= REPORTERS {
            let had = !self.reporters.is_empty();
            self.reporters.clear();
            return had;
        }

        if !self.reporters.is_empty() && now.since(self.chosen) < CHOOSE_INTERVAL {
            return false;
        }

        self.chosen = now;
        self.receivers.retain(|_, r| now.since(r.at) < FORGET_AFTER);
        let fresh = self
            .receivers
            .iter()
            .filter(|(id, r)| now.since(r.at) < CHOOSE_INTERVAL * 2 && !self.slow.contains(id));
        let mut worst: Vec<(u64, InstanceId)> =
            fresh.map(|(id, r)| (r.received as u64, *id)).collect();

        worst.sort();
        let mut chosen: Vec<InstanceId> = worst
            .into_iter()
            .take(WORST_REPORTERS)
            .map(|(_, id)| id)
            .collect();
        let others: Vec<InstanceId> = hosts
            .filter(|id| !chosen.contains(id) && !self.slow.contains(id))
            .collect();
        while chosen.len() < REPORTERS && !others.is_empty() {
            chosen.push(others[self.rng.usize(..others.len())]);
        }

        chosen.sort();
        chosen.dedup();
        std::mem::replace(&mut self.reporters, chosen) != self.reporters
    }

    /// Takes a report and returns the measurements since the previous one, except for slow hosts. A
    /// time without data to send shows nothing of the link: `idle` is the data counter at the last
    /// such moment.
    pub fn on_report(
        &mut self,
        now: Moment,
        host: InstanceId,
        report: ReceiverReport,
        idle: u64,
    ) -> Option<Sample> {
        let Some(stats) = self.receivers.get_mut(&host) else {
            self.receivers.insert(host, HostStats::new(now, report));
            return None;
        };

        let last = std::mem::replace(&mut stats.report, report);
        stats.at = now;
        let over = Duration::from_micros(report.at.checked_sub(last.at).filter(|&t| t > 0)?);
        let expected = report
            .seen
            .checked_sub(last.seen)
            .filter(|&n| n > 0 && last.seen > idle)?;

        let got = report.datagrams.saturating_sub(last.datagrams);
        let loss = 1.0 - (got as f64 / expected as f64).min(1.0);

        // A lost train is thirty datagrams in a row, so one report shows little of the loss rate.
        stats.loss = stats.loss * 0.9 + loss * 0.1;
        // At most the number sent: reports can be forged.
        let got = got.min(expected);
        let sample = Sample {
            bytes: report
                .bytes
                .saturating_sub(last.bytes)
                .min(got.saturating_mul(MAX_SYMBOL_BYTES))
                + got * self.overhead,
            over,
            loss: stats.loss,
            delay: Duration::from_micros(u64::from(report.delay)),
        };

        let received = sample.bytes as f64 * 8.0 / over.as_secs_f64();
        stats.received = if stats.received == 0.0 {
            received
        } else {
            stats.received * 0.75 + received * 0.25
        };

        let congested = loss > HEAVY_LOSS || sample.delay > QUEUE_LIMIT * 2;
        stats.congested = if congested { stats.congested + 1 } else { 0 };
        stats.strained = congested || sample.delay > QUEUE_LIMIT;

        if stats.congested >= SLOW_REPORTS && self.fetching > 1 && self.is_below_floor(now, host) {
            self.slow.insert(host);
        }

        (!self.slow.contains(&host) && !self.is_on_trial(now, host)).then_some(sample)
    }

    /// Returns whether the rate ignores the host for now; starts and ends trials.
    fn is_on_trial(&mut self, now: Moment, host: InstanceId) -> bool {
        let alone =
            self.fetching > 1 && self.floor != Floor::Share(0) && self.is_strained_alone(now, host);
        let Some(stats) = self.receivers.get_mut(&host) else {
            return false;
        };

        match stats.trial {
            Trial::Since(began) if alone && now.since(began) < TRIAL_LENGTH => true,
            Trial::Since(began) => {
                // If the others are congested as well, the trial showed nothing.
                let most = if now.since(began) < TRIAL_LENGTH {
                    f64::INFINITY
                } else {
                    stats.received / 2.0
                };
                stats.trial = Trial::Below(most);
                false
            }
            Trial::Below(most) if alone && stats.received < most => {
                stats.trial = Trial::Since(now);
                true
            }
            Trial::Below(_) => false,
        }
    }

    /// Returns whether a host is congested while few others are.
    fn is_strained_alone(&self, now: Moment, host: InstanceId) -> bool {
        let others = || self.reporting(now).filter(|(id, _)| *id != host);
        let strained = others().filter(|(_, r)| r.strained).count();
        self.receivers.get(&host).is_some_and(|r| r.strained) && strained * 4 < others().count()
    }

    /// Returns whether a host receives far less than the median of the others.
    fn is_below_floor(&self, now: Moment, host: InstanceId) -> bool {
        let own = self.received(host) as f64;
        let others = self
            .reporting(now)
            .filter(|(id, _)| *id != host)
            .map(|(_, r)| r.received);
        let mut others: Vec<f64> = others.filter(|&r| r > 0.0).collect();
        if others.is_empty() {
            return false;
        }

        let middle = others.len() / 2;
        let (_, median, _) = others.select_nth_unstable_by(middle, f64::total_cmp);
        match self.floor {
            Floor::Share(share) => own < *median * f64::from(share) / 1e4,
            Floor::Rate(rate) => own < rate.0 as f64 && own < *median / 2.0,
        }
    }

    /// Returns the hosts of the fast pass with a recent report.
    fn reporting(&self, now: Moment) -> impl Iterator<Item = (InstanceId, &HostStats)> {
        let receivers = self
            .receivers
            .iter()
            .filter(move |(_, r)| now.since(r.at) < STALE_AFTER);
        receivers
            .map(|(id, r)| (*id, r))
            .filter(|(id, _)| !self.slow.contains(id))
    }

    /// Returns the bytes that may still go in flight, by the slowest reporting host. `segment` is
    /// the size of a datagram, and `counter` the last one sent.
    pub fn window(&self, now: Moment, counter: u64, segment: usize) -> u64 {
        let counted = self
            .reporting(now)
            .filter(|(_, r)| !matches!(r.trial, Trial::Since(_)));

        match counted.map(|(_, r)| r.room(counter, segment)).min() {
            Some(room) => room,
            // Before the first report a first window applies. Once reports have ceased, the pace
            // alone decides.
            None if counter as usize * segment < FIRST_WINDOW as usize => {
                FIRST_WINDOW - counter * segment as u64
            }
            None => self.stalled(now),
        }
    }

    /// Returns a small window from time to time without recent reports, to elicit new ones.
    fn stalled(&self, now: Moment) -> u64 {
        let last = self
            .receivers
            .iter()
            .filter(|(id, _)| !self.slow.contains(id))
            .map(|(_, r)| r.at)
            .max();

        if last.is_none_or(|at| now.since(at) >= STALE_AFTER) {
            FIRST_WINDOW
        } else {
            0
        }
    }

    /// Checks for blocking hosts while the sender has data. A host that blocks the others alone
    /// nearly all the time is slow, at its disk if not on its path.
    pub fn check_blocking(&mut self, now: Moment, counter: u64, segment: usize) {
        if now.since(self.checked) < CHECK_INTERVAL
            || self.floor == Floor::Share(0)
            || self.fetching < 2
        {
            return;
        }

        self.checked = now;
        let hosts: Vec<(InstanceId, bool)> = self
            .reporting(now)
            .map(|(id, r)| (id, r.room(counter, segment) == 0))
            .collect();
        let blockers = hosts.iter().filter(|(_, blocks)| *blocks).count();
        let few = blockers > 0 && blockers * 4 <= hosts.len().max(4) && blockers < hosts.len();

        let free = match self.floor {
            Floor::Share(share) => f64::from(share) / 1e4,
            Floor::Rate(_) => 0.25,
        };

        for (id, blocks) in hosts {
            let Some(stats) = self.receivers.get_mut(&id) else {
                continue;
            };
            let blocking = if few && blocks { 1.0 } else { 0.0 };
            stats.blocking_share += (blocking - stats.blocking_share) / CHECKS_AVERAGED;
            if stats.blocking_share > 1.0 - free {
                self.slow.insert(id);
            }
        }
    }
}

impl HostStats {
    fn new(now: Moment, report: ReceiverReport) -> Self {
        let trial = Trial::Below(f64::INFINITY);
        Self {
            at: now,
            report,
            loss: 0.0,
            received: 0.0,
            congested: 0,
            strained: false,
            trial,
            blocking_share: 0.0,
        }
    }

    /// Returns the bytes that may still go in flight to this host.
    fn room(&self, counter: u64, segment: usize) -> u64 {
        let window = u64::from(self.report.window).clamp(MIN_WINDOW, MAX_WINDOW);
        let flight = counter.saturating_sub(self.report.seen) * segment as u64;
        window.saturating_sub(flight).min(
            MAX_BACKLOG
                .saturating_sub(self.report.backlog)
                .saturating_sub(flight),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    const MS: u64 = 1_000_000;

    /// Reports of a host that receives `got` of `sent` datagrams of 1000 bytes in each of `rounds`
    /// rounds of 10 ms.
    fn rounds(
        receivers: &mut ReceiverStats,
        host: u64,
        rounds: u64,
        sent: u64,
        got: u64,
        delay: u32,
    ) {
        for round in 1..=rounds {
            let report = ReceiverReport {
                session: SessionId(1),
                seen: sent * round,
                datagrams: got * round,
                bytes: got * round * 1000,
                delay,
                backlog: 0,
                window: 1 << 20,
                at: round * 10_000,
            };
            receivers.on_report(Moment(round * 10 * MS), InstanceId(host), report, 0);
        }
    }

    #[test]
    fn a_host_far_below_the_others_is_slow_and_one_that_only_loses_is_not() {
        let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
        for host in 1..=3 {
            rounds(&mut receivers, host, 8, 100, 100, 0);
        }

        rounds(&mut receivers, 4, 8, 100, 60, 0);
        rounds(&mut receivers, 5, 8, 100, 5, 30_000);
        assert_eq!(
            receivers.slow().iter().copied().collect::<Vec<_>>(),
            [InstanceId(5)]
        );
        receivers.readmit();

        assert!(receivers.slow().is_empty());
    }

    #[test]
    fn numbers_that_no_host_measures_count_as_little_as_they_can() {
        let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
        let first = ReceiverReport {
            session: SessionId(1),
            seen: 100,
            datagrams: 100,
            bytes: 0,
            delay: 0,
            backlog: u64::MAX,
            window: 0,
            at: 1,
        };

        assert!(
            receivers
                .on_report(Moment(1), InstanceId(1), first, 0)
                .is_none()
        );

        let most = u64::MAX;
        let late = u32::MAX;
        let lie = ReceiverReport {
            seen: 200,
            datagrams: most,
            bytes: most,
            delay: late,
            window: late,
            at: most,
            ..first
        };

        let sample = receivers
            .on_report(Moment(2), InstanceId(1), lie, 0)
            .expect("a measurement");
        assert!(sample.bytes <= 100 * (MAX_SYMBOL_BYTES + 90), "{sample:?}");
        assert_eq!(receivers.window(Moment(3), 300, 1000), 0);

        // The next report counts again.
        assert!(
            receivers
                .on_report(Moment(4), InstanceId(1), first, 0)
                .is_none()
        );

        assert!(
            receivers
                .on_report(
                    Moment(5),
                    InstanceId(1),
                    ReceiverReport {
                        at: 2,
                        seen: 300,
                        ..first
                    },
                    0
                )
                .is_some()
        );
    }

    #[test]
    fn a_host_that_is_strained_alone_does_not_count_for_the_rate_until_its_trial_is_over() {
        let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
        let strain = |receivers: &mut ReceiverStats, round: u64, host: u64, delay: u32| {
            let report = ReceiverReport {
                session: SessionId(1),
                seen: 100 * round,
                datagrams: 100 * round,
                bytes: 100_000 * round,
                delay,
                backlog: 0,
                window: 1 << 20,
                at: round * 10_000,
            };
            receivers
                .on_report(Moment(round * 10 * MS), InstanceId(host), report, 0)
                .is_some()
        };

        let long = TRIAL_LENGTH.as_millis() as u64 / 10;
        let counts: Vec<bool> = (1..long + 10)
            .map(|round| {
                strain(&mut receivers, round, 1, 0);
                strain(&mut receivers, round, 2, 0);
                strain(&mut receivers, round, 3, 10_000)
            })
            .collect();

        let ignored = counts.iter().skip(1).take_while(|counts| !**counts).count() as u64;
        assert_eq!(ignored, long);
        assert!(
            counts[long as usize + 1..].iter().all(|counts| *counts),
            "a single trial: {counts:?}"
        );

        // The others are congested as well, so all count.
        let counts: Vec<bool> = (500..520)
            .flat_map(|round| [1, 2, 3].map(|host| strain(&mut receivers, round, host, 10_000)))
            .collect();

        assert!(counts[6..].iter().all(|counts| *counts), "{counts:?}");
    }

    #[test]
    fn the_last_host_is_never_too_slow() {
        let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
        receivers.set_fetching(1);
        rounds(&mut receivers, 1, 8, 100, 100, 0);
        rounds(&mut receivers, 2, 8, 100, 5, 30_000);
        assert!(receivers.slow().is_empty());
    }

    #[test]
    fn the_floor_may_be_a_rate_or_none() {
        for (floor, slow) in [
            (Floor::Rate(crate::units::Rate(2_000_000)), 0),
            (Floor::Share(0), 0),
            (Floor::Share(9_000), 1),
        ] {
            let mut receivers = ReceiverStats::new(0, floor, 1);
            rounds(&mut receivers, 1, 8, 100, 100, 0);
            rounds(&mut receivers, 2, 8, 100, 10, 30_000);
            assert_eq!(receivers.slow().len(), slow, "{floor}");
        }
    }

    #[test]
    fn the_window_is_that_of_the_slowest_host_and_a_silent_one_does_not_hold_it() {
        let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
        assert_eq!(receivers.window(Moment(0), 0, 1000), FIRST_WINDOW);
        rounds(&mut receivers, 1, 8, 100, 100, 0);
        let now = Moment(80 * MS);
        assert_eq!(receivers.window(now, 800, 1000), 1 << 20);
        assert_eq!(receivers.window(now, 900, 1000), (1 << 20) - 100_000);
        assert_eq!(receivers.window(now, 5_000, 1000), 0);

        assert_eq!(
            receivers.window(now + STALE_AFTER, 5_000, 1000),
            FIRST_WINDOW
        );
    }

    #[test]
    fn of_a_large_fleet_a_few_report_and_the_worst_among_them() {
        let mut receivers = ReceiverStats::new(90, Floor::Share(0), 1);
        let hosts = || (1..=500).map(InstanceId).collect::<Vec<_>>().into_iter();
        assert!(!receivers.choose(Moment(0), hosts().take(REPORTERS)));
        assert!(receivers.reporters().is_empty());
        rounds(&mut receivers, 77, 8, 100, 40, 30_000);
        assert!(receivers.choose(Moment(80 * MS), hosts()));
        assert!(
            receivers.reporters().len() <= REPORTERS
                && receivers.reporters().contains(&InstanceId(77))
        );

        assert!(!receivers.choose(Moment(90 * MS), hosts()), "too soon");
    }
}
