//! Tests of the measurements of hosts: slow ones, trials, the window, and the reporters.

use super::*;
use crate::id::SessionId;
use crate::proto::sender::host_stats::MAX_SYMBOL_BYTES;
use crate::proto::sender::reporters::REPORTERS;
use crate::proto::sender::trial::{FIRST_TRIAL_PAUSE, TRIAL_REPORTS};

const MS: u64 = 1_000_000;

/// Reports of a host that receives `got` of `sent` datagrams of 1000 bytes in each of `rounds`
/// rounds of 10 ms.
fn rounds(receivers: &mut ReceiverStats, host: u64, rounds: u64, sent: u64, got: u64, delay: u32) {
    for round in 1..=rounds {
        let report = ReceiverReport {
            session: SessionId(1),
            seen: sent * round,
            datagrams: got * round,
            bytes: got * round * 1000,
            delay,
            backlog: 0,
            window: 1 << 20,
            at: round * 10_000,
            unrelayed: None,
        };
        receivers.on_report(Moment(round * 10 * MS), InstanceId(host), report, 0, |_| 0);
    }
}

#[test]
fn a_host_far_below_the_others_is_slow_and_one_that_only_loses_is_not() {
    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    for host in 1..=3 {
        rounds(&mut receivers, host, 8, 100, 100, 0);
    }

    rounds(&mut receivers, 4, 8, 100, 60, 0);
    rounds(&mut receivers, 5, 8, 100, 5, 30_000);
    assert_eq!(
        receivers.slow().iter().copied().collect::<Vec<_>>(),
        [InstanceId(5)]
    );
    receivers.readmit();

    assert!(receivers.slow().is_empty());
}

#[test]
fn numbers_that_no_host_measures_count_as_little_as_they_can() {
    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    let first = ReceiverReport {
        session: SessionId(1),
        seen: 100,
        datagrams: 100,
        bytes: 0,
        delay: 0,
        backlog: u64::MAX,
        window: 0,
        at: 1,
        unrelayed: None,
    };

    assert!(
        receivers
            .on_report(Moment(1), InstanceId(1), first, 0, |_| 0)
            .is_none()
    );

    let most = u64::MAX;
    let late = u32::MAX;
    let lie = ReceiverReport {
        seen: 200,
        datagrams: most,
        bytes: most,
        delay: late,
        window: late,
        at: most,
        ..first
    };

    let sample = receivers
        .on_report(Moment(2), InstanceId(1), lie, 0, |_| 0)
        .expect("a measurement");
    assert!(sample.bytes <= 100 * (MAX_SYMBOL_BYTES + 90), "{sample:?}");
    assert_eq!(receivers.window(Moment(3), 300, 1000), 0);

    // The next report counts again.
    assert!(
        receivers
            .on_report(Moment(4), InstanceId(1), first, 0, |_| 0)
            .is_none()
    );

    assert!(
        receivers
            .on_report(
                Moment(5),
                InstanceId(1),
                ReceiverReport {
                    at: 2,
                    seen: 300,
                    ..first
                },
                0,
                |_| 0
            )
            .is_some()
    );
}

#[test]
fn a_host_that_is_strained_alone_does_not_count_for_the_rate_until_its_trial_is_over() {
    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    let strain = |receivers: &mut ReceiverStats, round: u64, host: u64, delay: u32| {
        let report = ReceiverReport {
            session: SessionId(1),
            seen: 100 * round,
            datagrams: 100 * round,
            bytes: 100_000 * round,
            delay,
            backlog: 0,
            window: 1 << 20,
            at: round * 10_000,
            unrelayed: None,
        };
        receivers
            .on_report(Moment(round * 10 * MS), InstanceId(host), report, 0, |_| 0)
            .is_some()
    };

    let long = u64::from(TRIAL_REPORTS);
    let pause = FIRST_TRIAL_PAUSE.as_millis() as u64 / 10;
    let counts: Vec<bool> = (1..long + pause + 10)
        .map(|round| {
            strain(&mut receivers, round, 1, 0);
            strain(&mut receivers, round, 2, 0);
            strain(&mut receivers, round, 3, 10_000)
        })
        .collect();

    let ignored = counts.iter().skip(1).take_while(|counts| !**counts).count() as u64;
    assert_eq!(ignored, long);
    let pause = pause as usize;
    let after = &counts[long as usize + 1..];
    assert!(after[..pause].iter().all(|counts| *counts), "{counts:?}");
    assert!(!after[pause], "the next trial: {counts:?}");

    // The others are congested as well, so all count.
    let counts: Vec<bool> = (500..520)
        .flat_map(|round| [1, 2, 3].map(|host| strain(&mut receivers, round, host, 10_000)))
        .collect();

    assert!(counts[6..].iter().all(|counts| *counts), "{counts:?}");
}

#[test]
fn the_last_host_is_never_too_slow() {
    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    receivers.set_fetching(1);
    rounds(&mut receivers, 1, 8, 100, 100, 0);
    rounds(&mut receivers, 2, 8, 100, 5, 30_000);
    assert!(receivers.slow().is_empty());
}

#[test]
fn the_floor_may_be_a_rate_or_none() {
    for (floor, slow) in [
        (Floor::Rate(crate::units::Rate(2_000_000)), 0),
        (Floor::Share(0), 0),
        (Floor::Share(9_000), 1),
    ] {
        let mut receivers = ReceiverStats::new(0, floor, 1);
        rounds(&mut receivers, 1, 8, 100, 100, 0);
        rounds(&mut receivers, 2, 8, 100, 10, 30_000);
        assert_eq!(receivers.slow().len(), slow, "{floor}");
    }
}

