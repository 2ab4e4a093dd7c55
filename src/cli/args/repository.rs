//! Arguments of publish, pull and repo.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::shared::RateArgs;
use crate::id::{HostName, TreeName};
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
in a [[tree]] of their configuration.
{URL_HELP}
Examples:
  makuo publish www.toml --to s3://releases/fleet
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
    /// Number of releases that the repository keeps
    #[arg(long, value_name = "N", default_value = "3",
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub keep: u8,
    /// Publish again within this time, or hosts warn that releases may be withheld
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub valid_for: Option<Duration>,
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
With --key it also drops old releases, and moves what is left of packs that are mostly dead. Hosts
that pull meanwhile go on with the new places.")]
pub struct RepoGcArgs {
    /// Repository
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub url: String,
    /// Key to sign new heads with: an OpenSSH file, or a .pub with its private half in the agent
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Number of releases to keep of each tree
    #[arg(long, value_name = "N", default_value = "3", requires = "key",
          value_parser = clap::value_parser!(u8).range(1..=16))]
    pub keep: u8,
    /// Time until a new head is stale
    #[arg(long, value_name = "DURATION", requires = "key", value_parser = parse_duration)]
    pub valid_for: Option<Duration>,
    /// Keep what is younger than this: a publisher may be about to refer to it
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub grace: Duration,
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
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}
