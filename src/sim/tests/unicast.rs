//! Deploys without multicast: hosts pass data on, and some of them fail at it.

use std::time::Duration;

use super::{LONG, SOON, assert_complete, uplink, without_multicast};
use crate::id::InstanceId;
use crate::manifest::Intent;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::sim::Network;
use crate::sim::node::NodeId;
use crate::sim::offer::SimOffer;
use crate::sim::unicast::UplinkSetup;
use crate::units::Rate;
use crate::wire::Message;
use crate::wire::datagram::is_relayed;
use crate::wire::relay::RelayTargets;

const HOSTS: usize = 10;
/// Rate of every line, in both directions.
const LINE: Rate = Rate(200_000_000);
/// Bytes of a datagram before the identifier of its process.
const SOURCE: usize = 4;
/// Same of its counter.
const COUNTER: usize = 12;
/// Same of the session of its symbol.
const SESSION: usize = 20;

/// Begins a deploy of `files` files of about 75 kB to ten hosts that lose `loss` of all datagrams.
/// Nine of them suffice. Returns the bytes of the payload as well.
fn begin(seed: u64, loss: f64, files: u32) -> (Network, u64) {
    let mut setup = without_multicast(seed, (HOSTS, HOSTS - 1), (LINE, loss));
    setup.observe.datagrams = true;

    let offer = SimOffer::random(seed, 1, Intent::Deploy, files, 60_000);
    let payload = offer.bytes();
    (Network::new(setup, offer), payload)
}

/// Runs a deploy to its end; the hosts but `missing` are complete then.
fn complete(network: &mut Network, missing: Option<usize>, seed: u64) {
    assert!(network.run(LONG, SOON), "seed {seed}");
    let hosts = (1..=HOSTS).filter(|host| Some(*host) != missing);
    assert_complete(network, hosts, seed);
}

/// Returns the bytes of all relayed datagrams of the sender, and those that hosts passed on.
fn relayed(network: &Network) -> (u64, u64) {
    let own = network.log.recording.of(NodeId::SENDER);
    let own = own.filter(|bytes| is_relayed(bytes));
    let passed_on = (1..=HOSTS).map(|host| network.sent(NodeId::host(host)).relayed);
    (own.map(|bytes| bytes.len() as u64).sum(), passed_on.sum())
}

#[test]
fn hosts_pass_each_datagram_on_once_and_no_node_sends_much_more_than_the_payload() {
    for seed in 0..2 {
        // About 36 MB: what goes before there are relays counts little.
        let (mut network, payload) = begin(seed, 0.0, 480);
        complete(&mut network, None, seed);
        let over = |node| network.sent(node).total() as f64 / payload as f64;
        let sender = over(NodeId::SENDER);
        let host = (1..=HOSTS).map(NodeId::host).map(over).fold(0.0, f64::max);
        assert!(
            sender < 1.12 && host < 1.05,
            "seed {seed}: {sender:.3} of the payload from the sender, {host:.3} from a host"
        );

        let (own, passed_on) = relayed(&network);
        assert_eq!(passed_on, own * (HOSTS as u64 - 1), "seed {seed}");
    }
}

#[test]
fn a_payload_whose_copies_are_quick_does_not_wait_for_relays() {
    /// Time of a deploy without data.
    const FIXED: Duration = Duration::from_millis(40);
    for seed in 0..40 {
        let (mut network, payload) = begin(seed, 0.0, 1);
        complete(&mut network, None, seed);

        let ready = network.log.ready.values().max().expect("hosts");
        let took = ready.since(network.announced());
        let bound = FIXED + LINE.time_for(payload * HOSTS as u64);
        assert!(took < bound, "{took:?}, less than {bound:?}, seed {seed}");
    }
}

#[test]
fn what_is_lost_on_the_way_to_relays_and_from_them_is_repaired() {
    for (seed, loss) in [(0, 0.01), (1, 0.05)] {
        let (mut network, payload) = begin(seed, loss, 80);
        // One way is worse than the rest.
        network.lose(NodeId::host(2), NodeId::host(5), 0.5);
        complete(&mut network, None, seed);
        let sent = network.sent(NodeId::SENDER).total() as f64 / payload as f64;
        assert!(sent < 1.0 + loss * 5.0 + 0.3, "seed {seed}: {sent:.3}");
    }
}

#[test]
fn a_relay_that_dies_does_not_stop_the_others() {
    for seed in 0..2 {
        let (mut network, _) = begin(seed, 0.01, 80);
        network.power(3, false, Duration::from_millis(150 + seed * 100));
        complete(&mut network, Some(3), seed);
    }
}

#[test]
fn a_relay_that_stops_for_a_while_is_served_again() {
    for seed in 0..2 {
        let (mut network, _) = begin(seed, 0.01, 80);
        let at = Duration::from_millis(150 + seed * 100);
        network.stop(3, true, at);
        network.stop(3, false, at + Duration::from_millis(700));
        complete(&mut network, None, seed);
    }
}

#[test]
fn a_relay_with_a_tenth_of_the_uplink_does_not_stop_the_others() {
    for seed in 0..2 {
        let (mut network, _) = begin(seed, 0.0, 80);
        network.set_uplink(NodeId::host(3), uplink(Rate(LINE.0 / 10)));
        complete(&mut network, None, seed);
    }
}

