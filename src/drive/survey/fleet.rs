//! The releases of the fleet and the state of every host, from the answers of all hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ask::{HostAnswer, ask};
use crate::Result;
use crate::drive::endpoint::GroupLinks;
use crate::id::{HostName, NamedHost, Serial, TreeName};
use crate::keys::{Namespace, verify};
use crate::manifest::{Release, ReleaseId};
use crate::outcome::{LogRelease, ReleaseLog, Standing, TreeStatus};
use crate::proto::receiver::matches_name;
use crate::units::{ByteSize, WallTime};
use crate::wire::message::Tombstone;
use crate::wire::query::TreeReport;

/// Combines the answers about `tree`.
fn log_of(tree: &TreeName, hosts: &[HostAnswer]) -> ReleaseLog {
    let mut log = ReleaseLog {
        tree: tree.clone(),
        hosts: Vec::new(),
        silent: Vec::new(),
        unshown: Vec::new(),
        releases: Vec::new(),
    };

    let mut releases = BTreeMap::new();
    for host in hosts.iter().filter(|h| h.trees.contains(tree)) {
        match report_of(host, tree) {
            Some(report) => {
                log.hosts.push(host.named.clone());
                let shown = shown(tree, report);
                if report.running.is_some() && shown.is_none() {
                    log.unshown.push(host.named.clone());
                }
                report
                    .releases
                    .iter()
                    .for_each(|release| add(&mut releases, &host.named, release, shown));
            }
            None => log.silent.push(host.named.clone()),
        }
    }

    log.releases = releases.into_values().rev().collect();
    let stones = stones(hosts);
    for release in &mut log.releases {
        release.tombstone = stones.get(&(tree, release.id)).copied();
        let buries = |host: &&HostAnswer| {
            let stones = report_of(host, tree).and_then(|report| report.tombstones.as_ref());
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
    report: &crate::wire::query::ReleaseReport,
    shown: Option<ReleaseId>,
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
        running: Vec::new(),
        shown: Vec::new(),
        buried: Vec::new(),
        kept: Vec::new(),
    });

    if release.key.is_none() {
        release.key.clone_from(&report.key);
    }

    release.kept.push(host.clone());
    if report.running {
        release.running.push(host.clone());
        release
            .shown
            .extend((shown == Some(report.id)).then(|| host.clone()));
    }
}

fn report_of<'a>(host: &'a HostAnswer, tree: &TreeName) -> Option<&'a TreeReport> {
    host.answer.as_ref()?.trees.iter().find(|t| t.tree == *tree)
}

/// All reported tombstones; a revert outweighs an abort.
fn stones(hosts: &[HostAnswer]) -> BTreeMap<(&TreeName, ReleaseId), Tombstone> {
    let mut stones = BTreeMap::new();
    for report in hosts
        .iter()
        .filter_map(|h| h.answer.as_ref())
        .flat_map(|answer| &answer.trees)
    {
        for stone in report.tombstones.iter().flatten() {
            let known: &mut Tombstone = stones
                .entry((&report.tree, stone.release))
                .or_insert(*stone);
            known.revert |= stone.revert;
        }
    }

    stones
}

/// A running release of a host.
struct RunningRelease<'a> {
    host: &'a HostAnswer,
    report: &'a TreeReport,
    serial: Serial,
    release: ReleaseId,
}

/// The running releases of each tree, without tombstones.
fn runs<'a>(
    hosts: &'a [HostAnswer],
    stones: &BTreeMap<(&TreeName, ReleaseId), Tombstone>,
) -> Vec<RunningRelease<'a>> {
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

/// Returns whether the release of a host is meant for the host `name`.
fn is_for(report: &TreeReport, name: &HostName) -> bool {
    report.targets.as_ref().is_none_or(|list| {
        list.iter()
            .any(|pattern| matches_name(pattern, name.as_str()))
    })
}

