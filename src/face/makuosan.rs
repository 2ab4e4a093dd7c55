//! `makuosan`: translates the old daemon's flags into the configuration of a makuo host.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;

use crate::config::{CatchUp, ConsoleListen, DEFAULT_PORT, HostConfig, Sandbox, TreeConfig};
use crate::id::{HostName, TreeName};
use crate::spec::DEFAULT_TREE;
use crate::units::Rate;
use crate::{Error, Result};

/// The flags of makuosan, a field for each. A foreign command line, in the order of the old help
/// text: no group would have an owner, since [`MakuosanFlags::over`] passes every flag on at once.
#[derive(Debug, Parser)]
#[command(
    name = "makuosan",
    version,
    about = "The daemon of every host: receives the files of others, and sends its own for msync",
    after_help = "\
Without -n the daemon detaches from the terminal. Releases are accepted only from authorized keys,
and this host signs its own with its sender key: see makuo.toml(5). SIGTERM ends the daemon,
SIGHUP reads keys and configuration again.",
    arg_required_else_help = true
)]
pub struct MakuosanFlags {
    /// Base directory [default: $MAKUOSAN_BASE, the present one]
    #[arg(short, value_name = "DIR", env = "MAKUOSAN_BASE", hide_env = true)]
    base: Option<PathBuf>,
    /// Run as this user
    #[arg(short, value_name = "USER", env = "MAKUOSAN_USER", hide_env = true)]
    user: Option<String>,
    /// Run as this group
    #[arg(short, value_name = "GROUP", env = "MAKUOSAN_GROUP", hide_env = true)]
    group: Option<String>,
    /// Further groups
    #[arg(
        short = 'G',
        value_name = "A,B",
        env = "MAKUOSAN_GROUPS",
        hide_env = true,
        value_delimiter = ','
    )]
    groups: Vec<String>,
    /// Port of the network and of the console [default: 5000]
    #[arg(
        short,
        value_name = "PORT",
        env = "MAKUOSAN_PORT",
        hide_env = true,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    port: Option<u16>,
    /// Multicast address [default: 224.0.0.108]
    #[arg(short, value_name = "ADDR")]
    multicast: Option<IpAddr>,
    /// Address of the interface to use
    #[arg(short, value_name = "ADDR")]
    interface: Vec<String>,
    /// Address of the console [default: 127.0.0.1]
    #[arg(short, value_name = "ADDR")]
    listen: Option<IpAddr>,
    /// Unix socket of the console, instead of an address
    #[arg(
        short = 'U',
        value_name = "PATH",
        env = "MAKUOSAN_SOCK",
        hide_env = true
    )]
    unix: Option<PathBuf>,
    /// Group key, which seals all traffic between the hosts. Of two, the first seals and both open.
    /// Without one, here or in the configuration, traffic is plain
    #[arg(short, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// File with the console's password
    #[arg(short = 'K', value_name = "FILE")]
    password: Option<PathBuf>,
    /// Ignored: number of files sent at once
    #[arg(short = 'f', value_name = "N")]
    parallel: Option<u32>,
    /// Ignored: bytes of the receive buffer
    #[arg(short = 'R', value_name = "BYTES")]
    receive_buffer: Option<u64>,
    /// Ignored: bytes of the send buffer
    #[arg(short = 'S', value_name = "BYTES")]
    send_buffer: Option<u64>,
    /// Rate limit, in Mbit a second
    #[arg(short = 'T', value_name = "MBPS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Stay in the foreground
    #[arg(short = 'n')]
    foreground: bool,
    /// Don't receive
    #[arg(short = 'r')]
    dont_receive: bool,
    /// Don't send
    #[arg(short = 's')]
    dont_send: bool,
    /// No console
    #[arg(short = 'o')]
    no_console: bool,
    /// Send only files that the user owns
    #[arg(short = 'O')]
    owned: bool,
    /// Confined to the base and its state: the daemon does not start if the kernel cannot enforce
    /// it
    #[arg(short = 'c')]
    confined: bool,
    /// Ignored: the system decides on core dumps
    #[arg(short = 'C')]
    core: bool,
    /// Log level, 0 to 9
    #[arg(short, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=9))]
    debug: Option<u8>,
    /// Beside the old flags: the configuration [default: $MAKUO_CONFIG, /etc/makuo/makuo.toml, if
    /// it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Beside the old flags: this host's name [default: the system's]
    #[arg(long, value_name = "NAME")]
    name: Option<HostName>,
}

/// Meaning of the flags.
#[derive(Debug)]
pub struct Meant {
    /// Configuration with the flags applied.
    pub config: HostConfig,
    /// True if the flags name the group keys and override the configuration's.
    pub group_keys_fixed: bool,
    /// User to run as.
    pub user: Option<String>,
    /// Group to run as.
    pub group: Option<String>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Keep the terminal.
    pub foreground: bool,
    /// Accept the releases of others.
    pub receives: bool,
    /// Send releases.
    pub sends: bool,
    /// Send only files of the user.
    pub owned: bool,
    /// Rate limit.
    pub rate: Option<Rate>,
    /// Log level.
    pub level: u8,
    /// Ignored flags, for a warning.
    pub unused: Vec<&'static str>,
}

