//! How the network is reached: flags over the configuration over defaults.

use std::path::{Path, PathBuf};

use super::args::NetworkArgs;
use super::not_yet;
use crate::config::{DEFAULT_CONFIG, HostConfig, NetworkConfig};
use crate::id::HostName;
use crate::net::{self, Family, Link, LinkConfig};
use crate::{Error, Result};

/// The configuration: `--config`, else $MAKUO_CONFIG, else the default file when it exists.
pub fn host_config(flag: Option<&Path>) -> Result<HostConfig> {
    let named = flag
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("MAKUO_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
    match named {
        Some(path) => HostConfig::load(&path),
        None if Path::new(DEFAULT_CONFIG).exists() => HostConfig::load(Path::new(DEFAULT_CONFIG)),
        None => Ok(HostConfig::default()),
    }
}

/// The network of a command: what the flags say, the rest from the configuration.
pub fn resolve(args: &NetworkArgs, config: Option<&Path>) -> Result<NetworkConfig> {
    over(args, host_config(config)?.network)
}

/// `args` laid over `network`.
pub fn over(args: &NetworkArgs, network: NetworkConfig) -> Result<NetworkConfig> {
    if args.group_key.is_some() {
        return Err(not_yet("--group-key"));
    }
    Ok(NetworkConfig {
        interface: args.interface.clone().or(network.interface),
        group: args.group.unwrap_or(network.group),
        port: args.port.unwrap_or(network.port),
        ttl: args.ttl.unwrap_or(network.ttl),
    })
}

/// Joins the group.
pub fn open(network: &NetworkConfig) -> Result<Link> {
    let interface = net::choose(network.interface.as_deref(), Family::of(network.group))?;
    let mut config = LinkConfig::new(interface, network.group);
    (config.port, config.ttl) = (network.port, network.ttl);
    Link::open(&config)
}

/// This host's name as its system knows it, up to the first dot when the whole is not legal.
pub fn host_name() -> Result<HostName> {
    let unknown = |e| Error::usage("this host has no name").because(e).hint("give one with --name");
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
        let config = NetworkConfig { port: 7000, ttl: 3, ..NetworkConfig::default() };
        let args = NetworkArgs { port: Some(6000), ..NetworkArgs::default() };
        let network = over(&args, config).expect("legal");
        assert_eq!((network.port, network.ttl), (6000, 3));
    }

    #[test]
    fn a_group_key_is_refused_and_not_ignored() {
        let args = NetworkArgs { group_key: Some("x".into()), ..NetworkArgs::default() };
        assert!(over(&args, NetworkConfig::default()).expect_err("refused").to_string().contains("not supported yet"));
    }
}
