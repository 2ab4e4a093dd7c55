//! Arguments of publish and pull.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::shared::{CosignArgs, MessageArgs, RateArgs};
use crate::id::{HostName, TreeName};
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
    /// Message.
    #[command(flatten)]
    pub about: MessageArgs,
    /// Cosigners.
    #[command(flatten)]
    pub cosign: CosignArgs,
    /// Length of the history.
    #[command(flatten)]
    pub history: HistoryArgs,
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

/// Length of a tree's history in a repository.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Number of releases that the repository keeps [default: as before, at least 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub keep: Option<u8>,
}

/// Parses the time for which a head holds.
pub(super) fn validity(text: &str) -> Result<HeadValidity, String> {
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
