//! The raw command line: what may be said, as clap reads it. One source for parsing, help, man pages and completions.
//!
//! Owns names, order and help texts of flags. Must not act: each command's own file resolves its arguments to options.

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
    /// What every command takes.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Print one JSON object a line; the last is the result
    #[arg(long, global = true)]
    pub json: bool,
    /// Tell more; twice for debugging
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Results and errors only
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
    /// How to report.
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

/// The commands that exist.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put the spec's release on every target host
    Deploy(DeployArgs),
    /// The live mode: deploy, then a release for each quiet batch of changes
    Watch(WatchArgs),
    /// Audit drift: what in each host's tree differs from the spec's source
    Diff(DiffArgs),
    /// Back to an earlier release, on every host
    Rollback(RollbackArgs),
    /// The releases that the fleet knows: serial, time, key, files, bytes, who runs and who keeps them
    Log(LogArgs),
    /// The hosts, their release, state and last error
    Status(StatusArgs),
    /// The hosts alive now: name, address, version, trees
    Members(MembersArgs),
    /// Ad hoc: files of this host's tree to the same place on the others, through the daemon that runs here
    Send(SendArgs),
    /// As send, and delete on the others what is extra under the paths
    Sync(SyncArgs),
    /// Say what is wrong with a spec or a configuration, or what it means
    Check(CheckArgs),
    /// Make the keys of a group and one file for all of its hosts; unpack that file on a host
    Init(InitArgs),
    /// Make a deploy key in OpenSSH's format, and a group key
    Keygen(KeygenArgs),
    /// The host's service: receives releases; runs in the foreground
    Daemon(DaemonArgs),
    /// Three hosts on this machine's loopback, one real deploy, and what to try next
    Demo(DemoArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
    /// What completion scripts ask of the daemon that runs here
    #[command(hide = true)]
    Complete(CompleteArgs),
    /// Write the man pages into a directory
    Man(ManArgs),
}

/// How the other hosts are reached.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Network options")]
pub struct NetworkArgs {
    /// The interface to use, by name or address; several with commas or by repetition
    #[arg(long = "interface", value_name = "NAME|ADDR", value_delimiter = ',')]
    pub interfaces: Vec<String>,
    /// The multicast group [default: 224.0.0.108]
    #[arg(long, value_name = "ADDR", value_parser = multicast)]
    pub group: Option<IpAddr>,
    /// The UDP port [default: 5000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// How many routers a datagram may pass, and one [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub ttl: Option<u8>,
    /// The group key: what is sent is sealed with it, and nothing else is heard. Repeated while a group changes over:
    /// seal with the first, open with any
    #[arg(long = "group-key", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub group_keys: Vec<PathBuf>,
    /// Go without a group key: anybody on the network can read what is sent, and lie about hosts
    #[arg(long, conflicts_with = "group_keys")]
    pub plain: bool,
}

/// What deploy and diff have in common.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// The spec: a TOML file that says what goes where
    #[arg(value_name = "SPEC", value_hint = ValueHint::FilePath)]
    pub spec: PathBuf,
    /// Only hosts whose name matches this glob (repeatable)
    #[arg(short, long = "target", value_name = "PATTERN")]
    pub targets: Vec<String>,
    /// The key to sign with: an OpenSSH file, or a .pub whose private half the agent holds [default: the spec's,
    /// $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Ceiling of the rate, such as 500Mbit or 60MB
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
    /// Delete what the release does not have, whatever the spec says
    #[arg(long, overrides_with = "no_delete")]
    pub delete: bool,
    /// Delete nothing, whatever the spec says
    #[arg(long, overrides_with = "delete")]
    pub no_delete: bool,
    /// Fail unless N target hosts answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub expect: Option<u32>,
    /// Give a host this long to answer or progress
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Hosts re-read and re-hash every file instead of trusting size, mtime and ctime
    #[arg(long)]
    pub checksum: bool,
    /// Keep out a host that shows another key than its name had before, instead of warning; new hosts are taken. With
    /// require = "all" such a host ends the deploy with exit code 3 until its line is deleted
    #[arg(long)]
    pub strict_host_keys: bool,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `makuo deploy`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  makuo deploy manifests/www.toml               put it on every host that has the tree
  makuo deploy -n manifests/www.toml            only say what would change
  makuo deploy -t 'web*' --expect 3 www.toml    only on web hosts, and only when 3 answer")]
