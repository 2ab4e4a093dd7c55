//! Tests of both outputs, by snapshots.

use super::log::releases;
use super::status::summary;
use crate::block::BlockHash;
use crate::id::NamedHost;
use crate::id::{Labels, Serial, TreeName};
use crate::manifest::{ReleaseId, ReleaseMessage};
use crate::outcome::TreeStatus;
use crate::outcome::{LogRelease, ReleaseLog, Standing, Survey};
use crate::report::paint::Painter;
use crate::report::sample::{SharedBuffer, host};
use crate::report::{HumanReport, Json, Report, Verbosity};
use crate::units::{ByteSize, WallTime};
use crate::wire::query::{FetchProgress, RepositoryTrouble, Stale, TreeActivity, Trouble};

fn tree() -> TreeName {
    TreeName::new("www").expect("legal")
}

fn log() -> ReleaseLog {
    let some = |names: &[&str]| {
        names
            .iter()
            .map(|n| host(n).into())
            .collect::<Vec<NamedHost>>()
    };

    let release = |serial: u64, running: &[&str], kept: &[&str]| LogRelease {
        serial: Serial(serial),
        id: ReleaseId(BlockHash::of(&serial.to_be_bytes())),
        tombstone: None,
        created: WallTime(1_801_418_400 + serial as i64 * 60),
        key: (serial != 15)
            .then(|| "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8".to_string()),
        entries: serial * 100,
        bytes: ByteSize(serial * 2_000_000),
        content: BlockHash::of(&serial.to_be_bytes()),
        part: serial == 15,
        targets: None,
        message: ReleaseMessage::new("fix css").ok().filter(|_| serial == 17),
        shown: Vec::new(),
        buried: Vec::new(),
        running: some(running),
        kept: some(kept),
        pinned: some(if serial == 16 { &["web2"] } else { &[] }),
    };

    let all = ["web1", "web2", "web3"];
    let releases = vec![
        release(17, &["web1", "web2"], &all[..2]),
        release(16, &["web3"], &all),
        release(15, &[], &["web2"]),
    ];

    ReleaseLog {
        tree: tree(),
        hosts: some(&all),
        labels: Default::default(),
        silent: some(&["web9"]),
        unshown: Vec::new(),
        releases,
    }
}

fn fleet() -> Vec<Standing> {
    let standing = |name: &str, status: Option<TreeStatus>, behind: Option<u64>| Standing {
        host: host(name),
        named: host(name).into(),
        address: "10.0.0.2:5000".parse().expect("legal"),
        labels: Labels::parse_known(if name == "web1" { "zone=a" } else { "" }),
        tree: tree(),
        status,
        behind: behind.map(Serial),
        tombstone: None,
        split: Vec::new(),
        stranded: false,
        lacks: None,
        lacks_parts: Vec::new(),
    };

    let status = |running: u64| TreeStatus {
        running: Some(Serial(running)),
        release: None,
        work: None,
        trouble: None,
        stale: None,
        drifted: None,
        repository: None,
        staged: None,
        held: None,
        unhealthy: false,
        sent: None,
        message: ReleaseMessage::new("fix css")
            .ok()
            .filter(|_| running == 17),
    };

    let work = TreeActivity {
        word: "staging".into(),
        serial: Serial(18),
        sender: host("ci"),
        fetch: Some(FetchProgress {
            total: 1000,
            left: 400,
        }),
    };

    let text = "health check curl failed: exit status 22\n  refused".to_string();
    let stale = Stale {
        age: 40 * 86_400 + 7,
        max_age: 30 * 86_400,
    };

    let trouble = Trouble {
        serial: Serial(17),
        age: 310,
        text,
    };

    let repository = RepositoryTrouble {
        age: 7500,
        text: "the head is stale since 2026-11-28 09:00 UTC".to_string(),
    };

    vec![
        standing(
            "web1",
            Some(TreeStatus {
                repository: Some(repository),
                ..status(17)
            }),
            None,
        ),
        standing(
            "web2",
            Some(TreeStatus {
                work: Some(work),
                stale: Some(stale),
                ..status(17)
            }),
            None,
        ),
        standing(
            "web3",
            Some(TreeStatus {
                trouble: Some(trouble),
                ..status(16)
            }),
            Some(17),
        ),
        standing(
            "web4",
            Some(TreeStatus {
                running: None,
                ..status(0)
            }),
            Some(17),
        ),
        standing("web5", None, None),
    ]
}

/// The answers of hosts that all hear each other.
fn heard<T>(found: T) -> Survey<T> {
    Survey {
        found,
        strangers: Vec::new(),
        silence: None,
    }
}

