//! Events and results of deploys, audits and surveys: plain data.
//!
//! Owns the states of a host and the rule that turns them into an exit code. Must not know how
//! results are shown (`report`) or produced (socket, disk, clock).

mod fleet;
mod stranger;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::block::BlockHash;
use crate::id::{HostName, NamedHost, Serial, TreeName};
use crate::units::{ByteSize, Rate};

pub use fleet::{LogRelease, ReleaseLog, Standing, TreeStatus};
pub use stranger::Stranger;

/// Receives the events of a session, in order.
pub trait Observer {
    /// Takes one event. Must be cheap and must not fail: a closed output may not stop a deploy.
    fn event(&mut self, event: &Event);
}

/// One event of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A live host.
    Member(MemberInfo),
    /// The source was scanned.
    Scanned(ScanSummary),
    /// The release was signed.
    Released(SignedRelease),
    /// A host entered a state.
    Host(HostChange),
    /// A path differs from the release on some hosts.
    Change(PathDifference),
    /// Progress of the transfer.
    Progress(TransferProgress),
    /// Paths of the release other than directories, if requested.
    Files(Vec<Vec<u8>>),
    /// Any other message for the user.
    Note(String),
}

/// A live host, by its own beacon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Name of the host.
    pub host: HostName,
    /// Address that the host sends from.
    pub address: SocketAddr,
    /// Version of makuo on the host.
    pub version: String,
    /// Trees that the host manages.
    pub trees: Vec<MemberTree>,
}

/// The hosts of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Hosts that answered.
    pub members: Vec<MemberInfo>,
    /// Peers with another group key or none, by address.
    pub strangers: Vec<Stranger>,
}

/// A tree that a member manages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberTree {
    /// Name of the tree.
    pub tree: TreeName,
    /// Current release, if the beacon names one.
    pub serial: Option<Serial>,
}

impl From<&crate::proto::members::Member> for MemberInfo {
    fn from(member: &crate::proto::members::Member) -> Self {
        let trees = member.hello.trees.iter().map(|t| MemberTree {
            tree: t.tree.clone(),
            serial: t.running,
        });
        Self {
            host: member.hello.name.clone(),
            address: member.address,
            version: member.hello.version.clone(),
            trees: trees.collect(),
        }
    }
}

/// Totals of a scan of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSummary {
    /// Entries of all kinds.
    pub entries: u64,
    /// Bytes in all files.
    pub bytes: ByteSize,
    /// Bytes read because the index did not know them.
    pub hashed: ByteSize,
    /// Duration of the scan.
    pub took: Duration,
}

/// A release that was made and signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRelease {
    /// Name of the tree.
    pub tree: TreeName,
    /// Serial of the release.
    pub serial: Serial,
    /// Fingerprint of the signing key: `SHA256:...`.
    pub fingerprint: String,
    /// Earlier release restored by a rollback.
    pub rollback_to: Option<Serial>,
}

/// A host's new state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostChange {
    /// Name of the host.
    pub host: HostName,
    /// Address, if another host has the same name.
    pub address: Option<IpAddr>,
    /// Current state.
    pub state: HostState,
    /// Reason of a failure.
    pub error: Option<String>,
}

/// A path that differs on some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDifference {
    /// Hosts, sorted by name.
    pub hosts: Vec<NamedHost>,
    /// Path and difference.
    pub line: DriftLine,
}

/// Progress of the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferProgress {
    /// Bytes of blocks sent, each block counted once.
    pub sent: ByteSize,
    /// Bytes of blocks that some host wants.
    pub total: ByteSize,
    /// Current rate.
    pub rate: Rate,
    /// Targets that have every block.
    pub ready: usize,
    /// All targets.
    pub targets: usize,
}

