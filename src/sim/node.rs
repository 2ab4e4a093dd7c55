//! Nodes of the network, with their names and addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::id::HostName;

/// Address of the sender; hosts follow.
const FIRST_ADDRESS: u32 = 0x0a4d_0000;

/// Node of the network: the sender, or a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// The sender.
    pub const SENDER: NodeId = NodeId(0);

    /// Host `number`, from 1.
    pub fn host(number: usize) -> Self {
        Self(number as u32)
    }

    /// Number of a host, from 1; `None` for the sender.
    pub fn host_number(self) -> Option<usize> {
        (self != Self::SENDER).then_some(self.0 as usize)
    }

    /// Returns true for the sender.
    pub fn is_sender(self) -> bool {
        self == Self::SENDER
    }

    /// Returns the sender and `hosts` hosts, in order.
    pub(super) fn all(hosts: usize) -> impl Iterator<Item = NodeId> {
        (0..=hosts as u32).map(NodeId)
    }

    /// Position in a list of all nodes.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// Name of the node.
    pub(super) fn name(self) -> HostName {
        HostName::new(&format!("mk{}", self.0)).expect("legal")
    }

    /// Address of the node.
    pub(super) fn address(self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(FIRST_ADDRESS + self.0)), 5000)
    }

    /// Returns the node at an address.
    pub(super) fn at(address: SocketAddr) -> Option<Self> {
        match address.ip() {
            IpAddr::V4(ip) => u32::from(ip).checked_sub(FIRST_ADDRESS).map(NodeId),
            IpAddr::V6(_) => None,
        }
    }
}