pub struct DeployArgs {
    /// Print what every host would change; change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Go on although a filesystem in the source is not mounted any more: what was on it is missing from the release
    #[arg(long)]
    pub yes_unmounted: bool,
    /// Run health checks also on hosts where nothing changes
    #[arg(long)]
    pub recheck: bool,
    /// The rest.
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `makuo watch`
#[derive(Debug, Args)]
#[command(after_help = "\
SIGTERM and Ctrl-C end it after the batch that is under way, a second one without it. SIGHUP reads the spec again,
SIGUSR1 looks at everything again. A host that fails does not hold up the others, unless the spec sets commit.require.
Examples:
  makuo watch www.toml                          until it is stopped
  makuo watch --settle 2s --max-delay 30s www.toml
  makuo watch --pause-file /run/hold www.toml   gathers changes while /run/hold exists")]
pub struct WatchArgs {
    /// End as soon as it is quiet
    #[arg(long)]
    pub once: bool,
    /// Deploy nothing before something changes
    #[arg(long)]
    pub no_initial: bool,
    /// While this file exists deploy nothing, and gather
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub pause_file: Option<PathBuf>,
    /// A batch is over when nothing has changed for so long
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = parse_duration)]
    pub settle: Duration,
    /// A batch is over so long after its first change; files that are still being written stay for a later one
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub max_delay: Duration,
    /// The rest; --checksum is for the first deploy.
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
    /// All of it.
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `makuo rollback`
#[derive(Debug, Args)]
#[command(after_help = "\
Run it on a host that keeps the release, and hosts that did not keep it get their data from there; anywhere else it
works as long as all of them kept it.
Examples:
  makuo rollback www                  back to the release before
  makuo rollback www --to 12          back to www@12
  makuo rollback -n www               only say what would change")]