#[test]
fn a_relay_that_reaches_no_other_host_does_not_stop_them() {
    for seed in 0..2 {
        let (mut network, _) = begin(seed, 0.01, 80);
        for host in 1..=HOSTS {
            network.cut(NodeId::host(3), NodeId::host(host), true);
        }
        complete(&mut network, None, seed);
    }
}

#[test]
fn a_full_switch_behind_a_relay_loses_datagrams_that_are_repaired() {
    for seed in 0..2 {
        let (mut network, _) = begin(seed, 0.0, 80);
        let drops = UplinkSetup {
            drops: true,
            ..uplink(LINE)
        };
        network.set_uplink(NodeId::host(3), drops);
        complete(&mut network, None, seed);
    }
}

/// Returns the bytes of relayed datagrams of the sender to each other host, and those that hosts
/// passed on, in a deploy with altered datagrams in the middle.
fn forged(seed: u64, from: NodeId, alter: impl Fn(&mut [u8])) -> (u64, u64) {
    let (mut network, _) = begin(seed, 0.0, 100);
    while !network.run(Duration::from_millis(20), Duration::ZERO) {
        let own = network.log.recording.of(NodeId::SENDER);
        let Some(mut bytes) = own.rev().find(|b| is_relayed(b)).map(<[u8]>::to_vec) else {
            continue;
        };

        // Datagrams that hosts have not seen yet.
        let counter = u64::from_be_bytes(bytes[COUNTER..COUNTER + 8].try_into().expect("eight"));
        for nth in 200..240 {
            bytes[COUNTER..COUNTER + 8].copy_from_slice(&(counter + nth).to_be_bytes());
            let mut bytes = bytes.clone();
            alter(&mut bytes);
            network.forge(from, &bytes);
        }
        break;
    }

    complete(&mut network, None, seed);
    let (own, passed_on) = relayed(&network);
    (own * (HOSTS as u64 - 1), passed_on)
}

#[test]
fn only_data_of_a_sender_in_a_session_is_passed_on() {
    let seed = 5;
    let (own, passed_on) = forged(seed, NodeId::SENDER, |_| {});
    assert!(passed_on > own, "the sender's own data, seed {seed}");

    let alter = |at: usize| move |bytes: &mut [u8]| bytes[at] ^= 1;
    let (own, passed_on) = forged(seed, NodeId::host(2), |_| {});
    assert!(passed_on <= own, "from a host, seed {seed}");
    let (own, passed_on) = forged(seed, NodeId::SENDER, alter(SESSION));
    assert!(passed_on <= own, "of another session, seed {seed}");
    let (own, passed_on) = forged(seed, NodeId::SENDER, alter(SOURCE));
    assert!(passed_on <= own, "of another process, seed {seed}");
}

#[test]
fn a_forged_list_of_targets_is_replaced_by_that_of_the_sender() {
    for seed in 0..2 {
        let (mut network, payload) = begin(seed, 0.0, 120);
        let mut forged = 0;
        while !network.run(Duration::from_millis(50), Duration::ZERO) {
            let own = network.log.recording.of(NodeId::SENDER);
            let Some(bytes) = own.rev().find(|b| is_relayed(b)) else {
                continue;
            };

            let source = bytes[SOURCE..SOURCE + 8].try_into().expect("eight");
            let targets = RelayTargets {
                session: network.sender().session(),
                number: u32::MAX,
                heads: Vec::new(),
                group: Vec::new(),
                relays: Vec::new(),
                multicast: false,
                tags: None,
            };
            let mut control = Control::new(InstanceId(u64::from_be_bytes(source)), 1472, 0);
            let mut out = Vec::new();
            control.send(Dest::Group, &Message::Targets(targets));
            if forged < 1 && control.poll(&mut out).is_some() {
                network.forge(NodeId::SENDER, &out);
                forged += 1;
            }
        }

        complete(&mut network, None, seed);
        assert_eq!(forged, 1, "seed {seed}");
        // With a copy for each host it would be several times the payload.
        let sent = network.sent(NodeId::SENDER).total() as f64 / payload as f64;
        assert!(sent < 2.0, "seed {seed}: {sent:.3}");
    }
}

#[test]
fn a_replayed_datagram_is_passed_on_by_each_host_once() {
    let seed = 6;
    let (mut network, _) = begin(seed, 0.0, 100);
    let mut replayed = 0;
    while !network.run(Duration::from_millis(20), Duration::ZERO) {
        let own = network.log.recording.of(NodeId::SENDER);
        let Some(bytes) = own.rev().find(|b| is_relayed(b)).map(<[u8]>::to_vec) else {
            continue;
        };

        // Its relay has it already; the other hosts may hear the replay first.
        replayed += bytes.len() as u64;
        for _ in 0..40 {
            network.forge(NodeId::SENDER, &bytes);
        }
    }

    complete(&mut network, None, seed);
    let (own, passed_on) = relayed(&network);
    let others = HOSTS as u64 - 1;
    assert!(replayed > 0, "seed {seed}");
    assert!(
        passed_on <= (own + replayed * others) * others,
        "seed {seed}: {passed_on} of {own}, with {replayed} replayed"
    );
}
