//! The raw command line as parsed by clap: one source for parsing, help, man pages and completions.
//!
//! Owns names, order and help texts of flags. Runs nothing: each command's own file turns its
//! arguments into options.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};

use crate::id::{HostName, Serial, TreeName};
use crate::report::{ColorChoice, Settings, Verbosity};
use crate::units::{Rate, parse_duration};

const EXIT_CODES: &str = "\
Exit codes:
  0  every target has the release, or no drift
  1  diff found drift
  2  the command line, spec or configuration is wrong; nothing was sent
  3  refused or aborted: no host changed
  4  mixed: some hosts have the release, others do not";

/// makuo: one command puts a signed release of a file tree on every server of a network at once.
#[derive(Debug, Parser)]
#[command(
    name = "makuo",
    version,
    about = "Put a signed release of a file tree on every server of a network at once",
    after_help = EXIT_CODES,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The command.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Print one JSON object a line; the last is the result
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more; twice for debugging
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub color: ColorChoice,
    /// The host's configuration [default: /etc/makuo/makuo.toml, when it exists]
    #[arg(short, long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl CommonArgs {
    /// Settings of the report.
    pub fn settings(&self) -> Settings {
        let verbosity = match self.verbose {
            _ if self.quiet => Verbosity::Quiet,
            0 => Verbosity::Normal,
            1 => Verbosity::Verbose,
            _ => Verbosity::Debug,
        };

        Settings {
            json: self.json,
            verbosity,
            color: self.color,
        }
    }
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Put the spec's release on every target host
    Deploy(DeployArgs),
    /// The live mode: deploy, then release each quiet batch of changes
    Watch(WatchArgs),
    /// Audit drift: list differences between each host's tree and the spec's source
    Diff(DiffArgs),
    /// Return every host to an earlier release
    Rollback(RollbackArgs),
    /// List the fleet's releases: serial, time, key, files, bytes, and the hosts that run or keep
    /// them
    Log(LogArgs),
    /// List the hosts with their release, state and last error
    Status(StatusArgs),
    /// List the hosts alive now: name, address, version, trees
    Members(MembersArgs),
    /// Ad hoc: send files of this host's tree to the same place on the others, through the local
    /// daemon
    Send(SendArgs),
    /// Like send, and delete extra files under the paths on the others
    Sync(SyncArgs),
    /// Report errors in a spec or a configuration, or explain it
    Check(CheckArgs),
    /// Create the keys of a group and one file for all of its hosts; unpack that file on a host
    Init(InitArgs),
    /// Create a deploy key in OpenSSH's format, and a group key
    Keygen(KeygenArgs),
    /// The host's service: receive releases; runs in the foreground
    Daemon(DaemonArgs),
    /// Run three hosts on this machine's loopback with one real deploy, and suggest next steps
    Demo(DemoArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
    /// List names for completion scripts, from the local daemon
    #[command(hide = true)]
    Complete(CompleteArgs),
    /// Write the man pages into a directory
    Man(ManArgs),
}

/// Options for reaching the other hosts.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Network options")]
pub struct NetworkArgs {
    /// Interface to use, by name or address; several with commas or by repetition
    #[arg(long = "interface", value_name = "NAME|ADDR", value_delimiter = ',')]
    pub interfaces: Vec<String>,
    /// Multicast group [default: 224.0.0.108]
    #[arg(long, value_name = "ADDR", value_parser = multicast)]
    pub group: Option<IpAddr>,
    /// UDP port [default: 5000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// TTL of datagrams: 1 for this link only, one more for each router [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub ttl: Option<u8>,
    /// Group key: seals datagrams, and only datagrams sealed with it are accepted. Repeat during a
    /// change of keys: seal with the first, open with any
    #[arg(long = "group-key", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub group_keys: Vec<PathBuf>,
    /// Go without a group key: anybody on the network can read traffic, and lie about hosts
    #[arg(long, conflicts_with = "group_keys")]
    pub plain: bool,
}

/// Option that limits the targets.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Only hosts with a name that matches this glob (repeatable)
    #[arg(short, long = "target", value_name = "PATTERN")]
    pub targets: Vec<String>,
}

/// Option that limits the rate.
#[derive(Debug, Args)]
pub struct RateArgs {
    /// Rate limit, such as 500Mbit or 60MB
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
}

