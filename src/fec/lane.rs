//! Lane: the unit of bytes in which every kernel works.

/// Bytes of a lane.
pub(super) const LANE_BYTES: usize = 64;

/// Unit of a kernel's work: destinations and sources are processed lane by lane.
pub(super) type Lane = [u8; LANE_BYTES];
