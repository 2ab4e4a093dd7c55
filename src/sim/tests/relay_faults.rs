//! Random faults of relays and ways without multicast: every host that the sender reaches gets the
//! release.
//!
//! `MAKUO_RELAY_FAULTS=1000` sets the number of seeds, `MAKUO_RELAY_FAULTS_SEED=17` the first one.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{LONG, SOON, assert_complete, uplink, without_multicast};
use crate::manifest::Intent;
use crate::sim::Network;
use crate::sim::node::NodeId;
use crate::sim::offer::SimOffer;
use crate::sim::unicast::UplinkSetup;
use crate::units::Rate;

/// Rate of every line, in both directions.
const LINE: Rate = Rate(200_000_000);
/// Number of seeds unless another is given.
const SEEDS: u64 = 12;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

/// Begins a deploy of `files` files of about 75 kB to `hosts` hosts, of which `needed` suffice.
fn begin(seed: u64, hosts: usize, needed: usize, loss: f64, files: u32) -> Network {
    let setup = without_multicast(seed, (hosts, needed), (LINE, loss));
    let offer = SimOffer::random(seed, 1, Intent::Deploy, files, 60_000);
    Network::new(setup, offer)
}

/// Fault of one host.
#[derive(Debug)]
enum Fault {
    None,
    Dies(Duration),
    Stops(Duration, Duration),
    /// No datagrams to these hosts.
    CutTo(BTreeSet<usize>),
    /// No datagrams from these hosts.
    CutFrom(BTreeSet<usize>),
    /// Uplink of this rate; a full queue drops.
    Uplink(Rate, bool),
    /// Loses this share to each other host.
    Loses(f64),
}

impl Fault {
    fn random(rng: &mut fastrand::Rng, hosts: usize) -> Self {
        let mut when = |most| Duration::from_millis(rng.u64(20..most));
        let (at, long) = (when(1_000), when(1_500));
        let others = || (1..=hosts).collect::<Vec<_>>();
        match rng.u8(0..12) {
            0 => Self::Dies(at),
            1 => Self::Stops(at, long),
            2 => Self::CutTo(
                rng.choose_multiple(others(), hosts / 2)
                    .into_iter()
                    .collect(),
            ),
            3 => Self::CutFrom(
                rng.choose_multiple(others(), hosts / 2)
                    .into_iter()
                    .collect(),
            ),
            4 => Self::CutTo(others().into_iter().collect()),
            5 => Self::Uplink(Rate(LINE.0 / rng.u64(2..20)), rng.bool()),
            6 => Self::Loses(rng.f64() * 0.5),
            _ => Self::None,
        }
    }

    fn apply(&self, network: &mut Network, host: usize) {
        let node = NodeId::host(host);
        match self {
            Self::None => {}
            Self::Dies(at) => network.power(host, false, *at),
            Self::Stops(at, time) => {
                network.stop(host, true, *at);
                network.stop(host, false, *at + *time);
            }
            Self::CutTo(hosts) => {
                for to in hosts.iter().filter(|to| **to != host) {
                    network.cut(node, NodeId::host(*to), true);
                }
            }
            Self::CutFrom(hosts) => {
                for from in hosts.iter().filter(|from| **from != host) {
                    network.cut(NodeId::host(*from), node, true);
                }
            }
            Self::Uplink(rate, drops) => {
                let drops = *drops;
                let setup = UplinkSetup {
                    drops,
                    ..uplink(*rate)
                };
                network.set_uplink(node, setup);
            }
            Self::Loses(share) => {
                for to in 1..=network.feedback().count() {
                    network.lose(node, NodeId::host(to), *share);
                }
            }
        }
    }
}

#[test]
fn every_host_that_the_sender_reaches_gets_the_release() {
    let first = number("MAKUO_RELAY_FAULTS_SEED", 0);
    for seed in first..first + number("MAKUO_RELAY_FAULTS", SEEDS) {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xfa17);
        let hosts = rng.usize(2..10);
        let faults: Vec<Fault> = (0..hosts).map(|_| Fault::random(&mut rng, hosts)).collect();
        let stays = |fault: &Fault| !matches!(fault, Fault::Dies(_));
        let needed = faults.iter().filter(|fault| stays(fault)).count();
        let loss = [0.0, 0.01, 0.05][rng.usize(0..3)];

        let files = rng.u32(10..100);
        let mut network = begin(seed, hosts, needed, loss, files);
        for (fault, host) in faults.iter().zip(1..) {
            fault.apply(&mut network, host);
        }

        println!("seed {seed}: {files} files, {loss} lost, {faults:?}");
        assert!(network.run(LONG, SOON), "seed {seed}");
        let alive = (1..=hosts).filter(|host| stays(&faults[host - 1]));
        // A host that died may have ended the session before the others needed it.
        if needed > 0 {
            assert_complete(&mut network, alive, seed);
        }
    }
}

#[test]
fn a_large_fleet_passes_on_in_two_hops_and_its_failing_heads_stop_nobody() {
    const HOSTS: usize = 80;
    for seed in 0..2 {
        let dead = [7, 40];
        let mut network = begin(seed, HOSTS, HOSTS - dead.len(), 0.01, 60);
        for host in dead {
            network.power(host, false, Duration::from_millis(500));
        }
        network.set_uplink(NodeId::host(9), uplink(Rate(LINE.0 / 10)));

        assert!(network.run(LONG, SOON), "seed {seed}");
        let alive = (1..=HOSTS).filter(|host| !dead.contains(host));
        assert_complete(&mut network, alive, seed);
        let payload = network.sent(NodeId::SENDER);
        let passed_on = (1..=HOSTS).map(|host| network.sent(NodeId::host(host)).relayed);
        let most = passed_on.max().unwrap_or_default();
        // Each host sends its share to the heads and its group, and passes on for other groups.
        assert!(
            most < payload.data * 23 / 20,
            "seed {seed}: {most} of {payload:?}"
        );
    }
}
