//! Effects of a sender: requests to its disk and key, their replies, and notices to the caller; and
//! the queues that hold its outputs.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::hosts::{Host, OtherKey};
use crate::id::{Generation, HostName, Labels, Serial};
use crate::proto::RangeSet;
use crate::proto::compression::Demand;
use crate::proto::control::Control;
use crate::units::Rate;
use crate::wire::message::{OrderKind, SerialProof};

/// Request to the disk or the key.
#[derive(Debug, Clone)]
pub enum SenderRequest {
    /// Pack a generation from the first of these ordinals, see [`crate::proto::generation`], at a
    /// compression level for the demand.
    Pack(Generation, RangeSet, Demand),
    /// Sign the order.
    Sign(Arc<[u8]>),
}

/// Reply of disk or key.
#[derive(Debug, Clone)]
pub enum SenderReply {
    /// A payload, or the reason why the source is unreadable.
    Packed(Result<PackedPayload, String>),
    /// A signed order, or the reason of a failure.
    Signed(Result<OrderSignature, String>),
}

/// Payload of a generation.
#[derive(Debug, Clone)]
pub struct PackedPayload {
    /// Ordinals in the payload, at least one.
    pub ordinals: RangeSet,
    /// Bytes of the payload.
    pub payload: Arc<Vec<u8>>,
}

/// An order with its signature.
#[derive(Debug, Clone)]
pub struct OrderSignature {
    /// Bytes of the order.
    pub order: Arc<[u8]>,
    /// Their signature.
    pub signature: Vec<u8>,
}

/// Notice to the caller.
#[derive(Debug, Clone)]
pub enum SenderNotice {
    /// End of discovery: the targets, and the highest serials that they claim to have accepted.
    Discovered {
        /// Hosts that have the tree and match the targets.
        targets: Vec<(HostName, SocketAddr)>,
        /// All live hosts with their labels, targets or not.
        members: Vec<(HostName, Labels)>,
        /// Highest serial of each target, with the host's address.
        claims: Vec<(IpAddr, Serial)>,
        /// Proofs of such serials, all unverified.
        shown: Vec<SerialProof>,
        /// Possible targets without proof of being alive.
        unproven: Vec<(HostName, IpAddr)>,
        /// Expected names without an answer.
        missing: Vec<HostName>,
    },
    /// Datagrams are smaller than this machine's interface allows, for the sake of one host.
    Narrow {
        /// Bytes of a datagram.
        datagram: usize,
        /// The host out of reach of larger datagrams.
        host: HostName,
    },
    /// A host changed its stage.
    Host(Host),
    /// A host was silent for too long, or was excluded from the session.
    Lost(Host),
    /// A host shows another key than its name had before.
    OtherKey(OtherKey),
    /// A host receives far less than the others, at this rate, and is served after them.
    Slow(HostName, Rate),
    /// The decision and its reason.
    Decided(OrderKind, String),
    /// End of the session.
    Finished,
}

/// Outputs of a sender until the caller takes them.
#[derive(Debug)]
pub struct SenderOutputs {
    /// Messages.
    pub control: Control,
    requests: VecDeque<SenderRequest>,
    notices: VecDeque<SenderNotice>,
}

impl SenderOutputs {
    /// Creates empty outputs with this queue of messages.
    pub fn new(control: Control) -> Self {
        Self {
            control,
            requests: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// Queues a request.
    pub fn request(&mut self, request: SenderRequest) {
        self.requests.push_back(request);
    }

    /// Queues a notice.
    pub fn notify(&mut self, notice: SenderNotice) {
        self.notices.push_back(notice);
    }

    /// Queues a notice of each lost host.
    pub fn notify_lost(&mut self, hosts: impl IntoIterator<Item = Host>) {
        self.notices
            .extend(hosts.into_iter().map(SenderNotice::Lost));
    }

    /// Returns the next request.
    pub fn poll_request(&mut self) -> Option<SenderRequest> {
        self.requests.pop_front()
    }

    /// Returns the next notice.
    pub fn poll_notice(&mut self) -> Option<SenderNotice> {
        self.notices.pop_front()
    }
}