fn standings(tree: Option<&TreeName>, hosts: &[HostAnswer]) -> Vec<Standing> {
    let stones = stones(hosts);
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
    stones: &BTreeMap<(&TreeName, ReleaseId), Tombstone>,
) -> Standing {
    let own_report = report_of(host, name);
    let tombstone = own_report.and_then(|report| stones.get(&(name, report.release?)).copied());
    let own = own_report
        .and_then(|report| report.running.zip(report.release))
        .filter(|_| tombstone.is_none());
    let others = runs
        .iter()
        .filter(|run| own.is_some_and(|(serial, id)| run.serial == serial && run.release != id));

    let split = others.map(|run| run.host.named.clone()).collect();

    let newest = runs
        .iter()
        .filter(|run| is_for(run.report, &host.host))
        .map(|run| run.serial)
        .max();

    let has = |report: &TreeReport| report.running.max(report.sent);
    let behind =
        newest.filter(|&newest| own_report.is_some_and(|report| has(report) < Some(newest)));

    // The same content under a newer serial is no gap.
    let content = |report: &TreeReport| {
        report
            .base
            .filter(|base| Some(base.serial) == report.running)
            .map(|base| base.content)
    };

    let given = runs
        .iter()
        .find(|run| Some(run.serial) == newest)
        .and_then(|run| content(run.report));
    let behind = behind.filter(|_| given.is_none() || own_report.and_then(content) != given);
    let at_newest = || {
        runs.iter()
            .filter(|run| Some(run.serial) == newest)
            .map(|run| run.report)
    };

    let lacks = own_report
        .filter(|report| report.running == newest)
        .and_then(|report| lacking(report, at_newest()));
    let lacks_parts = own_report.filter(|report| report.running == newest && lacks.is_none());
    let lacks_parts = lacks_parts
        .map(|report| lacking_parts(report, at_newest()))
        .unwrap_or_default();

    let stranded = behind.is_some() && at_newest().all(|report| report.parts_only);

    let status = own_report.map(
        |TreeReport {
             running,
             work,
             trouble,
             stale,
             drifted,
             sent,
             ..
         }| TreeStatus {
            running: *running,
            work: work.clone(),
            trouble: trouble.clone(),
            stale: *stale,
            drifted: *drifted,
            sent: *sent,
        },
    );

    let named = host.named.clone();
    let address = host.address;
    let host = host.host.clone();
    Standing {
        host,
        named,
        address,
        tree: name.clone(),
        status,
        behind,
        tombstone,
        split,
        stranded,
        lacks,
        lacks_parts,
    }
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

/// Returns the releases of `tree`; hosts without an answer within `longest` are listed as silent.
pub fn log(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    longest: Duration,
) -> Result<ReleaseLog> {
    Ok(log_of(tree, &ask(network, Some(tree), None, longest)?))
}

/// Returns the state of `tree`, or of all trees, on every host; sorted by host, then tree.
pub fn status(
    network: impl Into<GroupLinks>,
    tree: Option<&TreeName>,
    longest: Duration,
) -> Result<Vec<Standing>> {
    // The list of releases is not needed: ask for all trees and pick one.
    Ok(standings(tree, &ask(network, None, None, longest)?))
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
    let hosts = ask(network, Some(tree), Some(serial), longest)?;
    let bytes = hosts
        .into_iter()
        .filter_map(|h| Some((h.host, h.answer?.release?)));
    Ok(bytes
        .map(|(host, release)| (host, release.header, release.signature))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::ask::add_addresses;
    use super::*;
    use crate::block::BlockHash;
    use crate::wire::query::{FullRelease, PartRelease, QueryAnswer, ReleaseReport};

    fn tree() -> TreeName {
        TreeName::new("www").expect("legal")
    }

    fn id(serial: u64) -> ReleaseId {
        ReleaseId(BlockHash::of(&serial.to_be_bytes()))
    }

    fn host_answer(name: &str, running: u64, kept: &[u64], answers: bool) -> HostAnswer {
        let release = |&serial: &u64| ReleaseReport {
            serial: Serial(serial),
            id: id(serial),
            created: WallTime(serial as i64),
            key: (name != "web1").then(|| "SHA256:x".to_string()),
            entries: 1,
            bytes: 2,
            running: serial == running,
            content: None,
            part: false,
        };

        let report = TreeReport {
            tree: tree(),
            running: Some(Serial(running)).filter(|s| s.0 > 0),
            highest: Serial(running),
            work: None,
            trouble: None,
            releases: kept.iter().map(release).collect(),
            stale: None,
            drifted: None,
            release: Some(id(running)).filter(|_| running > 0),
            tombstones: Some(Vec::new()),
            sent: None,
            parts_only: false,
            base: None,
            targets: None,
            parts: None,
            shown: None,
        };

        let host = HostName::new(name).expect("legal");
        let answer = QueryAnswer {
            number: 1,
            host: host.clone(),
            trees: vec![report],
            release: None,
        };

        let address = SocketAddr::from(([10, 0, 0, 1], 5000));
        HostAnswer::new(host, address, vec![tree()], answers.then_some(answer))
    }

    fn fleet() -> Vec<HostAnswer> {
        vec![
            host_answer("web1", 13, &[13, 12], true),
            host_answer("web2", 13, &[13, 12, 11], true),
            host_answer("web3", 12, &[12, 11], true),
            host_answer("web4", 0, &[], true),
            host_answer("web5", 0, &[], false),
        ]
    }

    fn names(hosts: &[NamedHost]) -> Vec<&str> {
        hosts.iter().map(|host| host.name.as_str()).collect()
    }

    #[test]
    fn releases_are_those_of_all_hosts_and_the_newest_comes_first() {
        let log = log_of(&tree(), &fleet());
        let serials: Vec<u64> = log.releases.iter().map(|r| r.serial.0).collect();
        assert_eq!(serials, [13, 12, 11]);
        assert_eq!(names(&log.releases[0].running), ["web1", "web2"]);
        assert_eq!(names(&log.releases[1].running), ["web3"]);
        assert_eq!(names(&log.releases[1].kept), ["web1", "web2", "web3"]);
        assert_eq!(names(&log.releases[2].kept), ["web2", "web3"]);

        assert_eq!(log.releases[0].key.as_deref(), Some("SHA256:x"));
        assert_eq!(log.newest(), Some(Serial(13)));
        assert_eq!(
            log.without()
                .iter()
                .map(|h| h.name.as_str())
                .collect::<Vec<_>>(),
            ["web4"]
        );

        assert_eq!(
            (names(&log.hosts).len(), names(&log.silent)),
            (4, vec!["web5"])
        );
    }

    #[test]
    fn who_does_not_run_the_newest_is_behind() {
        let all = standings(None, &fleet());
        let behind: Vec<(&str, Option<u64>)> = all
            .iter()
            .map(|s| (s.host.as_str(), s.behind.map(|n| n.0)))
            .collect();
        assert_eq!(
            behind,
            [
                ("web1", None),
                ("web2", None),
                ("web3", Some(13)),
                ("web4", Some(13)),
                ("web5", None)
            ],
            "of a host that says nothing nothing is known"
        );

        assert_eq!(all[4].status, None);
        assert!(standings(Some(&TreeName::new("docs").expect("legal")), &fleet()).is_empty());
    }

    fn report_mut(host: &mut HostAnswer) -> &mut TreeReport {
        &mut host.answer.as_mut().expect("answered").trees[0]
    }

    #[test]
    fn what_was_taken_back_leaves_nobody_behind() {
        for revert in [true, false] {
            let mut fleet = fleet();
            // The reverted host knows, the absent one does not.
            let stone = Tombstone {
                serial: Serial(13),
                release: id(13),
                revert,
            };
            report_mut(&mut fleet[2]).tombstones = Some(vec![stone]);
            let all = standings(None, &fleet);
            let found: Vec<_> = all
                .iter()
                .map(|s| (s.behind.map(|n| n.0), s.tombstone.is_some()))
                .collect();
            assert_eq!(
                found,
                [
                    (None, true),
                    (None, true),
                    (None, false),
                    (Some(12), false),
                    (None, false)
                ]
            );
            let log = log_of(&tree(), &fleet);
            assert_eq!(
                (log.newest(), log.releases[0].tombstone),
                (Some(Serial(12)), Some(stone))
            );
        }
    }

    #[test]
    fn two_releases_of_one_serial_are_a_split() {
        let mut fleet = vec![
            host_answer("web1", 13, &[13], true),
            host_answer("web2", 13, &[13], true),
        ];
        assert!(standings(None, &fleet).iter().all(|s| s.split.is_empty()));
        let report = report_mut(&mut fleet[1]);
        (report.release, report.releases[0].id) = (Some(id(99)), id(99));

        let all = standings(None, &fleet);
        assert_eq!(
            (names(&all[0].split), names(&all[1].split)),
            (vec!["web2"], vec!["web1"])
        );
        let log = log_of(&tree(), &fleet);
        assert!(
            log.releases.len() == 2 && log.releases.iter().all(|release| log.is_split(release))
        );

        // One of the two was reverted: its tombstone is shown, and the fleet's release is the other
        // one.
        let stone = Tombstone {
            serial: Serial(13),
            release: id(99),
            revert: true,
        };

        report_mut(&mut fleet[0]).tombstones = Some(vec![stone]);
        assert!(standings(None, &fleet).iter().all(|s| s.split.is_empty()));
    }

    #[test]
    fn a_part_that_is_for_others_leaves_a_host_not_behind() {
        let mut fleet = fleet();
        for host in &mut fleet[..2] {
            report_mut(host).targets = Some(vec!["web[1-2]".to_string(), "db*".to_string()]);
        }

        let behind: Vec<Option<u64>> = standings(None, &fleet)
            .iter()
            .map(|s| s.behind.map(|n| n.0))
            .collect();
        assert_eq!(behind, [None, None, None, Some(12), None]);
    }

    #[test]
    fn hosts_of_one_name_are_told_by_their_addresses() {
        let mut fleet = vec![
            host_answer("web", 13, &[13], true),
            host_answer("web", 12, &[13, 12], true),
        ];
        fleet[1].address = ([10, 0, 0, 2], 5000).into();
        add_addresses(&mut fleet);
        let log = log_of(&tree(), &fleet);

        let shown = |hosts: &[NamedHost]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(&log.releases[0].running), ["web (10.0.0.1)"]);
        assert_eq!(
            shown(&log.releases[0].kept),
            ["web (10.0.0.1)", "web (10.0.0.2)"]
        );
        report_mut(&mut fleet[1]).running = Some(Serial(13));

        let all = standings(None, &fleet);
        assert_eq!(shown(&all[0].split), ["web (10.0.0.2)"]);
    }

    #[test]
    fn what_a_host_lacks_under_a_part_is_told() {
        let base = |serial: u64| FullRelease {
            serial: Serial(serial),
            content: BlockHash::of(&serial.to_be_bytes()),
        };

        let change = |host: &mut HostAnswer, change: &dyn Fn(&mut TreeReport)| {
            host.answer
                .iter_mut()
                .flat_map(|answer| &mut answer.trees)
                .for_each(change);
        };

        let mut fleet = fleet();
        change(&mut fleet[0], &|report| report.base = Some(base(9)));
        change(&mut fleet[1], &|report| report.base = Some(base(5)));
        change(&mut fleet[2], &|report| report.sent = Some(Serial(13)));
        let all = standings(None, &fleet);
        let lacks: Vec<Option<u64>> = all.iter().map(|s| s.lacks.map(|s| s.0)).collect();
        assert_eq!(lacks, [None, Some(9), None, None, None]);

        let behind: Vec<bool> = all.iter().map(|s| s.behind.is_some()).collect();
        assert_eq!(
            behind,
            [false, false, false, true, false],
            "what a host sent it has"
        );

        assert!(!all[3].stranded, "web1 has the whole");
        // The same content under another serial.
        for host in &mut fleet[..3] {
            change(host, &|report| {
                report.base = report
                    .running
                    .map(|serial| FullRelease { serial, ..base(9) })
            });
        }

        change(&mut fleet[2], &|report| report.sent = None);
        let behind: Vec<bool> = standings(None, &fleet)
            .iter()
            .map(|s| s.behind.is_some())
            .collect();
        assert_eq!(behind, [false, false, false, true, false]);

        // A part of other hosts after the same whole release, with no later replacement.
        let part = |serial: u64, replaced: bool| PartRelease {
            serial: Serial(serial),
            replaced,
        };

        for host in &mut fleet[..2] {
            change(host, &|report| report.base = Some(base(9)));
        }

        change(&mut fleet[0], &|report| {
            report.parts = Some(vec![part(10, true), part(11, false), part(13, false)])
        });
        change(&mut fleet[1], &|report| {
            report.parts = Some(vec![part(10, false), part(13, false)])
        });
        let lacks: Vec<Vec<u64>> = standings(None, &fleet)
            .iter()
            .map(|s| s.lacks_parts.iter().map(|s| s.0).collect())
            .collect();

        assert_eq!(lacks, [vec![], vec![11], vec![], vec![], vec![]]);
        // No host has the whole tree: there is nothing to compare with, and an empty host cannot be
        // served.
        for host in &mut fleet[..2] {
            change(host, &|report| {
                (report.base, report.parts_only) = (None, true)
            });
        }

        let all = standings(None, &fleet);
        assert!(all.iter().all(|s| s.lacks.is_none()));
        assert!(all[3].stranded);
    }
}
