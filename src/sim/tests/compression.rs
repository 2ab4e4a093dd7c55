//! Compressed releases: smaller on the wire, and as whole at every host.

use super::{LONG, SOON, assert_complete, compressing};
use crate::block::frame::Level;
use crate::sim::offer::SimOffer;
use crate::sim::{LinkSetup, Network, NetworkSetup};
use crate::wire::HostStage;

/// Deploys to every host at a compression level; returns the bytes sent.
fn letters(setup: NetworkSetup, level: u8) -> u64 {
    let compress = Level::new(level);
    let seed = setup.seed;
    let hosts = setup.hosts;
    let mut network = Network::new(
        NetworkSetup {
            sending: compressing(compress),
            ..setup
        },
        SimOffer::letters(seed, 1, 200, 40_000),
    );
    assert!(network.run(LONG, SOON), "seed {seed}");

    assert_complete(&mut network, 1..=hosts, seed);
    for host in 1..=hosts {
        assert_eq!(
            network.disk(host).counts.frames > 0,
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
        sending: compressing(Level::new(3)),
        ..NetworkSetup::default()
    };

    let mut network = Network::new(setup, SimOffer::letters(12, 1, 60, 30_000));
    network.disk(1).script.corrupt = 3;
    assert!(network.run(LONG, SOON));

    assert_complete(&mut network, 1..=2, 12);
}

#[test]
fn a_host_to_which_all_arrives_wrong_gives_up_and_says_why() {
    for compress in [None, Level::new(3)] {
        let setup = NetworkSetup {
            seed: 13,
            hosts: 2,
            sending: compressing(compress),
            ..NetworkSetup::default()
        };

        let mut network = Network::new(setup, SimOffer::letters(13, 1, 20, 10_000));
        network.disk(1).script.corrupt = u32::MAX;

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
