//! Where the protocol meets network, disk and clock.

pub mod outcome;
