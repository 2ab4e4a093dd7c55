//! The network interfaces of this machine, and the choice of one of them.
//!
//! Owns the parsing of the kernel's tables and the rules of the choice; opens no multicast socket
//! and knows no group.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Socket, Type};

use super::{Family, sys};
use crate::error::IoResultExt;
use crate::units::printable;
use crate::{Error, Kind, Result};

/// A network interface in its current state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name, such as `eth0`.
    pub name: String,
    /// The kernel's number for the interface.
    pub index: u32,
    /// IPv4 address to send from: the first, or the one that selected the interface.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address to send from: one with more than link scope if there is one, or the one that
    /// selected the interface.
    pub v6: Option<Ipv6Addr>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether packets return to this machine only.
    pub loopback: bool,
    /// Whether the interface is up.
    pub up: bool,
    /// Whether the driver claims multicast support (loopback does not, but has it).
    pub multicast: bool,
    /// All addresses of the interface.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Address of `family` to send from.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// Returns whether multicast of `family` can be sent here. Linux delivers no IPv6 multicast
    /// over loopback, regardless of routes.
    pub fn can_multicast(&self, family: Family) -> bool {
        let driver = if self.loopback {
            family == Family::V4
        } else {
            self.multicast
        };
        self.up && driver && self.address(family).is_some()
    }

    /// Returns whether a link with this use can be opened here.
    pub fn serves(&self, usage: LinkUse) -> bool {
        let LinkUse { family, multicast } = usage;
        match multicast {
            true => self.can_multicast(family),
            false => self.up && self.address(family).is_some(),
        }
    }

    /// One line for display: `eth0 (192.0.2.2, fd00::2; MTU 1500)`.
    pub fn describe(&self) -> String {
        let addresses = self
            .addresses
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>();

        let addresses = if addresses.is_empty() {
            "no address".to_owned()
        } else {
            addresses.join(", ")
        };

        let down = if self.up { "" } else { "; down" };
        format!(
            "{} ({addresses}; MTU {}{down})",
            printable(self.name.as_bytes()),
            self.mtu
        )
    }

    fn speaking_from(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.v4 = Some(v4),
            IpAddr::V6(v6) => self.v6 = Some(v6),
        }
        self
    }
}

/// What a link needs of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkUse {
    /// Family of the addresses.
    pub family: Family,
    /// Whether the link joins a multicast group.
    pub multicast: bool,
}

impl From<Family> for LinkUse {
    /// A link that joins a multicast group.
    fn from(family: Family) -> Self {
        Self {
            family,
            multicast: true,
        }
    }
}

/// All interfaces of this machine (of this network namespace), in the kernel's order.
pub fn list() -> Result<Vec<Interface>> {
    const LIST_FAILED: &str = "cannot list the network interfaces";
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))
        .io_context(LIST_FAILED)?;
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();

    for entry in getifaddrs().io_context(LIST_FAILED)? {
        if !found.contains_key(&entry.interface_name) {
            // Skip an interface that vanished between the two queries.
            let Ok(new) = inspect(&socket, &entry.interface_name, entry.flags) else {
                continue;
            };
            found.insert(new.name.clone(), new);
        }
        if let (Some(interface), Some(address)) = (
            found.get_mut(&entry.interface_name),
            entry.address.as_ref().and_then(ip_of),
        ) {
            interface.addresses.push(address);
        }
    }

    let mut all: Vec<Interface> = found.into_values().map(with_preferred_addresses).collect();
    all.sort_by_key(|i| i.index);
    Ok(all)
}

/// The interface named by the user (`eth0` or one of its addresses). Without a name, the interface
/// of the default route of `family`, else the first that can multicast, else loopback.
pub fn choose(want: Option<&str>, usage: impl Into<LinkUse>) -> Result<Interface> {
    let usage = usage.into();
    let default = if want.is_none() {
        default_route(usage.family)
    } else {
        None
    };
    pick(list()?, want, default.as_deref(), usage)
}

