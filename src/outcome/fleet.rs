//! The releases of a fleet and the state of every host: plain data.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::session::ExitStatus;
use crate::block::BlockHash;
use crate::id::{HostName, Labels, NamedHost, Serial, TreeName, matches_host};
use crate::manifest::{ReleaseId, ReleaseMessage};
use crate::units::{ByteSize, WallTime};
use crate::wire::hold::HeldReport;
use crate::wire::message::Tombstone;
use crate::wire::query::{Drifted, RepositoryTrouble, StagedReport, Stale, TreeActivity, Trouble};

/// The releases of one tree that the fleet knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseLog {
    /// Name of the tree.
    pub tree: TreeName,
    /// Hosts that have the tree and answered, by name.
    pub hosts: Vec<NamedHost>,
    /// Labels of those with any.
    pub labels: BTreeMap<NamedHost, Labels>,
    /// Hosts that have the tree and did not answer.
    pub silent: Vec<NamedHost>,
    /// Hosts that name a release and show no header for it: an old makuo, or a lie.
    pub unshown: Vec<NamedHost>,
    /// Releases, the newest first.
    pub releases: Vec<LogRelease>,
}

/// A release that some hosts run or keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRelease {
    /// Serial of the release.
    pub serial: Serial,
    /// Identity of the release.
    pub id: ReleaseId,
    /// Set if the sender aborted or reverted the release, so that no host may pass it on.
    pub tombstone: Option<Tombstone>,
    /// Time of the release, by its sender's clock.
    pub created: WallTime,
    /// Fingerprint of the signing key; `None` if no host's copy of the signature holds.
    pub key: Option<String>,
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: ByteSize,
    /// Hash of the release's effect on a tree; releases with the same hash are one in the history.
    pub content: BlockHash,
    /// True for a release of a part of the tree.
    pub part: bool,
    /// Globs of the hosts that the release is meant for; `None` for all hosts, or if no host that
    /// runs it says so.
    pub targets: Option<Vec<String>>,
    /// What it changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// Hosts that run the release.
    pub running: Vec<NamedHost>,
    /// Running hosts that show the header with a valid signature.
    pub shown: Vec<NamedHost>,
    /// Hosts that have a tombstone of the release.
    pub buried: Vec<NamedHost>,
    /// Hosts that keep the release for a rollback, including those that run it.
    pub kept: Vec<NamedHost>,
    /// Hosts that keep it until somebody ends its pin.
    pub pinned: Vec<NamedHost>,
}

impl ReleaseLog {
    /// Newest release that a host runs and that has no tombstone.
    pub fn newest(&self) -> Option<Serial> {
        self.releases
            .iter()
            .filter(|r| !r.running.is_empty() && r.tombstone.is_none())
            .map(|r| r.serial)
            .max()
    }

    /// Returns whether hosts run another release of the same serial.
    pub fn is_split(&self, release: &LogRelease) -> bool {
        let runs = |r: &LogRelease| {
            !r.running.is_empty() && r.serial == release.serial && r.tombstone.is_none()
        };
        runs(release) && self.releases.iter().any(|r| runs(r) && r.id != release.id)
    }

    /// Returns whether all hosts that run a release have the content of the newest one meant for
    /// them.
    pub fn is_newest(&self, release: &LogRelease) -> bool {
        release.running.iter().all(|host| {
            self.newest_for(host)
                .is_some_and(|newest| newest.content == release.content)
        })
    }

    /// Labels of a host that answered.
    pub fn labels_of(&self, host: &NamedHost) -> &Labels {
        self.labels.get(host).unwrap_or(Labels::none())
    }

    /// Newest release without a tombstone that a host runs and that is meant for `host`.
    fn newest_for(&self, host: &NamedHost) -> Option<&LogRelease> {
        let labels = self.labels_of(host);
        let selects = |pattern: &String| matches_host(pattern, &host.name, Some(labels));
        let is_for = |r: &&LogRelease| {
            let targets = r.targets.as_ref();
            targets.is_none_or(|patterns| patterns.iter().any(selects))
        };
        let running = self.releases.iter();
        running
            .filter(|r| !r.running.is_empty() && r.tombstone.is_none())
            .filter(is_for)
            .max_by_key(|r| r.serial)
    }

    /// Hosts that run no release.
    pub fn without(&self) -> Vec<NamedHost> {
        self.hosts
            .iter()
            .filter(|host| !self.releases.iter().any(|r| r.running.contains(host)))
            .cloned()
            .collect()
    }
}

