//! Stopped nodes: their processes do nothing, and what happens to them waits.

use std::collections::BTreeMap;

use super::event::NetworkEvent;
use super::node::NodeId;

/// Receive buffer of a node, in bytes; what does not fit is lost.
const RECV_BUFFER: usize = 16 << 20;

/// Nodes that are stopped, with the events that wait for each.
#[derive(Debug, Default)]
pub(super) struct StoppedNodes(BTreeMap<NodeId, WaitingEvents>);

/// Events of one stopped node.
#[derive(Debug, Default)]
struct WaitingEvents {
    events: Vec<NetworkEvent>,
    /// Bytes of datagrams among them.
    bytes: usize,
}

impl StoppedNodes {
    /// Stops a node.
    pub(super) fn stop(&mut self, node: NodeId) {
        self.0.entry(node).or_default();
    }

    /// Lets a node go on, and returns what happened meanwhile.
    pub(super) fn go_on(&mut self, node: NodeId) -> Vec<NetworkEvent> {
        self.0.remove(&node).unwrap_or_default().events
    }

    /// Keeps what happens to stopped nodes, and returns the rest.
    pub(super) fn filter(&mut self, event: NetworkEvent) -> Option<NetworkEvent> {
        if self.0.is_empty() {
            return Some(event);
        }

        let node = match &event {
            NetworkEvent::Datagram { .. } => return self.filter_datagram(event),
            NetworkEvent::HostReply { host, .. } => NodeId::host(*host),
            NetworkEvent::SenderReply(_) | NetworkEvent::Prepared => NodeId::SENDER,
            NetworkEvent::Timer(node) | NetworkEvent::Room(node) => *node,
            _ => return Some(event),
        };

        match self.0.get_mut(&node) {
            Some(waiting) => {
                waiting.events.push(event);
                None
            }
            None => Some(event),
        }
    }

    fn filter_datagram(&mut self, event: NetworkEvent) -> Option<NetworkEvent> {
        let NetworkEvent::Datagram { to, from, bytes } = event else {
            return Some(event);
        };

        let (stopped, to): (Vec<NodeId>, _) =
            to.into_iter().partition(|node| self.0.contains_key(node));
        for node in stopped {
            let waiting = self.0.entry(node).or_default();
            if waiting.bytes + bytes.len() <= RECV_BUFFER {
                waiting.bytes += bytes.len();
                waiting.events.push(NetworkEvent::Datagram {
                    to: vec![node],
                    from,
                    bytes: bytes.clone(),
                });
            }
        }

        (!to.is_empty()).then_some(NetworkEvent::Datagram { to, from, bytes })
    }
}
