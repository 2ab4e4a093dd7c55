//! The result of a session at each host and in all, and the rule for the exit code.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drift::DriftGroup;
use super::names::named_hosts;
use super::state::HostState;
use crate::block::BlockHash;
use crate::id::{HostName, NamedHost, Serial, TreeName};
use crate::manifest::ReleaseMessage;
use crate::units::{ByteSize, Rate};

/// Purpose of a session, which decides the states that count as success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Put the release on the targets.
    Deploy,
    /// Report the changes that a deploy would make.
    DryRun,
    /// Report differences; a difference is exit code 1.
    Diff,
    /// Leave the release staged on the targets.
    Stage,
    /// Abort a release that the targets keep staged.
    Abort,
}

impl Purpose {
    /// Returns whether hosts are only compared with the release.
    pub fn is_audit(self) -> bool {
        matches!(self, Purpose::DryRun | Purpose::Diff)
    }

    /// Returns whether the session has reached its goal at a host in `state`.
    pub fn is_reached(self, state: HostState) -> bool {
        match self {
            Purpose::Deploy => state.is_well(),
            Purpose::DryRun | Purpose::Diff => state.is_well() || state == HostState::Diffed,
            Purpose::Stage => state == HostState::Staged,
            Purpose::Abort => state == HostState::Aborted,
        }
    }
}

/// Exit status of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// Every target has the release, nothing drifts, or all is well.
    Success,
    /// An audit found drift, or a status a host that somebody has to look at.
    Drift,
    /// Refused or aborted: no host changed.
    Refused,
    /// Some hosts have the release or answered the audit; others do not, or their state is unknown.
    /// Or the hosts have the release, and the repository to publish it to does not.
    Mixed,
}

impl ExitStatus {
    /// Exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Success => 0,
            ExitStatus::Drift => 1,
            ExitStatus::Refused => 3,
            ExitStatus::Mixed => 4,
        }
    }
}

/// Result of a session at one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostResult {
    /// Name of the host.
    pub host: HostName,
    /// Address, if another host has the same name.
    pub address: Option<IpAddr>,
    /// Last state.
    pub state: HostState,
    /// Current release, if the host reported one.
    pub serial: Option<Serial>,
    /// Files and other entries written or changed.
    pub files_written: u64,
    /// Entries deleted.
    pub files_deleted: u64,
    /// Bytes of blocks received from the network.
    pub bytes_received: ByteSize,
    /// Time from the announcement to the last report.
    pub took: Duration,
    /// Reason of a refusal, failure or abort.
    pub error: Option<String>,
}

impl HostResult {
    /// A host in `state`, with nothing else known.
    pub fn new(host: HostName, state: HostState) -> Self {
        Self {
            host,
            address: None,
            state,
            serial: None,
            files_written: 0,
            files_deleted: 0,
            bytes_received: ByteSize(0),
            took: Duration::ZERO,
            error: None,
        }
    }

    /// The host as shown to people.
    pub fn named(&self) -> NamedHost {
        NamedHost {
            name: self.host.clone(),
            address: self.address,
        }
    }
}

/// A batch of a commit with pauses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchResult {
    /// Number of the batch, from 1.
    pub number: usize,
    /// Number of all batches.
    pub of: usize,
    /// Whether hosts wait for the next batch.
    pub is_paused: bool,
}

/// What became of the publication that follows a deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryResult {
    /// URL of the repository.
    pub url: String,
    /// Reason why the repository lacks the release; `None` if it has it.
    pub error: Option<String>,
    /// Remedy for the error.
    pub hint: Option<String>,
}

