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
        able: group.len() as u32,
        multicast: false,
    })
}

#[test]
fn each_target_gets_each_datagram_once_and_in_order() {
    let relay = LinkSet::from(unicast());
    let (head, near, sender) = (unicast(), unicast(), unicast());
    let hosts = [relay.first().local(), head.local(), near.local()];
    let address_of = |host: InstanceId| hosts.get(host.0 as usize).copied();

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
            queue.push(sender.local(), hop, Arc::clone(&targets), datagram);
        }
        for _ in 0..100 {
            queue.send(&relay, &HostLinks::default(), id(0), address_of);
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
    let relay = LinkSet::from(unicast());
    let from = "127.0.0.1:9".parse().expect("legal");
    let mut queue = RelayQueue::default();
    let targets = targets(&[1], &[0]);
    for _ in 0..10_000 {
        queue.push(from, Hop::First, Arc::clone(&targets), &[7; 1400]);
    }
    assert!(queue.waiting <= MAX_WAITING_BYTES);

    // Without addresses, nothing waits.
    queue.send(&relay, &HostLinks::default(), id(0), |_| None);
    assert_eq!((queue.waiting, queue.sent()), (0, 0));
    assert!(queue.spare.len() <= MAX_SPARE_TRAINS);
}
