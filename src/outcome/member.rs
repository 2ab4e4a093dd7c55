//! The live hosts of a network, by their beacons.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::stranger::Stranger;
use crate::id::{HostName, Serial, TreeName};

/// The hosts of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Hosts that answered.
    pub members: Vec<MemberInfo>,
    /// Peers with another group key or none, by address.
    pub strangers: Vec<Stranger>,
}

/// A live host, by its own beacon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Name of the host.
    pub host: HostName,
    /// Address that the host sends from.
    pub address: SocketAddr,
    /// Version of makuo on the host.
    pub version: String,
    /// Trees that the host manages.
    pub trees: Vec<MemberTree>,
}

/// A tree that a member manages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberTree {
    /// Name of the tree.
    pub tree: TreeName,
    /// Current release, if the beacon names one.
    pub serial: Option<Serial>,
}

impl From<&crate::proto::members::Member> for MemberInfo {
    fn from(member: &crate::proto::members::Member) -> Self {
        let trees = member.hello.trees.iter().map(|t| MemberTree {
            tree: t.tree.clone(),
            serial: t.running,
        });
        Self {
            host: member.hello.name.clone(),
            address: member.address,
            version: member.hello.version.clone(),
            trees: trees.collect(),
        }
    }
}
