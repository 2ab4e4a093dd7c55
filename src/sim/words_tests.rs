//! Accepted sources of messages: a sender serves its targets at their addresses by their own
//! requests, and a host accepts its sender only from the sender's address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::offer::SimOffer;
use crate::id::{HostName, InstanceId, Serial, SessionId};
use crate::keys::HostKey;
use crate::manifest::Intent;
use crate::proto::control::Control;
use crate::proto::freshness::Nonces;
use crate::proto::members::Trust;
use crate::proto::receiver::{HostSetup, HostTrees, Receiver, SessionHost};
use crate::proto::sender::{
    CommitRules, CompareRules, DatagramSizes, KeyRules, PackedPayload, RateLimits, Sender,
    SenderNotice, SenderReply, SenderRequest, SenderSetup, TargetRules,
};
use crate::proto::{Dest, RangeSet};
use crate::units::Moment;
use crate::wire::fragment::Reassembly;
use crate::wire::message::{
    Announce, DiffSummary, DriftPart, Hello, Ranges, SenderStatus, StageReport, StatusPhase,
    TreeState, WantList,
};
use crate::wire::{Datagram, HostStage, Message};

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 5000))
}

fn name(name: &str) -> HostName {
    HostName::new(name).expect("legal")
}

/// Returns the datagrams of a message.
fn datagrams(source: InstanceId, message: &Message) -> Vec<Vec<u8>> {
    let mut control = Control::new(source, 1472, 0);
    let mut out = Vec::new();
    control.send(Dest::Group, message);
    std::iter::from_fn(|| control.poll(&mut out).map(|_| out.clone())).collect()
}

/// A sender that has announced to one host.
struct Sending {
    sender: Sender,
    now: Moment,
    offer: SimOffer,
    host: HostKey,
}

const WEB1: u8 = 1;
const ELSEWHERE: u8 = 9;

impl Sending {
    fn of(intent: Intent) -> Self {
        let offer = SimOffer::random(3, 1, intent, 30, 5_000);
        let setup = SenderSetup {
            name: name("ci"),
            instance: InstanceId(1),
            seed: 5,
            sizes: DatagramSizes {
                datagram: 1472,
                room: 0,
                overhead: 46,
            },
            rates: RateLimits::default(),
            targets: TargetRules {
                lists: vec![vec!["web*".into()]],
                known: 1,
                ..TargetRules::all_of(offer.release.header().tree.clone())
            },
            keys: KeyRules::default(),
            commit: CommitRules::default(),
            patience: Duration::from_secs(10),
            compare: CompareRules::default(),
            grant: None,
        };

        let now = Moment(1_000_000_000);
        let sender = Sender::new(now, setup);
        let host = HostKey::new([1; 32], 1);
        let mut sending = Self {
            sender,
            now,
            offer,
            host,
        };

        let tree = TreeState::nothing(sending.offer.release.header().tree.clone());
        let hello = Hello {
            name: name("web1"),
            version: "1".into(),
            trees: vec![tree],
            members: 1,
            heard: Some(1472),
            strangers: None,
            nonce: None,
            echoes: Some(vec![Nonces::new(5).draw()]),
            identity: None,
            shown: None,
            labels: None,
        };

        let source = sending.host.instance();
        sending.send(WEB1, source, &Message::Hello(hello));
        while !matches!(
            sending.sender.poll_notice(),
            Some(SenderNotice::Discovered { .. })
        ) {
            sending.pass();
        }

        let release = sending.offer.release.clone();
        sending.sender.announce(
            sending.now,
            release.clone(),
            super::offer::signature(release.bytes()),
        );

        sending
    }

    fn send(&mut self, from: u8, source: InstanceId, message: &Message) {
        for bytes in datagrams(source, message) {
            self.sender.handle_datagram(self.now, at(from), &bytes);
        }
    }

    fn pass(&mut self) {
        self.now = self.now + Duration::from_millis(20);
        self.sender.handle_timeout(self.now);
        let mut out = Vec::new();
        while self.sender.poll_transmit(self.now, &mut out).is_some() {}
    }

    /// Returns the ordinals packed within a second.
    fn packed(&mut self) -> RangeSet {
        let mut all = RangeSet::default();
        for _ in 0..50 {
            self.pass();
            while let Some(request) = self.sender.poll_request() {
                if let SenderRequest::Pack(_, ordinals, _) = request {
                    all.extend(&ordinals);
                    let packed = PackedPayload {
                        ordinals,
                        payload: Arc::new(vec![0; 100]),
                    };
                    let reply = SenderReply::Packed(Ok(packed));
                    self.sender.handle_reply(self.now, reply);
                }
            }
        }

        all
    }

