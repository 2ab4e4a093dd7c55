//! Parameters of a simulation, with defaults for a small lossless network.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::LinkSetup;
use crate::block::frame::Level;
use crate::keys::KnownHosts;
use crate::proto::generation::TARGET_BYTES;
use crate::units::{Quorum, Rate};

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
    /// Number of hosts that must be ready.
    pub quorum: Quorum,
    /// Batches of the commit.
    pub batches: Vec<Quorum>,
    /// Revert all hosts if one fails.
    pub revert: bool,
    /// Timeout for a silent host or sender.
    pub patience: Duration,
    /// Rate limit of the sender.
    pub ceiling: Option<Rate>,
    /// Compression level of the sender.
    pub compress: Option<Level>,
    /// Longest time of a disk to answer.
    pub disk: Duration,
    /// Time to prepare and sign the release.
    pub prepare: Duration,
    /// Bytes of a datagram.
    pub datagram: usize,
    /// Target size of a generation for the packer, in bytes.
    pub generation: usize,
    /// Hide hosts from each other and set only their number. With thousands of hosts, beacons would
    /// otherwise fill the simulation.
    pub strangers: bool,
    /// Let disks read back blocks that are present already.
    pub recall: bool,
    /// Track the memory that hosts hold.
    pub watch_memory: bool,
    /// Start with a release committed elsewhere: hosts that missed it commit by that order.
    pub granted: bool,
    /// Start the sender, as a host with the release, only when another host requests the release
    /// from it.
    pub pulled: bool,
    /// Record all datagrams.
    pub record: bool,
    /// Keys of hosts known before.
    pub known_hosts: KnownHosts,
    /// Exclude a host with another key from the session.
    pub strict: bool,
}

impl Default for NetworkSetup {
    fn default() -> Self {
        Self {
            seed: 1,
            hosts: 3,
            link: LinkSetup::default(),
            links: BTreeMap::new(),
            quorum: Quorum::All,
            batches: Vec::new(),
            revert: false,
            patience: Duration::from_secs(10),
            ceiling: Some(Rate(1_000_000_000)),
            compress: None,
            disk: Duration::from_millis(3),
            prepare: Duration::ZERO,
            datagram: 1472,
            generation: TARGET_BYTES,
            strangers: false,
            recall: true,
            watch_memory: false,
            granted: false,
            pulled: false,
            record: false,
            known_hosts: KnownHosts::default(),
            strict: false,
        }
    }
}
