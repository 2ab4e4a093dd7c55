//! Network settings of a command: flags first, then the configuration, then defaults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::NetworkArgs;
use super::sign;
use crate::config::{
    DEFAULT_CONFIG, HostConfig, NetworkConfig, PLAIN_WARNING, PeerName, SESSION_PORTS,
};
use crate::daemon::Preflight;
use crate::drive::endpoint::GroupLinks;
use crate::drive::peers::PeerConfig;
use crate::drive::reopen::{LinkOpener, LinkSource};
use crate::id::HostName;
use crate::keys::GroupKey;
use crate::net::{
    self, Family, Interface, InterfaceChanges, Link, LinkConfig, LinkSet, UnicastInterface,
};
use crate::outcome::{Event, Observer};
use crate::report::Report;
use crate::units::printable;
use crate::{Error, Kind, Result};

/// Environment variable with the path of the group key.
const GROUP_KEY_VARIABLE: &str = "MAKUO_GROUP_KEY";
/// Time to wait for a new IPv6 address, while the kernel checks for duplicates.
const TENTATIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Interval between two attempts.
const ADDRESS_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between checks for a missing interface, without kernel notifications.
const INTERFACE_POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Path of the configuration, existing or not: `--config`, else $MAKUO_CONFIG, else the default.
pub fn config_path(flag: Option<&Path>) -> PathBuf {
    let path = named_config(flag).unwrap_or_else(|| DEFAULT_CONFIG.into());
    // Absolute, because a reload happens after the daemon has left its directory.
    std::path::absolute(&path).unwrap_or(path)
}

fn named_config(flag: Option<&Path>) -> Option<PathBuf> {
    let variable = || {
        std::env::var_os("MAKUO_CONFIG")
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    flag.map(PathBuf::from).or_else(variable)
}

/// Reads the configuration: `--config`, else $MAKUO_CONFIG, else the default file if it exists.
pub fn host_config(flag: Option<&Path>) -> Result<HostConfig> {
    match named_config(flag) {
        None if !Path::new(DEFAULT_CONFIG).exists() => Ok(HostConfig::default()),
        _ => HostConfig::load(&config_path(flag)),
    }
}

/// Network settings of a command: flags, then the configuration.
pub fn resolve(args: &NetworkArgs, config: Option<&Path>) -> Result<NetworkConfig> {
    for_command(args, &host_config(config)?)
}

/// Network settings of a command whose configuration is already read.
pub fn for_command(args: &NetworkArgs, config: &HostConfig) -> Result<NetworkConfig> {
    let mut network = apply(args, config.network.clone());
    if network.group_keys.is_empty() && !network.plain {
        let variable = std::env::var_os(GROUP_KEY_VARIABLE)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from);
        let default = || {
            [sign::default_group_key(), Some(config.default_group_key())]
                .into_iter()
                .flatten()
        };
        let key = variable.or_else(|| default().find(|path| path.exists()));
        network
            .group_keys
            .push(key.ok_or_else(|| no_group_key(config))?);
    }

    Ok(network)
}

/// Warns about a plain network, and about a TTL without effect.
pub fn note_plain(network: &NetworkConfig, report: &mut Report) {
    if let Some(text) = network.ttl_remark() {
        report.event(&Event::Note(text));
    }
    if network.plain {
        report.event(&Event::Note(PLAIN_WARNING.to_string()));
    }
}

/// Error for a missing group key.
pub fn no_group_key(config: &HostConfig) -> Error {
    let place = printable(config.default_group_key().as_os_str().as_encoded_bytes());
    let what = "there is no group key, and a group accepts only datagrams sealed with its own";
    Error::usage(what).hint(format!(
        "`makuo keygen` creates one, the same for all hosts: put it in {place}, \
         or name it with --group-key; \
         --plain goes without"
    ))
}

