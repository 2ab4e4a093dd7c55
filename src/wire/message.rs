//! What hosts say to each other besides data: CBOR with numbered positions, so that a later version can append.
//!
//! A message comes from anyone on the network: decoding checks every count against a cap, and nothing here is believed
//! that a signature does not cover.

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

/// The most bytes of a message.
pub const MAX_MESSAGE_BYTES: usize = 80 << 10;
/// The most ranges of one message.
pub const MAX_RANGES: usize = 2048;
/// The most generations that one negative acknowledgement names.
pub const MAX_NACKS: usize = 64;
/// The most columns of a generation.
pub const MAX_NEEDS: usize = 32;
/// The most hosts that are asked to report regularly.
pub const MAX_REPORTERS: usize = 64;
/// The most strangers that one host tells of.
pub const MAX_STRANGERS: usize = 16;
/// The most nonces that one beacon repeats.
pub const MAX_ECHOES: usize = 16;
/// The most trees that one host tells of.
pub const MAX_TREES: usize = 256;
/// The most characters of a text for people.
pub const MAX_TEXT: usize = 4096;
/// The most tombstones of one tree that a beacon tells of: the newest.
pub const MAX_TOMBSTONES_TOLD: usize = 2;
/// Parts in answer to one question for drift.
pub const DRIFT_PARTS: u64 = 32;
/// The most bytes of one part of a drift report.
pub const MAX_DRIFT_PART: usize = 1100;

