//! The two sockets of a link: their options, and the limits that the kernel granted.
//!
//! - The **group** socket is bound to the group's address and port, so that nothing else sent to
//!   that port reaches it. It receives the datagrams of any process to the group on the link's
//!   interface, and shares its address (SO_REUSEADDR): every process of a machine that joins
//!   receives every datagram. SO_REUSEPORT would distribute them instead.
//! - The **own** socket is bound to the interface's address, and to a port chosen by the kernel
//!   unless peers have to know it. It sends everything, so that answers to a sender reach that one
//!   process, and receives them. A link without multicast has only this one.
//!
//! The link's own multicasts loop back to the group socket, because other processes of this machine
//! may need them. Reading them again would cost a sender as much as one more receiver, so a filter
//! in the kernel refuses them, unless [`LinkConfig::receive_own`] is set. (The kernel counts
//! packets refused by a filter among UDP's receive errors;
//! [`Link::drops`](super::Link::drops) subtracts them.)

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use super::batch::Offload;
use super::link_config::LinkConfig;
use super::sys;

/// A socket and its state for batching.
#[derive(Debug)]
pub(super) struct LinkSocket {
    pub(super) socket: Socket,
    pub(super) state: UdpSocketState,
}

/// The failed action ("join the group") and its error.
pub(super) type OpenFailure = (&'static str, io::Error);

/// Opens the socket for datagrams to the group at `destination`.
pub(super) fn open_group(
    config: &LinkConfig,
    destination: SocketAddr,
) -> Result<LinkSocket, OpenFailure> {
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

/// Opens the socket for datagrams from and to this process, with the address `from`.
pub(super) fn open_own(config: &LinkConfig, from: SocketAddr) -> Result<LinkSocket, OpenFailure> {
    let socket = new_socket(from)?;
    socket
        .bind(&SockAddr::from(from))
        .map_err(|e| ("bind to", e))?;
    if config.multicast {
        set_multicast(config, &socket, from).map_err(|e| ("send multicasts from", e))?;
    }

    if let Some(bytes) = config.send_buffer {
        socket
            .set_send_buffer_size(bytes)
            .map_err(|e| ("size the send buffer of", e))?;
    }

    endpoint(config, socket)
}

/// Prepares the own socket of an earlier link with the address `from` for another interface.
pub(super) fn keep_own(
    config: &LinkConfig,
    own: &LinkSocket,
    from: SocketAddr,
) -> Result<LinkSocket, OpenFailure> {
    let socket = own.socket.try_clone().map_err(|e| ("keep", e))?;
    if config.multicast {
        set_multicast(config, &socket, from).map_err(|e| ("send multicasts from", e))?;
    }

    endpoint(config, socket)
}

/// Makes the socket send multicasts on the link's interface.
fn set_multicast(config: &LinkConfig, socket: &Socket, from: SocketAddr) -> io::Result<()> {
    let ttl = u32::from(config.ttl);
    let index = config.interface.index;

    if from.is_ipv4() {
        rustix::net::sockopt::set_ip_multicast_if_with_ifindex(
            socket,
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
}

/// Returns whether some process of this machine has the UDP port `port` to itself.
pub fn is_port_taken(port: u16) -> bool {
    let at = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ];
    at.into_iter().any(|address| {
        let bound = new_socket(address)
            .and_then(|s| s.bind(&SockAddr::from(address)).map_err(|e| ("bind to", e)));
        matches!(bound, Err((_, e)) if e.kind() == io::ErrorKind::AddrInUse)
    })
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

/// Lets the kernel refuse the link's own multicasts at the group socket; returns whether it does.
pub(super) fn refuse_echoes(group: &Socket, local: SocketAddr) -> bool {
    let done = sys::refuse_source(group, local);
    if let Err(e) = &done {
        tracing::debug!("own multicasts will come back: {e}");
    }
    done.is_ok()
}