/// Applies `args` to `network`.
pub fn apply(args: &NetworkArgs, network: NetworkConfig) -> NetworkConfig {
    let keys_given = args.plain || !args.group_keys.is_empty();

    NetworkConfig {
        peers: if args.peers.is_empty() {
            network.peers
        } else {
            args.peers.clone()
        },
        multicast: network.multicast && !args.no_multicast,
        segment: network.segment,
        unicast_port: network.unicast_port,
        unicast_port_given: network.unicast_port_given,
        interfaces: if args.interfaces.is_empty() {
            network.interfaces
        } else {
            args.interfaces.clone()
        },
        group: args.group.unwrap_or(network.group),
        port: args.port.unwrap_or(network.port),
        ttl: args.ttl.unwrap_or(network.ttl),
        group_keys: if keys_given {
            args.group_keys.clone()
        } else {
            network.group_keys
        },
        plain: if keys_given {
            args.plain
        } else {
            network.plain
        },
        strict_host_keys: network.strict_host_keys,
        catch_up_rate: network.catch_up_rate,
    }
}

/// Use of the links: whether other processes have to know their port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkRole {
    /// A daemon, whose port is configured.
    Host,
    /// A command or a session, whose port the kernel chooses.
    Session,
}

/// Joins the group with the group keys, on every named interface or on the system's default.
pub fn open(network: &NetworkConfig) -> Result<GroupLinks> {
    open_as(network, LinkRole::Session)
}

fn open_as(network: &NetworkConfig, role: LinkRole) -> Result<GroupLinks> {
    let keys = read_keys(network)?;
    check_ways(network)?;

    let changes = InterfaceChanges::follow()
        .inspect_err(|e| tracing::debug!("interfaces are not followed: {e}"));
    let links = open_links(network, role)?;
    let reopen = changes
        .ok()
        .map(|changes| LinkOpener::new(changes, NamedLinks::new(network, role, &links)));

    Ok(GroupLinks {
        links,
        keys,
        reopen,
        peers: peers(network, role),
        traffic: Default::default(),
    })
}

/// Reads the group keys; none for a plain network.
fn read_keys(network: &NetworkConfig) -> Result<Vec<GroupKey>> {
    let keys: Vec<GroupKey> = network
        .group_keys
        .iter()
        .map(|path| GroupKey::load(path).map_err(|e| e.with_kind(Kind::Usage)))
        .collect::<Result<_>>()?;

    match keys.is_empty() && !network.plain {
        true => Err(no_group_key(&HostConfig::default())),
        false => Ok(keys),
    }
}

/// Refuses settings that leave no way to other hosts.
fn check_ways(network: &NetworkConfig) -> Result<()> {
    match !network.multicast && network.peers.is_empty() {
        true => Err(
            Error::usage("without multicast there is no way to other hosts")
                .hint("name some of them with --peers, or in peers of the configuration"),
        ),
        false => Ok(()),
    }
}

/// Goes through the start of a daemon as far as that opens no socket.
pub fn preflight(config: &HostConfig, preflight: &mut Preflight) {
    let mut config = config.clone();
    let has_keys = config.network.plain || !config.network.group_keys.is_empty();
    if !has_keys && !config.default_group_key().exists() {
        preflight.errors.push(no_group_key(&config));
    } else {
        config.seal_by_default();
        preflight.require(read_keys(&config.network));
    }

    let network = &config.network;
    preflight.require(check_ways(network));
    preflight.require(link_configs(network, LinkRole::Host));
}

/// Joins the group like [`open`], for one session of a daemon, which has the keys.
pub fn open_session(network: &NetworkConfig) -> Result<GroupLinks> {
    let role = LinkRole::Session;
    Ok(GroupLinks {
        peers: peers(network, role),
        ..open_links(network, role)?.into()
    })
}

/// Peers to start from, if there are any.
fn peers(network: &NetworkConfig, role: LinkRole) -> Option<PeerConfig> {
    let peers = PeerConfig {
        names: network.peers.clone(),
        port: network.unicast_port,
        known: Vec::new(),
        host: role == LinkRole::Host,
        segment: network.segment.clone(),
    };
    (!network.peers.is_empty()).then_some(peers)
}

