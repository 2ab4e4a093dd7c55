//! Ad hoc releases: parts of a running host's own trees, sent on request of a user.
//!
//! `service` keeps one session at a time for each tree. `request` is the wire form, `plan` its
//! validation with the expanded `paths`. `run` carries a plan out: `prune` deletes extra paths, and
//! `merge` makes one release of many parts.

mod merge;
mod paths;
mod plan;
mod prune;
mod request;
mod run;
mod service;

pub use request::{AdhocAction, AdhocRequest};
pub use run::run;
pub use service::{AdhocService, Dial, SENT, SendSettings, SendTree};
