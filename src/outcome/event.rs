//! Events of a session, for an observer.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::drift::DriftLine;
use super::member::MemberInfo;
use super::progress::ProgressReport;
use super::state::HostState;
use crate::id::{HostName, NamedHost, Serial, TreeName};
use crate::units::ByteSize;

/// Receives the events of a session, in order.
pub trait Observer {
    /// Takes one event. Must be cheap and must not fail: a closed output may not stop a deploy.
    fn event(&mut self, event: &Event);
}

/// Discards all events.
#[derive(Debug)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event) {}
}

/// One event of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A live host.
    Member(MemberInfo),
    /// The source was scanned.
    Scanned(ScanSummary),
    /// The release was signed.
    Released(MadeRelease),
    /// A host entered a state.
    Host(HostChange),
    /// A path differs from the release on some hosts.
    Change(PathDifference),
    /// Progress of the session, in intervals.
    Progress(ProgressReport),
    /// Paths of the release other than directories, if requested.
    Files(Vec<Vec<u8>>),
    /// Any other message for the user.
    Note(String),
}

/// Totals of a scan of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSummary {
    /// Entries of all kinds.
    pub entries: u64,
    /// Bytes in all files.
    pub bytes: ByteSize,
    /// Bytes read because the index did not know them.
    pub hashed: ByteSize,
    /// Duration of the scan.
    pub took: Duration,
}

/// A release that was made and signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeRelease {
    /// Name of the tree.
    pub tree: TreeName,
    /// Serial of the release.
    pub serial: Serial,
    /// Fingerprint of the signing key: `SHA256:...`.
    pub fingerprint: String,
    /// Earlier release restored by a rollback.
    pub rollback_to: Option<Serial>,
}

/// A host's new state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostChange {
    /// Name of the host.
    pub host: HostName,
    /// Address, if another host has the same name.
    pub address: Option<IpAddr>,
    /// Current state.
    pub state: HostState,
    /// Reason of a failure.
    pub error: Option<String>,
}

/// A path that differs on some hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathDifference {
    /// Hosts, sorted by name.
    pub hosts: Vec<NamedHost>,
    /// Path and difference.
    pub line: DriftLine,
}
