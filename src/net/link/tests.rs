//! Tests of links on the loopback interface: who hears what, losses, and explained errors.

use std::net::IpAddr;

use super::*;
use crate::net::testing::{collect, free_port, loopback, silent};
use crate::net::{DEFAULT_RECV_BUFFER, choose};
use crate::{Kind, net::SendOutcome};

fn send(link: &Link, to: SocketAddr, text: &[u8]) {
    assert_eq!(link.send(to, text, text.len()).unwrap(), SendOutcome::Sent);
}

fn three(group: &str) -> Option<[Link; 3]> {
    let port = free_port();
    let one = || loopback(group, port, Offload::Full);
    Some([one()?, one()?, one()?])
}

#[test]
fn processes_on_one_machine_hear_the_group_and_answer_one() {
    let Some([a, b, c]) = three("224.0.0.108") else {
        return;
    };

    send(&a, a.group(), b"to all");
    for link in [&b, &c] {
        assert_eq!(collect(link, Channel::Group, 1), [b"to all"]);
    }

    assert!(silent(&a, Channel::Group), "a sender does not hear itself");
    send(&b, a.local(), b"to one");
    assert_eq!(collect(&a, Channel::Own, 1), [b"to one"]);
    assert!(silent(&c, Channel::Own) && silent(&c, Channel::Group));

    for link in [&a, &b, &c] {
        assert_eq!(link.drops().unwrap(), 0, "what a filter refuses is no loss");
    }
}

#[test]
fn over_ipv6_links_open_and_answer_one() {
    for group in ["ff02::108", "ff15::108"] {
        let Some([a, b, c]) = three(group) else {
            return;
        };
        assert_eq!(a.group().ip().to_string(), group);
        send(&b, a.local(), b"to one");
        assert_eq!(collect(&a, Channel::Own, 1), [b"to one"]);
        assert!(silent(&c, Channel::Own));
    }
}

#[test]
fn answers_come_from_where_the_sender_says_it_is() {
    let Some([a, b, _]) = three("224.0.0.108") else {
        return;
    };

    send(&a, a.group(), b"?");
    let mut from = None;
    let poller = crate::net::Poller::new().unwrap();
    let mut batch = crate::net::RecvBatch::new();

    while b
        .recv(Channel::Group, &mut batch, |d| {
            from = Some((d.from, d.stamp))
        })
        .unwrap()
        == 0
    {
        poller.wait(&b, crate::net::Interest::READ, None).unwrap();
    }

    let (from, stamp) = from.unwrap();
    assert_eq!(from, a.local());
    assert!(
        stamp.is_some_and(|s| s.as_secs() > 1_600_000_000),
        "the kernel stamps what comes: {stamp:?}"
    );
}

#[test]
fn another_group_on_the_same_port_is_not_heard() {
    let port = free_port();
    let open = |group| loopback(group, port, Offload::Full);
    let (Some(a), Some(b)) = (open("224.0.0.108"), open("224.0.0.109")) else {
        return;
    };

    send(&a, b.group(), b"over there");
    assert_eq!(collect(&b, Channel::Group, 1), [b"over there"]);
    assert!(silent(&a, Channel::Group));
}

#[test]
fn a_link_that_wants_to_hears_itself() {
    let Ok(lo) = choose(Some("lo"), Family::V4) else {
        return crate::skip::skipped("no loopback interface");
    };

    let config = LinkConfig {
        port: free_port(),
        receive_own: true,
        ..LinkConfig::new(lo, "224.0.0.108".parse().unwrap())
    };

    let Ok(link) = Link::open(&config) else {
        return crate::skip::skipped("no multicast on loopback here");
    };

    send(&link, link.group(), b"echo");
    assert_eq!(collect(&link, Channel::Group, 1), [b"echo"]);
}

