//! Recordings of the datagrams on a network, for replay.

use std::sync::Arc;

/// Datagrams recorded on a network, with their senders.
#[derive(Debug, Clone, Default)]
pub struct Recording(pub(super) Vec<(usize, Arc<[u8]>)>);

impl Recording {
    /// Returns the datagrams of one node (0 is the sender), in order.
    pub fn of(&self, from: usize) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0
            .iter()
            .filter(move |(place, _)| *place == from)
            .map(|(_, bytes)| &bytes[..])
    }

    /// Appends another recording.
    pub fn and(mut self, other: &Recording) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }
}
