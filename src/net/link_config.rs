//! The configuration of a link, and its defaults.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::Interface;
use super::batch::Offload;
use crate::{Error, Result};

/// Default receive buffer of a link in bytes: four times the most that a sender has in flight.
pub const DEFAULT_RECV_BUFFER: usize = 16 << 20;
/// Default send buffer: some milliseconds of a gigabit link, during which a sender on a busy
/// machine may not be scheduled.
const SEND_BUFFER: usize = 256 << 10;

/// Configuration of a link.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Interface to send and receive on.
    pub interface: Interface,
    /// Multicast group; determines IPv4 or IPv6.
    pub group: IpAddr,
    /// Whether to join the group. Otherwise the group only determines IPv4 or IPv6.
    pub multicast: bool,
    /// UDP port for datagrams to this process alone; 0 for one that the kernel chooses.
    pub unicast_port: u16,
    /// Ports to try before the kernel chooses one, so that a firewall can name them. Not used on
    /// loopback, which needs no firewall and where many groups may run beside each other.
    pub preferred_ports: Option<RangeInclusive<u16>>,
    /// UDP port of the group.
    pub port: u16,
    /// Routers that a multicast may cross, plus one: 1 stays on the link.
    pub ttl: u8,
    /// Receive buffer to request, in bytes, for each of the two sockets.
    pub recv_buffer: usize,
    /// Send buffer to request, in bytes; `None` leaves the kernel's default. A small buffer makes a
    /// full link block the sender: with 1 MB and more the local queue drops silently instead.
    pub send_buffer: Option<usize>,
    /// Use of the kernel's batching; anything but [`Offload::Full`] is for networks where that
    /// fails.
    pub offload: Offload,
    /// Whether the link receives its own multicasts.
    pub receive_own: bool,
}

impl LinkConfig {
    /// The defaults: port 5000, TTL 1, 16 MiB to receive, 256 KiB to send, all offloads.
    pub fn new(interface: Interface, group: IpAddr) -> Self {
        Self {
            interface,
            group,
            multicast: true,
            unicast_port: 0,
            preferred_ports: None,
            port: 5000,
            ttl: 1,
            recv_buffer: DEFAULT_RECV_BUFFER,
            send_buffer: Some(SEND_BUFFER),
            offload: Offload::Full,
            receive_own: false,
        }
    }

    /// Refuses a group that is none, and port 0.
    pub(super) fn check(&self) -> Result<()> {
        if self.multicast && !self.group.is_multicast() {
            return Err(
                Error::usage(format!("{} is not a multicast group", self.group)).hint(
                    "IPv4 groups are 224.0.0.0 to 239.255.255.255, IPv6 groups start with ff; \
             the default is 224.0.0.108",
                ),
            );
        }

        if self.port == 0 {
            return Err(Error::usage("the group's port cannot be 0").hint("the default is 5000"));
        }

        Ok(())
    }
}
