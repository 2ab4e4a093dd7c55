//! Messages outside of sessions: beacons, requests for releases, probes of the datagram size.

use std::net::IpAddr;

use minicbor::{Decode, Encode};

use super::caps::{MAX_MESSAGE_TREES, clean_text, within};
use super::order::{SignedOrder, Tombstone};
use super::query::ReleaseBytes;
use crate::id::{HostName, InstanceId, Labels, Nonce, Serial, TreeName};
use crate::keys::Identity;
use crate::manifest::ReleaseId;
use crate::units::WallTime;

/// Largest number of strangers in one beacon.
pub const MAX_BEACON_STRANGERS: usize = 16;
/// Largest number of nonces that one beacon repeats.
pub const MAX_ECHOES: usize = 16;
/// Largest number of tombstones of one tree in a beacon: the newest.
pub const MAX_BEACON_TOMBSTONES: usize = 2;
/// Largest number of characters of a version.
const MAX_VERSION_CHARS: usize = 64;

/// Identity and contents of a host.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Hello {
    /// Name of the host.
    #[n(0)]
    pub name: HostName,
    /// Version of makuo on the host.
    #[n(1)]
    pub version: String,
    /// Trees of the host.
    #[n(2)]
    pub trees: Vec<TreeState>,
    /// Number of hosts known to be alive, including this one. A sender uses it to decide whether
    /// all hosts have answered.
    #[n(3)]
    pub members: u32,
    /// In an answer to a solicit: the largest datagram received from the soliciting process, in
    /// bytes. `None` if unknown.
    #[n(4)]
    pub heard: Option<u16>,
    /// Addresses recently heard without this host's group key; `None` if there are none.
    #[n(5)]
    pub strangers: Option<Vec<IpAddr>>,
    /// Drawn for this beacon.
    #[n(6)]
    pub nonce: Option<Nonce>,
    /// In an answer, the nonce of the solicit; in a beacon, those of the other beacons heard last.
    #[n(7)]
    pub echoes: Option<Vec<Nonce>>,
    /// In an answer to a solicit: the key that signs the host's statements, and the start of its
    /// process.
    #[n(8)]
    pub identity: Option<Identity>,
    /// In an answer to a solicit that names a tree.
    #[n(9)]
    pub shown: Option<SerialProof>,
    /// Labels of the host, if it has any.
    #[n(10)]
    pub labels: Option<Labels>,
}

impl Hello {
    /// Returns whether the message was sent after `nonce` was drawn.
    pub fn repeats(&self, nonce: Nonce) -> bool {
        self.echoes.iter().flatten().any(|echo| *echo == nonce)
    }

    /// Labels of the host.
    pub fn labels(&self) -> &Labels {
        self.labels.as_ref().unwrap_or(Labels::none())
    }

    /// Returns whether the identity, if present, belongs to the process `source`.
    pub fn is_of(&self, source: InstanceId) -> bool {
        self.identity
            .is_none_or(|identity| identity.instance() == source)
    }

    /// Checks every cap and makes the version printable.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.version = clean_text(&self.version, MAX_VERSION_CHARS);

        let tombstones = |tree: &TreeState| tree.tombstones.as_ref().map_or(0, Vec::len);
        let has_few = |tree: &TreeState| tombstones(tree) <= MAX_BEACON_TOMBSTONES;
        within(self.trees.iter().all(has_few), "too many tombstones")?;

        let echoes = self.echoes.as_ref().map_or(0, Vec::len);
        within(echoes <= MAX_ECHOES, "too many echoes")?;

        within(
            self.shown.as_ref().is_none_or(SerialProof::fits),
            "too long a header, order or signature",
        )?;

        let strangers = self.strangers.as_ref().map_or(0, Vec::len);
        within(
            self.trees.len() <= MAX_MESSAGE_TREES && strangers <= MAX_BEACON_STRANGERS,
            "too many trees or strangers",
        )
    }
}

/// Proof that a serial was accepted: the release of that serial, or the order that reverted it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SerialProof {
    /// Header and signature of the release.
    #[n(0)]
    pub release: Option<ReleaseBytes>,
    /// The order.
    #[n(1)]
    pub order: Option<SignedOrder>,
}

impl SerialProof {
    fn fits(&self) -> bool {
        self.release.as_ref().is_none_or(ReleaseBytes::fits)
            && self.order.as_ref().is_none_or(SignedOrder::fits)
    }
}

/// Request of a host for a missing release, or for the releases that have to precede it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pull {
    /// The tree.
    #[n(0)]
    pub tree: TreeName,
    /// The missing release.
    #[n(1)]
    pub release: ReleaseId,
    /// Current release of the host; 0 is none.
    #[n(2)]
    pub have: Serial,
    /// The full release that the host's current release builds on. `None` if there is none, or from
    /// hosts that do not report it.
    #[n(3)]
    pub base: Option<Serial>,
    /// The requesting host. `None` from hosts that do not report it.
    #[n(4)]
    pub host: Option<HostName>,
    /// Whether only the signed part is requested, see [`super::Message::Header`].
    #[n(5)]
    pub header: Option<bool>,
    /// Labels of the requesting host; `None` from hosts that do not report them.
    #[n(6)]
    pub labels: Option<Labels>,
}

/// Datagram of a given size.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Probe {
    /// Size of the whole datagram in bytes.
    #[n(0)]
    pub size: u16,
    /// Padding up to the size.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub padding: Vec<u8>,
}

/// State of one tree on a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TreeState {
    /// The tree.
    #[n(0)]
    pub tree: TreeName,
    /// Highest accepted serial; 0 is none.
    #[n(1)]
    pub serial: Serial,
    /// Current release.
    #[n(2)]
    pub release: Option<ReleaseId>,
    /// Serial of the current release: lower than the highest one after a rollback.
    #[n(3)]
    pub running: Option<Serial>,
    /// Creation time of the current release, by its sender's clock. Distinguishes two releases of
    /// one serial.
    #[n(4)]
    pub created: Option<WallTime>,
    /// The newest releases known to be taken back; `None` if the host cannot report them.
    #[n(5)]
    pub tombstones: Option<Vec<Tombstone>>,
    /// Whether the current release failed its last health check here: the host does not pass it on.
    #[n(6)]
    pub unhealthy: Option<bool>,
    /// The full release that the current one belongs to, if the current one governs only a part of
    /// the tree.
    #[n(9)]
    pub base: Option<Serial>,
}

impl TreeState {
    /// State of a tree without any release.
    pub fn nothing(tree: TreeName) -> Self {
        Self {
            tree,
            serial: Serial::default(),
            release: None,
            running: None,
            created: None,
            tombstones: None,
            unhealthy: None,
            base: None,
        }
    }
}
