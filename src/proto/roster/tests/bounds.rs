//! Limits of what one address can cause, and what is known after it went over them.

use super::*;
use crate::proto::roster::outbox::{MAX_PEER_ANSWERS, MAX_PEER_CHANGES, MAX_WAITING};
use crate::proto::roster::peer::MAX_PEER_LISTS;
use crate::proto::roster::segment::MAX_HEARD;

pub(super) const NOW: Moment = Moment(1_000_000_000_000);

pub(super) fn roster(multicast: bool) -> Roster {
    let setup = RosterSetup {
        instance: InstanceId(1),
        seed: 11,
        room: 0,
        host: true,
        segment: SegmentSetup {
            multicast,
            named: None,
        },
    };
    Roster::new(NOW, setup)
}

fn ping(echo: Option<Nonce>) -> Ping {
    Ping {
        nonce: Nonce(5),
        echo,
        host: true,
        list: true,
        heard: None,
        segment: None,
        interval: None,
    }
}

/// Takes a ping that proves an address.
fn prove(roster: &mut Roster, now: Moment, from: SocketAddr, source: u64) {
    let ping = ping(Some(roster.challenge.nonce(now, from)));
    let message = PeerMessage::Ping(ping).encode();
    roster.handle(now, from, InstanceId(source), &message);
}

/// Takes the goodbye of a process.
fn leave(roster: &mut Roster, now: Moment, from: SocketAddr, source: u64) {
    let message = PeerMessage::Leave(roster.challenge.nonce(now, from)).encode();
    roster.handle(now, from, InstanceId(source), &message);
}

/// Takes a ping to the group.
fn hear(roster: &mut Roster, now: Moment, from: SocketAddr, (source, nonce): (u64, u64)) {
    let ping = Ping {
        nonce: Nonce(nonce),
        interval: Some(u32::MAX),
        ..ping(None)
    };
    let message = PeerMessage::Ping(ping).encode();
    roster.hear(now, from, InstanceId(source), &message);
}

/// Takes all messages that wait.
fn drain(roster: &mut Roster) -> Vec<(Option<SocketAddr>, PeerMessage)> {
    std::iter::from_fn(|| roster.out.pop()).collect()
}

#[test]
fn a_proven_address_gets_few_answers_while_nothing_is_sent() {
    let mut roster = roster(false);
    for n in 0..60 {
        prove(&mut roster, NOW, address(n), 100 + n as u64);
    }
    roster.handle_timeout(NOW);
    drain(&mut roster);

    for _ in 0..1000 {
        prove(&mut roster, NOW + seconds(1), address(0), 100);
    }
    let sent = drain(&mut roster);
    assert_eq!(sent.len(), MAX_PEER_ANSWERS as usize);
    let has_list = |message: &PeerMessage| matches!(message, PeerMessage::Pong(pong) if !pong.peers.is_empty());
    let lists = sent.iter().filter(|(_, message)| has_list(message));
    assert_eq!(lists.count(), MAX_PEER_LISTS as usize);

    // The next second has a share of its own, and all together are limited, too.
    for round in 0..100_000 {
        let n = round % 60;
        prove(&mut roster, NOW + seconds(2), address(n), 100 + n as u64);
    }
    assert_eq!(roster.out.len(), MAX_WAITING);
    assert_eq!(roster.hosts().len(), 60);
}

#[test]
fn many_changes_are_listed_once_and_all_together() {
    let mut roster = roster(false);
    let before = roster.version();
    for n in 0..u64::from(MAX_PEER_CHANGES) {
        prove(&mut roster, NOW, address(0), 100 + n % 2);
        prove(&mut roster, NOW, address(1), 100 + (n + 1) % 2);
    }
    assert_eq!(roster.version(), before + 1);
    assert!(roster.timeout() <= NOW, "the rest waits for no longer");

    roster.handle_timeout(NOW);
    assert_eq!(roster.version(), before + 2);
    let instances: Vec<_> = roster.reached().iter().map(|host| host.instance).collect();
    assert_eq!(instances, [InstanceId(101), InstanceId(100)]);
    assert_eq!(roster.hosts(), [address(0), address(1)]);
}

#[test]
fn a_host_that_ends_is_gone() {
    let mut roster = roster(false);
    prove(&mut roster, NOW, address(0), 100);
    leave(&mut roster, NOW, address(0), 100);
    roster.handle_timeout(NOW);
    assert_eq!(roster.take_gone(), [address(0)]);
    assert_eq!(roster.hosts(), []);
}

