//! Tests of the responses.

use super::*;
use crate::id::{HostName, TreeName};
use crate::outcome::{DriftKind, DriftLine, ExitStatus, HostResult, MemberTree, Purpose};

fn name(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn files(deed: AdhocAction, dry_run: bool) -> Files {
    Files {
        deed,
        dry_run,
        recurse: true,
        target: None,
        group: None,
        paths: Vec::new(),
    }
}

fn group(hosts: &[&str], lines: &[(&str, &str, DriftKind)]) -> DriftGroup {
    let line = |(path, itemized, what): &(&str, &str, DriftKind)| DriftLine {
        path: path.as_bytes().to_vec(),
        itemized: itemized.to_string(),
        what: *what,
    };

    DriftGroup::new(
        hosts.iter().map(|h| name(h)).collect(),
        lines.iter().map(line).collect(),
    )
}

fn an_outcome(drift: Vec<DriftGroup>) -> Outcome {
    let mut outcome = Outcome::new(Purpose::Deploy, TreeName::new("default").unwrap());
    outcome.hosts = ["mk2", "mk3"]
        .map(|h| HostResult::new(name(h), HostState::Committed))
        .into();
    outcome.drift = drift;
    outcome.exit = ExitStatus::Success;
    outcome
}

#[test]
fn members_stand_in_columns() {
    let member = |host: &str, address: &str| MemberInfo {
        host: name(host),
        address: address.parse().unwrap(),
        version: "1.3.6".into(),
        labels: Default::default(),
        trees: Vec::<MemberTree>::new(),
    };

    let all = [
        member("mk2", "10.0.0.2:5000"),
        member("web10", "10.0.0.13:5000"),
    ];
    assert_eq!(
        members(&all),
        [
            "mk2   10.0.0.2  (Ver1.3.6)",
            "web10 10.0.0.13 (Ver1.3.6)",
            "Total: 2 members"
        ]
    );
}

#[test]
fn a_directory_is_told_for_its_own_sake_only() {
    let lines = [
        ("a", "cd+++++++++", DriftKind::Missing),
        ("a/b", "cd+++++++++", DriftKind::Missing),
        ("a/b/file", ">f+++++++++", DriftKind::Missing),
        ("empty", "cd+++++++++", DriftKind::Missing),
        ("moved", ".d..t......", DriftKind::Time),
        ("shut", ".d...p.....", DriftKind::Mode),
    ];

    let outcome = an_outcome(vec![group(&["mk2"], &lines)]);
    let reported = super::outcome(&files(AdhocAction::Send, true), &outcome, &[], 0);
    assert_eq!(
        reported,
        [
            "(dryrun) [update:a/b/file]",
            "(dryrun) [update:empty]",
            "(dryrun) [update:shut]"
        ]
    );

    assert_eq!(
        super::outcome(&files(AdhocAction::Check, false), &outcome, &[], 0),
        ["mk2: NG a/b/file"]
    );
}

#[test]
fn the_level_says_how_much_is_told() {
    let extra = [
        ("d", "*deleting", DriftKind::Extra),
        ("d/x", "*deleting", DriftKind::Extra),
    ];
    let changed = [("f", ">fcst......", DriftKind::Content)];
    let outcome = an_outcome(vec![group(&["mk2"], &changed), group(&["mk3"], &extra)]);
    let all = [b"f".to_vec()];

    let reported = |deed, dry, level| super::outcome(&files(deed, dry), &outcome, &all, level);
    assert_eq!(reported(AdhocAction::Sync, false, 0), Vec::<String>::new());
    assert_eq!(
        reported(AdhocAction::Sync, true, 0),
        [
            "(dryrun) [update:f]",
            "(dryrun) [delete:d/x]",
            "(dryrun) [delete:d]"
        ]
    );

    assert_eq!(
        reported(AdhocAction::Sync, false, 1),
        ["update mk2:f", "delete mk3:d/x", "delete mk3:d"]
    );
    assert_eq!(
        reported(AdhocAction::Send, false, 2),
        ["update mk2:f", "skip   mk3:f"]
    );

    assert_eq!(
        reported(AdhocAction::Prune, false, 0),
        ["delete mk3:d/x", "delete mk3:d"]
    );
}

#[test]
fn what_went_wrong_is_named() {
    let mut outcome = an_outcome(vec![group(
        &["mk3"],
        &[("f", ">f+++++++++", DriftKind::Missing)],
    )]);
    outcome.hosts[1].state = HostState::Refused;
    outcome.hosts[1].error = Some("no space left".into());
    outcome.exit = ExitStatus::Mixed;

    assert_eq!(
        super::outcome(&files(AdhocAction::Send, false), &outcome, &[], 1),
        ["error: mk3 refused: no space left"]
    );
    outcome.hosts.clear();
    (outcome.error, outcome.hint) = (Some("no hosts answered".into()), Some("look".into()));

    assert_eq!(
        super::outcome(&files(AdhocAction::Send, false), &outcome, &[], 1),
        ["error: no hosts answered (look)"]
    );
}

#[test]
fn no_line_is_taken_for_a_prompt_or_a_sign_of_life() {
    assert_eq!(line("> x"), b"\\x3e x\n");
    assert_eq!(line("alive"), b"\\x61live\n");
    assert_eq!(line("a\u{1b}[0m\nb"), b"a\\u{1b}[0m; b\n");
    assert_eq!(line(">x"), b">x\n");
}
