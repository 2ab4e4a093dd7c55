//! Deploys over segments with multicast that are joined by unicast, to hosts in and outside of the
//! sender's segment.
//!
//! `MAKUO_MIXED_SEED` sets the first seed, `MAKUO_MIXED_ROUNDS` the number of rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{LONG, SOON, assert_complete, unlimited};
use crate::manifest::Intent;
use crate::proto::sender::{CommitRules, SenderNotice};
use crate::sim::node::NodeId;
use crate::sim::offer::SimOffer;
use crate::sim::unicast::{UnicastSetup, UplinkSetup};
use crate::sim::{LinkSetup, Network, NetworkSetup};
use crate::units::{Quorum, Rate};

/// Rate of every line, in both directions.
const LINE: Rate = Rate(200_000_000);

/// Parameters of one deploy.
struct Mixed {
    seed: u64,
    hosts: usize,
    /// Segments of the nodes with multicast.
    segments: BTreeMap<NodeId, u64>,
    loss: f64,
    files: u32,
    prepare: Duration,
    stale: Duration,
    /// Hosts that are in no roster.
    unlisted: BTreeSet<NodeId>,
    /// Hosts that may be missing.
    spare: usize,
}

impl Mixed {
    /// Hosts of which the first `near` are in the segment of the sender, and the others in none.
    fn with_near(seed: u64, hosts: usize, near: usize) -> Self {
        let nodes = (0..=near).filter(|_| near > 0);
        Self {
            seed,
            hosts,
            segments: nodes.map(|node| (NodeId::host(node), 1)).collect(),
            loss: 0.0,
            files: 40,
            prepare: Duration::ZERO,
            stale: Duration::ZERO,
            unlisted: BTreeSet::new(),
            spare: 1,
        }
    }

    /// Any segments and losses.
    fn random(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let hosts = rng.usize(3..12);
        let mut segments = BTreeMap::new();
        for node in 0..=hosts {
            let segment = rng.u64(0..4);
            if segment > 0 {
                segments.insert(NodeId::host(node), segment);
            }
        }

        Self {
            seed,
            hosts,
            segments,
            loss: [0.0, 0.01, 0.05][rng.usize(0..3)],
            files: rng.u32(2..100),
            prepare: Duration::from_millis(rng.u64(0..3_000)),
            stale: Duration::from_millis(rng.u64(0..4_000)),
            unlisted: BTreeSet::new(),
            spare: 1,
        }
    }

    /// Begins the deploy, for which all hosts but one suffice. Returns the bytes of the payload as
    /// well.
    fn begin(&self) -> (Network, u64) {
        let setup = NetworkSetup {
            seed: self.seed,
            hosts: self.hosts,
            link: LinkSetup {
                loss: self.loss,
                rate: Some((LINE, 1 << 20)),
                ..LinkSetup::default()
            },
            unicast: Some(UnicastSetup {
                uplink: UplinkSetup {
                    rate: Some((LINE, 256 << 10)),
                    drops: false,
                },
                segments: self.segments.clone(),
                stale: self.stale,
                unlisted: self.unlisted.clone(),
                ..UnicastSetup::default()
            }),
            commit: CommitRules {
                quorum: Quorum::Count((self.hosts - self.spare) as u32),
                ..CommitRules::default()
            },
            prepare: self.prepare,
            sending: unlimited(),
            ..NetworkSetup::default()
        };
        let offer = SimOffer::random(self.seed, 1, Intent::Deploy, self.files, 60_000);
        let payload = offer.bytes();
        (Network::new(setup, offer), payload)
    }
}

#[test]
fn any_segments_get_the_release_while_a_host_is_started_again() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("MAKUO_MIXED_SEED").unwrap_or(1);
    for seed in first..first + number("MAKUO_MIXED_ROUNDS").unwrap_or(12) {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x3e6);
        let mixed = Mixed::random(seed, &mut rng);
        let Mixed { hosts, .. } = mixed;
        let restarts = rng.usize(0..=hosts);
        println!(
            "seed {seed}: {:?}, {} lost, {} files, prepared after {:?}, known after {:?}, \
             host {restarts} of {hosts} starts again",
            mixed.segments, mixed.loss, mixed.files, mixed.prepare, mixed.stale
        );

        let (mut network, _) = mixed.begin();
        let at = mixed.prepare + Duration::from_millis(rng.u64(0..800));
        if restarts > 0 {
            network.power(restarts, false, at);
            network.power(restarts, true, at + Duration::from_millis(rng.u64(10..500)));
        }
        assert!(network.run(LONG, SOON), "seed {seed}");
        let others = (1..=hosts).filter(|host| *host != restarts);
        assert_complete(&mut network, others, seed);
    }
}

#[test]
fn hosts_near_the_sender_do_not_raise_what_it_sends_to_the_others() {
    const HOSTS: usize = 40;
    let sent = |near| {
        let (mut network, payload) = Mixed::with_near(5, HOSTS, near).begin();
        assert!(network.run(LONG, SOON));
        assert_complete(&mut network, 1..=HOSTS, 5);
        let sent = network.sent(NodeId::SENDER);
        (sent, sent.data as f64 / payload as f64)
    };

    let (apart, data_apart) = sent(0);
    let (mixed, data_mixed) = sent(4);
    println!("{apart:?} {data_apart:.3}, {mixed:?} {data_mixed:.3}");
    assert!(
        mixed.control < apart.control * 13 / 10,
        "{mixed:?} and without multicast {apart:?}"
    );
    // A copy for the relay of each row, and one by multicast.
    assert!(data_mixed < 2.0 * 1.2, "{data_mixed:.3}");
}

#[test]
fn a_host_in_no_roster_that_multicast_stops_reaching_gets_an_answer_in_time() {
    /// Bound on the time, beside the silence that is tolerated.
    const MOST: Duration = Duration::from_secs(8);
    for seed in 1..5 {
        for spare in [0, 1] {
            let mut rng = fastrand::Rng::with_seed(seed ^ 0xdea);
            let hosts = rng.usize(2..7);
            let mut mixed = Mixed::with_near(seed, hosts, rng.usize(1..=hosts));
            mixed.unlisted.insert(NodeId::host(1));
            mixed.loss = [0.0, 0.02][rng.usize(0..2)];
            mixed.files = 60;
            mixed.spare = spare;
            let (mut network, _) = mixed.begin();
            network.run(Duration::from_millis(rng.u64(80..160)), Duration::ZERO);
            network.deafen(1);

            let case = format!("{hosts} hosts, {spare} spare, seed {seed}");
            assert!(network.run(LONG, SOON), "{case}");
            let took = network.took();
            assert!(
                took < NetworkSetup::default().patience + MOST,
                "{took:?}, {case}"
            );
            let lost = network.log.notices.iter().find_map(|notice| match notice {
                SenderNotice::Lost(host) => Some((host.address, host.text.clone())),
                _ => None,
            });
            let (address, why) = lost.expect("one is lost");
            assert_eq!(address, NodeId::host(1).address(), "{case}");
            // Once the others have committed, it is given up as any host that is late.
            let is_told = why.is_some_and(|why| why.contains("network.peers"));
            assert!(is_told || spare > 0, "{case}");
            if spare > 0 {
                assert_complete(&mut network, 2..=hosts, seed);
            }
        }
    }
}
