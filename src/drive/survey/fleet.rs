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
fn log_of(tree: &TreeName, heard: &[HostAnswer]) -> ReleaseLog {
    let (hosts, silent, unshown, found) = Default::default();
    let mut log = ReleaseLog {
        tree: tree.clone(),
        hosts,
        silent,
        unshown,
        releases: found,
    };

    let mut releases = BTreeMap::new();
    for host in heard.iter().filter(|h| h.trees.contains(tree)) {
        match told(host, tree) {
            Some(told) => {
                log.hosts.push(host.named.clone());
                let shown = shown(tree, told);
                if told.running.is_some() && shown.is_none() {
                    log.unshown.push(host.named.clone());
                }
                told.releases
                    .iter()
                    .for_each(|release| add(&mut releases, &host.named, release, shown));
            }
            None => log.silent.push(host.named.clone()),
        }
    }

    log.releases = releases.into_values().rev().collect();
    let stones = stones(heard);
    for release in &mut log.releases {
        release.tombstone = stones.get(&(tree, release.id)).copied();
        let buries = |host: &&HostAnswer| {
            let stones = told(host, tree).and_then(|told| told.tombstones.as_ref());
            stones.is_some_and(|stones| stones.iter().any(|stone| stone.release == release.id))
        };
        release.buried = heard
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
fn shown(tree: &TreeName, told: &TreeReport) -> Option<ReleaseId> {
    let shown = told.shown.as_ref()?;
    verify(Namespace::RELEASE, &shown.header, &shown.signature).ok()?;
    let release = Release::from_bytes(&shown.header).ok()?;
    let is_it = release.header().tree == *tree && Some(release.header().serial) == told.running;
    (is_it && told.release == Some(release.id())).then(|| release.id())
}

fn add(
    releases: &mut Releases,
    host: &NamedHost,
    told: &crate::wire::query::ReleaseReport,
    shown: Option<ReleaseId>,
) {
    let key = (told.serial, told.created, told.id.to_string());
    let release = releases.entry(key).or_insert_with(|| LogRelease {
        serial: told.serial,
        id: told.id,
        tombstone: None,
        created: told.created,
        key: None,
        entries: told.entries,
        bytes: ByteSize(told.bytes),
        content: told.content.unwrap_or(told.id.0),
        part: told.part,
        running: Vec::new(),
        shown: Vec::new(),
        buried: Vec::new(),
        kept: Vec::new(),
    });

    if release.key.is_none() {
        release.key.clone_from(&told.key);
    }

    release.kept.push(host.clone());
    if told.running {
        release.running.push(host.clone());
        release
            .shown
            .extend((shown == Some(told.id)).then(|| host.clone()));
    }
}

fn told<'a>(host: &'a HostAnswer, tree: &TreeName) -> Option<&'a TreeReport> {
    host.tell.as_ref()?.trees.iter().find(|t| t.tree == *tree)
}

/// All reported tombstones; a revert outweighs an abort.
fn stones(heard: &[HostAnswer]) -> BTreeMap<(&TreeName, ReleaseId), Tombstone> {
    let mut stones = BTreeMap::new();
    for told in heard
        .iter()
        .filter_map(|h| h.tell.as_ref())
        .flat_map(|tell| &tell.trees)
    {
        for stone in told.tombstones.iter().flatten() {
            let known: &mut Tombstone = stones.entry((&told.tree, stone.release)).or_insert(*stone);
            known.revert |= stone.revert;
        }
    }

    stones
}

/// A running release of a host.
struct RunningRelease<'a> {
    host: &'a HostAnswer,
    told: &'a TreeReport,
    serial: Serial,
    release: ReleaseId,
}