    fn nodes(&self) -> u64 {
        self.offer.release.header().root.nodes
    }

    /// Creates a want of everything from `first` on.
    fn want(&self, number: u32, first: u64, fetch: Option<u64>) -> Message {
        let session = self.sender.session();
        let ranges = Ranges(vec![first..1 << 30]);
        Message::Want(WantList {
            session,
            number,
            ranges,
            more: false,
            seen: 0,
            fetch,
        })
    }

    fn state(&self, number: u32, stage: HostStage, host: &str) -> StageReport {
        let state = StageReport {
            session: self.sender.session(),
            number,
            name: name(host),
            stage,
            text: None,
            summary: Some(DiffSummary {
                fetch: 5000,
                ..DiffSummary::default()
            }),
            received: 0,
            serial: Serial(0),
            dropped: None,
            torn: None,
            identity: Some(self.host.identity()),
            signature: None,
            nonce: None,
            targets: None,
            tags: None,
            keeps: None,
            held: None,
        };

        let signature = Some(
            self.host
                .sign(&state.statement(self.host.instance()))
                .into(),
        );
        StageReport { signature, ..state }
    }
}

#[test]
fn a_sender_gives_content_to_its_targets_and_as_far_as_they_said_that_they_lack_it() {
    let mut sending = Sending::of(Intent::Deploy);
    let web1 = sending.host.instance();
    let nodes = sending.nodes();

    // Refused: an unknown host, another peer in the host's name, and a host that is no target.
    let everything = sending.want(1, 0, Some(1));
    sending.send(ELSEWHERE, InstanceId(99), &everything);
    sending.send(ELSEWHERE, web1, &everything);
    let db = Message::State(sending.state(1, HostStage::Joined, "db1"));
    sending.send(ELSEWHERE, InstanceId(98), &db);
    sending.send(ELSEWHERE, InstanceId(98), &everything);

    assert!(sending.packed().is_empty());

    // From the host itself: nodes at once, blocks after the comparison.
    let joined = StageReport {
        summary: None,
        signature: None,
        ..sending.state(1, HostStage::Joined, "web1")
    };

    sending.send(WEB1, web1, &Message::State(joined));
    let before = sending.want(2, nodes, None);
    sending.send(WEB1, web1, &before);
    assert!(sending.packed().is_empty(), "nothing was compared yet");
    let manifest = sending.want(3, 0, None);
    sending.send(WEB1, web1, &manifest);
    assert_eq!(sending.packed().iter().collect::<Vec<_>>(), [0..nodes]);

    let staging = Message::State(sending.state(4, HostStage::Staging, "web1"));
    sending.send(WEB1, web1, &staging);
    let blocks = sending.want(5, nodes, None);
    sending.send(WEB1, web1, &blocks);
    assert!(sending.packed().first().is_some_and(|first| first >= nodes));

    // The host has everything.
    let ready = Message::State(sending.state(6, HostStage::Ready, "web1"));

    sending.send(WEB1, web1, &ready);
    let again = sending.want(7, nodes, Some(1));
    sending.send(WEB1, web1, &again);

    assert!(sending.packed().is_empty());
}

#[test]
fn an_audit_gives_away_no_content() {
    let mut sending = Sending::of(Intent::Audit);
    let web1 = sending.host.instance();
    let nodes = sending.nodes();
    let want = sending.want(1, 0, Some(1 << 40));
    sending.send(WEB1, web1, &want);
    assert_eq!(sending.packed().iter().collect::<Vec<_>>(), [0..nodes]);
}

#[test]
fn a_list_of_differences_is_the_hosts_own() {
    let mut sending = Sending::of(Intent::Audit);
    let web1 = sending.host.instance();
    let found = DiffSummary {
        drift: 7,
        drift_bytes: 5,
        ..DiffSummary::default()
    };

    let staging = StageReport {
        summary: Some(found),
        ..sending.state(1, HostStage::Staging, "web1")
    };

    let signature = Some(sending.host.sign(&staging.statement(web1)).into());
    sending.send(
        WEB1,
        web1,
        &Message::State(StageReport {
            signature,
            ..staging
        }),
    );

    sending.pass();
    let part = |bytes: &[u8]| {
        Message::DriftPart(DriftPart {
            session: SessionId(0),
            offset: 0,
            bytes: bytes.to_vec(),
        })
    };

    let of = |session, message: Message| match message {
        Message::DriftPart(part) => Message::DriftPart(DriftPart { session, ..part }),
        other => other,
    };

    let session = sending.sender.session();
    sending.send(ELSEWHERE, web1, &of(session, part(b"lies!")));
    assert_eq!(sending.sender.drift_reports().count(), 0);
    sending.send(WEB1, web1, &of(session, part(b"truth")));
    let reports: Vec<_> = sending
        .sender
        .drift_reports()
        .map(|(_, bytes)| bytes.to_vec())
        .collect();

    assert_eq!(reports, [b"truth".to_vec()]);
}

