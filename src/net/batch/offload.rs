//! The kernel's batching for sends: the modes, and the one that a link uses.

use std::sync::atomic::{AtomicU8, Ordering};

use super::limits::MAX_SEGMENTS;

/// Use of the kernel's batching for sends, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Offload {
    /// Trains: UDP GSO for sending, GRO for receiving.
    Full = 0,
    /// Many datagrams in a system call, each a packet of its own (sendmmsg).
    Batched = 1,
    /// A system call for each datagram.
    Single = 2,
}

impl Offload {
    /// The best mode of a kernel that takes `segments` in a train.
    pub(in crate::net) fn limited_to(self, segments: usize) -> Self {
        if segments < MAX_SEGMENTS {
            self.max(Offload::Batched)
        } else {
            self
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Offload::Full,
            1 => Offload::Batched,
            _ => Offload::Single,
        }
    }
}

/// Mode of a link: it gets worse when the kernel or the driver refuses a better one.
#[derive(Debug)]
pub(in crate::net) struct CurrentOffload(AtomicU8);

impl CurrentOffload {
    /// Starts with `offload`.
    pub(in crate::net) fn new(offload: Offload) -> Self {
        Self(AtomicU8::new(offload as u8))
    }

    /// The current mode.
    pub(in crate::net) fn get(&self) -> Offload {
        Offload::from_byte(self.0.load(Ordering::Relaxed))
    }

    /// Switches to `lesser`. Returns true for the first call with a worse mode than the current.
    pub(super) fn reduce_to(&self, lesser: Offload) -> bool {
        self.0.fetch_max(lesser as u8, Ordering::Relaxed) < lesser as u8
    }
}
