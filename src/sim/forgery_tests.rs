//! A host's whole state machine under real traffic with a share of altered datagrams, from an
//! attacker that can forge any address. No panic, bounded memory, and a tree that is the release or
//! unchanged.

use std::time::Duration;

use proptest::prelude::*;

use super::offer::SimOffer;
use super::setup::{Observations, SendingSetup};
use super::{LinkSetup, Network, NetworkSetup};
use crate::manifest::Intent;

const LONG: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(500);
/// Largest memory of a host for received data: the cap on generations that are open or wait for the
/// disk, the same again for coded symbols, and messages.
const MOST_HELD: usize = (2 * 64 + 64) << 20;

/// Runs a deploy on a network that delivers an altered copy before a share `forged` of datagrams.
/// Returns true if the deploy ended.
fn deploy(seed: u64, forged: f64) -> (Network, bool) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let link = LinkSetup {
        loss: rng.f64() * 0.05,
        duplicate: rng.f64() * 0.05,
        forged,
        ..LinkSetup::default()
    };

    let hosts = rng.usize(1..4);
    let setup = NetworkSetup {
        seed,
        hosts,
        link,
        observe: Observations {
            memory: true,
            ..Observations::default()
        },
        sending: SendingSetup {
            generation: 60_000,
            ..SendingSetup::default()
        },
        ..NetworkSetup::default()
    };

    let offer = SimOffer::random(
        seed,
        1,
        Intent::Deploy,
        rng.u32(1..40),
        rng.usize(1..10_000),
    );

    let mut network = Network::new(setup, offer);
    let ended = network.run(LONG, SOON);
    for host in 1..=hosts {
        let disk = network.disk(host);
        assert!(
            disk.is_whole() && disk.counts.commits <= 1,
            "host {host}, seed {seed}"
        );
    }

    assert!(
        network.log.most_held < MOST_HELD,
        "{} bytes, seed {seed}",
        network.log.most_held
    );

    (network, ended)
}

#[test]
fn a_deploy_survives_the_odd_forged_datagram() {
    for seed in 0..12 {
        let (mut network, ended) = deploy(seed, 0.002);
        assert!(ended, "seed {seed}");
        let hosts =
            (1..4).filter_map(|host| network.host(host).map(|disk| disk.committed.is_some()));
        let complete = hosts.collect::<Vec<_>>().into_iter().all(|has| has);
        assert!(complete, "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn however_much_is_forged_nothing_half_is_put_anywhere(seed: u64, forged in 0.0..0.5f64) {
        let _ = deploy(seed, forged);
    }
}
