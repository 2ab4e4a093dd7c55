//! Limits of datagrams and trains.

/// Largest number of datagrams in one train. More is cheaper still, until a shaped link (tbf with
/// its usual 64 KB burst) has to split the train itself: measured at 44 segments of Ethernet size,
/// at 20 times the processor time, and erratic just below. Interleaved repair counts on 32 as well.
pub const MAX_SEGMENTS: usize = 32;
/// Largest train in bytes: the payload of an IP packet, with some room.
pub const MAX_SEND_BYTES: usize = 65_000;
/// Largest datagram in bytes: 65,535 less the IPv4 and UDP headers.
pub const MAX_DATAGRAM: usize = 65_507;
