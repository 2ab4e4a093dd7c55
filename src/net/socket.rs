//! The two sockets of a link: their options, and the limits that the kernel granted.
//!
//! - The **group** socket is bound to the group's address and port, so that nothing else sent to
//!   that port reaches it. It receives the datagrams of any process to the group on the link's
//!   interface, and shares its address (SO_REUSEADDR): every process of a machine that joins
//!   receives every datagram. SO_REUSEPORT would distribute them instead.
//! - The **own** socket is bound to the interface's address and a port chosen by the kernel. It
//!   sends everything, so that answers to a sender reach that one process, and receives them.
//!
//! The link's own multicasts loop back to the group socket, because other processes of this machine
//! may need them. Reading them again would cost a sender as much as one more receiver, so a filter
//! in the kernel refuses them, unless [`LinkConfig::receive_own`] is set. (The kernel counts
//! packets refused by a filter among UDP's receive errors; [`Link::drops`] subtracts them.)

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use super::batch::{Channel, Offload};
use super::{Family, Interface, explain, max_segment, sys};
use crate::{Error, Result};

/// Default receive buffer of a link in bytes: four times the most that a sender has in flight.
pub const DEFAULT_RECV_BUFFER: usize = 16 << 20;

/// Configuration of a link.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Interface to send and receive on.
    pub interface: Interface,
    /// Multicast group; determines IPv4 or IPv6.
    pub group: IpAddr,
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

/// Default send buffer: some milliseconds of a gigabit link, during which a sender on a busy
/// machine may not be scheduled.
const SEND_BUFFER: usize = 256 << 10;

impl LinkConfig {
    /// The defaults: port 5000, TTL 1, 16 MiB to receive, 256 KiB to send, all offloads.
    pub fn new(interface: Interface, group: IpAddr) -> Self {
        Self {
            interface,
            group,
            port: 5000,
            ttl: 1,
            recv_buffer: DEFAULT_RECV_BUFFER,
            send_buffer: Some(SEND_BUFFER),
            offload: Offload::Full,
            receive_own: false,
        }
    }
}

/// An open connection to a group on one interface. Can be shared by a receiving and a sending
/// thread without contention.
#[derive(Debug)]
pub struct Link {
    pub(super) group: LinkSocket,
    pub(super) own: LinkSocket,
    /// Current batching of sends, an [`Offload`].
    pub(super) offload: AtomicU8,
    /// Packets sent to the group, which the group socket's filter refuses on their return; `None`
    /// without a filter.
    pub(super) echoes: Option<AtomicU64>,
    destination: SocketAddr,
    local: SocketAddr,
    interface: Interface,
    recv_buffer: usize,
}

/// A socket and its state for batching.
#[derive(Debug)]
pub(super) struct LinkSocket {
    pub(super) socket: Socket,
    pub(super) state: UdpSocketState,
}

impl Link {
    /// Joins the group and opens both sockets.
    pub fn open(config: &LinkConfig) -> Result<Link> {
        let interface = &config.interface;
        let family = Family::of(config.group);
        check(config)?;
        let address = interface.address(family).ok_or_else(|| {
            Error::usage(format!(
                "{} has no {family} address, and the group {} needs one",
                interface.name, config.group
            ))
        })?;

        let destination = scoped(config.group, config.port, interface);
        let from = scoped(address, 0, interface);
        let group = open_group(config, destination)
            .map_err(|(action, e)| explain::opening(action, interface, destination, e))?;
        let own = open_own(config, from)
            .map_err(|(action, e)| explain::opening(action, interface, from, e))?;
        let local = own
            .socket
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .unwrap_or(from);

        let filtered = !config.receive_own && refuse_echoes(&group.socket, local);
        let got = |e: &LinkSocket| e.socket.recv_buffer_size().unwrap_or(0) / 2;
        let recv_buffer = got(&group).min(got(&own));
        if recv_buffer < config.recv_buffer {
            tracing::debug!(
                "receive buffer: {recv_buffer} bytes of {} requested",
                config.recv_buffer
            );
        }

        let offload = config.offload.limited_to(own.state.max_gso_segments());
        Ok(Link {
            group,
            own,
            offload: AtomicU8::new(offload as u8),
            echoes: filtered.then(AtomicU64::default),
            destination,
            local,
            interface: interface.clone(),
            recv_buffer,
        })
    }

    /// Address of the group.
    pub fn group(&self) -> SocketAddr {
        self.destination
    }

    /// Unicast address of this process, and source of its datagrams.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The interface as it was when the link was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Largest datagram, in bytes, that fits one packet of the interface.
    pub fn max_segment(&self) -> usize {
        max_segment(self.interface.mtu, Family::of(self.destination.ip()))
    }

