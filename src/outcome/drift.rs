//! Differences between a host's tree and a release.

use serde::{Deserialize, Serialize};

use crate::id::{HostName, NamedHost};

/// Difference of one path of a host from the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DriftLine {
    /// Path within the tree, as bytes.
    pub path: Vec<u8>,
    /// The difference in the eleven columns of rsync's `--itemize-changes`: `>f.st......`,
    /// `*deleting`.
    pub itemized: String,
    /// The difference in a word.
    pub what: DriftKind,
}

/// Difference of a host's path, seen from the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DriftKind {
    /// Only the release has the path.
    Missing,
    /// Another kind of entry.
    Kind,
    /// Other content or link target.
    Content,
    /// Same content, another mode.
    Mode,
    /// Same content, another owner or group.
    Owner,
    /// Same content, another modification time.
    Time,
    /// Same content, other extended attributes.
    Xattrs,
    /// Only the host has the path.
    Extra,
    /// A hard link on one side and a separate file on the other.
    Link,
}

impl DriftKind {
    /// Word for the difference in output and JSON.
    pub fn word(self) -> &'static str {
        match self {
            DriftKind::Missing => "missing",
            DriftKind::Kind => "kind",
            DriftKind::Content => "content",
            DriftKind::Mode => "mode",
            DriftKind::Owner => "owner",
            DriftKind::Time => "time",
            DriftKind::Xattrs => "xattrs",
            DriftKind::Extra => "extra",
            DriftKind::Link => "link",
        }
    }
}

/// Hosts that differ from the release in the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftGroup {
    /// Hosts, sorted by name.
    pub hosts: Vec<NamedHost>,
    /// Differences, sorted by path; may be truncated, while the three counts are exact.
    pub lines: Vec<DriftLine>,
    /// Paths on both sides that differ.
    pub changed: u64,
    /// Paths that only the host has.
    pub extra: u64,
    /// Paths that only the release has.
    pub missing: u64,
    /// Limit for which the hosts would refuse the release.
    #[serde(default)]
    pub over_limit: Option<String>,
    /// Paths of the release that the hosts protect.
    #[serde(default)]
    pub protected: ProtectedList,
}

/// Paths of a release that hosts protect, so that no release puts them there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectedList {
    /// The first paths, as bytes.
    pub paths: Vec<Vec<u8>>,
    /// Number of paths.
    pub count: u64,
}

impl DriftGroup {
    /// Counts complete `lines`.
    pub fn new(hosts: Vec<HostName>, lines: Vec<DriftLine>) -> Self {
        let hosts = hosts.into_iter().map(NamedHost::from).collect();
        let count = |of: fn(DriftKind) -> bool| lines.iter().filter(|l| of(l.what)).count() as u64;
        let extra = count(|w| w == DriftKind::Extra);
        let missing = count(|w| w == DriftKind::Missing);
        let changed = lines.len() as u64 - extra - missing;

        Self {
            hosts,
            lines,
            changed,
            extra,
            missing,
            over_limit: None,
            protected: ProtectedList::default(),
        }
    }

    /// Number of paths that differ.
    pub fn total(&self) -> u64 {
        self.changed
            .saturating_add(self.extra)
            .saturating_add(self.missing)
    }

    /// Returns whether no path differs.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Returns whether there is nothing to say of the hosts.
    pub fn is_silent(&self) -> bool {
        self.is_empty() && self.protected.count == 0
    }
}
