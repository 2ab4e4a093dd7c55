//! Parameters of a session.

use std::net::SocketAddr;
use std::time::Duration;

use crate::id::{HostName, InstanceId, Labels, Serial, TreeName, matches_host};
use crate::keys::KnownHosts;
use crate::spec::BatchRule;
use crate::units::{Floor, Quorum, Rate};
use crate::wire::message::{Hello, SignedOrder, TreeState};

/// Parameters of a session.
#[derive(Debug, Clone)]
pub struct SenderSetup {
    /// Name of the sender's host.
    pub name: HostName,
    /// This process.
    pub instance: InstanceId,
    /// Seed of all randomness.
    pub seed: u64,
    /// Sizes of datagrams.
    pub sizes: DatagramSizes,
    /// Limits of the rate.
    pub rates: RateLimits,
    /// Targets of the release.
    pub targets: TargetRules,
    /// Treatment of hosts with other keys.
    pub keys: KeyRules,
    /// Conditions and order of the commit.
    pub commit: CommitRules,
    /// Silence after which a host is lost.
    pub patience: Duration,
    /// Work of hosts besides the release's own.
    pub compare: CompareRules,
    /// Set for a release committed elsewhere. No order is signed, and discovery is
    /// skipped: hosts that lack the release answer the announcement.
    pub grant: Option<ReleaseGrant>,
}

/// Sizes of a session's datagrams, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct DatagramSizes {
    /// Largest datagram.
    pub datagram: usize,
    /// Bytes left free behind every datagram, see [`crate::wire::seal`].
    pub room: usize,
    /// Bytes added to each datagram by the network, sealing included.
    pub overhead: usize,
}

/// Limits of a session's rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimits {
    /// Upper bound of the rate, overhead of the network included.
    pub ceiling: Option<Rate>,
    /// Rate below which a host is served after the others.
    pub floor: Floor,
}

/// Hosts that the user expects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExpectedHosts {
    /// Smallest number of hosts.
    pub count: usize,
    /// Names that must be among them.
    pub names: Vec<HostName>,
}

/// Targets of a release.
#[derive(Debug, Clone)]
pub struct TargetRules {
    /// Tree of the release.
    pub tree: TreeName,
    /// Lists of patterns: a target is selected by one of each list. Without lists every host with
    /// the tree is a target.
    pub lists: Vec<Vec<String>>,
    /// A host excluded from the targets under any name: the one in this process, with the source as
    /// its tree.
    pub without: Option<InstanceId>,
    /// Expected hosts.
    pub expect: ExpectedHosts,
    /// Hosts in the preceding session a moment ago; 0 if unknown.
    pub known: usize,
}

impl TargetRules {
    /// Creates rules by which every host with the tree is a target.
    pub fn all_of(tree: TreeName) -> Self {
        Self {
            tree,
            lists: Vec::new(),
            without: None,
            expect: ExpectedHosts::default(),
            known: 0,
        }
    }

    /// Returns whether the patterns select the host `name`. Without known `labels` it may have
    /// any.
    pub fn is_selected(&self, name: &HostName, labels: Option<&Labels>) -> bool {
        let is_any = |list: &Vec<String>| list.iter().any(|t| matches_host(t, name, labels));
        self.lists.iter().all(is_any)
    }

    /// Returns whether the host of a beacon is a target.
    pub fn is_target(&self, hello: &Hello) -> bool {
        self.state_in(hello).is_some() && self.is_selected(&hello.name, Some(hello.labels()))
    }

    /// Returns the state of the tree in a beacon.
    pub fn state_in<'a>(&self, hello: &'a Hello) -> Option<&'a TreeState> {
        hello.trees.iter().find(|state| state.tree == self.tree)
    }
}

/// Treatment of hosts with other keys than before.
#[derive(Debug, Clone, Default)]
pub struct KeyRules {
    /// Keys that hosts had before.
    pub known: KnownHosts,
    /// Exclude a host with another key than its name had before.
    pub strict: bool,
}

/// Order that a session works toward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionGoal {
    /// Commit a new release.
    #[default]
    Commit,
    /// Leave a new release staged.
    Stage,
    /// Commit a release that hosts keep staged.
    CommitStaged,
    /// Abort a release that hosts keep staged.
    AbortStaged,
}

impl SessionGoal {
    /// Returns whether only hosts that keep the release staged can take part.
    pub fn is_of_staged(self) -> bool {
        matches!(self, SessionGoal::CommitStaged | SessionGoal::AbortStaged)
    }
}

/// Conditions and order of a commit.
#[derive(Debug, Clone)]
pub struct CommitRules {
    /// Order that the session works toward.
    pub goal: SessionGoal,
    /// Hosts required to be ready.
    pub quorum: Quorum,
    /// Hosts that commit in the first batch, the second and so on; the rest commits in a last one.
    pub batches: Vec<BatchRule>,
    /// Revert every host if one fails after the first commit.
    pub revert: bool,
    /// Fetch the lists of differences before a commit as well, not only in an audit.
    pub lists: bool,
    /// Name the hosts in the order of the last batch as well: no other host of the release may
    /// follow it, not even later.
    pub names: bool,
}

impl Default for CommitRules {
    fn default() -> Self {
        Self {
            goal: SessionGoal::default(),
            quorum: Quorum::All,
            batches: Vec::new(),
            revert: false,
            lists: false,
            names: false,
        }
    }
}

/// Work of hosts besides the release itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompareRules {
    /// Make hosts read every file again.
    pub checksum: bool,
    /// Make hosts compare only the differences between their release and this one.
    pub quick: bool,
    /// Make hosts run their health checks even without changes.
    pub recheck: bool,
}

/// A commit elsewhere, by which hosts that lack the release commit on their own.
#[derive(Debug, Clone)]
pub struct ReleaseGrant {
    /// Order behind the commit.
    pub order: SignedOrder,
    /// Fleet size to assume before any host is heard.
    pub fleet: u32,
    /// For a partial release: the serial that a host must run to take it.
    pub follows: Option<Serial>,
    /// The only host that such a release is offered to.
    pub only: Option<HostName>,
    /// Hosts that asked for the release. Those that multicast does not reach get copies of
    /// messages only if they are among them, or take part; all do if this is empty.
    pub asking: Vec<SocketAddr>,
}
