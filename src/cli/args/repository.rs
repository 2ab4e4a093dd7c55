//! Arguments of publish, pull and repo.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::release::serial;
use super::shared::RateArgs;
use crate::id::{HostName, Serial, TreeName};
use crate::repository::head::HeadValidity;
use crate::units::parse_duration;

/// Forms of a repository's URL, for help texts.
const URL_HELP: &str = "\
A URL is s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/PATH,
file:///DIR or a directory such as ./repo. Credentials come from where the provider's own tools
take them: the environment, ~/.aws, the instance's role. Other stores with Amazon's interface:
s3://BUCKET/PREFIX?endpoint=https://HOST";

/// `makuo publish`
#[derive(Debug, Args)]
#[command(after_help = format!("\
Hosts take the release from the repository with `makuo pull`, or by themselves with `repository`
in a [[tree]] of their configuration. If the repository has this content as its newest release, only
the head is signed again, with a later time: a timer may run this as often as it likes. Without the
source at hand, `makuo repo renew` does so.
{URL_HELP}
Examples:
  makuo publish www.toml --to s3://releases/fleet
  makuo publish www.toml --to s3://releases/fleet --valid-for 7d
  makuo publish www.toml --to /srv/www/releases         which nginx serves"))]
pub struct PublishArgs {
    /// The spec: a TOML file with the content, targets and rules of the release
    #[arg(value_name = "SPEC", value_hint = ValueHint::FilePath)]
    pub spec: PathBuf,
    /// Repository
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub to: String,
    /// Signing key: an OpenSSH file, or a .pub with its private half in the agent [default: the
    /// spec's, $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Keys whose releases this one may follow, beside the signing key's own [default: the
    /// configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Number of releases that the repository keeps [default: as before, at least 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub keep: Option<u8>,
    /// Hosts take nothing from the repository when this time is over, unless the head is signed
    /// again: somebody may withhold releases. `off` is for ever [default: as before]
    #[arg(long, value_name = "DURATION|off", value_parser = validity)]
    pub valid_for: Option<HeadValidity>,
    /// Publish a new release although nothing changed: hosts that failed try again
    #[arg(long)]
    pub again: bool,
    /// Read everything that the repository has of the tree, and store again what is missing or
    /// damaged. Earlier releases that cannot be mended in this way leave the repository
    #[arg(long)]
    pub repair: bool,
    /// Delete files outside the release, regardless of the spec
    #[arg(long, overrides_with = "no_delete")]
    pub delete: bool,
    /// Delete nothing, regardless of the spec
    #[arg(long, overrides_with = "delete")]
    pub no_delete: bool,
    /// Re-read and re-hash every file of the source, and have hosts do the same
    #[arg(long)]
    pub checksum: bool,
    /// Continue although a filesystem in the source is no longer mounted: its files are missing
    /// from the release
    #[arg(long)]
    pub yes_unmounted: bool,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `makuo pull`
#[derive(Debug, Args)]
#[command(after_help = format!("\
Verifies the newest release, stages it and switches to it, as a daemon does: with the same keys,
journal, limits and hooks. No daemon is needed, and none may serve the tree meanwhile. A [[tree]]
of the configuration with this name and directory gives its rules.
{URL_HELP}
Examples:
  makuo pull https://releases.example/fleet www /var/www
  makuo pull s3://releases/fleet www /var/www --authorized-keys /etc/makuo/authorized_keys"))]
pub struct PullArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Tree to pull
    #[arg(value_name = "TREE")]
    pub tree: TreeName,
    /// Directory of the tree; created if missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Take a release although the repository is stale: its head has not been signed again in time
    #[arg(long)]
    pub allow_stale: bool,
    /// Pull once and end, which is the default
    #[arg(long)]
    pub once: bool,
    /// Name of this host [default: the configuration's, else the system's]
    #[arg(long)]
    pub name: Option<HostName>,
    /// Directory for staging, on the tree's filesystem [default: .makuo beside the tree]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Keys that may release the tree [default: the configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options for reaching a store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store options")]
pub struct StoreArgs {
    /// Certificates in PEM form to trust besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca_file: Option<PathBuf>,
    /// Rate limit.
    #[command(flatten)]
    pub limit: RateArgs,
}

/// `makuo repo`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct RepoArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: RepoAction,
}

