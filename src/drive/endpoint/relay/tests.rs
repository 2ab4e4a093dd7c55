//! Tests of passing on, over unicast links of the loopback interface.

use super::*;
use crate::id::SessionId;
use crate::net::testing::collect;
use crate::net::{Channel, Family, LinkConfig, LinkUse, choose};

/// A link without multicast on the loopback interface.
fn unicast() -> Link {
    let usage = LinkUse {
        family: Family::V4,
        multicast: false,
    };
    let lo = choose(Some("127.0.0.1"), usage).expect("loopback");
    Link::open(&LinkConfig {
        multicast: false,
        ..LinkConfig::new(lo, "127.0.0.1".parse().expect("legal"))
    })
    .expect("a socket")
}

/// The process of a host by its number.
fn id(n: usize) -> InstanceId {
    InstanceId(n as u64)
}

/// Targets of the host with the number 0, which passes on to `heads` and its `group`.
fn targets(heads: &[usize], group: &[usize]) -> Arc<RelayTargets> {
    let ids = |hosts: &[usize]| hosts.iter().map(|n| id(*n)).collect();
    Arc::new(RelayTargets {
        session: SessionId(1),
        number: 1,
        heads: ids(heads),
        group: ids(group),
        relays: Vec::new(),
        multicast: false,
        tags: None,
    })
}

/// Ways of the host with the number 0.
fn way<'a>(
    links: &'a LinkSet,
    host_links: &'a HostLinks,
    hosts: &'a [ReachedHost],
) -> RelayWay<'a> {
    RelayWay {
        links,
        host_links,
        own: id(0),
        traffic: Box::leak(Box::default()),
        roster: (1, hosts),
    }
}

/// The roster with hosts at these addresses, from the number `first` on.
fn roster(first: usize, addresses: &[SocketAddr]) -> Vec<ReachedHost> {
    let hosts = addresses.iter().zip(first..);
    hosts
        .map(|(&address, n)| ReachedHost::alone(address, id(n)))
        .collect()
}

#[test]
fn each_target_gets_each_datagram_once_and_in_order() {
    let (relay, host_links) = (LinkSet::from(unicast()), HostLinks::default());
    let (head, near, sender) = (unicast(), unicast(), unicast());
    let hosts = roster(0, &[relay.first().local(), head.local(), near.local()]);

    // Two trains: a shorter datagram ends one.
    let datagrams: Vec<Vec<u8>> = (0..80_u8)
        .map(|n| vec![n; if n == 40 { 700 } else { 1400 }])
        .collect();
    // A process without a proven address gets nothing.
    let targets = targets(&[1, 7], &[0, 2]);

    for (hop, takers) in [
        (Hop::First, &[&head, &near][..]),
        (Hop::Second(id(1)), &[&near]),
    ] {
        let mut queue = RelayQueue::default();
        for datagram in &datagrams {
            queue.push(
                Moment(0),
                (sender.local(), hop),
                Arc::clone(&targets),
                datagram,
            );
        }
        for _ in 0..100 {
            queue.send(Moment(0), &way(&relay, &host_links, &hosts));
        }

        assert_eq!(queue.waiting, 0);
        assert_eq!(queue.sent() as usize, takers.len() * (79 * 1400 + 700));
        for host in takers {
            assert_eq!(collect(host, Channel::Own, datagrams.len()), datagrams);
        }
        assert!(crate::net::testing::silent(&sender, Channel::Own));
    }
    assert!(crate::net::testing::silent(&head, Channel::Own));
}

#[test]
fn what_cannot_be_sent_is_bounded() {
    let (relay, host_links) = (LinkSet::from(unicast()), HostLinks::default());
    let from = "127.0.0.1:9".parse().expect("legal");
    let mut queue = RelayQueue::default();
    let mut pushed = 0;
    let targets = targets(&[1], &[0]);
    for _ in 0..10_000 {
        // Each has ten copies to go.
        queue.copies = 10;
        queue.push(
            Moment(0),
            (from, Hop::First),
            Arc::clone(&targets),
            &[7; 1400],
        );
        pushed += 1;
    }
    let taken: usize = queue.trains.iter().map(|train| train.bytes.len()).sum();
    assert!(queue.waiting <= MAX_WAITING_BYTES && queue.waiting == taken * 10);
    assert_eq!(queue.take_load().dropped as usize, pushed - taken / 1400);

    // Without addresses, nothing waits.
    queue.send(Moment(0), &way(&relay, &host_links, &[]));
    assert_eq!((queue.waiting, queue.sent()), (0, 0));
    assert!(queue.spare.len() <= MAX_SPARE_TRAINS);
}

#[test]
fn what_waited_too_long_is_dropped_and_counted() {
    let (relay, host_links) = (LinkSet::from(unicast()), HostLinks::default());
    let (host, sender) = (unicast(), unicast());
    let hosts = roster(1, &[host.local()]);
    let mut queue = RelayQueue::default();
    let at = |ms: u64| Moment(0) + Duration::from_millis(ms);

    // A shorter datagram ends the first train.
    let targets = targets(&[1], &[0]);
    let mut push = |at, datagram: &[u8]| {
        let from = (sender.local(), Hop::First);
        queue.push(at, from, Arc::clone(&targets), datagram);
    };
    push(at(0), &[1; 1400]);
    push(at(0), &[1; 700]);
    push(at(60), &[2; 1400]);
    queue.send(at(120), &way(&relay, &host_links, &hosts));

    let load = queue.take_load();
    assert_eq!((load.dropped, queue.waiting), (2, 0));
    assert_eq!(load.wait, Some(Duration::from_millis(60)));
    assert_eq!(collect(&host, Channel::Own, 1), [vec![2; 1400]]);

    let load = queue.take_load();
    assert_eq!((load.dropped, load.wait), (2, None));
}

#[test]
fn nothing_is_left_of_the_count_when_targets_change() {
    let mut rng = fastrand::Rng::with_seed(4);
    let (relay, host_links) = (LinkSet::from(unicast()), HostLinks::default());
    let host = unicast();
    let from = host.local();
    let lists = [targets(&[], &[0]), targets(&[1, 2, 3], &[0, 4])];
    let mut queue = RelayQueue::default();

    for round in 0..2_000 {
        for _ in 0..rng.usize(1..50) {
            let hop = match rng.bool() {
                true => Hop::First,
                false => Hop::Second(id(9)),
            };
            let targets = Arc::clone(&lists[rng.usize(0..2)]);
            let datagram = vec![0; rng.usize(1..1400)];
            queue.push(Moment(round), (from, hop), targets, &datagram);
        }
        queue.send(Moment(round), &way(&relay, &host_links, &[]));
        assert_eq!(queue.waiting, 0, "round {round}");
        queue.copies = rng.usize(0..64);
    }
}
