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

mod limits;
mod offload;
mod recv;
mod send;
#[cfg(test)]
mod tests;

pub use limits::{MAX_DATAGRAM, MAX_SEGMENTS, MAX_SEND_BYTES};
pub(super) use offload::CurrentOffload;
pub use offload::Offload;
pub use recv::{Channel, ReceivedDatagram, RecvBatch};
pub use send::{RETRY_AFTER_ENOBUFS, SendOutcome};
