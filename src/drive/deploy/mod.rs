//! A deploy, a dry run or an audit: the sender machine on a real network, with a real source and
//! key.
//!
//! `options` are a session's settings, `start` its entries and `session` its loop; `narrate` words
//! its progress and `results` its outcome. `worker` is the thread for reading the [`source`] and
//! signing. [`rollback`] finds an earlier release, `serials` choose the number of a new one, and
//! `known_hosts` keeps the keys of hosts between sessions.

mod known_hosts;
mod narrate;
mod options;
mod results;
pub mod rollback;
mod serials;
mod session;
pub mod source;
mod start;
mod worker;

pub use options::{DeployOptions, Granted, Interrupt, Prepare};
pub use start::{grant, put, rollback, run};