fn human(tell: impl FnOnce(&mut HumanReport)) -> String {
    let out = SharedBuffer::default();
    let messages = SharedBuffer::default();
    tell(&mut HumanReport::to(
        Box::new(out.clone()),
        Box::new(messages.clone()),
        Painter::PLAIN,
        Verbosity::Normal,
    ));
    format!("{}--- stderr\n{}", out.text(), messages.text())
}

fn json(tell: impl FnOnce(&mut Json)) -> String {
    let out = SharedBuffer::default();
    tell(&mut Json::to(Box::new(out.clone())));
    out.text()
}

#[test]
fn a_log() {
    insta::assert_snapshot!(human(|h| h.log(&heard(log()))));
}

#[test]
fn a_log_for_scripts() {
    insta::assert_snapshot!(json(|j| j.log(&heard(log()))));
}

#[test]
fn a_status() {
    insta::assert_snapshot!(human(|h| h.status(&heard(fleet()))));
    assert_eq!(summary(&fleet()[..1]), "1 host, none behind");
}

#[test]
fn a_status_for_scripts() {
    insta::assert_snapshot!(json(|j| j.status(&heard(fleet()))));
}

#[test]
fn all_hosts_are_told_by_their_number() {
    let mut log = log();
    log.releases[0].running.push(host("web3").into());
    let table = releases(&log).lines(Painter::PLAIN);
    assert!(table[0].contains("runs on all 3 "), "{table:?}");
}

#[test]
fn hosts_of_one_name_have_their_addresses_everywhere() {
    let one = NamedHost {
        name: host("web3"),
        address: Some([10, 0, 0, 4].into()),
    };

    let mut log = log();
    log.releases[1].running = vec![one.clone()];
    log.silent = vec![one.clone()];
    let shown = human(|h| h.log(&heard(log.clone())));

    assert!(
        shown.contains("runs on web3 (10.0.0.4)")
            && shown.contains("did not answer: web3 (10.0.0.4)"),
        "{shown}"
    );

    assert!(json(|j| j.log(&heard(log.clone()))).contains(r#""running":["web3 (10.0.0.4)"]"#));
    let mut fleet = fleet();
    fleet[2].named = one.clone();
    fleet[0].split = vec![one];
    let shown = human(|h| h.status(&heard(fleet.clone())));

    assert!(
        shown.contains("split: another www@17 on web3 (10.0.0.4)"),
        "{shown}"
    );

    assert!(
        json(|j| j.status(&heard(fleet.clone())))
            .contains(r#""behind":["web3 (10.0.0.4)","web4"]"#)
    );
}

#[test]
fn a_part_that_a_host_lacks_is_told() {
    let mut fleet = fleet();
    fleet[0].lacks_parts = vec![Serial(14), Serial(16)];
    let shown = human(|h| h.status(&heard(fleet[..1].to_vec())));
    assert!(
        shown.contains("lacks www@14, www@16, sent to others before") && shown.contains("1 behind"),
        "{shown}"
    );
    assert!(json(|j| j.status(&heard(fleet[..1].to_vec()))).contains(r#""lacks_parts":[14,16]"#));
}

#[test]
fn a_further_look_has_a_line_for_each_change_and_none_for_ages() {
    let out = SharedBuffer::default();
    let messages = SharedBuffer::default();
    let mut report = Report::HumanReport(HumanReport::to(
        Box::new(out.clone()),
        Box::new(messages.clone()),
        Painter::PLAIN,
        Verbosity::Normal,
    ));

    let first = heard(fleet());
    report.look(None, &first);
    assert_eq!(out.text().lines().count(), 5, "{}", out.text());

    let mut later = first.clone();
    for standing in &mut later.found {
        let status = standing.status.as_mut();
        let trouble = status.and_then(|status| status.trouble.as_mut());
        trouble.into_iter().for_each(|trouble| trouble.age += 60);
    }
    report.look(Some(&first), &later);
    assert_eq!(out.text().lines().count(), 5, "{}", out.text());

    let mut changed = later.clone();
    changed.found.remove(4);
    changed.found[2].behind = None;
    report.look(Some(&later), &changed);
    let text = out.text();
    let new: Vec<&str> = text.lines().skip(5).collect();
    assert_eq!(new.len(), 2, "{text}");
    assert!(
        new[0].contains(" UTC  web3  www@16") && !new[0].contains("behind"),
        "{text}"
    );
    assert!(new[1].ends_with(" UTC  web5  www  gone"), "{text}");
}