impl MakuosanFlags {
    /// Returns the named configuration file.
    pub fn config_file(&self) -> Option<&std::path::Path> {
        self.config.as_deref()
    }

    /// Returns the user to run as.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Applies the flags to `config`.
    pub fn over(self, mut config: HostConfig) -> Result<Meant> {
        let unused = [
            ("-f", self.parallel.is_some()),
            ("-R", self.receive_buffer.is_some()),
            ("-S", self.send_buffer.is_some()),
            ("-C", self.core),
        ];

        self.console(&mut config)?;
        config.name = self.name.or(config.name);
        config.network.port = self.port.unwrap_or(config.network.port);

        if let Some(group) = self.multicast {
            if !group.is_multicast() {
                return Err(Error::usage(format!(
                    "-m {group} is no multicast address, such as 224.0.0.108"
                )));
            }
            config.network.group = group;
        }

        if !self.interface.is_empty() {
            config.network.interfaces = self.interface;
        }

        if self.base.is_some() || config.trees.is_empty() {
            base(&mut config, self.base)?;
        }

        let group_keys_fixed = !self.key.is_empty();
        if group_keys_fixed {
            config.network.group_keys = self
                .key
                .iter()
                .map(|path| absolute(path))
                .collect::<Result<_>>()?;
            config.network.plain = false;
        } else if config.network.group_keys.is_empty() {
            // As in makuosan without -k.
            config.network.plain = true;
        }

        if self.confined {
            confine(&mut config);
        }

        Ok(Meant {
            config,
            group_keys_fixed,
            user: self.user,
            group: self.group,
            groups: self.groups,
            foreground: self.foreground,
            receives: !self.dont_receive,
            sends: !self.dont_send,
            owned: self.owned,
            rate: self.rate.map(|mbps| Rate(u64::from(mbps) * 1_000_000)),
            level: self.debug.unwrap_or(0),
            unused: unused
                .into_iter()
                .filter_map(|(flag, given)| given.then_some(flag))
                .collect(),
        })
    }

    fn console(&self, config: &mut HostConfig) -> Result<()> {
        let console = &mut config.console;
        console.trusts_owner = true;
        if let Some(password) = &self.password {
            console.password = Some(absolute(password)?);
        }

        if self.no_console {
            (console.listen, console.socket) = (ConsoleListen::Off, None);
        } else if let Some(path) = &self.unix {
            (console.listen, console.socket) = (ConsoleListen::Off, Some(absolute(path)?));
        } else if self.listen.is_some() || self.port.is_some() {
            let before = match console.listen {
                ConsoleListen::At(at) => Some(at),
                _ => None,
            };
            let ip = self
                .listen
                .or(before.map(|at| at.ip()))
                .unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
            let port = self
                .port
                .or(before.map(|at| at.port()))
                .unwrap_or(DEFAULT_PORT);
            console.listen = ConsoleListen::At(SocketAddr::new(ip, port));
            // An explicit address together with a password shows the intent.
            console.remote |= self.listen.is_some();
        }

        console
            .check()
            .map_err(|why| Error::usage(format!("-l: {why}")).hint("-K FILE sets a password"))
    }
}

/// Makes the directory the tree of the console: the configuration's tree there, or else the tree
/// `default`.
fn base(config: &mut HostConfig, base: Option<PathBuf>) -> Result<()> {
    let path = absolute(&base.unwrap_or_else(|| PathBuf::from(".")))?;
    let path: PathBuf = path
        .components()
        .filter(|c| *c != std::path::Component::CurDir)
        .collect();

    if path.parent().is_none() {
        return Err(Error::usage("the whole filesystem cannot be the base")
            .hint("say -b with a directory below /"));
    }

    let default = TreeName::new(DEFAULT_TREE).expect("the default tree has a legal name");
    let known = config
        .trees
        .iter()
        .find(|t| t.path == path)
        .map(|t| t.name.clone());

    let tree = known.unwrap_or_else(|| default.clone());
    match config.trees.iter_mut().find(|t| t.name == tree) {
        Some(known) => known.path = path,
        // As in makuosan: a host that misses a release does not catch up, unless configured.
        None => config.trees.push(TreeConfig {
            catch_up: CatchUp::Off,
            ..TreeConfig::new(default, path)
        }),
    }

    config.console.tree = Some(tree);
    Ok(())
}

/// Confines the daemon to the base and its state by the kernel. A chroot no longer serves: it would
/// hide the names of owners and the state beside the base. An exchange of the whole base would need
/// the directory above.
fn confine(config: &mut HostConfig) {
    config.sandbox = Sandbox::Require;
    config
        .trees
        .iter_mut()
        .for_each(|tree| tree.swap = Some(false));
}

fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    let shown = || crate::units::printable(path.as_os_str().as_encoded_bytes());
    std::path::absolute(path)
        .map_err(|e| Error::usage(format!("{} is no path", shown())).because(e))
}

#[cfg(test)]
mod tests;
