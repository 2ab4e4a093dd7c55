//! The sender's view of each host matches the host's state: under partitions in either direction,
//! crashes and restarts at any moment of a deploy.
//!
//! `MAKUO_PARTITIONS=1000` sets the number of seeds, `MAKUO_PARTITION_SEED=17` the first one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::offer::SimOffer;
use super::{LinkSetup, Network, NetworkSetup, NodeId};
use crate::manifest::Intent;
use crate::proto::sender::CommitRules;
use crate::units::Quorum;

const HOSTS: usize = 4;
const STEP: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(120);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Draws a deploy from `rng`.
fn network(seed: u64, rng: &mut fastrand::Rng) -> Network {
    let batches = match rng.u8(..4) {
        0 => vec![Quorum::Count(1)],
        1 => vec![Quorum::Count(1), Quorum::Count(2)],
        _ => Vec::new(),
    };

    let setup = NetworkSetup {
        seed,
        hosts: HOSTS,
        link: LinkSetup {
            loss: f64::from(rng.u8(..6)) * 0.02,
            ..LinkSetup::default()
        },
        commit: CommitRules {
            quorum: if rng.bool() {
                Quorum::All
            } else {
                Quorum::Count(1)
            },
            batches: batches.into_iter().map(Into::into).collect(),
            revert: rng.bool(),
            ..CommitRules::default()
        },
        patience: Duration::from_secs(3),
        // A slow disk lets beacons come between an order and its effects.
        disk: Duration::from_millis(if rng.bool() {
            rng.u64(1..150)
        } else {
            rng.u64(500..4_000)
        }),
        ..NetworkSetup::default()
    };

    let mut network = Network::new(setup, SimOffer::random(seed, 1, Intent::Deploy, 12, 20_000));
    for host in 1..=HOSTS {
        let disk = network.disk(host);
        disk.script.vote = [
            None,
            Some(Ok(())),
            Some(Ok(())),
            Some(Err("not now".into())),
        ][rng.usize(..4)]
        .clone();
        disk.script.health =
            [None, Some(Ok(())), Some(Ok(())), Some(Err("sick".into()))][rng.usize(..4)].clone();
        if rng.u8(..20) == 0 {
            disk.script.refuse = Some("no".into());
        }
    }

    network
}

/// Moment of a fault.
#[derive(Debug)]
enum When {
    At(Duration),
    Voted,
    Committed,
    Reverted,
}

/// Fault of a host.
#[derive(Debug)]
enum What {
    Deaf,
    Mute,
    Cut,
    Heal,
    Crash,
    Restart,
}

fn plan(rng: &mut fastrand::Rng) -> Vec<(usize, When, What)> {
    let events = rng.usize(1..5);
    let event = |rng: &mut fastrand::Rng| {
        let when = match rng.u8(..5) {
            0 => When::Voted,
            1 => When::Committed,
            2 => When::Reverted,
            _ => When::At(Duration::from_millis(rng.u64(..2_500))),
        };
        let what = match rng.u8(..9) {
            0 | 1 => What::Deaf,
            2 | 3 => What::Mute,
            4 => What::Cut,
            5 | 6 => What::Heal,
            7 => What::Crash,
            _ => What::Restart,
        };
        (rng.usize(1..=HOSTS), when, what)
    };

    (0..events).map(|_| event(rng)).collect()
}

fn happen(network: &mut Network, host: usize, what: &What, rng: &mut fastrand::Rng) {
    match what {
        What::Deaf => network.cut(NodeId::SENDER, NodeId::host(host), true),
        What::Mute => network.cut(NodeId::host(host), NodeId::SENDER, true),
        What::Cut | What::Heal => {
            let cut = matches!(what, What::Cut);
            network.cut(NodeId::SENDER, NodeId::host(host), cut);
            network.cut(NodeId::host(host), NodeId::SENDER, cut);
        }
        What::Crash => network.power(host, false, Duration::ZERO),
        What::Restart => {
            network.power(host, false, Duration::ZERO);
            network.power(host, true, Duration::from_millis(rng.u64(1..2_000)));
        }
    }
}

/// Runs a deploy and returns the sender's view of each host: the host has the release, lacks it, or
/// is unknown.
fn round(seed: u64) -> Vec<Option<bool>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut network = network(seed, &mut rng);
    let mut plan = plan(&mut rng);
    let told = format!("seed {seed}, {plan:?}");
    let mut at = Duration::ZERO;

    while !network.run(STEP, Duration::ZERO) {
        at += STEP;
        assert!(at < LIMIT, "{told}: not finished");
        let mut later = Vec::new();
        for (host, when, what) in plan {
            let disk = network.disk(host);
            let due = match when {
                When::At(time) => time <= at,
                When::Voted => disk.counts.votes > 0,
                When::Committed => disk.counts.commits > 0,
                When::Reverted => disk.counts.reverts > 0,
            };
            match due {
                true => happen(&mut network, host, &what, &mut rng),
                false => later.push((host, when, what)),
            }
        }
        plan = later;
    }

    network.run(Duration::from_secs(1), Duration::from_millis(500));

    let sender = network.sender();
    let known: BTreeMap<String, Option<bool>> = sender
        .hosts()
        .map(|h| (h.name.to_string(), sender.fate(h).has_release(h)))
        .collect();

    for host in 1..=HOSTS {
        let has = network.disk(host).committed.is_some();
        // A host without an entry was unheard before the deploy began.
        let said = known
            .get(&format!("mk{host}"))
            .copied()
            .unwrap_or(Some(false));
        assert!(
            said.is_none_or(|said| said == has),
            "{told}: mk{host}: {has}, and the sender says {known:?}"
        );
    }

    known.into_values().collect()
}

#[test]
fn what_is_said_of_each_host_is_what_it_has() {
    let first = number("MAKUO_PARTITION_SEED", 0);
    let mut counts: BTreeMap<Option<bool>, usize> = BTreeMap::new();
    for seed in first..first + number("MAKUO_PARTITIONS", 60) {
        round(seed)
            .into_iter()
            .for_each(|said| *counts.entry(said).or_default() += 1);
    }

    println!("seeds from {first}: with the release, without it, unknown: {counts:?}");
    assert_eq!(counts.len(), 3, "too few of one kind: {counts:?}");
}
