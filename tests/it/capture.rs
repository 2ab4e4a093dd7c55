//! Network traffic of a deployment, captured at a host and at the sender.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::support::capture::Udp;
use crate::support::{self, Capture, Lab, Noise, Packet, pace, skipped, write};
use makuo::net::MAX_SEGMENTS;
use makuo::wire::Datagram;

const HOSTS: usize = 3;
const SIZE: usize = 6_000_000;
/// MTU of a lab's interfaces, and the length of the IPv4 and UDP headers.
const MTU: usize = 1500;
const IP_AND_UDP: usize = 28;
const ETHERNET: usize = 14;

/// Deploys at a limit of 100 Mbit/s, and returns the packets at a host and at the sender.
fn captured() -> Option<(Vec<Packet>, Vec<Packet>, Lab)> {
    let lab = Lab::plain_network(HOSTS)?;
    write(&lab.site().join("big"), Noise::new(11).bytes(SIZE));
    let start = |place| Capture::start(place).map_err(|why| skipped(&why)).ok();
    let (host, sender) = (start(&lab.hosts[0].place)?, start(&lab.admin)?);
    lab.deploy(&["--rate", "100Mbit"]).exits(0);
    lab.all_same(&lab.site());
    Some((host.finish(), sender.finish(), lab))
}

/// Returns the lab's last address, which belongs to the commands.
fn sender() -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, HOSTS as u8 + 1)
}

/// makuo's packets with their headers, sorted by content.
struct Sorted<'a> {
    data: Vec<(&'a Packet, Udp<'a>)>,
    control: Vec<(&'a Packet, Udp<'a>)>,
}

fn sorted(packets: &[Packet]) -> Sorted<'_> {
    let mut sorted = Sorted {
        data: Vec::new(),
        control: Vec::new(),
    };

    for packet in packets {
        let Some(udp) = packet.udp() else { continue };
        match Datagram::parse(udp.head) {
            Ok(Datagram::Data(..)) => sorted.data.push((packet, udp)),
            Ok(Datagram::Control(..)) => sorted.control.push((packet, udp)),
            Ok(Datagram::Peer(..)) | Err(_) => {}
        }
    }

    sorted
}

