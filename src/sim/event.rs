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
    /// A timer of a node expires.
    Timer(NodeId),
    /// A host (from 1) crashes, or starts again.
    Power { host: usize, on: bool },
}

/// Future events, by time and then in the order of queueing.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    order: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    events: Vec<Option<NetworkEvent>>,
    free: Vec<usize>,
    queued: u64,
}

impl EventQueue {
    pub(super) fn push(&mut self, when: Moment, event: NetworkEvent) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.queued += 1;
        self.order.push(Reverse((when, self.queued, place)));
    }

    pub(super) fn next_at(&self) -> Option<Moment> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self) -> Option<NetworkEvent> {
        let Reverse((_, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.events[place].take()
    }
}
