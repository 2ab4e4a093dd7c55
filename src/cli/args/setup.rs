//! Arguments of the commands for one machine: init, keygen, daemon, check, and the generated texts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, ValueHint};

use super::shared::NetworkArgs;
use crate::id::{HostName, TreeName};

/// `makuo check`
#[derive(Debug, Args)]
#[command(after_help = "\
A configuration is checked together with this machine: what would keep the daemon from starting, \
or from serving a tree, is an error. Files of keys are checked and explained, too.
Examples:
  makuo check www.toml                          what the spec means
  makuo check /etc/makuo/makuo.toml             the file, and this machine
  makuo check --elsewhere makuo.toml            a file for another machine
  makuo check /etc/makuo/authorized_keys        who may do what")]
pub struct CheckArgs {
    /// A spec, a host's configuration, authorized_keys, a group key or a deploy key
    #[arg(value_name = "SPEC|CONFIG", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Check a configuration without this machine: it is for another one
    #[arg(long)]
    pub elsewhere: bool,
}

/// `makuo init`
#[derive(Debug, Args)]
#[command(after_help = "\
The file for the hosts is text: read it before you use it. It holds the group key, a secret.
Examples:
  makuo init www=/var/www                       creates deploy.key, group.key and host.toml
                                                in ~/.config/makuo
  scp ~/.config/makuo/host.toml root@web1:
  ssh root@web1 makuo init --host host.toml     writes makuo.toml, authorized_keys and group.key
                                                into /etc/makuo")]
pub struct InitArgs {
    /// Trees for the hosts to manage: a name, and its directory on the hosts
    #[arg(value_name = "TREE=DIR", value_parser = tree_at, required_unless_present = "host")]
    pub trees: Vec<TreeAt>,
    /// Unpack this host file, beside the configuration named by --config
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["trees", "output", "key"]
    )]
    pub host: Option<PathBuf>,
    /// Path of the host file [default: ~/.config/makuo/host.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Existing deploy key to use, or its .pub [default: ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Overwrite files with other content
    #[arg(long)]
    pub force: bool,
}

/// `makuo keygen`
#[derive(Debug, Args)]
#[command(after_help = "\
Without flags both keys go to ~/.config/makuo, where commands expect them; an existing one is kept.
The line for the hosts' authorized_keys goes to standard output:
  makuo keygen >> authorized_keys
Keys from ssh-keygen -t ed25519 and Ed25519 keys in ssh-agent work as deploy keys, too.
A group key is one file, the same on every host and every machine that runs commands:
  makuo keygen --group -o group.key             for /etc/makuo/group.key on every host,
                                                or network.group_key")]
pub struct KeygenArgs {
    /// Path of the key, a deploy key unless --group is given; the public half gets .pub
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Comment in the public key [default: user@host]
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Overwrite an existing deploy key; with --group, a group key
    #[arg(long)]
    pub force: bool,
    /// Create only a deploy key, which signs releases
    #[arg(long, conflicts_with = "group")]
    pub deploy: bool,
    /// Create only a group key, which seals every datagram; hosts accept only datagrams sealed with
    /// it
    #[arg(long, conflicts_with = "comment")]
    pub group: bool,
}

/// `makuo daemon`
#[derive(Debug, Args)]
#[command(after_help = "\
Flags override the configuration. SIGTERM ends cleanly, SIGHUP reloads keys and configuration.
Examples:
  makuo daemon                                              as /etc/makuo/makuo.toml says
  makuo daemon --tree www=/var/www --authorized-keys keys   without a configuration")]
pub struct DaemonArgs {
    /// Manage DIR as the tree `default`
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub base: Option<PathBuf>,
    /// Manage DIR as the tree NAME (repeatable)
    #[arg(long = "tree", value_name = "NAME=DIR", value_parser = tree_at)]
    pub trees: Vec<TreeAt>,
    /// Name of this host [default: the system's]
    #[arg(long)]
    pub name: Option<HostName>,
    /// Directory for staging, on the trees' filesystem [default: .makuo beside each tree]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Keys that may deploy and audit [default: /etc/makuo/authorized_keys]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Run as this user
    #[arg(short, long)]
    pub user: Option<String>,
    /// Run as this group
    #[arg(long, value_name = "GROUP")]
    pub run_group: Option<String>,
    /// Address of the makuosan console [default: off]
    #[arg(long, value_name = "ADDR:PORT|off")]
    pub console: Option<String>,
    /// Path of the control socket [default: /run/makuo/makuo.sock]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Address of the page and the metrics [default: off]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `--tree NAME=DIR`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeAt {
    /// Name of the tree.
    pub name: TreeName,
    /// Directory of the tree.
    pub path: PathBuf,
}

/// `makuo demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Show it on a network without multicast: the hosts find each other from web1
    #[arg(long)]
    pub no_multicast: bool,
}

/// `makuo completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell of the script
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `makuo complete`, which scripts call: not a command for people, so neither help nor completions
/// have it.
#[derive(Debug, Parser)]
#[command(name = "makuo complete")]
pub struct CompleteCli {
    /// The host's configuration
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kind of names to list
    #[arg(value_enum)]
    pub what: Completed,
}

/// Kinds of names for completion scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Completed {
    /// Names of the other hosts.
    Hosts,
    /// Names of the trees, here and on other hosts.
    Trees,
}

/// `makuo man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages; created if missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

fn tree_at(text: &str) -> Result<TreeAt, String> {
    let (name, path) = text
        .split_once('=')
        .ok_or("write NAME=DIR, such as www=/var/www")?;
    if path.is_empty() {
        return Err("the directory is missing: write NAME=DIR".to_string());
    }

    Ok(TreeAt {
        name: TreeName::new(name).map_err(|e| e.to_string())?,
        path: path.into(),
    })
}
