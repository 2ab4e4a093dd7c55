//! Arguments of send and sync, requests to the local daemon.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::shared::{MessageArgs, PreviewArgs, ReadingArgs, TargetArgs};
use crate::id::TreeName;

/// `makuo send`
#[derive(Debug, Args)]
#[command(after_help = "\
Paths are absolute or relative to the tree, not to the working directory. Quoted wildcards are \
expanded in the tree. The daemon signs with its own [sender] key: access to its control socket is \
enough, without a key or rights on the network.
Examples:
  makuo send index.html 'img/*.png'             these files, to every host that has the tree
  makuo send -r -n sub                          only show what would change below sub
  makuo send -r -t 'web*' .                     all of the tree, to web hosts only
  makuo send new.conf --to etc/site.conf        under another name, on this host as well")]
pub struct SendArgs {
    /// Delete extra files under the paths on the others
    #[arg(short = 'D', long, conflicts_with = "to")]
    pub delete: bool,
    /// Put the path at another place in the tree, on every host, this one among them; into a
    /// directory if PATH ends with a slash
    #[arg(long, value_name = "PATH", value_hint = ValueHint::Other)]
    pub to: Option<std::ffi::OsString>,
    /// Shared options.
    #[command(flatten)]
    pub adhoc: AdhocArgs,
}

/// `makuo sync`
#[derive(Debug, Args)]
#[command(after_help = "\
A path that no longer exists here is deleted on the others.
Examples:
  makuo sync -r sub                             make sub on the others what it is here
  makuo sync -r -n .                            only show what would change or be deleted")]
pub struct SyncArgs {
    /// Shared options.
    #[command(flatten)]
    pub adhoc: AdhocArgs,
}

/// Options shared by send and sync.
#[derive(Debug, Args)]
pub struct AdhocArgs {
    /// Files and directories of the tree
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub paths: Vec<std::ffi::OsString>,
    /// Include the content of directories
    #[arg(short, long)]
    pub recursive: bool,
    /// Preview.
    #[command(flatten)]
    pub preview: PreviewArgs,
    /// Targets.
    #[command(flatten)]
    pub select: TargetArgs,
    /// Message.
    #[command(flatten)]
    pub about: MessageArgs,
    /// Tree, if this host has several and no path selects one
    #[arg(long, value_name = "NAME")]
    pub tree: Option<TreeName>,
    /// Exclude paths that match this line in .gitignore syntax (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Largest number of deletions on one host [default: 50% of a whole tree, no limit for paths]
    #[arg(long, value_name = "N|N%")]
    pub max_delete: Option<crate::units::Limit>,
    /// Thoroughness.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Control socket of the daemon [default: the configuration's]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
}
