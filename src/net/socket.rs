//! The two sockets of a link: how they are opened, and what the kernel made of the wishes.
//!
//! - The **group** socket is bound to the group's address and port, so that nothing else sent to that port reaches it,
//!   and hears what any process sends to the group on the link's interface. It shares its address (SO_REUSEADDR):
//!   every process of a machine that joins hears every datagram. SO_REUSEPORT would deal them out instead.
//! - The **own** socket is bound to the interface's address and a port that the kernel picks. It sends everything, so
//!   that answers to a sender reach that one process, and hears what is sent to it.
//!
//! Own multicasts come back to the group socket, as other processes of this machine may need them. Reading them again
//! would cost a sender as much as being one more receiver, so a filter in the kernel refuses them, unless
//! [`LinkConfig::hear_self`] is set. (The kernel counts what a filter refuses among UDP's receive errors;
//! [`Link::drops`] takes them out again.)

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

/// The receive buffer, in bytes, that a link asks for: four times the most that a sender has under way.
pub const DEFAULT_RECV_BUFFER: usize = 16 << 20;

/// What a link is to be.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The interface to speak and hear on.
    pub interface: Interface,
    /// The multicast group; it decides between IPv4 and IPv6.
    pub group: IpAddr,
    /// The group's UDP port.
    pub port: u16,
    /// How many routers a multicast may cross, plus one: 1 stays on the link.
    pub ttl: u8,
    /// The receive buffer to ask for, in bytes, for each of the two sockets.
    pub recv_buffer: usize,
    /// The send buffer to ask for, in bytes; None leaves the kernel's default. A small one is what makes a full link block
    /// the sender: with 1 MB and more the local queue drops silently instead.
    pub send_buffer: Option<usize>,
    /// How to use the kernel's batches; anything but [`Offload::Full`] is for networks where that misbehaves.
    pub offload: Offload,
    /// Whether the link's own multicasts come back to it.
    pub hear_self: bool,
}

/// The send buffer to ask for: what a gigabit link sends in some milliseconds, in which a sender on a busy machine may
/// not get its turn.
const SEND_BUFFER: usize = 256 << 10;

impl LinkConfig {
    /// The defaults: port 5000, TTL 1, 16 MiB to receive, 256 KiB to send, everything else as the kernel likes it best.
    pub fn new(interface: Interface, group: IpAddr) -> Self {
        Self {
            interface,
            group,
            port: 5000,
            ttl: 1,
            recv_buffer: DEFAULT_RECV_BUFFER,
            send_buffer: Some(SEND_BUFFER),
            offload: Offload::Full,
            hear_self: false,
        }
    }
}

/// An open door to a group on one interface. Threads may share it: one that receives and one that sends do not meet.
#[derive(Debug)]
pub struct Link {
    pub(super) group: Endpoint,
    pub(super) own: Endpoint,
    /// How sends are batched at the moment, an [`Offload`].
    pub(super) offload: AtomicU8,
    /// The packets that were multicast and that the group socket's filter refuses when they come back; none without it.
    pub(super) echoes: Option<AtomicU64>,
    destination: SocketAddr,
    local: SocketAddr,
    interface: Interface,
    recv_buffer: usize,
}

/// A socket and what the batches remember about it.
#[derive(Debug)]
pub(super) struct Endpoint {
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