fn wire(packets: &[(&Packet, Udp<'_>)]) -> usize {
    packets.iter().map(|(packet, _)| packet.wire()).sum()
}

#[test]
fn a_deploy_on_the_network_is_as_it_should_be() {
    let Some((at_host, at_sender, _lab)) = captured() else {
        return;
    };

    the_capture_is_whole(&at_host, &at_sender);
    data_fills_the_mtu_and_nothing_exceeds_it(&at_sender);
    trains_are_short(&at_host, &at_sender);
    data_goes_to_all_at_once(&at_host);

    feedback_is_small(&at_sender);
}

/// Checks that every byte of the release passed, at the host and at the sender.
fn the_capture_is_whole(at_host: &[Packet], at_sender: &[Packet]) {
    let (heard, sent) = (wire(&sorted(at_host).data), wire(&sorted(at_sender).data));
    assert!(heard >= SIZE, "{heard} bytes of data heard");
    assert!(sent >= heard, "{sent} bytes of data sent, {heard} heard");
}

fn data_fills_the_mtu_and_nothing_exceeds_it(at_sender: &[Packet]) {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    let data = sorted(at_sender).data;
    data.iter()
        .flat_map(|(packet, _)| packet.datagrams())
        .for_each(|size| *sizes.entry(size).or_default() += 1);
    let (&most, _) = sizes.last_key_value().expect("data was sent");
    let whole = sizes[&most] * most;

    assert!(
        most <= MTU - IP_AND_UDP,
        "{most} bytes in a datagram: {sizes:?}"
    );

    // The overhead of encryption may remain free.
    assert!(
        most > MTU - IP_AND_UDP - 64,
        "{most} bytes in a datagram of at most {}",
        MTU - IP_AND_UDP
    );

    assert!(
        whole * 10 > SIZE * 9,
        "nine tenths are datagrams of full size: {sizes:?}"
    );

    for packet in at_sender.iter().filter(|p| p.outgoing) {
        let largest = match (packet.segment, packet.udp()) {
            (Some(_), Some(udp)) => packet.datagrams().into_iter().max().unwrap_or(0) + udp.headers,
            _ => packet.len,
        };
        assert!(
            largest <= MTU + ETHERNET,
            "{largest} bytes in a frame: {packet:?}"
        );
    }
}

fn trains_are_short(at_host: &[Packet], at_sender: &[Packet]) {
    let sent: Vec<usize> = sorted(at_sender)
        .data
        .iter()
        .map(|(packet, _)| packet.datagrams().len())
        .collect();

    let heard = sorted(at_host).data;
    let longest = heard
        .iter()
        .map(|(packet, _)| packet.datagrams().len())
        .chain(sent.iter().copied())
        .max();

    assert!(
        longest.is_some_and(|l| l <= MAX_SEGMENTS),
        "{longest:?} datagrams in a train"
    );

    // One packet per datagram would make a gigabit expensive.
    let trains = sent.iter().filter(|&&n| n > 1).count();
    assert!(trains > 0, "no train among {} packets", sent.len());
}

fn data_goes_to_all_at_once(at_host: &[Packet]) {
    let data = sorted(at_host).data;
    let alone = data.iter().find(|(_, udp)| !udp.to.is_multicast());
    assert!(alone.is_none(), "data for one host: {alone:?}");
    assert!(
        data.iter()
            .all(|(packet, udp)| !packet.outgoing && udp.from == sender()),
        "data from somebody else"
    );
}

fn feedback_is_small(at_sender: &[Packet]) {
    let Sorted { data, control } = sorted(at_sender);
    let feedback: Vec<_> = control
        .into_iter()
        .filter(|(packet, _)| !packet.outgoing)
        .collect();
    let mut by_host: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    feedback.iter().for_each(|(packet, udp)| {
        *by_host.entry(udp.from).or_default() += packet.datagrams().len()
    });

    assert_eq!(by_host.len(), HOSTS, "every host reports: {by_host:?}");
    let (said, sent) = (wire(&feedback), wire(&data));
    assert!(
        said * 100 < sent * 2,
        "{said} bytes of feedback for {sent} of data: {by_host:?}"
    );
    let datagrams = |packets: &[(&Packet, Udp<'_>)]| {
        packets
            .iter()
            .map(|(p, _)| p.datagrams().len())
            .sum::<usize>()
    };

    let (reports, symbols) = (datagrams(&feedback), datagrams(&data));
    assert!(
        reports * 4 < symbols,
        "{reports} datagrams of feedback for {symbols} of data: {by_host:?}"
    );
}

#[test]
fn the_pace_of_packets_is_what_a_line_sees() {
    let packet = |ms: u64, len: usize| Packet {
        at: Duration::from_millis(ms),
        outgoing: false,
        len,
        segment: None,
        head: Vec::new(),
    };

    // 8 Mbit/s are 1000 bytes per millisecond.
    let even: Vec<Packet> = (0..500).map(|ms| packet(ms, 1000)).collect();
    assert_eq!(
        pace(&even, 8),
        support::Pace {
            window: 1.0,
            backlog: 1000.0
        }
    );

    let burst = [
        packet(0, 1000),
        packet(1, 1000),
        packet(1, 5000),
        packet(3, 1000),
        packet(200, 1000),
    ];

    assert_eq!(
        pace(&burst, 8),
        support::Pace {
            window: 0.08,
            backlog: 6000.0
        }
    );

    // The end of a window is exclusive: a packet 100 ms later belongs to the next.
    let two = [packet(0, 60_000), packet(100, 60_000)];
    assert_eq!(pace(&two, 8).window, 0.6);
}
