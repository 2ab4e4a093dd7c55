//! Questions to all hosts, without a session.
//!
//! `probe` asks in rounds, and `roll_call` tells whether all hosts have answered. `members` finds
//! the hosts, and `ask` collects `answers` about releases. From these, `releases`
//! lists the releases of the fleet and `standings` the state of each host.

mod answers;
mod ask;
mod members;
mod probe;
mod releases;
mod roll_call;
mod standings;
mod strangers;

pub use answers::HostAnswer;
pub use ask::{ask, order};
pub use members::members;
pub use releases::{KeptHeader, log, log_of, release};
pub use standings::{standings, status};
pub use strangers::merged_strangers;

#[cfg(test)]
mod tests;
