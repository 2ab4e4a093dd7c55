//! What a deploy, an audit or a look around tells as it goes and what it comes to: plain data.
//!
//! Owns the words for what happened to each host and the rule that turns them into an exit code. Must not know how any
//! of it is shown (that is `report`), nor where it came from (socket, disk, clock).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::strangers::Stranger;
use crate::block::BlockHash;
use crate::id::{HostName, NamedHost, Serial, TreeName};
use crate::units::{ByteSize, Rate};

/// Who listens while an engine works: it tells, in order, everything that a person may want to see.
pub trait Observer {
    /// Takes one event. Cheap, and never fails: an output that is gone must not stop a deploy.
    fn event(&mut self, event: &Event);
}

/// One thing that happened, told when it happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A host that is alive.
    Member(Member),
    /// The source was read.
    Scanned(Scanned),
    /// The release was signed.
    Released(Released),
    /// A host came into a state.
    Host(HostChange),
    /// A path that differs from the release on some hosts.
    Change(Change),
    /// How far the transfer is.
    Progress(Progress),
    /// The paths of the release that are no directories, for who asked for them.
    Files(Vec<Vec<u8>>),
    /// Something worth a line that no other event says.
    Note(String),
}

/// A host that is alive, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub host: HostName,
    /// Where it was heard from.
    pub address: SocketAddr,
    /// The version of makuo that it runs.
    pub version: String,
    /// The trees that it manages.
    pub trees: Vec<MemberTree>,
}

/// What a look around finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// The hosts that answer.
    pub members: Vec<Member>,
    /// Those who speak and are not heard, by address: another group key, or none.
    pub strangers: Vec<Stranger>,
}

/// A tree that a member manages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberTree {
    /// Its name.
    pub tree: TreeName,
    /// The release that it has, when it says.
    pub serial: Option<Serial>,
}

/// What reading the source came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// Entries of all kinds.
    pub entries: u64,
    /// Bytes in all files.
    pub bytes: ByteSize,
    /// Bytes that had to be read, because no index knew them.
    pub hashed: ByteSize,
    /// How long it took.
    pub took: Duration,
}

/// A release that was made and signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Its tree.
    pub tree: TreeName,
    /// Its serial.
    pub serial: Serial,
    /// The key that signed it: `SHA256:...`.
    pub fingerprint: String,
    /// The earlier release that it puts again, when it is a rollback.
    pub rollback_to: Option<Serial>,
}

/// A host that came into a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostChange {
    /// The host.
    pub host: HostName,
    /// Its address, when another host has the same name.
    pub address: Option<IpAddr>,
    /// Its state now.
    pub state: HostState,
    /// Why, for the states that are failures.
    pub error: Option<String>,
}

/// A path that differs on some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The hosts, in the order of their names.
    pub hosts: Vec<NamedHost>,
    /// The path and how it differs.
    pub line: DriftLine,
}

/// How far the transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of blocks sent, each block counted once.
    pub sent: ByteSize,
    /// Bytes of blocks that some host wants.
    pub total: ByteSize,
    /// The rate now.
    pub rate: Rate,
    /// Targets that have all they need.
    pub ready: usize,
    /// All targets.
    pub targets: usize,
}

/// Where a host stands in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostState {
    /// Expected or known, but it did not answer.
    Absent,
    /// It answered that it does not take this release.
    Refused,
    /// It answered and takes part.
    Joined,
    /// It knows what differs between its tree and the release. Where a diff ends.
    Diffed,
    /// It receives and stages blocks.
    Staging,
    /// Everything is staged and verified.
    Ready,
    /// What it runs before a commit agreed.
    Prepared,
    /// It has the release; what it runs after a commit is under way.
    Checking,
    /// It has the release now. Where a deploy ends.
    Committed,
    /// It had the release already.
    Unchanged,
    /// It has the release; a hook after the commit or its health check failed.
    Unhealthy,
    /// It had the release and went back to the one before.
    Reverted,
    /// It was to go back and could not: it has the release still.
    Stuck,
    /// Its commit failed and could not be undone: its tree is part new, part old.
    Torn,
    /// It was ordered to commit, or to go back, and fell silent: nobody knows whether it did.
    Unknown,
    /// It was ready or on the way, and the session ended without a commit; its tree is as before.
    Aborted,
    /// It took part and failed; its tree is as before.
    Failed,
}

