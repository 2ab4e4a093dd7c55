//! Hosts that missed a release fetch it from hosts that have it, despite false claims by members of
//! the group: releases that nobody has, inflated serials, and invalid signatures.

use std::time::Duration;

use super::offer::{SimOffer, tree};
use super::setup::{Observations, SessionStart};
use super::{LinkSetup, Network, NetworkSetup, NodeId};
use crate::block::BlockHash;
use crate::id::{HostName, InstanceId, Nonce, Serial};
use crate::manifest::{Intent, Release, ReleaseId};
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::units::{Moment, WallTime};
use crate::wire::message::{Hello, TreeState};
use crate::wire::query::ReleaseBytes;
use crate::wire::{Datagram, Message};

const STEP: Duration = Duration::from_millis(100);
/// Interval between false claims.
const LIES: Duration = Duration::from_millis(500);
/// Longest time for a host that missed a release to catch up, from its start.
const SOON: Duration = Duration::from_secs(8);
/// Same as [`SOON`] if the host may ask in vain some peers that claim to have the release.
const LATER: Duration = Duration::from_secs(40);
const HOSTS: usize = 4;

/// False claim of a malicious group member.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// Claims a release that nobody has, a new one each time.
    New,
    /// Claims a release that nobody has, always the same.
    Same,
    /// Claims the true release under a higher serial.
    Number,
    /// Claims the true header with an invalid signature.
    Signature,
    /// Claims the true release, as another host each time, and never serves it.
    True,
}

const LIES_TOLD: [Lie; 5] = [Lie::New, Lie::Same, Lie::Number, Lie::Signature, Lie::True];

struct Liar {
    node: NodeId,
    sent: u64,
    release: Release,
}

impl Liar {
    fn send(&mut self, network: &mut Network, lie: Lie) {
        self.sent += 1;
        let nth = match lie {
            Lie::New | Lie::True => self.sent,
            _ => 0,
        };

        let (serial, release) = match lie {
            Lie::Number => (1000, self.release.id()),
            Lie::True => (self.release.header().serial.0, self.release.id()),
            _ => (2000 + nth, ReleaseId(BlockHash::of(&nth.to_be_bytes()))),
        };

        let source = InstanceId(1000 + nth);
        let message = match lie {
            Lie::Signature => Message::Header(ReleaseBytes {
                header: self.release.bytes().to_vec(),
                signature: b"signed".to_vec(),
            }),
            _ => {
                let created =
                    Some(self.release.header().created).filter(|_| matches!(lie, Lie::True));
                Message::Hello(hello(nth, serial, (release, created), nonce(network)))
            }
        };

        let mut control = Control::new(source, 1472, 0);
        let mut out = Vec::new();
        control.send(Dest::Group, &message);
        while control.poll(&mut out).is_some() {
            network.forge(self.node, &out);
        }
    }
}

fn hello(
    nth: u64,
    serial: u64,
    (release, created): (ReleaseId, Option<WallTime>),
    echo: Option<Nonce>,
) -> Hello {
    let tree = TreeState {
        serial: Serial(serial),
        release: Some(release),
        running: Some(Serial(serial)),
        created,
        ..TreeState::nothing(tree())
    };

    Hello {
        name: HostName::new(&format!("evil{nth}")).expect("legal"),
        version: "1".into(),
        trees: vec![tree],
        members: HOSTS as u32,
        heard: None,
        strangers: None,
        nonce: None,
        echoes: echo.map(|nonce| vec![nonce]),
        identity: None,
        shown: None,
        labels: None,
    }
}

/// Returns the nonce of the last beacon, which anyone with the group key can repeat.
fn nonce(network: &Network) -> Option<Nonce> {
    (1..=HOSTS)
        .flat_map(|host| network.log.recording.of(NodeId::host(host)).rev().take(20))
        .find_map(|bytes| match Datagram::parse(bytes) {
            Ok(Datagram::Control(_, piece)) => match Message::decode(piece.bytes) {
                Ok(Message::Hello(hello)) => hello.nonce,
                _ => None,
            },
            _ => None,
        })
}

/// Returns the time that a host with a missed release takes to catch up.
fn catch_up(seed: u64, lies: &[Lie]) -> Duration {
    let mut rng = fastrand::Rng::with_seed(seed);
    let link = LinkSetup {
        loss: f64::from(rng.u8(..4)) * 0.02,
        ..LinkSetup::default()
    };

    let setup = NetworkSetup {
        seed,
        hosts: HOSTS,
        link,
        start: SessionStart::Pulled,
        observe: Observations {
            datagrams: true,
            ..Observations::default()
        },
        ..NetworkSetup::default()
    };

    let offer = SimOffer::random(seed, 7, Intent::Deploy, 10, 10_000);
    let mut network = Network::new(setup, offer.clone());
    let away = rng.usize(1..=HOSTS);
    for host in 1..=HOSTS {
        network.power(host, false, Duration::ZERO);
        if host != away {
            network.disk(host).committed = Some(offer.release.clone());
            network.power(host, true, Duration::from_millis(rng.u64(1..500)));
        }
    }

    let mut liar = Liar {
        node: NodeId::host(HOSTS + 1),
        sent: 0,
        release: offer.release.clone(),
    };

    let mut since = Duration::ZERO;
    let mut lied = Moment(0);
    let mut began = None;
    let longest = if lies.iter().any(|lie| matches!(lie, Lie::True)) {
        LATER
    } else {
        SOON
    };

    loop {
        network.run(STEP, SOON);
        since += STEP;
        if network.now().since(lied) >= LIES {
            lied = network.now();
            lies.iter().for_each(|lie| liar.send(&mut network, *lie));
        }
        match began {
            // The liar starts first.
            None if since >= Duration::from_secs(4) => {
                began = Some(network.now());
                network.power(away, true, Duration::ZERO);
            }
            Some(at) if network.disk(away).committed.is_some() => {
                assert!(network.disk(away).is_whole(), "seed {seed}");
                return network.now().since(at);
            }
            Some(at) => assert!(
                network.now().since(at) < longest,
                "seed {seed}, {lies:?}: it does not catch up"
            ),
            None => {}
        }
    }
}

#[test]
fn a_host_catches_up_whatever_members_claim_to_have() {
    let mut most = Duration::ZERO;
    for seed in 0..28 {
        let lies = match seed % 7 {
            0..5 => vec![LIES_TOLD[seed as usize % 7]],
            5 => LIES_TOLD.to_vec(),
            _ => Vec::new(),
        };
        most = most.max(catch_up(seed, &lies));
    }

    println!("at most {most:?}");
}
