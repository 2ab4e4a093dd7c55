//! Arguments of deploy, watch, diff, rollback, commit, promote and abort.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::kept::KeptArgs;
use super::shared::{
    CosignArgs, HostArgs, MessageArgs, PreviewArgs, RateArgs, SessionArgs, TargetArgs,
    positive_duration,
};
use crate::id::{Serial, TreeName};
use crate::spec::{BatchRule, OnFailure};
use crate::units::{Limit, Quorum, parse_duration};

/// `makuo deploy`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  makuo deploy manifests/www.toml               put it on every host that has the tree
  makuo deploy -n manifests/www.toml            only show what would change
  makuo deploy -m 'fix css' www.toml            say what it changes, for `makuo log`
  makuo deploy -t 'web*' --expect 3 www.toml    only on web hosts, and only when 3 answer
  makuo deploy --stage manifests/www.toml       now only stage it; `makuo commit` follows")]
pub struct DeployArgs {
    /// Preview.
    #[command(flatten)]
    pub preview: PreviewArgs,
    /// Message.
    #[command(flatten)]
    pub about: MessageArgs,
    /// Cosigners.
    #[command(flatten)]
    pub cosign: CosignArgs,
    /// Continue although a filesystem in the source is no longer mounted: its files are missing
    /// from the release
    #[arg(long)]
    pub yes_unmounted: bool,
    /// Allow this many deletions on a host, for this release alone, in place of the spec's limit. A
    /// host's own max_delete holds all the same
    #[arg(long, value_name = "N|N%", conflicts_with = "no_delete")]
    pub allow_deletes: Option<Limit>,
    /// Run health checks even on hosts without changes
    #[arg(long)]
    pub recheck: bool,
    /// Wait this long for another deploy of the tree to end, instead of being refused at once
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub wait: Option<Duration>,
    /// Stage the release and stop: hosts keep it, over restarts, until `makuo commit` or `makuo
    /// abort`, until it expires, or until a newer release takes its place
    #[arg(long, conflicts_with_all = ["dry_run", "recheck", "to"])]
    pub stage: bool,
    /// Publish the release to this repository as well, once the hosts have it: for hosts that come
    /// later
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, conflicts_with = "dry_run")]
    pub to: Option<String>,
    /// Certificates in PEM form to trust for --to besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "to")]
    pub ca_file: Option<PathBuf>,
    /// Shared options.
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `makuo watch`
#[derive(Debug, Args)]
#[command(after_help = "\
SIGTERM and Ctrl-C end it after the current batch, a second one at once. SIGHUP reloads the spec, \
SIGUSR1 rescans the source. A failed host does not hold up the others, unless the spec sets \
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
    /// Message.
    #[command(flatten)]
    pub about: MessageArgs,
    /// Shared options; --checksum applies to the first deploy.
    #[command(flatten)]
    pub session: SessionArgs,
}

/// `makuo diff`
#[derive(Debug, Args)]
#[command(after_help = "\
Two releases are compared on a host that keeps both, or in a repository.
Examples:
  makuo diff manifests/www.toml                 exit code 1 when a host drifts
  makuo diff --checksum manifests/www.toml      trust no timestamp
  makuo diff www@16 www@17                      what www@17 changed
  makuo diff --json www.toml | grep '\"change\"'")]
pub struct DiffArgs {
    /// Shared options.
    #[command(flatten)]
    pub session: SessionArgs,
    /// The later of two releases, such as www@17; the first stands in place of SPEC
    #[arg(value_name = "RELEASE", value_hint = ValueHint::Other)]
    pub other: Option<OsString>,
    /// Place of the releases.
    #[command(flatten)]
    pub kept: KeptArgs,
}

/// `makuo rollback`
#[derive(Debug, Args)]
#[command(after_help = "\
On a host that keeps the release, it also serves hosts that did not keep it; elsewhere all hosts \
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
    #[arg(long, value_name = "SERIAL", value_parser = serial, value_hint = ValueHint::Other)]
    pub to: Option<Serial>,
    /// Preview.
    #[command(flatten)]
    pub preview: PreviewArgs,
    /// Message.
    #[command(flatten)]
    pub about: MessageArgs,
    /// Cosigners.
    #[command(flatten)]
    pub cosign: CosignArgs,
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

/// `makuo commit`
#[derive(Debug, Args)]
#[command(after_help = "\
Only the key that signed the release can commit it. Nothing is sent: a host that does not keep the \
release staged, or whose tree was changed since, is not ready. With --require it can be left out, \
and takes the release from the others afterwards. Without enough ready hosts the release stays \
staged.
Examples:
  makuo commit www@17                           on every host that it is for
  makuo commit www@17 --batch 1 --batch 50%     canaries first
  makuo commit www@17 --require 90%             without the hosts that are away")]