/// A host's state in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostState {
    /// Expected or known, and did not answer.
    Absent,
    /// Refused the release.
    Refused,
    /// Answered and takes part.
    Joined,
    /// Knows the differences between its tree and the release. A diff ends here.
    Diffed,
    /// Receives and stages blocks.
    Staging,
    /// Staged and verified everything.
    Ready,
    /// Ran its hook before the commit, which succeeded.
    Prepared,
    /// Has the release and runs its checks after the commit.
    Checking,
    /// Has the new release. A deploy ends here.
    Committed,
    /// Had the release already.
    Unchanged,
    /// Has the release, and its hook after the commit or its health check failed.
    Unhealthy,
    /// Had the release and went back to the previous one.
    Reverted,
    /// Could not go back as ordered and still has the release.
    Stuck,
    /// Failed to commit and to undo the commit: the tree is part new, part old.
    Torn,
    /// Fell silent after an order to commit or to go back; the result is unknown.
    Unknown,
    /// Was ready or receiving when the session ended without a commit; the tree is unchanged.
    Aborted,
    /// Took part and failed; the tree is unchanged.
    Failed,
}

impl HostState {
    /// Every state, in the order of a session.
    pub const ALL: [HostState; 17] = [
        HostState::Absent,
        HostState::Refused,
        HostState::Joined,
        HostState::Diffed,
        HostState::Staging,
        HostState::Ready,
        HostState::Prepared,
        HostState::Checking,
        HostState::Committed,
        HostState::Unchanged,
        HostState::Unhealthy,
        HostState::Reverted,
        HostState::Stuck,
        HostState::Torn,
        HostState::Unknown,
        HostState::Aborted,
        HostState::Failed,
    ];

    /// Word for the state in output and JSON.
    pub fn word(self) -> &'static str {
        match self {
            HostState::Absent => "absent",
            HostState::Refused => "refused",
            HostState::Joined => "joined",
            HostState::Diffed => "diffed",
            HostState::Staging => "staging",
            HostState::Ready => "ready",
            HostState::Prepared => "prepared",
            HostState::Checking => "checking",
            HostState::Committed => "committed",
            HostState::Unchanged => "unchanged",
            HostState::Unhealthy => "unhealthy",
            HostState::Reverted => "reverted",
            HostState::Stuck => "stuck",
            HostState::Torn => "torn",
            HostState::Unknown => "unknown",
            HostState::Aborted => "aborted",
            HostState::Failed => "failed",
        }
    }

    /// Returns whether the host has the release, healthy or not.
    pub fn has_release(self) -> bool {
        self.is_well()
            || matches!(
                self,
                HostState::Checking | HostState::Unhealthy | HostState::Stuck
            )
    }

    /// Returns whether the host's tree is known to be unchanged.
    pub fn is_as_before(self) -> bool {
        !self.has_release() && !matches!(self, HostState::Torn | HostState::Unknown)
    }

    /// Returns whether the host has the release and is healthy: the goal of a deploy.
    pub fn is_well(self) -> bool {
        matches!(self, HostState::Committed | HostState::Unchanged)
    }

    /// Returns whether the state is a failure, to be reported at once.
    pub fn is_trouble(self) -> bool {
        use HostState::{
            Aborted, Absent, Failed, Refused, Reverted, Stuck, Torn, Unhealthy, Unknown,
        };
        matches!(
            self,
            Absent | Refused | Aborted | Failed | Unhealthy | Reverted | Stuck | Torn | Unknown
        )
    }
}

/// Difference of one path of a host from the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriftLine {
    /// Path within the tree, as bytes.
    pub path: Vec<u8>,
    /// The difference in the eleven columns of rsync's `--itemize-changes`: `>f.st......`,
    /// `*deleting`.
    pub itemized: String,
    /// The difference in a word.
    pub what: DriftKind,
}

/// Difference of a host's path, seen from the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DriftKind {
    /// Only the release has the path.
    Missing,
    /// Another kind of entry.
    Kind,
    /// Other content or link target.
    Content,
    /// Same content, another mode.
    Mode,
    /// Same content, another owner or group.
    Owner,
    /// Same content, another modification time.
    Time,
    /// Same content, other extended attributes.
    Xattrs,
    /// Only the host has the path.
    Extra,
    /// A hard link on one side and a separate file on the other.
    Link,
}