#[test]
fn a_host_that_ends_is_gone_at_all_its_addresses_unless_one_answers() {
    let mut roster = roster(false);
    for (n, host) in [(0, 100), (1, 100), (2, 200)] {
        prove(&mut roster, NOW, address(n), host);
    }
    roster.handle_timeout(NOW);
    drain(&mut roster);

    leave(&mut roster, NOW, address(1), 100);
    roster.handle_timeout(NOW);
    assert_eq!(roster.hosts(), [address(2)]);
    assert_eq!(roster.take_gone(), [address(0), address(1)]);
    let sent = drain(&mut roster);
    assert!(matches!(sent[..], [(Some(to), PeerMessage::Ping(_))] if to == address(0)));

    // The goodbye was not its own.
    roster.take_new();
    prove(&mut roster, NOW, address(0), 100);
    roster.handle_timeout(NOW);
    assert_eq!(roster.hosts(), [address(0), address(2)]);
    assert_eq!(roster.take_new(), [address(0)]);
}

#[test]
fn a_host_is_gone_with_the_last_of_its_addresses() {
    let mut roster = roster(false);
    for n in 0..2 {
        prove(&mut roster, NOW, address(n), 100);
    }

    // One address answers no more, then none.
    let mut now = NOW;
    let mut silence = |roster: &mut Roster, answers: bool| {
        for _ in 0..20 {
            now = now + Duration::from_millis(500);
            if answers {
                prove(roster, now, address(0), 100);
            }
            roster.handle_timeout(now);
            drain(roster);
        }
        roster.take_gone()
    };
    assert_eq!(silence(&mut roster, true), []);
    assert_eq!(roster.hosts(), [address(0)]);
    assert_eq!(silence(&mut roster, false), [address(0), address(1)]);
    assert_eq!(roster.hosts(), []);
}

#[test]
fn one_address_changes_the_lists_a_few_times_a_second_and_its_last_word_counts() {
    let mut roster = roster(false);
    prove(&mut roster, NOW, address(0), 100);
    let before = roster.version();
    for n in 0..1000 {
        match n % 5 {
            4 => leave(&mut roster, NOW, address(0), 100),
            _ => prove(&mut roster, NOW, address(0), 101 + n),
        }
        roster.handle_timeout(NOW);
    }
    let changes = roster.version() - before;
    // After a goodbye the address is proven anew.
    assert!(
        (2..=2 * u64::from(MAX_PEER_CHANGES)).contains(&changes),
        "{changes}"
    );

    // The process is asked soon.
    let later = NOW + seconds(1);
    drain(&mut roster);
    roster.handle_timeout(later);
    let sent = drain(&mut roster);
    assert!(matches!(sent[..], [(Some(to), PeerMessage::Ping(_))] if to == address(0)));
    prove(&mut roster, later, address(0), 5000);
    roster.handle_timeout(later);
    assert_eq!(roster.reached()[0].instance, InstanceId(5000));
}

#[test]
fn a_ping_in_the_name_of_a_host_does_not_replace_its_own() {
    let mut roster = roster(true);
    let (host, other) = (address(0), address(1));
    let heard = |roster: &Roster, at| roster.segment.heard(NOW, InstanceId(100), at);

    // Before the proof the last ping counts, and only for its address.
    hear(&mut roster, NOW, other, (100, 6));
    hear(&mut roster, NOW, host, (100, 7));
    assert_eq!(heard(&roster, host), Some(Nonce(7)));
    assert_eq!(heard(&roster, other), None);

    prove(&mut roster, NOW, host, 100);
    hear(&mut roster, NOW, other, (100, 8));
    assert_eq!(heard(&roster, host), Some(Nonce(7)));
    hear(&mut roster, NOW, host, (100, 9));
    assert_eq!(heard(&roster, host), Some(Nonce(9)));

    // The process proves that it is at the other address now.
    prove(&mut roster, NOW + seconds(1), other, 100);
    roster.handle_timeout(NOW + seconds(1));
    hear(&mut roster, NOW + seconds(1), other, (100, 10));
    assert_eq!(heard(&roster, other), Some(Nonce(10)));
    assert_eq!(heard(&roster, host), None);
}

