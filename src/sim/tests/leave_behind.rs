//! Deploys without multicast in which one host is far slower than the others, dies, or stops, while
//! all are busy or report late: the others take little more than the time of their line.
//!
//! `MAKUO_LEFT_BEHIND=1000` sets the number of seeds, `MAKUO_LEFT_BEHIND_SEED=17` the first one.

use std::time::Duration;

use super::{LONG, lossy_link, uplink, without_multicast};
use crate::manifest::Intent;
use crate::sim::Network;
use crate::sim::node::NodeId;
use crate::sim::offer::SimOffer;
use crate::sim::unicast::UnicastSetup;
use crate::units::{Moment, Rate};

/// Rate of every line but that of a slow host, in both directions.
const LINE: Rate = Rate(200_000_000);
/// Data on its way to one host at most.
const WINDOW: f64 = (4 << 20) as f64;
/// Number of seeds unless another is given.
const SEEDS: u64 = 10;
/// Bound on the time over that of the payload on the line.
const TIME_BOUND: f64 = 1.5;
/// Time of discovery, comparison and commit, whatever the payload is.
const FIXED: Duration = Duration::from_millis(250);
/// Time for which hosts that have not answered are awaited: for nodes, and for blocks.
const AWAITED: Duration = Duration::from_millis(500);
/// Time in which the others get half of the line: until a host shows that it is slow or gone.
const NOTICED: Duration = Duration::from_millis(600);
/// Messages that follow one another in a deploy.
const ROUND_TRIPS: u32 = 7;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Trouble of the last host.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    None,
    /// Has a line of this rate.
    Slow(Rate),
    /// Dies, and its daemon comes back after a while if at all.
    Dies(Duration, Option<Duration>),
    /// Stops, and goes on after a while.
    Stops(Duration, Duration),
}

impl Trouble {
    fn random(rng: &mut fastrand::Rng) -> Self {
        let at = ms(rng.u64(1..900));
        let long = ms(rng.u64(50..1_500));
        match rng.u8(0..8) {
            0..4 => Self::Slow(Rate(LINE.0 / rng.u64(6..20))),
            4 => Self::Dies(at, None),
            5 => Self::Dies(at, Some(long)),
            6 => Self::Stops(at, long),
            _ => Self::None,
        }
    }

    /// Time that it may cost the others.
    fn costs(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Slow(_) => NOTICED / 2,
            Self::Dies(at, _) | Self::Stops(at, _) if at < AWAITED => NOTICED / 2 + AWAITED,
            Self::Dies(..) | Self::Stops(..) => NOTICED / 2,
        }
    }
}

/// What slows all hosts down.
#[derive(Debug, Clone, Copy)]
enum Burden {
    None,
    /// Reports come late, by up to this.
    Late(Duration),
    /// The processes pause from time to time, for up to this.
    Pauses(Duration),
}

impl Burden {
    fn random(rng: &mut fastrand::Rng) -> Self {
        match rng.u8(0..4) {
            0 => Self::Late(ms(rng.u64(1..200))),
            1 => Self::Pauses(ms(rng.u64(5..100))),
            _ => Self::None,
        }
    }

    /// Time that it may cost, with a payload of `payload` bytes.
    fn costs(self, payload: u64) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Late(late) => {
                let window = late.mul_f64(payload as f64 / WINDOW);
                window
                    .saturating_sub(LINE.time_for(payload))
                    .mul_f64(TIME_BOUND)
                    + late * ROUND_TRIPS
            }
            // A node pauses for a third of the time.
            Self::Pauses(long) => LINE.time_for(payload).mul_f64(TIME_BOUND) + long * ROUND_TRIPS,
        }
    }

    fn apply(self, network: &mut Network, hosts: usize, rng: &mut fastrand::Rng) {
        match self {
            Self::None => {}
            Self::Late(late) => {
                for host in 1..=hosts {
                    network.delay(NodeId::host(host), NodeId::SENDER, late.mul_f64(rng.f64()));
                }
            }
            Self::Pauses(most) => {
                for node in 0..=hosts {
                    pause(network, NodeId::host(node), most, rng);
                }
            }
        }
    }
}

