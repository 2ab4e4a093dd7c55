//! All hosts switch, or none does, or the sender knows which ones: batches, vetoes, failures, and
//! reverts.

use std::time::Duration;

use super::offer::SimOffer;
use super::{LinkSetup, Network, NetworkSetup};
use crate::manifest::Intent;
use crate::proto::sender::CommitRules;
use crate::units::Quorum;
use crate::wire::HostStage::{self, Aborted, Committed, Refused, Reverted, Unhealthy};
use crate::wire::message::OrderKind;

const LONG: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(500);

fn network(setup: NetworkSetup) -> Network {
    let offer = SimOffer::random(setup.seed, 1, Intent::Deploy, 20, 20_000);
    Network::new(setup, offer)
}

fn setup(seed: u64, batches: &[Quorum], revert: bool) -> NetworkSetup {
    let link = LinkSetup {
        loss: 0.02 * (seed % 6) as f64,
        ..LinkSetup::default()
    };

    NetworkSetup {
        seed,
        hosts: 5,
        link,
        commit: CommitRules {
            batches: batches.iter().copied().map(Into::into).collect(),
            revert,
            ..CommitRules::default()
        },
        ..NetworkSetup::default()
    }
}

/// Returns the final stages known to the sender, by name, and true for each host with the release.
fn end(network: &mut Network, seed: u64) -> (Vec<Option<HostStage>>, Vec<bool>) {
    assert!(network.run(LONG, SOON), "seed {seed}: not finished");
    let mut stages: Vec<_> = network
        .sender()
        .hosts()
        .map(|h| (h.name.clone(), h.stage))
        .collect();
    stages.sort_by(|a, b| a.0.cmp(&b.0));
    let have = (1..=5)
        .map(|host| network.disk(host).committed.is_some())
        .collect();

    (stages.into_iter().map(|s| s.1).collect(), have)
}

#[test]
fn a_commit_in_batches_reaches_everybody() {
    for seed in 0..12 {
        let mut network = network(setup(
            seed,
            &[Quorum::Count(1), Quorum::Share(5_000)],
            seed % 2 == 0,
        ));

        for host in 1..=5 {
            network.disk(host).script.vote = (host != 2).then_some(Ok(()));
            network.disk(host).script.health = (host != 3).then_some(Ok(()));
        }
        assert_eq!(
            end(&mut network, seed),
            (vec![Some(Committed); 5], vec![true; 5]),
            "seed {seed}"
        );
        for host in 1..=5 {
            let disk = network.disk(host);

            assert_eq!(
                (disk.counts.commits, disk.counts.votes),
                (1, u32::from(host != 2)),
                "host {host}, seed {seed}"
            );
        }
        assert_eq!(network.sender().failure(), None);
    }
}

#[test]
fn a_veto_keeps_everybody_as_they_were() {
    for seed in 0..12 {
        let mut network = network(setup(seed, &[], seed % 2 == 0));
        (1..=5).for_each(|host| network.disk(host).script.vote = Some(Ok(())));
        network.disk(4).script.vote = Some(Err("not now".into()));
        let (stages, have) = end(&mut network, seed);
        assert_eq!(have, [false; 5], "seed {seed}");
        assert_eq!(stages[3], Some(Refused), "seed {seed}");
        assert_eq!(
            stages.iter().filter(|s| **s == Some(Aborted)).count(),
            4,
            "seed {seed}: {stages:?}"
        );
        assert_eq!(network.sender().decision(), Some(OrderKind::Abort));
    }
}

#[test]
fn one_unhealthy_host_takes_every_host_back() {
    for seed in 0..12 {
        let mut network = network(setup(seed, &[], true));
        (1..=5)
            .for_each(|host| network.disk(host).script.health = (host % 2 == 0).then_some(Ok(())));
        network.disk(4).script.health =
            Some(Err("health check curl failed: exit status 22".into()));
        let (stages, have) = end(&mut network, seed);

        assert_eq!(have, [false; 5], "seed {seed}");
        for (host, stage) in (1..).zip(stages) {
            // A host that had not received the order has nothing to revert.
            let disk = network.disk(host);
            let expected = if disk.counts.commits == 0 {
                Aborted
            } else {
                Reverted
            };

            assert_eq!(
                (stage, disk.counts.reverts),
                (Some(expected), disk.counts.commits),
                "host {host}, seed {seed}"
            );
        }
        let failure = network.sender().failure().expect("it failed");

        assert_eq!(failure, "mk4: health check curl failed: exit status 22");
    }
}

#[test]
fn without_the_way_back_an_unhealthy_host_is_named_and_the_others_keep_what_they_have() {
    for seed in 0..12 {
        let mut network = network(setup(seed, &[], false));
        network.disk(2).script.health = Some(Err("sick".into()));
        let (stages, have) = end(&mut network, seed);
        assert_eq!(have, [true; 5], "seed {seed}");
        let expected = [Committed, Unhealthy, Committed, Committed, Committed].map(Some);
        assert_eq!(stages, expected, "seed {seed}");
    }
}

#[test]
fn a_sick_canary_is_the_only_one() {
    for (seed, revert) in (0..12).map(|seed| (seed, seed % 2 == 0)) {
        let mut network = network(setup(seed, &[Quorum::Count(1), Quorum::Count(2)], revert));
        network.disk(1).script.health = Some(Err("sick".into()));
        let (stages, have) = end(&mut network, seed);

        assert_eq!(have, [!revert, false, false, false, false], "seed {seed}");
        assert_eq!(
            stages[0],
            Some(if revert { Reverted } else { Unhealthy }),
            "seed {seed}"
        );

        assert_eq!(stages[1..], [Some(Aborted); 4], "seed {seed}");
        assert!(
            (2..=5).all(|host| network.disk(host).counts.commits == 0),
            "seed {seed}"
        );
    }
}

#[test]
fn a_canary_that_falls_silent_stops_the_rest() {
    for (seed, revert) in (0..6).map(|seed| (seed, seed % 2 == 0)) {
        let mut network = network(setup(seed, &[Quorum::Count(1)], revert));
        network.disk(1).script.vote = Some(Ok(()));
        // The host dies in the middle of the order.
        while network.disk(1).counts.votes == 0 {
            assert!(
                !network.run(Duration::from_millis(1), Duration::ZERO),
                "seed {seed}"
            );
        }
        network.power(1, false, Duration::ZERO);
        let (_, have) = end(&mut network, seed);
        assert_eq!(have[1..], [false; 4], "seed {seed}");
        assert!(network.sender().failure().is_some(), "seed {seed}");
    }
}

#[test]
fn a_person_who_interrupts_a_commit_in_batches_ends_it_cleanly() {
    for (seed, revert) in (0..6).map(|seed| (seed, seed % 2 == 0)) {
        let mut network = network(setup(seed, &[Quorum::Count(1)], revert));
        (1..=5).for_each(|host| network.disk(host).script.health = Some(Ok(())));
        while network.disk(1).counts.commits == 0 {
            assert!(
                !network.run(Duration::from_millis(1), Duration::ZERO),
                "seed {seed}"
            );
        }
        network.interrupt();
        let (_, have) = end(&mut network, seed);
        assert_eq!(have, [!revert, false, false, false, false], "seed {seed}");
        assert_eq!(network.sender().failure(), Some("interrupted"));
    }
}