/// Opens the links of a daemon or a command: one for each interface, and without multicast one for
/// each family that the interface has.
fn open_links(network: &NetworkConfig, role: LinkRole) -> Result<LinkSet> {
    match link_configs(network, role)?.as_slice() {
        [first, more @ ..] => LinkSet::open(first, more, open_patiently),
        [] => Err(Error::usage("no network interface is named")),
    }
}

/// The links of the named interfaces.
fn link_configs(network: &NetworkConfig, role: LinkRole) -> Result<Vec<LinkConfig>> {
    match network.multicast {
        true => names(network)
            .into_iter()
            .map(|name| {
                Ok(link_config(
                    network,
                    role,
                    choose(network, name)?,
                    network.group,
                ))
            })
            .collect(),
        false => {
            let all = unicast_interfaces(network)?.into_iter();
            let config = |UnicastInterface { interface, family }| {
                link_config(network, role, interface, unspecified(family))
            };
            Ok(all.map(config).collect())
        }
    }
}

/// The named interfaces, or `None` for the system's default.
fn names(network: &NetworkConfig) -> Vec<Option<&str>> {
    match network.interfaces.as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    }
}

/// The interface for multicast with this name.
fn choose(network: &NetworkConfig, name: Option<&str>) -> Result<Interface> {
    net::choose(name, Family::of(network.group))
}

/// The interfaces without multicast, once for each family. An error if one cannot be used yet.
fn unicast_interfaces(network: &NetworkConfig) -> Result<Vec<UnicastInterface>> {
    let link_local = needs_link_local(network);
    let mut all = Vec::new();
    for name in names(network) {
        all.extend(net::choose_unicast(name, link_local)?);
    }

    let families: Vec<Family> = all.iter().map(|chosen| chosen.family).collect();
    check_families(&network.peers, &families)?;
    Ok(all)
}

/// Returns an error if no peer can be reached by `families`: the interface may get an address of
/// another one later, as from DHCP after IPv6 is up.
fn check_families(peers: &[PeerName], families: &[Family]) -> Result<()> {
    let fits = |peer: &PeerName| match peer.address(0) {
        Some(address) => families.contains(&Family::of(address.ip())),
        None => true,
    };
    if peers.is_empty() || peers.iter().any(fits) {
        return Ok(());
    }

    let here: Vec<String> = families.iter().map(Family::to_string).collect();
    let here = here.join(" and ");
    let what = format!("this machine has {here} alone, and all peers are of another family");
    Err(Error::usage(what).hint("see: ip address show"))
}

/// Returns whether a peer is named by an address that no other link reaches.
fn needs_link_local(network: &NetworkConfig) -> bool {
    let is_local = |peer: &PeerName| match peer.address(0).map(|address| address.ip()) {
        Some(IpAddr::V6(v6)) => v6.is_unicast_link_local(),
        Some(IpAddr::V4(_)) | None => false,
    };
    network.peers.iter().any(is_local)
}

/// In place of a group, it determines the family of a link without multicast.
fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn link_config(
    network: &NetworkConfig,
    role: LinkRole,
    interface: Interface,
    group: IpAddr,
) -> LinkConfig {
    let is_fixed = !network.peers.is_empty() || network.unicast_port_given;
    let (unicast_port, preferred_ports) = match role {
        LinkRole::Host if is_fixed => (network.unicast_port, None),
        LinkRole::Host => (0, Some(network.unicast_port..=network.unicast_port)),
        LinkRole::Session => (0, Some(SESSION_PORTS)),
    };

    LinkConfig {
        port: network.port,
        ttl: network.ttl,
        multicast: network.multicast,
        unicast_port,
        preferred_ports,
        ..LinkConfig::new(interface, group)
    }
}

/// The interface for the link in place of `old`.
fn choose_again(network: &NetworkConfig, name: Option<&str>, old: &Link) -> Result<Interface> {
    if network.multicast {
        return choose(network, name);
    }

    let family = Family::of(old.group().ip());
    let all = net::choose_unicast(name, needs_link_local(network))?;
    let of_family = all.into_iter().find(|chosen| chosen.family == family);
    match of_family {
        Some(chosen) => Ok(chosen.interface),
        // No card took its family over.
        None if name.is_none() && old.interface().loopback => Ok(old.interface().clone()),
        None => Err(Error::usage(format!(
            "there is no {family} address that other links reach"
        ))),
    }
}

