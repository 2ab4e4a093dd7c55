//! Options shared by several commands: each is declared once, here, and flattened elsewhere.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use crate::config::PeerName;
use crate::manifest::ReleaseMessage;
use crate::spec::Expect;
use crate::units::{Rate, parse_duration};

/// Options for reaching the other hosts.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Network options")]
pub struct NetworkArgs {
    /// Interface to use, by name or address; several with commas or by repetition
    #[arg(long = "interface", value_name = "NAME|ADDR", value_delimiter = ',')]
    pub interfaces: Vec<String>,
    /// Hosts to start from where multicast does not reach, with a port if it is not 5001; they name
    /// the others
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub peers: Vec<PeerName>,
    /// Send and receive no multicast: all hosts are found from those of --peers
    #[arg(long)]
    pub no_multicast: bool,
    /// Multicast group [default: 224.0.0.108]
    #[arg(long, value_name = "ADDR", value_parser = multicast)]
    pub group: Option<IpAddr>,
    /// UDP port [default: 5000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// TTL of datagrams: 1 for this link only, one more for each router, with a --group that
    /// routers forward, such as 239.255.0.108 [default: 1]
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
    /// Only hosts with a name that matches this glob, or a label such as zone=a (repeatable)
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

/// Option that describes a release.
#[derive(Debug, Args)]
pub struct MessageArgs {
    /// What the release changes, in one line, for `makuo log`; signed with it
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<ReleaseMessage>,
}

/// Option for further signatures.
#[derive(Debug, Args)]
pub struct CosignArgs {
    /// Key that signs the release as well, for hosts with require_signatures (repeatable)
    #[arg(long = "cosign", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub keys: Vec<PathBuf>,
}

/// Option that previews a session.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// Print the changes on every host without making them
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// Option that makes hosts read more.
#[derive(Debug, Args)]
pub struct ReadingArgs {
    /// Make hosts re-read and re-hash every file instead of trusting size, mtime and ctime
    #[arg(long)]
    pub checksum: bool,
}

/// Options for a question to all hosts.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Time to wait for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = positive_duration)]
    pub wait: Duration,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// Options for the hosts of a session: how many, how long, how thorough, and where.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Fail unless N target hosts answer; known: all targets of earlier deploys from here
    #[arg(long, value_name = "N|known")]
    pub expect: Option<Expect>,
    /// Longest time for a host to answer or make progress
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_duration)]
    pub timeout: Duration,
    /// Thoroughness.
    #[command(flatten)]
    pub reading: ReadingArgs,
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
    #[arg(long, conflicts_with = "no_delete")]
    pub delete: bool,
    /// Delete nothing, regardless of the spec
    #[arg(long)]
    pub no_delete: bool,
    /// Options for the hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
}

/// Parses a duration that is not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|e| e.to_string())? {
        Duration::ZERO => Err("no time at all: write a duration such as 500ms, 30s or 2h".into()),
        duration => Ok(duration),
    }
}

fn multicast(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "not an IP address".to_string())?;
    if address.is_multicast() {
        Ok(address)
    } else {
        Err("not a multicast address, such as 224.0.0.108".to_string())
    }
}
