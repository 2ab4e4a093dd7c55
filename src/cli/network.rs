//! How the network is reached: flags over the configuration over defaults.

use std::path::{Path, PathBuf};

use super::args::NetworkArgs;
use super::not_yet;
use crate::Result;
use crate::config::{DEFAULT_CONFIG, HostConfig, NetworkConfig};

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
