//! Arguments of log, status and members, questions to all hosts.

use std::time::Duration;

use clap::Args;

use super::shared::{NetworkArgs, QueryArgs, positive_duration};
use crate::id::TreeName;

/// `makuo log`
#[derive(Debug, Args)]
#[command(after_help = "\
A * marks the release that runs. A host can return to the releases it keeps.
Exit codes:
  0  every host with the tree answered
  3  no host answered, or none has the tree
  4  some hosts are alive and did not answer
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
A host is behind if another host runs a newer release that is meant for it.
Exit codes, for monitors:
  0  every host is well
  1  some host is behind, split, drifted, unhealthy or failed, or its release is old, was taken
     back or stopped
  3  no host answered, or none has the tree
  4  some hosts are alive and did not answer
Examples:
  makuo status                                  every host and tree
  makuo status www                              one tree only
  makuo status --watch                          again and again, until Ctrl-C")]
pub struct StatusArgs {
    /// Only this tree [default: all]
    #[arg(value_name = "TREE")]
    pub tree: Option<TreeName>,
    /// Repetition.
    #[command(flatten)]
    pub watch: LookArgs,
    /// Options for the answers.
    #[command(flatten)]
    pub query: QueryArgs,
}

/// Option that repeats a look at the fleet.
#[derive(Debug, Args)]
pub struct LookArgs {
    /// Look again every few seconds until Ctrl-C: redrawn on a terminal, elsewhere a line for each
    /// change
    #[arg(short = 'w', long)]
    pub watch: bool,
}

/// `makuo members`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0  some hosts answered
  3  no host answered")]
pub struct MembersArgs {
    /// Repetition.
    #[command(flatten)]
    pub watch: LookArgs,
    /// Time to listen for answers
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = positive_duration)]
    pub wait: Duration,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}