#[test]
fn invented_processes_are_heard_for_a_short_time_and_make_room() {
    let mut roster = roster(true);
    let is_heard = |roster: &Roster, now, n: u64| {
        let heard = roster
            .segment
            .heard(now, InstanceId(n), address(n as usize));
        heard.is_some()
    };
    prove(&mut roster, NOW, address(1), 1001);
    hear(&mut roster, NOW, address(1), (1001, 1));
    for n in 0..2 * MAX_HEARD as u64 {
        hear(&mut roster, NOW, address(9), (10_000 + n, 7));
    }

    // A host with proof is heard at once, others after a while.
    prove(&mut roster, NOW, address(2), 2);
    hear(&mut roster, NOW, address(2), (2, 7));
    assert!(is_heard(&roster, NOW, 2));
    for n in 0..2 * MAX_HEARD as u64 {
        hear(&mut roster, NOW, address(9), (10_000 + n, 7));
    }
    hear(&mut roster, NOW, address(3), (3, 7));
    assert!(!is_heard(&roster, NOW, 3));
    let later = NOW + seconds(11);
    hear(&mut roster, later, address(3), (3, 7));
    assert!(is_heard(&roster, later, 3));

    // Those with proof have stayed.
    assert!(is_heard(&roster, later, 2));
    let first = roster.segment.heard(later, InstanceId(1001), address(1));
    assert!(first.is_some());
}

#[test]
fn a_machine_has_a_limited_number_of_addresses() {
    let mut roster = roster(false);
    for ip in ["10.0.0.1", "2001:db8::1", "127.0.0.1"] {
        let at = |port| SocketAddr::new(ip.parse().expect("legal"), port);
        let before = roster.peers.len();
        for port in 1..=100 {
            assert!(port > 32 || roster.takes_unproven(at(port)));
            prove(&mut roster, NOW, at(port), u64::from(port) + 100);
        }
        let is_own = at(1).ip().is_loopback();
        let most = if is_own { 100 } else { 64 };
        assert_eq!(roster.peers.len() - before, most, "{ip}");
        assert_eq!(roster.takes_unproven(at(200)), is_own);
        assert!(roster.takes_unproven(at(1)), "known");
    }
    assert!(roster.takes_unproven(SocketAddr::from(([10, 0, 0, 2], 1))));
}

#[test]
fn a_silent_address_is_tried_at_once_when_it_is_configured() {
    let mut roster = roster(false);
    let mut now = NOW;
    assert!(roster.candidate(now, address(0)).is_some());
    while roster.peers[&address(0)].state != PeerState::Silent {
        now = roster.timeout().max(now);
        roster.handle_timeout(now);
    }
    drain(&mut roster);

    roster.configure(now, &[address(0)]);
    roster.handle_timeout(now);
    let sent = drain(&mut roster);
    assert!(matches!(sent[..], [(Some(to), PeerMessage::Ping(_))] if to == address(0)));

    // The same configuration again changes nothing.
    roster.configure(now, &[address(0)]);
    roster.handle_timeout(now);
    assert_eq!(drain(&mut roster), []);
}

#[test]
fn a_way_in_that_was_an_own_address_is_pinged_when_it_is_no_more() {
    let mut roster = roster(false);
    roster.set_own(NOW, vec![address(0), address(1)]);
    roster.configure(NOW, &[address(0)]);
    roster.handle_timeout(NOW);
    assert_eq!(drain(&mut roster), []);

    roster.set_own(NOW, vec![address(1)]);
    roster.handle_timeout(NOW);
    let sent = drain(&mut roster);
    assert!(matches!(sent[..], [(Some(to), PeerMessage::Ping(_))] if to == address(0)));
}

#[test]
fn a_datagram_of_another_process_at_a_proven_address_makes_a_ping_due() {
    let mut roster = roster(false);
    prove(&mut roster, NOW, address(0), 100);
    roster.handle_timeout(NOW);
    drain(&mut roster);

    let pings = |roster: &mut Roster, now, from, source| {
        roster.on_source(now, from, InstanceId(source));
        roster.handle_timeout(now);
        drain(roster).len()
    };
    assert_eq!(pings(&mut roster, NOW, address(0), 100), 0, "the same");
    assert_eq!(pings(&mut roster, NOW, address(0), 1), 0, "this process");
    assert_eq!(pings(&mut roster, NOW, address(1), 200), 0, "a stranger");
    assert_eq!(pings(&mut roster, NOW, address(0), 200), 1);

    // Once a second, even if each is answered.
    prove(&mut roster, NOW, address(0), 100);
    drain(&mut roster);
    assert_eq!(pings(&mut roster, NOW, address(0), 200), 0);
    assert_eq!(pings(&mut roster, NOW + seconds(1), address(0), 200), 1);

    // The new process answers.
    let pong = roster.pong(NOW, address(0), roster.challenge.nonce(NOW, address(0)));
    let pong = PeerMessage::Pong(pong).encode();
    roster.handle(NOW + seconds(1), address(0), InstanceId(200), &pong);
    roster.handle_timeout(NOW + seconds(1));
    assert_eq!(roster.reached()[0].instance, InstanceId(200));
}