impl DriftKind {
    /// Word for the difference in output and JSON.
    pub fn word(self) -> &'static str {
        match self {
            DriftKind::Missing => "missing",
            DriftKind::Kind => "kind",
            DriftKind::Content => "content",
            DriftKind::Mode => "mode",
            DriftKind::Owner => "owner",
            DriftKind::Time => "time",
            DriftKind::Xattrs => "xattrs",
            DriftKind::Extra => "extra",
            DriftKind::Link => "link",
        }
    }
}

/// Hosts that differ from the release in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftGroup {
    /// Hosts, sorted by name.
    pub hosts: Vec<NamedHost>,
    /// Differences, sorted by path; may be truncated, while the three counts are exact.
    pub lines: Vec<DriftLine>,
    /// Paths on both sides that differ.
    pub changed: u64,
    /// Paths that only the host has.
    pub extra: u64,
    /// Paths that only the release has.
    pub missing: u64,
}

impl DriftGroup {
    /// Counts complete `lines`.
    pub fn new(hosts: Vec<HostName>, lines: Vec<DriftLine>) -> Self {
        let hosts = hosts.into_iter().map(NamedHost::from).collect();
        let count = |of: fn(DriftKind) -> bool| lines.iter().filter(|l| of(l.what)).count() as u64;
        let extra = count(|w| w == DriftKind::Extra);
        let missing = count(|w| w == DriftKind::Missing);
        let changed = lines.len() as u64 - extra - missing;

        Self {
            hosts,
            lines,
            changed,
            extra,
            missing,
        }
    }

    /// Number of paths that differ.
    pub fn total(&self) -> u64 {
        self.changed
            .saturating_add(self.extra)
            .saturating_add(self.missing)
    }

    /// Returns whether no path differs.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

/// Purpose of a session, which decides the states that count as success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Put the release on the targets.
    Deploy,
    /// Report the changes that a deploy would make.
    DryRun,
    /// Report differences; a difference is exit code 1.
    Diff,
}

/// Warns of names that several `hosts` share: "2 hosts are named web, at 10.0.0.4 and 10.0.0.5".
pub fn shared_names<'a>(hosts: impl IntoIterator<Item = (&'a HostName, IpAddr)>) -> Vec<String> {
    let mut named: BTreeMap<&HostName, BTreeSet<IpAddr>> = BTreeMap::new();
    for (name, address) in hosts {
        named.entry(name).or_default().insert(address);
    }

    let shared = named
        .into_iter()
        .filter(|(_, addresses)| addresses.len() > 1);
    let warning = |(name, addresses): (&HostName, BTreeSet<IpAddr>)| {
        let at: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let advice =
            "targets and expected hosts go by name, so give each its own with `name` in makuo.toml";
        format!(
            "{} hosts are named {name}, at {}: {advice}",
            at.len(),
            at.join(" and ")
        )
    };

    shared.map(warning).collect()
}

/// Exit status of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// Every target has the release, or nothing drifts.
    Success,
    /// An audit found drift.
    Drift,
    /// Refused or aborted: no host changed.
    Refused,
    /// Some hosts have the release or answered the audit; others do not, or their state is unknown.
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

/// Result of a whole session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Purpose of the session.
    pub purpose: Purpose,
    /// Name of the tree.
    pub tree: TreeName,
    /// The release, if one was made.
    pub serial: Option<Serial>,
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
}

impl Outcome {
    /// An empty outcome: no hosts, nothing sent.
    pub fn new(purpose: Purpose, tree: TreeName) -> Self {
        Self {
            purpose,
            tree,
            serial: None,
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
        }
    }

    /// Sorts the hosts, sums their counts and derives the exit status. Called once all hosts are
    /// known.
    #[must_use]
    pub fn settle(mut self) -> Self {
        self.hosts
            .sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
        self.drift.retain(|g| !g.is_empty());
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

        self.exit = exit_status(
            self.purpose,
            self.hosts.iter().map(|h| h.state),
            !self.drift.is_empty(),
        );

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
    let audit = purpose != Purpose::Deploy;
    let good = |state: HostState| state.is_well() || (audit && state == HostState::Diffed);
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
