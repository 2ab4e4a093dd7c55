//! Every host that stays up ends complete, under any behaviour of the network.

use std::time::Duration;

use super::disk::SimOffer;
use super::{LinkSetup, Network, NetworkSetup};
use crate::block::frame::Level;
use crate::manifest::Intent;
use crate::proto::sender::SenderNotice;
use crate::units::{Quorum, Rate};
use crate::wire::HostStage;
use crate::wire::message::OrderKind;

const LONG: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(500);

fn deploy(setup: NetworkSetup, files: u32, size: usize) -> Network {
    let offer = SimOffer::random(setup.seed, 1, Intent::Deploy, files, size);
    Network::new(setup, offer)
}

/// Asserts that every host in `hosts` has the release, committed once and whole.
fn assert_complete(network: &mut Network, hosts: impl Iterator<Item = usize>, seed: u64) {
    for host in hosts {
        let disk = network.disk(host);
        let serial = disk.committed.as_ref().map(|r| r.header().serial.0);
        assert_eq!(
            (serial, disk.commits, disk.is_whole()),
            (Some(1), 1, true),
            "host {host}, seed {seed}"
        );
    }
}

#[test]
fn three_hosts_on_a_clean_network() {
    let mut network = deploy(NetworkSetup::default(), 50, 40_000);
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=3, 1);
    assert_eq!(network.sender().stats().repaired, 0);
    assert!(matches!(
        network.notices.last(),
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

/// A rival that starts while data flows is refused because of the first sender, so hosts must hear
/// from that sender in time.
#[test]
fn a_sender_is_never_silent_while_it_has_data() {
    for seed in 0..6 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let hosts = rng.usize(1..6);
        let ceiling = Some(Rate(rng.u64(1_000_000..4_000_000)));
        let link = LinkSetup {
            loss: rng.f64() * 0.05,
            ..LinkSetup::default()
        };

        let mut network = deploy(
            NetworkSetup {
                seed,
                hosts,
                link,
                ceiling,
                ..NetworkSetup::default()
            },
            50,
            40_000,
        );

        assert!(network.run(LONG, SOON), "seed {seed}");
        let took = network.took();
        let pause = network.longest_pause;

        assert!(
            took > Duration::from_secs(2),
            "seed {seed}: too short to show anything, {took:?}"
        );

        assert!(
            pause < Duration::from_millis(600),
            "seed {seed}: silent for {pause:?}"
        );
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
                quorum,
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

        assert!(late.is_whole() && late.commits <= 1, "seed {seed}");
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

    network.disk(2).refuse = Some("no space".into());
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
    network.disk(1).corrupt = 2;
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=2, 11);
}

/// Deploys to every host at a compression level; returns the bytes sent.
fn letters(setup: NetworkSetup, level: u8) -> u64 {
    let compress = Level::new(level);
    let seed = setup.seed;
    let hosts = setup.hosts;
    let mut network = Network::new(
        NetworkSetup { compress, ..setup },
        SimOffer::letters(seed, 1, 200, 40_000),
    );
    assert!(network.run(LONG, SOON), "seed {seed}");

    assert_complete(&mut network, 1..=hosts, seed);
    for host in 1..=hosts {
        assert_eq!(
            network.disk(host).frames > 0,
            compress.is_some(),
            "host {host}, seed {seed}"
        );
    }

    network.sender().stats().bytes
}

#[test]
fn a_compressed_release_is_smaller_and_as_whole() {
    for seed in 0..6 {
        let setup = NetworkSetup {
            seed,
            hosts: 3,
            ..NetworkSetup::default()
        };
        let plain = letters(setup.clone(), 0);
        let small = letters(setup, 3);
        assert!(small < plain * 6 / 10, "seed {seed}: {small} of {plain}");
    }
}

#[test]
fn a_compressed_release_comes_through_loss() {
    for seed in 0..12 {
        let link = LinkSetup {
            loss: 0.02 * (seed % 8) as f64,
            duplicate: 0.02,
            ..LinkSetup::default()
        };

        letters(
            NetworkSetup {
                seed,
                hosts: 4,
                link,
                ..NetworkSetup::default()
            },
            1,
        );
    }
}

#[test]
fn a_compressed_payload_that_arrives_wrong_is_asked_for_again() {
    let setup = NetworkSetup {
        seed: 12,
        hosts: 2,
        compress: Level::new(3),
        ..NetworkSetup::default()
    };

    let mut network = Network::new(setup, SimOffer::letters(12, 1, 60, 30_000));
    network.disk(1).corrupt = 3;
    assert!(network.run(LONG, SOON));

    assert_complete(&mut network, 1..=2, 12);
}

#[test]
fn a_host_to_which_all_arrives_wrong_gives_up_and_says_why() {
    for compress in [None, Level::new(3)] {
        let setup = NetworkSetup {
            seed: 13,
            hosts: 2,
            compress,
            ..NetworkSetup::default()
        };

        let mut network = Network::new(setup, SimOffer::letters(13, 1, 20, 10_000));
        network.disk(1).corrupt = u32::MAX;

        assert!(network.run(LONG, SOON));
        assert!((1..=2).all(|host| network.disk(host).committed.is_none()));
        let refused = network
            .sender()
            .hosts()
            .find(|h| h.stage == Some(HostStage::Refused))
            .expect("one");
        assert!(
            refused
                .text
                .as_deref()
                .is_some_and(|t| t.contains("does not match its release")),
            "{refused:?}"
        );
    }
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
fn a_host_that_was_deaf_for_many_generations_catches_up() {
    for deaf_at in [100, 350] {
        let setup = NetworkSetup {
            seed: deaf_at,
            hosts: 2,
            ..NetworkSetup::default()
        };

        let mut network = deploy(setup, 400, 120_000);
        network.run(Duration::from_millis(deaf_at), Duration::ZERO);
        network.set_link(
            2,
            LinkSetup {
                loss: 1.0,
                ..LinkSetup::default()
            },
        );
        network.run(Duration::from_millis(1500), Duration::ZERO);
        network.set_link(2, LinkSetup::default());

        assert!(network.run(LONG, SOON), "deaf at {deaf_at} ms");
        assert_complete(&mut network, 1..=2, deaf_at);
    }
}

#[test]
fn small_deploys_stay_quick_under_loss() {
    for seed in 0..60 {
        let link = LinkSetup {
            loss: 0.05,
            ..LinkSetup::default()
        };

        let setup = NetworkSetup {
            seed,
            hosts: 4,
            link,
            ceiling: None,
            ..NetworkSetup::default()
        };

        let mut network = deploy(setup, 40, 40_000);
        let began = network.now();

        assert!(network.run(LONG, Duration::ZERO), "seed {seed}");
        let took = network.now().since(began);

        assert!(took < Duration::from_secs(4), "seed {seed}: {took:?}");
        assert_complete(&mut network, 1..=4, seed);
    }
}

#[test]
fn a_small_fleet_takes_no_turns() {
    for hosts in [1, 5, 16] {
        let setup = NetworkSetup {
            seed: 21,
            hosts,
            disk: Duration::from_millis(1),
            ..NetworkSetup::default()
        };
        let mut network = deploy(setup, 1, 10_000);
        assert!(network.run(LONG, Duration::ZERO));
        assert_complete(&mut network, 1..=hosts, 21);
        let took = network.took();
        assert!(took < Duration::from_millis(40), "{hosts} hosts: {took:?}");
    }
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
fn a_host_behind_a_narrow_path_gets_the_release_in_smaller_datagrams() {
    for (mtu, loss, fits) in [
        (1400, 0.0, 1392),
        (1300, 0.0, 1232),
        (600, 0.0, 548),
        (1300, 0.1, 1232),
    ] {
        for seed in 0..5 {
            let link = LinkSetup {
                loss,
                ..LinkSetup::default()
            };

            let links = [(
                2,
                LinkSetup {
                    mtu: Some(mtu),
                    ..link.clone()
                },
            )]
            .into();
            let mut network = deploy(
                NetworkSetup {
                    seed,
                    hosts: 3,
                    link,
                    links,
                    ..NetworkSetup::default()
                },
                60,
                30_000,
            );

            assert!(network.run(LONG, SOON), "seed {seed}, MTU {mtu}");
            assert_complete(&mut network, 1..=3, seed);
            let narrow = network.notices.iter().find_map(|n| match n {
                SenderNotice::Narrow { datagram, host } => Some((*datagram, host.to_string())),
                _ => None,
            });

            let (datagram, host) = narrow.expect("it is told");

            assert!(
                datagram == fits && host == "mk2" || loss > 0.0 && datagram <= fits,
                "{datagram} for {host}"
            );
        }
    }
}

#[test]
fn a_wide_path_is_used_as_wide_as_it_is() {
    let mut network = deploy(NetworkSetup::default(), 10, 10_000);
    assert!(network.run(LONG, SOON));
    assert!(
        !network
            .notices
            .iter()
            .any(|n| matches!(n, SenderNotice::Narrow { .. }))
    );
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

#[test]
fn a_host_far_slower_than_the_others_is_served_after_them() {
    for seed in 0..5 {
        let fast = LinkSetup {
            rate: Some((Rate(500_000_000), 1 << 20)),
            ..LinkSetup::default()
        };

        let slow = LinkSetup {
            rate: Some((Rate(20_000_000), 200 << 10)),
            ..LinkSetup::default()
        };

        let links = [(2, slow)].into();
        let setup = NetworkSetup {
            seed,
            hosts: 4,
            link: fast,
            links,
            ceiling: None,
            ..NetworkSetup::default()
        };

        let mut network = deploy(setup, 400, 60_000);
        let began = network.now();

        assert!(network.run(LONG, SOON), "seed {seed}");
        assert_complete(&mut network, 1..=4, seed);
        let dropped = network
            .notices
            .iter()
            .any(|n| matches!(n, SenderNotice::Slow(..)));
        assert!(
            dropped,
            "seed {seed}: nobody was dropped from the fast pass"
        );
        // About 28 MB: half a second for the fast hosts, eleven seconds for the slow one.
        let took = network.now().since(began);

        assert!(took < Duration::from_secs(30), "seed {seed}: {took:?}");
        let ready = network.ready_at();
        let others = [1, 3, 4].map(|host| ready[&host].since(began));

        assert!(
            others.iter().all(|t| *t < Duration::from_secs(3)),
            "seed {seed}: {others:?}, the slow one {took:?}"
        );
    }
}

/// Returns the time until four of five hosts have a release of about 28 MB. Also returns true if
/// the slow second host was dropped from the fast pass. Its link runs at `mbit`, the others at 500
/// Mbit/s.
fn beside(mbit: u64, seed: u64) -> (Duration, bool) {
    let jitter = Duration::from_micros(seed * 37 % 400);
    let line = |mbit| LinkSetup {
        rate: Some((Rate(mbit * 1_000_000), 1 << 20)),
        jitter,
        ..LinkSetup::default()
    };

    let setup = NetworkSetup {
        seed,
        hosts: 5,
        link: line(500),
        links: [(2, line(mbit))].into(),
        ceiling: None,
        ..NetworkSetup::default()
    };

    let mut network = deploy(setup, 400, 60_000);
    let began = network.now();
    assert!(network.run(LONG, SOON), "seed {seed}");
    assert_complete(&mut network, 1..=5, seed);
    let ready = network.ready_at();
    let others = [1, 3, 4, 5]
        .map(|host| ready[&host].since(began))
        .into_iter()
        .max()
        .expect("four");

    (
        others,
        network
            .notices
            .iter()
            .any(|n| matches!(n, SenderNotice::Slow(..))),
    )
}

#[test]
fn a_host_below_the_floor_does_not_take_the_rate_down_to_its_own() {
    for (mbit, seed) in [
        (40, 0),
        (60, 5),
        (60, 13),
        (60, 33),
        (100, 0),
        (100, 18),
        (100, 39),
    ] {
        let (others, dropped) = beside(mbit, seed);
        assert!(
            dropped && others < Duration::from_secs(2),
            "{mbit} Mbit, seed {seed}: {others:?}"
        );
    }
}

#[test]
fn a_host_above_the_floor_is_served_with_the_others() {
    for (mbit, seed) in [(200, 0), (200, 1), (300, 2), (400, 3), (480, 4)] {
        let (others, dropped) = beside(mbit, seed);
        // The time at the slow host's rate, and a quarter more.
        let most = Duration::from_secs_f64(28e6 * 8.0 / (mbit as f64 * 1e6) * 1.25 + 0.5);
        assert!(
            !dropped && others < most,
            "{mbit} Mbit, seed {seed}: {others:?} of {most:?}"
        );
    }
}

/// Returns the most bytes held by a host that receives faster than its disk writes. The release has
/// `files` files of about 75 kB each.
fn held(files: u32) -> usize {
    let link = LinkSetup {
        rate: Some((Rate(2_000_000_000), 1 << 20)),
        ..LinkSetup::default()
    };

    let disk = Duration::from_millis(400);
    let setup = NetworkSetup {
        hosts: 1,
        link,
        disk,
        ceiling: None,
        watch_memory: true,
        ..NetworkSetup::default()
    };

    let mut network = deploy(setup, files, 60_000);
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=1, files.into());

    network.most_held
}

#[test]
fn what_waits_for_a_slow_disk_is_bounded_and_does_not_follow_the_size_of_a_release() {
    // 12 MB under way or waiting, partial generations, and reused memory.
    const MOST: usize = 24 << 20;
    let small = held(600);
    let large = held(1500);
    assert!(
        (8 << 20..MOST).contains(&small) && large < MOST,
        "{small} {large}"
    );
}

/// Returns the symbols sent, and the repairs among them, until every host has the whole tree. Each
/// host began with another half.
fn halves(seed: u64, recall: bool) -> (u64, u64) {
    let link = LinkSetup {
        loss: 0.05,
        ..LinkSetup::default()
    };

    let setup = NetworkSetup {
        seed,
        hosts: 6,
        link,
        recall,
        ..NetworkSetup::default()
    };

    let offer = SimOffer::random(seed, 1, Intent::Deploy, 300, 60_000);
    let mut network = Network::new(setup, offer.clone());
    for host in 1..=6 {
        let mut rng = fastrand::Rng::with_seed(seed * 100 + host as u64);
        network.disk(host).preload(&offer, |_| rng.bool());
    }

    assert!(network.run(LONG, SOON), "seed {seed}");
    assert_complete(&mut network, 1..=6, seed);
    let stats = network.sender().stats();

    (stats.datagrams, stats.repaired)
}

#[test]
fn what_hosts_have_already_is_not_repaired() {
    let sum = |recall| {
        (0..6)
            .map(|seed| halves(seed, recall))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };

    let with = sum(true);
    let without = sum(false);
    println!(
        "symbols sent, and repairs among them: {with:?} with what hosts read back, \
         {without:?} without"
    );
    assert!(
        with.0 < without.0 && with.1 < without.1,
        "{with:?} with what hosts read back, {without:?} without"
    );
}

/// Returns the bytes sent to `hosts` hosts that missed a release.
fn made_up(seed: u64, hosts: usize, loss: f64) -> u64 {
    let setup = NetworkSetup {
        seed,
        hosts,
        link: LinkSetup {
            loss,
            ..LinkSetup::default()
        },
        granted: true,
        ..NetworkSetup::default()
    };

    let offer = SimOffer::random(seed, 1, Intent::Deploy, 200, 60_000);
    let mut network = Network::new(setup, offer);
    assert!(network.run(LONG, SOON), "seed {seed}");
    for host in 1..=hosts {
        assert_eq!(network.disk(host).commits, 1, "seed {seed}: host {host}");
    }

    assert_complete(&mut network, 1..=hosts, seed);
    assert!(network.sender().decision().is_none(), "nothing was ordered");
    network.sender().stats().bytes
}

#[test]
fn hosts_that_missed_a_release_commit_by_its_order_and_are_served_together() {
    for seed in 0..6 {
        for loss in [0.0, 0.03] {
            let one = made_up(seed, 1, loss);
            let ten = made_up(seed, 10, loss);
            assert!(
                ten * 2 < one * 3,
                "seed {seed}, loss {loss}: {one} bytes for one host, {ten} for ten"
            );
        }
    }
}
