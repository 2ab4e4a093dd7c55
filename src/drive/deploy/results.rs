//! The outcome of a session: the state and result of each host, and the drift that hosts share.
//!
//! Unknown states are reported as unknown.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::options::DeployOptions;
use crate::block::BlockHash;
use crate::drive::clock;
use crate::drive::drift;
use crate::id::{HostName, NamedHost, Serial};
use crate::keys::shown_time;
use crate::manifest::{Intent, Release};
use crate::outcome::{DriftGroup, HostResult, HostState, Outcome, ProtectedList, Purpose};
use crate::proto::sender::Sender;
use crate::proto::sender::fate::Fate;
use crate::proto::sender::hosts::Host;
use crate::units::{ByteSize, Moment, Rate, WallTime, shown_age};
use crate::wire::HostStage;
use crate::wire::message::{DiffSummary, OrderKind};

/// State of a host by its last report and other evidence.
///
/// Without an answer to an order the state is unknown once the session has `ended` or the host is
/// lost.
pub(super) fn state_of(host: &Host, fate: Fate, deploy: bool, ended: bool) -> HostState {
    let clean = host.summary.is_some_and(|s| s.drift == 0);
    let silent = ended || host.is_lost();

    match host.stage {
        Some(HostStage::Refused) => HostState::Refused,
        Some(HostStage::Reverted) => HostState::Reverted,
        Some(HostStage::Stuck) => HostState::Stuck,
        Some(HostStage::Aborted) => HostState::Aborted,
        Some(HostStage::Staged) => HostState::Staged,
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
        _ if host.is_lost() => HostState::Absent,
        None => HostState::Absent,
        Some(HostStage::Staging) if !deploy => HostState::Diffed,
        _ if ended => HostState::Aborted,
        Some(HostStage::Joined | HostStage::Fetching | HostStage::Diffing) => HostState::Joined,
        Some(HostStage::Staging) => HostState::Staging,
        Some(HostStage::Ready) => HostState::Ready,
        Some(HostStage::Prepared) => HostState::Prepared,
    }
}

/// Reason of a host's state: the host's own text, or the known facts about the silence.
pub(super) fn why(machine: &Sender, now: Moment, host: &Host, state: HostState) -> Option<String> {
    let silence = match state {
        HostState::Unknown => {
            let order = if machine.is_reverting(host) {
                "go back"
            } else {
                "commit"
            };
            format!(
                "ordered to {order}, and {}: look at it with `makuo status`",
                silent(host, now)
            )
        }
        HostState::Checking if host.is_lost() => {
            format!("has the release, and {}", silent(host, now))
        }
        HostState::Failed if host.stage != Some(HostStage::Failed) => {
            "was restarted before it committed: its tree is as before".to_string()
        }
        HostState::Reverted if host.stage != Some(HostStage::Reverted) => {
            "went back by its beacon, and did not say so".to_string()
        }
        HostState::Absent if host.stage.is_none() => "did not answer the announcement".to_string(),
        HostState::Absent => "stopped answering".to_string(),
        _ => return host.text.clone(),
    };

    Some(match &host.text {
        Some(text) if state == HostState::Absent => text.clone(),
        Some(text) => format!("{silence} ({text})"),
        None => silence,
    })
}

/// Reason of an aborted host's state: the sender's.
pub(super) fn not_changed(why: &str) -> String {
    format!("not changed: {why}")
}

/// "has been silent since 2026-11-28 13:01 UTC, for 30 s"
fn silent(host: &Host, now: Moment) -> String {
    let silent = now.since(host.heard).as_secs();
    let since = WallTime(clock::wall_seconds().0.saturating_sub_unsigned(silent));
    format!(
        "has been silent since {}, for {}",
        shown_time(since),
        shown_age(silent)
    )
}

/// Start of a session, time of its announcement, and time of each host's last state.
pub(super) struct Timeline {
    began: Moment,
    announced: Option<Moment>,
    states: BTreeMap<(HostName, IpAddr), (HostState, Moment)>,
}

impl Timeline {
    /// A session begun at `began`.
    pub(super) fn new(began: Moment) -> Self {
        Self {
            began,
            announced: None,
            states: BTreeMap::new(),
        }
    }

    /// Start of the session.
    pub(super) fn began(&self) -> Moment {
        self.began
    }

    /// Records the announcement.
    pub(super) fn announced(&mut self, now: Moment) {
        self.announced = Some(now);
    }

    /// Records the state of `host`; returns whether new.
    pub(super) fn reached(
        &mut self,
        host: (HostName, IpAddr),
        state: HostState,
        now: Moment,
    ) -> bool {
        let before = self.states.insert(host, (state, now));
        before.is_none_or(|(old, _)| old != state)
    }

    /// Time from the announcement to the last state of `host`.
    fn took(&self, host: &Host) -> Duration {
        let last = self
            .states
            .get(&(host.name.clone(), host.address.ip()))
            .map(|(_, at)| *at);

        last.unwrap_or(self.began)
            .since(self.announced.unwrap_or(self.began))
    }
}