/// Actions on a repository as a whole.
#[derive(Debug, Subcommand)]
pub enum RepoAction {
    /// List the trees and their releases
    List(RepoListArgs),
    /// Hash every byte, and follow every release
    Check(RepoCheckArgs),
    /// Delete what no release refers to any more
    Gc(RepoGcArgs),
    /// Copy everything to another store or a disk
    Copy(RepoCopyArgs),
    /// Sign heads again, for a later time
    Renew(RepoRenewArgs),
    /// Publish an earlier release again, under a new serial
    Rollback(RepoRollbackArgs),
}

/// `makuo repo list`
#[derive(Debug, Args)]
pub struct RepoListArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Only this tree; without it the store has to be able to list its objects
    #[arg(long, value_name = "TREE")]
    pub tree: Option<TreeName>,
    /// Keys that may release the trees [default: the configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `makuo repo check`
#[derive(Debug, Args)]
pub struct RepoCheckArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Keys that may release the trees [default: the configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `makuo repo gc`
#[derive(Debug, Args)]
#[command(after_help = "\
With --key it also moves what is left of packs that are mostly dead, and with --keep it drops old
releases. Hosts that pull meanwhile go on with the new places. Heads stay as old as they are:
`makuo repo renew` signs them for a later time.")]
pub struct RepoGcArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Key to sign new heads with: an OpenSSH file, or a .pub with its private half in the agent
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Number of releases to keep of each tree [default: all that publishers kept]
    #[arg(long, value_name = "N", requires = "key",
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub keep: Option<u8>,
    /// Keep what is younger than this: a publisher may be about to refer to it
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub grace: Duration,
    /// Delete what is older than that although the repository has no tree: its first publication
    /// never ended
    #[arg(long)]
    pub no_trees: bool,
    /// Keys that may release the trees [default: the configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `makuo repo copy`
#[derive(Debug, Args)]
#[command(after_help = "\
Copies what the destination lacks; a newer head there stays.
Example:
  makuo repo copy s3://releases/fleet /mnt/usb/releases")]
pub struct RepoCopyArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub from: String,
    /// Its copy
    #[arg(value_name = "URL2", value_hint = ValueHint::Url)]
    pub to: String,
    /// Keys that may release the trees: heads by others are refused [default: any key]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `makuo repo renew`
#[derive(Debug, Args)]
#[command(after_help = "\
Neither the spec nor the source is needed. A head that is older than one that this machine has \
signed or seen there is refused: the store may withhold the newer one.
Examples:
  makuo repo renew s3://releases/fleet www              as long as before, counted from now
  makuo repo renew s3://releases/fleet --valid-for 7d   all trees")]
pub struct RepoRenewArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Trees; without any, the store has to be able to list its objects
    #[arg(value_name = "TREE")]
    pub trees: Vec<TreeName>,
    /// Time until the new head is stale; `off` is never [default: as before]
    #[arg(long, value_name = "DURATION|off", value_parser = validity)]
    pub valid_for: Option<HeadValidity>,
    /// Options for signing.
    #[command(flatten)]
    pub sign: HeadSignArgs,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `makuo repo rollback`
#[derive(Debug, Args)]
#[command(after_help = "\
Hosts that pull from the repository take it with their next look. Its content is there already, so \
neither the source nor a host is needed. `makuo rollback` does the same for the hosts of a network.
Examples:
  makuo repo rollback s3://releases/fleet www
  makuo repo rollback s3://releases/fleet www --to 17")]
pub struct RepoRollbackArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Tree to roll back
    #[arg(value_name = "TREE")]
    pub tree: TreeName,
    /// Release to return to [default: the newest one before with other content]
    #[arg(long, value_name = "SERIAL", value_parser = serial, value_hint = ValueHint::Other)]
    pub to: Option<Serial>,
    /// Number of releases that the repository keeps [default: as before, at least 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub keep: Option<u8>,
    /// Options for signing.
    #[command(flatten)]
    pub sign: HeadSignArgs,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Options for signing a head.
#[derive(Debug, Args)]
pub struct HeadSignArgs {
    /// Key to sign with: an OpenSSH file, or a .pub with its private half in the agent [default:
    /// $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Keys whose heads and releases may be signed again, beside the signing key's own [default:
    /// the configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
}

/// Parses the time for which a head holds.
fn validity(text: &str) -> Result<HeadValidity, String> {
    if text == "off" {
        return Ok(HeadValidity::Endless);
    }

    let time = parse_duration(text).map_err(|e| e.to_string())?;
    match u32::try_from(time.as_secs()) {
        Ok(0) => Err("less than a second".to_string()),
        Ok(seconds) => Ok(HeadValidity::For(seconds)),
        Err(_) => Err("too long: write off for a head without an end".to_string()),
    }
}
