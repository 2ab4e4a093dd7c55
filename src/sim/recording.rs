//! Recordings of the datagrams on a network, for replay.

use std::sync::Arc;

use super::node::NodeId;

/// A datagram with its sender.
#[derive(Debug, Clone)]
pub(super) struct RecordedDatagram {
    pub(super) from: NodeId,
    pub(super) bytes: Arc<[u8]>,
}

/// Datagrams recorded on a network, in order.
#[derive(Debug, Clone, Default)]
pub struct Recording(Vec<RecordedDatagram>);

impl Recording {
    /// Appends a datagram.
    pub(super) fn push(&mut self, from: NodeId, bytes: Arc<[u8]>) {
        self.0.push(RecordedDatagram { from, bytes });
    }

    /// Returns all datagrams, in order.
    pub(super) fn datagrams(&self) -> &[RecordedDatagram] {
        &self.0
    }

    /// Returns the datagrams of one node, in order.
    pub fn of(&self, from: NodeId) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .iter()
            .filter(move |datagram| datagram.from == from)
            .map(|datagram| &datagram.bytes[..])
    }

    /// Appends another recording.
    pub fn and(mut self, other: &Recording) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }
}
