//! Parameters of a simulation, with defaults for a small lossless network.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::LinkSetup;
use super::node::NodeId;
use super::unicast::UnicastSetup;
use crate::block::frame::Level;
use crate::proto::generation::TARGET_BYTES;
use crate::proto::sender::{CommitRules, KeyRules};
use crate::units::Rate;

/// Parameters of a simulation.
#[derive(Debug, Clone)]
pub struct NetworkSetup {
    /// Seed of everything random.
    pub seed: u64,
    /// Number of hosts.
    pub hosts: usize,
    /// Link into every host.
    pub link: LinkSetup,
    /// Links into hosts (from 1) that differ from the rest.
    pub links: BTreeMap<usize, LinkSetup>,
    /// Uplinks of a network without multicast; `None` for a network with multicast.
    pub unicast: Option<UnicastSetup>,
    /// Hide hosts from each other and set only their number. With thousands of hosts, beacons would
    /// otherwise fill the simulation.
    pub strangers: bool,
    /// Let disks read back blocks that are present already.
    pub recall: bool,
    /// Longest time of a disk to answer.
    pub disk: Duration,
    /// Time to prepare and sign the release.
    pub prepare: Duration,
    /// Timeout for a silent host or sender.
    pub patience: Duration,
    /// Data of the sender.
    pub sending: SendingSetup,
    /// Conditions and order of the commit.
    pub commit: CommitRules,
    /// Names of the targets; empty for all hosts.
    pub targets: Vec<String>,
    /// Treatment of hosts with other keys.
    pub keys: KeyRules,
    /// Begin of the session.
    pub start: SessionStart,
    /// Hosts that asked for a release committed elsewhere.
    pub asking: Vec<NodeId>,
    /// Observations beyond the usual ones.
    pub observe: Observations,
}

/// Data of a simulated sender.
#[derive(Debug, Clone, Copy)]
pub struct SendingSetup {
    /// Rate limit.
    pub ceiling: Option<Rate>,
    /// Compression level.
    pub compress: Option<Level>,
    /// Bytes of a datagram.
    pub datagram: usize,
    /// Target size of a generation for the packer, in bytes.
    pub generation: usize,
}

impl Default for SendingSetup {
    fn default() -> Self {
        Self {
            ceiling: Some(Rate(1_000_000_000)),
            compress: None,
            datagram: 1472,
            generation: TARGET_BYTES,
        }
    }
}

/// Begin of a simulated session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStart {
    /// With discovery.
    Discovery,
    /// With a release committed elsewhere: hosts that missed it commit by that order.
    Granted,
    /// Like [`SessionStart::Granted`], but the sender, as a host with the release, starts only when
    /// another host requests the release from it.
    Pulled,
}

/// Costly observations of a simulation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observations {
    /// Track the memory that hosts hold.
    pub memory: bool,
    /// Record all datagrams.
    pub datagrams: bool,
}

impl Default for NetworkSetup {
    fn default() -> Self {
        Self {
            seed: 1,
            hosts: 3,
            link: LinkSetup::default(),
            links: BTreeMap::new(),
            unicast: None,
            strangers: false,
            recall: true,
            disk: Duration::from_millis(3),
            prepare: Duration::ZERO,
            patience: Duration::from_secs(10),
            sending: SendingSetup::default(),
            commit: CommitRules::default(),
            targets: Vec::new(),
            keys: KeyRules::default(),
            start: SessionStart::Discovery,
            asking: Vec::new(),
            observe: Observations::default(),
        }
    }
}
