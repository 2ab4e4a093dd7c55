//! Control messages: CBOR with numbered positions, so that a later version can append fields.
//!
//! Messages come from anyone on the network. Decoding checks every count against a cap, and nothing
//! is believed without a signature.

use std::net::IpAddr;
use std::ops::Range;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

pub use super::order::{
    HostSet, MAX_NAMED, MAX_ORDER, MAX_SIGNATURE, Order, OrderKind, SignedOrder, Tombstone,
};
use super::query::{Ask, ReleaseBytes, Tell};
use crate::id::{Generation, HostName, InstanceId, Nonce, Serial, SessionId, TreeName};
use crate::keys::{Identity, WORD_SIGNATURE};
use crate::manifest::ReleaseId;
use crate::units::WallTime;

/// Largest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 80 << 10;
/// Largest number of ranges in one message.
pub const MAX_RANGES: usize = 2048;
/// Largest number of generations in one negative acknowledgement.
pub const MAX_NACKS: usize = 64;
/// Largest number of columns of a generation.
pub const MAX_NEEDS: usize = 32;
/// Largest accepted number of hosts in the list of regular reporters.
pub const MAX_REPORTERS: usize = 64;
/// Largest number of strangers in one beacon.
pub const MAX_STRANGERS: usize = 16;
/// Largest number of nonces that one beacon repeats.
pub const MAX_ECHOES: usize = 16;
/// Largest number of trees in one message.
pub const MAX_TREES: usize = 256;
/// Largest number of characters of a text for people.
pub const MAX_TEXT: usize = 4096;
/// Largest number of tombstones of one tree in a beacon: the newest.
pub const MAX_TOMBSTONES_TOLD: usize = 2;
/// Parts in answer to one request for drift.
pub const DRIFT_PARTS: u64 = 32;
/// Largest part of a drift report in bytes.
pub const MAX_DRIFT_PART: usize = 1100;

