//! Questions to all hosts, without a session.
//!
//! `members` finds out which hosts are there, `ask` which releases they have, and `fleet` puts the
//! answers together.

mod ask;
mod fleet;
mod members;
mod probe;

pub use fleet::{KeptHeader, log, release, status};
pub use members::members;
