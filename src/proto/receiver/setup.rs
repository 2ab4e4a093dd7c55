//! Configuration of a host's state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{HostName, Labels, TreeName};
use crate::keys::HostKey;
use crate::proto::members::Trust;
use crate::wire::message::{SerialProof, SignedOrder, TreeState};
use crate::wire::query::ReleaseBytes;

/// Configuration and initial state of a host.
#[derive(Debug, Clone)]
pub struct HostSetup {
    /// The host as its sessions know it.
    pub host: SessionHost,
    /// The host's trees.
    pub trees: HostTrees,
    /// Trust rules for counting other hosts.
    pub trust: Trust,
    /// Seed of the random number generators.
    pub seed: u64,
    /// Largest size of a datagram in bytes.
    pub datagram: usize,
    /// Bytes left free after every datagram, see [`crate::wire::seal`].
    pub room: usize,
}

/// A host's identity and its limits for each session.
#[derive(Debug, Clone)]
pub struct SessionHost {
    /// The host's name.
    pub name: HostName,
    /// The host's labels.
    pub labels: Labels,
    /// The host's key in this process.
    pub key: HostKey,
    /// Timeout of a silent sender.
    pub patience: Duration,
    /// Largest number of bytes in flight to this host: a part of its receive buffer.
    pub window: u32,
}

/// The trees of a host as its disk knows them at the start.
#[derive(Debug, Clone, Default)]
pub struct HostTrees {
    /// The managed trees and their releases.
    pub states: Vec<TreeState>,
    /// Trees that catch up on missed releases from other hosts.
    pub takes: BTreeSet<TreeName>,
    /// Trees offered to other hosts that missed a release.
    pub gives: BTreeSet<TreeName>,
    /// Stored orders to abort or revert a release.
    pub tombstones: Vec<SignedOrder>,
    /// Evidence of each tree's highest serial, for beacons.
    pub shown: BTreeMap<TreeName, SerialProof>,
    /// The signed header of each tree's current release.
    pub headers: BTreeMap<TreeName, ReleaseBytes>,
}
