//! Messages of a session: the sender's offer and heartbeat, the state of hosts, drift reports.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::caps::{MAX_TEXT, clean_text, within};
use super::order::{MAX_SIGNATURE_FIELD, SignedOrder};
use crate::id::{Generation, HostName, InstanceId, Nonce, Serial, SessionId};
use crate::keys::{HOST_SIGNATURE_BYTES, Identity};

/// Largest accepted number of hosts in the list of regular reporters.
pub const MAX_LISTED_REPORTERS: usize = 64;
/// Parts in answer to one request for drift.
pub const DRIFT_PARTS: u64 = 32;
/// Largest part of a drift report in bytes.
pub const MAX_DRIFT_PART: usize = 1100;

/// Offer of a release. The header's signature covers the release; session and geometry are
/// unsigned.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Announce {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The sender's host.
    #[n(1)]
    pub sender: HostName,
    /// Exact bytes of the header.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// Signature of the header.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// Bytes of a symbol.
    #[n(4)]
    pub symbol: u16,
    /// Number of hosts known to the sender: hosts spread their feedback accordingly.
    #[n(5)]
    pub hosts: u32,
    /// Whether hosts read every file again instead of trusting their index.
    #[n(6)]
    pub checksum: bool,
    /// Whether hosts scan only the differences between their release and this one; `None` means a
    /// full scan.
    #[n(7)]
    pub quick: Option<bool>,
    /// The signed order that committed this release elsewhere. Hosts that missed it commit by this
    /// order; no other follows.
    #[n(8)]
    pub grant: Option<SignedOrder>,
    /// Whether hosts run their health checks even if nothing changes; `None` means no.
    #[n(9)]
    pub recheck: Option<bool>,
    /// For a release of a part of the tree that was committed elsewhere: the release that a host
    /// must have to take it.
    #[n(12)]
    pub follows: Option<Serial>,
    /// The only host that may take the release: another one may need an earlier part first.
    #[n(13)]
    pub only: Option<HostName>,
    /// Whether the sender repeats the nonces of hosts.
    #[n(14)]
    pub proves: Option<bool>,
    /// For a new release of a part of the tree: the oldest release that a host may have to take it.
    /// A host with an older one lacks an earlier part and catches up.
    #[n(15)]
    pub after: Option<Serial>,
    /// Whether only hosts that keep this release staged may take it: the sender has no content.
    #[n(16)]
    pub staged: Option<bool>,
}

impl Announce {
    pub(super) fn check(&self) -> Result<(), String> {
        within(
            self.signature.len() <= MAX_SIGNATURE_FIELD,
            "too long a signature",
        )?;
        within(
            self.grant.as_ref().is_none_or(SignedOrder::fits),
            "too long an order or signature",
        )?;
        within(
            (64..=65_000).contains(&self.symbol),
            "a symbol of an illegal size",
        )
    }
}

/// Progress of a host in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum HostStage {
    /// Received the announcement and checks it.
    #[n(0)]
    Joined,
    /// Fetches the manifest.
    #[n(1)]
    Fetching,
    /// Compares its tree with the release.
    #[n(2)]
    Diffing,
    /// Finished the comparison; fetches missing blocks.
    #[n(3)]
    Staging,
    /// Has everything, verified and durable.
    #[n(4)]
    Ready,
    /// Ran its commands before a commit on request; all agreed.
    #[n(5)]
    Prepared,
    /// Has the release; the commands after a commit and the health check are running.
    #[n(6)]
    Checking,
    /// Has the release, without a reported failure.
    #[n(7)]
    Committed,
    /// Has the release; a command after the commit or the health check failed, as the text
    /// explains.
    #[n(8)]
    Unhealthy,
    /// Had the release and took it back.
    #[n(9)]
    Reverted,
    /// Failed to take the release back: the host still has it.
    #[n(10)]
    Stuck,
    /// Does not take part, for the reason in the text. Nothing changed.
    #[n(11)]
    Refused,
    /// Kept its tree by order; nothing changed.
    #[n(12)]
    Aborted,
    /// Failed to switch to the release; nothing changed, or everything was undone.
    #[n(13)]
    Failed,
    /// Keeps the release staged by order, until a later session; nothing changed.
    #[n(14)]
    Staged,
}

impl HostStage {
    /// Returns whether a host in this stage found the release rightful and takes part.
    pub fn is_rightful(self) -> bool {
        !matches!(
            self,
            HostStage::Joined
                | HostStage::Refused
                | HostStage::Aborted
                | HostStage::Failed
                | HostStage::Staged
        )
    }

    /// Returns whether a host in this stage has the release.
    pub fn has_release(self) -> bool {
        matches!(
            self,
            HostStage::Checking | HostStage::Committed | HostStage::Unhealthy | HostStage::Stuck
        )
    }
}

