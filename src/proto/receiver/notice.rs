//! Events that a host reports to its owner.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::disk::ReasonText;
use crate::id::{Serial, TreeName};
use crate::wire::HostStage;

/// Event reported to the owner of a [`Receiver`](super::Receiver).
#[derive(Debug, Clone, PartialEq)]
pub enum HostNotice {
    /// A session changed its stage.
    Stage {
        /// The tree.
        tree: TreeName,
        /// The release's serial.
        serial: Serial,
        /// The sender's address.
        sender: SocketAddr,
        /// The new stage.
        stage: HostStage,
        /// Reason of a refusal or failure.
        text: Option<String>,
        /// True once the release is verified; before, every field is an unauthenticated claim.
        proven: bool,
        /// True for the refusal of a session that is for other hosts.
        for_others: bool,
    },
    /// A session is over.
    Over {
        /// Its last stage.
        stage: HostStage,
        /// True if it only compared.
        is_audit: bool,
        /// Time from the announcement to the last stage.
        lasted: Duration,
    },
    /// Data did not match the release: one of the sources is broken or forges. The host requests
    /// the data again.
    Damaged {
        /// The tree.
        tree: TreeName,
        /// The release's serial.
        serial: Serial,
        /// Claimed source addresses of the data.
        sources: Vec<IpAddr>,
    },
    /// This host lacks a release and requests it from a member.
    Pulls {
        /// The tree.
        tree: TreeName,
        /// Address of the requested member.
        from: SocketAddr,
    },
    /// A datagram had an unsupported protocol version.
    Version(u8, SocketAddr),
    /// An unauthenticated offer is not a legal release, with the reason.
    Illegal(SocketAddr, ReasonText),
}
