//! What a batch comes to at all hosts.

use super::*;
use crate::id::{HostName, Labels, TreeName};
use crate::outcome::Purpose;

fn named(host: &str) -> NamedHost {
    NamedHost::from(HostName::new(host).expect("legal"))
}

fn all(hosts: &[&str]) -> Vec<NamedHost> {
    hosts.iter().map(|host| named(host)).collect()
}

/// Batch 2 of 3: web1 has the release, the batch is `batch`, and web5 waits.
fn report(batch: &[(&str, HostState)]) -> BatchReport {
    let hosts = batch
        .iter()
        .map(|(host, state)| HostResult::new(HostName::new(host).expect("legal"), *state));
    let mut outcome = Outcome::new(Purpose::Deploy, TreeName::new("www").expect("legal"));
    outcome.hosts = hosts.collect();
    BatchReport {
        outcome: outcome.settle(),
        next: NextBatch {
            number: 2,
            of: 3,
            needed: batch.len(),
            hosts: batch.iter().map(|(host, _)| named(host)).collect(),
            failing: Vec::new(),
            checking: Vec::new(),
            unknown: Vec::new(),
            waiting: all(&["web5"]),
        },
        well: all(&["web1"]),
        failing: Vec::new(),
        checking: Vec::new(),
        missing: Vec::new(),
        unknown: Vec::new(),
        after: None,
    }
}

/// Places after the release was taken back.
fn after(places: &[(&str, ReleasePlace)]) -> Option<Vec<RolloutHost>> {
    let host = |(host, place): &(&str, ReleasePlace)| RolloutHost {
        named: named(host),
        labels: Labels::default(),
        place: *place,
    };
    Some(places.iter().map(host).collect())
}

/// States with reasons, by host.
fn shown(outcome: &Outcome) -> Vec<String> {
    let host = |h: &HostResult| {
        let why = h.error.as_deref().unwrap_or("-");
        format!("{} {}: {why}", h.host, h.state.word())
    };
    outcome.hosts.iter().map(host).collect()
}

#[test]
fn a_batch_without_a_host_that_went_back_is_taken_back_all_the_same() {
    let mut report = report(&[("web2", HostState::Failed)]);
    assert!(!report.is_taken_back());
    report.outcome.taken_back = true;
    assert!(report.is_taken_back());
    report.after = after(&[
        ("web1", ReleasePlace::Missing),
        ("web5", ReleasePlace::Missing),
    ]);

    let outcome = report.outcome();
    assert_eq!(
        shown(&outcome),
        [
            "web1 reverted: -",
            "web2 failed: -",
            "web5 aborted: not changed: the release was taken back",
        ]
    );
    assert_eq!(outcome.exit, ExitStatus::Refused);
}

#[test]
fn a_host_of_an_earlier_batch_that_fails_its_checks_is_no_success() {
    let mut done = report(&[("web2", HostState::Committed)]);
    done.failing = all(&["web3"]);
    let outcome = done.outcome();
    assert_eq!(
        shown(&outcome)[2],
        "web3 unhealthy: fails its checks",
        "{outcome:?}"
    );
    assert_eq!(outcome.exit, ExitStatus::Mixed);

    // A session that changed nothing says so.
    let mut refused = report(&[("web2", HostState::Refused)]);
    refused.failing = all(&["web3"]);
    assert_eq!(refused.outcome().exit, ExitStatus::Refused);
}

#[test]
fn a_host_that_does_not_answer_is_not_told_as_one_that_went_back() {
    let mut report = report(&[("web2", HostState::Reverted)]);
    report.outcome.taken_back = true;
    report.after = after(&[("web1", ReleasePlace::Unknown)]);
    let outcome = report.outcome();
    let states: Vec<HostState> = outcome.hosts.iter().map(|h| h.state).collect();
    let expected = [HostState::Unknown, HostState::Reverted, HostState::Staged];
    assert_eq!(states, expected);
    assert_eq!(outcome.exit, ExitStatus::Mixed);
}

#[test]
fn hosts_wait_after_a_batch_with_enough_hosts_and_take_it_after_the_last() {
    let four_of_five = || {
        let hosts = ["web2", "web3", "web4", "web6", "web7"];
        let state = |nth| match nth {
            4 => HostState::Absent,
            _ => HostState::Committed,
        };
        let batch: Vec<_> = hosts.into_iter().zip((0..5).map(state)).collect();
        let mut report = report(&batch);
        report.next.needed = 4;
        report
    };

    let paused = four_of_five().outcome();
    assert!(paused.batch.as_ref().expect("a batch").is_paused);
    assert!(paused.is_reached(HostState::Staged));
    assert_eq!(paused.exit, ExitStatus::Mixed);
    assert_eq!(shown(&paused)[4], "web5 staged: waits for its batch");

    let mut more = four_of_five();
    more.next.needed = 5;
    assert!(!more.outcome().batch.expect("a batch").is_paused);

    let mut last = four_of_five();
    last.next.number = 3;
    let last = last.outcome();
    assert!(!last.batch.as_ref().expect("a batch").is_paused);
    assert_eq!(shown(&last)[4], "web5 staged: takes it from the others");
}
