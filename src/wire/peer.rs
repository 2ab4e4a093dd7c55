//! Messages that find the processes of a network without multicast, and prove their addresses.
//!
//! A message is one datagram. A process answers a ping at once. The nonces of both messages depend
//! on the address that they are sent to, so an address that repeats one of them receives there.
//!
//! Where there is multicast, too, a process also sends pings to its group. Their nonces prove no
//! address; a process that repeats one of them hears the multicast of the process that sent it.

use std::net::SocketAddr;

use minicbor::{Decode, Encode};

use crate::id::{Nonce, SegmentId};

/// Largest number of addresses in one answer.
pub const MAX_LISTED_PEERS: usize = 40;

/// Message between two peers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PeerMessage {
    /// Asks a process to answer.
    #[n(0)]
    Ping(#[n(0)] Ping),
    /// Answers a ping.
    #[n(1)]
    Pong(#[n(0)] Pong),
    /// The process ends. Repeats the last nonce received from the process that is told.
    #[n(2)]
    Leave(#[n(0)] Nonce),
}

/// Request for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// Made for the address that the ping goes to; drawn for a ping to the group.
    #[n(0)]
    pub nonce: Nonce,
    /// Last nonce received from the process that the ping goes to.
    #[n(1)]
    pub echo: Option<Nonce>,
    /// Whether the process that sends the ping takes releases.
    #[n(2)]
    pub host: bool,
    /// Whether the answer should list other peers.
    #[n(3)]
    pub list: bool,
    /// Nonce of the last ping to the group that arrived from the process that the ping goes to.
    #[n(4)]
    pub heard: Option<Nonce>,
    /// Segment of the process that sends the ping.
    #[n(5)]
    pub segment: Option<SegmentId>,
    /// Of a ping to the group: milliseconds until the next one, about.
    #[n(6)]
    pub interval: Option<u32>,
}

/// Answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    /// Nonce of the ping.
    #[n(0)]
    pub echo: Nonce,
    /// Made for the address that the answer goes to.
    #[n(1)]
    pub nonce: Nonce,
    /// Whether the process that answers takes releases.
    #[n(2)]
    pub host: bool,
    /// Number of hosts known to the process that answers.
    #[n(3)]
    pub known: u32,
    /// Hosts known to it, at random; none for an address without proof.
    #[n(4)]
    pub peers: Vec<SocketAddr>,
    /// As in [`Ping`]; `None` for an address without proof.
    #[n(5)]
    pub heard: Option<Nonce>,
    /// Segment of the process that answers; `None` for an address without proof.
    #[n(6)]
    pub segment: Option<SegmentId>,
}

impl PeerMessage {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        crate::manifest::node::to_vec(self)
    }

    /// Decodes a message. `None` for any other bytes, or for more than [`MAX_LISTED_PEERS`]
    /// addresses.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = minicbor::decode(bytes).ok()?;
        match &message {
            Self::Pong(pong) if pong.peers.len() > MAX_LISTED_PEERS => None,
            _ => Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pong(peers: Vec<SocketAddr>) -> PeerMessage {
        PeerMessage::Pong(Pong {
            echo: Nonce(u64::MAX),
            nonce: Nonce(u64::MAX),
            host: true,
            known: u32::MAX,
            peers,
            heard: Some(Nonce(u64::MAX)),
            segment: Some(SegmentId(u64::MAX)),
        })
    }

    proptest! {
        #[test]
        fn messages_come_back(
            nonce: u64,
            echo: Option<u64>,
            host: bool,
            list: bool,
            heard: Option<u64>,
            segment: Option<u64>,
            interval: Option<u32>,
            peers in prop::collection::vec(any::<SocketAddr>(), 0..=MAX_LISTED_PEERS),
        ) {
            let ping = PeerMessage::Ping(Ping {
                nonce: Nonce(nonce),
                echo: echo.map(Nonce),
                host,
                list,
                heard: heard.map(Nonce),
                segment: segment.map(SegmentId),
                interval,
            });
            prop_assert_eq!(PeerMessage::decode(&ping.encode()), Some(ping));

            // Scopes and flow labels are of the machine that sent them.
            let peers = peers
                .into_iter()
                .map(|peer| SocketAddr::new(peer.ip(), peer.port()))
                .collect();
            let pong = pong(peers);
            prop_assert_eq!(PeerMessage::decode(&pong.encode()), Some(pong));
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = PeerMessage::decode(&bytes);
        }
    }

    /// Messages of makuo without segments.
    #[derive(Encode, Decode, Debug, PartialEq)]
    enum EarlierMessage {
        #[n(0)]
        Ping(#[n(0)] EarlierPing),
    }

    #[derive(Encode, Decode, Debug, PartialEq)]
    struct EarlierPing {
        #[n(0)]
        nonce: Nonce,
        #[n(1)]
        echo: Option<Nonce>,
        #[n(2)]
        host: bool,
        #[n(3)]
        list: bool,
    }

    #[test]
    fn earlier_messages_are_read_and_read_later_ones() {
        let (nonce, echo, host, list) = (Nonce(1), Some(Nonce(2)), true, false);
        let earlier = EarlierMessage::Ping(EarlierPing {
            nonce,
            echo,
            host,
            list,
        });
        let mut now = Ping {
            nonce,
            echo,
            host,
            list,
            heard: None,
            segment: None,
            interval: None,
        };

        let bytes = crate::manifest::node::to_vec(&earlier);
        assert_eq!(
            PeerMessage::decode(&bytes),
            Some(PeerMessage::Ping(now.clone()))
        );

        (now.heard, now.segment, now.interval) = (Some(Nonce(3)), Some(SegmentId(4)), Some(5));
        let bytes = PeerMessage::Ping(now).encode();
        assert_eq!(minicbor::decode(&bytes).ok(), Some(earlier));
    }

    #[test]
    fn the_largest_message_is_one_datagram_and_a_larger_one_is_refused() {
        let longest = SocketAddr::from(([u16::MAX; 8], u16::MAX));
        let most = pong(vec![longest; MAX_LISTED_PEERS]).encode();
        // A datagram of a message has 1,232 bytes, front and seal included.
        assert!(most.len() + 64 <= 1232, "{}", most.len());

        let more = pong(vec![longest; MAX_LISTED_PEERS + 1]).encode();
        assert_eq!(PeerMessage::decode(&more), None);
    }
}
