//! The state of every host and tree, from the answers of all hosts.

use std::collections::BTreeSet;
use std::time::Duration;

use super::answers::{HostAnswer, ReportedTombstones, tombstones};
use super::ask::ask;
use crate::Result;
use crate::drive::endpoint::GroupLinks;
use crate::id::{NamedHost, Serial, TreeName, matches_host};
use crate::manifest::ReleaseId;
use crate::outcome::{Standing, Survey, TreeStatus};
use crate::wire::query::TreeReport;

/// Returns the state of `tree`, or of all trees, on every host; sorted by host, then tree.
pub fn status(
    network: impl Into<GroupLinks>,
    tree: Option<&TreeName>,
    longest: Duration,
) -> Result<Survey<Vec<Standing>>> {
    // The list of releases is not needed: ask for all trees and pick one.
    let answers = ask(network, None, None, longest)?;
    Ok(answers.map(|hosts| standings(tree, &hosts)))
}

/// A running release of a host.
struct RunningRelease<'a> {
    host: &'a HostAnswer,
    report: &'a TreeReport,
    serial: Serial,
    release: ReleaseId,
}

/// The running releases of each tree, without tombstones.
fn runs<'a>(hosts: &'a [HostAnswer], stones: &ReportedTombstones<'_>) -> Vec<RunningRelease<'a>> {
    let all = hosts.iter().flat_map(|h| {
        h.answer
            .iter()
            .flat_map(move |answer| answer.trees.iter().map(move |t| (h, t)))
    });

    let run = |(host, report): (&'a HostAnswer, &'a TreeReport)| {
        let (serial, release) = report.running.zip(report.release)?;
        let is_buried = stones.contains_key(&(&report.tree, release));
        (!is_buried).then_some(RunningRelease {
            host,
            report,
            serial,
            release,
        })
    };

    all.filter_map(run).collect()
}

/// Returns whether the release of a report is meant for `host`.
fn is_for(report: &TreeReport, host: &HostAnswer) -> bool {
    let selects = |pattern: &String| matches_host(pattern, &host.host, Some(&host.labels));
    let targets = report.targets.as_ref();
    targets.is_none_or(|list| list.iter().any(selects))
}

/// Returns the state of `tree`, or of all trees, by the answers of the hosts.
pub fn standings(tree: Option<&TreeName>, hosts: &[HostAnswer]) -> Vec<Standing> {
    let stones = tombstones(hosts);
    let runs = runs(hosts, &stones);
    let mut all = Vec::new();
    for host in hosts {
        for name in host
            .trees
            .iter()
            .filter(|name| tree.is_none_or(|tree| tree == *name))
        {
            let runs: Vec<&RunningRelease<'_>> =
                runs.iter().filter(|run| run.report.tree == *name).collect();
            all.push(standing(host, name, &runs, &stones));
        }
    }

    all
}

fn standing(
    host: &HostAnswer,
    name: &TreeName,
    runs: &[&RunningRelease<'_>],
    stones: &ReportedTombstones<'_>,
) -> Standing {
    let own = host.report(name);
    let tombstone = own.and_then(|report| stones.get(&(name, report.release?)).copied());
    let newest = runs
        .iter()
        .filter(|run| is_for(run.report, host))
        .map(|run| run.serial)
        .max();

    let at_newest = || {
        let at_newest = runs.iter().filter(|run| Some(run.serial) == newest);
        at_newest.map(|run| run.report)
    };

    let behind =
        newest.filter(|&newest| own.is_some_and(|own| is_behind(own, newest, at_newest())));
    let current = own.filter(|report| report.running == newest);
    let lacks = current.and_then(|own| lacking(own, at_newest()));
    let lacks_parts = current
        .filter(|_| lacks.is_none())
        .map(|own| lacking_parts(own, at_newest()));

    Standing {
        host: host.host.clone(),
        named: host.named.clone(),
        address: host.address,
        labels: host.labels.clone(),
        tree: name.clone(),
        status: own.map(status_of),
        behind,
        tombstone,
        split: own
            .filter(|_| tombstone.is_none())
            .map(|own| split(own, runs))
            .unwrap_or_default(),
        stranded: behind.is_some() && at_newest().all(|report| report.parts_only),
        lacks,
        lacks_parts: lacks_parts.unwrap_or_default(),
    }
}

/// Hosts with another release of the same serial.
fn split(own: &TreeReport, runs: &[&RunningRelease<'_>]) -> Vec<NamedHost> {
    let own = own.running.zip(own.release);
    runs.iter()
        .filter(|run| own.is_some_and(|(serial, id)| run.serial == serial && run.release != id))
        .map(|run| run.host.named.clone())
        .collect()
}

/// Returns whether `own` lacks the content of `newest`; the same content under a newer serial is no
/// gap.
fn is_behind<'a>(
    own: &TreeReport,
    newest: Serial,
    mut at_newest: impl Iterator<Item = &'a TreeReport>,
) -> bool {
    let content = |report: &TreeReport| {
        report
            .base
            .filter(|base| Some(base.serial) == report.running)
            .map(|base| base.content)
    };

    let given = at_newest.next().and_then(content);
    own.running.max(own.sent) < Some(newest) && (given.is_none() || content(own) != given)
}

fn status_of(report: &TreeReport) -> TreeStatus {
    TreeStatus {
        running: report.running,
        release: report.release,
        work: report.work.clone(),
        trouble: report.trouble.clone(),
        stale: report.stale,
        drifted: report.drifted,
        repository: report.repository.clone(),
        sent: report.sent,
        message: report.message.clone(),
        staged: report.staged.clone(),
        held: report.held.clone(),
        unhealthy: report.unhealthy.unwrap_or_else(|| has_failed(report)),
    }
}

/// Returns whether the last failure is of the current release: an older makuo says no more.
fn has_failed(report: &TreeReport) -> bool {
    let failed = report.trouble.as_ref().map(|trouble| trouble.serial);
    failed.is_some() && failed == report.running
}

/// The whole release below the common part, if `own` has another one or none.
fn lacking<'a>(own: &TreeReport, others: impl Iterator<Item = &'a TreeReport>) -> Option<Serial> {
    let base = others
        .filter_map(|report| report.base)
        .max_by_key(|base| base.serial)?;
    let other = own.parts_only || own.base.is_some_and(|own| own.content != base.content);
    other.then_some(base.serial)
}

/// The parts after the common whole release that `own` lacks.
fn lacking_parts<'a>(
    own: &TreeReport,
    others: impl Iterator<Item = &'a TreeReport>,
) -> Vec<Serial> {
    let Some(known) = &own.parts else {
        return Vec::new();
    };

    let content = |report: &TreeReport| report.base.map(|base| base.content);
    let needed = others
        .filter(|report| content(report) == content(own))
        .flat_map(|report| report.parts.iter().flatten());
    let lacks =
        needed.filter(|part| !part.replaced && !known.iter().any(|own| own.serial == part.serial));

    lacks
        .map(|part| part.serial)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}
