//! The outcome of a session: the state of each host, what it did, the drift that hosts share.
//!
//! What is not known of a host is said to be unknown.

use std::collections::BTreeMap;

use super::Session;
use crate::drive::clock;
use crate::drive::drift;
use crate::drive::outcome::{DriftGroup, HostResult, HostState, Outcome, Purpose};
use crate::id::NamedHost;
use crate::keys::shown_time;
use crate::manifest::{Intent, Release};
use crate::proto::sender::fate::Fate;
use crate::proto::sender::hosts::Host;
use crate::units::{ByteSize, Rate, WallTime, shown_age};
use crate::wire::HostStage;
use crate::wire::message::{DiffSummary, OrderKind};

/// The state of a host by its last word and what is known beside it. An order that it may have followed unheard makes
/// it unknown once the session has `ended` or the host is lost; until then the answer is waited for.
fn state_of(host: &Host, fate: Fate, deploy: bool, ended: bool) -> HostState {
    let clean = host.summary.is_some_and(|s| s.drift == 0);
    let silent = ended || host.lost;
    match host.stage {
        Some(HostStage::Refused) => HostState::Refused,
        Some(HostStage::Reverted) => HostState::Reverted,
        Some(HostStage::Stuck) => HostState::Stuck,
        Some(HostStage::Aborted) => HostState::Aborted,
        Some(HostStage::Failed) if host.torn => HostState::Torn,
        Some(HostStage::Failed) => HostState::Failed,
        _ if silent && fate == Fate::Unknown => HostState::Unknown,
        _ if silent && fate == Fate::Runs => HostState::Checking,
        Some(stage) if silent && fate == Fate::Lacks && stage.has_release() => HostState::Reverted,
        _ if silent && fate == Fate::Lacks => HostState::Failed,
        Some(HostStage::Committed) if clean => HostState::Unchanged,
        Some(HostStage::Committed) => HostState::Committed,
        Some(HostStage::Unhealthy) => HostState::Unhealthy,
        Some(HostStage::Checking) => HostState::Checking,
        _ if host.lost => HostState::Absent,
        None => HostState::Absent,
        Some(HostStage::Staging) if !deploy => HostState::Diffed,
        _ if ended => HostState::Aborted,
        Some(HostStage::Joined | HostStage::Fetching | HostStage::Diffing) => HostState::Joined,
        Some(HostStage::Staging) => HostState::Staging,
        Some(HostStage::Ready) => HostState::Ready,
        Some(HostStage::Prepared) => HostState::Prepared,
    }
}