/// Opens links by their original names, while the process runs.
#[derive(Debug)]
struct NamedLinks {
    network: NetworkConfig,
    role: LinkRole,
    /// Name and group of each open link; `None` for the system's default.
    names: Vec<(Option<String>, IpAddr)>,
}

impl NamedLinks {
    fn new(network: &NetworkConfig, role: LinkRole, links: &LinkSet) -> Self {
        let known = |link: &Link| {
            let is_it = |name: &&String| {
                let interface = link.interface();
                interface.name == **name
                    || interface
                        .addresses
                        .iter()
                        .any(|address| address.to_string() == **name)
            };
            network.interfaces.iter().find(is_it).cloned()
        };

        let named = |link| (known(link), link.group().ip());
        Self {
            names: links.iter().map(named).collect(),
            network: network.clone(),
            role,
        }
    }

    /// Returns whether there is a link for `chosen`, the interface named `name`.
    fn is_open(&self, links: &LinkSet, name: Option<&str>, chosen: &UnicastInterface) -> bool {
        let UnicastInterface { interface, family } = chosen;
        let is_named = |(of, group): &(Option<String>, IpAddr)| {
            of.as_deref() == name && Family::of(*group) == *family
        };
        let is_on = |link: &Link| {
            link.interface().index == interface.index && Family::of(link.group().ip()) == *family
        };
        self.names.iter().any(is_named) || links.iter().any(is_on)
    }
}

impl LinkSource for NamedLinks {
    fn reopen(&mut self, place: usize, old: &Link) -> Result<Link> {
        let (name, group) = match self.names.get(place) {
            Some((name, group)) => (name.as_deref(), *group),
            None => (None, self.network.group),
        };
        let interface = choose_again(&self.network, name, old)?;
        old.reopen(&link_config(&self.network, self.role, interface, group))
    }

    fn open_missing(&mut self, links: &LinkSet) -> Result<Option<Link>> {
        if self.network.multicast {
            return Ok(None);
        }

        let link_local = needs_link_local(&self.network);
        for name in names(&self.network) {
            // A lost interface is the matter of its link.
            let all = net::choose_unicast(name, link_local).unwrap_or_default();
            let missing = all.into_iter().find(|i| !self.is_open(links, name, i));
            let Some(UnicastInterface { interface, family }) = missing else {
                continue;
            };

            let group = unspecified(family);
            let config = link_config(&self.network, self.role, interface, group);
            let link = Link::open(&config)?;
            let name = name.map(str::to_owned);
            self.names.push((name, group));
            return Ok(Some(link));
        }

        Ok(None)
    }
}

/// Joins the group like [`open`] once the interfaces exist. Calls `waiting` with the missing one on
/// changes, and every few seconds.
pub fn open_when_present(
    network: &NetworkConfig,
    waiting: &mut dyn FnMut(&str),
) -> Result<GroupLinks> {
    let changes = InterfaceChanges::follow();
    loop {
        let missing = match open_as(network, LinkRole::Host) {
            Ok(door) => return Ok(door),
            Err(e) if is_present(network) => return Err(e),
            Err(e) => e,
        };
        waiting(&missing.to_string());
        match &changes {
            Ok(changes) => changes.wait(INTERFACE_POLL_INTERVAL),
            Err(_) => std::thread::sleep(INTERFACE_POLL_INTERVAL),
        }
    }
}

/// Returns whether all needed interfaces exist.
fn is_present(network: &NetworkConfig) -> bool {
    match network.multicast {
        true => names(network)
            .into_iter()
            .all(|name| choose(network, name).is_ok()),
        false => unicast_interfaces(network).is_ok(),
    }
}

