//! A deterministic network of many hosts: the real state machines of [`crate::proto`] on a virtual
//! clock. Links lose, delay, reorder and duplicate; disks in memory answer late; hosts crash and
//! restart.
//!
//! Everything follows from one seed. A failure prints the seed, which replays the same network,
//! datagram by datagram.

pub mod blocks;
#[cfg(test)]
mod catchup_tests;
mod crowd;
pub mod disk;
mod event;
pub mod feedback;
#[cfg(test)]
mod forgery_tests;
pub mod goodput;
mod host;
#[cfg(test)]
mod identity_tests;
pub mod link;
pub mod log;
pub mod network;
pub mod node;
pub mod offer;
mod open_session;
#[cfg(test)]
mod partition_tests;
#[cfg(test)]
mod promote_tests;
pub mod recording;
#[cfg(test)]
mod replay_tests;
mod sender;
pub mod sent_messages;
pub mod setup;
#[cfg(test)]
mod staged_tests;
mod stopped;
#[cfg(test)]
mod switch_tests;
#[cfg(test)]
mod tests;
pub mod unicast;
pub mod unicast_cost;
mod wires;
#[cfg(test)]
mod words_tests;

pub use link::LinkSetup;
pub use network::Network;
pub use node::NodeId;
pub use setup::NetworkSetup;
