//! Arguments of repo.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::release::serial;
use super::repository::{HistoryArgs, StoreArgs, validity};
use super::shared::{CosignArgs, MessageArgs};
use crate::id::{Serial, TreeName};
use crate::repository::head::HeadValidity;
use crate::units::parse_duration;

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
    /// Keys of heads.
    #[command(flatten)]
    pub keys: TreeKeysArgs,
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
    /// Keys of heads.
    #[command(flatten)]
    pub keys: TreeKeysArgs,
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
    /// Keys of heads.
    #[command(flatten)]
    pub keys: TreeKeysArgs,
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
    /// Message.
    #[command(flatten)]
    pub about: MessageArgs,
    /// Cosigners.
    #[command(flatten)]
    pub cosign: CosignArgs,
    /// Length of the history.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// Options for signing.
    #[command(flatten)]
    pub sign: HeadSignArgs,
    /// Options for the store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Keys whose heads are taken for those of their trees.
#[derive(Debug, Args)]
pub struct TreeKeysArgs {
    /// Keys that may release the trees [default: the configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Option<PathBuf>,
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