impl HostState {
    /// Every state, in the order in which a session passes them.
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

    /// The word for it, in output and JSON.
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

    /// Whether a host in this state has the release, well or not.
    pub fn has_release(self) -> bool {
        self.is_well()
            || matches!(
                self,
                HostState::Checking | HostState::Unhealthy | HostState::Stuck
            )
    }

    /// Whether a host in this state is known to be as it was before.
    pub fn is_as_before(self) -> bool {
        !self.has_release() && !matches!(self, HostState::Torn | HostState::Unknown)
    }

    /// Whether a host in this state has the release and is as it should be: where a deploy shall end.
    pub fn is_well(self) -> bool {
        matches!(self, HostState::Committed | HostState::Unchanged)
    }

    /// Whether a host in this state went wrong, so that a person should see it as it happens.
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

/// How one path of a host differs from the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriftLine {
    /// The path within the tree, as bytes.
    pub path: Vec<u8>,
    /// The difference in the eleven columns of rsync's `--itemize-changes`: `>f.st......`, `*deleting`.
    pub itemized: String,
    /// The difference in a word.
    pub what: What,
}

/// The difference in a word: what the host's path is, seen from the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum What {
    /// The release has it, the host does not.
    Missing,
    /// Another kind of entry stands there.
    Kind,
    /// Other content or link target.
    Content,
    /// Same content, another mode.
    Mode,
    /// Same content, another owner or group.
    Owner,
    /// Same content, another time of modification.
    Time,
    /// Same content, other extended attributes.
    Xattrs,
    /// The host has it, the release does not.
    Extra,
    /// Another name of a file where the release has a file of its own, or the other way round.
    Link,
}

impl What {
    /// The word for it, in output and JSON.
    pub fn word(self) -> &'static str {
        match self {
            What::Missing => "missing",
            What::Kind => "kind",
            What::Content => "content",
            What::Mode => "mode",
            What::Owner => "owner",
            What::Time => "time",
            What::Xattrs => "xattrs",
            What::Extra => "extra",
            What::Link => "link",
        }
    }
}

/// Hosts that differ from the release in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftGroup {
    /// The hosts, in the order of their names.
    pub hosts: Vec<NamedHost>,
    /// What differs, in the order of paths; perhaps cut off, see `changed`, `extra`, `missing` for the true numbers.
    pub lines: Vec<DriftLine>,
    /// Paths that both have and that differ.
    pub changed: u64,
    /// Paths that the host has and the release does not.
    pub extra: u64,
    /// Paths that the release has and the host does not.
    pub missing: u64,
}

impl DriftGroup {
    /// A group out of its complete lines.
    pub fn new(hosts: Vec<HostName>, lines: Vec<DriftLine>) -> Self {
        let hosts = hosts.into_iter().map(NamedHost::from).collect();
        let count = |of: fn(What) -> bool| lines.iter().filter(|l| of(l.what)).count() as u64;
        let (extra, missing) = (count(|w| w == What::Extra), count(|w| w == What::Missing));
        let changed = lines.len() as u64 - extra - missing;

        Self {
            hosts,
            lines,
            changed,
            extra,
            missing,
        }
    }

