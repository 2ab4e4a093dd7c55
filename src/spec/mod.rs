//! The spec: a TOML file with the content, targets and rules of a release.
//!
//! A [`Spec`] is legal by its type: every key is read and checked once, in `parse`; an unknown or
//! wrong key is an error with key, file and line. Features of a later version are rejected, never
//! ignored. Reads the spec file and checks for the source; does not walk the source.

pub(crate) mod document;
mod explain;
mod parse;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use parse::SPEC_KEYS;
pub(crate) use values::{patterns, read_command};

use crate::block::frame::Level;
use crate::hook::Command;
use crate::id::{HostName, TreeName, check_pattern};
use crate::manifest::entry::Mode;
use crate::manifest::rules::{Exclude, Layout, UnknownOwner};
use crate::manifest::{PausedCommit, Rules};
use crate::units::{Floor, Limit, Quorum, Rate, printable, printable_path};
use crate::{Error, Result};

/// Time for the sender's command to end.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(30);
/// Default name of the tree.
pub const DEFAULT_TREE: &str = "default";

/// Content of a spec, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Path of the spec file.
    pub path: PathBuf,
    /// Tree to release.
    pub tree: TreeName,
    /// Directory to release; relative paths start at the spec's directory.
    pub source: PathBuf,
    /// Signing key; relative paths start at the spec's directory.
    pub key: Option<PathBuf>,
    /// Excludes in .gitignore syntax, anchored at the source.
    pub exclude: Vec<String>,
    /// Whether the .gitignore files of the source apply too.
    pub gitignore: bool,
    /// Lifetime of the release; hosts refuse an older one.
    pub expires: Option<Duration>,
    /// Deletions on hosts.
    pub delete: Delete,
    /// Owners of written files.
    pub owner: Ownership,
    /// Permission bits of written files.
    pub mode: Modes,
    /// Other metadata of an entry.
    pub meta: Meta,
    /// Target hosts.
    pub targets: Targets,
    /// Conditions and steps of the commit.
    pub commit: Commit,
    /// Settings for the transfer.
    pub transfer: Transfer,
}

/// `[delete]`
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// Removes paths outside the release.
    pub extras: bool,
    /// Largest number of deletions on one host.
    pub max: Limit,
    /// Lets an empty source empty a tree.
    pub allow_empty: bool,
    /// Removes excluded paths too.
    pub excluded: bool,
}

/// `[owner]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Owner.
    pub user: OwnerPolicy,
    /// Group.
    pub group: OwnerPolicy,
    /// Reaction of a host to an unknown name.
    pub unknown: UnknownOwner,
}

/// Source of an owner or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// Same as in the source.
    Preserve,
    /// Not set; the user of the host's daemon.
    Ignore,
    /// This name or number.
    Fixed(String),
}

/// `[mode]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Mode of regular files.
    pub files: ModePolicy,
    /// Mode of directories.
    pub dirs: ModePolicy,
}

/// Source of permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModePolicy {
    /// Same as in the source.
    Preserve,
    /// These bits.
    Fixed(Mode),
}

/// `[meta]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Sets modification times.
    pub mtime: bool,
    /// Sets extended attributes and ACLs.
    pub xattrs: bool,
    /// Keeps hard links as hard links.
    pub hardlinks: bool,
}

/// `[targets]`
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// Globs on host names; empty for every member with the tree.
    pub hosts: Vec<String>,
    /// Hosts that must answer.
    pub expect: Option<Expect>,
}

/// Hosts that must answer before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// At least this number of target hosts.
    Count(u32),
    /// These hosts.
    Names(Vec<HostName>),
    /// The targets that took part in earlier deploys from this machine.
    Known,
}

impl std::str::FromStr for Expect {
    type Err = String;

    /// Parses a value of `--expect`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("known", _) => Ok(Self::Known),
            (_, Ok(count)) if count > 0 => Ok(Self::Count(count)),
            _ => Err("write a number of hosts, or known".to_string()),
        }
    }
}

/// `[commit]`
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Number of targets that must be staged before any commits.
    pub require: Quorum,
    /// Whether the spec sets `require` itself.
    pub require_given: bool,
    /// Layout of the switch on a host.
    pub layout: Layout,
    /// Rules of the first batch, the second and so on; the remaining targets commit in a last one.
    /// Empty for a single batch.
    pub batches: Vec<BatchRule>,
    /// Whether a person decides when each next batch commits.
    pub pause: bool,
    /// Reaction to a failure after the commit.
    pub on_failure: OnFailure,
    /// Command of the sender that reads the result.
    pub notify: Option<Command>,
}

