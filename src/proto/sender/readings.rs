//! What hosts measure of the way to them: how much may be under way, who is far slower than the rest, who reports.
//!
//! In a fleet of up to [`MAX_REPORTERS`] every host reports. In a larger one a chosen few do: those that were worst
//! lately and some at random, renewed every second; any other host speaks up only when it is in distress.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::InstanceId;
use crate::proto::rate::{QUEUE_LIMIT, Sample};
use crate::units::{Floor, Moment};
use crate::wire::message::Report;

/// The most hosts that report regularly.
pub const MAX_REPORTERS: usize = 16;
/// Of them, those that were worst lately.
const WORST: usize = 10;
/// How often reporters are chosen anew.
const CHOOSE: Duration = Duration::from_secs(1);
/// A host whose last report is older than this does not hold the window.
const STALE: Duration = Duration::from_millis(200);
/// A reading that is older than this is forgotten.
const FORGET: Duration = Duration::from_secs(5);
/// The window for hosts that have not reported yet, in bytes.
const FIRST_WINDOW: u64 = 256 << 10;
/// A host's window within these, whatever it says.
const WINDOW: (u64, u64) = (64 << 10, 8 << 20);
/// How many bytes may be under way to a host and not yet written there: a few generations, since it verifies them whole.
const BACKLOG: u64 = 12 << 20;
/// The most bytes of a symbol: what a datagram takes.
const MAX_SYMBOL: u64 = 65_535;
/// Congested reports in a row after which a host may count as slow.
const SLOW_REPORTS: u32 = 4;
/// The share of lost datagrams in one report that counts as congestion.
const HEAVY_LOSS: f64 = 0.2;
/// How long the rate ignores a host that is congested while the others are not. Without that the rate falls to that
/// host's before the others have shown how much more they can take.
const TRIAL: Duration = Duration::from_millis(500);
/// How often it is looked at who holds the window.
const LOOK: Duration = Duration::from_millis(10);
/// Looks over which the share of time is averaged in which one host alone holds the window.
const LOOKS: f64 = 100.0;

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Moment,
    report: Report,
    /// The share of datagrams that it loses, smoothed.
    loss: f64,
    /// Bits a second that it received, smoothed.
    received: f64,
    /// Congested reports in a row.
    congested: u32,
    /// Whether its last report told of a queue or of heavy loss.
    strained: bool,
    trial: Trial,
    /// The share of time in which it held up the others, smoothed.
    holding: f64,
}

/// Whether the rate ignores a host to find out if it is far slower than the others.
#[derive(Debug, Clone, Copy)]
enum Trial {
    /// It may begin once the host receives fewer bits a second than this.
    Below(f64),
    /// It began then.
    Since(Moment),
}

/// The readings of all hosts.
#[derive(Debug)]
pub struct Readings {
    readings: BTreeMap<InstanceId, Reading>,
    /// Bytes that a datagram takes on the network beside its symbol.
    overhead: u64,
    floor: Floor,
    slow: BTreeSet<InstanceId>,
    /// Hosts of the fast pass that still fetch: a slow one holds nobody when it is the only one.
    fetching: usize,
    reporters: Vec<InstanceId>,
    chosen: Moment,
    looked: Moment,
    rng: fastrand::Rng,
}