/// Options for the hosts of a session: how many, how long, how thorough, and where.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Fail unless N target hosts answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub expect: Option<u32>,
    /// Longest time for a host to answer or make progress
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime
    #[arg(long)]
    pub checksum: bool,
    /// Exclude a host with a changed key, instead of warning; new hosts are accepted. With require
    /// = "all" such a host ends the deploy with exit code 3 until its line is deleted
    #[arg(long)]
    pub strict_host_keys: bool,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// Options shared by deploy, watch and diff.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The spec: a TOML file with the content, targets and rules of the release
    #[arg(value_name = "SPEC", value_hint = ValueHint::FilePath)]
    pub spec: PathBuf,
    /// Targets.
    #[command(flatten)]
    pub select: TargetArgs,
    /// Signing key: an OpenSSH file, or a .pub with its private half in the agent [default: the
    /// spec's, $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Rate limit.
    #[command(flatten)]
    pub limit: RateArgs,
    /// Delete files outside the release, regardless of the spec
    #[arg(long, overrides_with = "no_delete")]
    pub delete: bool,
    /// Delete nothing, regardless of the spec
    #[arg(long, overrides_with = "delete")]
    pub no_delete: bool,
    /// Options for the hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
}

/// `makuo deploy`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  makuo deploy manifests/www.toml               put it on every host that has the tree
  makuo deploy -n manifests/www.toml            only show what would change
  makuo deploy -t 'web*' --expect 3 www.toml    only on web hosts, and only when 3 answer")]
pub struct DeployArgs {
    /// Print the changes on every host without making them
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Continue although a filesystem in the source is no longer mounted: its files are missing
    /// from the release
    #[arg(long)]
    pub yes_unmounted: bool,
    /// Run health checks even on hosts without changes
    #[arg(long)]
    pub recheck: bool,
    /// Shared options.
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `makuo watch`
#[derive(Debug, Args)]
#[command(after_help = "\
SIGTERM and Ctrl-C end it after the current batch, a second one at once. SIGHUP reloads the spec,
SIGUSR1 rescans the source. A failed host does not hold up the others, unless the spec sets
commit.require.
Examples:
  makuo watch www.toml                          until stopped
  makuo watch --settle 2s --max-delay 30s www.toml
  makuo watch --pause-file /run/hold www.toml   collects changes while /run/hold exists")]
pub struct WatchArgs {
    /// End as soon as the source is quiet
    #[arg(long)]
    pub once: bool,
    /// Wait for a change before the first deploy
    #[arg(long)]
    pub no_initial: bool,
    /// While this file exists, collect changes without deploying
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub pause_file: Option<PathBuf>,
    /// Complete a batch after this long without changes
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = parse_duration)]
    pub settle: Duration,
    /// Complete a batch this long after its first change; files still being written wait for a
    /// later one
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub max_delay: Duration,
    /// Shared options; --checksum applies to the first deploy.
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `makuo diff`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  makuo diff manifests/www.toml                 exit code 1 when a host drifts
  makuo diff --checksum manifests/www.toml      trust no timestamp
  makuo diff --json www.toml | grep '\"change\"'")]