/// Lets a node pause again and again, for up to `most` each time.
fn pause(network: &mut Network, node: NodeId, most: Duration, rng: &mut fastrand::Rng) {
    let mut at = most.mul_f64(rng.f64() * 2.0);
    while at < Duration::from_secs(5) {
        let long = most.mul_f64(rng.f64());
        network.pause(node, true, at);
        network.pause(node, false, at + long);
        at += long + most.mul_f64(rng.f64() * 2.0);
    }
}

/// One deploy, whose last host is in trouble. The others suffice.
struct Case {
    hosts: usize,
    network: Network,
    payload: u64,
    began: Moment,
}

impl Case {
    /// Begins a deploy of `files` files of about 75 kB to `hosts` hosts, of which those in `slow`
    /// have lines of their own rates.
    fn new(seed: u64, hosts: usize, files: u32, slow: &[(usize, Rate)]) -> Self {
        let slow = || slow.iter().copied();
        let uplinks = slow().map(|(host, rate)| (NodeId::host(host), uplink(rate)));
        let mut setup = without_multicast(seed, (hosts, hosts - 1), (LINE, 0.0));
        setup.links = slow()
            .map(|(host, rate)| (host, lossy_link(rate, 0.0)))
            .collect();
        setup.unicast = Some(UnicastSetup {
            uplink: uplink(LINE),
            uplinks: uplinks.collect(),
            ..UnicastSetup::default()
        });

        let offer = SimOffer::random(seed, 1, Intent::Deploy, files, 60_000);
        let payload = offer.bytes();
        let network = Network::new(setup, offer);
        Self {
            hosts,
            began: network.now(),
            network,
            payload,
        }
    }

    /// Runs until all hosts but the last are ready, and returns the time.
    fn others_ready(&mut self) -> Duration {
        let end = self.began + LONG;
        let others = |network: &Network| {
            let ready = network.log.ready.iter();
            let times = ready.filter(|(host, _)| **host < self.hosts);
            times.map(|(_, at)| *at).collect::<Vec<_>>()
        };

        while others(&self.network).len() < self.hosts - 1 && self.network.now() < end {
            self.network.run(ms(20), Duration::ZERO);
        }
        let last = others(&self.network).into_iter().max();
        last.unwrap_or(end).since(self.began)
    }
}

#[test]
fn a_host_in_trouble_costs_the_others_little_however_late_they_report() {
    let first = number("MAKUO_LEFT_BEHIND_SEED", 1);
    for seed in first..first + number("MAKUO_LEFT_BEHIND", SEEDS) {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x1ef7);
        let hosts = rng.usize(2..7);
        let (trouble, burden) = (Trouble::random(&mut rng), Burden::random(&mut rng));
        let slow = match trouble {
            Trouble::Slow(rate) => vec![(hosts, rate)],
            _ => Vec::new(),
        };

        let mut case = Case::new(seed, hosts, rng.u32(120..240), &slow);
        burden.apply(&mut case.network, hosts, &mut rng);
        match trouble {
            Trouble::None | Trouble::Slow(_) => {}
            Trouble::Dies(at, back) => {
                case.network.power(hosts, false, at);
                back.into_iter()
                    .for_each(|back| case.network.power(hosts, true, at + back));
            }
            Trouble::Stops(at, long) => {
                case.network.stop(hosts, true, at);
                case.network.stop(hosts, false, at + long);
            }
        }

        let line = LINE.time_for(case.payload);
        let bound = FIXED + line.mul_f64(TIME_BOUND) + trouble.costs() + burden.costs(case.payload);
        let took = case.others_ready();
        println!(
            "MAKUO_LEFT_BEHIND_SEED={seed}: {hosts} hosts, {trouble:?}, {burden:?}: {took:?} of \
             {bound:?}, line {line:?}"
        );
        assert!(took < bound, "{took:?}, not {bound:?}, seed {seed}");
    }
}
