//! What a sender asks of its disk and its key, what they answer, and what it tells.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::hosts::{Host, OtherKey};
use crate::id::{Generation, HostName, Serial};
use crate::proto::RangeSet;
use crate::proto::effort::Demand;
use crate::units::Rate;
use crate::wire::message::{OrderKind, Shown};

/// What a sender asks of its disk and its key.
#[derive(Debug, Clone)]
pub enum Request {
    /// Pack a generation out of the first of these ordinals, see [`crate::proto::generation`]; compressed as hard as
    /// the demand allows.
    Pack(Generation, RangeSet, Demand),
    /// Sign the order.
    Sign(Arc<[u8]>),
}

/// What disk and key answer.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The ordinals that are in the payload, at least one; or why the source cannot be read.
    Packed(Result<(RangeSet, Arc<Vec<u8>>), String>),
    /// The order's bytes and signature.
    Signed(Result<(Arc<[u8]>, Vec<u8>), String>),
}

/// What a sender tells.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Discovery is over: the targets, and the highest serials that they say they accepted.
    Discovered {
        /// Hosts that have the tree and match the targets.
        targets: Vec<(HostName, SocketAddr)>,
        /// Hosts alive in all.
        members: usize,
        /// The highest serial of each target, with its address.
        claims: Vec<(IpAddr, Serial)>,
        /// What shows that such serials are true; nothing of it was verified.
        shown: Vec<Shown>,
        /// Hosts that would be targets and did not show that they are there now.
        unproven: Vec<(HostName, IpAddr)>,
        /// Expected names that did not answer.
        missing: Vec<HostName>,
    },
    /// Datagrams are smaller than this machine's interface takes, for the sake of one host.
    Narrow {
        /// The bytes of a datagram.
        datagram: usize,
        /// The host that larger ones did not reach.
        host: HostName,
    },
    /// A host moved on.
    Host(Host),
    /// A host was silent for too long, or has no part in the session.
    Lost(Host),
    /// A host shows another key than its name had before.
    OtherKey(OtherKey),
    /// A host receives far less than the others, this much: it is served after them.
    Slow(HostName, Rate),
    /// The decision.
    Decided(OrderKind, String),
    /// The session is over.
    Finished,
}
