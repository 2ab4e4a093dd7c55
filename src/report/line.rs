//! The lines of a session for scripts.
//!
//! Owns the names of the fields, which never change, only grow. Numbers are plain: bytes, bits a
//! second, seconds.
//!
//! Fields by event:
//! - `member`: host, address, version, trees [{tree, serial}], labels {key: value} if there are any
//! - `scanned`: entries, bytes, hashed, seconds
//! - `released`: tree, serial, key; rollback_to for an earlier release
//! - `host`: host, state, error; the last one of a host also serial, files_written, files_deleted,
//!   bytes_received, seconds
//! - `change`: hosts, path, kind (rsync's eleven columns), what (a word); path_base64 unless the
//!   path is UTF-8
//! - `limit`: hosts, refused (the limit for which they would refuse the release of a comparison)
//! - `protected`: hosts, paths (the first ones of the release that they protect), count
//! - `progress`: sent, total, rate (of the pacing), ready, targets (0 for a publication), phase,
//!   batch [number, of], measured (rate), left, elapsed, repaired, waiting (number of hosts),
//!   pending [{host, state, percent, since, why}]: some of the hosts that the phase waits for
//! - `note`: text
//! - `release` of a log: tree, serial, release (its identity), created, key, entries, bytes,
//!   running [host], kept [host], message and pinned [host] if it has any
//! - `host` of a status: host, address, tree, serial, state, at_work [serial, sender], behind,
//!   newest, error, error_serial, error_age, message of its release if it has one,
//!   labels {key: value} if there are any
//! - `result`: tree, serial, exit, targets, committed, unchanged, failed, absent, files_written,
//!   files_deleted, bytes_release, bytes_sent, repaired, rate, seconds, key; unknown if there are
//!   any; rollback_to of a rollback; message of a release with one; batch [number, of] of a commit
//!   with pauses, and next (a command) if hosts wait; error and hint after a failure
//! - `rollout` of a status: tree, serial, batch (the next one), batches, next [host],
//!   having [host], failing [host], newer [host] with a newer release,
//!   waiting [host] of other batches
//!
//! In a result `committed` counts every target that has the release, including `unchanged`, and
//! `targets` is `committed + failed + absent` after a deploy. `failed` includes `unknown`, the
//! hosts with an unknown outcome. After an audit nothing is committed and `drifted` counts the
//! hosts that differ.

use std::net::IpAddr;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use serde::Serialize;

use super::summary::promote_command;
use crate::Error;
use crate::id::{Labels, NamedHost};
use crate::manifest::ReleaseMessage;
use crate::outcome::{
    DriftGroup, DriftLine, HostChange, HostResult, HostState, MadeRelease, MemberInfo, Outcome,
    PendingHost, ProgressReport, ScanSummary,
};
use crate::units::printable;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    Member {
        host: &'a str,
        address: String,
        version: &'a str,
        trees: Vec<TreeField<'a>>,
        #[serde(skip_serializing_if = "Labels::is_empty")]
        labels: &'a Labels,
    },
    Stranger {
        address: String,
        why: &'static str,
    },
    Scanned {
        entries: u64,
        bytes: u64,
        hashed: u64,
        seconds: f64,
    },
    Released {
        tree: &'a str,
        serial: u64,
        key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        rollback_to: Option<u64>,
    },
    Host {
        host: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        state: &'static str,
        error: Option<&'a str>,
        #[serde(flatten)]
        last: Option<FinalHostLine>,
    },
    Change {
        hosts: Vec<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        addresses: Option<Vec<Option<IpAddr>>>,
        path: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        path_base64: Option<String>,
        kind: &'a str,
        what: &'static str,
    },
    Limit {
        hosts: Vec<&'a str>,
        refused: &'a str,
    },
    Protected {
        hosts: Vec<&'a str>,
        paths: Vec<String>,
        count: u64,
    },
    Progress(ProgressLine<'a>),
    Note {
        text: &'a str,
    },
    Result(ResultLine<'a>),
}

#[derive(Serialize)]
pub(super) struct TreeField<'a> {
    tree: &'a str,
    serial: Option<u64>,
}