impl Session<'_> {
    pub(super) fn state_of(&self, host: &Host, ended: bool) -> HostState {
        let deploy = self.options.purpose == Purpose::Deploy;
        state_of(host, self.machine.fate(host), deploy, ended)
    }

    /// Why a host is in the state `state`: its own words, and what is known where they end.
    pub(super) fn why(&self, host: &Host, state: HostState) -> Option<String> {
        let silence = match state {
            HostState::Unknown => {
                let order = if self.machine.is_reverting(host) {
                    "go back"
                } else {
                    "commit"
                };
                format!(
                    "ordered to {order}, and {}: look at it with `makuo status`",
                    self.silent(host)
                )
            }
            HostState::Checking if host.lost => {
                format!("has the release, and {}", self.silent(host))
            }
            HostState::Failed if host.stage != Some(HostStage::Failed) => {
                "was restarted before it committed: its tree is as before".to_string()
            }
            HostState::Reverted if host.stage != Some(HostStage::Reverted) => {
                "went back by its beacon, and did not say so".to_string()
            }
            HostState::Absent if host.stage.is_none() => {
                "did not answer the announcement".to_string()
            }
            HostState::Absent => "did not answer any more".to_string(),
            _ => return host.text.clone(),
        };

        Some(match &host.text {
            Some(text) if state == HostState::Absent => text.clone(),
            Some(text) => format!("{silence} ({text})"),
            None => silence,
        })
    }

    /// "has been silent since 2026-11-28 13:01 UTC, for 30 s"
    fn silent(&self, host: &Host) -> String {
        let silent = self.clock.now().since(host.heard).as_secs();
        let since = WallTime(clock::wall_seconds().0.saturating_sub_unsigned(silent));
        format!(
            "has been silent since {}, for {}",
            shown_time(since),
            shown_age(silent)
        )
    }

    pub(super) fn outcome(mut self) -> Outcome {
        let mut outcome = Outcome::new(self.options.purpose, self.options.spec.tree.clone());
        let header = self.release.as_ref().map(Release::header);
        outcome.rollback_to = self.rollback_to();
        outcome.content = self.prepared.as_ref().map(|facts| facts.name());
        outcome.serial = header
            .filter(|h| h.intent != Intent::Audit)
            .map(|h| h.serial);

        outcome.fingerprint = Some(self.options.signer.public().fingerprint().to_string());
        outcome.hosts = self.machine.hosts().map(|h| self.result(h)).collect();
        outcome.drift = self.groups();
        outcome.bytes_release = ByteSize(header.map_or(0, |h| h.root.bytes));
        outcome.bytes_sent = ByteSize(self.endpoint.sent());
        outcome.repaired = self.machine.stats().repaired;
        outcome.took = self.clock.now().since(self.began);

        outcome.rate = self.mean_rate();
        let aborted = self
            .decision
            .take()
            .filter(|(kind, _)| matches!(kind, OrderKind::Abort | OrderKind::Revert));
        outcome.error = self
            .machine
            .failure()
            .map(str::to_string)
            .or(aborted.map(|(_, why)| why));

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
        let last = self
            .states
            .get(&(host.name.clone(), host.address.ip()))
            .map(|(_, at)| *at);

        HostResult {
            address: self.machine.shown(host).address,
            serial: Some(host.serial).filter(|s| s.0 > 0 && tells_its_serial(state)),
            files_written: if done {
                summary.written.saturating_add(summary.touched)
            } else {
                0
            },
            files_deleted: if done { summary.deleted } else { 0 },
            bytes_received: ByteSize(host.received),
            took: last
                .unwrap_or(self.began)
                .since(self.announced.unwrap_or(self.began)),
            error: self.why(host, state),
            ..HostResult::new(host.name.clone(), state)
        }
    }

    /// Hosts with the same drift, with the list that one of them sent.
    fn groups(&self) -> Vec<DriftGroup> {
        let mut groups: BTreeMap<u64, (Vec<NamedHost>, DiffSummary)> = BTreeMap::new();
        for host in self.machine.hosts() {
            if let Some(summary) = host.summary.filter(|s| s.drift != 0) {
                groups
                    .entry(summary.drift)
                    .or_insert_with(|| (Vec::new(), summary))
                    .0
                    .push(self.machine.shown(host));
            }
        }

        let reports: BTreeMap<u64, &[u8]> = self.machine.drift_reports().collect();
        let groups = groups.into_iter().map(|(identity, (mut hosts, summary))| {
            hosts.sort();
            match reports
                .get(&identity)
                .and_then(|bytes| drift::decode(bytes))
            {
                Some(drift) => {
                    let (changed, extra, missing) = (drift.changed, drift.extra, drift.missing);
                    DriftGroup {
                        hosts,
                        lines: drift.lines,
                        changed,
                        extra,
                        missing,
                    }
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

/// Whether the highest serial that a host accepted is that of the release which it has.
fn tells_its_serial(state: HostState) -> bool {
    !matches!(
        state,
        HostState::Reverted | HostState::Absent | HostState::Unknown | HostState::Torn
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostName, InstanceId, Serial};
    use crate::proto::sender::hosts::Hosts;
    use crate::units::Moment;

    #[test]
    fn a_state_says_of_the_release_what_is_known_of_it() {
        use HostStage::*;
        let (mut hosts, id) = (Hosts::default(), InstanceId(1));
        let (name, at) = (
            HostName::new("web1").expect("legal"),
            ([10, 0, 0, 1], 5000).into(),
        );
        hosts.add(Moment(1), id, name, at, Serial(0));

        let mut host = hosts.get(id).expect("just made").clone();
        let stages = [
            Joined, Ready, Prepared, Checking, Committed, Unhealthy, Reverted, Stuck, Refused,
            Aborted,
        ];

        for stage in stages.map(Some).into_iter().chain([None, Some(Failed)]) {
            for (fate, lost) in [
                (Fate::Said, false),
                (Fate::Said, true),
                (Fate::Unknown, true),
                (Fate::Runs, true),
            ] {
                // What a host says last is never doubted when nothing follows it.
                if fate != Fate::Said && stage.is_some_and(|s| s >= Reverted) {
                    continue;
                }
                (host.stage, host.lost) = (stage, lost);
                let state = state_of(&host, fate, true, true);
                let said = if state == HostState::Unknown {
                    None
                } else {
                    Some(state.has_release())
                };
                assert_eq!(
                    said,
                    fate.has_release(&host),
                    "{stage:?}, {fate:?}: {}",
                    state.word()
                );
            }
        }

        (host.stage, host.torn) = (Some(Failed), true);
        assert_eq!(state_of(&host, Fate::Said, true, true), HostState::Torn);
    }
}
