//! Tests of presence: beacons, replays and floods of solicits.

use super::answers::{MAX_ANSWERS, MAX_ANSWERS_PER_ADDRESS};
use super::*;
use crate::block::BlockHash;
use crate::id::Serial;
use crate::manifest::ReleaseId;
use crate::units::WallTime;
use crate::wire::Datagram;
use crate::wire::datagram::CONTROL_OVERHEAD;

const START: Moment = Moment(1_000_000_000);

fn at(ms: u64) -> Moment {
    START + Duration::from_millis(ms)
}

/// A host with its queue and address.
struct TestHost {
    presence: Presence,
    control: Control,
    address: SocketAddr,
}

impl TestHost {
    fn new(now: Moment, number: u8) -> Self {
        let mut control = Control::new(InstanceId(number.into()), 1472, 0);
        let name = HostName::new(&format!("web{number}")).expect("legal");
        let presence = Presence::new(
            now,
            name,
            Vec::new(),
            Trust::Proven,
            number.into(),
            &mut control,
        );
        Self {
            presence,
            control,
            address: ([10, 0, 0, number], 5000).into(),
        }
    }

    fn receives(&mut self, now: Moment, other: &TestHost, messages: &[Message]) {
        let from = (other.address, other.presence.own);
        messages
            .iter()
            .for_each(|message| self.presence.handle(now, from.0, from.1, message));
    }

    fn sends(&mut self, now: Moment) -> Vec<Message> {
        self.presence.handle_timeout(now, &mut self.control);
        let mut out = Vec::new();
        let next = || {
            self.control.poll(&mut out)?;
            match Datagram::parse(&out) {
                Ok(Datagram::Control(_, piece)) => Message::decode(piece.bytes).ok(),
                _ => None,
            }
        };

        std::iter::from_fn(next).collect()
    }
}

#[test]
fn a_beacon_from_before_a_host_began_shows_it_nobody() {
    for gap in [200, 900, 1300] {
        let mut old = TestHost::new(START, 2);
        let mut dead = TestHost::new(START, 4);
        // The two know each other, and the last beacon of one echoes the present nonce of the
        // other.
        let mut recorded = Vec::new();
        for round in 0..4 {
            let said = old.sends(at(round * 3000));
            dead.receives(at(round * 3000 + 1), &old, &said);
            recorded = dead.sends(at(round * 3000 + 2));
            old.receives(at(round * 3000 + 3), &dead, &recorded);
        }
        assert!(
            old.presence.table().iter().count() > 0,
            "they know each other"
        );

        let now = at(9003 + gap);
        let mut new = TestHost::new(now, 1);
        let question = new.sends(now);
        old.receives(now, &new, &question);
        let answer = old.sends(now);
        new.receives(now, &old, &answer);
        new.receives(now, &dead, &recorded);
        let known: Vec<_> = new
            .presence
            .table()
            .iter()
            .map(|(_, member)| member.address)
            .collect();
        assert_eq!(known, [old.address], "{gap} ms later");
    }
}

#[test]
fn questions_of_many_processes_at_one_address_push_out_nobody_elses() {
    let mut control = Control::new(InstanceId(1), 1472, 0);
    let name = HostName::new("web1").expect("legal");
    let mut host = Presence::new(START, name, Vec::new(), Trust::Proven, 1, &mut control);
    host.assume_fleet(1000);
    let asks = |host: &mut Presence, from: [u8; 4], process: u64| {
        let message = Message::Solicit(Some(Nonce(process)), None);
        host.handle(START, (from, 5000).into(), InstanceId(process), &message);
    };

    asks(&mut host, [10, 0, 0, 1], 7);

    (0..10_000).for_each(|n| asks(&mut host, [10, 0, 0, 9], 100 + n));
    assert_eq!(host.answers.askers().count(), 1 + MAX_ANSWERS_PER_ADDRESS);
    assert_eq!(
        host.answers
            .askers()
            .filter(|asker| *asker == InstanceId(7))
            .count(),
        1
    );

    // With only forged addresses the list stays bounded.
    (0..200).for_each(|n| asks(&mut host, [10, 0, 1, n as u8], 20_000 + n));
    assert_eq!(host.answers.askers().count(), MAX_ANSWERS);
}

#[test]
fn beacons_to_each_host_of_a_large_fleet_cost_little() {
    // IPv4 and UDP headers, and the seal.
    let headers = 28 + 20;
    let hosts = 1000;
    let mut own = TestHost::new(START, 1);
    own.presence.set_copies(hosts);
    let tree = TreeState {
        serial: Serial(1000),
        release: Some(ReleaseId(BlockHash::of(b"release"))),
        running: Some(Serial(1000)),
        created: Some(WallTime(1_700_000_000)),
        ..TreeState::nothing(TreeName::new("www").expect("legal"))
    };
    own.presence.set_trees(START, vec![tree]);

    // Each of the others has sent a beacon that shows this host's nonce.
    own.sends(START);
    for number in 2..100 {
        let mut other = TestHost::new(START, number);
        let beacon = own.presence.hello();
        other.receives(START, &own, &[Message::Hello(beacon)]);
        let mut beacons = other.sends(START);
        beacons.retain(|message| matches!(message, Message::Hello(_)));
        own.receives(START, &other, &beacons);
    }
    own.presence.assume_fleet(hosts as u32);

    let seconds = 3600;
    let mut bytes = 0;
    for second in 10..10 + seconds {
        for beacon in own.sends(at(second * 1000)) {
            let pieces = beacon.encode().len() + CONTROL_OVERHEAD + headers;
            bytes += pieces * hosts;
        }
    }
    let rate = bytes as u64 * 8 / seconds;
    assert!((1_000..11_000).contains(&rate), "{rate} bit/s");
}

#[test]
fn a_member_that_is_gone_is_forgotten_before_its_next_beacon_is_missed() {
    let mut own = TestHost::new(START, 1);
    let mut other = TestHost::new(START, 2);
    for round in 0..3 {
        let said = own.sends(at(round * 3000));
        other.receives(at(round * 3000 + 1), &own, &said);
        let said = other.sends(at(round * 3000 + 2));
        own.receives(at(round * 3000 + 3), &other, &said);
    }
    assert_eq!(own.presence.table().len(), 1);

    own.presence.on_gone(([10, 0, 0, 2], 5001).into());
    assert_eq!(own.presence.table().len(), 1);
    own.presence.on_gone(other.address);
    assert!(own.presence.table().is_empty());
}
