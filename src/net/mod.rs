//! The network of this machine: interfaces, multicast sockets, batches of datagrams, waiting.
//!
//! A [`Link`] is two sockets on one [`Interface`]: one receives the group's datagrams; the other
//! sends to the group and to single hosts, and receives datagrams for this process alone. Datagrams
//! are opaque bytes here: their content, authorization, timing and rate belong to [`crate::wire`],
//! [`crate::proto`] and [`crate::drive`].
//!
//! Threads use this room with blocking waits ([`Poller`]); an executor on the receive path costs a
//! quarter more processor time. Linux only: UDP GSO and GRO carry the data (see [`MAX_SEGMENTS`]),
//! and a machine without them behaves the same with more system calls.

mod batch;
mod changes;
mod explain;
mod interface;
mod kernel;
mod link;
mod link_config;
mod links;
pub mod peer_lookup;
mod poll;
mod querier;
mod socket;
mod sys;
mod unicast;

pub use batch::{
    Channel, MAX_DATAGRAM, MAX_SEGMENTS, MAX_SEND_BYTES, Offload, RETRY_AFTER_ENOBUFS,
    ReceivedDatagram, RecvBatch, SendOutcome,
};
pub use changes::InterfaceChanges;
pub use interface::{Interface, LinkUse, choose, list};
pub use kernel::{
    filters_return_path, is_wireless, memberships, recv_buffer_limit, send_buffer_limit,
};
pub use link::Link;
pub use link_config::{DEFAULT_RECV_BUFFER, LinkConfig};
pub use links::LinkSet;
pub use poll::{Interest, Poller, Readiness, Waker, sharpen_timers};
pub use querier::wait_for_querier;
pub use socket::is_port_taken;
pub use unicast::{UnicastInterface, choose_unicast};

use std::fmt;
use std::net::IpAddr;

/// IP version of a link, determined by the group's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Family of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Bytes of the IP and UDP headers of every packet (without options, which makuo never sends).
    fn header_bytes(self) -> usize {
        match self {
            Family::V4 => 20 + 8,
            Family::V6 => 40 + 8,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Largest UDP payload, in bytes, of one packet on an interface with this MTU; never more than
/// [`MAX_DATAGRAM`]. The overhead of sealing is part of this size.
pub fn max_segment(mtu: u32, family: Family) -> usize {
    usize::try_from(mtu)
        .unwrap_or(usize::MAX)
        .saturating_sub(family.header_bytes())
        .min(MAX_DATAGRAM)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Links on the loopback interface and invented interfaces, for the tests of this room and of
    //! those below.

    use std::net::IpAddr;
    use std::time::Duration;

    use super::interface::with_preferred_addresses;
    use super::*;

    /// Timeout of a test for a datagram that is certain to arrive.
    const TEST_TIMEOUT: Duration = Duration::from_secs(10);

    /// An interface that is up.
    pub(crate) fn interface(name: &str, index: u32, addresses: &[&str]) -> Interface {
        with_preferred_addresses(Interface {
            name: name.into(),
            index,
            v4: None,
            v6: None,
            mtu: 1500,
            loopback: name == "lo",
            up: true,
            multicast: name != "lo",
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        })
    }

    /// A UDP port currently unused on this machine.
    pub(crate) fn free_port() -> u16 {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap().port()
    }

    /// A link on loopback. `None`, with the reason printed, on machines without multicast on
    /// loopback. An IPv6 link can be opened there, but receives unicast only.
    pub(crate) fn loopback(group: &str, port: u16, offload: Offload) -> Option<Link> {
        let Some(interface) = list().unwrap().into_iter().find(|i| i.loopback && i.up) else {
            crate::skip::skipped("no loopback interface here");
            return None;
        };

        let group: IpAddr = group.parse().unwrap();
        let opened = Link::open(&LinkConfig {
            port,
            offload,
            ..LinkConfig::new(interface, group)
        });
        opened
            .inspect_err(|e| crate::skip::skipped(format!("no multicast on loopback here: {e}")))
            .ok()
    }

    /// Reads from `channel` until `count` datagrams have arrived; panics on a timeout.
    pub(crate) fn collect(link: &Link, channel: Channel, count: usize) -> Vec<Vec<u8>> {
        let poller = Poller::new().unwrap();
        let mut batch = RecvBatch::new();
        let mut got = Vec::new();
        while got.len() < count {
            if link
                .recv(channel, &mut batch, |d| got.push(d.bytes.to_vec()))
                .unwrap()
                == 0
            {
                let ready = poller
                    .wait(link, Interest::READ, Some(TEST_TIMEOUT))
                    .unwrap();
                assert!(
                    ready.group || ready.own,
                    "{} of {count} datagrams came",
                    got.len()
                );
            }
        }

        got
    }

    /// Returns whether nothing is waiting on `channel`.
    pub(crate) fn silent(link: &Link, channel: Channel) -> bool {
        let mut batch = RecvBatch::new();
        link.recv(channel, &mut batch, |_| {}).unwrap() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_segment_leaves_room_for_the_headers() {
        assert_eq!(max_segment(1500, Family::V4), 1472);
        assert_eq!(max_segment(1500, Family::V6), 1452);
        assert_eq!(max_segment(65536, Family::V4), MAX_DATAGRAM);
        assert_eq!(max_segment(65536, Family::V6), 65488);
        assert_eq!(max_segment(20, Family::V4), 0);
        assert_eq!(max_segment(u32::MAX, Family::V6), MAX_DATAGRAM);
    }
}
