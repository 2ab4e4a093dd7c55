//! Tests of passing on, over unicast links of the loopback interface.

use super::*;
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

#[test]
fn every_other_host_gets_each_datagram_once_and_in_order() {
    let relay = LinkSet::from(unicast());
    let (a, b, sender) = (unicast(), unicast(), unicast());
    let hosts = [a.local(), sender.local(), b.local()];
    let mut queue = RelayQueue::default();

    // Two trains: a shorter datagram ends one.
    let datagrams: Vec<Vec<u8>> = (0..80_u8)
        .map(|n| vec![n; if n == 40 { 700 } else { 1400 }])
        .collect();
    for datagram in &datagrams {
        queue.push(sender.local(), datagram);
    }
    for _ in 0..100 {
        queue.send(&relay, &HostLinks::default(), &hosts);
    }

    assert_eq!(queue.waiting, 0);
    assert_eq!(queue.sent() as usize, 2 * (79 * 1400 + 700));
    for host in [&a, &b] {
        assert_eq!(collect(host, Channel::Own, datagrams.len()), datagrams);
    }
    assert!(crate::net::testing::silent(&sender, Channel::Own));
}

#[test]
fn what_cannot_be_sent_is_bounded() {
    let relay = LinkSet::from(unicast());
    let from = "127.0.0.1:9".parse().expect("legal");
    let mut queue = RelayQueue::default();
    for _ in 0..10_000 {
        queue.push(from, &[7; 1400]);
    }
    assert!(queue.waiting <= MAX_WAITING_BYTES);

    // Without hosts, nothing waits.
    queue.send(&relay, &HostLinks::default(), &[]);
    assert_eq!((queue.waiting, queue.sent()), (0, 0));
    assert!(queue.spare.len() <= MAX_SPARE_TRAINS);
}
