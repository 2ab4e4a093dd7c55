//! The network as this machine has it: interfaces, multicast sockets, batches of datagrams, waiting.
//!
//! A [`Link`] is two sockets on one [`Interface`]: one hears the group, the other speaks to the group and to single
//! hosts and hears what is meant for this process alone. Datagrams are bytes here: what they say, who may say it, when
//! to send and how fast belongs to [`crate::wire`], [`crate::proto`] and [`crate::drive`].
//!
//! Threads use this room with blocking waits ([`Poller`]); an executor on the receive path costs a quarter more
//! processor time. Everything is Linux: UDP GSO and GRO carry the data (see [`MAX_SEGMENTS`]), and a machine without
//! them gets the same behaviour with more system calls.

mod batch;
mod changes;
mod explain;
mod interface;
mod links;
mod poll;
mod socket;
mod sys;

pub use batch::{
    Channel, Datagram, MAX_DATAGRAM, MAX_SEGMENTS, MAX_SEND_BYTES, Offload, RETRY_AFTER_ENOBUFS,
    RecvBatch, SendOutcome,
};
pub use changes::Changes;
pub use interface::{Interface, choose, list};
pub use links::Links;
pub use poll::{Interest, Poller, Ready, Waker, sharpen_timers};
pub use socket::{DEFAULT_RECV_BUFFER, Link, LinkConfig};

use std::fmt;
use std::net::IpAddr;

/// Which generation of IP addresses a link uses; the group's address decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family that `address` belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The bytes that the IP and UDP headers take of every packet (without options, which makuo never sends).
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

/// The largest UDP payload, in bytes, that fits one packet on an interface with this MTU; never more than
/// [`MAX_DATAGRAM`]. Whatever seals a datagram has to fit in as well.
pub fn max_segment(mtu: u32, family: Family) -> usize {
    usize::try_from(mtu)
        .unwrap_or(usize::MAX)
        .saturating_sub(family.header_bytes())
        .min(MAX_DATAGRAM)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Links on the loopback interface, for the tests of this room and of those below.

    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    /// How long a test waits for a datagram that is certain to come.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A port that nothing on this machine uses for UDP at the moment.
    pub(crate) fn free_port() -> u16 {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap().port()
    }

    /// A link on loopback, or none with the reason printed when this machine cannot. An IPv6 link can be opened there,
    /// but only hears what is sent to it alone.
    pub(crate) fn loopback(group: &str, port: u16, offload: Offload) -> Option<Link> {
        let Some(interface) = list().unwrap().into_iter().find(|i| i.loopback && i.up) else {
            eprintln!("skipped: no loopback interface here");
            return None;
        };

        let group: IpAddr = group.parse().unwrap();
        let opened = Link::open(&LinkConfig {
            port,
            offload,
            ..LinkConfig::new(interface, group)
        });
        opened
            .inspect_err(|e| eprintln!("skipped: no multicast on loopback here: {e}"))
            .ok()
    }

    /// Reads from `channel` until `count` datagrams came; panics when they do not come.
    pub(crate) fn collect(link: &Link, channel: Channel, count: usize) -> Vec<Vec<u8>> {
        let (poller, mut batch, mut got) = (Poller::new().unwrap(), RecvBatch::new(), Vec::new());
        while got.len() < count {
            if link
                .recv(channel, &mut batch, |d| got.push(d.bytes.to_vec()))
                .unwrap()
                == 0
            {
                let ready = poller.wait(link, Interest::READ, Some(PATIENCE)).unwrap();
                assert!(
                    ready.group || ready.own,
                    "{} of {count} datagrams came",
                    got.len()
                );
            }
        }

        got
    }

    /// Whether nothing waits on `channel`.
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