impl Commit {
    /// The part of it that a commit with pauses puts into the header of its release.
    pub fn paused(&self) -> Option<PausedCommit> {
        self.pause.then(|| PausedCommit {
            batches: self.batches.iter().map(BatchRule::written).collect(),
            require: self.require.to_string(),
            revert: self.on_failure == OnFailure::Revert,
            hosts: None,
        })
    }
}

/// Hosts of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchRule {
    /// So many of the targets, in the order of their names.
    Size(Quorum),
    /// Those that a pattern on names or labels selects.
    Hosts(String),
}

impl From<Quorum> for BatchRule {
    fn from(size: Quorum) -> Self {
        BatchRule::Size(size)
    }
}

impl BatchRule {
    /// Returns whether `text` is a pattern that no size can be: one with a label, or of several
    /// names.
    pub(super) fn is_pattern(text: &str) -> bool {
        text.contains(['=', '*', '?', '[', '{'])
    }

    /// The rule as a spec writes it.
    pub fn written(&self) -> String {
        match self {
            BatchRule::Size(size) => size.to_string(),
            BatchRule::Hosts(pattern) => pattern.clone(),
        }
    }
}

impl std::str::FromStr for BatchRule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match Self::is_pattern(text) {
            true => check_pattern(text).map(|()| BatchRule::Hosts(text.to_string())),
            false => {
                let size = text.parse::<Quorum>().map_err(|e| e.to_string())?;
                Ok(BatchRule::Size(size))
            }
        }
    }
}

impl std::fmt::Display for BatchRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BatchRule::Size(size) => size.fmt(f),
            BatchRule::Hosts(pattern) => f.write_str(&printable(pattern.as_bytes())),
        }
    }
}

/// Reaction to a failed host once the commit has begun: a failed hook, health check or commit, or a
/// silent host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// No further batch commits; every host stays as it is and the report names the failure.
    Stop,
    /// Every host returns to its previous release.
    Revert,
}

/// `[transfer]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Rate limit; `None` for the rate of the slowest healthy host.
    pub rate: Option<Rate>,
    /// Rate below which a host is served after the others instead of slowing them down.
    pub floor: Floor,
    /// Compression of blocks.
    pub compress: Compress,
}

/// Compression of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// Only where it pays.
    Auto,
    /// Never.
    Off,
    /// At this level, for every block that shrinks.
    Level(Level),
}

impl Spec {
    /// Reads and checks the spec file. [`Spec::check_source`] checks the source.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_document(&document::Document::load(path, "spec")?)
    }

    /// Parses `text` as a spec, as if read from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        Self::from_document(&document::Document::new(path, text.to_string()))
    }

    /// Rejects a source that is missing, not a directory, or unreadable.
    pub fn check_source(&self) -> Result<()> {
        let name = printable_path(&self.source);
        let from = printable_path(&self.path);
        let hint = format!(
            "{from} names it as `source`; a relative path is taken from the spec's own directory"
        );
        let meta = std::fs::metadata(&self.source).map_err(|e| {
            Error::usage(format!("the source {name} cannot be released"))
                .because(e)
                .hint(&hint)
        })?;

        if !meta.is_dir() {
            return Err(Error::usage(format!("the source {name} is not a directory")).hint(hint));
        }

        std::fs::read_dir(&self.source).map(drop).map_err(|e| {
            Error::usage(format!("the source {name} cannot be read"))
                .because(e)
                .hint(hint)
        })
    }

    /// Rules of a release. The scan adds the excludes of ignore files in the source.
    pub fn rules(&self) -> Rules {
        let excludes = self
            .exclude
            .iter()
            .map(|p| Exclude::at_top(p.as_str()))
            .collect();

        Rules {
            delete_extras: self.delete.extras,
            delete_max: self.delete.max,
            allow_empty: self.delete.allow_empty,
            excludes,
            delete_excluded: self.delete.excluded,
            set_user: self.owner.user != OwnerPolicy::Ignore,
            set_group: self.owner.group != OwnerPolicy::Ignore,
            unknown_owner: self.owner.unknown,
            mtime: self.meta.mtime,
            xattrs: self.meta.xattrs,
            layout: self.commit.layout,
            hardlinks: self.meta.hardlinks,
            packed: None,
        }
    }
}

#[cfg(test)]
mod tests;