impl Readings {
    /// No readings yet; a datagram takes `overhead` bytes beside its symbol, a host below `floor` is far slower than
    /// the rest.
    pub fn new(overhead: usize, floor: Floor, seed: u64) -> Self {
        Self {
            readings: BTreeMap::new(),
            overhead: overhead as u64,
            floor,
            slow: BTreeSet::new(),
            fetching: usize::MAX,
            reporters: Vec::new(),
            chosen: Moment(0),
            looked: Moment(0),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Whether the host was dropped from the fast pass.
    pub fn is_slow(&self, host: InstanceId) -> bool {
        self.slow.contains(&host)
    }

    /// The hosts that were dropped from the fast pass.
    pub fn slow(&self) -> &BTreeSet<InstanceId> {
        &self.slow
    }

    /// Bits a second that a host received lately.
    pub fn received(&self, host: InstanceId) -> u64 {
        self.readings.get(&host).map_or(0, |r| r.received as u64)
    }

    /// Says how many hosts of the fast pass still fetch.
    pub fn set_fetching(&mut self, hosts: usize) {
        self.fetching = hosts;
    }

    /// Takes the slow hosts in again: the others are served.
    pub fn readmit(&mut self) {
        self.slow.clear();
        self.readings.clear();
    }

    /// Who reports regularly; empty when all do.
    pub fn reporters(&self) -> &[InstanceId] {
        &self.reporters
    }

    /// Chooses who reports among `hosts` when it is time; says whether that changed.
    pub fn choose(
        &mut self,
        now: Moment,
        hosts: impl ExactSizeIterator<Item = InstanceId>,
    ) -> bool {
        if hosts.len() <= MAX_REPORTERS {
            let had = !self.reporters.is_empty();
            self.reporters.clear();
            return had;
        }

        if !self.reporters.is_empty() && now.since(self.chosen) < CHOOSE {
            return false;
        }

        self.chosen = now;
        self.readings.retain(|_, r| now.since(r.at) < FORGET);
        let fresh = self
            .readings
            .iter()
            .filter(|(id, r)| now.since(r.at) < CHOOSE * 2 && !self.slow.contains(id));
        let mut worst: Vec<(u64, InstanceId)> =
            fresh.map(|(id, r)| (r.received as u64, *id)).collect();

        worst.sort();
        let mut chosen: Vec<InstanceId> = worst.into_iter().take(WORST).map(|(_, id)| id).collect();
        let others: Vec<InstanceId> = hosts
            .filter(|id| !chosen.contains(id) && !self.slow.contains(id))
            .collect();
        while chosen.len() < MAX_REPORTERS && !others.is_empty() {
            chosen.push(others[self.rng.usize(..others.len())]);
        }

        chosen.sort();
        chosen.dedup();
        std::mem::replace(&mut self.reporters, chosen) != self.reporters
    }

    /// Takes a report; gives what was measured since the one before, but of a slow host. A time in which the sender had
    /// nothing to send says nothing about the link: `idle` is the counter at which it had nothing last.
    pub fn report(
        &mut self,
        now: Moment,
        host: InstanceId,
        report: Report,
        idle: u64,
    ) -> Option<Sample> {
        let Some(reading) = self.readings.get_mut(&host) else {
            self.readings.insert(host, Reading::new(now, report));
            return None;
        };

        let last = std::mem::replace(&mut reading.report, report);
        reading.at = now;
        let over = Duration::from_micros(report.at.checked_sub(last.at).filter(|&t| t > 0)?);
        let expected = report
            .seen
            .checked_sub(last.seen)
            .filter(|&n| n > 0 && last.seen > idle)?;

        let got = report.datagrams.saturating_sub(last.datagrams);
        let loss = 1.0 - (got as f64 / expected as f64).min(1.0);

        // A lost train is thirty datagrams in a row: one report says little about the share.
        reading.loss = reading.loss * 0.9 + loss * 0.1;
        // No more than was sent: anybody may have said it.
        let got = got.min(expected);
        let sample = Sample {
            bytes: report
                .bytes
                .saturating_sub(last.bytes)
                .min(got.saturating_mul(MAX_SYMBOL))
                + got * self.overhead,
            over,
            loss: reading.loss,
            delay: Duration::from_micros(u64::from(report.delay)),
        };

        let received = sample.bytes as f64 * 8.0 / over.as_secs_f64();
        reading.received = if reading.received == 0.0 {
            received
        } else {
            reading.received * 0.75 + received * 0.25
        };

        let congested = loss > HEAVY_LOSS || sample.delay > QUEUE_LIMIT * 2;
        reading.congested = if congested { reading.congested + 1 } else { 0 };
        reading.strained = congested || sample.delay > QUEUE_LIMIT;

        if reading.congested >= SLOW_REPORTS && self.fetching > 1 && self.is_below_floor(now, host)
        {
            self.slow.insert(host);
        }

        (!self.slow.contains(&host) && !self.is_on_trial(now, host)).then_some(sample)
    }

    /// Whether the rate ignores the host for now; begins and ends that.
    fn is_on_trial(&mut self, now: Moment, host: InstanceId) -> bool {
        let alone =
            self.fetching > 1 && self.floor != Floor::Share(0) && self.is_strained_alone(now, host);
        let Some(reading) = self.readings.get_mut(&host) else {
            return false;
        };

        match reading.trial {
            Trial::Since(began) if alone && now.since(began) < TRIAL => true,
            Trial::Since(began) => {
                // When the others are strained as well, nothing was found out.
                let most = if now.since(began) < TRIAL {
                    f64::INFINITY
                } else {
                    reading.received / 2.0
                };
                reading.trial = Trial::Below(most);
                false
            }
            Trial::Below(most) if alone && reading.received < most => {
                reading.trial = Trial::Since(now);
                true
            }
            Trial::Below(_) => false,
        }
    }

    /// Whether a host is strained, and few others are.
    fn is_strained_alone(&self, now: Moment, host: InstanceId) -> bool {
        let others = || self.fresh(now).filter(|(id, _)| *id != host);
        let strained = others().filter(|(_, r)| r.strained).count();
        self.readings.get(&host).is_some_and(|r| r.strained) && strained * 4 < others().count()
    }

    /// Whether a host receives far less than the median of the others.
    fn is_below_floor(&self, now: Moment, host: InstanceId) -> bool {
        let own = self.received(host) as f64;
        let others = self
            .fresh(now)
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

    /// Hosts of the fast pass that reported lately.
    fn fresh(&self, now: Moment) -> impl Iterator<Item = (InstanceId, &Reading)> {
        let readings = self
            .readings
            .iter()
            .filter(move |(_, r)| now.since(r.at) < STALE);
        readings
            .map(|(id, r)| (*id, r))
            .filter(|(id, _)| !self.slow.contains(id))
    }

    /// How many more bytes may be under way, by the slowest host that reports; `segment` is the size of a datagram and
    /// `counter` the last one sent.
    pub fn window(&self, now: Moment, counter: u64, segment: usize) -> u64 {
        let counted = self
            .fresh(now)
            .filter(|(_, r)| !matches!(r.trial, Trial::Since(_)));

        match counted.map(|(_, r)| r.room(counter, segment)).min() {
            Some(room) => room,
            // Nobody has reported yet: a first window. Nobody reports any more: the pace alone decides.
            None if counter as usize * segment < FIRST_WINDOW as usize => {
                FIRST_WINDOW - counter * segment as u64
            }
            None => self.stalled(now),
        }
    }

    /// Without fresh reports a little goes out from time to time, so that reports can come.
    fn stalled(&self, now: Moment) -> u64 {
        let last = self
            .readings
            .iter()
            .filter(|(id, _)| !self.slow.contains(id))
            .map(|(_, r)| r.at)
            .max();

        if last.is_none_or(|at| now.since(at) >= STALE) {
            FIRST_WINDOW
        } else {
            0
        }
    }

    /// Looks who holds up the others while the sender has data: a host that does so alone nearly all the time is slow,
    /// at its disk if not on its way.
    pub fn look(&mut self, now: Moment, counter: u64, segment: usize) {
        if now.since(self.looked) < LOOK || self.floor == Floor::Share(0) || self.fetching < 2 {
            return;
        }

        self.looked = now;
        let held: Vec<(InstanceId, bool)> = self
            .fresh(now)
            .map(|(id, r)| (id, r.room(counter, segment) == 0))
            .collect();
        let holders = held.iter().filter(|(_, holds)| *holds).count();
        let few = holders > 0 && holders * 4 <= held.len().max(4) && holders < held.len();

        let free = match self.floor {
            Floor::Share(share) => f64::from(share) / 1e4,
            Floor::Rate(_) => 0.25,
        };

        for (id, holds) in held {
            let Some(reading) = self.readings.get_mut(&id) else {
                continue;
            };
            let now_holding = if few && holds { 1.0 } else { 0.0 };
            reading.holding += (now_holding - reading.holding) / LOOKS;
            if reading.holding > 1.0 - free {
                self.slow.insert(id);
            }
        }
    }
}

impl Reading {
    fn new(now: Moment, report: Report) -> Self {
        let trial = Trial::Below(f64::INFINITY);
        Self {
            at: now,
            report,
            loss: 0.0,
            received: 0.0,
            congested: 0,
            strained: false,
            trial,
            holding: 0.0,
        }
    }

    /// How many more bytes may be under way to this host.
    fn room(&self, counter: u64, segment: usize) -> u64 {
        let window = u64::from(self.report.window).clamp(WINDOW.0, WINDOW.1);
        let flight = counter.saturating_sub(self.report.seen) * segment as u64;
        window.saturating_sub(flight).min(
            BACKLOG
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

    /// A host that was sent `sent` datagrams of 1000 bytes in each of `rounds` rounds of 10 ms and got `got` of them.
    fn rounds(readings: &mut Readings, host: u64, rounds: u64, sent: u64, got: u64, delay: u32) {
        for round in 1..=rounds {
            let report = Report {
                session: SessionId(1),
                seen: sent * round,
                datagrams: got * round,
                bytes: got * round * 1000,
                delay,
                backlog: 0,
                window: 1 << 20,
                at: round * 10_000,
            };
            readings.report(Moment(round * 10 * MS), InstanceId(host), report, 0);
        }
    }

    #[test]
    fn a_host_far_below_the_others_is_slow_and_one_that_only_loses_is_not() {
        let mut readings = Readings::new(90, Floor::default(), 1);
        for host in 1..=3 {
            rounds(&mut readings, host, 8, 100, 100, 0);
        }

        rounds(&mut readings, 4, 8, 100, 60, 0);
        rounds(&mut readings, 5, 8, 100, 5, 30_000);
        assert_eq!(
            readings.slow().iter().copied().collect::<Vec<_>>(),
            [InstanceId(5)]
        );
        readings.readmit();

        assert!(readings.slow().is_empty());
    }

    #[test]
    fn numbers_that_no_host_measures_count_as_little_as_they_can() {
        let mut readings = Readings::new(90, Floor::default(), 1);
        let first = Report {
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
            readings
                .report(Moment(1), InstanceId(1), first, 0)
                .is_none()
        );

        let (most, late) = (u64::MAX, u32::MAX);
        let lie = Report {
            seen: 200,
            datagrams: most,
            bytes: most,
            delay: late,
            window: late,
            at: most,
            ..first
        };

        let sample = readings
            .report(Moment(2), InstanceId(1), lie, 0)
            .expect("a measurement");
        assert!(sample.bytes <= 100 * (MAX_SYMBOL + 90), "{sample:?}");
        assert_eq!(readings.window(Moment(3), 300, 1000), 0);

        // What is said next to it is what counts from then on.
        assert!(
            readings
                .report(Moment(4), InstanceId(1), first, 0)
                .is_none()
        );

        assert!(
            readings
                .report(
                    Moment(5),
                    InstanceId(1),
                    Report {
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
        let mut readings = Readings::new(90, Floor::default(), 1);
        let strain = |readings: &mut Readings, round: u64, host: u64, delay: u32| {
            let report = Report {
                session: SessionId(1),
                seen: 100 * round,
                datagrams: 100 * round,
                bytes: 100_000 * round,
                delay,
                backlog: 0,
                window: 1 << 20,
                at: round * 10_000,
            };
            readings
                .report(Moment(round * 10 * MS), InstanceId(host), report, 0)
                .is_some()
        };

        let long = TRIAL.as_millis() as u64 / 10;
        let counts: Vec<bool> = (1..long + 10)
            .map(|round| {
                strain(&mut readings, round, 1, 0);
                strain(&mut readings, round, 2, 0);
                strain(&mut readings, round, 3, 10_000)
            })
            .collect();

        let ignored = counts.iter().skip(1).take_while(|counts| !**counts).count() as u64;
        assert_eq!(ignored, long);
        assert!(
            counts[long as usize + 1..].iter().all(|counts| *counts),
            "it is tried once: {counts:?}"
        );

        // The others are strained as well: all count.
        let counts: Vec<bool> = (500..520)
            .flat_map(|round| [1, 2, 3].map(|host| strain(&mut readings, round, host, 10_000)))
            .collect();

        assert!(counts[6..].iter().all(|counts| *counts), "{counts:?}");
    }

    #[test]
    fn the_last_host_is_never_too_slow() {
        let mut readings = Readings::new(90, Floor::default(), 1);
        readings.set_fetching(1);
        rounds(&mut readings, 1, 8, 100, 100, 0);
        rounds(&mut readings, 2, 8, 100, 5, 30_000);
        assert!(readings.slow().is_empty());
    }

    #[test]
    fn the_floor_may_be_a_rate_or_none() {
        for (floor, slow) in [
            (Floor::Rate(crate::units::Rate(2_000_000)), 0),
            (Floor::Share(0), 0),
            (Floor::Share(9_000), 1),
        ] {
            let mut readings = Readings::new(0, floor, 1);
            rounds(&mut readings, 1, 8, 100, 100, 0);
            rounds(&mut readings, 2, 8, 100, 10, 30_000);
            assert_eq!(readings.slow().len(), slow, "{floor}");
        }
    }

    #[test]
    fn the_window_is_that_of_the_slowest_host_and_a_silent_one_does_not_hold_it() {
        let mut readings = Readings::new(90, Floor::default(), 1);
        assert_eq!(readings.window(Moment(0), 0, 1000), FIRST_WINDOW);
        rounds(&mut readings, 1, 8, 100, 100, 0);
        let now = Moment(80 * MS);
        assert_eq!(readings.window(now, 800, 1000), 1 << 20);
        assert_eq!(readings.window(now, 900, 1000), (1 << 20) - 100_000);
        assert_eq!(readings.window(now, 5_000, 1000), 0);

        assert_eq!(readings.window(now + STALE, 5_000, 1000), FIRST_WINDOW);
    }

    #[test]
    fn of_a_large_fleet_a_few_report_and_the_worst_among_them() {
        let mut readings = Readings::new(90, Floor::Share(0), 1);
        let hosts = || (1..=500).map(InstanceId).collect::<Vec<_>>().into_iter();
        assert!(!readings.choose(Moment(0), hosts().take(MAX_REPORTERS)));
        assert!(readings.reporters().is_empty());
        rounds(&mut readings, 77, 8, 100, 40, 30_000);
        assert!(readings.choose(Moment(80 * MS), hosts()));
        assert!(
            readings.reporters().len() <= MAX_REPORTERS
                && readings.reporters().contains(&InstanceId(77))
        );

        assert!(
            !readings.choose(Moment(90 * MS), hosts()),
            "not so soon again"
        );
    }
}
