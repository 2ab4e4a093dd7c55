//! The live hosts of a network, by their beacons.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::stranger::Stranger;
use crate::id::{HostName, Labels, Serial, TreeName};

/// The answers of a network's hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey<T> {
    /// What the hosts answered.
    pub found: T,
    /// Peers with another group key or none, by address.
    pub strangers: Vec<Stranger>,
    /// Set if no host answered at all.
    pub silence: Option<Silence>,
}

impl<T> Survey<T> {
    /// The same survey with another form of the answers.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Survey<U> {
        Survey {
            found: change(self.found),
            strangers: self.strangers,
            silence: self.silence,
        }
    }
}

/// Why no host may have answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Where nobody answered.
    pub error: String,
    /// What to look at.
    pub hint: String,
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
    /// Labels of the host.
    #[serde(default)]
    pub labels: Labels,
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
            labels: member.hello.labels().clone(),
            trees: trees.collect(),
        }
    }
}