/// Progress of a session.
#[derive(Serialize)]
pub(super) struct ProgressLine<'a> {
    sent: u64,
    total: u64,
    rate: u64,
    ready: usize,
    targets: usize,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<[usize; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<f64>,
    elapsed: f64,
    repaired: u64,
    waiting: usize,
    pending: Vec<PendingLine<'a>>,
}

/// A host that the phase waits for.
#[derive(Serialize)]
struct PendingLine<'a> {
    host: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    since: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

impl<'a> ProgressLine<'a> {
    fn of(progress: &'a ProgressReport) -> Self {
        let pending = |host: &'a PendingHost| PendingLine {
            host: host.host.name.as_str(),
            state: host.state.word(),
            percent: host.percent,
            since: seconds(host.since),
            why: host.why.as_deref(),
        };

        Self {
            sent: progress.sent.0,
            total: progress.total.0,
            rate: progress.rate.0,
            ready: progress.ready,
            targets: progress.targets,
            phase: progress.phase.word(),
            batch: progress.phase.batch().map(|(batch, of)| [batch, of]),
            measured: progress.measured.map(|rate| rate.0),
            left: progress.left.map(seconds),
            elapsed: seconds(progress.elapsed),
            repaired: progress.repaired,
            waiting: progress.waiting,
            pending: progress.pending.iter().map(pending).collect(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct FinalHostLine {
    serial: Option<u64>,
    files_written: u64,
    files_deleted: u64,
    bytes_received: u64,
    seconds: f64,
}

/// Last line of a session. The order of the fields is part of the format, so the struct stays
/// flat.
#[derive(Serialize, Default)]
pub(super) struct ResultLine<'a> {
    tree: Option<&'a str>,
    serial: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_to: Option<u64>,
    exit: u8,
    targets: usize,
    committed: usize,
    unchanged: usize,
    failed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<usize>,
    absent: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    staged: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drifted: Option<usize>,
    files_written: u64,
    files_deleted: u64,
    bytes_release: u64,
    bytes_sent: u64,
    repaired: u64,
    rate: Option<u64>,
    seconds: f64,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<[usize; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl<'a> Line<'a> {
    pub(super) fn member(member: &'a MemberInfo) -> Self {
        let trees = member
            .trees
            .iter()
            .map(|t| TreeField {
                tree: t.tree.as_str(),
                serial: t.serial.map(|s| s.0),
            })
            .collect();
        Line::Member {
            host: member.host.as_str(),
            address: member.address.to_string(),
            version: &member.version,
            trees,
            labels: &member.labels,
        }
    }

    pub(super) fn scanned(scanned: &ScanSummary) -> Self {
        let &ScanSummary {
            entries,
            bytes,
            hashed,
            took,
        } = scanned;
        Line::Scanned {
            entries,
            bytes: bytes.0,
            hashed: hashed.0,
            seconds: seconds(took),
        }
    }

    pub(super) fn released(released: &'a MadeRelease) -> Self {
        let MadeRelease {
            tree,
            serial,
            fingerprint,
            rollback_to,
        } = released;
        let rollback_to = rollback_to.map(|s| s.0);
        Line::Released {
            tree: tree.as_str(),
            serial: serial.0,
            key: fingerprint,
            rollback_to,
        }
    }

    pub(super) fn host(change: &'a HostChange) -> Self {
        let HostChange {
            host,
            address,
            state,
            error,
        } = change;
        Line::Host {
            host: host.as_str(),
            address: *address,
            state: state.word(),
            error: error.as_deref(),
            last: None,
        }
    }

    pub(super) fn last_of(host: &'a HostResult) -> Self {
        let last = FinalHostLine {
            serial: host.serial.map(|s| s.0),
            files_written: host.files_written,
            files_deleted: host.files_deleted,
            bytes_received: host.bytes_received.0,
            seconds: seconds(host.took),
        };

        Line::Host {
            host: host.host.as_str(),
            address: host.address,
            state: host.state.word(),
            error: host.error.as_deref(),
            last: Some(last),
        }
    }

    pub(super) fn change(hosts: &'a [NamedHost], line: &'a DriftLine) -> Self {
        let (path, path_base64) = match std::str::from_utf8(&line.path) {
            Ok(path) => (path.to_string(), None),
            Err(_) => (
                printable(&line.path),
                Some(Base64::encode_string(&line.path)),
            ),
        };

        let shared = hosts.iter().any(|host| host.address.is_some());
        let addresses = shared.then(|| hosts.iter().map(|host| host.address).collect());
        let hosts = hosts.iter().map(|host| host.name.as_str()).collect();

        Line::Change {
            hosts,
            addresses,
            path,
            path_base64,
            kind: &line.itemized,
            what: line.what.word(),
        }
    }

    /// What an audit found of a group besides its differences.
    pub(super) fn limits(group: &'a DriftGroup) -> Vec<Self> {
        let hosts = || group.hosts.iter().map(|host| host.name.as_str()).collect();
        let limit = group.over_limit.as_deref();
        let limit = limit.map(|refused| Line::Limit {
            hosts: hosts(),
            refused,
        });

        let protected = (group.protected.count > 0).then(|| Line::Protected {
            hosts: hosts(),
            paths: group.protected.paths.iter().map(|p| printable(p)).collect(),
            count: group.protected.count,
        });
        limit.into_iter().chain(protected).collect()
    }

    pub(super) fn progress(progress: &'a ProgressReport) -> Self {
        Line::Progress(ProgressLine::of(progress))
    }
}

impl<'a> ResultLine<'a> {
    pub(super) fn of(outcome: &'a Outcome) -> Self {
        let states =
            |of: fn(HostState) -> bool| outcome.hosts.iter().filter(|h| of(h.state)).count();
        let audit = outcome.purpose.is_audit();
        let absent = states(|s| s == HostState::Absent);
        let done = states(HostState::is_well);
        let is_reached = |host: &&HostResult| outcome.is_reached(host.state);
        let good = outcome.hosts.iter().filter(is_reached).count();

        let repository = outcome.repository.as_ref();
        let unpublished = repository.and_then(|r| {
            let why = r.error.as_ref()?;
            Some(format!("not published to {}: {why}", r.url))
        });

        Self {
            tree: Some(outcome.tree.as_str()),
            serial: outcome.serial.map(|s| s.0),
            rollback_to: outcome.rollback_to.map(|s| s.0),
            exit: outcome.exit.code(),
            targets: outcome.hosts.len(),
            committed: if audit { 0 } else { done },
            unchanged: if audit {
                0
            } else {
                states(|s| s == HostState::Unchanged)
            },
            failed: outcome.hosts.len() - good - absent,
            unknown: Some(states(|s| s == HostState::Unknown)).filter(|n| *n > 0),
            absent,
            staged: Some(states(|s| s == HostState::Staged)).filter(|n| *n > 0),
            drifted: audit.then(|| outcome.drift.iter().map(|g| g.hosts.len()).sum()),
            files_written: outcome.files_written,
            files_deleted: outcome.files_deleted,
            bytes_release: outcome.bytes_release.0,
            bytes_sent: outcome.bytes_sent.0,
            repaired: outcome.repaired,
            rate: outcome.rate.map(|r| r.0),
            seconds: seconds(outcome.took),
            key: outcome.fingerprint.as_deref(),
            batch: outcome.batch.as_ref().map(|batch| [batch.number, batch.of]),
            next: outcome
                .batch
                .as_ref()
                .filter(|batch| batch.is_paused)
                .map(|batch| promote_command(outcome, batch)),
            repository: repository.map(|r| r.url.as_str()),
            published: repository.map(|r| r.error.is_none()),
            message: outcome.message.as_ref().map(ReleaseMessage::as_str),
            error: outcome.error.clone().or(unpublished),
            hint: outcome.first_hint().map(str::to_string),
        }
    }

    pub(super) fn of_failure(error: &Error) -> Self {
        Self {
            exit: error.kind().exit_code(),
            error: Some(error.to_string()),
            hint: error.hint_text().map(str::to_string),
            ..Self::default()
        }
    }
}

/// Rounds to milliseconds, so that a figure reads 0.842 and not 0.8419999.
fn seconds(took: Duration) -> f64 {
    took.as_millis() as f64 / 1000.0
}
