//! The measurements of a search.

use std::net::SocketAddr;

use crate::doctor::{HostFacts, NetworkFacts};
use crate::id::HostName;
use crate::outcome::{Silence, Stranger};

/// Measurements of a group.
#[derive(Debug)]
pub struct CheckupResult {
    /// The wanted hosts, by name.
    pub hosts: Vec<HostFacts>,
    /// Names of all hosts that were heard.
    pub heard: Vec<HostName>,
    /// Addresses of the only wanted host that were tried.
    pub tried: Vec<SocketAddr>,
    /// This machine's part of the network.
    pub network: NetworkFacts,
    /// Peers with another group key, or none.
    pub strangers: Vec<Stranger>,
    /// Set if no host was heard at all.
    pub silence: Option<Silence>,
}