/// State of one tree on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Name of the host.
    pub host: HostName,
    /// Name, with the address if another host has the same name.
    pub named: NamedHost,
    /// Address that the host sends from.
    pub address: SocketAddr,
    /// Labels of the host.
    pub labels: Labels,
    /// Name of the tree.
    pub tree: TreeName,
    /// The host's answer; `None` if the host is alive and did not answer.
    pub status: Option<TreeStatus>,
    /// Newest running release without a tombstone, if this host has an older one.
    pub behind: Option<Serial>,
    /// Tombstone of the release that the host runs.
    pub tombstone: Option<Tombstone>,
    /// Hosts that run another release of the same serial.
    pub split: Vec<NamedHost>,
    /// True if the host is behind and the hosts with the newest release have only parts of the
    /// tree.
    pub stranded: bool,
    /// Whole release below the newest part, if this host has the part without the whole.
    pub lacks: Option<Serial>,
    /// Earlier parts that other hosts have and this host lacks.
    pub lacks_parts: Vec<Serial>,
}

impl Standing {
    /// Returns whether a session works on the tree.
    pub fn at_work(&self) -> bool {
        self.status
            .as_ref()
            .is_some_and(|status| status.work.is_some())
    }

    /// Returns whether a release, or a part of one, is missing.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some() || self.lacks.is_some() || !self.lacks_parts.is_empty()
    }

    /// Returns whether the last drift check found paths that differ from the release.
    pub fn has_drift(&self) -> bool {
        let drifted = self.status.as_ref().and_then(|status| status.drifted);
        drifted.and_then(|drifted| drifted.paths).unwrap_or(0) > 0
    }

    /// Returns whether the last attempt at a release failed, and no commit followed.
    pub fn has_failed(&self) -> bool {
        let trouble = |status: &TreeStatus| status.trouble.is_some();
        self.status.as_ref().is_some_and(trouble)
    }

    /// Returns whether the host answered and nobody has to look at its tree.
    pub fn is_well(&self) -> bool {
        let is_current =
            |status: &TreeStatus| status.stale.is_none() && status.repository.is_none();
        let is_torn = self.tombstone.is_some() || !self.split.is_empty();

        self.status.as_ref().is_some_and(is_current)
            && !self.is_behind()
            && !self.has_failed()
            && !self.has_drift()
            && !is_torn
    }
}

/// Exit status of `makuo status`: a difference at any host, unless some hosts did not answer.
pub fn standings_status(standings: &[Standing]) -> ExitStatus {
    if standings.iter().any(|standing| standing.status.is_none()) {
        return ExitStatus::Mixed;
    }
    match standings.iter().all(Standing::is_well) {
        true => ExitStatus::Success,
        false => ExitStatus::Drift,
    }
}

/// Exit status of `makuo log`: a list is complete, or some hosts did not answer.
pub fn log_status(log: &ReleaseLog) -> ExitStatus {
    match log.silent.is_empty() {
        true => ExitStatus::Success,
        false => ExitStatus::Mixed,
    }
}

/// A host's answer about a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeStatus {
    /// Current release of the tree.
    pub running: Option<Serial>,
    /// Identity of that release, if the host says it.
    pub release: Option<ReleaseId>,
    /// Work in progress.
    pub work: Option<TreeActivity>,
    /// Last failure, unless a commit followed.
    pub trouble: Option<Trouble>,
    /// Set if the release is older than the host allows.
    pub stale: Option<Stale>,
    /// Result of the last drift check.
    pub drifted: Option<Drifted>,
    /// What keeps the tree from following its repository.
    pub repository: Option<RepositoryTrouble>,
    /// Newest release that this host sent from the tree.
    pub sent: Option<Serial>,
    /// What the current release changes, in its author's words.
    pub message: Option<ReleaseMessage>,
    /// Release that the host keeps staged.
    pub staged: Option<StagedReport>,
    /// Hold of the tree.
    pub held: Option<HeldReport>,
    /// Whether the current release fails its checks.
    pub unhealthy: bool,
}

impl TreeStatus {
    /// Returns whether the host runs this release, and not another one of the same serial.
    pub fn runs(&self, serial: Serial, id: ReleaseId) -> bool {
        self.running == Some(serial) && self.release.is_none_or(|release| release == id)
    }
}