/// Opens a link, with retries: a new IPv6 address cannot send for a second or two, as after boot.
fn open_patiently(config: &LinkConfig) -> Result<Link> {
    for _ in 0..TENTATIVE_TIMEOUT.as_millis() / ADDRESS_RETRY_INTERVAL.as_millis() {
        match Link::open(config) {
            Err(e) if config.group.is_ipv6() && e.is_os(std::io::ErrorKind::AddrNotAvailable) => {
                std::thread::sleep(ADDRESS_RETRY_INTERVAL);
            }
            done => return done,
        }
    }

    Link::open(config)
}

/// Host name of the system, up to the first dot if the whole is not legal.
pub fn host_name() -> Result<HostName> {
    let unknown = |e| {
        Error::usage("this host has no name")
            .because(e)
            .hint("give one with --name")
    };

    let name = nix::unistd::gethostname().map_err(|e| unknown(std::io::Error::from(e)))?;
    let name = name.to_string_lossy();
    let short = name.split('.').next().unwrap_or_default();

    HostName::new(&name)
        .or_else(|_| HostName::new(short))
        .map_err(|e| Error::usage(e.to_string()).hint("give this host a name with --name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_configuration() {
        let config = NetworkConfig {
            port: 7000,
            ttl: 3,
            ..NetworkConfig::default()
        };

        let args = NetworkArgs {
            port: Some(6000),
            ..NetworkArgs::default()
        };

        let network = apply(&args, config);
        assert_eq!((network.port, network.ttl), (6000, 3));
    }

    #[test]
    fn a_group_key_that_cannot_be_read_is_refused_and_not_ignored() {
        let args = NetworkArgs {
            group_keys: vec!["/nowhere/group.key".into()],
            ..NetworkArgs::default()
        };
        let network = apply(&args, NetworkConfig::default());
        let error = open(&network).expect_err("refused");
        assert!(error.to_string().contains("/nowhere/group.key"), "{error}");
    }

    fn on(interfaces: &[&str]) -> NetworkConfig {
        NetworkConfig {
            interfaces: interfaces.iter().map(|name| name.to_string()).collect(),
            multicast: false,
            peers: vec!["127.0.0.1".parse().expect("legal")],
            plain: true,
            ..NetworkConfig::default()
        }
    }

    #[test]
    fn without_multicast_a_missing_interface_is_an_error_and_a_daemon_waits_for_it() {
        let network = on(&["127.0.0.1", "nope"]);
        let error = open_links(&network, LinkRole::Session).expect_err("refused");
        assert!(error.to_string().contains("nope"), "{error}");
        assert!(!is_present(&network));
    }

    #[test]
    fn without_multicast_a_busy_port_is_an_error_and_a_daemon_does_not_wait_for_it() {
        let busy = std::net::UdpSocket::bind("127.0.0.1:0").expect("free");
        let network = NetworkConfig {
            unicast_port: busy.local_addr().expect("bound").port(),
            ..on(&["127.0.0.1"])
        };
        let error = open_links(&network, LinkRole::Host).expect_err("refused");
        assert!(error.is_os(std::io::ErrorKind::AddrInUse), "{error}");
        assert!(is_present(&network));
    }

    #[test]
    fn at_least_one_peer_has_a_family_of_the_links() {
        let check = |peers: &[&str], families: &[Family]| {
            let peers: Vec<PeerName> = peers.iter().map(|p| p.parse().expect("legal")).collect();
            check_families(&peers, families).is_ok()
        };
        assert!(!check(&["10.0.0.1"], &[Family::V6]));
        assert!(!check(&["fd00::1", "fd00::2"], &[Family::V4]));
        assert!(check(&["10.0.0.1", "fd00::1"], &[Family::V6]));
        assert!(check(&["10.0.0.1"], &[Family::V4, Family::V6]));
        assert!(check(&["10.0.0.1", "web1"], &[Family::V6]));
    }

    #[test]
    fn an_interface_named_twice_has_one_link_for_each_family() {
        let once = open_links(&on(&["127.0.0.1"]), LinkRole::Session).expect("opens");
        let twice = open_links(&on(&["127.0.0.1"; 2]), LinkRole::Session).expect("opens");
        assert_eq!(once.len(), twice.len());
    }
}
