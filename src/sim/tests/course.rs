//! Course of a deploy: every host that stays up ends complete, and the rest is told.

use std::time::Duration;

use super::{LONG, SOON, assert_complete, deploy, without_multicast};
use crate::manifest::Intent;
use crate::proto::sender::{CommitRules, SenderNotice};
use crate::sim::offer::SimOffer;
use crate::sim::{LinkSetup, Network, NetworkSetup};
use crate::units::{Quorum, Rate};
use crate::wire::HostStage;
use crate::wire::message::OrderKind;

/// Bound on the time for which the others wait in vain for the first answer of a host.
const MAX_COST_OF_SILENCE: Duration = Duration::from_millis(250);

#[test]
fn three_hosts_on_a_clean_network() {
    let mut network = deploy(NetworkSetup::default(), 50, 40_000);
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=3, 1);
    assert_eq!(network.sender().stats().repaired, 0);
    assert!(matches!(
        network.log.notices.last(),
        Some(SenderNotice::Finished)
    ));
}

#[test]
fn whatever_the_network_does_every_host_ends_complete() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let link = LinkSetup {
            loss: rng.f64() * 0.2,
            burst: if rng.bool() { rng.f64() * 0.005 } else { 0.0 },
            duplicate: rng.f64() * 0.05,
            delay: Duration::from_micros(rng.u64(10..3000)),
            jitter: Duration::from_micros(rng.u64(0..2000)),
            ..LinkSetup::default()
        };

        let hosts = rng.usize(1..8);
        let setup = NetworkSetup {
            seed,
            hosts,
            link: link.clone(),
            ..NetworkSetup::default()
        };

        let files = rng.u32(1..120);
        let size = rng.usize(1..60_000);
        let mut network = deploy(setup, files, size);

        assert!(
            network.run(LONG, SOON),
            "seed {seed}: not finished, {link:?}"
        );

        assert_complete(&mut network, 1..=hosts, seed);
    }
}

#[test]
fn hundreds_of_hosts_with_loss() {
    let link = LinkSetup {
        loss: 0.01,
        jitter: Duration::from_micros(100),
        ..LinkSetup::default()
    };

    let setup = NetworkSetup {
        seed: 5,
        hosts: 300,
        link,
        ..NetworkSetup::default()
    };

    let mut network = deploy(setup, 40, 30_000);
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=300, 5);
    let most = network.feedback().max().unwrap_or(0);

    assert!(most < 120, "a host sent {most} datagrams to the sender");
}

#[test]
fn a_host_that_dies_does_not_stop_the_others() {
    for seed in 0..10 {
        let link = LinkSetup {
            loss: 0.02,
            ..LinkSetup::default()
        };

        let quorum = Quorum::Count(3);
        let mut network = deploy(
            NetworkSetup {
                seed,
                hosts: 4,
                link,
                commit: CommitRules {
                    quorum,
                    ..CommitRules::default()
                },
                ..NetworkSetup::default()
            },
            200,
            60_000,
        );

        network.power(2, false, Duration::from_millis(100 + seed * 15));

        assert!(network.run(LONG, SOON), "seed {seed}");
        assert_complete(&mut network, [1, 3, 4].into_iter(), seed);
        let disk = network.disk(2);

        assert!(disk.is_whole(), "seed {seed}");
    }
}

/// Returns the time from the announcement until all hosts but the last are ready. The last one may
/// die before the announcement.
fn others_took(mut setup: NetworkSetup, dies: bool) -> Duration {
    let last = setup.hosts;
    setup.prepare = Duration::from_millis(50);
    let mut network = deploy(setup, 40, 60_000);
    let end = network.now() + LONG;
    while network.log.notices.is_empty() && network.now() < end {
        network.run(Duration::from_millis(1), Duration::ZERO);
    }
    if dies {
        network.power(last, false, Duration::ZERO);
    }

    let others = |network: &Network| {
        let ready = network.log.ready.iter();
        let others = ready.filter(|(host, _)| **host < last);
        others.map(|(_, at)| *at).collect::<Vec<_>>()
    };
    while others(&network).len() + 1 < last && network.now() < end {
        network.run(Duration::from_millis(20), Duration::ZERO);
    }
    let ready = others(&network);
    assert_eq!(ready.len() + 1, last, "ready within {LONG:?}");
    ready
        .into_iter()
        .max()
        .map_or(LONG, |at| at.since(network.announced()))
}

#[test]
fn a_host_that_dies_before_the_announcement_is_awaited_only_for_an_answer() {
    for (hosts, has_multicast) in [(3, true), (9, true), (3, false), (9, false)] {
        for seed in 0..2 {
            let setup = || {
                let line = Rate(200_000_000);
                let mut setup = without_multicast(seed, (hosts, hosts - 1), (line, 0.01));
                setup.unicast = setup.unicast.filter(|_| !has_multicast);
                setup
            };
            let (alive, dead) = (others_took(setup(), false), others_took(setup(), true));
            assert!(
                dead.saturating_sub(alive) < MAX_COST_OF_SILENCE,
                "{hosts} hosts, multicast {has_multicast}, seed {seed}: {dead:?}, not {alive:?}"
            );
        }
    }
}

