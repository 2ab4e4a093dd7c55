//! Measurements reported by hosts: the window for data in flight, the detection of slow hosts, and
//! the choice of reporters.
//!
//! In a small fleet every host reports. In a larger one a few chosen hosts do, see
//! [`super::reporters`], and any other host only in distress.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::host_stats::{HostStats, Strain};
use super::reporters::{COUNTED_FOR, ReporterCandidate, Reporters};
use super::trial::TrialReport;
use crate::id::InstanceId;
use crate::proto::rate::Sample;
use crate::units::{Floor, Moment, Rate};
use crate::wire::message::ReceiverReport;

/// Age from which a report no longer limits the window.
const STALE_AFTER: Duration = Duration::from_millis(200);
/// Age from which a report is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(5);
/// Window before the first report, in bytes.
const FIRST_WINDOW: u64 = 256 << 10;
/// Consecutive congested reports after which a host may count as slow.
const SLOW_REPORTS: u32 = 4;
/// Same where hosts pass data on: a relay that fails congests all others for a moment.
const SLOW_REPORTS_RELAYED: u32 = 32;
/// Time that fewer reports may cover instead.
const SLOW_TIME_RELAYED: Duration = Duration::from_millis(320);
/// Number of such reports.
const FEW_SLOW_REPORTS: u32 = 8;
/// Consecutive congested reports after which a host on trial passes nothing on: what it gets late,
/// the others get later.
const UNFIT_REPORTS: u32 = 2;
/// Turns of reports after which a host that has not reported is silent, where all hosts report.
const SILENT_TURNS: u64 = 6;
/// Shortest such time.
const SILENT_AFTER: Duration = Duration::from_millis(50);
/// Interval between checks of blocking hosts.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

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
    reporters: Reporters,
    /// Time of the last check for blocking hosts.
    checked: Moment,
    /// Turns of reports so far.
    turn: u64,
    /// Hosts pass data on.
    is_relayed: bool,
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
            reporters: Reporters::new(seed),
            checked: Moment(0),
            turn: 0,
            is_relayed: false,
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

    /// Records that hosts pass data on in this session.
    pub fn on_relayed(&mut self) {
        if !std::mem::replace(&mut self.is_relayed, true) {
            self.receivers.values_mut().for_each(HostStats::on_relayed);
        }
    }

    /// Returns the hosts that are not fit to pass data on: those that are silent while others
    /// report, slow, or congested alone.
    pub fn unfit(&self, now: Moment) -> impl Iterator<Item = InstanceId> {
        let is_congested =
            |r: &HostStats| r.trial.is_running() && r.congestion.reports >= UNFIT_REPORTS;
        let receivers = self.receivers.iter();
        let unfit = receivers.filter(move |(id, r)| {
            self.is_silent(now, r) || is_congested(r) || self.slow.contains(id)
        });
        unfit.map(|(id, _)| *id)
    }

    /// Returns whether a host has been silent while others report, for so long that it no longer
    /// limits the window.
    pub fn is_away(&self, now: Moment, host: InstanceId) -> bool {
        let stats = self.receivers.get(&host);
        stats.is_some_and(|r| self.is_silent(now, r) && now.since(r.at) >= STALE_AFTER)
    }

    /// Returns whether a host is silent while others report. Of a large fleet only some report, so
    /// silence shows nothing.
    fn is_silent(&self, now: Moment, stats: &HostStats) -> bool {
        self.is_relayed
            && self.reporters.all().is_empty()
            && self.turn >= stats.turn + SILENT_TURNS
            && now.since(stats.at) >= SILENT_AFTER
    }

    /// Counts a report of a host.
    fn count_turn(&mut self, host: InstanceId) {
        if let Some(stats) = self.receivers.get_mut(&host) {
            if stats.turn == self.turn {
                self.turn += 1;
            }
            stats.turn = self.turn;
        }
    }

    /// Readmits the slow hosts once the others are served.
    pub fn readmit(&mut self) {
        self.slow.clear();
        self.receivers.clear();
    }

    /// Regular reporters; empty when all hosts report.
    pub fn reporters(&self) -> &[InstanceId] {
        self.reporters.all()
    }

    /// Chooses reporters among `hosts` once due and returns whether the choice changed.
    pub fn choose(
        &mut self,
        now: Moment,
        hosts: impl ExactSizeIterator<Item = InstanceId>,
    ) -> bool {
        if let Some(changed) = self.reporters.clear_in_small_fleet(hosts.len()) {
            return changed;
        }

        if !self.reporters.is_due(now) {
            return false;
        }

        self.receivers.retain(|_, r| now.since(r.at) < FORGET_AFTER);
        let recent = self
            .receivers
            .iter()
            .filter(|(id, r)| now.since(r.at) < COUNTED_FOR && !self.slow.contains(id))
            .map(|(id, r)| ReporterCandidate {
                received: r.received as u64,
                host: *id,
            })
            .collect();

        let eligible = hosts.filter(|id| !self.slow.contains(id));
        self.reporters.choose(now, recent, eligible)
    }

    /// Takes a report and returns the measurements since the previous one, except for slow hosts. A
    /// time without data to send shows nothing of the link: `idle` is the data counter at the last
    /// such moment. A relay lost `excused` of the datagrams in a range of data counters.
    pub fn on_report(
        &mut self,
        now: Moment,
        host: InstanceId,
        report: ReceiverReport,
        idle: u64,
        excused: impl FnOnce(Range<u64>) -> u64,
    ) -> Option<Sample> {
        let Some(stats) = self.receivers.get_mut(&host) else {
            let mut stats = HostStats::new(now, report);
            if self.is_relayed {
                stats.on_relayed();
            }
            self.receivers.insert(host, stats);
            self.count_turn(host);
            return None;
        };

        let sample = stats.on_report(now, report, idle, self.overhead, excused);
        self.count_turn(host);
        let sample = sample?;
        if self.fetching > 1 && self.is_congested_for_long(host) && self.is_below_floor(now, host) {
            self.slow.insert(host);
        }

        let is_on_trial = self.is_on_trial(now, host, sample.over);
        (!is_on_trial && !self.slow.contains(&host)).then_some(sample)
    }

    /// Returns whether a host has been congested for so long that it may count as slow.
    fn is_congested_for_long(&self, host: InstanceId) -> bool {
        let Some(stats) = self.receivers.get(&host) else {
            return false;
        };

        let congestion = stats.congestion;
        let is_long =
            congestion.time >= SLOW_TIME_RELAYED && congestion.reports >= FEW_SLOW_REPORTS;
        match self.is_relayed {
            true => is_long || congestion.reports >= SLOW_REPORTS_RELAYED,
            false => congestion.reports >= SLOW_REPORTS,
        }
    }

    /// Returns the rate that the others have to get to show that a host on trial is slow, once they
    /// are to be offered more.
    pub fn probe(&mut self, host: InstanceId) -> Option<Rate> {
        let stats = self.receivers.get_mut(&host)?;
        let factor = match self.floor {
            Floor::Share(share) => 1e4 / f64::from(share.max(1)),
            Floor::Rate(_) => 2.0,
        };
        let begins = stats.trial.begins_probe(stats.congestion.reports);
        begins.then_some(Rate((stats.received * factor) as u64))
    }

    /// Forgets the losses of all hosts so far: a relay caused them.
    pub fn excuse_losses(&mut self) {
        self.receivers
            .values_mut()
            .for_each(HostStats::excuse_losses);
    }

    /// Returns whether the rate ignores the host for now; starts and ends trials. Its report covers
    /// `over`.
    fn is_on_trial(&mut self, now: Moment, host: InstanceId, over: Duration) -> bool {
        let alone =
            self.fetching > 1 && self.floor != Floor::Share(0) && self.is_strained_alone(now, host);
        self.receivers.get_mut(&host).is_some_and(|stats| {
            let received = stats.received;
            stats.trial.on_report(
                now,
                TrialReport {
                    alone,
                    received,
                    over,
                },
            )
        })
    }

    /// Returns whether a host is congested while few others are. If data waits on its way, losses
    /// of others may be those of what it passes on.
    fn is_strained_alone(&self, now: Moment, host: InstanceId) -> bool {
        let Some(own) = self.receivers.get(&host).and_then(|r| r.strain) else {
            return false;
        };

        let is_strained = |strain: Option<Strain>| match strain {
            Some(Strain::Loss) if self.is_relayed => own == Strain::Loss,
            strain => strain.is_some(),
        };
        let others = || self.speaking(now).filter(|(id, _)| *id != host);
        let strained = others().filter(|(_, r)| is_strained(r.strain)).count();
        strained * 4 < others().count()
    }

    /// Returns whether a host receives far less than the median of the others.
    fn is_below_floor(&self, now: Moment, host: InstanceId) -> bool {
        let own = self.received(host) as f64;
        let others = self
            .speaking(now)
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

    /// Returns those among them that are not silent.
    fn speaking(&self, now: Moment) -> impl Iterator<Item = (InstanceId, &HostStats)> {
        self.reporting(now)
            .filter(move |(_, r)| !self.is_silent(now, r))
    }

    /// Returns the bytes that may still go in flight, by the slowest reporting host. `segment` is
    /// the size of a datagram, and `counter` the last one sent.
    pub fn window(&self, now: Moment, counter: u64, segment: usize) -> u64 {
        let counted = self.reporting(now).filter(|(_, r)| !r.trial.is_running());

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
            .speaking(now)
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
            if stats.on_check(few && blocks) > 1.0 - free {
                self.slow.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
