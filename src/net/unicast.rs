//! The choice of interfaces for links without multicast: one for each family of addresses.
//!
//! Owns the rules of the choice; opens no socket.

use std::net::IpAddr;

use super::interface::{default_route, list, named_up, what_there_is};
use super::{Family, Interface};
use crate::units::printable;
use crate::{Error, Kind, Result};

/// An interface, and the family of its addresses to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnicastInterface {
    /// The interface.
    pub interface: Interface,
    /// Family of a link on it.
    pub family: Family,
}

/// The interface named by the user (`eth0` or one of its addresses), once for each family that it
/// has. Without a name, one interface for each family: that of the default route, else the first;
/// loopback only if no other has an address.
///
/// An IPv6 address of the link alone counts if `link_local`. An error says that an interface is
/// missing, is down, or has no address that counts yet.
pub fn choose_unicast(want: Option<&str>, link_local: bool) -> Result<Vec<UnicastInterface>> {
    let all = list()?;
    match want {
        Some(want) => named(&all, want, link_local),
        None => unnamed(&all, default_route, link_local),
    }
}

fn named(all: &[Interface], want: &str, link_local: bool) -> Result<Vec<UnicastInterface>> {
    let interface = named_up(all, want)?;
    // An interface named by such an address is meant to use it.
    let link_local = link_local || want.parse().is_ok_and(is_link_local);
    let chosen = families(&interface, link_local);
    if chosen.is_empty() {
        let why = match interface.addresses.is_empty() {
            true => "has no address",
            false => "has no address yet that other links reach",
        };
        let shown = printable(want.as_bytes());
        let what = format!("network interface {shown} {why}");
        return Err(Error::usage(what).hint(what_there_is(all)));
    }

    Ok(chosen)
}

fn unnamed(
    all: &[Interface],
    default: impl Fn(Family) -> Option<String>,
    link_local: bool,
) -> Result<Vec<UnicastInterface>> {
    let of_family = |family| {
        let default = default(family);
        let able = |i: &&Interface| !i.loopback && counts(i, family, link_local);
        let routed = all
            .iter()
            .filter(able)
            .find(|i| Some(&i.name) == default.as_ref());
        let interface = routed.or_else(|| all.iter().find(able))?.clone();
        Some(UnicastInterface { interface, family })
    };

    let chosen: Vec<_> = [Family::V4, Family::V6]
        .into_iter()
        .filter_map(of_family)
        .collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }

    // A card with an address of its link alone is about to get another.
    let is_coming = |i: &Interface| !i.loopback && i.up && !i.addresses.is_empty();
    let loopback = all.iter().find(|i| i.loopback && i.up);
    let chosen = match loopback {
        Some(loopback) if !all.iter().any(is_coming) => families(loopback, link_local),
        Some(_) | None => Vec::new(),
    };

    if chosen.is_empty() {
        let what = "no network interface is up and has an address that other links reach";
        return Err(Error::new(Kind::Io, what).hint(what_there_is(all)));
    }
    Ok(chosen)
}

/// The families that an interface serves.
fn families(interface: &Interface, link_local: bool) -> Vec<UnicastInterface> {
    [Family::V4, Family::V6]
        .into_iter()
        .filter(|&family| counts(interface, family, link_local))
        .map(|family| UnicastInterface {
            interface: interface.clone(),
            family,
        })
        .collect()
}

/// Returns whether a link of this family can be opened on an interface.
fn counts(interface: &Interface, family: Family, link_local: bool) -> bool {
    let address = interface.address(family);
    interface.up && address.is_some_and(|address| link_local || !is_link_local(address))
}

/// Returns whether no other link reaches an address.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::interface;

    fn shown(chosen: Result<Vec<UnicastInterface>>) -> String {
        let show = |UnicastInterface { interface, family }: &UnicastInterface| {
            let address = interface.address(*family).expect("an address");
            format!("{} {address}", interface.name)
        };
        match chosen {
            Ok(chosen) => chosen.iter().map(show).collect::<Vec<_>>().join(", "),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn a_named_interface_has_each_family_that_reaches_further_than_its_link() {
        let down = Interface {
            up: false,
            ..interface("eth5", 6, &["10.0.5.1"])
        };
        let all = [
            interface("eth0", 1, &["10.0.0.1", "fe80::1", "fd00::1"]),
            interface("eth1", 2, &["10.0.1.1", "fe80::2"]),
            interface("eth2", 3, &["fe80::3"]),
            interface("eth3", 4, &[]),
            interface("eth4", 5, &["fd00::4"]),
            down,
        ];

        let late = "network interface eth2 has no address yet that other links reach";
        let cases = [
            ("eth0", false, "eth0 10.0.0.1, eth0 fd00::1"),
            ("eth1", false, "eth1 10.0.1.1"),
            ("eth1", true, "eth1 10.0.1.1, eth1 fe80::2"),
            ("eth2", false, late),
            ("eth2", true, "eth2 fe80::3"),
            ("fe80::3", false, "eth2 fe80::3"),
            ("eth3", true, "network interface eth3 has no address"),
            ("eth4", false, "eth4 fd00::4"),
            ("eth5", false, "network interface eth5 is down"),
            ("eth6", false, "no network interface is named eth6"),
        ];
        for (want, link_local, expected) in cases {
            let chosen = named(&all, want, link_local);
            assert_eq!(shown(chosen), expected, "{want} {link_local}");
        }
    }

    #[test]
    fn without_a_name_loopback_is_only_for_machines_without_another_interface() {
        let lo = || interface("lo", 1, &["127.0.0.1", "::1"]);
        let v4 = || interface("eth0", 2, &["10.0.0.1", "fe80::1"]);
        let v6 = || interface("eth1", 3, &["fe80::2", "fd00::2"]);
        let coming = || interface("eth2", 4, &["fe80::3"]);
        let empty = || interface("eth3", 5, &[]);
        let default = |name: &'static str| move |_| Some(name.to_owned());

        let chosen = |all: &[Interface], name| shown(unnamed(all, default(name), false));
        assert_eq!(chosen(&[lo(), v4()], "eth0"), "eth0 10.0.0.1");
        assert_eq!(chosen(&[lo(), v6()], "lo"), "eth1 fd00::2");
        let both = "eth0 10.0.0.1, eth1 fd00::2";
        assert_eq!(chosen(&[lo(), v4(), v6()], "eth0"), both);
        assert_eq!(chosen(&[lo(), empty()], ""), "lo 127.0.0.1, lo ::1");

        let late = "no network interface is up and has an address that other links reach";
        assert_eq!(chosen(&[lo(), coming()], "eth2"), late);
        assert_eq!(chosen(&[], ""), late);
        let local = unnamed(&[lo(), coming()], default(""), true);
        assert_eq!(shown(local), "eth2 fe80::3");
    }
}
