//! Deploys without multicast in which relays fail or ways lose: in about the time of the line, and
//! no healthy host is put aside.
//!
//! `MAKUO_RELAYS_SEED` sets the first seed, `MAKUO_RELAYS_ROUNDS` the number of rounds.

use std::time::Duration;

use super::{LONG, assert_complete, uplink, without_multicast};
use crate::manifest::Intent;
use crate::proto::sender::SenderNotice;
use crate::sim::Network;
use crate::sim::node::NodeId;
use crate::sim::offer::SimOffer;
use crate::units::{Moment, Rate};

/// Rate of every line, in both directions.
const LINE: Rate = Rate(200_000_000);
/// Time of discovery, comparison and commit, whatever the payload is.
const FIXED: Duration = Duration::from_millis(250);
/// Bound on the time over that of the payload on the line.
const TIME_BOUND: f64 = 1.5;
/// Bound on the bytes of any host, over the payload.
const HOST_BOUND: f64 = 1.15;

/// One deploy.
struct Case {
    seed: u64,
    hosts: usize,
    line: Rate,
    network: Network,
    payload: u64,
    began: Moment,
}

impl Case {
    /// Begins a deploy of `files` files of about 75 kB to `hosts` hosts on lines of the rate `line`
    /// that lose `loss` of all datagrams. All hosts but one suffice.
    fn new(seed: u64, hosts: usize, line: Rate, loss: f64, files: u32) -> Self {
        let setup = without_multicast(seed, (hosts, hosts - 1), (line, loss));
        let offer = SimOffer::random(seed, 1, Intent::Deploy, files, 60_000);
        let payload = offer.bytes();
        let network = Network::new(setup, offer);
        Self {
            seed,
            hosts,
            line,
            began: network.now(),
            network,
            payload,
        }
    }

    /// Runs to the end. All hosts but `missing` are complete then, none was put aside, and the time
    /// until the last was ready is bounded.
    fn finish(&mut self, case: &str, missing: Option<usize>) {
        let Self { seed, hosts, .. } = *self;
        assert!(self.network.run(LONG, Duration::ZERO), "seed {seed}");
        let complete = (1..=hosts).filter(|host| Some(*host) != missing);
        assert_complete(&mut self.network, complete, seed);

        let is_slow = |notice: &&SenderNotice| matches!(notice, SenderNotice::Slow(..));
        let slow = self.network.log.notices.iter().find(is_slow);
        assert!(
            slow.is_none(),
            "{slow:?}, {case}, {hosts} hosts, seed {seed}"
        );

        let last = self.network.log.ready.values().max().expect("hosts");
        let took = last.since(self.began);
        let bound = FIXED + self.line.time_for(self.payload).mul_f64(TIME_BOUND);
        assert!(
            took < bound,
            "{took:?}, less than {bound:?}, {case}, {hosts} hosts, seed {seed}"
        );
    }

    /// Asserts that no host sent much more than the payload.
    fn assert_uplinks(&self, case: &str) {
        let over = |host| {
            let sent = self.network.sent(NodeId::host(host)).total();
            sent as f64 / self.payload as f64
        };
        let most = (1..=self.hosts).map(over).fold(0.0, f64::max);
        let Self { seed, hosts, .. } = self;
        assert!(
            most < HOST_BOUND,
            "{most:.3} by a host, {case}, {hosts} hosts, seed {seed}"
        );
    }
}

/// Returns the seeds of a test.
fn seeds(rounds: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("MAKUO_RELAYS_SEED").unwrap_or(1);
    first..first + number("MAKUO_RELAYS_ROUNDS").unwrap_or(rounds)
}

#[test]
fn a_relay_that_stops_or_dies_costs_the_others_little_and_none_is_put_aside() {
    for seed in seeds(2) {
        for hosts in [3, 5, 10] {
            let at = Duration::from_millis(200 + seed * 190 % 700);
            let mut stops = Case::new(seed, hosts, LINE, 0.0, 240);
            stops.network.stop(2, true, at);
            stops.finish("stopped", Some(2));
            stops.assert_uplinks("stopped");

            let mut dies = Case::new(seed, hosts, LINE, 0.01, 240);
            dies.network.power(2, false, at);
            dies.finish("killed", Some(2));
        }
    }
}

#[test]
fn a_relay_with_a_slow_uplink_is_out_soon_by_its_own_word() {
    for seed in seeds(2) {
        for hosts in [3, 5, 10] {
            let mut case = Case::new(seed, hosts, LINE, 0.0, 240);
            let slow = uplink(Rate(LINE.0 / 10));
            case.network.set_uplink(NodeId::host(3), slow);
            case.finish("slow uplink", None);
            case.assert_uplinks("slow uplink");
        }
    }
}

#[test]
fn a_relay_that_reaches_no_host_does_not_take_the_rate_down() {
    for seed in seeds(2) {
        for hosts in [3, 5] {
            let mut case = Case::new(seed, hosts, LINE, 0.0, 240);
            for host in 1..=hosts {
                case.network.cut(NodeId::host(3), NodeId::host(host), true);
            }
            case.finish("reaches none", None);
        }
    }
}

#[test]
fn losses_on_both_ways_do_not_cut_the_rate() {
    for seed in seeds(1) {
        let mut few = Case::new(seed, 3, Rate(LINE.0 / 10), 0.05, 54);
        few.finish("5 % lost", None);
        let mut many = Case::new(seed, 10, LINE, 0.05, 360);
        many.finish("5 % lost", None);
    }
}

#[test]
fn broken_ways_between_hosts_cost_little() {
    /// Bound on the sender's data, over the payload: repairs at first, and later detours.
    const SENT_BOUND: f64 = 1.25;
    for seed in seeds(2) {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xb0b);
        let hosts = rng.usize(3..8);
        let loss = [0.0, 0.01][rng.usize(0..2)];
        let mut case = Case::new(seed, hosts, LINE, loss, 400);
        let mut broken = Vec::new();
        for _ in 0..rng.usize(1..=hosts / 2) {
            let ends = rng.choose_multiple(1..=hosts, 2);
            let [from, to] = ends[..] else { continue };
            case.network.cut(NodeId::host(from), NodeId::host(to), true);
            broken.push((from, to));
        }

        println!("seed {seed}: {hosts} hosts, {loss} lost, {broken:?}");
        case.finish("broken ways", None);
        case.assert_uplinks("broken ways");
        let sent = case.network.sent(NodeId::SENDER).data as f64 / case.payload as f64;
        assert!(
            sent < SENT_BOUND + loss * 5.0,
            "{sent:.3} of the payload, seed {seed}"
        );
    }
}