#[test]
fn a_link_with_a_fixed_port_is_reopened_and_loses_nothing_that_waits() {
    for multicast in [false, true] {
        let lo = choose(Some("127.0.0.1"), Family::V4).expect("loopback");
        let config = LinkConfig {
            multicast,
            port: free_port(),
            unicast_port: free_port(),
            recv_buffer: 1,
            ..LinkConfig::new(lo, "224.0.0.108".parse().unwrap())
        };
        let Ok(old) = Link::open(&config) else {
            return crate::skip::skipped("no multicast on loopback here");
        };
        let other = Link::open(&LinkConfig {
            unicast_port: 0,
            ..config.clone()
        })
        .unwrap();

        let error = Link::open(&config).unwrap_err();
        assert!(error.is_os(io::ErrorKind::AddrInUse), "{error}");
        for _ in 0..64 {
            send(&other, old.local(), &[7; 1400]);
        }
        let lost = old.drops().unwrap();
        assert!(lost > 0 && lost < 64, "{lost}");

        let new = old.reopen(&config).expect("reopened");
        drop(old);
        assert_eq!(new.local().port(), config.unicast_port);
        assert_eq!(new.drops().unwrap(), 0, "counted at the old link");
        assert_eq!(collect(&new, Channel::Own, 1)[0], [7; 1400]);
        send(&new, other.local(), b"answer");
        assert_eq!(collect(&other, Channel::Own, 1), [b"answer"]);
    }
}

#[test]
fn what_nobody_reads_in_time_is_counted() {
    let Ok(lo) = choose(Some("lo"), Family::V4) else {
        return crate::skip::skipped("no loopback interface");
    };

    let port = free_port();
    let group = "224.0.0.108".parse().unwrap();
    let config = LinkConfig {
        port,
        recv_buffer: 1,
        ..LinkConfig::new(lo, group)
    };

    let (Ok(a), Ok(b)) = (Link::open(&config), Link::open(&config)) else {
        return crate::skip::skipped("no multicast on loopback here");
    };

    assert!(b.recv_buffer() < 64 << 10, "{}", b.recv_buffer());
    for _ in 0..64 {
        send(&a, a.group(), &[7; 1400]);
    }

    assert!(b.drops().unwrap() > 0);
    assert_eq!(a.drops().unwrap(), 0);
}

#[test]
fn the_buffer_granted_is_the_buffer_reported() {
    let Some(link) = loopback("224.0.0.108", free_port(), Offload::Full) else {
        return;
    };

    assert!(
        link.recv_buffer() > 0 && link.recv_buffer() <= DEFAULT_RECV_BUFFER,
        "{}",
        link.recv_buffer()
    );
    assert_eq!(
        link.max_segment(),
        max_segment(link.interface().mtu, Family::V4)
    );
}

#[test]
fn a_multicast_crosses_as_many_routers_as_was_asked_for() {
    for group in ["224.0.0.108", "ff15::108"] {
        let Ok(lo) = choose(Some("lo"), Family::V4) else {
            return crate::skip::skipped("no loopback interface");
        };

        let group: IpAddr = group.parse().unwrap();
        let config = LinkConfig {
            port: free_port(),
            ttl: 7,
            ..LinkConfig::new(lo, group)
        };
        let Ok(link) = Link::open(&config) else {
            return crate::skip::skipped("no multicast on loopback here");
        };

        let socket = &link.own.socket;
        let hops = if group.is_ipv4() {
            socket.multicast_ttl_v4()
        } else {
            socket.multicast_hops_v6()
        };

        assert_eq!(hops.unwrap(), 7, "{group}");
    }
}

#[test]
fn a_port_held_by_another_program_and_a_group_that_is_none_are_explained() {
    let Ok(lo) = choose(Some("lo"), Family::V4) else {
        return crate::skip::skipped("no loopback interface");
    };

    let holder = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let config = LinkConfig {
        port,
        ..LinkConfig::new(lo.clone(), "224.0.0.108".parse().unwrap())
    };

    let error = Link::open(&config).unwrap_err();
    assert!(error.is_os(io::ErrorKind::AddrInUse), "{error}");
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains(&format!("sport = :{port}"))
    );

    let error = Link::open(&LinkConfig::new(lo.clone(), "10.0.0.1".parse().unwrap())).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    let gone = Interface {
        index: 0x7fff_fff0,
        v4: Some("192.0.2.99".parse().unwrap()),
        ..lo
    };

    let error = Link::open(&LinkConfig {
        port: free_port(),
        ..LinkConfig::new(gone, "224.0.0.108".parse().unwrap())
    })
    .unwrap_err();

    assert!(
        error.to_string().contains("cannot join 224.0.0.108"),
        "{error}"
    );

    assert!(error.hint_text().is_some(), "{error}");
}
