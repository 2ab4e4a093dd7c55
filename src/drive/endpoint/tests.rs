//! Tests of an endpoint: each datagram is sealed once, and a start waits for peers no longer than
//! it has to.

use super::*;
use crate::id::{Generation, SessionId};
use crate::proto::Dest;
use crate::wire::datagram::{Front, SymbolHeader, write_relayed_symbol};
use crate::wire::seal::OpenError;

/// Test seal: sums the bytes and inverts them, enough to check that each datagram is sealed
/// once and opened once.
#[derive(Debug)]
struct Sum(u8);

impl Seal for Sum {
    fn room(&self) -> usize {
        16
    }

    fn seal(&mut self, datagram: &mut [u8]) {
        let end = datagram.len() - self.room();
        assert!(datagram[end..].iter().all(|&b| b == 0), "the room is free");
        datagram[..end].iter_mut().for_each(|b| *b ^= self.0);
        datagram[end] = datagram[..end]
            .iter()
            .fold(self.0, |sum, b| sum.wrapping_add(*b));
    }

    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> std::result::Result<&'a [u8], OpenError> {
        let end = datagram
            .len()
            .checked_sub(self.room())
            .ok_or(OpenError::Foreign)?;
        let sum = datagram[..end]
            .iter()
            .fold(self.0, |sum, b| sum.wrapping_add(*b));
        datagram[..end].iter_mut().for_each(|b| *b ^= self.0);

        if datagram[end] == sum {
            Ok(&datagram[..end])
        } else {
            Err(OpenError::Wrong)
        }
    }
}

#[test]
fn trains_are_sealed_and_opened_datagram_by_datagram() {
    let port = crate::net::testing::free_port();
    let open = || crate::net::testing::loopback("224.0.0.108", port, crate::net::Offload::Full);
    let (Some(a), Some(b)) = (open(), open()) else {
        return;
    };

    let mut sender = GroupEndpoint::new(a).expect("a network");
    sender.seal = Box::new(Sum(0x5a));

    let mut host = GroupEndpoint::new(b).expect("a network");
    host.seal = Box::new(Sum(0x5a));

    assert_eq!(sender.datagram(), MAX_SENT_DATAGRAM - 16);
    let narrowed = sender.narrowed(1456, &HostName::new("web1").expect("legal"));
    assert!(
        narrowed.starts_with(&format!(
            "datagrams of 1472 bytes, not {MAX_SENT_DATAGRAM} as "
        )),
        "{narrowed}"
    );
    let mut told: Vec<Vec<u8>> = (10..15).map(|n| vec![n; 100]).collect();

    told.push(b"short".to_vec());
    let mut trains = 1;
    sender.flush(|out| {
        out.clear();
        told.iter().for_each(|d| {
            out.extend_from_slice(d);
            out.resize(out.len() + 16, 0);
        });
        trains -= 1;
        (trains == 0).then_some(Transmit {
            dest: Dest::Group,
            segment: 116,
        })
    });

    // A datagram with another key counts as not received.
    let mut stranger = GroupEndpoint::new(open().expect("as before")).expect("a network");
    stranger.seal = Box::new(Sum(1));

    let mut once = Some(());
    stranger.flush(|out| {
        *out = b"forged, with room behind it".to_vec();
        out.resize(out.len() + 16, 0);
        out[20] = 9;
        once.take().map(|()| Transmit {
            dest: Dest::Group,
            segment: out.len(),
        })
    });

    let mut heard = Vec::new();
    while heard.len() < told.len() {
        host.wait(Some(Duration::from_secs(10))).expect("waits");
        let before = heard.len();
        host.receive(|arrived| heard.push(arrived.bytes.to_vec()));
        assert!(heard.len() > before, "nothing came");
    }

    assert_eq!(heard, told);
    assert_eq!(host.unheard.count(OpenError::Wrong), 1);
    assert_eq!(host.take_new_unheard().len(), 1);
}

#[test]
fn hosts_that_hear_the_sender_get_data_that_nobody_passes_on() {
    let port = crate::net::testing::free_port();
    let open = || crate::net::testing::loopback("224.0.0.108", port, crate::net::Offload::Full);
    let (Some(a), Some(b)) = (open(), open()) else {
        return;
    };
    let relay = b.local();
    let key = GroupKey::random().expect("random");
    let network = |link: Link| GroupLinks {
        keys: vec![key.clone()],
        ..GroupLinks::from(link)
    };
    let mut sender = GroupEndpoint::new(network(a)).expect("a network");
    let mut host = GroupEndpoint::new(network(b)).expect("a network");
    sender.set_data_targets(DataTargets {
        hosts: Vec::new(),
        multicast: true,
    });

    let front = Front {
        source: sender.instance(),
        counter: 1,
    };
    let header = SymbolHeader {
        session: SessionId(1),
        generation: Generation(0),
        row: 0,
        column: 0,
        columns: 1,
        payload: 100,
        sent: 0,
    };
    let (room, mut trains) = (sender.room(), 1);
    sender.flush(|out| {
        out.clear();
        for counter in 1..=3 {
            let front = Front { counter, ..front };
            write_relayed_symbol(out, front, header, &[counter as u8; 100]);
            out.resize(out.len() + room, 0);
        }
        trains -= 1;
        (trains == 0).then_some(Transmit {
            dest: Dest::Relay(relay),
            segment: out.len() / 3,
        })
    });

    // This host is both, so that of the two copies it takes one of each datagram.
    let mut heard = Vec::new();
    while heard.len() < 3 {
        host.wait(Some(Duration::from_secs(10))).expect("waits");
        let before = heard.len();
        host.receive(|arrived| heard.push(is_relayed(arrived.bytes)));
        assert!(heard.len() > before, "nothing came");
    }
    assert_eq!(heard, [true; 3]);
    while host.unheard.count(OpenError::Replayed) < 3 {
        host.wait(Some(Duration::from_secs(10))).expect("waits");
        host.receive(|_| panic!("the same datagrams"));
    }
    assert_eq!(host.unheard.count(OpenError::Wrong), 0);
}

#[test]
fn a_start_waits_for_a_silent_peer_no_longer_than_for_its_answer() {
    let port = crate::net::testing::free_port();
    let offload = crate::net::Offload::Full;
    let Some(link) = crate::net::testing::loopback("224.0.0.108", port, offload) else {
        return;
    };

    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("free");
    silent.set_nonblocking(true).expect("legal");
    let network = GroupLinks {
        peers: Some(PeerConfig {
            known: vec![silent.local_addr().expect("bound")],
            ..PeerConfig::default()
        }),
        ..GroupLinks::from(link)
    };

    GroupEndpoint::new(network).expect("a network");
    let pings = std::iter::from_fn(|| silent.recv(&mut [0; 2000]).ok()).count();
    assert!(
        (1..=3).contains(&pings),
        "{pings}: the next one comes a second later"
    );
}