        let filtered = !config.hear_self && refuse_echoes(&group.socket, local);
        let got = |e: &Endpoint| e.socket.recv_buffer_size().unwrap_or(0) / 2;
        let recv_buffer = got(&group).min(got(&own));
        if recv_buffer < config.recv_buffer {
            tracing::debug!(
                "receive buffer: {recv_buffer} bytes of {} wished",
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

    /// The address that every member hears.
    pub fn group(&self) -> SocketAddr {
        self.destination
    }

    /// The address that this process alone hears, and that its datagrams come from.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The interface as it was when the link was opened.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The largest datagram, in bytes, that the interface takes in one packet.
    pub fn max_segment(&self) -> usize {
        max_segment(self.interface.mtu, Family::of(self.destination.ip()))
    }

    /// The bytes that the kernel granted to each socket for what nobody has read yet. It counts its own overhead
    /// against it: with datagrams of a few bytes less fits than this number says.
    pub fn recv_buffer(&self) -> usize {
        self.recv_buffer
    }

    /// The packets lost at this link because nobody read them in time, since it was opened. A packet that carries many
    /// datagrams counts once.
    pub fn drops(&self) -> io::Result<u64> {
        let group = u64::from(sys::socket_drops(&self.group.socket)?);
        let own = u64::from(sys::socket_drops(&self.own.socket)?);
        let echoes = self
            .echoes
            .as_ref()
            .map_or(0, |e| e.load(Ordering::Relaxed));
        Ok(group.saturating_sub(echoes) + own)
    }

    /// What an error of [`Link::send`] means to a person.
    pub fn explain_send(&self, to: SocketAddr, error: io::Error) -> Error {
        explain::sending(&self.interface, to, error)
    }

    pub(super) fn endpoint(&self, channel: Channel) -> &Endpoint {
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

    /// Takes away errors that the kernel keeps to report with some later call.
    pub(super) fn clear_errors(&self) {
        for endpoint in [&self.group, &self.own] {
            if let Ok(Some(e)) = endpoint.socket.take_error() {
                tracing::debug!("an earlier datagram met an error: {e}");
            }
        }
    }
}

/// What failed ("join the group") and how.
type Refusal = (&'static str, io::Error);

fn check(config: &LinkConfig) -> Result<()> {
    if !config.group.is_multicast() {
        return Err(Error::usage(format!("{} is not a multicast group", config.group)).hint(
            "IPv4 groups are 224.0.0.0 to 239.255.255.255, IPv6 groups start with ff; the default is 224.0.0.108",
        ));
    }

    if config.port == 0 {
        return Err(Error::usage("the group's port cannot be 0").hint("the default is 5000"));
    }

    Ok(())
}

/// `ip` with the interface's number where the address means nothing without it.
fn scoped(ip: IpAddr, port: u16, interface: &Interface) -> SocketAddr {
    /// The scope of a multicast address that reaches no further than the link, see RFC 4291.
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

fn open_group(config: &LinkConfig, destination: SocketAddr) -> Result<Endpoint, Refusal> {
    let socket = new_socket(destination)?;
    socket
        .set_reuse_address(true)
        .map_err(|e| ("share the address", e))?;
    socket
        .bind(&SockAddr::from(destination))
        .map_err(|e| ("listen to", e))?;

    let index = config.interface.index;
    match destination.ip() {
        IpAddr::V4(group) => {
            socket
                .set_multicast_all_v4(false)
                .map_err(|e| ("hear only", e))?;
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
        }
        IpAddr::V6(group) => {
            // Kernels before 4.20 do not know it; there the address that the socket is bound to has to do.
            let _ = socket.set_multicast_all_v6(false);
            socket.join_multicast_v6(&group, index)
        }
    }
    .map_err(|e| ("join", e))?;

    endpoint(config, socket)
}

fn open_own(config: &LinkConfig, from: SocketAddr) -> Result<Endpoint, Refusal> {
    let socket = new_socket(from)?;
    socket
        .bind(&SockAddr::from(from))
        .map_err(|e| ("speak from", e))?;
    let (ttl, index) = (u32::from(config.ttl), config.interface.index);

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

fn new_socket(address: SocketAddr) -> Result<Socket, Refusal> {
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

fn endpoint(config: &LinkConfig, socket: Socket) -> Result<Endpoint, Refusal> {
    grow_recv_buffer(&socket, config.recv_buffer);
    // Makes it nonblocking, forbids fragments, and asks for trains (GRO) and time stamps.
    let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(|e| ("prepare", e))?;
    // It asks for more than is wanted here; each answer costs time on every read.
    let _ = setsockopt(&socket, sockopt::Ipv4PacketInfo, &false);
    let _ = socket.set_recv_tos_v4(false);

    if config.group.is_ipv6() {
        let _ = setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &false);
        let _ = socket.set_recv_tclass_v6(false);
    }

    if config.offload != Offload::Full {
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &false);
    }

    Ok(Endpoint { socket, state })
}

/// As much as was asked for where this process may (CAP_NET_ADMIN), else as much as net.core.rmem_max allows.
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

    fn say(link: &Link, to: SocketAddr, text: &[u8]) {
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

        say(&a, a.group(), b"to all");
        for link in [&b, &c] {
            assert_eq!(collect(link, Channel::Group, 1), [b"to all"]);
        }

        assert!(silent(&a, Channel::Group), "a sender does not hear itself");
        say(&b, a.local(), b"to one");
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
            say(&b, a.local(), b"to one");
            assert_eq!(collect(&a, Channel::Own, 1), [b"to one"]);
            assert!(silent(&c, Channel::Own));
        }
    }

    #[test]
    fn answers_come_from_where_the_sender_says_it_is() {
        let Some([a, b, _]) = three("224.0.0.108") else {
            return;
        };

        say(&a, a.group(), b"?");
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

        say(&a, b.group(), b"over there");
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
            hear_self: true,
            ..LinkConfig::new(lo, "224.0.0.108".parse().unwrap())
        };

        let Ok(link) = Link::open(&config) else {
            return eprintln!("skipped: no multicast on loopback here");
        };

        say(&link, link.group(), b"echo");
        assert_eq!(collect(&link, Channel::Group, 1), [b"echo"]);
    }

    #[test]
    fn what_nobody_reads_in_time_is_counted() {
        let Ok(lo) = choose(Some("lo"), Family::V4) else {
            return eprintln!("skipped: no loopback interface");
        };

        let (port, group) = (free_port(), "224.0.0.108".parse().unwrap());
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
            say(&a, a.group(), &[7; 1400]);
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