fn inspect(socket: &Socket, name: &str, flags: InterfaceFlags) -> io::Result<Interface> {
    Ok(Interface {
        name: name.to_owned(),
        index: if_nametoindex(name)?,
        v4: None,
        v6: None,
        mtu: sys::interface_mtu(socket, name)?,
        loopback: flags.contains(InterfaceFlags::IFF_LOOPBACK),
        up: flags.contains(InterfaceFlags::IFF_UP),
        multicast: flags.contains(InterfaceFlags::IFF_MULTICAST),
        addresses: Vec::new(),
    })
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

pub(super) fn with_preferred_addresses(mut interface: Interface) -> Interface {
    interface.v4 = interface.addresses.iter().find_map(|a| match a {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let v6 = interface.addresses.iter().filter_map(|a| match a {
        IpAddr::V6(v6) => Some(*v6),
        IpAddr::V4(_) => None,
    });

    // `min_by_key` keeps the first among equals.
    interface.v6 = v6.min_by_key(Ipv6Addr::is_unicast_link_local);
    interface
}

fn pick(
    all: Vec<Interface>,
    want: Option<&str>,
    default: Option<&str>,
    usage: impl Into<LinkUse>,
) -> Result<Interface> {
    let usage = usage.into();
    match want {
        Some(want) => named(all, want, usage),
        None => unnamed(all, default, usage),
    }
}

/// The interface with this name or address, which is up.
pub(super) fn named_up(all: &[Interface], want: &str) -> Result<Interface> {
    let shown = printable(want.as_bytes());
    let by_name = all.iter().find(|i| i.name == want).cloned();
    let by_address = || {
        let address: IpAddr = want.parse().ok()?;
        let interface = all.iter().find(|i| i.addresses.contains(&address))?;
        Some(interface.clone().speaking_from(address))
    };

    let Some(interface) = by_name.or_else(by_address) else {
        let what = if want.parse::<IpAddr>().is_ok() {
            "has the address"
        } else {
            "is named"
        };
        let why = format!("no network interface {what} {shown}");
        return Err(Error::usage(why).hint(what_there_is(all)));
    };

    if !interface.up {
        let name = printable(interface.name.as_bytes());
        return Err(Error::usage(format!("network interface {shown} is down"))
            .hint(format!("switch it on: ip link set dev {name} up")));
    }

    Ok(interface)
}

fn named(all: Vec<Interface>, want: &str, usage: LinkUse) -> Result<Interface> {
    let LinkUse { family, multicast } = usage;
    let shown = printable(want.as_bytes());
    let there = what_there_is(&all);
    let interface = named_up(&all, want)?;
    let refuse = |why: String, hint: String| {
        Err(Error::usage(format!("network interface {shown} {why}")).hint(hint))
    };

    let name = printable(interface.name.as_bytes());
    if interface.address(family).is_none() {
        let why = match multicast {
            true => format!("has no {family} address, and the group is an {family} one"),
            false => format!("has no {family} address"),
        };
        return refuse(why, there);
    }

    if !multicast {
        return Ok(interface);
    }

    if interface.loopback && family == Family::V6 {
        return refuse(
            "carries no IPv6 multicast".into(),
            "use an IPv4 group here, such as 224.0.0.108".into(),
        );
    }

    if !interface.can_multicast(family) {
        return refuse(
            "cannot multicast".into(),
            format!("try: ip link set dev {name} multicast on; {there}"),
        );
    }

    Ok(interface)
}

fn unnamed(all: Vec<Interface>, default: Option<&str>, usage: LinkUse) -> Result<Interface> {
    let routed = all
        .iter()
        .find(|i| Some(i.name.as_str()) == default && i.serves(usage));
    let any = || all.iter().find(|i| !i.loopback && i.serves(usage));
    let loopback = || all.iter().find(|i| i.loopback && i.serves(usage));
    let chosen = routed.or_else(any).or_else(loopback).cloned();

    chosen.ok_or_else(|| {
        let LinkUse { family, multicast } = usage;
        let what = match multicast {
            true => format!("is up, has an {family} address and can multicast"),
            false => format!("is up and has an {family} address"),
        };
        Error::new(Kind::Io, format!("no network interface {what}")).hint(what_there_is(&all))
    })
}

pub(super) fn what_there_is(all: &[Interface]) -> String {
    match all {
        [] => "there are no network interfaces at all".to_owned(),
        all => format!(
            "there are: {}",
            all.iter()
                .map(Interface::describe)
                .collect::<Vec<_>>()
                .join("; ")
        ),
    }
}

/// Name of the interface of the default route.
pub(super) fn default_route(family: Family) -> Option<String> {
    match family {
        Family::V4 => parse_route_v4(&fs::read_to_string("/proc/net/route").ok()?),
        Family::V6 => parse_route_v6(&fs::read_to_string("/proc/net/ipv6_route").ok()?),
    }
}

/// `RTF_UP` and `RTF_REJECT`, from linux/route.h and linux/ipv6_route.h.
const ROUTE_UP: u32 = 0x1;
const ROUTE_REJECT: u32 = 0x200;

/// /proc/net/route: interface, destination, gateway, flags, references, uses, metric, mask, ...
fn parse_route_v4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[name, destination, _, flags, _, _, metric, mask, ..] = fields.as_slice() else {
            return None;
        };
        let usable = is_usable(flags)? && destination == "00000000" && mask == "00000000";
        usable.then_some((metric.parse::<u32>().ok()?, name))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name.to_owned())
}

/// /proc/net/ipv6_route: destination, prefix length, source, prefix length, gateway, metric,
/// references, uses, flags, interface; numbers in hexadecimal.
fn parse_route_v6(table: &str) -> Option<String> {
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[destination, prefix, _, _, _, metric, _, _, flags, name] = fields.as_slice() else {
            return None;
        };
        let usable = is_usable(flags)? && prefix == "00" && destination.bytes().all(|b| b == b'0');
        usable.then_some((u32::from_str_radix(metric, 16).ok()?, name))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name.to_owned())
}

fn is_usable(flags: &str) -> Option<bool> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    Some(flags & ROUTE_UP != 0 && flags & ROUTE_REJECT == 0)
}

#[cfg(test)]
mod tests;
