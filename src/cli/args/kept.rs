//! Arguments of show, and the place of kept releases.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::shared::QueryArgs;

/// `makuo show`
#[derive(Debug, Args)]
#[command(after_help = "\
Entries and files are read on a host that keeps the release, by root or the daemon's user, or from \
a repository. Elsewhere the hosts tell who made a release and who keeps it.
Examples:
  makuo show www@17                             who made it, when, what for
  makuo show -v www@17                          its entries as well
  makuo show www@17:css/site.css                a file of it, to standard output
  makuo show www --from s3://releases/fleet     the newest release of a repository")]
pub struct ShowArgs {
    /// A release, such as www@17, or a file of it; without a number the present release
    #[arg(value_name = "TREE[@N][:PATH]", value_hint = ValueHint::Other)]
    pub release: OsString,
    /// List the entries, as -v does
    #[arg(long)]
    pub paths: bool,
    /// Place of the release.
    #[command(flatten)]
    pub kept: KeptArgs,
    /// Options for the answers.
    #[command(flatten)]
    pub query: QueryArgs,
}

/// `makuo pin` and `makuo unpin`
#[derive(Debug, Args)]
#[command(after_help = "\
A pin holds on this host alone: run it on each host that is to keep the release, by root or the \
daemon's user. The host then keeps all content that later releases replace, beyond `keep`, until \
the pin ends. `makuo log` shows pins. In a repository a pin is part of the tree's head, which is \
signed again: publications and `makuo repo gc --keep` leave the release alone, and `makuo repo \
list` shows the pin.
Examples:
  makuo pin www@17
  makuo unpin www@17
  makuo pin www@17 --repository s3://releases/fleet")]
pub struct PinArgs {
    /// A release that this host, or the repository, keeps, such as www@17
    #[arg(value_name = "TREE@N", value_hint = ValueHint::Other)]
    pub release: OsString,
    /// Repository in which the release stays, instead of this host
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub repository: Option<String>,
    /// Key to sign with: an OpenSSH file, or a .pub with its private half in the agent [default:
    /// $MAKUO_KEY, ~/.config/makuo/deploy.key]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath,
          requires = "repository")]
    pub key: Option<PathBuf>,
    /// Keys whose heads may be signed again, beside the signing key's own [default: the
    /// configuration's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "repository")]
    pub authorized_keys: Option<PathBuf>,
    /// Certificates in PEM form to trust for --repository besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "repository")]
    pub ca_file: Option<PathBuf>,
}

/// Place of kept releases.
#[derive(Debug, Args)]
pub struct KeptArgs {
    /// Repository to read releases from [default: the state of this host]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub from: Option<String>,
    /// Certificates in PEM form to trust for --from besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "from")]
    pub ca_file: Option<PathBuf>,
}