/// Result of a whole session.
///
/// Sent from the daemon to the command unchanged: the fields are a format, and stay flat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Purpose of the session.
    pub purpose: Purpose,
    /// Name of the tree.
    pub tree: TreeName,
    /// The release, if one was made.
    pub serial: Option<Serial>,
    /// What the release changes, in its author's words.
    #[serde(default)]
    pub message: Option<ReleaseMessage>,
    /// Earlier release restored by a rollback.
    pub rollback_to: Option<Serial>,
    /// Hash of the release's effect on a host, independent of its serial.
    #[serde(skip)]
    pub content: Option<BlockHash>,
    /// Fingerprint of the signing key: `SHA256:...`.
    pub fingerprint: Option<String>,
    /// Exit status, derived by [`Outcome::settle`].
    pub exit: ExitStatus,
    /// Every target, sorted by name.
    pub hosts: Vec<HostResult>,
    /// Differences, or for a dry run those before it; hosts without one are in no group.
    pub drift: Vec<DriftGroup>,
    /// Entries written, summed over hosts.
    pub files_written: u64,
    /// Entries deleted, summed over hosts.
    pub files_deleted: u64,
    /// Bytes of the files of the release.
    pub bytes_release: ByteSize,
    /// Bytes put on the network, including repair and control.
    pub bytes_sent: ByteSize,
    /// Losses repaired, summed over hosts.
    pub repaired: u64,
    /// Duration of the session.
    pub took: Duration,
    /// Mean rate of the transfer, if there was one.
    pub rate: Option<Rate>,
    /// Reason why the whole session ended without a commit.
    pub error: Option<String>,
    /// Remedy for the error.
    pub hint: Option<String>,
    /// The batch that was to commit, of a commit with pauses.
    #[serde(default)]
    pub batch: Option<BatchResult>,
    /// Whether hosts were ordered to go back from the release.
    #[serde(skip)]
    pub taken_back: bool,
    /// Repository to which the release was to be published.
    #[serde(skip)]
    pub repository: Option<RepositoryResult>,
}

impl Outcome {
    /// An empty outcome: no hosts, nothing sent.
    pub fn new(purpose: Purpose, tree: TreeName) -> Self {
        Self {
            purpose,
            tree,
            serial: None,
            message: None,
            rollback_to: None,
            content: None,
            fingerprint: None,
            exit: ExitStatus::Refused,
            hosts: Vec::new(),
            drift: Vec::new(),
            files_written: 0,
            files_deleted: 0,
            bytes_release: ByteSize(0),
            bytes_sent: ByteSize(0),
            repaired: 0,
            took: Duration::ZERO,
            rate: None,
            error: None,
            hint: None,
            batch: None,
            taken_back: false,
            repository: None,
        }
    }

    /// Adds the result of a publication. A repository without the release makes the end mixed if
    /// every host has it; it changes nothing if hosts lack it as well.
    #[must_use]
    pub fn with_repository(mut self, repository: Option<RepositoryResult>) -> Self {
        let lacks_it = repository.as_ref().is_some_and(|r| r.error.is_some());
        if lacks_it && self.exit == ExitStatus::Success {
            self.exit = ExitStatus::Mixed;
        }
        self.repository = repository;
        self
    }

    /// Returns whether the session has reached its goal at a host in `state`. Between two batches a
    /// host waits with the release staged.
    pub fn is_reached(&self, state: HostState) -> bool {
        let waits = self.batch.as_ref().is_some_and(|batch| batch.is_paused);
        self.purpose.is_reached(state) || (waits && state == HostState::Staged)
    }

    /// Reason why not every host has the release: that of the whole session, else the hosts that
    /// lack it. `None` if all have it.
    pub fn shortfall(&self) -> Option<String> {
        if self.exit == ExitStatus::Success {
            return None;
        }

        let lacking = self
            .hosts
            .iter()
            .filter(|host| !host.state.is_well())
            .map(|host| &host.host);
        let lacking = || match named_hosts(lacking) {
            Some(names) => format!("it is missing or unhealthy at {names}"),
            None => "no host took part".to_string(),
        };
        Some(self.error.clone().unwrap_or_else(lacking))
    }

    /// Remedy for the session's error, else for that of the publication.
    pub fn first_hint(&self) -> Option<&str> {
        let published = self.repository.as_ref().and_then(|r| r.hint.as_deref());
        self.hint.as_deref().or(published)
    }

