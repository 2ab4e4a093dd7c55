//! The configuration of a host: /etc/makuo/makuo.toml.
//!
//! Like a spec, a configuration is legal by its type: an unknown or wrong key is an error with key,
//! file and line, and features of a later version are rejected, never ignored. Accesses neither
//! trees nor the network: the daemon checks whether a path or interface exists.

mod explain;
mod fields;
mod hooks;
mod network_table;
mod parse;
mod peer_name;
mod remarks;
mod server_tables;
mod tree_tables;
mod window;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use parse::CONFIG_KEYS;
pub use peer_name::PeerName;
pub use window::{CommitWindow, shown_weekly};

use crate::hook::Hooks;
use crate::hook::helper_process::HookSource;
use crate::id::{HostName, Labels, SegmentName, TreeName};
use crate::manifest::rules::PathFilter;
use crate::spec::Spec;
use crate::spec::document::Document;
use crate::strict::Readers;
use crate::units::{Limit, Rate};
use crate::{Error, Result};

/// Default path of a host's configuration.
pub const DEFAULT_CONFIG: &str = "/etc/makuo/makuo.toml";
/// Default path of the authorized keys.
pub const DEFAULT_AUTHORIZED_KEYS: &str = "/etc/makuo/authorized_keys";
/// Default path of the control socket.
pub const DEFAULT_SOCKET: &str = "/run/makuo/makuo.sock";
/// Default path of the key that signs the host's own releases.
pub const DEFAULT_SENDER_KEY: &str = "/etc/makuo/sender.key";
/// Default file name of the authorized keys, beside the configuration.
pub const AUTHORIZED_KEYS: &str = "authorized_keys";
/// Default file name of the group key, beside the configuration.
pub const GROUP_KEY: &str = "group.key";
/// Warning about unsealed traffic, for logs and output.
pub const PLAIN_WARNING: &str =
    "traffic is plain: anybody on this network can read it, and lie about hosts";
/// Default address of the console.
pub const DEFAULT_CONSOLE: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
/// Default multicast group.
pub const DEFAULT_GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 108));
/// Default UDP port.
pub const DEFAULT_PORT: u16 = 5000;
/// Default UDP port for datagrams to one host.
pub const DEFAULT_UNICAST_PORT: u16 = 5001;
/// UDP ports of commands, and of the sessions of a daemon: beside the other two, so that one rule
/// of a firewall names all.
pub const SESSION_PORTS: RangeInclusive<u16> = 5002..=5063;
/// Default TTL: no router forwards a datagram.
pub const DEFAULT_TTL: u8 = 1;
/// Default rate for hosts that missed a release: a fifth of a gigabit link.
pub const DEFAULT_CATCH_UP_RATE: Rate = Rate(200_000_000);
/// Default interval of looks into a repository.
pub const DEFAULT_POLL: Duration = Duration::from_secs(30);
/// Default number of releases that a tree keeps for rollback.
pub const DEFAULT_KEEP: u32 = 3;

/// Configuration of a host, with defaults filled in.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Path of the configuration file.
    pub path: PathBuf,
    /// Name of the host; `None` for the system's host name.
    pub name: Option<HostName>,
    /// Labels, by which targets and batches select hosts.
    pub labels: Labels,
    /// Path of the authorized keys.
    pub authorized_keys: PathBuf,
    /// Directory for the state of trees; `None` for beside each tree.
    pub state_dir: Option<PathBuf>,
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Confinement of the daemon.
    pub sandbox: Sandbox,
    /// Group with access to the control socket, which allows releasing parts of this host's trees;
    /// `None` for only root and the daemon's own user.
    pub socket_group: Option<String>,
    /// Key that signs releases of the console and `makuo send`; `None` for [`DEFAULT_SENDER_KEY`],
    /// if it exists.
    pub sender_key: Option<PathBuf>,
    /// Console settings.
    pub console: ConsoleConfig,
    /// Settings of the HTTP server.
    pub metrics: MetricsConfig,
    /// Network settings.
    pub network: NetworkConfig,
    /// Trees, in file order.
    pub trees: Vec<TreeConfig>,
}