/// An ended session.
pub(super) struct EndedSession<'a> {
    pub(super) options: &'a DeployOptions,
    pub(super) machine: &'a Sender,
    pub(super) timeline: &'a Timeline,
    pub(super) now: Moment,
    pub(super) release: Option<&'a Release>,
    pub(super) rollback_to: Option<Serial>,
    pub(super) content: Option<BlockHash>,
    pub(super) bytes_sent: u64,
    pub(super) decision: Option<&'a (OrderKind, String)>,
}

impl EndedSession<'_> {
    /// Compiles the outcome.
    pub(super) fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::new(self.options.purpose, self.options.spec.tree.clone());
        let header = self.release.map(Release::header);
        outcome.rollback_to = self.rollback_to;
        outcome.content = self.content;
        outcome.serial = header
            .filter(|h| h.intent != Intent::Audit)
            .map(|h| h.serial);
        outcome.message = header.and_then(|h| h.message.clone());

        outcome.fingerprint = Some(self.options.keys.fingerprint());
        outcome.hosts = self.machine.hosts().map(|h| self.result(h)).collect();
        outcome.drift = self.groups();
        outcome.bytes_release = ByteSize(header.map_or(0, |h| h.root.bytes));
        outcome.bytes_sent = ByteSize(self.bytes_sent);
        outcome.repaired = self.machine.stats().repaired;
        outcome.took = self.now.since(self.timeline.began);
        outcome.rate = self.mean_rate();

        outcome.error = self.failure().map(str::to_string);
        outcome.taken_back = matches!(self.decision, Some((OrderKind::Revert, _)));
        outcome.settle()
    }

    /// Reason why the release was not committed everywhere.
    fn failure(&self) -> Option<&str> {
        let is_end = |kind: &OrderKind| matches!(kind, OrderKind::Abort | OrderKind::Revert);
        let is_asked = self.options.purpose == Purpose::Abort;
        let ended = self.decision.filter(|(kind, _)| is_end(kind) && !is_asked);
        self.machine
            .failure()
            .or(ended.map(|(_, why)| why.as_str()))
    }

    fn mean_rate(&self) -> Option<Rate> {
        let sent = self.machine.stats().bytes;
        let since = self.timeline.announced?;
        let took = self.now.since(since).as_secs_f64();
        (sent > 1_000_000 && took > 0.0).then(|| Rate((sent as f64 * 8.0 / took) as u64))
    }

    fn result(&self, host: &Host) -> HostResult {
        let deploy = !self.options.purpose.is_audit();
        let state = state_of(host, self.machine.fate(host), deploy, true);
        // A session for a staged release that ends without an order leaves it staged.
        let stays = self.machine.is_of_staged() && host.stage != Some(HostStage::Aborted);
        let state = match state {
            HostState::Aborted if stays => HostState::Staged,
            state => state,
        };
        let done = state.has_release();
        let summary = host.summary.unwrap_or_default();

        HostResult {
            address: self.machine.shown(host).address,
            serial: Some(host.serial).filter(|s| s.0 > 0 && runs_its_serial(state)),
            files_written: if done {
                summary.written.saturating_add(summary.touched)
            } else {
                0
            },
            files_deleted: if done { summary.deleted } else { 0 },
            bytes_received: ByteSize(host.transfer.received),
            took: self.timeline.took(host),
            error: match self.failure() {
                Some(why) if state == HostState::Aborted => Some(not_changed(why)),
                Some(why) if state == HostState::Staged => Some(format!("stays staged: {why}")),
                _ => why(self.machine, self.now, host, state),
            },
            ..HostResult::new(host.name.clone(), state)
        }
    }

    /// Hosts with the same drift, with the list of one of them.
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
                    let changed = drift.changed;
                    let extra = drift.extra;
                    let missing = drift.missing;
                    let protected = drift.protected.unwrap_or_default().into_iter();
                    DriftGroup {
                        hosts,
                        lines: drift.lines,
                        changed,
                        extra,
                        missing,
                        over_limit: drift.over_limit,
                        protected: ProtectedList {
                            paths: protected.map(Into::into).collect(),
                            count: drift.protected_count.unwrap_or_default(),
                        },
                    }
                }
                // The list did not arrive (a deploy fetches lists only on request), but the counts
                // did.
                None => {
                    let changed = summary.written.saturating_add(summary.touched);
                    DriftGroup {
                        hosts,
                        lines: Vec::new(),
                        changed,
                        extra: summary.deleted.saturating_add(summary.extra),
                        ..DriftGroup::default()
                    }
                }
            }
        });

        groups.collect()
    }
}

/// Returns whether a host in this state runs the highest accepted serial.
fn runs_its_serial(state: HostState) -> bool {
    !matches!(
        state,
        HostState::Reverted | HostState::Absent | HostState::Unknown | HostState::Torn
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InstanceId;
    use crate::proto::sender::hosts::{Contact, Hosts};

    #[test]
    fn a_state_says_of_the_release_what_is_known_of_it() {
        use HostStage::*;
        let mut hosts = Hosts::default();
        let id = InstanceId(1);
        let name = HostName::new("web1").expect("legal");
        let at = ([10, 0, 0, 1], 5000).into();
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
                // A final report is certain.
                if fate != Fate::Said && stage.is_some_and(|s| s >= Reverted) {
                    continue;
                }
                host.stage = stage;
                host.contact = if lost {
                    Contact::Silent
                } else {
                    Contact::Present
                };
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
