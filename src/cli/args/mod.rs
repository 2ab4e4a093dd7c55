//! The raw command line as parsed by clap: one source for parsing, help, man pages and completions.
//!
//! Owns names, order and help texts of flags. Runs nothing: each command's own file turns its
//! arguments into options.

mod adhoc;
mod doctor;
mod hold;
mod kept;
mod release;
mod repo;
mod repository;
mod setup;
mod shared;
mod survey;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};

use crate::report::{ColorChoice, Settings, Verbosity};

pub use adhoc::{AdhocArgs, SendArgs, SyncArgs};
pub use doctor::DoctorArgs;
pub use hold::{HoldArgs, HoldPlaceArgs, ReleaseArgs};
pub use kept::{KeptArgs, PinArgs, ShowArgs};
pub use release::{
    AbortArgs, CommitArgs, DeployArgs, DiffArgs, OrderArgs, PromoteArgs, ReleaseName, RollbackArgs,
    WatchArgs,
};
pub use repo::{
    HeadSignArgs, RepoAction, RepoArgs, RepoCheckArgs, RepoCopyArgs, RepoGcArgs, RepoListArgs,
    RepoRenewArgs, RepoRollbackArgs, TreeKeysArgs,
};
pub use repository::{PublishArgs, PullArgs, StoreArgs};
pub use setup::{
    CheckArgs, CompleteCli, Completed, CompletionsArgs, DaemonArgs, DemoArgs, InitArgs, KeygenArgs,
    ManArgs, TreeAt,
};
pub use shared::{
    CosignArgs, HostArgs, MessageArgs, NetworkArgs, PreviewArgs, QueryArgs, RateArgs, ReadingArgs,
    SessionArgs, TargetArgs,
};
pub use survey::{LogArgs, LookArgs, MembersArgs, StatusArgs};

/// Exit codes of commands that do not list their own.
pub(super) const EXIT_CODES: &str = "\
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
    /// Audit drift: list differences between each host's tree and the spec's source; or compare two
    /// releases
    Diff(DiffArgs),
    /// Commit a release that hosts keep staged
    Commit(CommitArgs),
    /// Commit a staged release on the next batch of hosts
    Promote(PromoteArgs),
    /// Abort a release that hosts keep staged
    Abort(AbortArgs),
    /// Keep hosts from committing releases for a time: they stage them, and catch up afterwards
    Hold(HoldArgs),
    /// End a hold
    Release(ReleaseArgs),
    /// Return every host to an earlier release
    Rollback(RollbackArgs),
    /// Sign a release of the spec's source and store it in a repository, for hosts to take later
    Publish(PublishArgs),
    /// Take the newest release of a tree from a repository, without a daemon
    Pull(PullArgs),
    /// Look after a repository: list, check, delete what nobody needs, copy
    Repo(RepoArgs),
    /// List the fleet's releases: serial, time, key, files, bytes, and the hosts that run or keep
    /// them
    Log(LogArgs),
    /// Show a release: who made it, its message and entries; or print one of its files
    Show(ShowArgs),
    /// Keep a release on this host, whatever comes later
    Pin(PinArgs),
    /// End the pin of a release
    Unpin(PinArgs),
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
    /// Find out why a deploy does not reach the hosts: interface, multicast, firewalls, MTU, loss,
    /// buffers, clocks, keys, disks
    Doctor(DoctorArgs),
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
    /// Write the man pages into a directory
    Man(ManArgs),
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
    fn opposites_and_no_time_at_all_are_refused() {
        for line in [
            "makuo diff x --delete --no-delete",
            "makuo diff x --no-delete --delete",
            "makuo deploy x --timeout 0s",
            "makuo status --wait 0s",
            "makuo members --wait 0ms",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