/// `sandbox`: confinement of the daemon to its trees and their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// Confined, or the daemon does not start.
    Require,
    /// Confined if the kernel supports it, else a warning.
    #[default]
    Auto,
    /// Not confined.
    Off,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Interfaces by name or address; empty for the system's multicast route.
    pub interfaces: Vec<String>,
    /// Hosts to start from where multicast does not reach; empty for multicast alone.
    pub peers: Vec<PeerName>,
    /// Whether to use multicast; false only with peers.
    pub multicast: bool,
    /// Segment of this host: hosts with the same word hear each other's multicast. `None` to find
    /// out. Used only with peers.
    pub segment: Option<SegmentName>,
    /// UDP port of a daemon for datagrams to one host, and the port of peers that name none.
    pub unicast_port: u16,
    /// Whether the configuration names the port. Otherwise a daemon without peers takes another one
    /// if it is in use.
    pub unicast_port_given: bool,
    /// Multicast group, checked to be one.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// TTL of datagrams: one more than the number of routers passed.
    pub ttl: u8,
    /// Paths of the group keys: the first seals datagrams, any opens them; empty for [`GROUP_KEY`]
    /// beside the configuration.
    pub group_keys: Vec<PathBuf>,
    /// Sends datagrams unsealed, without a group key.
    pub plain: bool,
    /// Excludes a host from sends if its key differs from the one its name had before.
    pub strict_host_keys: bool,
    /// Rate limit for hosts that missed a release.
    pub catch_up_rate: Rate,
}

/// `[console]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// Address of the console.
    pub listen: ConsoleListen,
    /// Unix socket of the console, in addition.
    pub socket: Option<PathBuf>,
    /// Password file; `None` for no password.
    pub password: Option<PathBuf>,
    /// Allows an address that other machines can reach.
    pub remote: bool,
    /// Lets root and the daemon's user change other hosts over TCP without a password, as users of
    /// makuosan expect.
    pub trusts_owner: bool,
    /// Tree of the console; `None` for the tree `default`, or the first one.
    pub tree: Option<TreeName>,
}

/// `[metrics]`: the HTTP server of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Address to listen on; `None` for no server.
    pub listen: Option<SocketAddr>,
    /// Names under which clients reach it, beside its address, `localhost` and the host's name.
    pub names: Vec<String>,
}

/// Address of the console.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConsoleListen {
    /// Off; as makuosan, [`DEFAULT_CONSOLE`] if free.
    #[default]
    Default,
    /// Off.
    Off,
    /// This address.
    At(SocketAddr),
}

impl ConsoleListen {
    /// Parses `off`, or an address with a port.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            address => address.parse().ok().map(Self::At),
        }
    }
}

