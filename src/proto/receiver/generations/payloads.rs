//! Memory of a session's payloads: buffers for reuse, and payloads pending on the disk.

/// Largest total size of open payloads and payloads pending on the disk.
///
/// More than a sender has in flight to a host with a working disk. Generations that start beyond
/// the limit count as lost and are repaired.
pub(super) const MAX_PAYLOAD_BYTES: u64 = 64 << 20;
/// Largest number of payload buffers kept for reuse.
const MAX_SPARE_BUFFERS: usize = 4;

/// Spare buffers and pending payloads.
#[derive(Debug, Default)]
pub(super) struct PayloadMemory {
    spare: Vec<Vec<u8>>,
    /// Total size of the payloads pending on the disk.
    delivered: u64,
}

impl PayloadMemory {
    /// Returns the total size of the payloads pending on the disk.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Allocated and pending bytes.
    pub(super) fn held(&self) -> usize {
        let spare: usize = self.spare.iter().map(Vec::capacity).sum();
        spare + self.delivered as usize
    }

    /// Returns true if a payload of `bytes` bytes fits beside `open` bytes of open payloads.
    pub(super) fn has_room(&self, open: u64, bytes: u32) -> bool {
        open + self.delivered + u64::from(bytes) <= MAX_PAYLOAD_BYTES
    }

    /// Counts a payload handed to the disk.
    pub(super) fn deliver(&mut self, payload: &[u8]) {
        self.delivered += payload.len() as u64;
    }

    /// Takes back a payload from the disk.
    pub(super) fn recycle(&mut self, payload: Vec<u8>) {
        self.delivered = self.delivered.saturating_sub(payload.len() as u64);
        self.keep(payload);
    }

    /// Drops all spare buffers but one while the disk has no payload either. A host with many trees
    /// has many sessions that wait, and each would keep its buffers.
    pub(super) fn trim(&mut self) {
        if self.delivered == 0 {
            self.spare.truncate(1);
        }
    }

    /// Keeps a buffer for reuse.
    pub(super) fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE_BUFFERS {
            self.spare.push(buffer);
        }
    }

    /// Returns a spare buffer, or an empty one if none is left; its content is arbitrary.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }
}