pub struct DiffArgs {
    /// Shared options.
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `makuo rollback`
#[derive(Debug, Args)]
#[command(after_help = "\
On a host that keeps the release, it also serves hosts that did not keep it; elsewhere all hosts
must have kept it.
Examples:
  makuo rollback www                  back to the previous release
  makuo rollback www --to 12          back to www@12
  makuo rollback -n www               only show what would change")]
pub struct RollbackArgs {
    /// Tree to roll back
    pub tree: TreeName,
    /// Release to return to [default: the newest earlier one that all hosts with the present one
    /// had]
    #[arg(long, value_name = "SERIAL", value_parser = serial)]
    pub to: Option<Serial>,
    /// Print the changes on every host without making them
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Targets.
    #[command(flatten)]
    pub select: TargetArgs,
    /// Signing key: an OpenSSH file, or a .pub with its private half in the agent [default:
    /// $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Keys whose releases may be signed again, beside the signing key's own [default: the
    /// configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Rate limit.
    #[command(flatten)]
    pub limit: RateArgs,
    /// Options for the hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
}

/// `makuo members`
#[derive(Debug, Args)]
pub struct MembersArgs {
    /// Time to listen for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub wait: Duration,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `makuo send`
#[derive(Debug, Args)]
#[command(after_help = "\
Paths are absolute or relative to the tree, not to the working directory. Quoted wildcards are
expanded in the tree. The daemon signs with its own [sender] key: access to its control socket is
enough, without a key or rights on the network.
Examples:
  makuo send index.html 'img/*.png'             these files, to every host that has the tree
  makuo send -r -n sub                          only show what would change below sub
  makuo send -r -t 'web*' .                     all of the tree, to web hosts only")]
pub struct SendArgs {
    /// Delete extra files under the paths on the others
    #[arg(short = 'D', long)]
    pub delete: bool,
    /// Shared options.
    #[command(flatten)]
    pub adhoc: AdhocArgs,
}

/// `makuo sync`
#[derive(Debug, Args)]
#[command(after_help = "\
A path that no longer exists here is deleted on the others.
Examples:
  makuo sync -r sub                             make sub on the others what it is here
  makuo sync -r -n .                            only show what would change or be deleted")]
pub struct SyncArgs {
    /// Shared options.
    #[command(flatten)]
    pub adhoc: AdhocArgs,
}

/// Options shared by send and sync.
#[derive(Debug, Args)]
pub struct AdhocArgs {
    /// Files and directories of the tree
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub paths: Vec<std::ffi::OsString>,
    /// Include the content of directories
    #[arg(short, long)]
    pub recursive: bool,
    /// Print the changes on every host without making them
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Targets.
    #[command(flatten)]
    pub select: TargetArgs,
    /// Tree, if this host has several and no path selects one
    #[arg(long, value_name = "NAME")]
    pub tree: Option<TreeName>,
    /// Exclude paths that match this line in .gitignore syntax (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Largest number of deletions on one host [default: 50% of a whole tree, no limit for paths]
    #[arg(long, value_name = "N|N%")]
    pub max_delete: Option<crate::units::Limit>,
    /// Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime
    #[arg(long)]
    pub checksum: bool,
    /// Control socket of the daemon [default: the configuration's]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
}

/// `makuo log`
#[derive(Debug, Args)]
#[command(after_help = "\
A * marks the release that runs. A host can return to the releases it keeps.
Examples:
  makuo log www                                 one line a release, the newest first
  makuo log --json www | grep '\"release\"'")]
pub struct LogArgs {
    /// Tree to list
    #[arg(value_name = "TREE")]
    pub tree: TreeName,
    /// Time to wait for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub wait: Duration,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `makuo status`
#[derive(Debug, Args)]
#[command(after_help = "\
A host is behind if another host runs a newer release.
Examples:
  makuo status                                  every host and tree
  makuo status www                              one tree only")]
pub struct StatusArgs {
    /// Only this tree [default: all]
    #[arg(value_name = "TREE")]
    pub tree: Option<TreeName>,
    /// Time to wait for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub wait: Duration,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `makuo check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A spec or a host's configuration
    #[arg(value_name = "SPEC|CONFIG", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
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
    /// Not supported yet; present so that it is rejected instead of ignored.
    #[arg(long, value_name = "ADDR:PORT", hide = true)]
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
pub struct DemoArgs {}

/// `makuo completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell of the script
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `makuo complete`
#[derive(Debug, Args)]
pub struct CompleteArgs {
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

fn multicast(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "not an IP address".to_string())?;
    if address.is_multicast() {
        Ok(address)
    } else {
        Err("not a multicast address, such as 224.0.0.108".to_string())
    }
}

/// Parses a serial, alone or in a release name: `12`, `www@12`.
fn serial(text: &str) -> Result<Serial, String> {
    let number = text.rsplit_once('@').map_or(text, |(_, number)| number);
    number
        .parse()
        .map(Serial)
        .map_err(|_| "not the number of a release, such as 12".to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_flags_stand_before_and_after_the_command() {
        for line in [
            ["makuo", "--json", "members"],
            ["makuo", "members", "--json"],
        ] {
            assert!(Cli::try_parse_from(line).is_ok_and(|cli| cli.common.json));
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        let refused = |line: &str| {
            Cli::try_parse_from(line.split(' '))
                .map(drop)
                .expect_err("refused")
                .to_string()
        };

        assert!(refused("makuo members --group 10.0.0.1").contains("not a multicast address"));
        assert!(refused("makuo daemon --tree www").contains("NAME=DIR"));
        assert!(refused("makuo deploy x --rate 60").contains("500Mbit"));
        assert!(refused("makuo deploy x --timeout soon").contains("30s"));

        assert!(refused("makuo -q -v members").contains("cannot be used with"));
    }

    #[test]
    fn the_last_of_two_opposites_holds() {
        let cli =
            Cli::try_parse_from(["makuo", "diff", "x", "--delete", "--no-delete"]).expect("legal");
        let CliCommand::Diff(args) = cli.command else {
            panic!("diff")
        };
        assert!(!args.session.delete && args.session.no_delete);
    }
}
