//! Facts of a release that every output for scripts has.

use serde::Serialize;

use crate::id::NamedHost;
use crate::outcome::LogRelease;

/// Facts of a release, and the hosts that run or keep it.
#[derive(Debug, Default, Serialize)]
pub struct ReleaseSummary {
    /// Serial of the release.
    pub serial: u64,
    /// Time of the release in seconds since 1970, by its sender's clock.
    pub created: i64,
    /// Fingerprint of the signing key; `None` if the signature does not hold.
    pub key: Option<String>,
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// True for a release of a part of the tree.
    pub part: bool,
    /// Hosts that run it.
    pub running: Vec<String>,
    /// Hosts that keep it for a rollback.
    pub kept: Vec<String>,
}

impl ReleaseSummary {
    /// Facts of a release in the log of a fleet.
    pub fn of(release: &LogRelease) -> Self {
        Self {
            serial: release.serial.0,
            created: release.created.0,
            key: release.key.clone(),
            entries: release.entries,
            bytes: release.bytes.0,
            part: release.part,
            running: names(&release.running),
            kept: names(&release.kept),
        }
    }
}

/// Names of hosts for scripts.
pub(super) fn names(hosts: &[NamedHost]) -> Vec<String> {
    hosts.iter().map(ToString::to_string).collect()
}
