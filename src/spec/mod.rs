//! The spec: the TOML file that says what to release, to whom and under which rules.
//!
//! A [`Spec`] is legal by its type: every key is read and checked once, in `parse`; an unknown or wrong one is an error
//! that names key, file and line. What a later version does is refused, never ignored. The room reads the spec's file
//! and looks whether the source is there; it does not walk it.

pub(crate) mod document;
mod explain;
mod parse;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use parse::KEYS;
pub(crate) use parse::patterns;

use crate::block::frame::Level;
use crate::id::{HostName, TreeName};
use crate::manifest::Rules;
use crate::manifest::entry::Mode;
use crate::manifest::rules::{Exclude, Layout, UnknownOwner};
use crate::units::{Floor, Limit, Quorum, Rate};
use crate::{Error, Result};

/// The tree of a spec that names none.
pub const DEFAULT_TREE: &str = "default";

/// What a spec says, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The file that says it.
    pub path: PathBuf,
    /// The tree to release.
    pub tree: TreeName,
    /// The directory that is released; relative ones are taken from the spec's directory.
    pub source: PathBuf,
    /// The key to sign with; relative ones are taken from the spec's directory.
    pub key: Option<PathBuf>,
    /// Lines of .gitignore, anchored at the source.
    pub exclude: Vec<String>,
    /// Whether the .gitignore files of the source count too.
    pub gitignore: bool,
    /// After this long hosts do not accept the release any more.
    pub expires: Option<Duration>,
    /// What is removed from hosts.
    pub delete: Delete,
    /// Who owns what is written.
    pub owner: Ownership,
    /// Permission bits of what is written.
    pub mode: Modes,
    /// What else travels with an entry.
    pub meta: Meta,
    /// Who gets it.
    pub targets: Targets,
    /// When and how hosts switch.
    pub commit: Commit,
    /// How the bytes travel.
    pub transfer: Transfer,
}

/// `[delete]`
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// Whether paths that the release does not have are removed.
    pub extras: bool,
    /// The most deletions on one host.
    pub max: Limit,
    /// Whether an empty source may empty a tree.
    pub allow_empty: bool,
    /// Whether excluded paths are removed too.
    pub excluded: bool,
}

/// `[owner]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The user.
    pub user: OwnerPolicy,
    /// The group.
    pub group: OwnerPolicy,
    /// What a host does with a name that it does not know.
    pub unknown: UnknownOwner,
}

/// Who owns what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// Who owns it in the source.
    Preserve,
    /// Nothing is set: who the host's daemon is.
    Ignore,
    /// This name, or number.
    Fixed(String),
}

/// `[mode]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Of regular files.
    pub files: ModePolicy,
    /// Of directories.
    pub dirs: ModePolicy,
}

/// Which permission bits are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModePolicy {
    /// Those of the source.
    Preserve,
    /// These.
    Fixed(Mode),
}

/// `[meta]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Whether times of modification are set.
    pub mtime: bool,
    /// Whether extended attributes and ACLs are set.
    pub xattrs: bool,
    /// Whether names of one file stay names of one file.
    pub hardlinks: bool,
}

/// `[targets]`
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// Globs on host names; empty is every member that has the tree.
    pub hosts: Vec<String>,
    /// Who has to answer.
    pub expect: Option<Expect>,
}

/// Who has to answer before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// At least so many target hosts.
    Count(u32),
    /// These hosts.
    Names(Vec<HostName>),
}

/// `[commit]`
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// How many targets must be staged before any commits.
    pub require: Quorum,
    /// Whether the spec says so itself.
    pub require_given: bool,
    /// How a host switches.
    pub layout: Layout,
    /// How many targets commit in the first batch, the second and so on; whoever is left commits in a last one.
    /// None: all commit together.
    pub batches: Vec<Quorum>,
    /// What follows when something fails after the commit.
    pub on_failure: OnFailure,
}

/// What follows when a host fails once the commit has begun: a hook or health check fails, the commit itself, or the
/// host falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// No further batch commits; every host stays as it is, and the report says so.
    Stop,
    /// Every host goes back to the release that it had.
    Revert,
}

/// `[transfer]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// The ceiling; none: as fast as the slowest healthy host takes it.
    pub rate: Option<Rate>,
    /// Below which a host is served after the others, instead of holding them.
    pub floor: Floor,
    /// Whether blocks are compressed on the way.
    pub compress: Compress,
}

/// Whether blocks are compressed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// When and as far as it gains something.
    Auto,
    /// Never.
    Off,
    /// At this level whatever shrinks.
    Level(Level),
}

impl Spec {
    /// Reads and checks the spec in the file `path`. Whether its source is there is [`Spec::check_source`]'s question.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_document(&document::Document::load(path, "spec")?)
    }

    /// The spec that `text` is, as if it stood in the file `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        Self::from_document(&document::Document::new(path, text.to_string()))
    }

    /// Refuses a source that is missing, no directory, or not readable.
    pub fn check_source(&self) -> Result<()> {
        let name = document::shown(&self.source);
        let from = document::shown(&self.path);
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

    /// The rules of a release of this spec. The scan adds what ignore files in the source exclude.
    pub fn rules(&self) -> Rules {
        Rules {
            delete_extras: self.delete.extras,
            delete_max: self.delete.max,
            allow_empty: self.delete.allow_empty,
            excludes: self
                .exclude
                .iter()
                .map(|p| Exclude::at_top(p.as_str()))
                .collect(),
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