    /// Sorts the hosts, sums their counts and derives the exit status. Called once all hosts are
    /// known.
    #[must_use]
    pub fn settle(mut self) -> Self {
        self.hosts
            .sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
        self.drift.retain(|g| !g.is_silent());
        self.drift.sort_by(|a, b| a.hosts.cmp(&b.hosts));
        self.files_written = self
            .hosts
            .iter()
            .map(|h| h.files_written)
            .fold(0, u64::saturating_add);

        self.files_deleted = self
            .hosts
            .iter()
            .map(|h| h.files_deleted)
            .fold(0, u64::saturating_add);

        let drifts = self.drift.iter().any(|group| !group.is_empty());
        self.exit = exit_status(self.purpose, self.hosts.iter().map(|h| h.state), drifts);

        // A preview says what the deploy would come to.
        let is_over = self.drift.iter().any(|group| group.over_limit.is_some());
        if self.purpose == Purpose::DryRun && is_over && self.exit == ExitStatus::Success {
            self.exit = ExitStatus::Refused;
            self.error = Some("a limit on deletions would refuse this release".to_string());
        }

        self
    }
}

/// Derives the exit status from the last states of all targets and the `drift` of an audit.
///
/// An audit that missed a target never reports "no drift": the status is refused if no host
/// answered and mixed if some did. A deploy without targets did nothing and is refused.
pub fn exit_status(
    purpose: Purpose,
    hosts: impl IntoIterator<Item = HostState>,
    drift: bool,
) -> ExitStatus {
    let good = |state: HostState| purpose.is_reached(state);
    let mut some = false;
    let mut all = true;
    for state in hosts {
        // An unhealthy host is no success, but has the release, and a host of unknown state may
        // have it: the status may not claim that no host changed.
        some |= good(state) || !state.is_as_before();
        all &= good(state);
    }

    match (some, all) {
        (false, _) => ExitStatus::Refused,
        (_, true) if drift && purpose == Purpose::Diff => ExitStatus::Drift,
        (_, true) => ExitStatus::Success,
        _ => ExitStatus::Mixed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostState::*;

    fn code(purpose: Purpose, states: &[HostState], drift: bool) -> u8 {
        exit_status(purpose, states.iter().copied(), drift).code()
    }

    #[test]
    fn a_deploy_ends_in_all_none_or_some() {
        let deploy = |states: &[HostState]| code(Purpose::Deploy, states, true);
        assert_eq!(deploy(&[Committed, Unchanged]), 0);
        assert_eq!(deploy(&[]), 3);
        assert_eq!(deploy(&[Refused, Absent, Aborted, Failed]), 3);
        assert_eq!(deploy(&[Committed, Absent]), 4);
        assert_eq!(deploy(&[Unchanged, Refused]), 4);
        assert_eq!(deploy(&[Reverted, Reverted, Absent]), 3);
        assert_eq!(deploy(&[Reverted, Stuck]), 4);
        assert_eq!(deploy(&[Reverted, Unknown]), 4);

        assert_eq!(deploy(&[Aborted, Torn]), 4);
    }

    #[test]
    fn only_the_two_good_states_count_for_a_deploy() {
        for state in HostState::ALL {
            let expected = match state {
                Committed | Unchanged => 0,
                Checking | Unhealthy | Stuck | Torn | Unknown => 4,
                _ => 3,
            };
            assert_eq!(
                code(Purpose::Deploy, &[state], false),
                expected,
                "{}",
                state.word()
            );
        }
    }

    #[test]
    fn a_release_is_staged_or_aborted_on_all_none_or_some() {
        let stage = |states: &[HostState]| code(Purpose::Stage, states, false);
        assert_eq!(stage(&[Staged, Staged]), 0);
        assert_eq!(stage(&[Staged, Refused]), 4);
        assert_eq!(stage(&[Aborted, Refused]), 3);
        assert_eq!(stage(&[]), 3);

        let abort = |states: &[HostState]| code(Purpose::Abort, states, false);
        assert_eq!(abort(&[Aborted]), 0);
        assert_eq!(abort(&[Aborted, Absent]), 4);
        assert_eq!(abort(&[Absent, Staged]), 3);
    }

    #[test]
    fn an_audit_says_drift_only_when_everyone_answered() {
        let diff = |states: &[HostState], drift| code(Purpose::Diff, states, drift);
        assert_eq!(diff(&[Diffed, Unchanged], false), 0);
        assert_eq!(diff(&[Diffed, Diffed], true), 1);
        assert_eq!(diff(&[Diffed, Absent], false), 4);
        assert_eq!(diff(&[Diffed, Absent], true), 4);
        assert_eq!(diff(&[Absent], false), 3);
        assert_eq!(diff(&[], false), 3);
    }

    #[test]
    fn a_dry_run_is_no_drift() {
        assert_eq!(code(Purpose::DryRun, &[Diffed, Diffed], true), 0);
    }

    #[test]
    fn a_repository_without_the_release_makes_only_a_success_mixed() {
        let ended = |state, error: Option<&str>| {
            let mut outcome = Outcome::new(Purpose::Deploy, TreeName::new("www").expect("legal"));
            let host = HostName::new("web1").expect("legal");
            outcome.hosts.push(HostResult::new(host, state));
            let repository = RepositoryResult {
                url: "file:///srv/repo".into(),
                error: error.map(str::to_string),
                hint: None,
            };
            outcome.settle().with_repository(Some(repository)).exit
        };

        assert_eq!(ended(Committed, None), ExitStatus::Success);
        assert_eq!(ended(Committed, Some("full")), ExitStatus::Mixed);
        assert_eq!(ended(Unhealthy, None), ExitStatus::Mixed);
        assert_eq!(ended(Refused, Some("no host has it")), ExitStatus::Refused);
    }

    #[test]
    fn a_shortfall_names_the_hosts_or_the_session() {
        let ended = |states: &[HostState], error: Option<&str>| {
            let mut outcome = Outcome::new(Purpose::Deploy, TreeName::new("www").expect("legal"));
            outcome.error = error.map(str::to_string);
            for (at, state) in states.iter().enumerate() {
                let host = HostName::new(&format!("web{at:02}")).expect("legal");
                outcome.hosts.push(HostResult::new(host, *state));
            }
            outcome.settle().shortfall()
        };

        assert_eq!(ended(&[Committed, Unchanged], None), None);
        assert_eq!(ended(&[Committed], Some("the store failed")), None);
        let whole = ended(&[Aborted], Some("the store failed"));
        assert_eq!(whole.as_deref(), Some("the store failed"));
        assert!(ended(&[], None).is_some_and(|why| why.contains("no host")));

        let one = ended(&[Committed, Failed, Unhealthy], None).expect("two hosts");
        assert!(one.ends_with("at web01, web02"), "{one}");
        let many = ended(&[Failed; 20], None).expect("all");
        assert!(many.ends_with("web07 and 12 more"), "{many}");
    }

    #[test]
    fn settling_adds_up_and_sorts() {
        let name = |n: &str| HostName::new(n).expect("legal");
        let mut outcome = Outcome::new(Purpose::Deploy, TreeName::new("www").expect("legal"));
        for (host, state) in [("web2", Committed), ("web1", Unchanged)] {
            outcome.hosts.push(HostResult {
                files_written: 2,
                files_deleted: 1,
                ..HostResult::new(name(host), state)
            });
        }

        outcome
            .drift
            .push(DriftGroup::new(vec![name("web1")], Vec::new()));
        let outcome = outcome.settle();
        assert_eq!((outcome.files_written, outcome.files_deleted), (4, 2));
        assert_eq!(outcome.hosts[0].host, name("web1"));
        assert!(outcome.drift.is_empty());

        assert_eq!(outcome.exit, ExitStatus::Success);
    }
}
