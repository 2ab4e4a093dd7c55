//! Control socket for commands on this host: one JSON request a line, answered by lines.
//!
//! A process that may connect can release parts of the host's trees with the host's own key: root,
//! the daemon's user, and the members of the configured group. The answer to `members` is one line;
//! `files` is answered by events as they happen, with the outcome or an error as the last line.

mod client;
mod message;
mod server;

pub use self::client::{
    is_reachable, query_members, query_roster, query_survey, query_trees, request_files,
    request_hold,
};
pub use self::message::HoldRequest;
pub use self::server::ControlSocket;
pub(super) use self::server::socket_group;