/// Control message.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Message {
    /// Asks all hosts to answer with [`Message::Hello`] after a random delay. The answer repeats
    /// the nonce, and shows the highest serial that the host accepted for the tree.
    #[n(0)]
    Solicit(#[n(0)] Option<Nonce>, #[n(1)] Option<TreeName>),
    /// A host's beacon, or its answer to a solicit.
    #[n(1)]
    Hello(#[n(0)] Hello),
    /// A host leaves.
    #[n(2)]
    Bye(#[n(0)] HostName),
    /// A sender offers a release.
    #[n(3)]
    Announce(#[n(0)] Announce),
    /// A host reports its state to the sender; repeated until acknowledged.
    #[n(4)]
    State(#[n(0)] State),
    /// A host requests ordinals; repeated until acknowledged.
    #[n(5)]
    Want(#[n(0)] Want),
    /// The sender acknowledges a host's message by number, and repeats the nonce of that message.
    #[n(6)]
    Ack(#[n(0)] SessionId, #[n(1)] u32, #[n(2)] Option<Nonce>),
    /// The sender's heartbeat.
    #[n(7)]
    Status(#[n(0)] Status),
    /// A host reports missing symbols.
    #[n(8)]
    Nack(#[n(0)] Nack),
    /// A host's measurements for the rate control.
    #[n(9)]
    Report(#[n(0)] Report),
    /// A signed order.
    #[n(10)]
    Order(#[n(0)] SignedOrder),
    /// The sender requests a part of one host's drift report.
    #[n(11)]
    DriftAsk(#[n(0)] SessionId, #[n(1)] u64),
    /// Part of a drift report.
    #[n(12)]
    DriftPart(#[n(0)] DriftPart),
    /// A datagram sent to find out which size arrives.
    #[n(13)]
    Probe(#[n(0)] Probe),
    /// Queries the contents of hosts.
    #[n(14)]
    Ask(#[n(0)] Ask),
    /// A host's answer to a query.
    #[n(15)]
    Tell(#[n(0)] Tell),
    /// A host without a release requests it from one that has it.
    #[n(16)]
    Pull(#[n(0)] Pull),
    /// The signed part of a release, in answer to a request.
    #[n(17)]
    Header(#[n(0)] ReleaseBytes),
}

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
    pub shown: Option<Shown>,
}

impl Hello {
    /// Returns whether the message was sent after `nonce` was drawn.
    pub fn repeats(&self, nonce: Nonce) -> bool {
        self.echoes.iter().flatten().any(|echo| *echo == nonce)
    }

    /// Returns whether the identity, if present, belongs to the process `source`.
    pub fn is_of(&self, source: InstanceId) -> bool {
        self.identity
            .is_none_or(|identity| identity.instance() == source)
    }
}

impl Shown {
    fn fits(&self) -> bool {
        self.release.as_ref().is_none_or(ReleaseBytes::fits)
            && self.order.as_ref().is_none_or(SignedOrder::fits)
    }
}

/// Proof that a serial was accepted: the release of that serial, or the order that reverted it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Shown {
    /// Header and signature of the release.
    #[n(0)]
    pub release: Option<ReleaseBytes>,
    /// The order.
    #[n(1)]
    pub order: Option<SignedOrder>,
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
    /// Whether only the signed part is requested, see [`Message::Header`].
    #[n(5)]
    pub header: Option<bool>,
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
        let (serial, release, running, created) = Default::default();
        Self {
            tree,
            serial,
            release,
            running,
            created,
            tombstones: None,
            unhealthy: None,
            base: None,
        }
    }
}

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
}

impl HostStage {
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
pub struct State {
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
    pub summary: Option<Summary>,
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
    /// The host's signature of [`State::word`], if [`State::is_decisive`].
    #[n(12)]
    pub signature: Option<ByteArray<WORD_SIGNATURE>>,
}

impl State {
    /// The bytes that the host signs: all fields that matter.
    pub fn word(&self, instance: InstanceId) -> Vec<u8> {
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

    /// Returns whether the stage decides something in an audit or a deploy, so that only the host itself
    /// may report it.
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
        identity.instance() == instance && identity.signed(&self.word(instance), signature)
    }
}

/// Result of a host's comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Summary {
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

/// Ordinals requested by a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Want {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Number of this message for the acknowledgement.
    #[n(1)]
    pub number: u32,
    /// Sorted, disjoint ranges.
    #[n(2)]
    pub ranges: Ranges,
    /// Whether more messages of the same list follow.
    #[n(3)]
    pub more: bool,
    /// Highest data counter when the host began to listen: the host receives everything sent after
    /// it.
    #[n(4)]
    pub seen: u64,
    /// Bytes to fetch according to the comparison; `None` before.
    #[n(5)]
    pub fetch: Option<u64>,
}

/// Phase of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
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
pub struct Status {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Phase of the sender.
    #[n(1)]
    pub phase: Phase,
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
}

/// Symbols missing at a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Highest data counter received from the sender: later datagrams may still be in flight.
    #[n(1)]
    pub seen: u64,
    /// One element for each generation.
    #[n(2)]
    pub missing: Vec<Missing>,
}

/// Symbols of one generation missing at a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Missing {
    /// The generation.
    #[n(0)]
    pub generation: Generation,
    /// Symbols that each column still needs, plain or coded; empty if nothing of the generation
    /// arrived.
    #[n(1)]
    pub need: Vec<u32>,
    /// Missing symbols (row * columns + column) if they are few; else empty.
    #[n(2)]
    pub symbols: Ranges,
}

/// Measurements of one host since the session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Report {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Highest data counter received from the sender.
    #[n(1)]
    pub seen: u64,
    /// Datagrams received from the sender.
    #[n(2)]
    pub datagrams: u64,
    /// Bytes of data symbols received.
    #[n(3)]
    pub bytes: u64,
    /// Queueing delay in the network, in microseconds: arrival time above the smallest seen.
    #[n(4)]
    pub delay: u32,
    /// Bytes received and not yet written.
    #[n(5)]
    pub backlog: u64,
    /// Bytes that may be in flight to this host: a part of its receive buffer.
    #[n(6)]
    pub window: u32,
    /// Arrival of the last datagram, in microseconds of any steady clock of the host.
    #[n(7)]
    pub at: u64,
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

/// Sorted, disjoint ranges; encoded as gaps and lengths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(pub Vec<Range<u64>>);

impl<C> Encode<C> for Ranges {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.0.len() as u64 * 2)?;
        let mut at = 0;
        for range in &self.0 {
            e.u64(range.start - at)?.u64(range.end - range.start)?;
            at = range.end;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Ranges {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let refuse = |why| minicbor::decode::Error::message(why);
        let numbers = d
            .array()?
            .ok_or_else(|| refuse("ranges of unknown length"))?;
        if numbers % 2 != 0 || numbers > 2 * MAX_RANGES as u64 {
            return Err(refuse("too many ranges"));
        }

        let mut ranges = Vec::with_capacity((numbers / 2) as usize);
        let mut at = 0u64;
        for _ in 0..numbers / 2 {
            let start = at
                .checked_add(d.u64()?)
                .ok_or_else(|| refuse("a range overflows"))?;
            let end = start
                .checked_add(d.u64()?)
                .ok_or_else(|| refuse("a range overflows"))?;
            if start == end || (at == start && at != 0) {
                return Err(refuse("ranges that are empty or touch"));
            }
            ranges.push(start..end);
            at = end;
        }

        Ok(Ranges(ranges))
    }
}

impl Message {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        crate::manifest::node::to_vec(self)
    }

    /// Decodes a message, checking every cap and making all text for people printable.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(format!("a message of {} bytes", bytes.len()));
        }
        let mut message: Message = minicbor::decode(bytes).map_err(|e| e.to_string())?;
        message.check()?;
        Ok(message)
    }

    fn check(&mut self) -> Result<(), String> {
        let within = |ok: bool, what: &str| if ok { Ok(()) } else { Err(what.to_string()) };
        match self {
            Message::Hello(hello) => {
                hello.version = clean(&hello.version, 64);
                let strangers = hello.strangers.as_ref().map_or(0, Vec::len);
                let told = |t: &TreeState| {
                    t.tombstones.as_ref().map_or(0, Vec::len) <= MAX_TOMBSTONES_TOLD
                };
                within(hello.trees.iter().all(told), "too many tombstones")?;
                within(
                    hello.echoes.as_ref().map_or(0, Vec::len) <= MAX_ECHOES,
                    "too many echoes",
                )?;
                within(
                    hello.shown.as_ref().is_none_or(Shown::fits),
                    "too long a header, order or signature",
                )?;
                within(
                    hello.trees.len() <= MAX_TREES && strangers <= MAX_STRANGERS,
                    "too many trees or strangers",
                )
            }
            Message::Announce(a) => {
                within(a.signature.len() <= MAX_SIGNATURE, "too long a signature")?;
                within(
                    a.grant.as_ref().is_none_or(SignedOrder::fits),
                    "too long an order or signature",
                )?;
                within(
                    (64..=65_000).contains(&a.symbol),
                    "a symbol of an illegal size",
                )
            }
            Message::State(state) => {
                state.text = state.text.as_deref().map(|t| clean(t, MAX_TEXT));
                Ok(())
            }
            Message::Nack(nack) => {
                within(nack.missing.len() <= MAX_NACKS, "too many generations")?;
                within(
                    nack.missing.iter().all(|m| m.need.len() <= MAX_NEEDS),
                    "too many columns",
                )
            }
            Message::Status(status) => within(
                status.reporters.len() <= MAX_REPORTERS,
                "too many reporters",
            ),
            Message::Order(order) => within(order.fits(), "too long an order or signature"),
            Message::Tell(tell) => tell.check(),
            Message::Header(told) => within(told.fits(), "too long a header or signature"),
            Message::DriftPart(part) => {
                within(part.bytes.len() <= MAX_DRIFT_PART, "too long a part")
            }
            _ => Ok(()),
        }
    }
}

/// Cleans a peer's text for display: printable line by line, truncated to `max` characters.
pub(super) fn clean(text: &str, max: usize) -> String {
    let short: String = text.chars().take(max).collect();
    short
        .lines()
        .map(|l| crate::units::printable(l.as_bytes()))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_come_back(cuts in prop::collection::btree_set(0..10_000u64, 0..80)) {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let ranges = Ranges(cuts.chunks_exact(2).map(|c| c[0]..c[1]).filter(|r| r.end > r.start).collect());
            let touching = ranges.0.windows(2).any(|w| w[0].end == w[1].start);
            prop_assume!(!touching);
            let want = Message::Want(Want { session: SessionId(1), number: 2, ranges, more: false, seen: 3, fetch: Some(9) });
            prop_assert_eq!(Message::decode(&want.encode()), Ok(want));
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn words_of_before_are_understood_and_ours_are_by_them() {
        // `Solicit` without fields, `Ack` without a nonce.
        assert_eq!(
            Message::decode(&[0x82, 0x00, 0x80]),
            Ok(Message::Solicit(None, None))
        );

        assert_eq!(
            Message::decode(&[0x82, 0x06, 0x82, 0x01, 0x02]),
            Ok(Message::Ack(SessionId(1), 2, None))
        );
        let asked = Message::Solicit(Some(Nonce(7)), Some(TreeName::new("www").expect("legal")));
        assert_eq!(Message::decode(&asked.encode()), Ok(asked.clone()));

        #[derive(Debug, PartialEq, Decode)]
        enum Before {
            #[n(0)]
            Solicit,
            #[n(6)]
            Ack(#[n(0)] SessionId, #[n(1)] u32),
        }

        assert_eq!(
            minicbor::decode::<Before>(&asked.encode()).ok(),
            Some(Before::Solicit)
        );
        let heard = Message::Ack(SessionId(1), 2, Some(Nonce(9))).encode();

        assert_eq!(
            minicbor::decode::<Before>(&heard).ok(),
            Some(Before::Ack(SessionId(1), 2))
        );
    }

    #[test]
    fn what_a_peer_says_cannot_drive_a_terminal() {
        let state = Message::State(State {
            session: SessionId(1),
            number: 1,
            name: HostName::new("web1").expect("legal"),
            stage: HostStage::Refused,
            text: Some("no \x1b[31mway\nsecond".into()),
            summary: None,
            received: 0,
            serial: Serial(0),
            dropped: None,
            torn: None,
            identity: None,
            signature: None,
            nonce: None,
        });

        let Ok(Message::State(back)) = Message::decode(&state.encode()) else {
            panic!("decodes")
        };

        assert_eq!(back.text.as_deref(), Some("no \\u{1b}[31mway\nsecond"));
    }
}
