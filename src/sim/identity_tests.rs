//! A group member forges the name and address of a silent host. Its key is its own, because it has
//! no other.

use std::time::Duration;

use super::host::own_seed;
use super::offer::{SimOffer, tree};
use super::setup::Observations;
use super::{Network, NetworkSetup, NodeId};
use crate::id::{HostName, Nonce, Serial};
use crate::keys::{HostKey, KnownHosts, PublicKey};
use crate::manifest::Intent;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::sender::{CommitRules, KeyRules, SenderNotice, SessionGoal};
use crate::units::Quorum;
use crate::wire::message::{DiffSummary, Hello, OrderKind, StageReport, TreeState};
use crate::wire::{Datagram, HostStage, Message};

const STEP: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(60);

/// An attacker with its own key and another host's name.
struct Forger {
    control: Control,
    key: HostKey,
    host: usize,
    name: HostName,
    number: u32,
}

impl Forger {
    fn of(host: usize, seed: u64) -> Self {
        let key = HostKey::new([0xee; 32], seed);
        let name = HostName::new(&format!("mk{host}")).expect("legal");
        Self {
            control: Control::new(key.instance(), 1472, 0),
            key,
            host,
            name,
            number: 0,
        }
    }

    fn send(&mut self, network: &mut Network, message: &Message) {
        let mut out = Vec::new();
        self.control.send(Dest::Group, message);
        while self.control.poll(&mut out).is_some() {
            network.forge(NodeId::host(self.host), &out);
        }
    }

    /// Answers the sender's query in the host's place.
    fn answer(&mut self, network: &mut Network, nonce: Nonce) {
        let tree = TreeState::nothing(tree());
        let hello = Hello {
            name: self.name.clone(),
            version: "1".into(),
            trees: vec![tree],
            members: 2,
            heard: Some(1472),
            strangers: None,
            nonce: None,
            echoes: Some(vec![nonce]),
            identity: Some(self.key.identity()),
            shown: None,
            labels: None,
        };

        self.send(network, &Message::Hello(hello));
    }

    /// Sends every report of a host that commits.
    fn commit(&mut self, network: &mut Network) {
        let session = network.sender().session();
        for stage in [
            HostStage::Joined,
            HostStage::Staging,
            HostStage::Ready,
            HostStage::Committed,
        ] {
            self.number += 1;
            let state = StageReport {
                session,
                number: self.number,
                name: self.name.clone(),
                stage,
                text: None,
                summary: Some(DiffSummary::default()),
                received: 0,
                serial: Serial(1),
                dropped: None,
                torn: None,
                nonce: None,
                targets: None,
                tags: None,
                keeps: None,
                held: None,
                identity: Some(self.key.identity()),
                signature: None,
            };

            let signature = Some(self.key.sign(&state.statement(self.key.instance())).into());
            self.send(network, &Message::State(StageReport { signature, ..state }));
        }
    }
}

/// Returns the nonce of the sender's last query.
fn asked(network: &Network) -> Option<Nonce> {
    network
        .log
        .recording
        .of(NodeId::SENDER)
        .rev()
        .find_map(|bytes| match Datagram::parse(bytes) {
            Ok(Datagram::Control(_, piece)) => match Message::decode(piece.bytes) {
                Ok(Message::Solicit(nonce, _)) => nonce,
                _ => None,
            },
            _ => None,
        })
}

/// Runs a deploy with a host that is silent, after its answer or from the beginning, while an
/// attacker forges its reports.
fn deploy(seed: u64, answered: bool, known: bool, strict: bool) -> (Network, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let hosts = rng.usize(2..5);
    let silent = rng.usize(1..=hosts);
    let mut known_hosts = KnownHosts::default();

    for host in (1..=hosts).filter(|_| known) {
        known_hosts.insert(
            HostName::new(&format!("mk{host}")).expect("legal"),
            key_of(host),
        );
    }

    let setup = NetworkSetup {
        seed,
        hosts,
        observe: Observations {
            datagrams: true,
            ..Observations::default()
        },
        keys: KeyRules {
            known: known_hosts,
            strict,
        },
        prepare: STEP * 3,
        patience: Duration::from_secs(2),
        ..NetworkSetup::default()
    };

    let mut network = Network::new(setup, SimOffer::random(seed, 1, Intent::Deploy, 12, 20_000));
    forge(&mut network, seed, silent, answered);
    (network, silent)
}

