//! The configuration of a host: /etc/makuo/makuo.toml.
//!
//! As a spec it is legal by its type: unknown or wrong keys are errors that name key, file and line, and what a later
//! version does is refused, never ignored. The room looks at no tree and no network: whether a path or interface is
//! there is the daemon's question.

mod explain;
mod hooks;
mod parse;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use parse::KEYS;

use crate::Result;
use crate::hook::Hooks;
use crate::id::{HostName, TreeName};
use crate::manifest::rules::PathFilter;
use crate::spec::Spec;
use crate::spec::document::Document;
use crate::strict::Readers;
use crate::units::{Limit, Rate};

/// Where a host's configuration is looked for.
pub const DEFAULT_CONFIG: &str = "/etc/makuo/makuo.toml";
/// Where a host's authorized keys are.
pub const DEFAULT_AUTHORIZED_KEYS: &str = "/etc/makuo/authorized_keys";
/// Where a host's control socket is.
pub const DEFAULT_SOCKET: &str = "/run/makuo/makuo.sock";
/// Where the key is that signs what a host itself sends.
pub const DEFAULT_SENDER_KEY: &str = "/etc/makuo/sender.key";
/// The name of the authorized keys that no configuration names, in the directory of the configuration.
pub const AUTHORIZED_KEYS: &str = "authorized_keys";
/// The name of a group key that no configuration names, in the directory of the configuration.
pub const GROUP_KEY: &str = "group.key";
/// The line about traffic that is not sealed, in logs and output.
pub const PLAIN: &str =
    "traffic is plain: anybody on this network can read it, and lie about hosts";
/// Where the console listens.
pub const DEFAULT_CONSOLE: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
/// The multicast group.
pub const DEFAULT_GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 108));
/// The UDP port.
pub const DEFAULT_PORT: u16 = 5000;
/// How many routers a datagram passes: none.
pub const DEFAULT_TTL: u8 = 1;
/// The most that a host sends to those that are behind: a fifth of a gigabit link.
pub const DEFAULT_CATCH_UP_RATE: Rate = Rate(200_000_000);
/// How many releases a tree keeps for rollback.
pub const DEFAULT_KEEP: u32 = 3;

/// What a host's configuration says, defaults filled in.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The file that says it.
    pub path: PathBuf,
    /// The host's name; none: the one that the system has.
    pub name: Option<HostName>,
    /// The file that lists who may do what.
    pub authorized_keys: PathBuf,
    /// Where the state of trees is kept; none: beside each tree.
    pub state_dir: Option<PathBuf>,
    /// The control socket.
    pub socket: PathBuf,
    /// Whether the daemon confines itself.
    pub sandbox: Sandbox,
    /// The group whose members may use the control socket, and by it release parts of this host's trees; none: only root
    /// and the daemon's own user.
    pub socket_group: Option<String>,
    /// The key that signs what this host's console and `makuo send` release; none: [`DEFAULT_SENDER_KEY`], when it is
    /// there.
    pub sender_key: Option<PathBuf>,
    /// The console.
    pub console: ConsoleConfig,
    /// How hosts are reached.
    pub network: NetworkConfig,
    /// The trees, in the order of the file.
    pub trees: Vec<TreeConfig>,
}

/// `sandbox`: whether the daemon confines itself to its trees and their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// It does, or does not start.
    Require,
    /// It does where the kernel can, else it says so.
    #[default]
    Auto,
    /// It does not.
    Off,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Interfaces by name or by address; none: the one that the system routes multicast to.
    pub interfaces: Vec<String>,
    /// The multicast group; checked to be one.
    pub group: IpAddr,
    /// The UDP port.
    pub port: u16,
    /// How many routers a datagram may pass, and one.
    pub ttl: u8,
    /// The files of the group keys: datagrams are sealed with the first and open with any; none: [`GROUP_KEY`] beside the
    /// configuration.
    pub group_keys: Vec<PathBuf>,
    /// Whether datagrams are not sealed: no group key is used.
    pub plain: bool,
    /// Whether a host with another key than its name had before is kept out of what is sent from here.
    pub strict_host_keys: bool,
    /// The most that this host sends to those that are behind.
    pub catch_up_rate: Rate,
}

/// `[console]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// Where it listens.
    pub listen: ConsoleListen,
    /// A unix socket where it listens, too.
    pub socket: Option<PathBuf>,
    /// The file with the password; none asks for none.
    pub password: Option<PathBuf>,
    /// Whether it may listen where other machines reach it.
    pub remote: bool,
    /// Whether root and the daemon's user may change other hosts over TCP without a password, as makuosan's users do.
    pub trusts_owner: bool,
    /// The tree that it is about; none: the tree `default`, or the first one.
    pub tree: Option<TreeName>,
}

/// Where the console listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConsoleListen {
    /// Nowhere; under the name makuosan at [`DEFAULT_CONSOLE`], when that is free.
    #[default]
    Default,
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

impl ConsoleListen {
    /// `off`, or an address with its port.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            address => address.parse().ok().map(Self::At),
        }
    }
}

