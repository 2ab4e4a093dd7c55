//! Snapshots of a session under way: its phase, the measured rate, and the hosts that it waits for.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use super::results;
use crate::drive::rate_window::RateWindow;
use crate::outcome::{PendingHost, ProgressReport, SessionPhase};
use crate::proto::sender::hosts::Host;
use crate::proto::sender::{Sender, SessionStep};
use crate::tree::scan::ScanCounts;
use crate::units::{ByteSize, Moment};
use crate::wire::HostStage;
use crate::wire::message::OrderKind;

/// Time over which the rate is measured.
const RATE_SPAN: Duration = Duration::from_secs(3);
/// Largest number of hosts listed in a snapshot.
const MAX_LISTED_HOSTS: usize = 8;

/// Takes snapshots of a session.
pub(super) struct ProgressMeter {
    began: Moment,
    is_deploy: bool,
    /// Counts of the source's scan, until it ends.
    scan: Option<Arc<ScanCounts>>,
    window: RateWindow,
}

impl ProgressMeter {
    /// A meter of a session that began now.
    pub(super) fn new(began: Moment, is_deploy: bool, scan: Option<Arc<ScanCounts>>) -> Self {
        Self {
            began,
            is_deploy,
            scan,
            window: RateWindow::new(RATE_SPAN),
        }
    }

    /// Records the end of the source's scan.
    pub(super) fn on_scanned(&mut self) {
        self.scan = None;
    }

    /// Returns the present progress; `None` once the session has ended.
    pub(super) fn snapshot(&mut self, machine: &Sender, now: Moment) -> Option<ProgressReport> {
        let phase = self.phase(machine)?;
        let hosts = || machine.hosts().filter(|host| !host.is_lost());
        let fetch = |host: &Host| host.summary.map_or(0, |s| s.fetch);
        let total = machine.hosts().map(fetch).max().unwrap_or(0);
        let sent = hosts().map(|h| h.transfer.received).max().unwrap_or(0);
        let sent = sent.min(total);
        match phase {
            SessionPhase::Sending => self.window.add(now, sent),
            _ => self.window.clear(),
        }

        let measured = self.window.rate().filter(|rate| rate.0 > 0);
        let left = measured.map(|rate| rate.time_for(total - sent));

        Some(ProgressReport {
            phase,
            sent: ByteSize(sent),
            total: ByteSize(total),
            rate: machine.rate(),
            measured,
            left,
            elapsed: now.since(self.began),
            repaired: machine.stats().repaired,
            ready: machine.hosts().filter(|host| host.is_good(false)).count(),
            targets: machine.hosts().count(),
            waiting: self.awaited(machine).count(),
            pending: self.pending(machine, now),
        })
    }

    fn phase(&self, machine: &Sender) -> Option<SessionPhase> {
        let awaited = || {
            machine
                .hosts()
                .filter(|h| machine.awaits(h, !self.is_deploy))
        };
        let is_staging = |host: &&Host| host.stage == Some(HostStage::Staging);

        Some(match machine.step() {
            SessionStep::Discovering => match &self.scan {
                Some(counts) => SessionPhase::Scanning {
                    entries: counts.entries(),
                    bytes: counts.bytes(),
                },
                None => SessionPhase::Discovering,
            },
            SessionStep::Serving if awaited().any(|h| is_staging(&h) && lacks(h)) => {
                SessionPhase::Sending
            }
            SessionStep::Serving if awaited().any(|h| is_staging(&h)) => SessionPhase::Staging,
            SessionStep::Serving => SessionPhase::Comparing,
            SessionStep::Ordering { kind, batch, of } => match kind {
                OrderKind::Prepare => SessionPhase::Preparing,
                OrderKind::Commit if is_checking(awaited()) => SessionPhase::Checking { batch, of },
                OrderKind::Commit => SessionPhase::Committing { batch, of },
                OrderKind::Revert => SessionPhase::Reverting,
                OrderKind::Abort => SessionPhase::Aborting,
                OrderKind::Stage => SessionPhase::Staging,
            },
            SessionStep::Ended => return None,
        })
    }

    /// Hosts that the session waits for.
    fn awaited<'a>(&self, machine: &'a Sender) -> impl Iterator<Item = &'a Host> {
        let audit = !self.is_deploy;
        machine
            .hosts()
            .filter(move |host| machine.awaits(host, audit))
    }

    /// The awaited hosts that are the furthest from the end of the phase.
    fn pending(&self, machine: &Sender, now: Moment) -> Vec<PendingHost> {
        let mut hosts: Vec<&Host> = self.awaited(machine).collect();
        let rank = |host: &Host| {
            let stuck = now.since(host.progress).as_secs();
            (host.stage, percent(host), Reverse(stuck))
        };
        hosts.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name)));

        let of = |host: &Host| PendingHost {
            host: machine.shown(host),
            state: results::state_of(host, machine.fate(host), self.is_deploy, false),
            percent: percent(host),
            since: now.since(host.progress),
            why: host.text.clone(),
        };
        hosts.into_iter().take(MAX_LISTED_HOSTS).map(of).collect()
    }
}

/// Returns whether content is on its way to the host.
fn lacks(host: &Host) -> bool {
    host.summary
        .is_some_and(|s| host.transfer.received < s.fetch)
}

/// Share of the content that a receiving host has.
fn percent(host: &Host) -> Option<u8> {
    let fetch = host.summary?.fetch;
    let share = u128::from(host.transfer.received) * 100;
    let share = share.checked_div(u128::from(fetch)).unwrap_or(100).min(100);
    (host.stage == Some(HostStage::Staging)).then_some(share as u8)
}

/// Returns whether there are hosts, and all run their checks.
fn is_checking<'a>(mut hosts: impl Iterator<Item = &'a Host>) -> bool {
    let is_checking = |host: &Host| host.stage == Some(HostStage::Checking);
    hosts.next().is_some_and(is_checking) && hosts.all(is_checking)
}
