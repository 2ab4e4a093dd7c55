//! Pace of a deploy: delays, rates of links, slow hosts, and the size of datagrams.

use std::time::Duration;

use super::{LONG, SOON, assert_complete, deploy, unlimited};
use crate::proto::sender::SenderNotice;
use crate::sim::setup::SendingSetup;
use crate::sim::{LinkSetup, NetworkSetup};
use crate::units::Rate;

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
                sending: SendingSetup {
                    ceiling,
                    ..SendingSetup::default()
                },
                ..NetworkSetup::default()
            },
            50,
            40_000,
        );

        assert!(network.run(LONG, SOON), "seed {seed}");
        let took = network.took();
        let pause = network.log.longest_pause;

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
            sending: unlimited(),
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
            let narrow = network.log.notices.iter().find_map(|n| match n {
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
            .log
            .notices
            .iter()
            .any(|n| matches!(n, SenderNotice::Narrow { .. }))
    );
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
            sending: unlimited(),
            ..NetworkSetup::default()
        };

        let mut network = deploy(setup, 400, 60_000);
        let began = network.now();

        assert!(network.run(LONG, SOON), "seed {seed}");
        assert_complete(&mut network, 1..=4, seed);
        let dropped = network
            .log
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
        let ready = &network.log.ready;
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
        sending: unlimited(),
        ..NetworkSetup::default()
    };

    let mut network = deploy(setup, 400, 60_000);
    let began = network.now();
    assert!(network.run(LONG, SOON), "seed {seed}");
    assert_complete(&mut network, 1..=5, seed);
    let ready = &network.log.ready;
    let others = [1, 3, 4, 5]
        .map(|host| ready[&host].since(began))
        .into_iter()
        .max()
        .expect("four");

    (
        others,
        network
            .log
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