impl ConsoleConfig {
    /// Refuses a console that others than this machine reach, unless that is said in words and a password guards it.
    pub fn check(&self) -> std::result::Result<(), String> {
        match self.listen {
            ConsoleListen::At(at)
                if !(at.ip().is_loopback() || self.remote && self.password.is_some()) =>
            {
                Err(format!(
                    "other machines reach {at}, and whoever reaches the console can change files on all hosts: \
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
    /// The name that specs use.
    pub name: TreeName,
    /// The directory; absolute.
    pub path: PathBuf,
    /// What no release touches.
    pub protect: PathFilter,
    /// The same as it was written, lines of .gitignore.
    pub protect_patterns: Vec<String>,
    /// The host's own limit of deletions; the stricter of it and the release's holds.
    pub max_delete: Option<Limit>,
    /// How many releases are kept for rollback.
    pub keep: u32,
    /// How old the release may be before the host warns: somebody may keep deploys from it.
    pub max_age: Option<Duration>,
    /// From and to whom a release goes that was missed.
    pub catch_up: CatchUp,
    /// How often it is looked whether the tree is still what its release says, and made so again.
    pub repair: Option<Duration>,
    /// What the host runs around a commit.
    pub hooks: Hooks,
    /// Whether a release may exchange the tree as a whole (layout `swap`): a confined daemon then reaches the directory
    /// that the tree is in. `None`: where it reaches that anyway.
    pub swap: Option<bool>,
    /// Whether a daemon that runs as another user keeps the right to make devices.
    pub devices: bool,
    /// Whether its path may lead through symbolic links of any user, not only root's and the daemon's.
    pub follow_links: bool,
}

/// Whether a host takes a release that it missed from those that have it, and to whom it gives its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// It takes nothing and gives nothing.
    Off,
    /// It takes, and gives to hosts of its group: to nobody without a group key, since it cannot tell who asks.
    #[default]
    Group,
    /// It takes, and gives to anybody who asks.
    Anyone,
}

impl CatchUp {
    /// Whether the host takes a release that it missed.
    pub fn takes(self) -> bool {
        self != CatchUp::Off
    }

    /// Whether the host gives its release to others, in a group whose datagrams are `sealed` or not.
    pub fn gives(self, sealed: bool) -> bool {
        self == CatchUp::Anyone || (self == CatchUp::Group && sealed)
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
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
    /// A host without a file: no tree.
    fn default() -> Self {
        Self {
            path: DEFAULT_CONFIG.into(),
            name: None,
            authorized_keys: DEFAULT_AUTHORIZED_KEYS.into(),
            state_dir: None,
            socket: DEFAULT_SOCKET.into(),
            sandbox: Sandbox::default(),
            socket_group: None,
            sender_key: None,
            console: ConsoleConfig::default(),
            network: NetworkConfig::default(),
            trees: Vec::new(),
        }
    }
}

impl TreeConfig {
    /// A tree with nothing but name and place, as `--tree NAME=DIR` gives it.
    pub fn new(name: TreeName, path: PathBuf) -> Self {
        let protect = PathFilter::default();
        let (keep, hooks) = (DEFAULT_KEEP, Hooks::default());
        let (swap, devices, catch_up) = (None, false, CatchUp::default());
        let (protect_patterns, max_delete, max_age, repair) = (Vec::new(), None, None, None);

        Self {
            name,
            path,
            protect,
            protect_patterns,
            max_delete,
            keep,
            max_age,
            catch_up,
            repair,
            hooks,
            swap,
            devices,
            follow_links: false,
        }
    }
}

impl HostConfig {
    /// Reads and checks the file `path`, which nobody but root and the user who runs may have written.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_document(&Document::load_strictly(
            path,
            "configuration",
            Readers::All,
        )?)
    }

    /// The place of the group key when no other is named: beside the configuration.
    pub fn default_group_key(&self) -> PathBuf {
        self.path.with_file_name(GROUP_KEY)
    }

    /// Names the group key at its default place, unless others are named or datagrams are not sealed.
    pub fn seal_by_default(&mut self) {
        if self.network.group_keys.is_empty() && !self.network.plain {
            self.network.group_keys.push(self.default_group_key());
        }
    }

    /// The configuration that `text` is, as if it stood in the file `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        Self::from_document(&Document::new(path, text.to_string()))
    }
}

/// One of the two files that a person writes.
#[derive(Debug)]
pub enum AnyFile {
    /// What to release.
    Spec(Box<Spec>),
    /// What a host is.
    Config(Box<HostConfig>),
}

/// Reads `path` as what its keys make of it. A file with neither's keys is read as a spec.
pub fn detect(path: &Path) -> Result<AnyFile> {
    let document = Document::load(path, "spec or configuration")?;
    let top = document.top(crate::spec::KEYS)?;
    let is_spec = top.has("source") || !parse::looks_like_config(top);
    if is_spec {
        Spec::from_document(&document).map(|s| AnyFile::Spec(Box::new(s)))
    } else {
        HostConfig::from_document(&document).map(|c| AnyFile::Config(Box::new(c)))
    }
}

#[cfg(test)]
mod tests;