    /// Receive buffer, in bytes, that the kernel granted to each socket. The kernel charges its own
    /// overhead against it: of tiny datagrams fewer bytes fit.
    pub fn recv_buffer(&self) -> usize {
        self.recv_buffer
    }

    /// Packets lost at this link because the process did not read them in time, since the link was
    /// opened. A packet with many datagrams counts once.
    pub fn drops(&self) -> io::Result<u64> {
        let group = u64::from(sys::socket_drops(&self.group.socket)?);
        let own = u64::from(sys::socket_drops(&self.own.socket)?);
        let echoes = self
            .echoes
            .as_ref()
            .map_or(0, |e| e.load(Ordering::Relaxed));
        Ok(group.saturating_sub(echoes) + own)
    }

    /// Describes an error of [`Link::send`].
    pub fn explain_send(&self, to: SocketAddr, error: io::Error) -> Error {
        explain::sending(&self.interface, to, error)
    }

    pub(super) fn endpoint(&self, channel: Channel) -> &LinkSocket {
        match channel {
            Channel::Group => &self.group,
            Channel::Own => &self.own,
        }
    }

    pub(super) fn group_fd(&self) -> BorrowedFd<'_> {
        self.group.socket.as_fd()
    }

    pub(super) fn own_fd(&self) -> BorrowedFd<'_> {
        self.own.socket.as_fd()
    }

    /// Clears errors that the kernel keeps for a later call.
    pub(super) fn clear_errors(&self) {
        for endpoint in [&self.group, &self.own] {
            if let Ok(Some(e)) = endpoint.socket.take_error() {
                tracing::debug!("an earlier datagram met an error: {e}");
            }
        }
    }
}

/// The failed action ("join the group") and its error.
type OpenFailure = (&'static str, io::Error);

fn check(config: &LinkConfig) -> Result<()> {
    if !config.group.is_multicast() {
        return Err(
            Error::usage(format!("{} is not a multicast group", config.group)).hint(
                "IPv4 groups are 224.0.0.0 to 239.255.255.255, IPv6 groups start with ff; \
             the default is 224.0.0.108",
            ),
        );
    }

    if config.port == 0 {
        return Err(Error::usage("the group's port cannot be 0").hint("the default is 5000"));
    }

    Ok(())
}

/// `ip` with the interface's number if the address needs a scope.
fn scoped(ip: IpAddr, port: u16, interface: &Interface) -> SocketAddr {
    /// Scope of a multicast address limited to the link, see RFC 4291.
    const LINK_SCOPE: u16 = 2;
    match ip {
        IpAddr::V6(v6) => {
            let near = v6.is_multicast() && v6.segments()[0] & 0xf <= LINK_SCOPE;
            let scope = if near || v6.is_unicast_link_local() {
                interface.index
            } else {
                0
            };
            SocketAddrV6::new(v6, port, 0, scope).into()
        }
        IpAddr::V4(_) => SocketAddr::new(ip, port),
    }
}

fn open_group(config: &LinkConfig, destination: SocketAddr) -> Result<LinkSocket, OpenFailure> {
    let socket = new_socket(destination)?;
    socket
        .set_reuse_address(true)
        .map_err(|e| ("share the address", e))?;
    socket
        .bind(&SockAddr::from(destination))
        .map_err(|e| ("listen on", e))?;

    let index = config.interface.index;
    match destination.ip() {
        IpAddr::V4(group) => {
            socket
                .set_multicast_all_v4(false)
                .map_err(|e| ("restrict the socket to", e))?;
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
        }
        IpAddr::V6(group) => {
            // Kernels before 4.20 lack the option; the address of the socket has to suffice there.
            let _ = socket.set_multicast_all_v6(false);
            socket.join_multicast_v6(&group, index)
        }
    }
    .map_err(|e| ("join", e))?;

    endpoint(config, socket)
}

fn open_own(config: &LinkConfig, from: SocketAddr) -> Result<LinkSocket, OpenFailure> {
    let socket = new_socket(from)?;
    socket
        .bind(&SockAddr::from(from))
        .map_err(|e| ("bind to", e))?;
    let ttl = u32::from(config.ttl);
    let index = config.interface.index;

    if from.is_ipv4() {
        rustix::net::sockopt::set_ip_multicast_if_with_ifindex(
            &socket,
            &Ipv4Addr::UNSPECIFIED,
            &Ipv4Addr::UNSPECIFIED,
            index,
        )
        .map_err(io::Error::from)
        .and_then(|()| socket.set_multicast_ttl_v4(ttl))
        .and_then(|()| socket.set_multicast_loop_v4(true))
    } else {
        socket
            .set_multicast_if_v6(index)
            .and_then(|()| socket.set_multicast_hops_v6(ttl))
            .and_then(|()| socket.set_multicast_loop_v6(true))
    }
    .map_err(|e| ("send multicasts from", e))?;

    if let Some(bytes) = config.send_buffer {
        socket
            .set_send_buffer_size(bytes)
            .map_err(|e| ("size the send buffer of", e))?;
    }

    endpoint(config, socket)
}

fn new_socket(address: SocketAddr) -> Result<Socket, OpenFailure> {
    let open = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.cloexec(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        Ok(socket)
    };

    open().map_err(|e| ("open a socket for", e))
}

fn endpoint(config: &LinkConfig, socket: Socket) -> Result<LinkSocket, OpenFailure> {
    grow_recv_buffer(&socket, config.recv_buffer);
    // Makes the socket nonblocking, forbids fragments, and enables trains (GRO) and time stamps.
    let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(|e| ("prepare", e))?;
    // The call above requests more than is needed here; each piece of information costs time on
    // every read.
    let _ = setsockopt(&socket, sockopt::Ipv4PacketInfo, &false);
    let _ = socket.set_recv_tos_v4(false);

    if config.group.is_ipv6() {
        let _ = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &false);
        let _ = socket.set_recv_tclass_v6(false);
    }

    if config.offload != Offload::Full {
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &false);
    }

    Ok(LinkSocket { socket, state })
}