/// The running releases of each tree, without tombstones.
fn runs<'a>(
    heard: &'a [HostAnswer],
    stones: &BTreeMap<(&TreeName, ReleaseId), Tombstone>,
) -> Vec<RunningRelease<'a>> {
    let all = heard.iter().flat_map(|h| {
        h.tell
            .iter()
            .flat_map(move |tell| tell.trees.iter().map(move |t| (h, t)))
    });

    let run = |(host, told): (&'a HostAnswer, &'a TreeReport)| {
        let (serial, release) = told.running.zip(told.release)?;
        let is_buried = stones.contains_key(&(&told.tree, release));
        (!is_buried).then_some(RunningRelease {
            host,
            told,
            serial,
            release,
        })
    };

    all.filter_map(run).collect()
}

/// Returns whether the release of a host is meant for the host `name`.
fn is_for(told: &TreeReport, name: &HostName) -> bool {
    told.targets.as_ref().is_none_or(|list| {
        list.iter()
            .any(|pattern| matches_name(pattern, name.as_str()))
    })
}

fn standings(tree: Option<&TreeName>, heard: &[HostAnswer]) -> Vec<Standing> {
    let stones = stones(heard);
    let runs = runs(heard, &stones);
    let mut all = Vec::new();
    for host in heard {
        for name in host
            .trees
            .iter()
            .filter(|name| tree.is_none_or(|tree| tree == *name))
        {
            let runs: Vec<&RunningRelease<'_>> =
                runs.iter().filter(|run| run.told.tree == *name).collect();
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
    let answer = told(host, name);
    let tombstone = answer.and_then(|told| stones.get(&(name, told.release?)).copied());
    let own = answer
        .and_then(|told| told.running.zip(told.release))
        .filter(|_| tombstone.is_none());
    let others = runs
        .iter()
        .filter(|run| own.is_some_and(|(serial, id)| run.serial == serial && run.release != id));

    let split = others.map(|run| run.host.named.clone()).collect();

    let newest = runs
        .iter()
        .filter(|run| is_for(run.told, &host.host))
        .map(|run| run.serial)
        .max();

    let has = |told: &TreeReport| told.running.max(told.sent);
    let behind = newest.filter(|&newest| answer.is_some_and(|told| has(told) < Some(newest)));

    // The same content under a newer serial is no gap.
    let content = |told: &TreeReport| {
        told.base
            .filter(|base| Some(base.serial) == told.running)
            .map(|base| base.content)
    };

    let given = runs
        .iter()
        .find(|run| Some(run.serial) == newest)
        .and_then(|run| content(run.told));
    let behind = behind.filter(|_| given.is_none() || answer.and_then(content) != given);
    let at_newest = || {
        runs.iter()
            .filter(|run| Some(run.serial) == newest)
            .map(|run| run.told)
    };

    let lacks = answer
        .filter(|told| told.running == newest)
        .and_then(|told| lacking(told, at_newest()));
    let lacks_parts = answer.filter(|told| told.running == newest && lacks.is_none());
    let lacks_parts = lacks_parts
        .map(|told| lacking_parts(told, at_newest()))
        .unwrap_or_default();

    let stranded = behind.is_some() && at_newest().all(|told| told.parts_only);

    let told = answer.map(
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
        told,
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
        .filter_map(|told| told.base)
        .max_by_key(|base| base.serial)?;
    let other = own.parts_only || own.base.is_some_and(|own| own.content != base.content);
    other.then_some(base.serial)
}

/// The parts after the common whole release missing in `own`.
fn lacking_parts<'a>(
    own: &TreeReport,
    others: impl Iterator<Item = &'a TreeReport>,
) -> Vec<Serial> {
    let Some(known) = &own.parts else {
        return Vec::new();
    };

    let content = |told: &TreeReport| told.base.map(|base| base.content);
    let needed = others
        .filter(|told| content(told) == content(own))
        .flat_map(|told| told.parts.iter().flatten());
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

/// Returns the header's bytes and the signature of a release from every keeping host, unverified.
pub fn release(
    network: impl Into<GroupLinks>,
    tree: &TreeName,
    serial: Serial,
    longest: Duration,
) -> Result<Vec<KeptHeader>> {
    let heard = ask(network, Some(tree), Some(serial), longest)?;
    let bytes = heard
        .into_iter()
        .filter_map(|h| Some((h.host, h.tell?.release?)));
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

    fn heard(name: &str, running: u64, kept: &[u64], answers: bool) -> HostAnswer {
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

        let told = TreeReport {
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
        let tell = QueryAnswer {
            number: 1,
            host: host.clone(),
            trees: vec![told],
            release: None,
        };

        let address = SocketAddr::from(([10, 0, 0, 1], 5000));
        HostAnswer::new(host, address, vec![tree()], answers.then_some(tell))
    }

    fn fleet() -> Vec<HostAnswer> {
        vec![
            heard("web1", 13, &[13, 12], true),
            heard("web2", 13, &[13, 12, 11], true),
            heard("web3", 12, &[12, 11], true),
            heard("web4", 0, &[], true),
            heard("web5", 0, &[], false),
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

        assert_eq!(all[4].told, None);
        assert!(standings(Some(&TreeName::new("docs").expect("legal")), &fleet()).is_empty());
    }

    fn told_of(host: &mut HostAnswer) -> &mut TreeReport {
        &mut host.tell.as_mut().expect("answered").trees[0]
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
            told_of(&mut fleet[2]).tombstones = Some(vec![stone]);
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
            heard("web1", 13, &[13], true),
            heard("web2", 13, &[13], true),
        ];
        assert!(standings(None, &fleet).iter().all(|s| s.split.is_empty()));
        let told = told_of(&mut fleet[1]);
        (told.release, told.releases[0].id) = (Some(id(99)), id(99));

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

        told_of(&mut fleet[0]).tombstones = Some(vec![stone]);
        assert!(standings(None, &fleet).iter().all(|s| s.split.is_empty()));
    }

    #[test]
    fn a_part_that_is_for_others_leaves_a_host_not_behind() {
        let mut fleet = fleet();
        for host in &mut fleet[..2] {
            told_of(host).targets = Some(vec!["web[1-2]".to_string(), "db*".to_string()]);
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
            heard("web", 13, &[13], true),
            heard("web", 12, &[13, 12], true),
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
        told_of(&mut fleet[1]).running = Some(Serial(13));

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
            host.tell
                .iter_mut()
                .flat_map(|tell| &mut tell.trees)
                .for_each(change);
        };

        let mut fleet = fleet();
        change(&mut fleet[0], &|told| told.base = Some(base(9)));
        change(&mut fleet[1], &|told| told.base = Some(base(5)));
        change(&mut fleet[2], &|told| told.sent = Some(Serial(13)));
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
            change(host, &|told| {
                told.base = told.running.map(|serial| FullRelease { serial, ..base(9) })
            });
        }

        change(&mut fleet[2], &|told| told.sent = None);
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
            change(host, &|told| told.base = Some(base(9)));
        }

        change(&mut fleet[0], &|told| {
            told.parts = Some(vec![part(10, true), part(11, false), part(13, false)])
        });
        change(&mut fleet[1], &|told| {
            told.parts = Some(vec![part(10, false), part(13, false)])
        });
        let lacks: Vec<Vec<u64>> = standings(None, &fleet)
            .iter()
            .map(|s| s.lacks_parts.iter().map(|s| s.0).collect())
            .collect();

        assert_eq!(lacks, [vec![], vec![11], vec![], vec![], vec![]]);
        // No host has the whole tree: there is nothing to compare with, and an empty host cannot be
        // served.
        for host in &mut fleet[..2] {
            change(host, &|told| (told.base, told.parts_only) = (None, true));
        }

        let all = standings(None, &fleet);
        assert!(all.iter().all(|s| s.lacks.is_none()));
        assert!(all[3].stranded);
    }
}