    /// The number of paths that differ.
    pub fn total(&self) -> u64 {
        self.changed
            .saturating_add(self.extra)
            .saturating_add(self.missing)
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

/// What a session was for; it decides which states count as success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Put the release on the targets.
    Deploy,
    /// Say what a deploy would change.
    DryRun,
    /// Say what differs; a difference is exit code 1.
    Diff,
}

/// Warnings of names that several of `hosts` have: "2 hosts are named web, at 10.0.0.4 and 10.0.0.5".
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

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// Every target has the release, or nothing drifts.
    Success,
    /// An audit found drift.
    Drift,
    /// Refused or aborted: no host changed.
    Refused,
    /// Some hosts have the release (or answered the audit), others do not, or it is not known.
    Mixed,
}

impl ExitStatus {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Success => 0,
            ExitStatus::Drift => 1,
            ExitStatus::Refused => 3,
            ExitStatus::Mixed => 4,
        }
    }
}

/// What a session came to at one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostResult {
    /// The host.
    pub host: HostName,
    /// Its address, when another host has the same name.
    pub address: Option<IpAddr>,
    /// Its last state.
    pub state: HostState,
    /// The release that it has now, when it said.
    pub serial: Option<Serial>,
    /// Files and other entries written or changed.
    pub files_written: u64,
    /// Entries deleted.
    pub files_deleted: u64,
    /// Bytes of blocks that it took from the network.
    pub bytes_received: ByteSize,
    /// From the announcement to its last word.
    pub took: Duration,
    /// Why it refused, failed or was aborted.
    pub error: Option<String>,
}

impl HostResult {
    /// A host in `state` of which nothing else is known.
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

    /// The host as it is shown.
    pub fn named(&self) -> NamedHost {
        NamedHost {
            name: self.host.clone(),
            address: self.address,
        }
    }
}

/// What a whole session came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What it was for.
    pub purpose: Purpose,
    /// The tree.
    pub tree: TreeName,
    /// The release, when one was made.
    pub serial: Option<Serial>,
    /// The earlier release that it puts again, when it is a rollback.
    pub rollback_to: Option<Serial>,
    /// The name of what it does to a host, whatever its number; see [`super::source::Facts::name`].
    #[serde(skip)]
    pub content: Option<BlockHash>,
    /// The key that signed it: `SHA256:...`.
    pub fingerprint: Option<String>,
    /// How the command ends. [`Outcome::settle`] derives it.
    pub exit: ExitStatus,
    /// Every target, in the order of their names.
    pub hosts: Vec<HostResult>,
    /// What differs (or differed, for a dry run); hosts without a difference are in no group.
    pub drift: Vec<DriftGroup>,
    /// Entries written, all hosts together.
    pub files_written: u64,
    /// Entries deleted, all hosts together.
    pub files_deleted: u64,
    /// Bytes of the files of the release.
    pub bytes_release: ByteSize,
    /// Bytes put on the network, repair and control included.
    pub bytes_sent: ByteSize,
    /// Losses that repair mended, all hosts together.
    pub repaired: u64,
    /// How long it took.
    pub took: Duration,
    /// The mean rate of the transfer, when there was one.
    pub rate: Option<Rate>,
    /// Why the session as a whole ended without a commit.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Outcome {
    /// An outcome of which nothing is known yet: no hosts, nothing sent.
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

    /// Sorts the hosts, adds up what they did and derives the exit code. Called once all hosts are known.
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

/// The exit code out of the last states of all targets; `drift` says whether an audit found any.
///
/// An audit that could not ask a target never says "no drift": it is refused when nobody answered and mixed when some
/// did. A deploy without targets is refused: it did nothing.
pub fn exit_status(
    purpose: Purpose,
    hosts: impl IntoIterator<Item = HostState>,
    drift: bool,
) -> ExitStatus {
    let audit = purpose != Purpose::Deploy;
    let good = |state: HostState| state.is_well() || (audit && state == HostState::Diffed);
    let (mut some, mut all) = (false, true);
    for state in hosts {
        // An unhealthy host is no success, but it has the release, and a host of which nothing is known may have it:
        // nobody may think that no host changed.
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