/// Runs a session to its end while an attacker speaks for the host `silent`, which is cut off after
/// its answer or from the beginning.
fn forge(network: &mut Network, seed: u64, silent: usize, answered: bool) {
    let cut = |network: &mut Network| {
        network.cut(NodeId::host(silent), NodeId::SENDER, true);
        network.cut(NodeId::SENDER, NodeId::host(silent), true);
    };

    if !answered {
        cut(network);
    }

    let mut forger = Forger::of(silent, seed);
    let mut waited = Duration::ZERO;
    while !network.run(STEP, Duration::ZERO) {
        waited += STEP;
        assert!(waited < LIMIT, "seed {seed}: it does not end");
        let discovered = network
            .log
            .notices
            .iter()
            .any(|notice| matches!(notice, SenderNotice::Discovered { .. }));
        match (discovered, asked(network)) {
            (true, _) => {
                cut(network);
                forger.commit(network);
            }
            (false, Some(nonce)) if !answered => forger.answer(network, nonce),
            _ => {}
        }
    }
}

fn key_of(host: usize) -> PublicKey {
    HostKey::new(own_seed(host), 1)
        .identity()
        .public()
        .expect("a sound key")
}

/// Returns the hosts in the sender's warnings: names, and the known keys.
fn warned(network: &Network) -> Vec<(String, PublicKey)> {
    let other = |notice: &SenderNotice| match notice {
        SenderNotice::OtherKey(other) => Some((other.name.to_string(), other.had)),
        _ => None,
    };
    network.log.notices.iter().filter_map(other).collect()
}

fn has_changed(network: &mut Network) -> bool {
    (1..5).any(|host| {
        network
            .host(host)
            .is_some_and(|disk| disk.committed.is_some())
    })
}

#[test]
fn who_speaks_for_a_host_that_answered_and_fell_silent_does_not_take_its_place() {
    for seed in 0..30 {
        let known = seed % 2 == 0;
        let strict = seed % 3 == 0;
        let (mut network, silent) = deploy(seed, true, known, strict);

        assert_eq!(
            network.sender().decision(),
            Some(OrderKind::Abort),
            "seed {seed}"
        );

        assert!(!has_changed(&mut network), "seed {seed}");
        assert_eq!(
            warned(&network),
            [(format!("mk{silent}"), key_of(silent))],
            "seed {seed}"
        );
    }
}

#[test]
fn who_speaks_for_a_host_that_is_known_is_told_of_and_kept_out_where_that_is_asked_for() {
    for seed in 0..30 {
        let strict = seed % 2 == 0;
        let (mut network, silent) = deploy(seed, false, true, strict);
        let decision = if strict {
            OrderKind::Abort
        } else {
            OrderKind::Commit
        };

        assert_eq!(network.sender().decision(), Some(decision), "seed {seed}");
        assert_eq!(has_changed(&mut network), !strict, "seed {seed}");
        assert_eq!(
            warned(&network),
            [(format!("mk{silent}"), key_of(silent))],
            "seed {seed}"
        );
    }
}

#[test]
fn hosts_that_are_known_are_taken_without_a_word() {
    for seed in 0..10 {
        let hosts = 3;
        let mut known_hosts = KnownHosts::default();
        for host in 1..=hosts {
            known_hosts.insert(
                HostName::new(&format!("mk{host}")).expect("legal"),
                key_of(host),
            );
        }
        let setup = NetworkSetup {
            seed,
            hosts,
            keys: KeyRules {
                known: known_hosts,
                strict: true,
            },
            ..NetworkSetup::default()
        };

        let mut network =
            Network::new(setup, SimOffer::random(seed, 1, Intent::Deploy, 12, 20_000));
        assert!(network.run(LIMIT, STEP), "seed {seed}");
        assert_eq!(
            network.sender().decision(),
            Some(OrderKind::Commit),
            "seed {seed}"
        );

        assert_eq!(warned(&network), [], "seed {seed}");
        assert!(
            network.sender().hosts().all(|host| host.key().is_some()),
            "seed {seed}"
        );
    }
}

#[test]
fn a_host_that_knows_no_staged_releases_is_told_apart() {
    for seed in 0..6 {
        let setup = NetworkSetup {
            seed,
            hosts: 2,
            observe: Observations {
                datagrams: true,
                ..Observations::default()
            },
            commit: CommitRules {
                goal: SessionGoal::Stage,
                quorum: Quorum::Count(1),
                ..CommitRules::default()
            },
            prepare: STEP * 3,
            patience: Duration::from_secs(2),
            ..NetworkSetup::default()
        };

        // The reports of the second host are those of an older makuo.
        let mut network = Network::new(setup, SimOffer::random(seed, 1, Intent::Deploy, 5, 5_000));
        forge(&mut network, seed, 2, false);
        let ends = network.sender().hosts().map(|host| {
            let text = host.text.clone().unwrap_or_default();
            (host.name.to_string(), host.stage, text)
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort();
        let expected = [
            ("mk1", HostStage::Staged, ""),
            (
                "mk2",
                HostStage::Refused,
                "cannot keep a release staged: it runs an older makuo",
            ),
        ];
        let expected =
            expected.map(|(name, stage, text)| (name.to_string(), Some(stage), text.to_string()));
        assert_eq!(ends, expected, "seed {seed}");
    }
}