/// Creates a host that runs the release `running` of the tree.
fn receiver(now: Moment, offer: &SimOffer, running: Option<Serial>) -> Receiver {
    let tree = TreeState {
        running,
        ..TreeState::nothing(offer.release.header().tree.clone())
    };

    let setup = HostSetup {
        host: SessionHost {
            name: name("web1"),
            labels: crate::id::Labels::default(),
            key: HostKey::new([1; 32], 1),
            patience: Duration::from_secs(30),
            window: 1 << 20,
        },
        trees: HostTrees {
            states: vec![tree],
            ..HostTrees::default()
        },
        trust: Trust::Proven,
        seed: 1,
        datagram: 1472,
        room: 0,
    };

    Receiver::new(now, setup)
}

fn announcement(session: SessionId, offer: &SimOffer) -> Announce {
    Announce {
        session,
        sender: name("ci"),
        header: offer.release.bytes().to_vec(),
        signature: super::offer::signature(offer.release.bytes()),
        symbol: 1400,
        hosts: 1,
        checksum: false,
        quick: None,
        grant: None,
        recheck: None,
        follows: None,
        only: None,
        proves: None,
        after: None,
        staged: None,
    }
}

#[test]
fn a_host_hears_its_sender_from_the_senders_address_alone() {
    let offer = SimOffer::random(3, 1, Intent::Deploy, 3, 5_000);
    let mut now = Moment(1_000_000_000);
    let mut host = receiver(now, &offer, None);
    let sender = InstanceId(1);
    let session = SessionId(7);
    let announce = announcement(session, &offer);
    let say = |host: &mut Receiver, now, from, message: &Message| {
        for bytes in datagrams(sender, message) {
            host.handle_datagram(now, (at(from), false), &bytes, 0);
        }
    };

    // Returns the numbers of the states that the host sends within 300 ms.
    let states = |host: &mut Receiver, now: &mut Moment| {
        let mut out = Vec::new();
        let mut said = Vec::new();
        let mut whole = Reassembly::default();
        for _ in 0..15 {
            *now = *now + Duration::from_millis(20);
            host.handle_timeout(*now);
            while host.poll_transmit(&mut out).is_some() {
                if let Ok(Datagram::Control(front, piece)) = Datagram::parse(&out)
                    && let Some(bytes) = whole.add(*now, front.source, piece)
                    && let Ok(Message::State(state)) = Message::decode(&bytes)
                {
                    said.extend(Some(state.number).filter(|number| *number > 0));
                }
            }
        }
        said
    };

    say(&mut host, now, WEB1, &Message::Announce(announce));
    let first = states(&mut host, &mut now);
    let number = *first.first().expect("it joins");
    say(
        &mut host,
        now,
        ELSEWHERE,
        &Message::Ack(session, number, None),
    );

    let closed = SenderStatus {
        session,
        phase: StatusPhase::Closed,
        sent: Default::default(),
        hosts: 1,
        counter: 0,
        pass: 0,
        reporters: Vec::new(),
        choice: None,
    };

    say(&mut host, now, ELSEWHERE, &Message::Status(closed));
    assert!(
        states(&mut host, &mut now).contains(&number),
        "somebody else acknowledged it"
    );
    say(&mut host, now, WEB1, &Message::Ack(session, number, None));
    assert!(!states(&mut host, &mut now).contains(&number));

    now = now + Duration::from_millis(1500);
    host.handle_timeout(now);
    assert_eq!(host.sessions(), 1, "somebody else said goodbye");
}

#[test]
fn a_part_is_not_for_a_host_that_lacks_an_older_one() {
    let offer = SimOffer::random(3, 5, Intent::Deploy, 3, 5_000);
    let now = Moment(1_000_000_000);
    for (running, after, joins) in [
        (3, 4, false),
        (4, 4, true),
        (5, 4, true),
        (0, 4, false),
        (0, 0, true),
    ] {
        let mut host = receiver(now, &offer, Some(Serial(running)));
        let announce = Announce {
            after: Some(Serial(after)),
            ..announcement(SessionId(7), &offer)
        };

        for bytes in datagrams(InstanceId(1), &Message::Announce(announce)) {
            host.handle_datagram(now, (at(WEB1), false), &bytes, 0);
        }
        assert_eq!(
            host.sessions(),
            usize::from(joins),
            "{running} after {after}"
        );
    }
}
