//! Tests of the table: confirmed members, false claims and floods.

use super::*;
use crate::id::TreeName;
use crate::wire::message::TreeState;

const START: Moment = Moment(1_000_000_000);

fn hello(name: &str, members: u32) -> Hello {
    Hello {
        name: HostName::new(name).expect("legal"),
        version: String::new(),
        trees: Vec::new(),
        members,
        heard: None,
        strangers: None,
        nonce: None,
        echoes: None,
        identity: None,
        shown: None,
        labels: None,
    }
}

fn at(host: u32) -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + host), 5000))
}

#[test]
fn the_table_knows_who_is_there_and_what_they_claim() {
    let mut table = Table::default();
    assert!(table.on_hello(START, at(1), InstanceId(1), hello("a", 1), true));
    assert!(table.on_hello(START, at(2), InstanceId(2), hello("b", 7), true));
    assert!(
        !table.on_hello(START, at(2), InstanceId(2), hello("b", 2), true),
        "it claims something else now"
    );

    assert_eq!(table.len(), 2);
    assert!(
        table.on_hello(START, at(1), InstanceId(3), hello("a", 2), true),
        "it was restarted"
    );
    assert!(table.claimed() == 2 && table.iter().all(|(id, _)| *id != InstanceId(1)));
    table.on_bye(InstanceId(2), at(1));

    assert_eq!(table.len(), 2, "from another address");
    table.on_bye(InstanceId(2), at(2));
    assert_eq!((table.len(), table.claimed()), (1, 2));
    table.expire(START + BEACON_INTERVAL * (MISSED_INTERVALS + 1));
    assert!(table.at.is_empty() && table.trees == 0);

    assert!(table.is_empty() && table.claimed() == 0 && table.named.is_empty());
}

#[test]
fn a_beacon_that_proves_nothing_changes_nothing_that_is_reckoned_with() {
    let mut table = Table::default();
    for host in 1..=5 {
        table.on_hello(
            START,
            at(host),
            InstanceId(host.into()),
            hello(&format!("web{host}"), 5),
            true,
        );
    }

    for n in 0..30_000u32 {
        let id = InstanceId(u64::from(n) + 100);
        let name = format!("ghost{n}");
        table.on_hello(START, at(n + 100), id, hello(&name, u32::MAX), false);
    }

    // In the name of a present host and from its address, with a new instance and with its own.
    assert!(!table.on_hello(START, at(1), InstanceId(77), hello("web1", 9), false));
    assert!(!table.on_hello(START, at(1), InstanceId(1), hello("web1", 9), false));
    assert_eq!(
        (table.len(), table.claimed(), table.iter().count()),
        (5, 5, 5)
    );

    assert!(table.members.len() <= MAX_MEMBERS);
    // One more proven host finds room, and all others are soon forgotten.
    assert!(
        table.on_hello(START, at(6), InstanceId(6), hello("web6", 6), true) && table.len() == 6
    );
    table.expire(START + UNPROVEN_LIFETIME + EXPIRE_INTERVAL);

    assert!(table.members.is_empty());
}

#[test]
fn a_single_voice_does_not_say_how_many_there_are() {
    let mut table = Table::default();
    for host in 1..=20 {
        table.on_hello(
            START,
            at(host),
            InstanceId(host.into()),
            hello(&format!("web{host}"), 20),
            true,
        );
    }

    // Two machines, one with any number of names.
    for n in 0..40u32 {
        let from = at(100 + n / 39);
        table.on_hello(
            START,
            from,
            InstanceId(1000 + u64::from(n)),
            hello(&format!("x{n}"), 4_000_000_000),
            true,
        );
    }

    assert_eq!(table.claimed(), 20);
    let mut pair = Table::default();
    pair.on_hello(START, at(1), InstanceId(1), hello("web1", u32::MAX), true);
    assert_eq!(pair.claimed(), MAX_MEMBERS, "a single vote");
    pair.on_hello(START, at(2), InstanceId(2), hello("web2", 2), true);

    assert_eq!(pair.claimed(), 2);
}

#[test]
fn members_vouch_for_the_hosts_that_all_of_them_know() {
    let vouched = |claims: &[u32]| {
        let mut table = Table::default();
        for (host, &members) in (1..).zip(claims) {
            let name = format!("web{host}");
            let hello = hello(&name, members);
            table.on_hello(START, at(host), InstanceId(host.into()), hello, true);
        }
        table.is_vouched_for()
    };

    assert!(vouched(&[3, 3, 3]) && vouched(&[7; 7]));
    assert!(!vouched(&[]) && !vouched(&[2, 2, 3]) && !vouched(&[3, 3, 2]));
    // Hosts on two networks, which the sender alone joins; and one more that has not answered.
    assert!(!vouched(&[50; 100]) && !vouched(&[100; 99]));

    // Of many a few are behind.
    let mut many = [100; 100];
    many[..12].fill(99);
    assert!(vouched(&many));
    many[12] = 99;
    assert!(!vouched(&many));
}

#[test]
fn without_a_key_a_host_counts_when_it_was_there_for_a_while_and_for_as_long_after() {
    let after = |ms: u64| START + Duration::from_millis(ms);
    let mut table = Table::new(Trust::Twice);
    table.on_hello(after(0), at(1), InstanceId(1), hello("web1", 2), true);
    table.on_hello(after(0), at(2), InstanceId(2), hello("web2", 2), true);
    assert_eq!(
        (table.len(), table.claimed(), table.candidates().count()),
        (0, 0, 0)
    );

    table.on_hello(after(2000), at(1), InstanceId(1), hello("web1", 2), true);
    table.on_hello(after(2000), at(9), InstanceId(2), hello("web2", 2), true);
    assert_eq!(
        (table.len(), table.claimed(), table.candidates().count()),
        (1, 2, 1),
        "web2 has moved"
    );

    // A flood of four seconds with two proofs from each host.
    for round in [0, 3800] {
        for n in 0..19_000u32 {
            let id = InstanceId(u64::from(n) + 100);
            let name = format!("ghost{n}");
            table.on_hello(after(2000 + round), at(n + 100), id, hello(&name, 9), true);
        }
    }

    assert!(table.len() > 10_000);
    table.on_hello(after(8000), at(1), InstanceId(1), hello("web1", 2), true);
    table.expire(after(5800 + 12_700 + 250));

    assert_eq!(table.len(), 1);
}

#[test]
fn a_flood_of_names_stays_bounded_at_one_address_and_at_all() {
    let mut table = Table::default();
    let tree = |n: usize| TreeState::nothing(TreeName::new(&format!("t{n}")).expect("legal"));
    for n in 0..1000u64 {
        table.on_hello(
            START,
            at(1),
            InstanceId(n),
            hello(&format!("h{n}"), 1),
            true,
        );
    }

    assert_eq!(table.len(), MAX_MEMBERS_PER_ADDRESS);
    for n in 0..2000u32 {
        let trees = (0..200).map(tree).collect();
        let id = InstanceId(10_000 + u64::from(n));
        table.on_hello(
            START,
            at(1000 + n),
            id,
            Hello {
                trees,
                ..hello("x", 1)
            },
            true,
        );
    }

    assert!(
        table.trees <= MAX_TREE_STATES
            && table.len() <= MAX_MEMBERS_PER_ADDRESS + MAX_TREE_STATES / 200
    );
}