pub struct RollbackArgs {
    /// The tree
    pub tree: TreeName,
    /// The release to go back to [default: the newest earlier one that all hosts that run the present one had]
    #[arg(long, value_name = "SERIAL", value_parser = serial)]
    pub to: Option<Serial>,
    /// Print what every host would change; change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Only hosts whose name matches this glob (repeatable)
    #[arg(short, long = "target", value_name = "PATTERN")]
    pub targets: Vec<String>,
    /// The key to sign with: an OpenSSH file, or a .pub whose private half the agent holds [default: $MAKUO_KEY,
    /// ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Whose releases may be signed again, beside those of the key that signs [default: the configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Ceiling of the rate, such as 500Mbit or 60MB
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
    /// Fail unless N target hosts answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub expect: Option<u32>,
    /// Give a host this long to answer or progress
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Hosts re-read and re-hash every file instead of trusting size, mtime and ctime
    #[arg(long)]
    pub checksum: bool,
    /// Keep out a host that shows another key than its name had before, instead of warning; new hosts are taken. With
    /// require = "all" such a host ends the deploy with exit code 3 until its line is deleted
    #[arg(long)]
    pub strict_host_keys: bool,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `makuo members`
#[derive(Debug, Args)]
pub struct MembersArgs {
    /// How long to listen for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub wait: Duration,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `makuo send`
#[derive(Debug, Args)]
#[command(after_help = "\
Paths are absolute, or taken from the tree's directory, not from the present one. Wildcards in quotes are expanded there.
The daemon signs with its own [sender] key: who may use its control socket needs neither a key nor rights on the network.
Examples:
  makuo send index.html 'img/*.png'             these files, to every host that has the tree
  makuo send -r -n sub                          only say what would change below sub
  makuo send -r -t 'web*' .                     all of the tree, to web hosts only")]
pub struct SendArgs {
    /// Delete on the others what is extra under the paths
    #[arg(short = 'D', long)]
    pub delete: bool,
    /// The rest.
    #[command(flatten)]
    pub adhoc: AdhocArgs,
}

/// `makuo sync`
#[derive(Debug, Args)]
#[command(after_help = "\
A path that is not here any more is deleted on the others.
Examples:
  makuo sync -r sub                             sub is on the others what it is here
  makuo sync -r -n .                            only say what would change, and go")]
pub struct SyncArgs {
    /// All of it.
    #[command(flatten)]
    pub adhoc: AdhocArgs,
}

/// What send and sync have in common.
#[derive(Debug, Args)]
pub struct AdhocArgs {
    /// Files and directories of the tree
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub paths: Vec<std::ffi::OsString>,
    /// Directories with what is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Print what every host would change; change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Only hosts whose name matches this glob (repeatable)
    #[arg(short, long = "target", value_name = "PATTERN")]
    pub targets: Vec<String>,
    /// The tree, when this host has several and no path says which
    #[arg(long, value_name = "NAME")]
    pub tree: Option<TreeName>,
    /// Leave out what matches; a line of .gitignore (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// The most deletions on one host [default: 50% of a whole tree, no limit for paths]
    #[arg(long, value_name = "N|N%")]
    pub max_delete: Option<crate::units::Limit>,
    /// Hosts re-read and re-hash every file instead of trusting size, mtime and ctime
    #[arg(long)]
    pub checksum: bool,
    /// The daemon's control socket [default: as the configuration says]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
}

/// `makuo log`
#[derive(Debug, Args)]
#[command(after_help = "\
A * marks what runs. What a host keeps can be rolled back to there.
Examples:
  makuo log www                                 one line a release, the newest first
  makuo log --json www | grep '\"release\"'")]
pub struct LogArgs {
    /// The tree
    #[arg(value_name = "TREE")]
    pub tree: TreeName,
    /// How long to wait for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub wait: Duration,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `makuo status`
#[derive(Debug, Args)]
#[command(after_help = "\
A host is behind when it does not run the newest release that any host runs.
Examples:
  makuo status                                  every host and tree
  makuo status www                              one tree only")]
pub struct StatusArgs {
    /// Only this tree [default: all]
    #[arg(value_name = "TREE")]
    pub tree: Option<TreeName>,
    /// How long to wait for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    pub wait: Duration,
    /// The network.
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
The file for the hosts is text: read it before you use it. It holds the group key, which is a secret.
Examples:
  makuo init www=/var/www                       makes ~/.config/makuo/deploy.key, group.key and host.toml
  scp ~/.config/makuo/host.toml root@web1:
  ssh root@web1 makuo init --host host.toml     writes makuo.toml, authorized_keys and group.key into /etc/makuo")]
pub struct InitArgs {
    /// Trees that the hosts are to manage: a name, and its directory on the hosts
    #[arg(value_name = "TREE=DIR", value_parser = tree_at, required_unless_present = "host")]
    pub trees: Vec<TreeAt>,
    /// Unpack this host file, beside the configuration that --config names
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["trees", "output", "key"])]
    pub host: Option<PathBuf>,
    /// Where the host file goes [default: ~/.config/makuo/host.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// A deploy key that you have, or its .pub [default: ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Overwrite files that say something else
    #[arg(long)]
    pub force: bool,
}

/// `makuo keygen`
#[derive(Debug, Args)]
#[command(after_help = "\
Without flags both keys go to ~/.config/makuo, where commands look for them; one that is there stays.
The line for the hosts' authorized_keys goes to standard output:
  makuo keygen >> authorized_keys
ssh-keygen -t ed25519 makes deploy keys that serve as well, and so does any Ed25519 key in ssh-agent.
A group key is one file, the same on every host and wherever commands are run:
  makuo keygen --group -o group.key             for /etc/makuo/group.key on every host, or network.group_key")]
pub struct KeygenArgs {
    /// Where the key goes, a deploy key unless --group is said; its public half gets .pub
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// A remark in the public key [default: user@host]
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Overwrite a deploy key that exists; with --group, a group key
    #[arg(long)]
    pub force: bool,
    /// Make only a deploy key: it signs releases
    #[arg(long, conflicts_with = "group")]
    pub deploy: bool,
    /// Make only a group key: every datagram is sealed with it, and only those who have it are heard
    #[arg(long, conflicts_with = "comment")]
    pub group: bool,
}

/// `makuo daemon`
#[derive(Debug, Args)]
#[command(after_help = "\
Flags override the configuration. SIGTERM ends cleanly, SIGHUP reads keys and configuration again.
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
    /// This host's name [default: the system's]
    #[arg(long)]
    pub name: Option<HostName>,
    /// Where releases are staged; on the trees' filesystem [default: .makuo beside each tree]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Who may deploy and audit [default: /etc/makuo/authorized_keys]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Run as this user
    #[arg(short, long)]
    pub user: Option<String>,
    /// Run as this group
    #[arg(long, value_name = "GROUP")]
    pub run_group: Option<String>,
    /// Where the console of makuosan listens [default: off]
    #[arg(long, value_name = "ADDR:PORT|off")]
    pub console: Option<String>,
    /// The control socket [default: /run/makuo/makuo.sock]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Not supported yet; here so that it is refused and not ignored.
    #[arg(long, value_name = "ADDR:PORT", hide = true)]
    pub metrics: Option<SocketAddr>,
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `--tree NAME=DIR`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeAt {
    /// The tree's name.
    pub name: TreeName,
    /// Its directory.
    pub path: PathBuf,
}

/// `makuo demo`
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// `makuo completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `makuo complete`
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// What is to be listed
    #[arg(value_enum)]
    pub what: Completed,
}

/// What completion scripts ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Completed {
    /// The names of the other hosts.
    Hosts,
    /// The names of the trees, here and there.
    Trees,
}

/// `makuo man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory; made when it is missing
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

/// A number, or the name of a release: `12`, `www@12`.
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
        let Command::Diff(args) = cli.command else {
            panic!("diff")
        };
        assert!(!args.session.delete && args.session.no_delete);
    }
}
