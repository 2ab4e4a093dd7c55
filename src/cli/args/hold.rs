//! Arguments of hold and release.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::shared::{QueryArgs, positive_duration};
use crate::id::TreeName;

/// `makuo hold`
#[derive(Debug, Args)]
#[command(after_help = "\
A held host stages releases and does not commit them, by deploys, catch-up or repairs: a deploy \
names it as refused. Afterwards it catches up. Without HOST the trees of this machine are held, \
through its daemon; hosts elsewhere follow an order by a key that may deploy.
Exit codes:
  0  every host followed
  3  none did
  4  some did
Examples:
  makuo hold --for 4h --why 'database move'     this machine
  makuo hold 'web*' --tree www --for 30m --why 'load test'
  makuo release 'web*' --tree www               ends it early")]
pub struct HoldArgs {
    /// Places.
    #[command(flatten)]
    pub place: HoldPlaceArgs,
    /// Length of the hold; at most 90d
    #[arg(long = "for", value_name = "DURATION", value_parser = positive_duration)]
    pub length: Duration,
    /// Reason, for those whose deploy meets the hold
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    pub why: String,
    /// Who holds it [default: the user and this machine]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Username)]
    pub by: Option<String>,
}

/// `makuo release`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  makuo release                                 this machine
  makuo release web3 --tree www")]
pub struct ReleaseArgs {
    /// Places.
    #[command(flatten)]
    pub place: HoldPlaceArgs,
}

/// Hosts and trees of a hold.
#[derive(Debug, Args)]
pub struct HoldPlaceArgs {
    /// Hosts, by name or glob [default: this machine]
    #[arg(value_name = "HOST", value_hint = ValueHint::Hostname)]
    pub hosts: Vec<String>,
    /// Only this tree [default: all trees of these hosts]
    #[arg(long, value_name = "TREE")]
    pub tree: Option<TreeName>,
    /// Key to sign the order with: an OpenSSH file, or a .pub with its private half in the agent
    /// [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Control socket of this machine's daemon [default: the configuration's]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Options for the answers.
    #[command(flatten)]
    pub query: QueryArgs,
}
