//! Lines of the control socket, in both directions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::drive::adhoc::AdhocRequest;
use crate::id::TreeName;
use crate::outcome::{Event, Outcome};

/// Timeout for receiving a request and for a short answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Request of a command to the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum ControlRequest {
    /// Lists the other hosts.
    Members,
    /// Lists the trees that the host sends from.
    Trees,
    /// Lists the hosts that answer within some milliseconds, with the rights of the daemon.
    Roster { wait: u64 },
    /// Asks all hosts about a tree, or all trees, in the same way.
    Survey { tree: Option<TreeName>, wait: u64 },
    /// Sends or compares files.
    Files { wish: AdhocRequest },
    /// Holds a tree of this host, or all; without terms a hold ends.
    Hold {
        tree: Option<TreeName>,
        terms: Option<HoldRequest>,
    },
}

/// Terms of a hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldRequest {
    /// Length in seconds.
    pub seconds: u64,
    /// Name of the person or program that holds the tree.
    pub by: String,
    /// Reason.
    pub why: String,
}

/// Line of an answer to [`ControlRequest::Files`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ControlReply {
    Event(Event),
    Outcome(Box<Outcome>),
    Error {
        message: String,
        hint: Option<String>,
        kind: u8,
    },
}

/// Encodes a line.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    // Serialization cannot fail: every map key is a string.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
