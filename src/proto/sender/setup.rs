//! Parameters of a session.

use std::time::Duration;

use crate::id::{HostName, InstanceId, Serial, TreeName};
use crate::keys::KnownHosts;
use crate::units::{Floor, Quorum, Rate};
use crate::wire::message::SignedOrder;

/// Hosts that the user expects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExpectedHosts {
    /// Smallest number of hosts.
    pub count: usize,
    /// Names that must be among them.
    pub names: Vec<HostName>,
}

/// Parameters of a session.
#[derive(Debug, Clone)]
pub struct SenderSetup {
    /// Name of the sender's host.
    pub name: HostName,
    /// This process.
    pub instance: InstanceId,
    /// Seed of all randomness.
    pub seed: u64,
    /// Largest datagram, in bytes.
    pub datagram: usize,
    /// Tree of the release.
    pub tree: TreeName,
    /// Lists of globs on host names: a target matches one of each list. Without lists every host
    /// with the tree is a target.
    pub targets: Vec<Vec<String>>,
    /// A host excluded from the targets under any name: the one in this process, with the source as
    /// its tree.
    pub without: Option<InstanceId>,
    /// Fetch the lists of differences before a commit as well, not only in an audit.
    pub lists: bool,
    /// Expected hosts.
    pub expect: ExpectedHosts,
    /// Keys that hosts had before.
    pub known_hosts: KnownHosts,
    /// Exclude a host with another key than its name had before.
    pub strict: bool,
    /// Hosts in the preceding session a moment ago; 0 if unknown.
    pub known: usize,
    /// Hosts required to be ready.
    pub quorum: Quorum,
    /// Hosts that commit in the first batch, the second and so on; the rest commits in a last one.
    pub batches: Vec<Quorum>,
    /// Revert every host if one fails after the first commit.
    pub revert: bool,
    /// Silence after which a host is lost.
    pub patience: Duration,
    /// Bytes left free behind every datagram, see [`crate::wire::seal`].
    pub room: usize,
    /// Bytes added to each datagram by the network, sealing included.
    pub overhead: usize,
    /// Upper bound of the rate, overhead of the network included.
    pub ceiling: Option<Rate>,
    /// Rate below which a host is served after the others.
    pub floor: Floor,
    /// Make hosts read every file again.
    pub checksum: bool,
    /// Make hosts compare only the differences between their release and this one.
    pub quick: bool,
    /// Make hosts run their health checks even without changes.
    pub recheck: bool,
    /// Order by which the release was committed elsewhere. Hosts that lack the release commit by
    /// this order, each on its own, and no order is signed. Discovery is skipped: such hosts answer
    /// the announcement.
    pub grant: Option<SignedOrder>,
    /// Fleet size to assume before any host is heard.
    pub fleet: u32,
    /// For a partial release committed elsewhere: the serial that a host must run to take it.
    pub follows: Option<Serial>,
    /// The only host that such a release is offered to.
    pub only: Option<HostName>,
}
