//! Future events of the network, and the queue that orders them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::node::NodeId;
use crate::proto::{receiver, sender};
use crate::units::Moment;

/// A future event of the network.
#[derive(Debug)]
pub(super) enum NetworkEvent {
    /// A datagram arrives at nodes, in ascending order.
    Datagram {
        to: Vec<NodeId>,
        from: NodeId,
        bytes: Arc<[u8]>,
    },
    /// The disk of a host (from 1) answers.
    HostReply {
        host: usize,
        life: u32,
        reply: receiver::DiskReply,
    },
    /// The sender's disk answers.
    SenderReply(sender::SenderReply),
    /// The release is signed.
    Prepared,
    /// A datagram has left a node without multicast.
    Departed {
        to: NodeId,
        from: NodeId,
        bytes: Arc<[u8]>,
    },
    /// A timer of a node expires.
    Timer(NodeId),
    /// The uplink of a node may have room.
    Room(NodeId),
    /// A host (from 1) crashes, or starts again.
    Power { host: usize, on: bool },
    /// The process of a node stops, or goes on.
    Stop { node: NodeId, on: bool },
}

/// Future events, by time and then in the order of queueing.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    order: BinaryHeap<Reverse<QueuedEvent>>,
    events: Vec<Option<NetworkEvent>>,
    free: Vec<usize>,
    queued: u64,
}

/// Position of an event in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct QueuedEvent {
    at: Moment,
    /// Number of the event; earlier ones come first.
    number: u64,
    /// Position among the stored events.
    slot: usize,
}

impl EventQueue {
    pub(super) fn push(&mut self, when: Moment, event: NetworkEvent) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.queued += 1;
        self.order.push(Reverse(QueuedEvent {
            at: when,
            number: self.queued,
            slot,
        }));
    }

    pub(super) fn next_at(&self) -> Option<Moment> {
        self.order.peek().map(|Reverse(queued)| queued.at)
    }

    pub(super) fn pop(&mut self) -> Option<NetworkEvent> {
        let Reverse(QueuedEvent { slot, .. }) = self.order.pop()?;
        self.free.push(slot);
        self.events[slot].take()
    }
}
