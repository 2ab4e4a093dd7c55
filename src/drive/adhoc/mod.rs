//! Ad hoc releases: parts of a running host's own trees, sent on request of a user.
//!
//! `service` keeps one session at a time for each tree, `request` is the wire form, `run` carries
//! it out, and `paths` expands paths.

mod paths;
mod request;
mod run;
mod service;

pub use request::{AdhocAction, AdhocRequest};
pub use run::run;
pub use service::{AdhocService, Dial, SENT, SendSettings, SendTree};