impl ConsoleConfig {
    /// Rejects a console that other machines can reach, unless `remote` is set and a password
    /// protects it.
    pub fn check(&self) -> std::result::Result<(), String> {
        match self.listen {
            ConsoleListen::At(at)
                if !(at.ip().is_loopback() || self.remote && self.password.is_some()) =>
            {
                Err(format!(
                    "other machines reach {at}, and the console can change files on all hosts: \
                 listen at 127.0.0.1, or say remote = true and set a password"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// `[[tree]]`
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// Name of the tree in specs.
    pub name: TreeName,
    /// Directory; absolute.
    pub path: PathBuf,
    /// Paths that no release changes.
    pub protect: PathFilter,
    /// Patterns of `protect` as written, in .gitignore syntax.
    pub protect_patterns: Vec<String>,
    /// The host's own limit of deletions; the stricter of this and the release's applies.
    pub max_delete: Option<Limit>,
    /// Number of releases kept for rollback.
    pub keep: u32,
    /// Age of the release at which the host warns: someone may be withholding deploys.
    pub max_age: Option<Duration>,
    /// Number of different authorized keys that have to sign a release.
    pub require_signatures: u8,
    /// Exchange of missed releases with other hosts.
    pub catch_up: CatchUp,
    /// Interval of checks for drift, which is repaired.
    pub repair: Option<Duration>,
    /// Store from which the tree takes releases as well.
    pub repository: Option<TreeRepository>,
    /// Commands around a commit.
    pub hooks: Hooks,
    /// Allows layout `swap`, the exchange of the whole tree: a confined daemon then reaches the
    /// tree's parent directory. `None` to allow it only if that directory is within reach anyway.
    pub swap: Option<bool>,
    /// Keeps the right to create devices in a daemon that runs as another user.
    pub devices: bool,
    /// Allows symbolic links of any user in the tree's path, not only root's and the daemon's.
    pub follow_links: bool,
    /// Times in which the tree commits; `None` for any time.
    pub window: Option<CommitWindow>,
}

/// `repository`, `repository_ca` and `poll` of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeRepository {
    /// URL, as written.
    pub url: String,
    /// File with certificates (PEM) that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Interval of looks for a newer release.
    pub poll: Duration,
    /// File, line, key and tree, for errors.
    pub place: String,
}

impl TreeRepository {
    /// An error about this repository, with its place in the file.
    pub fn wrong(&self, error: &Error) -> Error {
        let placed = Error::usage(format!("{}: {error}", self.place));
        match error.hint_text() {
            Some(hint) => placed.hint(hint),
            None => placed,
        }
    }
}

/// Exchange of missed releases between hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// Neither fetches nor serves missed releases.
    Off,
    /// Fetches, and serves hosts of the group: nobody without a group key, since requesters cannot
    /// be told apart.
    #[default]
    Group,
    /// Fetches, and serves any requester.
    Anyone,
}

impl CatchUp {
    /// Returns whether the host fetches a missed release.
    pub fn takes(self) -> bool {
        self != CatchUp::Off
    }

    /// Returns whether the host serves its release to others, given whether datagrams are `sealed`.
    pub fn gives(self, sealed: bool) -> bool {
        self == CatchUp::Anyone || (self == CatchUp::Group && sealed)
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            peers: Vec::new(),
            multicast: true,
            segment: None,
            unicast_port: DEFAULT_UNICAST_PORT,
            unicast_port_given: false,
            group: DEFAULT_GROUP,
            port: DEFAULT_PORT,
            ttl: DEFAULT_TTL,
            group_keys: Vec::new(),
            plain: false,
            strict_host_keys: false,
            catch_up_rate: DEFAULT_CATCH_UP_RATE,
        }
    }
}

impl Default for HostConfig {
    /// Default for a host without a configuration file: no tree.
    fn default() -> Self {
        Self {
            path: DEFAULT_CONFIG.into(),
            name: None,
            labels: Labels::default(),
            authorized_keys: DEFAULT_AUTHORIZED_KEYS.into(),
            state_dir: None,
            socket: DEFAULT_SOCKET.into(),
            sandbox: Sandbox::default(),
            socket_group: None,
            sender_key: None,
            console: ConsoleConfig::default(),
            metrics: MetricsConfig::default(),
            network: NetworkConfig::default(),
            trees: Vec::new(),
        }
    }
}

impl TreeConfig {
    /// Tree with only a name and a path, as from `--tree NAME=DIR`.
    pub fn new(name: TreeName, path: PathBuf) -> Self {
        let protect = PathFilter::default();
        let keep = DEFAULT_KEEP;
        let hooks = Hooks::default();
        let swap = None;
        let devices = false;
        let catch_up = CatchUp::default();
        let protect_patterns = Vec::new();
        let max_delete = None;
        let max_age = None;
        let require_signatures = 1;
        let repair = None;
        let repository = None;

        Self {
            name,
            path,
            protect,
            protect_patterns,
            max_delete,
            keep,
            max_age,
            require_signatures,
            catch_up,
            repair,
            repository,
            hooks,
            swap,
            devices,
            follow_links: false,
            window: None,
        }
    }
}

impl HostConfig {
    /// Reads and checks the file, which only root and the present user may be able to write.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_document(&Document::load_strictly(
            path,
            "configuration",
            Readers::All,
        )?)
    }

    /// Default path of the group key: beside the configuration.
    pub fn default_group_key(&self) -> PathBuf {
        self.path.with_file_name(GROUP_KEY)
    }

    /// Adds the group key at its default path, unless others are named or datagrams are unsealed.
    pub fn seal_by_default(&mut self) {
        if self.network.group_keys.is_empty() && !self.network.plain {
            self.network.group_keys.push(self.default_group_key());
        }
    }

    /// Parses `text` as a configuration, as if read from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        Self::from_document(&Document::new(path, text.to_string()))
    }
}

/// Reads the hooks of a tree again, from a file as for a start.
pub fn read_hooks(source: &HookSource) -> Result<Hooks> {
    let (path, name) = source.parts();
    let config = HostConfig::load(path)?;
    let mut trees = config.trees.into_iter();
    let tree = trees.find(|tree| tree.name.as_str() == name);
    Ok(tree.map(|tree| tree.hooks).unwrap_or_default())
}

/// A spec or a configuration.
#[derive(Debug)]
pub enum AnyFile {
    /// Spec of a release.
    Spec(Box<Spec>),
    /// Configuration of a host.
    Config(Box<HostConfig>),
}

/// Reads `path` as a spec or a configuration, depending on its keys. A file with keys of neither is
/// read as a spec.
pub fn detect(path: &Path) -> Result<AnyFile> {
    let document = Document::load(path, "spec or configuration")?;
    let top = document.top(crate::spec::SPEC_KEYS)?;
    let is_spec = top.has("source") || !parse::looks_like_config(top);
    if is_spec {
        Spec::from_document(&document).map(|s| AnyFile::Spec(Box::new(s)))
    } else {
        HostConfig::from_document(&document).map(|c| AnyFile::Config(Box::new(c)))
    }
}

#[cfg(test)]
mod tests;