/// State of a host in a session.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct StageReport {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Number of this message for the acknowledgement; 0 needs none.
    #[n(1)]
    pub number: u32,
    /// The host.
    #[n(2)]
    pub name: HostName,
    /// Stage of the host.
    #[n(3)]
    pub stage: HostStage,
    /// Reason for a refusal or failure, or for a wait.
    #[n(4)]
    pub text: Option<String>,
    /// Result of the comparison, from [`HostStage::Staging`] on.
    #[n(5)]
    pub summary: Option<DiffSummary>,
    /// Bytes of blocks received and verified.
    #[n(6)]
    pub received: u64,
    /// Highest serial accepted for the tree.
    #[n(7)]
    pub serial: Serial,
    /// Packets lost by the host's receive buffer since the session began, if any.
    #[n(8)]
    pub dropped: Option<u64>,
    /// With [`HostStage::Failed`]: whether the failed commit could not be undone, so that the tree
    /// is part new, part old.
    #[n(9)]
    pub torn: Option<bool>,
    /// Nonce for the sender to repeat in its acknowledgement, as proof of its presence.
    #[n(10)]
    pub nonce: Option<Nonce>,
    /// Identity of the process.
    #[n(11)]
    pub identity: Option<Identity>,
    /// The host's signature of [`StageReport::statement`], if [`StageReport::is_decisive`].
    #[n(12)]
    pub signature: Option<ByteArray<HOST_SIGNATURE_BYTES>>,
    /// Number of the list of hosts to which this host passes data on; see
    /// [`super::relay::RelayTargets`].
    #[n(13)]
    pub targets: Option<u32>,
    /// Whether the host reads lists of tags in place of [`super::relay::RelayTargets::group`] and
    /// the like.
    #[n(14)]
    pub tags: Option<bool>,
    /// Whether the host can keep a release staged after the session.
    #[n(15)]
    pub keeps: Option<bool>,
    /// With [`HostStage::Ready`]: why the host commits nothing now.
    #[n(16)]
    pub held: Option<String>,
}

impl StageReport {
    /// The bytes that the host signs: all fields that matter.
    pub fn statement(&self, instance: InstanceId) -> Vec<u8> {
        let who = (instance, self.session, &self.name);
        let what = (
            self.stage,
            &self.text,
            &self.summary,
            self.serial,
            self.torn,
        );
        crate::manifest::node::to_vec(&(who, what))
    }

    /// Returns whether the stage decides something in an audit or a deploy, so that only the host
    /// itself may report it.
    pub fn is_decisive(&self, audit: bool) -> bool {
        self.stage
            >= if audit {
                HostStage::Staging
            } else {
                HostStage::Ready
            }
    }

    /// Returns whether the host with process `instance` signed this state.
    pub fn is_signed(&self, instance: InstanceId) -> bool {
        let (Some(identity), Some(signature)) = (self.identity, &self.signature) else {
            return false;
        };
        identity.instance() == instance && identity.signed(&self.statement(instance), signature)
    }

    /// Makes the text printable.
    pub(super) fn clean(&mut self) {
        let clean = |text: &Option<String>| text.as_deref().map(|text| clean_text(text, MAX_TEXT));
        self.text = clean(&self.text);
        self.held = clean(&self.held);
    }
}

/// Result of a host's comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct DiffSummary {
    /// Paths to create or replace.
    #[n(0)]
    pub written: u64,
    /// Paths whose metadata alone changes.
    #[n(1)]
    pub touched: u64,
    /// Paths to delete.
    #[n(2)]
    pub deleted: u64,
    /// Paths beyond the release, which the host keeps.
    #[n(3)]
    pub extra: u64,
    /// Bytes to fetch.
    #[n(4)]
    pub fetch: u64,
    /// Identity of the list of differences (equal for hosts with the same drift); 0 is no drift.
    #[n(5)]
    pub drift: u64,
    /// Bytes of that list.
    #[n(6)]
    pub drift_bytes: u64,
    /// Whether the host runs a command before a commit, which may refuse.
    #[n(7)]
    pub votes: Option<bool>,
}

/// Phase of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum StatusPhase {
    /// Serves data.
    #[n(0)]
    Serving,
    /// Has decided; an order follows.
    #[n(1)]
    Ordering,
    /// Leaves after this message.
    #[n(2)]
    Closed,
}

/// The sender's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SenderStatus {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Phase of the sender.
    #[n(1)]
    pub phase: StatusPhase,
    /// All generations below this number were sent in full at least once.
    #[n(2)]
    pub sent: Generation,
    /// Hosts in the session: hosts spread their feedback accordingly.
    #[n(3)]
    pub hosts: u32,
    /// Counter of the last data datagram, so that hosts notice the loss of the last ones.
    #[n(4)]
    pub counter: u64,
    /// Pass over the hosts: at a new pass, hosts that were too slow in the last one request again.
    #[n(5)]
    pub pass: u32,
    /// Hosts that report regularly; empty if all do.
    #[n(6)]
    pub reporters: Vec<InstanceId>,
    /// Number of the choice of reporters, if only they get the list: without it, a host keeps its
    /// part in this choice, and has none in a later one.
    #[n(7)]
    pub choice: Option<u32>,
}

impl SenderStatus {
    pub(super) fn check(&self) -> Result<(), String> {
        within(
            self.reporters.len() <= MAX_LISTED_REPORTERS,
            "too many reporters",
        )
    }
}

/// Part of a drift report.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DriftPart {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Offset of the part.
    #[n(1)]
    pub offset: u64,
    /// Bytes of the part.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

impl DriftPart {
    pub(super) fn check(&self) -> Result<(), String> {
        within(self.bytes.len() <= MAX_DRIFT_PART, "too long a part")
    }
}