pub struct CommitArgs {
    /// Staged release
    #[arg(value_name = "TREE@SERIAL", value_parser = release_name)]
    pub release: ReleaseName,
    /// Hosts that have to be ready: all, a number or a share
    #[arg(long, value_name = "all|N|N%", default_value = "all")]
    pub require: Quorum,
    /// Hosts that commit first; repeat it for the next batches, the rest follows last
    #[arg(long = "batch", value_name = "N|N%|PATTERN", value_delimiter = ',')]
    pub batches: Vec<BatchRule>,
    /// What follows the failure of a hook or health check after the commit: stop commits no further
    /// batch, revert takes every host back
    #[arg(long, value_name = "stop|revert", default_value = "stop", value_parser = on_failure)]
    pub on_failure: OnFailure,
    /// Run health checks even on hosts without changes
    #[arg(long)]
    pub recheck: bool,
    /// Options of an order.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `makuo promote`
#[derive(Debug, Args)]
#[command(after_help = "\
For a release whose spec has batches and pause = true: its deploy stages it on all hosts and \
commits it on the first batch. The batches are part of the signed release, so any machine with its \
key can go on. Hosts that do not keep it staged wait, and take it from the others once the last \
batch has it. While a host that has it fails its checks, no further batch is due. `makuo commit` \
goes on without pauses, `makuo abort` drops it where it is staged, and `makuo rollback --to` takes \
every host back.
It refuses another batch than that of --batch, as when somebody else was faster; fewer hosts than \
--expect says; and without --expect a batch that may come too early because fewer hosts answer \
than the release was made for.
Examples:
  makuo promote www                             the next batch
  makuo promote www@17 --batch 2                the second batch, or none
  makuo promote www --require 90%               though some hosts of the batch are not ready")]
pub struct PromoteArgs {
    /// Staged release [default: the only one of the tree]
    #[arg(value_name = "TREE[@SERIAL]", value_parser = release_or_tree)]
    pub release: (TreeName, Option<Serial>),
    /// Number of the batch to commit; refused if another one is next
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Hosts of a batch that have to be ready, and well before the next batch: all, a number or a
    /// share [default: the spec's]
    #[arg(long, value_name = "all|N|N%")]
    pub require: Option<Quorum>,
    /// What follows the failure of a hook or health check after the commit: stop leaves the hosts
    /// as they are, revert takes every host back [default: the spec's]
    #[arg(long, value_name = "stop|revert", value_parser = on_failure)]
    pub on_failure: Option<OnFailure>,
    /// Run health checks even on hosts without changes
    #[arg(long)]
    pub recheck: bool,
    /// Key that signed the release: an OpenSSH file, or a .pub with its private half in the agent
    /// [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Options for the hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
}

/// `makuo abort`
#[derive(Debug, Args)]
#[command(after_help = "\
Only the key that signed the release can abort it. No host takes an aborted release afterwards, \
not even from hosts that have committed it.
Examples:
  makuo abort www                               the release that hosts keep staged
  makuo abort www@17                            this one")]
pub struct AbortArgs {
    /// Staged release [default: the only one of the tree]
    #[arg(value_name = "TREE[@SERIAL]", value_parser = release_or_tree)]
    pub release: (TreeName, Option<Serial>),
    /// Options of an order.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Options of an order about a staged release.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Targets.
    #[command(flatten)]
    pub select: TargetArgs,
    /// Key that signed the release: an OpenSSH file, or a .pub with its private half in the agent
    /// [default: $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Options for the hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
}

/// A release by tree and serial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseName {
    /// The tree.
    pub tree: TreeName,
    /// Its serial.
    pub serial: Serial,
}

/// Parses `www@12`.
fn release_name(text: &str) -> Result<ReleaseName, String> {
    match release_or_tree(text)? {
        (tree, Some(serial)) => Ok(ReleaseName { tree, serial }),
        (tree, None) => Err(format!(
            "no serial: write {tree}@17, as `makuo status` shows it"
        )),
    }
}

/// Parses `www@12` or `www`.
fn release_or_tree(text: &str) -> Result<(TreeName, Option<Serial>), String> {
    let (tree, number) = match text.split_once('@') {
        Some((tree, number)) => (tree, Some(serial(number)?)),
        None => (text, None),
    };
    let tree = TreeName::new(tree).map_err(|e| e.to_string())?;
    Ok((tree, number))
}

fn on_failure(text: &str) -> Result<OnFailure, String> {
    match text {
        "stop" => Ok(OnFailure::Stop),
        "revert" => Ok(OnFailure::Revert),
        _ => Err("stop or revert".to_string()),
    }
}

/// Parses a serial, alone or in a release name: `12`, `www@12`.
pub(super) fn serial(text: &str) -> Result<Serial, String> {
    let number = text.rsplit_once('@').map_or(text, |(_, number)| number);
    number
        .parse()
        .map(Serial)
        .map_err(|_| "not the number of a release, such as 12".to_string())
}
