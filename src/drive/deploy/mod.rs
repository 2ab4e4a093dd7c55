//! A deploy, a dry run or an audit: the sender machine on a real network, with a real source and
//! key.
//!
//! `options` and the `origin` of the release are a session's settings, `start` is the entry and
//! `session` the loop. `driver` moves the sender machine, `worker` is the thread for reading the
//! [`source`] and signing, and `release` holds the facts of the release. `reporter` tells the
//! observer, `narrate` words the notes and `results` the outcome. [`rollback`] finds an earlier
//! release, `serials` choose the number of a new one, a `publisher` takes it at the end, and
//! `arrivals` wait for new hosts. `known_hosts` keeps the keys of hosts between sessions, like the
//! serials in a `cache_file`.

mod arrivals;
pub(super) mod cache_file;
mod driver;
mod known_hosts;
mod last_hosts;
mod narrate;
mod options;
mod origin;
mod progress;
mod publisher;
mod release;
mod reporter;
mod results;
pub mod rollback;
pub(super) mod serials;
mod session;
pub mod source;
mod start;
mod worker;

pub use last_hosts::remembered_hosts;
pub use options::{DeployOptions, Interrupt, ReleaseConditions, ReleaseKeys};
pub use origin::{Granted, Prepare, ReleaseOrigin};
pub use publisher::{CommittedRelease, Publisher};
pub use start::run;