#[test]
fn the_window_is_that_of_the_slowest_host_and_a_silent_one_does_not_hold_it() {
    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    assert_eq!(receivers.window(Moment(0), 0, 1000), FIRST_WINDOW);
    rounds(&mut receivers, 1, 8, 100, 100, 0);
    let now = Moment(80 * MS);
    assert_eq!(receivers.window(now, 800, 1000), 1 << 20);
    assert_eq!(receivers.window(now, 900, 1000), (1 << 20) - 100_000);
    assert_eq!(receivers.window(now, 5_000, 1000), 0);

    assert_eq!(
        receivers.window(now + STALE_AFTER, 5_000, 1000),
        FIRST_WINDOW
    );
}

#[test]
fn of_a_large_fleet_a_few_report_and_the_worst_among_them() {
    let mut receivers = ReceiverStats::new(90, Floor::Share(0), 1);
    let hosts = || (1..=500).map(InstanceId).collect::<Vec<_>>().into_iter();
    assert!(!receivers.choose(Moment(0), hosts().take(REPORTERS)));
    assert!(receivers.reporters().is_empty());
    rounds(&mut receivers, 77, 8, 100, 40, 30_000);
    assert!(receivers.choose(Moment(80 * MS), hosts()));
    assert!(
        receivers.reporters().len() <= REPORTERS && receivers.reporters().contains(&InstanceId(77))
    );

    assert!(!receivers.choose(Moment(90 * MS), hosts()), "too soon");
}

#[test]
fn a_host_has_no_part_in_the_losses_of_a_relay() {
    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    let mut loss_of = |round: u64, excused: u64| {
        let report = ReceiverReport {
            session: SessionId(1),
            seen: 100 * round,
            datagrams: 80 * round,
            bytes: 80_000 * round,
            delay: 0,
            backlog: 0,
            window: 1 << 20,
            at: round * 10_000,
            unrelayed: None,
        };
        let excused = |counters: Range<u64>| {
            assert_eq!(counters, 100 * round - 99..100 * round + 1);
            excused
        };
        let now = Moment(round * 10 * MS);
        let sample = receivers.on_report(now, InstanceId(1), report, 0, excused);
        let loss = sample.map(|sample| sample.loss);
        receivers.excuse_losses();
        loss
    };

    assert_eq!(loss_of(1, 0), None);
    assert!(loss_of(2, 0).is_some_and(|loss| loss > 0.019));
    assert_eq!(loss_of(3, 20), Some(0.0));
    assert_eq!(loss_of(4, 1000), Some(0.0));
}

/// Lets `hosts` report `got` of 100 datagrams in round `round` of 10 ms each; returns the last loss.
fn report(receivers: &mut ReceiverStats, hosts: &[u64], round: u64, got: u64) -> Option<f64> {
    let reports = hosts.iter().map(|&host| {
        let report = ReceiverReport {
            session: SessionId(1),
            seen: 100 * round,
            datagrams: got,
            bytes: got * 1000,
            delay: 0,
            backlog: 0,
            window: 1 << 20,
            at: round * 10_000,
            unrelayed: None,
        };
        let now = Moment(round * 10 * MS);
        receivers.on_report(now, InstanceId(host), report, 0, |_| 0)
    });
    reports.last().flatten().map(|sample| sample.loss)
}

#[test]
fn a_relay_that_stops_reporting_is_silent_but_not_after_a_pause_of_all() {
    let silent = |receivers: &ReceiverStats, round: u64| -> Vec<InstanceId> {
        receivers.unfit(Moment(round * 10 * MS)).collect()
    };

    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    receivers.on_relayed();
    (1..=20).for_each(|round| {
        report(&mut receivers, &[1, 2, 3], round, 100 * round);
    });
    assert_eq!(silent(&receivers, 20), []);
    assert_eq!(silent(&receivers, 200), [], "none has data");

    // The pause ends, and one host is the first to report.
    report(&mut receivers, &[1, 3], 200, 20_000);
    assert_eq!(silent(&receivers, 200), []);
    (201..=208).for_each(|round| {
        report(&mut receivers, &[1, 3], round, 100 * round);
    });
    assert_eq!(silent(&receivers, 208), [InstanceId(2)]);

    report(&mut receivers, &[2], 209, 20_900);
    assert_eq!(silent(&receivers, 209), []);
}

#[test]
fn hosts_that_miss_the_data_of_a_silent_relay_are_not_slow() {
    let mut receivers = ReceiverStats::new(90, Floor::Share(9_000), 1);
    receivers.on_relayed();
    (1..=20).for_each(|round| {
        report(&mut receivers, &[1, 2, 3], round, 100 * round);
    });
    (21..=100).for_each(|round| {
        report(&mut receivers, &[1, 3], round, 2_000 + (round - 20) * 50);
    });
    assert!(receivers.slow().is_empty(), "{:?}", receivers.slow());
}

#[test]
fn datagrams_that_relays_reorder_are_not_lost() {
    let mut receivers = ReceiverStats::new(90, Floor::default(), 1);
    receivers.on_relayed();
    // A third of each interval comes in the next one, or with the last third of that.
    for round in 1..200 {
        let late = if round % 2 == 0 { 35 } else { 5 };
        let loss = report(&mut receivers, &[1, 2], round, 100 * round - late);
        assert!(loss.is_none_or(|loss| loss < 0.1), "{loss:?} at {round}");
    }

    // One in ten is lost besides.
    for round in 200..300 {
        let late = if round % 2 == 0 { 35 } else { 5 };
        let got = 20_000 + (round - 200) * 90 - late;
        let loss = report(&mut receivers, &[1, 2], round, got);
        let known = round > 240;
        assert!(
            !known || loss.is_some_and(|loss| (0.05..0.15).contains(&loss)),
            "{loss:?} at {round}"
        );
    }
}
