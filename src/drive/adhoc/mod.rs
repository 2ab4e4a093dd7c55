//! Ad hoc releases: parts of a running host's own trees, sent on request of a user.
//!
//! `service` knows this host's trees and keys, and the `queue` lets one session at a time into each
//! tree. `request` is the wire form, `plan` the validation with the expanded `paths`. `run` carries
//! a plan out: `prune` deletes extra paths, and `merge` makes one release of many parts.

mod merge;
mod paths;
mod plan;
mod prune;
mod queue;
mod request;
mod run;
mod service;

pub use request::{AdhocAction, AdhocRequest};
pub use run::run;
pub use service::{AdhocService, Dial, SENT, SendSettings, SendTree};
