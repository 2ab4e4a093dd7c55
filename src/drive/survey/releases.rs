//! The releases of the fleet, from the answers of all hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::answers::{HostAnswer, tombstones};
use super::ask::ask;
use crate::Result;
use crate::drive::endpoint::GroupLinks;
use crate::id::{HostName, NamedHost, Serial, TreeName};
use crate::keys::{Namespace, verify};
use crate::manifest::{Release, ReleaseId};
use crate::outcome::{LogRelease, ReleaseLog, Survey};
use crate::units::{ByteSize, WallTime};
use crate::wire::query::{ReleaseReport, TreeReport};

/// Returns the releases of `tree`; hosts without an answer within `longest` are listed as silent.
pub fn log(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    longest: Duration,
) -> Result<Survey<ReleaseLog>> {
    let answers = ask(network, Some(tree), None, longest)?;
    Ok(answers.map(|hosts| log_of(tree, &hosts)))
}

/// A host that keeps a release, with the header's exact bytes and signature.
pub type KeptHeader = (HostName, Vec<u8>, Vec<u8>);

/// Returns the header's bytes and the signature of a release from every host that keeps it,
/// unverified.
pub fn release(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    serial: Serial,
    longest: Duration,
) -> Result<Vec<KeptHeader>> {
    let hosts = ask(network, Some(tree), Some(serial), longest)?.found;
    let bytes = hosts
        .into_iter()
        .filter_map(|h| Some((h.host, h.answer?.release?)));
    Ok(bytes
        .map(|(host, release)| (host, release.header, release.signature))
        .collect())
}

/// Combines the answers about `tree`.
pub fn log_of(tree: &TreeName, hosts: &[HostAnswer]) -> ReleaseLog {
    let mut log = ReleaseLog {
        tree: tree.clone(),
        hosts: Vec::new(),
        labels: BTreeMap::new(),
        silent: Vec::new(),
        unshown: Vec::new(),
        releases: Vec::new(),
    };

    let mut releases = BTreeMap::new();
    for host in hosts.iter().filter(|h| h.trees.contains(tree)) {
        match host.report(tree) {
            Some(report) => {
                log.hosts.push(host.named.clone());
                if !host.labels.is_empty() {
                    log.labels.insert(host.named.clone(), host.labels.clone());
                }
                let shown = shown(tree, report);
                if report.running.is_some() && shown.is_none() {
                    log.unshown.push(host.named.clone());
                }
                report.releases.iter().for_each(|release| {
                    add(
                        &mut releases,
                        &host.named,
                        release,
                        shown,
                        report.targets.clone(),
                    )
                });
            }
            None => log.silent.push(host.named.clone()),
        }
    }

    log.releases = releases.into_values().rev().collect();
    let stones = tombstones(hosts);
    for release in &mut log.releases {
        release.tombstone = stones.get(&(tree, release.id)).copied();
        let buries = |host: &&HostAnswer| {
            let stones = host
                .report(tree)
                .and_then(|report| report.tombstones.as_ref());
            stones.is_some_and(|stones| stones.iter().any(|stone| stone.release == release.id))
        };
        release.buried = hosts
            .iter()
            .filter(buries)
            .map(|host| host.named.clone())
            .collect();
    }

    log
}

/// Releases by serial, time and identity: two with one serial are separate, since hosts may have
/// been deployed to apart.
type Releases = BTreeMap<(Serial, WallTime, String), LogRelease>;

/// The running release by a host's signed header, if the signature holds.
///
/// The key is not checked here: a rollback accepts only authorized keys.
fn shown(tree: &TreeName, report: &TreeReport) -> Option<ReleaseId> {
    let shown = report.shown.as_ref()?;
    verify(Namespace::RELEASE, &shown.header, &shown.signature).ok()?;
    let release = Release::from_bytes(&shown.header).ok()?;
    let is_it = release.header().tree == *tree && Some(release.header().serial) == report.running;
    (is_it && report.release == Some(release.id())).then(|| release.id())
}

fn add(
    releases: &mut Releases,
    host: &NamedHost,
    report: &ReleaseReport,
    shown: Option<ReleaseId>,
    targets: Option<Vec<String>>,
) {
    let key = (report.serial, report.created, report.id.to_string());
    let release = releases.entry(key).or_insert_with(|| LogRelease {
        serial: report.serial,
        id: report.id,
        tombstone: None,
        created: report.created,
        key: None,
        entries: report.entries,
        bytes: ByteSize(report.bytes),
        content: report.content.unwrap_or(report.id.0),
        part: report.part,
        targets: None,
        message: report.message.clone(),
        running: Vec::new(),
        shown: Vec::new(),
        buried: Vec::new(),
        kept: Vec::new(),
        pinned: Vec::new(),
    });

    if release.key.is_none() {
        release.key.clone_from(&report.key);
    }

    release.kept.push(host.clone());
    if report.pinned {
        release.pinned.push(host.clone());
    }
    if report.running {
        release.targets = targets.or(release.targets.take());
        release.running.push(host.clone());
        release
            .shown
            .extend((shown == Some(report.id)).then(|| host.clone()));
    }
}
