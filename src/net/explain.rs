//! Messages and hints for network errors of the kernel.
//!
//! Owns words only.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;

use super::Interface;
use crate::units::printable;
use crate::{Error, Kind};

/// Error for `action` (a verb phrase, "join the group") that failed on `interface` for `address`.
pub(super) fn opening(
    action: &str,
    interface: &Interface,
    address: SocketAddr,
    source: io::Error,
) -> Error {
    let name = printable(interface.name.as_bytes());
    let hint = errno(&source).and_then(|e| opening_hint(e, &name, address));
    with_hint(
        Error::new(Kind::Io, format!("cannot {action} {address} on {name}")).because(source),
        hint,
    )
}

/// Error for a datagram to `to` that could not leave by `interface`.
pub(super) fn sending(interface: &Interface, to: SocketAddr, source: io::Error) -> Error {
    let name = printable(interface.name.as_bytes());
    let hint = errno(&source).and_then(|e| sending_hint(e, &name, to));
    with_hint(
        Error::new(Kind::Io, format!("cannot send to {to} on {name}")).because(source),
        hint,
    )
}

fn opening_hint(errno: Errno, name: &str, address: SocketAddr) -> Option<String> {
    let port = address.port();
    let setting = match address.ip().is_multicast() {
        true => "--port",
        false => "network.unicast_port",
    };

    Some(match errno {
        Errno::EACCES | Errno::EPERM if (1..1024).contains(&port) => {
            format!(
                "ports below 1024 need root or CAP_NET_BIND_SERVICE; or choose another with \
                 {setting} (now {port})"
            )
        }
        Errno::EACCES | Errno::EPERM => {
            "a sandbox or security policy forbids it; a systemd unit needs \
             RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK and no PrivateNetwork=yes"
                .to_owned()
        }
        Errno::EADDRINUSE => format!(
            "another program has the port to itself; find it: ss -ulpn 'sport = :{port}'; \
             or choose another port for the whole fleet with {setting}"
        ),
        Errno::EADDRNOTAVAIL => {
            format!("{name} no longer has this address; see: ip address show dev {name}")
        }
        Errno::ENODEV | Errno::ENXIO => {
            format!("{name} is gone or has no address; see: ip address show dev {name}")
        }
        Errno::ENOBUFS if address.is_ipv4() => "this machine has joined as many groups as it may; \
             raise the limit: sysctl net.ipv4.igmp_max_memberships=100"
            .to_owned(),
        Errno::EAFNOSUPPORT if address.is_ipv6() => {
            "this machine has IPv6 switched off; use an IPv4 group such as 224.0.0.108".to_owned()
        }
        Errno::EMFILE | Errno::ENFILE => {
            "too many open files; raise the limit (ulimit -n, LimitNOFILE=)".to_owned()
        }
        _ => return None,
    })
}

fn sending_hint(errno: Errno, name: &str, to: SocketAddr) -> Option<String> {
    let device = format!("ip link show dev {name}");

    Some(match errno {
        Errno::ENETUNREACH | Errno::EHOSTUNREACH if to.ip().is_multicast() => {
            let route = if to.is_ipv4() {
                "224.0.0.0/4"
            } else {
                "multicast ff00::/8 table local"
            };
            format!("there is no route for multicast; add one: ip route add {route} dev {name}")
        }
        Errno::ENETUNREACH | Errno::EHOSTUNREACH => {
            format!(
                "there is no route to this host; see: ip route get {}",
                to.ip()
            )
        }
        Errno::EPERM | Errno::EACCES => {
            "a firewall on this machine forbids it; see its output rules: nft list ruleset"
                .to_owned()
        }
        Errno::ENETDOWN | Errno::ENODEV | Errno::ENXIO => {
            format!("{name} is down or gone; see: {device}")
        }
        Errno::EMSGSIZE => {
            format!("the datagram is larger than the MTU of {name}; see: {device}")
        }
        Errno::EINVAL => {
            format!(
                "{name} no longer has the address that makuo sends from; \
                 see: ip address show dev {name}"
            )
        }
        _ => return None,
    })
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

fn with_hint(error: Error, hint: Option<String>) -> Error {
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_refusals_have_advice() {
        let group: SocketAddr = "224.0.0.108:80".parse().unwrap();
        assert!(
            opening_hint(Errno::EACCES, "eth0", group)
                .unwrap()
                .contains("CAP_NET_BIND_SERVICE")
        );

        assert!(
            opening_hint(Errno::EADDRINUSE, "eth0", group)
                .unwrap()
                .contains("ss -ulpn 'sport = :80'")
        );

        assert!(
            opening_hint(Errno::ENODEV, "eth0", group)
                .unwrap()
                .contains("eth0 is gone")
        );

        let own: SocketAddr = "10.0.0.1:80".parse().unwrap();
        for errno in [Errno::EADDRINUSE, Errno::EACCES] {
            let of_group = opening_hint(errno, "eth0", group).unwrap();
            let of_own = opening_hint(errno, "eth0", own).unwrap();
            assert!(of_group.contains("with --port"), "{of_group}");
            assert!(of_own.contains("with network.unicast_port"), "{of_own}");
        }

        assert!(opening_hint(Errno::EIO, "eth0", group).is_none());
        assert!(
            sending_hint(Errno::ENETUNREACH, "eth0", group)
                .unwrap()
                .contains("224.0.0.0/4 dev eth0")
        );

        assert!(
            sending_hint(Errno::EPERM, "eth0", group)
                .unwrap()
                .contains("firewall")
        );
    }
}
