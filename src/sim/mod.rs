//! A deterministic network of many hosts: the real machines of [`crate::proto`] on a virtual clock, over links that
//! lose, delay, reorder and duplicate, with disks in memory that answer late and hosts that crash and come back.
//!
//! Everything follows from one seed: a failure prints it, and the same seed replays the same network, datagram by
//! datagram.

#[cfg(test)]
mod catchup_tests;
pub mod disk;
pub mod feedback;
#[cfg(test)]
mod forgery_tests;
pub mod goodput;
#[cfg(test)]
mod identity_tests;
pub mod link;
pub mod network;
#[cfg(test)]
mod partition_tests;
#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod switch_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod words_tests;

pub use link::Link;
pub use network::{Network, Setup};
