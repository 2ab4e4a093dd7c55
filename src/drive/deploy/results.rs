//! The outcome of a session: the state of each host, what it did, the drift that hosts share.

use std::collections::BTreeMap;

use super::Session;
use crate::drive::drift;
use crate::drive::outcome::{DriftGroup, HostResult, HostState, Outcome, Purpose};
use crate::id::HostName;
use crate::manifest::{Intent, Release};
use crate::proto::sender::hosts::Host;
use crate::units::{ByteSize, Rate};
use crate::wire::HostStage;
use crate::wire::message::{OrderKind, Summary};

impl Session<'_> {
    pub(super) fn state_of(&self, host: &Host, ended: bool) -> HostState {
        let deploy = self.options.purpose == Purpose::Deploy;
        let clean = host.summary.is_some_and(|s| s.drift == 0);
        match host.stage {
            Some(HostStage::Refused) => HostState::Refused,
            Some(HostStage::Committed) if clean => HostState::Unchanged,
            Some(HostStage::Committed) => HostState::Committed,
            Some(HostStage::Unhealthy) => HostState::Unhealthy,
            Some(HostStage::Reverted) => HostState::Reverted,
            Some(HostStage::Stuck) => HostState::Stuck,
            Some(HostStage::Aborted) => HostState::Aborted,
            Some(HostStage::Failed) => HostState::Failed,
            _ if host.lost => HostState::Absent,
            None => HostState::Absent,
            Some(HostStage::Staging) if !deploy => HostState::Diffed,
            Some(HostStage::Checking) => HostState::Checking,
            _ if ended => HostState::Aborted,
            Some(HostStage::Joined | HostStage::Fetching | HostStage::Diffing) => HostState::Joined,
            Some(HostStage::Staging) => HostState::Staging,
            Some(HostStage::Ready) => HostState::Ready,
            Some(HostStage::Prepared) => HostState::Prepared,
        }
    }

    pub(super) fn outcome(mut self) -> Outcome {
        let mut outcome = Outcome::new(self.options.purpose, self.options.spec.tree.clone());
        let header = self.release.as_ref().map(Release::header);
        outcome.rollback_to = self.rollback_to();
        outcome.content = self.prepared.as_ref().map(|facts| facts.name());
        outcome.serial = header.filter(|h| h.intent != Intent::Audit).map(|h| h.serial);
        outcome.fingerprint = Some(self.options.signer.public().fingerprint().to_string());
        outcome.hosts = self.machine.hosts().map(|h| self.result(h)).collect();
        outcome.drift = self.groups();
        outcome.bytes_release = ByteSize(header.map_or(0, |h| h.root.bytes));
        outcome.bytes_sent = ByteSize(self.endpoint.sent());
        outcome.repaired = self.machine.stats().repaired;
        outcome.took = self.clock.now().since(self.began);
        outcome.rate = self.mean_rate();
        let aborted = self.decision.take().filter(|(kind, _)| matches!(kind, OrderKind::Abort | OrderKind::Revert));
        outcome.error = self.machine.failure().map(str::to_string).or(aborted.map(|(_, why)| why));
        outcome.settle()
    }

    fn mean_rate(&self) -> Option<Rate> {
        let (sent, since) = (self.machine.stats().bytes, self.announced?);
        let took = self.clock.now().since(since).as_secs_f64();
        (sent > 1_000_000 && took > 0.0).then(|| Rate((sent as f64 * 8.0 / took) as u64))
    }

    fn result(&self, host: &Host) -> HostResult {
        let state = self.state_of(host, true);
        let done = state.has_release();
        let summary = host.summary.unwrap_or_default();
        let last = self.states.get(&host.name).map(|(_, at)| *at);
        let error = match (&host.text, state) {
            (Some(text), _) => Some(text.clone()),
            (None, HostState::Absent) if host.stage.is_none() => Some("did not answer the announcement".into()),
            (None, HostState::Absent) => Some("did not answer any more".into()),
            _ => None,
        };
        HostResult {
            // Of a host that went back, or is silent, the highest serial that it accepted does not tell what it has.
            serial: Some(host.serial).filter(|s| s.0 > 0 && !matches!(state, HostState::Reverted | HostState::Absent)),
            files_written: if done { summary.written.saturating_add(summary.touched) } else { 0 },
            files_deleted: if done { summary.deleted } else { 0 },
            bytes_received: ByteSize(host.received),
            took: last.unwrap_or(self.began).since(self.announced.unwrap_or(self.began)),
            error,
            ..HostResult::new(host.name.clone(), state)
        }
    }

    /// Hosts with the same drift, with the list that one of them sent.
    fn groups(&self) -> Vec<DriftGroup> {
        let mut groups: BTreeMap<u64, (Vec<HostName>, Summary)> = BTreeMap::new();
        for host in self.machine.hosts() {
            if let Some(summary) = host.summary.filter(|s| s.drift != 0) {
                groups.entry(summary.drift).or_insert_with(|| (Vec::new(), summary)).0.push(host.name.clone());
            }
        }
        let reports: BTreeMap<u64, &[u8]> = self.machine.drift_reports().collect();
        let groups = groups.into_iter().map(|(identity, (mut hosts, summary))| {
            hosts.sort();
            match reports.get(&identity).and_then(|bytes| drift::decode(bytes)) {
                Some(drift) => {
                    let (changed, extra, missing) = (drift.changed, drift.extra, drift.missing);
                    DriftGroup { hosts, lines: drift.lines, changed, extra, missing }
                }
                // The list did not come (a deploy asks for it only when told to): the numbers did.
                None => {
                    let changed = summary.written.saturating_add(summary.touched);
                    DriftGroup {
                        hosts,
                        lines: Vec::new(),
                        changed,
                        extra: summary.deleted.saturating_add(summary.extra),
                        missing: 0,
                    }
                }
            }
        });
        groups.collect()
    }
}
