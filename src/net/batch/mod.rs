//! Sending and receiving many datagrams in one system call.
//!
//! A **train** is several datagrams of equal size (the last may be shorter), one behind the other
//! in memory. With UDP GSO the kernel carries a train through its layers as one packet, and to a
//! receiver on the same machine or bridge even delivers one packet; with GRO a receiver reads a
//! whole train at once. Trains make gigabits cheap: ten to twenty times less processor time than a
//! call for each datagram. If a driver refuses (EIO, EINVAL), a link falls back to sendmmsg, and
//! from there to single sends, for the rest of its life and transparently to its callers.
//!
//! Datagrams are opaque here, and no memory is allocated for one.

mod offload;
mod recv;
mod send;
#[cfg(test)]
mod tests;

pub(super) use offload::CurrentOffload;
pub use offload::Offload;
pub use recv::{Channel, ReceivedDatagram, RecvBatch};
pub use send::{RETRY_AFTER_ENOBUFS, SendOutcome};

/// Largest number of datagrams in one train. More is cheaper still, until a shaped link (tbf with
/// its usual 64 KB burst) has to split the train itself: measured at 44 segments of Ethernet size,
/// at 20 times the processor time, and erratic just below. Interleaved repair counts on 32 as well.
pub const MAX_SEGMENTS: usize = 32;
/// Largest train in bytes: the payload of an IP packet, with some room.
pub const MAX_SEND_BYTES: usize = 65_000;
/// Largest datagram in bytes: 65,535 less the IPv4 and UDP headers.
pub const MAX_DATAGRAM: usize = 65_507;