/// Everything that is said.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Message {
    /// "Who is there?" Answered by [`Message::Hello`] after a random delay. The answer repeats the nonce, and shows the
    /// highest serial that the host accepted for the tree.
    #[n(0)]
    Solicit(#[n(0)] Option<Nonce>, #[n(1)] Option<TreeName>),
    /// A host's beacon, or its answer to a solicit.
    #[n(1)]
    Hello(#[n(0)] Hello),
    /// A host's farewell.
    #[n(2)]
    Bye(#[n(0)] HostName),
    /// A sender offers a release.
    #[n(3)]
    Announce(#[n(0)] Announce),
    /// A host tells the sender where it stands; repeated until acknowledged.
    #[n(4)]
    State(#[n(0)] State),
    /// A host asks for ordinals; repeated until acknowledged.
    #[n(5)]
    Want(#[n(0)] Want),
    /// The sender has a host's message with this number, and repeats the nonce of that message.
    #[n(6)]
    Ack(#[n(0)] SessionId, #[n(1)] u32, #[n(2)] Option<Nonce>),
    /// The sender's heartbeat.
    #[n(7)]
    Status(#[n(0)] Status),
    /// A host misses symbols.
    #[n(8)]
    Nack(#[n(0)] Nack),
    /// A host's measurements for the rate.
    #[n(9)]
    Report(#[n(0)] Report),
    /// A signed order.
    #[n(10)]
    Order(#[n(0)] SignedOrder),
    /// The sender asks one host for a part of its drift report.
    #[n(11)]
    DriftAsk(#[n(0)] SessionId, #[n(1)] u64),
    /// The part.
    #[n(12)]
    DriftPart(#[n(0)] DriftPart),
    /// A datagram whose size is what matters: does it arrive?
    #[n(13)]
    Probe(#[n(0)] Probe),
    /// What do hosts have, whoever is interested?
    #[n(14)]
    Ask(#[n(0)] Ask),
    /// What a host has.
    #[n(15)]
    Tell(#[n(0)] Tell),
    /// A host that lacks a release asks one that has it.
    #[n(16)]
    Pull(#[n(0)] Pull),
    /// The signed part of a release, from a host that has it, for those that asked.
    #[n(17)]
    Header(#[n(0)] ReleaseBytes),
}

/// Who a host is and what it has.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Hello {
    /// Its name.
    #[n(0)]
    pub name: HostName,
    /// Its makuo's version.
    #[n(1)]
    pub version: String,
    /// Its trees.
    #[n(2)]
    pub trees: Vec<TreeState>,
    /// How many hosts it knows to be alive, itself included: tells a sender when it has heard all.
    #[n(3)]
    pub members: u32,
    /// In an answer to a solicit: the largest datagram that it has heard from who asked, in bytes. A host that does not
    /// say so is one that does not know.
    #[n(4)]
    pub heard: Option<u16>,
    /// Who was heard of late without the group key that this host has; none: nobody.
    #[n(5)]
    pub strangers: Option<Vec<IpAddr>>,
    /// Drawn for this beacon.
    #[n(6)]
    pub nonce: Option<Nonce>,
    /// In an answer, the nonce of the solicit; in a beacon, those of other beacons that were heard last.
    #[n(7)]
    pub echoes: Option<Vec<Nonce>>,
    /// In an answer to a solicit: the key that the host signs its words with, and the start of its process.
    #[n(8)]
    pub identity: Option<Identity>,
    /// In an answer to a solicit that names a tree.
    #[n(9)]
    pub shown: Option<Shown>,
}

impl Hello {
    /// Whether it was said after `nonce` was drawn.
    pub fn repeats(&self, nonce: Nonce) -> bool {
        self.echoes.iter().flatten().any(|echo| *echo == nonce)
    }

    /// Whether the identity that it shows, if any, is that of the process `source`.
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

/// What shows that a serial was accepted: the release of that serial, or the order by which it was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Shown {
    /// The header and the signature of the release.
    #[n(0)]
    pub release: Option<ReleaseBytes>,
    /// The order.
    #[n(1)]
    pub order: Option<SignedOrder>,
}

/// "I lack this release: offer it, or what has to come before it."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pull {
    /// The tree.
    #[n(0)]
    pub tree: TreeName,
    /// The release.
    #[n(1)]
    pub release: ReleaseId,
    /// The release that is here; 0 is none.
    #[n(2)]
    pub have: Serial,
    /// The release of the whole tree that it belongs to; none: there is none, or the host does not say.
    #[n(3)]
    pub base: Option<Serial>,
    /// The host that asks; none: it does not say.
    #[n(4)]
    pub host: Option<HostName>,
    /// Whether only the signed part is asked for, see [`Message::Header`].
    #[n(5)]
    pub header: Option<bool>,
}

/// A datagram of a certain size.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Probe {
    /// The bytes of the whole datagram.
    #[n(0)]
    pub size: u16,
    /// What fills it.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub padding: Vec<u8>,
}

/// What a host has of one tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TreeState {
    /// The tree.
    #[n(0)]
    pub tree: TreeName,
    /// The highest serial it accepted; 0 is none.
    #[n(1)]
    pub serial: Serial,
    /// The release it has.
    #[n(2)]
    pub release: Option<ReleaseId>,
    /// The serial of the release it has: lower than the highest after a release was taken back.
    #[n(3)]
    pub running: Option<Serial>,
    /// When the release that it has was made, by its sender's clock: tells two releases of one serial apart.
    #[n(4)]
    pub created: Option<WallTime>,
    /// The newest releases that were taken back, as far as this host knows; none: it cannot tell.
    #[n(5)]
    pub tombstones: Option<Vec<Tombstone>>,
    /// Whether the release that it has failed its last health check here: it is not passed on.
    #[n(6)]
    pub unhealthy: Option<bool>,
    /// The release of the whole tree that the one it has belongs to, when that is of a part.
    #[n(9)]
    pub base: Option<Serial>,
}

impl TreeState {
    /// What a host says of a tree that took no release yet.
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

/// An offer. The header's signature speaks for the release; session and geometry are the sender's word only.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Announce {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The sender's host.
    #[n(1)]
    pub sender: HostName,
    /// The header's exact bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// Its signature.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// Bytes of a symbol.
    #[n(4)]
    pub symbol: u16,
    /// How many hosts the sender knows: feedback is spread by it.
    #[n(5)]
    pub hosts: u32,
    /// Whether hosts read every file again instead of trusting their index.
    #[n(6)]
    pub checksum: bool,
    /// Whether hosts look only at what differs between their release and this one; none: at everything.
    #[n(7)]
    pub quick: Option<bool>,
    /// The order by which the release was committed where the sender has it from: whoever lacks it commits by it, and
    /// no other will come.
    #[n(8)]
    pub grant: Option<SignedOrder>,
    /// Whether hosts run their health checks also where nothing changes; none: they do not.
    #[n(9)]
    pub recheck: Option<bool>,
    /// Of a release that was committed elsewhere and governs a part of the tree: what a host has to run to take it.
    #[n(12)]
    pub follows: Option<Serial>,
    /// The only host that may take it: another one may need a part first that this one does not.
    #[n(13)]
    pub only: Option<HostName>,
    /// Whether the sender repeats the nonces of hosts.
    #[n(14)]
    pub proves: Option<bool>,
    /// Of a new release that governs a part of the tree: the oldest release that a host may have to take it. One that has
    /// an older one lacks a part before this one, and catches up.
    #[n(15)]
    pub after: Option<Serial>,
}

/// How far a host is in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum HostStage {
    /// Has heard the announcement and checks it.
    #[n(0)]
    Joined,
    /// Fetches the manifest.
    #[n(1)]
    Fetching,
    /// Compares.
    #[n(2)]
    Diffing,
    /// Has compared; fetches blocks when there is something to fetch.
    #[n(3)]
    Staging,
    /// Has everything, verified and durable.
    #[n(4)]
    Ready,
    /// Has been asked whether it may commit, and what it runs before a commit agreed.
    #[n(5)]
    Prepared,
    /// Has the release; what it runs after a commit and its health check are under way.
    #[n(6)]
    Checking,
    /// Has the release, and nothing says that it does not work.
    #[n(7)]
    Committed,
    /// Has the release; what it runs after a commit or its health check failed, the text says how.
    #[n(8)]
    Unhealthy,
    /// Had the release and took it back.
    #[n(9)]
    Reverted,
    /// Was to take the release back and cannot: it has it still.
    #[n(10)]
    Stuck,
    /// Will not take part; the text says why. Nothing changed.
    #[n(11)]
    Refused,
    /// Was told to keep what it had; nothing changed.
    #[n(12)]
    Aborted,
    /// Could not switch to the release; nothing changed, or all was taken back.
    #[n(13)]
    Failed,
}

impl HostStage {
    /// Whether a host in this stage has the release.
    pub fn has_release(self) -> bool {
        matches!(
            self,
            HostStage::Checking | HostStage::Committed | HostStage::Unhealthy | HostStage::Stuck
        )
    }
}

/// Where a host stands.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct State {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The number of this message, to acknowledge; 0 needs no acknowledgement.
    #[n(1)]
    pub number: u32,
    /// The host.
    #[n(2)]
    pub name: HostName,
    /// Its stage.
    #[n(3)]
    pub stage: HostStage,
    /// Why it refused or failed, or what it waits for.
    #[n(4)]
    pub text: Option<String>,
    /// What the comparison found, from [`HostStage::Staging`] on.
    #[n(5)]
    pub summary: Option<Summary>,
    /// Bytes of blocks that it has received and verified.
    #[n(6)]
    pub received: u64,
    /// The highest serial that it accepted for the tree.
    #[n(7)]
    pub serial: Serial,
    /// Packets that its receive buffer lost since the session began, when there were any.
    #[n(8)]
    pub dropped: Option<u64>,
    /// Whether a commit that failed could not be undone, with [`HostStage::Failed`]: the tree is part new, part old.
    #[n(9)]
    pub torn: Option<bool>,
    /// What the sender is to repeat in its acknowledgement, to show that it is there.
    #[n(10)]
    pub nonce: Option<Nonce>,
    /// Whose process this is.
    #[n(11)]
    pub identity: Option<Identity>,
    /// The host's signature of [`State::word`], where the stage is [`State::is_decisive`].
    #[n(12)]
    pub signature: Option<ByteArray<WORD_SIGNATURE>>,
}

impl State {
    /// The bytes that the host signs: all that counts of what it says.
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

    /// Whether the stage decides something, in an audit or a deploy: nobody but the host may say so.
    pub fn is_decisive(&self, audit: bool) -> bool {
        self.stage
            >= if audit {
                HostStage::Staging
            } else {
                HostStage::Ready
            }
    }

    /// Whether the host itself, whose process is `instance`, said so.
    pub fn is_signed(&self, instance: InstanceId) -> bool {
        let (Some(identity), Some(signature)) = (self.identity, &self.signature) else {
            return false;
        };
        identity.instance() == instance && identity.signed(&self.word(instance), signature)
    }
}

/// What a host's comparison found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Summary {
    /// Paths that it creates or replaces.
    #[n(0)]
    pub written: u64,
    /// Paths of which it changes only metadata.
    #[n(1)]
    pub touched: u64,
    /// Paths that it deletes.
    #[n(2)]
    pub deleted: u64,
    /// Paths that it has beyond the release and keeps.
    #[n(3)]
    pub extra: u64,
    /// Bytes that it has to fetch.
    #[n(4)]
    pub fetch: u64,
    /// The identity of its list of differences (hosts with the same drift have the same); 0 is no drift.
    #[n(5)]
    pub drift: u64,
    /// Bytes of that list.
    #[n(6)]
    pub drift_bytes: u64,
    /// Whether the host has something to run before it commits, which may say no.
    #[n(7)]
    pub votes: Option<bool>,
}

/// Ordinals that a host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Want {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The number of this message, to acknowledge.
    #[n(1)]
    pub number: u32,
    /// Sorted, disjoint.
    #[n(2)]
    pub ranges: Ranges,
    /// Whether more messages of the same list follow.
    #[n(3)]
    pub more: bool,
    /// The highest data counter seen when the host began to listen: what was sent after it is heard by it.
    #[n(4)]
    pub seen: u64,
    /// Bytes that the host has to fetch, by its comparison; none before that.
    #[n(5)]
    pub fetch: Option<u64>,
}

/// What the sender does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Serves.
    #[n(0)]
    Serving,
    /// Has decided; an order follows.
    #[n(1)]
    Ordering,
    /// Is gone after this.
    #[n(2)]
    Closed,
}

/// The sender's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// What it does.
    #[n(1)]
    pub phase: Phase,
    /// Generations sent in full at least once: all below this number.
    #[n(2)]
    pub sent: Generation,
    /// Hosts that take part: feedback is spread by it.
    #[n(3)]
    pub hosts: u32,
    /// The counter of the last data datagram, so that the loss of the last ones is noticed.
    #[n(4)]
    pub counter: u64,
    /// The pass over the hosts: in a new one, those that were too slow in the last ask again.
    #[n(5)]
    pub pass: u32,
    /// Who reports regularly; empty when all do.
    #[n(6)]
    pub reporters: Vec<InstanceId>,
}

/// What a host misses.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The highest data counter of the sender that the host has seen: what was sent after it may still be on its way.
    #[n(1)]
    pub seen: u64,
    /// Generation by generation.
    #[n(2)]
    pub missing: Vec<Missing>,
}

/// What a host misses of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Missing {
    /// The generation.
    #[n(0)]
    pub generation: Generation,
    /// How many symbols each column still needs, plain or coded; empty when nothing of the generation came.
    #[n(1)]
    pub need: Vec<u32>,
    /// Which they are (row * columns + column) when those are few; else empty.
    #[n(2)]
    pub symbols: Ranges,
}

/// Measurements of one host since the session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Report {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The highest data counter of the sender seen.
    #[n(1)]
    pub seen: u64,
    /// Datagrams of the sender received.
    #[n(2)]
    pub datagrams: u64,
    /// Bytes of data symbols received.
    #[n(3)]
    pub bytes: u64,
    /// Queueing delay on the way, in microseconds: arrival over the least seen.
    #[n(4)]
    pub delay: u32,
    /// Bytes received and not yet written.
    #[n(5)]
    pub backlog: u64,
    /// Bytes that may be under way to this host: a part of its receive buffer.
    #[n(6)]
    pub window: u32,
    /// When the last datagram came, in microseconds of any steady clock of the host.
    #[n(7)]
    pub at: u64,
}

/// A part of a drift report.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DriftPart {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Where the part begins.
    #[n(1)]
    pub offset: u64,
    /// Its bytes.
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
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        crate::manifest::node::to_vec(self)
    }

    /// The message that `bytes` are, every cap checked; what a person will read is made printable.
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

/// Text of a peer for a person: printable line by line, cut at `max` characters.
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
        // `Solicit` without anything, `Ack` without a nonce.
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
