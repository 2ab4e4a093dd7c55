//! Tests of releases and standings, from made-up answers of a fleet.

use std::net::SocketAddr;

use super::answers::{HostAnswer, add_addresses};
use super::releases::log_of;
use super::standings::standings;
use crate::block::BlockHash;
use crate::id::{HostName, Labels, NamedHost, Serial, TreeName};
use crate::manifest::ReleaseId;
use crate::units::WallTime;
use crate::wire::message::Tombstone;
use crate::wire::query::{
    FullRelease, PartRelease, QueryAnswer, ReleaseReport, TreeReport, Trouble,
};

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
        message: None,
        pinned: false,
    };

    let report = TreeReport {
        running: Some(Serial(running)).filter(|s| s.0 > 0),
        highest: Serial(running),
        releases: kept.iter().map(release).collect(),
        release: Some(id(running)).filter(|_| running > 0),
        tombstones: Some(Vec::new()),
        ..TreeReport::nothing(tree())
    };

    let host = HostName::new(name).expect("legal");
    let answer = QueryAnswer {
        number: 1,
        host: host.clone(),
        trees: vec![report],
        release: None,
        labels: None,
        machine: None,
        followed: None,
        refusal: None,
    };

    let address = SocketAddr::from(([10, 0, 0, 1], 5000));
    let at = (address, Labels::default());
    HostAnswer::new(host, at, vec![tree()], answers.then_some(answer))
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
    assert!(log.releases.len() == 2 && log.releases.iter().all(|release| log.is_split(release)));

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

#[test]
fn a_host_is_well_only_with_this_release_and_without_its_failure() {
    use crate::outcome::rollout_host;
    use crate::proto::rollout::ReleasePlace::{self, Failing, Missing, Well};

    let trouble = |serial| Trouble {
        serial: Serial(serial),
        age: 1,
        text: "health check failed".into(),
    };
    let place = |change: &dyn Fn(&mut TreeReport)| -> ReleasePlace {
        let mut host = host_answer("web1", 7, &[7], true);
        change(report_mut(&mut host));
        let standings = standings(Some(&tree()), &[host]);
        rollout_host(&standings[0], Serial(7), id(7)).place
    };

    assert_eq!(place(&|_| {}), Well);
    assert_eq!(place(&|report| report.unhealthy = Some(true)), Failing);
    // A host of an earlier version tells its last failure alone.
    assert_eq!(place(&|report| report.trouble = Some(trouble(7))), Failing);
    assert_eq!(place(&|report| report.trouble = Some(trouble(8))), Well);
    let mended = |report: &mut TreeReport| {
        report.unhealthy = Some(false);
        report.trouble = Some(trouble(7));
    };
    assert_eq!(place(&mended), Well);
    // Another release of the same serial is not this one.
    assert_eq!(place(&|report| report.release = Some(id(8))), Missing);
    assert_eq!(place(&|report| report.release = None), Well);
}
