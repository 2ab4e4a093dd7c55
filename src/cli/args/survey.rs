//! Arguments of log, status and members, questions to all hosts.

use std::time::Duration;

use clap::Args;

use super::shared::{NetworkArgs, QueryArgs};
use crate::id::TreeName;
use crate::units::parse_duration;

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
    /// Options for the answers.
    #[command(flatten)]
    pub query: QueryArgs,
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
    /// Options for the answers.
    #[command(flatten)]
    pub query: QueryArgs,
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
