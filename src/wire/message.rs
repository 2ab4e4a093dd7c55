//! Control messages: CBOR with numbered positions, so that a later version can append fields.
//!
//! Messages come from anyone on the network. Decoding checks every count against a cap, and nothing
//! is believed without a signature.

use minicbor::{Decode, Encode};

pub use super::beacon::{
    Hello, MAX_BEACON_STRANGERS, MAX_BEACON_TOMBSTONES, MAX_ECHOES, Probe, Pull, SerialProof,
    TreeState,
};
pub use super::caps::{MAX_MESSAGE_TREES, MAX_TEXT};
pub use super::feedback::{
    MAX_NACKS, MAX_NEEDS, MAX_RANGES, Missing, Nack, Ranges, ReceiverReport, WantList,
};
pub use super::order::{
    HostSet, MAX_NAMED_HOSTS, MAX_ORDER, MAX_SIGNATURE_FIELD, Order, OrderKind, SignedOrder,
    Tombstone,
};
pub use super::session::{
    Announce, DRIFT_PARTS, DiffSummary, DriftPart, HostStage, MAX_DRIFT_PART, MAX_LISTED_REPORTERS,
    SenderStatus, StageReport, StatusPhase,
};

use super::caps::within;
use super::count::{CountRequest, CountedProbe, ProbeCounts};
use super::query::{Query, QueryAnswer, ReleaseBytes};
use super::relay::RelayTargets;
use crate::id::{HostName, Nonce, SessionId, TreeName};

/// Largest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 80 << 10;

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
    State(#[n(0)] StageReport),
    /// A host requests ordinals; repeated until acknowledged.
    #[n(5)]
    Want(#[n(0)] WantList),
    /// The sender acknowledges a host's message by number, and repeats the nonce of that message.
    #[n(6)]
    Ack(#[n(0)] SessionId, #[n(1)] u32, #[n(2)] Option<Nonce>),
    /// The sender's heartbeat.
    #[n(7)]
    Status(#[n(0)] SenderStatus),
    /// A host reports missing symbols.
    #[n(8)]
    Nack(#[n(0)] Nack),
    /// A host's measurements for the rate control.
    #[n(9)]
    Report(#[n(0)] ReceiverReport),
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
    Query(#[n(0)] Query),
    /// A host's answer to a query.
    #[n(15)]
    Answer(#[n(0)] QueryAnswer),
    /// A host without a release requests it from one that has it.
    #[n(16)]
    Pull(#[n(0)] Pull),
    /// The signed part of a release, in answer to a request.
    #[n(17)]
    Header(#[n(0)] ReleaseBytes),
    /// The sender tells a host whom to pass data on to.
    #[n(18)]
    Targets(#[n(0)] RelayTargets),
    /// A datagram that hosts count.
    #[n(19)]
    Counted(#[n(0)] CountedProbe),
    /// Asks for the counts of a train.
    #[n(20)]
    CountAsk(#[n(0)] CountRequest),
    /// A host's answer with its counts.
    #[n(21)]
    Counts(#[n(0)] ProbeCounts),
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
        match self {
            Message::Hello(hello) => hello.check(),
            Message::Announce(announce) => announce.check(),
            Message::State(state) => {
                state.clean();
                Ok(())
            }
            Message::Nack(nack) => nack.check(),
            Message::Status(status) => status.check(),
            Message::Order(order) => within(order.fits(), "too long an order or signature"),
            Message::Query(ask) => ask.check(),
            Message::Answer(tell) => tell.check(),
            Message::Header(release) => within(release.fits(), "too long a header or signature"),
            Message::DriftPart(part) => part.check(),
            Message::Targets(targets) => targets.check(),
            Message::CountAsk(ask) => ask.check(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Serial;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_come_back(cuts in prop::collection::btree_set(0..10_000u64, 0..80)) {
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let ranges = cuts.chunks_exact(2).map(|c| c[0]..c[1]);
            let ranges = Ranges(ranges.filter(|r| r.end > r.start).collect());
            let touching = ranges.0.windows(2).any(|w| w[0].end == w[1].start);
            prop_assume!(!touching);

            let want = Message::Want(WantList {
                session: SessionId(1),
                number: 2,
                ranges,
                more: false,
                seen: 3,
                fetch: Some(9),
            });
            prop_assert_eq!(Message::decode(&want.encode()), Ok(want));
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
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
        let state = Message::State(StageReport {
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
            targets: None,
            tags: None,
            keeps: None,
            held: None,
        });

        let Ok(Message::State(back)) = Message::decode(&state.encode()) else {
            panic!("decodes")
        };

        assert_eq!(back.text.as_deref(), Some("no \\u{1b}[31mway\nsecond"));
    }
}
