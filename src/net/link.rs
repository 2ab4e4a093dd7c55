//! A link: the connection to a group on one interface.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::batch::{Channel, CurrentOffload, Offload};
use super::link_config::LinkConfig;
use super::socket::{LinkSocket, keep_own, open_group, open_own, refuse_echoes};
use super::{Family, Interface, explain, max_segment, sys};
use crate::{Error, Result};

/// An open connection to a group on one interface. Can be shared by a receiving and a sending
/// thread without contention.
#[derive(Debug)]
pub struct Link {
    /// `None` without multicast.
    pub(super) group: Option<LinkSocket>,
    pub(super) own: LinkSocket,
    /// Current batching of sends.
    pub(super) offload: CurrentOffload,
    /// Packets sent to the group, which the group socket's filter refuses on their return; `None`
    /// without a filter.
    pub(super) echoes: Option<AtomicU64>,
    destination: SocketAddr,
    local: SocketAddr,
    interface: Interface,
    recv_buffer: usize,
    /// Packets lost at the own socket before this link took it over.
    earlier_drops: u64,
}

impl Link {
    /// Joins the group and opens both sockets.
    pub fn open(config: &LinkConfig) -> Result<Link> {
        Self::open_in_place_of(config, None)
    }

    /// Opens the link again after a change of its interface. If its address stays, it keeps the
    /// own socket: a fixed port cannot be bound twice, and datagrams may wait there.
    pub fn reopen(&self, config: &LinkConfig) -> Result<Link> {
        Self::open_in_place_of(config, Some(self))
    }

    fn open_in_place_of(config: &LinkConfig, old: Option<&Link>) -> Result<Link> {
        let interface = &config.interface;
        let family = Family::of(config.group);
        config.check()?;
        let address = interface.address(family).ok_or_else(|| {
            Error::usage(format!(
                "{} has no {family} address, and the group {} needs one",
                interface.name, config.group
            ))
        })?;

        let destination = scoped(config.group, config.port, interface);
        let from = scoped(address, config.unicast_port, interface);
        let group = match config.multicast {
            true => Some(
                open_group(config, destination)
                    .map_err(|(action, e)| explain::opening(action, interface, destination, e))?,
            ),
            false => None,
        };
        let kept = old.filter(|old| old.stays_at(from));
        let own = match kept {
            Some(old) => keep_own(config, &old.own, from),
            None => open_preferred(config, from),
        }
        .map_err(|(action, e)| explain::opening(action, interface, from, e))?;
        let local = own
            .socket
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .unwrap_or(from);

        let filtered = group
            .as_ref()
            .is_some_and(|group| !config.receive_own && refuse_echoes(&group.socket, local));
        let recv_buffer = group
            .iter()
            .chain([&own])
            .map(|socket| socket.socket.recv_buffer_size().unwrap_or(0) / 2)
            .min()
            .unwrap_or(0);
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
            offload: CurrentOffload::new(offload),
            echoes: filtered.then(AtomicU64::default),
            destination,
            local,
            interface: interface.clone(),
            recv_buffer,
            earlier_drops: kept.map_or(0, Link::own_drops),
        })
    }

    /// Returns whether the own socket can serve a link with the address `from`, of any port if it
    /// has none.
    fn stays_at(&self, mut from: SocketAddr) -> bool {
        if from.port() == 0 {
            from.set_port(self.local.port());
        }
        from == self.local
    }

    /// Packets lost at the own socket since it was opened.
    fn own_drops(&self) -> u64 {
        sys::socket_drops(&self.own.socket).map_or(0, u64::from)
    }

    /// Address of the group.
    pub fn group(&self) -> SocketAddr {
        self.destination
    }

    /// Returns whether the link has joined the group.
    pub fn is_multicast(&self) -> bool {
        self.group.is_some()
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
        let group = match &self.group {
            Some(group) => u64::from(sys::socket_drops(&group.socket)?),
            None => 0,
        };
        let own = u64::from(sys::socket_drops(&self.own.socket)?);
        let own = own.saturating_sub(self.earlier_drops);
        let echoes = self
            .echoes
            .as_ref()
            .map_or(0, |e| e.load(Ordering::Relaxed));
        Ok(group.saturating_sub(echoes) + own)
    }

    /// Current batching of sends: as configured, or reduced by the kernel and the driver.
    pub fn offload(&self) -> Offload {
        self.offload.get()
    }

    /// Whether the kernel joins arriving datagrams into trains (UDP GRO).
    pub fn receives_trains(&self) -> bool {
        self.own.state.gro_segments() > 1
    }

    /// Describes an error of [`Link::send`].
    pub fn explain_send(&self, to: SocketAddr, error: io::Error) -> Error {
        explain::sending(&self.interface, to, error)
    }

    /// Socket of a channel; none for the group without multicast.
    pub(super) fn endpoint(&self, channel: Channel) -> Option<&LinkSocket> {
        match channel {
            Channel::Group => self.group.as_ref(),
            Channel::Own => Some(&self.own),
        }
    }

    pub(super) fn group_fd(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().map(|group| group.socket.as_fd())
    }

    pub(super) fn own_fd(&self) -> BorrowedFd<'_> {
        self.own.socket.as_fd()
    }

    /// Clears errors that the kernel keeps for a later call.
    pub(super) fn clear_errors(&self) {
        for endpoint in self.group.iter().chain([&self.own]) {
            if let Ok(Some(e)) = endpoint.socket.take_error() {
                tracing::debug!("an earlier datagram met an error: {e}");
            }
        }
    }
}

/// Opens the own socket at a preferred port, else at one that the kernel chooses.
fn open_preferred(
    config: &LinkConfig,
    from: SocketAddr,
) -> std::result::Result<LinkSocket, (&'static str, io::Error)> {
    let ports = config.preferred_ports.clone();
    let is_free = from.port() == 0 && !config.interface.loopback;
    let ports: Vec<u16> = ports.filter(|_| is_free).into_iter().flatten().collect();

    // Processes begin at different ports, so that few attempts fail.
    let first = std::process::id() as usize % ports.len().max(1);
    let (before, after) = ports.split_at(first.min(ports.len()));
    for port in after.iter().chain(before) {
        let mut from = from;
        from.set_port(*port);
        match open_own(config, from) {
            Err((_, e)) if e.kind() == io::ErrorKind::AddrInUse => {}
            opened => return opened,
        }
    }

    open_own(config, from)
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

#[cfg(test)]
mod tests;
