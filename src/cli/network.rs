//! How the network is reached: flags over the configuration over defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::NetworkArgs;
use super::sign;
use crate::config::{DEFAULT_CONFIG, HostConfig, NetworkConfig, PLAIN};
use crate::drive::endpoint::Door;
use crate::drive::outcome::{Event, Observer};
use crate::drive::reopen::Reopen;
use crate::id::HostName;
use crate::keys::GroupKey;
use crate::net::{self, Family, InterfaceChanges, Link, LinkConfig, LinkSet};
use crate::report::Report;
use crate::units::printable;
use crate::{Error, Result};

/// The variable that names the group key of commands.
const GROUP_KEY_VARIABLE: &str = "MAKUO_GROUP_KEY";
/// How long a new IPv6 address is waited for: the kernel first asks whether another machine has it.
const TENTATIVE: Duration = Duration::from_secs(4);
/// How often it is tried.
const TRY: Duration = Duration::from_millis(100);
/// How often an interface that is waited for is looked for when the kernel tells nothing.
const LOOK: Duration = Duration::from_secs(5);

/// The file of the configuration, whether or not it is there: `--config`, else $MAKUO_CONFIG, else the default one.
pub fn config_path(flag: Option<&Path>) -> PathBuf {
    let path = named_config(flag).unwrap_or_else(|| DEFAULT_CONFIG.into());
    // A daemon that left its directory reads it again.
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

/// The configuration: `--config`, else $MAKUO_CONFIG, else the default file when it exists.
pub fn host_config(flag: Option<&Path>) -> Result<HostConfig> {
    match named_config(flag) {
        None if !Path::new(DEFAULT_CONFIG).exists() => Ok(HostConfig::default()),
        _ => HostConfig::load(&config_path(flag)),
    }
}

/// The network of a command: what the flags say, the rest from the configuration.
pub fn resolve(args: &NetworkArgs, config: Option<&Path>) -> Result<NetworkConfig> {
    for_command(args, &host_config(config)?)
}

/// The network of a command that has read its configuration.
pub fn for_command(args: &NetworkArgs, config: &HostConfig) -> Result<NetworkConfig> {
    let mut network = over(args, config.network.clone());
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

/// Says that a network is plain, when it is.
pub fn tell(network: &NetworkConfig, report: &mut Report) {
    if network.plain {
        report.event(&Event::Note(PLAIN.to_string()));
    }
}

/// The refusal to speak without a group key.
pub fn no_group_key(config: &HostConfig) -> Error {
    let place = printable(config.default_group_key().as_os_str().as_encoded_bytes());
    Error::usage("there is no group key, and a group hears only what is sealed with its own").hint(format!(
        "`makuo keygen` makes one, the same for all hosts: put it in {place}, or name it with --group-key; \
         --plain goes without"
    ))
}

/// `args` laid over `network`.
pub fn over(args: &NetworkArgs, network: NetworkConfig) -> NetworkConfig {
    let said = args.plain || !args.group_keys.is_empty();
    NetworkConfig {
        interfaces: if args.interfaces.is_empty() {
            network.interfaces
        } else {
            args.interfaces.clone()
        },
        group: args.group.unwrap_or(network.group),
        port: args.port.unwrap_or(network.port),
        ttl: args.ttl.unwrap_or(network.ttl),
        group_keys: if said {
            args.group_keys.clone()
        } else {
            network.group_keys
        },
        plain: if said { args.plain } else { network.plain },
        strict_host_keys: network.strict_host_keys,
        catch_up_rate: network.catch_up_rate,
    }
}

/// Joins the group on every interface that is named, or on the one that the system prefers, with the group keys.
pub fn open(network: &NetworkConfig) -> Result<Door> {
    let keys: Vec<GroupKey> = network
        .group_keys
        .iter()
        .map(|path| GroupKey::load(path))
        .collect::<Result<_>>()?;

    if keys.is_empty() && !network.plain {
        return Err(no_group_key(&HostConfig::default()));
    }

    let changes = InterfaceChanges::follow()
        .inspect_err(|e| tracing::debug!("interfaces are not followed: {e}"));
    let links = links(network)?;
    let reopen = changes.ok().map(|changes| reopen(network, &links, changes));

    Ok(Door {
        links,
        keys,
        reopen,
    })
}

/// Joins the group as [`open`] does.
pub fn links(network: &NetworkConfig) -> Result<LinkSet> {
    let mut names = network.interfaces.iter().map(String::as_str);
    let first = link_config(network, names.next())?;
    let more = names
        .map(|name| link_config(network, Some(name)))
        .collect::<Result<Vec<_>>>()?;
    LinkSet::open(&first, &more, open_patiently)
}

fn link_config(network: &NetworkConfig, name: Option<&str>) -> Result<LinkConfig> {
    let interface = net::choose(name, Family::of(network.group))?;
    Ok(LinkConfig {
        port: network.port,
        ttl: network.ttl,
        ..LinkConfig::new(interface, network.group)
    })
}

/// Opens each of `links` again by the name that it was opened by.
fn reopen(network: &NetworkConfig, links: &LinkSet, changes: InterfaceChanges) -> Reopen {
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

    let names: Vec<Option<String>> = links.iter().map(known).collect();
    let network = network.clone();
    Reopen::new(changes, move |place| {
        let name = names.get(place).and_then(Option::as_deref);
        Link::open(&link_config(&network, name)?)
    })
}

/// Joins the group as [`open`] does, as soon as there are the interfaces for it. Calls `waiting` with what is missing,
/// when that changes, and every few seconds.
pub fn wait(network: &NetworkConfig, waiting: &mut dyn FnMut(&str)) -> Result<Door> {
    let changes = InterfaceChanges::follow();
    loop {
        let missing = match open(network) {
            Ok(door) => return Ok(door),
            Err(e) if is_present(network) => return Err(e),
            Err(e) => e,
        };
        waiting(&missing.to_string());
        match &changes {
            Ok(changes) => changes.wait(LOOK),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Whether all interfaces are there that a network needs.
fn is_present(network: &NetworkConfig) -> bool {
    let is_there = |name: Option<&str>| net::choose(name, Family::of(network.group)).is_ok();
    match network.interfaces.is_empty() {
        true => is_there(None),
        false => network.interfaces.iter().all(|name| is_there(Some(name))),
    }
}

/// An IPv6 address that is new cannot be spoken from for a second or two, as after boot.
fn open_patiently(config: &LinkConfig) -> Result<Link> {
    for _ in 0..TENTATIVE.as_millis() / TRY.as_millis() {
        match Link::open(config) {
            Err(e) if config.group.is_ipv6() && e.is_os(std::io::ErrorKind::AddrNotAvailable) => {
                std::thread::sleep(TRY);
            }
            done => return done,
        }
    }

    Link::open(config)
}

/// This host's name as its system knows it, up to the first dot when the whole is not legal.
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

        let network = over(&args, config);
        assert_eq!((network.port, network.ttl), (6000, 3));
    }

    #[test]
    fn a_group_key_that_cannot_be_read_is_refused_and_not_ignored() {
        let args = NetworkArgs {
            group_keys: vec!["/nowhere/group.key".into()],
            ..NetworkArgs::default()
        };
        let network = over(&args, NetworkConfig::default());
        let error = open(&network).expect_err("refused");
        assert!(error.to_string().contains("/nowhere/group.key"), "{error}");
    }
}