#[test]
fn when_all_are_required_a_dead_host_means_that_nobody_commits() {
    let mut network = deploy(
        NetworkSetup {
            seed: 3,
            hosts: 4,
            ..NetworkSetup::default()
        },
        300,
        60_000,
    );

    network.power(2, false, Duration::from_millis(20));
    // The host answered the solicit and is gone before the rest.
    assert!(network.run(LONG, SOON));
    for host in 1..=4 {
        assert!(network.disk(host).committed.is_none(), "host {host}");
    }

    assert_eq!(network.sender().decision(), Some(OrderKind::Abort));
}

#[test]
fn a_host_that_restarts_in_the_middle_is_served_again() {
    for seed in 0..10 {
        let link = LinkSetup {
            loss: 0.01,
            ..LinkSetup::default()
        };

        let mut network = deploy(
            NetworkSetup {
                seed,
                hosts: 3,
                link,
                ..NetworkSetup::default()
            },
            300,
            60_000,
        );

        network.power(1, false, Duration::from_millis(80 + seed * 10));
        network.power(1, true, Duration::from_millis(200 + seed * 10));

        assert!(network.run(LONG, SOON), "seed {seed}");
        assert_complete(&mut network, 1..=3, seed);
    }
}

#[test]
fn a_host_that_appears_in_the_middle_is_served_or_left_cleanly() {
    for seed in 0..10 {
        let mut network = deploy(
            NetworkSetup {
                seed,
                hosts: 3,
                ..NetworkSetup::default()
            },
            300,
            60_000,
        );

        network.power(3, false, Duration::ZERO);
        network.power(3, true, Duration::from_millis(30 + seed * 20));

        assert!(network.run(LONG, Duration::from_secs(15)), "seed {seed}");
        assert_complete(&mut network, 1..=2, seed);
        let late = network.disk(3);

        assert!(late.is_whole() && late.counts.commits <= 1, "seed {seed}");
    }
}

#[test]
fn a_host_that_refuses_is_named_and_nothing_changes() {
    let mut network = deploy(
        NetworkSetup {
            seed: 9,
            hosts: 3,
            ..NetworkSetup::default()
        },
        20,
        10_000,
    );

    network.disk(2).script.refuse = Some("no space".into());
    assert!(network.run(LONG, SOON));
    for host in 1..=3 {
        assert!(network.disk(host).committed.is_none());
    }

    let refused: Vec<_> = network
        .sender()
        .hosts()
        .filter(|h| h.stage == Some(HostStage::Refused))
        .collect();

    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].text.as_deref(), Some("no space"));
}

#[test]
fn a_payload_that_arrives_wrong_is_asked_for_again() {
    let mut network = deploy(
        NetworkSetup {
            seed: 11,
            hosts: 2,
            ..NetworkSetup::default()
        },
        60,
        30_000,
    );
    network.disk(1).script.corrupt = 2;
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=2, 11);
}

#[test]
fn an_audit_changes_nothing_and_collects_each_drift_once() {
    let offer = SimOffer::random(4, 1, Intent::Audit, 30, 20_000);
    let link = LinkSetup {
        loss: 0.1,
        ..LinkSetup::default()
    };

    let mut network = Network::new(
        NetworkSetup {
            seed: 4,
            hosts: 5,
            link,
            ..NetworkSetup::default()
        },
        offer,
    );

    assert!(network.run(LONG, SOON));
    for host in 1..=5 {
        assert!(network.disk(host).committed.is_none());
    }

    assert_eq!(network.sender().drift_reports().count(), 1);
}

#[test]
fn a_release_that_takes_long_to_make_finds_its_hosts_all_the_same() {
    let setup = NetworkSetup {
        seed: 6,
        prepare: Duration::from_secs(300),
        ..NetworkSetup::default()
    };

    let mut network = deploy(setup, 10, 10_000);
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=3, 6);
}

#[test]
fn an_interrupted_session_ends_at_once_and_changes_nothing() {
    for (intent, at) in [
        (Intent::Audit, 35),
        (Intent::Deploy, 35),
        (Intent::Deploy, 100),
    ] {
        let offer = SimOffer::random(8, 1, intent, 300, 60_000);
        let mut network = Network::new(
            NetworkSetup {
                seed: 8,
                ..NetworkSetup::default()
            },
            offer,
        );

        network.run(Duration::from_millis(at), Duration::ZERO);
        network.interrupt();

        assert!(
            network.run(Duration::from_secs(5), SOON),
            "{intent:?} at {at} ms"
        );

        assert!((1..=3).all(|host| network.disk(host).committed.is_none()));
    }
}

#[test]
fn nobody_there_is_said_within_a_few_seconds() {
    let mut network = deploy(
        NetworkSetup {
            seed: 2,
            hosts: 0,
            ..NetworkSetup::default()
        },
        1,
        10,
    );
    let began = network.now();
    assert!(network.run(LONG, Duration::ZERO));
    assert!(network.now().since(began) < Duration::from_secs(5));
}

#[test]
fn one_seed_is_one_story() {
    let story = |seed| {
        let link = LinkSetup {
            loss: 0.05,
            jitter: Duration::from_millis(1),
            ..LinkSetup::default()
        };
        let mut network = deploy(
            NetworkSetup {
                seed,
                hosts: 4,
                link,
                ..NetworkSetup::default()
            },
            60,
            30_000,
        );
        network.run(LONG, SOON);
        (
            network.now(),
            network.sender().stats(),
            network.feedback().collect::<Vec<_>>(),
        )
    };

    assert_eq!(story(77), story(77));
    assert_ne!(story(77), story(78));
}