/// The requested size if this process may set it (CAP_NET_ADMIN), else as much as net.core.rmem_max
/// allows.
fn grow_recv_buffer(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err()
        && let Err(e) = socket.set_recv_buffer_size(bytes)
    {
        tracing::debug!("cannot size the receive buffer: {e}");
    }
}

fn refuse_echoes(group: &Socket, local: SocketAddr) -> bool {
    let done = sys::refuse_source(group, local);
    if let Err(e) = &done {
        tracing::debug!("own multicasts will come back: {e}");
    }
    done.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::choose;
    use crate::net::testing::{collect, free_port, loopback, silent};
    use crate::{Kind, net::SendOutcome};

    fn send(link: &Link, to: SocketAddr, text: &[u8]) {
        assert_eq!(link.send(to, text, text.len()).unwrap(), SendOutcome::Sent);
    }

    fn three(group: &str) -> Option<[Link; 3]> {
        let port = free_port();
        let one = || loopback(group, port, Offload::Full);
        Some([one()?, one()?, one()?])
    }

    #[test]
    fn processes_on_one_machine_hear_the_group_and_answer_one() {
        let Some([a, b, c]) = three("224.0.0.108") else {
            return;
        };

        send(&a, a.group(), b"to all");
        for link in [&b, &c] {
            assert_eq!(collect(link, Channel::Group, 1), [b"to all"]);
        }

        assert!(silent(&a, Channel::Group), "a sender does not hear itself");
        send(&b, a.local(), b"to one");
        assert_eq!(collect(&a, Channel::Own, 1), [b"to one"]);
        assert!(silent(&c, Channel::Own) && silent(&c, Channel::Group));

        for link in [&a, &b, &c] {
            assert_eq!(link.drops().unwrap(), 0, "what a filter refuses is no loss");
        }
    }

    #[test]
    fn over_ipv6_links_open_and_answer_one() {
        for group in ["ff02::108", "ff15::108"] {
            let Some([a, b, c]) = three(group) else {
                return;
            };
            assert_eq!(a.group().ip().to_string(), group);
            send(&b, a.local(), b"to one");
            assert_eq!(collect(&a, Channel::Own, 1), [b"to one"]);
            assert!(silent(&c, Channel::Own));
        }
    }

    #[test]
    fn answers_come_from_where_the_sender_says_it_is() {
        let Some([a, b, _]) = three("224.0.0.108") else {
            return;
        };

        send(&a, a.group(), b"?");
        let mut from = None;
        let poller = crate::net::Poller::new().unwrap();
        let mut batch = crate::net::RecvBatch::new();

        while b
            .recv(Channel::Group, &mut batch, |d| {
                from = Some((d.from, d.stamp))
            })
            .unwrap()
            == 0
        {
            poller.wait(&b, crate::net::Interest::READ, None).unwrap();
        }

        let (from, stamp) = from.unwrap();
        assert_eq!(from, a.local());
        assert!(
            stamp.is_some_and(|s| s.as_secs() > 1_600_000_000),
            "the kernel stamps what comes: {stamp:?}"
        );
    }

    #[test]
    fn another_group_on_the_same_port_is_not_heard() {
        let port = free_port();
        let open = |group| loopback(group, port, Offload::Full);
        let (Some(a), Some(b)) = (open("224.0.0.108"), open("224.0.0.109")) else {
            return;
        };

        send(&a, b.group(), b"over there");
        assert_eq!(collect(&b, Channel::Group, 1), [b"over there"]);
        assert!(silent(&a, Channel::Group));
    }

    #[test]
    fn a_link_that_wants_to_hears_itself() {
        let Ok(lo) = choose(Some("lo"), Family::V4) else {
            return eprintln!("skipped: no loopback interface");
        };

        let config = LinkConfig {
            port: free_port(),
            receive_own: true,
            ..LinkConfig::new(lo, "224.0.0.108".parse().unwrap())
        };

        let Ok(link) = Link::open(&config) else {
            return eprintln!("skipped: no multicast on loopback here");
        };

        send(&link, link.group(), b"echo");
        assert_eq!(collect(&link, Channel::Group, 1), [b"echo"]);
    }

    #[test]
    fn what_nobody_reads_in_time_is_counted() {
        let Ok(lo) = choose(Some("lo"), Family::V4) else {
            return eprintln!("skipped: no loopback interface");
        };

        let port = free_port();
        let group = "224.0.0.108".parse().unwrap();
        let config = LinkConfig {
            port,
            recv_buffer: 1,
            ..LinkConfig::new(lo, group)
        };

        let (Ok(a), Ok(b)) = (Link::open(&config), Link::open(&config)) else {
            return eprintln!("skipped: no multicast on loopback here");
        };

        assert!(b.recv_buffer() < 64 << 10, "{}", b.recv_buffer());
        for _ in 0..64 {
            send(&a, a.group(), &[7; 1400]);
        }

        assert!(b.drops().unwrap() > 0);
        assert_eq!(a.drops().unwrap(), 0);
    }

    #[test]
    fn the_buffer_granted_is_the_buffer_reported() {
        let Some(link) = loopback("224.0.0.108", free_port(), Offload::Full) else {
            return;
        };

        assert!(
            link.recv_buffer() > 0 && link.recv_buffer() <= DEFAULT_RECV_BUFFER,
            "{}",
            link.recv_buffer()
        );
        assert_eq!(
            link.max_segment(),
            max_segment(link.interface().mtu, Family::V4)
        );
    }

    #[test]
    fn a_multicast_crosses_as_many_routers_as_was_asked_for() {
        for group in ["224.0.0.108", "ff15::108"] {
            let Ok(lo) = choose(Some("lo"), Family::V4) else {
                return eprintln!("skipped: no loopback interface");
            };

            let group: IpAddr = group.parse().unwrap();
            let config = LinkConfig {
                port: free_port(),
                ttl: 7,
                ..LinkConfig::new(lo, group)
            };
            let Ok(link) = Link::open(&config) else {
                return eprintln!("skipped: no multicast on loopback here");
            };

            let socket = &link.own.socket;
            let hops = if group.is_ipv4() {
                socket.multicast_ttl_v4()
            } else {
                socket.multicast_hops_v6()
            };

            assert_eq!(hops.unwrap(), 7, "{group}");
        }
    }

    #[test]
    fn a_port_held_by_another_program_and_a_group_that_is_none_are_explained() {
        let Ok(lo) = choose(Some("lo"), Family::V4) else {
            return eprintln!("skipped: no loopback interface");
        };

        let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let config = LinkConfig {
            port,
            ..LinkConfig::new(lo.clone(), "224.0.0.108".parse().unwrap())
        };

        let error = Link::open(&config).unwrap_err();
        assert!(error.is_os(io::ErrorKind::AddrInUse), "{error}");
        assert!(
            error
                .hint_text()
                .unwrap()
                .contains(&format!("sport = :{port}"))
        );

        let error =
            Link::open(&LinkConfig::new(lo.clone(), "10.0.0.1".parse().unwrap())).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        let gone = Interface {
            index: 0x7fff_fff0,
            v4: Some("192.0.2.99".parse().unwrap()),
            ..lo
        };

        let error = Link::open(&LinkConfig {
            port: free_port(),
            ..LinkConfig::new(gone, "224.0.0.108".parse().unwrap())
        })
        .unwrap_err();

        assert!(
            error.to_string().contains("cannot join 224.0.0.108"),
            "{error}"
        );

        assert!(error.hint_text().is_some(), "{error}");
    }
}
