//! Repairs: their number, and the memory of hosts that wait for content.

use std::time::Duration;

use super::{LONG, SOON, assert_complete, deploy, unlimited, without_multicast};
use crate::manifest::Intent;
use crate::sim::node::NodeId;
use crate::sim::offer::SimOffer;
use crate::sim::setup::{Observations, SessionStart};
use crate::sim::{LinkSetup, Network, NetworkSetup};
use crate::units::Rate;

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
        sending: unlimited(),
        observe: Observations {
            memory: true,
            ..Observations::default()
        },
        ..NetworkSetup::default()
    };

    let mut network = deploy(setup, files, 60_000);
    assert!(network.run(LONG, SOON));
    assert_complete(&mut network, 1..=1, files.into());

    network.log.most_held
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
        start: SessionStart::Granted,
        ..NetworkSetup::default()
    };

    let offer = SimOffer::random(seed, 1, Intent::Deploy, 200, 60_000);
    let mut network = Network::new(setup, offer);
    assert!(network.run(LONG, SOON), "seed {seed}");
    for host in 1..=hosts {
        assert_eq!(
            network.disk(host).counts.commits,
            1,
            "seed {seed}: host {host}"
        );
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

#[test]
fn a_catch_up_of_one_host_costs_as_little_among_many() {
    /// Datagrams to a host from the offer to the farewells.
    const MOST: u64 = 60;
    for (seed, hosts) in [(1, 3), (2, 300)] {
        let late = hosts / 2 + 1;
        let setup = NetworkSetup {
            start: SessionStart::Granted,
            asking: vec![NodeId::host(late)],
            strangers: true,
            ..without_multicast(seed, (hosts, hosts), (Rate(1_000_000_000), 0.01))
        };
        let offer = SimOffer::random(seed, 1, Intent::Deploy, 20, 60_000);
        let mut network = Network::new(setup, offer.clone());
        for host in (1..=hosts).filter(|host| *host != late) {
            network.power(host, false, Duration::ZERO);
            network.disk(host).committed = Some(offer.release.clone());
            network.power(host, true, Duration::ZERO);
        }

        assert!(network.run(LONG, SOON), "seed {seed}");
        assert_complete(&mut network, [late].into_iter(), seed);
        let sent = &network.log.sent_messages;
        assert!(sent.copies() < MOST, "{hosts} hosts, seed {seed}: {sent}");
    }
}

#[test]
fn a_host_that_asks_from_another_address_than_that_in_the_roster_gets_the_release() {
    let (hosts, late) = (5, 4);
    for (seed, near) in [(1, 0), (2, 2)] {
        let mut setup = NetworkSetup {
            start: SessionStart::Granted,
            asking: vec![NodeId::host(hosts + 1)],
            strangers: true,
            ..without_multicast(seed, (hosts, hosts), (Rate(1_000_000_000), 0.0))
        };
        // The sender has multicast, and the host that asks has none.
        if let Some(unicast) = &mut setup.unicast {
            let nodes = (0..=near).filter(|_| near > 0);
            unicast.segments = nodes.map(|node| (NodeId::host(node), 1)).collect();
        }

        let offer = SimOffer::random(seed, 1, Intent::Deploy, 20, 60_000);
        let mut network = Network::new(setup, offer.clone());
        for host in (1..=hosts).filter(|host| *host != late) {
            network.disk(host).committed = Some(offer.release.clone());
        }
        assert!(network.run(LONG, SOON), "seed {seed}");
        assert_complete(&mut network, [late].into_iter(), seed);
    }
}
