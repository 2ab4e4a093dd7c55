//! An attacker on the network, against hosts with and without a group key: trees stay correct, a
//! running deployment completes, memory and log stay bounded.
//!
//! Without a group key, an outsider can still delay a deployment by forged reports: a host's
//! failure, or an invented host with the tree. With a group key, neither is possible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{self, Adversary, Host, Lab, Noise, copy, skipped, write};
use makuo::block::BlockRef;
use makuo::id::{Generation, HostName, InstanceId, Nonce, Ordinal, Serial, SessionId, TreeName};
use makuo::keys::{Namespace, open_signer};
use makuo::manifest::{
    Content, Entry, EntryKind, Header, Intent, ListRef, Mode, Mtime, Node, NodeRef, Owner, Release,
    TreePath,
};
use makuo::proto::generation::{Map, grid_for};
use makuo::wire::message::{
    Announce, Hello, MAX_MESSAGE_TREES, Missing, Nack, Order, OrderKind, Ranges, ReceiverReport,
    SenderStatus, SignedOrder, StatusPhase, TreeState, WantList,
};
use makuo::wire::query::Query;
use makuo::wire::{Datagram, HostStage, Message, SymbolHeader};

/// Datagrams of a flood.
const FLOOD: u64 = 100_000;
/// Largest allowed peak memory of a host, in KiB.
const MOST_MEMORY: u64 = 400 << 10;
/// Largest number of warnings in a host's log: every kind is limited to a few.
const MOST_LINES: usize = 90;

/// Makes a lab of two hosts, keyed or not, with an attacker at the switch.
fn lab(keyed: bool) -> Option<(Lab, Adversary)> {
    let mut lab = Lab::network_idle(2)?;
    if !keyed {
        lab.go_plain();
    }
    lab.hosts.iter_mut().for_each(Host::start);
    let place = lab.plug();
    Some((lab, Adversary::at(&place)?))
}

/// Returns the peak memory of a host, in KiB.
fn peak_memory(lab: &Lab, host: usize) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", lab.hosts[host].pid())).expect("runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a line");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}

/// Checks that logs and memory are bounded, and that no stray files exist.
#[track_caller]
fn bounded(lab: &Lab) {
    for (nth, host) in lab.hosts.iter().enumerate() {
        let (memory, log) = (peak_memory(lab, nth), host.log());
        assert!(memory < MOST_MEMORY, "{} took {memory} KiB", host.name);
        let lines = log
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .count();
        assert!(lines < MOST_LINES, "{lines} lines: {log}");
        assert!(!log.contains("defect"), "{log}");
        let beside: Vec<_> = std::fs::read_dir(host.disk())
            .expect("a disk")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        assert!(
            beside.iter().all(|name| name == "www" || name == "state"),
            "{beside:?}"
        );
    }
}

fn host_name(name: &str) -> HostName {
    HostName::new(name).expect("legal")
}

fn offer(session: u64, header: Vec<u8>, signature: Vec<u8>) -> Message {
    let (session, sender) = (SessionId(session), host_name("evil"));
    Message::Announce(Announce {
        session,
        sender,
        header,
        signature,
        symbol: 1400,
        hosts: 2,
        checksum: false,
        quick: None,
        recheck: None,
        grant: None,
        follows: None,
        only: None,
        proves: Some(true),
        after: None,
        staged: None,
    })
}

/// Makes a release header like `like`, with another serial.
fn header_like(like: &Release, serial: u64, intent: Intent) -> Release {
    let header = Header {
        serial: Serial(serial),
        intent,
        ..like.header().clone()
    };
    Release::new(header).expect("legal")
}

#[test]
fn forged_and_replayed_offers_and_orders_change_nothing() {
    let Some((lab, evil)) = lab(false) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    let over = Arc::new(AtomicBool::new(false));
    let recorder = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let heard = evil.record(|| over.load(Ordering::Relaxed));
            (evil, heard)
        })
    };

    lab.deploy(&[]).exits(0);
    over.store(true, Ordering::Relaxed);
    let (mut evil, recorded) = recorder.join().expect("no panic");
    write(&lab.site().join("page"), "new");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("new"));

    let messages = evil.messages(&recorded);

    let (release, signature) = messages
        .iter()
        .find_map(|(_, message)| match message {
            Message::Announce(a) => {
                Some((Release::from_bytes(&a.header).ok()?, a.signature.clone()))
            }
            _ => None,
        })
        .expect("an announcement was heard");

    // The whole earlier deployment again: announcement, data, orders.
    for _ in 0..3 {
        recorded.iter().for_each(|datagram| evil.send(datagram));
    }

    // The release's signature under another header, noise as a signature, and the correct signature
    // of an unlisted key.
    let next = header_like(&release, u64::MAX, Intent::Deploy);
    evil.say(
        InstanceId(1),
        &offer(1, next.bytes().to_vec(), signature.clone()),
    );
    evil.say(
        InstanceId(2),
        &offer(2, next.bytes().to_vec(), vec![7; 300]),
    );

    lab.keygen("stranger");
    let stranger = open_signer(&lab.path("stranger")).expect("a key");
    let by_stranger = stranger
        .sign(Namespace::RELEASE, next.bytes())
        .expect("signs")
        .as_bytes()
        .to_vec();

    evil.say(InstanceId(3), &offer(3, next.bytes().to_vec(), by_stranger));
    // Orders for a session without an announcement, orders signed by a stranger, and recorded
    // orders with another session.
    for kind in [
        OrderKind::Commit,
        OrderKind::Abort,
        OrderKind::Prepare,
        OrderKind::Revert,
    ] {
        for session in [SessionId(3), SessionId(77)] {
            // About a release unknown to all, and about a release known to the hosts.
            for about in [&next, &release] {
                let order = Order::new(session, about, kind).encode();
                let signature = stranger
                    .sign(Namespace::ORDER, &order)
                    .expect("signs")
                    .as_bytes()
                    .to_vec();
                evil.say(
                    InstanceId(3),
                    &Message::Order(SignedOrder {
                        order,
                        signature,
                        hosts: None,
                    }),
                );
            }
        }
    }

    // Every received message, truncated and with bytes that are too large.
    for (source, message) in messages.iter().take(200) {
        let bytes = message.encode();
        for cut in [1, 2, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            evil.say_bytes(*source, &bytes[..cut.min(bytes.len()).max(1)]);
        }
        for at in (0..bytes.len()).step_by(bytes.len() / 8 + 1) {
            let mut bytes = bytes.clone();
            bytes[at] = 0xfb;
            evil.say_bytes(*source, &bytes);
        }
    }

    // The hosts process all of the above before they answer this command.
    lab.makuo(&["members", "--json"])
        .exits(0)
        .says(&["web1", "web2"]);
    lab.all_same(&lab.path("new"));
    bounded(&lab);
    write(&lab.site().join("page"), "newest");

    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

/// Forges messages of the participants of the last seen session: acknowledgements of the hosts'
/// messages, and false losses and measurements.
fn in_their_names(evil: &mut Adversary, n: u64, heard: &[Vec<u8>], random: &mut fastrand::Rng) {
    let parsed = || {
        heard
            .iter()
            .rev()
            .filter_map(|bytes| Datagram::parse(bytes).ok())
    };

    let Some((sender, session)) = parsed().find_map(|datagram| match datagram {
        Datagram::Data(front, symbol) => Some((front.source, symbol.header.session)),
        Datagram::Control(..) | Datagram::Peer(..) => None,
    }) else {
        return;
    };

    let hosts = evil.hosts(heard);
    let Some(host) = hosts.get(random.usize(..hosts.len().max(1))).copied() else {
        return;
    };

    let (generation, large) = (Generation(random.u32(..64)), u64::MAX >> random.u32(..64));
    match n / 9 % 4 {
        0 => evil.say(
            sender,
            &Message::Ack(session, random.u32(..20), Some(Nonce(random.u64(..)))),
        ),
        1 => {
            let (need, symbols) = (
                vec![random.u32(..); random.usize(..32)],
                Ranges(vec![0..large]),
            );
            evil.say(
                host,
                &Message::Nack(Nack {
                    session,
                    seen: large,
                    missing: vec![Missing {
                        generation,
                        need,
                        symbols,
                    }],
                }),
            );
        }
        2 => {
            let ranges = Ranges(vec![random.u64(..1000)..large.max(1000)]);
            evil.say(
                host,
                &Message::Want(WantList {
                    session,
                    number: random.u32(..),
                    ranges,
                    more: n.is_multiple_of(2),
                    seen: large,
                    fetch: Some(1),
                }),
            );
        }
        _ => {
            let (delay, window) = (random.u32(..), random.u32(..));
            let report = ReceiverReport {
                session,
                seen: large,
                datagrams: large,
                bytes: large,
                delay,
                backlog: random.u64(..1000),
                window,
                at: large,
                unrelayed: Some(large),
            };
            evil.say(host, &Message::Report(report));
        }
    }
}

/// Forges datagram number `n` of a flood from the recorded ones.
fn one_of_a_flood(
    evil: &mut Adversary,
    n: u64,
    heard: &[Vec<u8>],
    keyed: bool,
    random: &mut fastrand::Rng,
) {
    let old = heard.get(random.usize(..heard.len().max(1)));
    let parsed = old.and_then(|bytes| Datagram::parse(bytes).ok());
    match (n % 9, parsed) {
        (0, _) => {
            let mut junk = vec![0; random.usize(..1400)];
            random.fill(&mut junk);
            evil.send(&junk);
        }
        (1, _) => {
            let signature = std::iter::repeat_with(|| random.u8(..)).take(200).collect();
            let header = heard
                .iter()
                .find_map(|bytes| announced(bytes))
                .unwrap_or_else(|| vec![0x84; 400]);
            evil.say(
                InstanceId(random.u64(..)),
                &offer(random.u64(..), header, signature),
            );
        }
        // A symbol of the running session, with other bytes or at another position.
        (2 | 3, Some(Datagram::Data(front, symbol))) => {
            let bytes = vec![0xee; symbol.bytes.len()];
            let other = SymbolHeader {
                payload: 8 << 20,
                columns: 31,
                ..symbol.header
            };
            let header = if n.is_multiple_of(5) {
                other
            } else {
                symbol.header
            };
            evil.symbol(front.source, header, &bytes);
        }
        (4, Some(Datagram::Data(front, symbol))) => {
            let phase = if n.is_multiple_of(3) {
                StatusPhase::Closed
            } else {
                StatusPhase::Serving
            };
            let (session, sent) = (symbol.header.session, Generation(u32::MAX - 1));
            let status = SenderStatus {
                session,
                phase,
                sent,
                hosts: 9,
                counter: 1 << 50,
                pass: 0,
                reporters: Vec::new(),
                choice: None,
            };
            evil.say(front.source, &Message::Status(status));
        }
        (8, _) => in_their_names(evil, n, heard, random),
        (5, _) => {
            // Where hosts need no authentication, a deployment to invented hosts cannot succeed.
            let (tree, members) = if keyed {
                ("www", u32::MAX)
            } else {
                ("other", 2)
            };
            let tree = TreeState {
                serial: Serial(1),
                ..TreeState::nothing(TreeName::new(tree).expect("legal"))
            };
            let (name, version) = (host_name(&format!("ghost{n}")), "9".repeat(60));
            let trees = vec![
                tree;
                if n.is_multiple_of(64) {
                    MAX_MESSAGE_TREES
                } else {
                    2
                }
            ];
            let hello = Hello {
                name,
                version,
                trees,
                members,
                heard: Some(9000),
                strangers: None,
                nonce: Some(Nonce(n)),
                echoes: None,
                identity: None,
                shown: None,
                labels: None,
            };
            evil.say(InstanceId(n), &Message::Hello(hello));
        }
        (6, _) => evil.say(
            InstanceId(n),
            &Message::Query(Query {
                number: n,
                tree: None,
                serial: None,
                machine: None,
                order: None,
                padding: Vec::new(),
            }),
        ),
        // Where beacons need no authentication, a changed beacon would announce an absent host.
        (7, Some(parsed)) if keyed || !is_about_presence(&parsed) => {
            let mut bytes = old.cloned().unwrap_or_default();
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(..8);
            evil.send(&bytes);
        }
        _ => evil.say(InstanceId(n), &Message::Solicit(Some(Nonce(n)), None)),
    }
}

/// Returns true for a beacon or a goodbye.
fn is_about_presence(datagram: &Datagram<'_>) -> bool {
    let Datagram::Control(_, piece) = datagram else {
        return false;
    };
    !matches!(
        Message::decode(piece.bytes),
        Ok(Message::Announce(_) | Message::Status(_) | Message::Order(_))
    )
}

/// Returns the header of an announcement in one datagram.
fn announced(bytes: &[u8]) -> Option<Vec<u8>> {
    let Ok(Datagram::Control(_, piece)) = Datagram::parse(bytes) else {
        return None;
    };
    match Message::decode(piece.bytes) {
        Ok(Message::Announce(announce)) => Some(announce.header),
        _ => None,
    }
}

/// Floods hosts during a deployment and after its end.
fn flood(keyed: bool) {
    let Some((lab, mut evil)) = lab(keyed) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    write(&lab.site().join("page"), "new");
    write(&lab.site().join("big"), Noise::new(5).bytes(1 << 20));
    let flooding = std::thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(6);
        let mut heard: Vec<Vec<u8>> = Vec::new();
        for n in 0..FLOOD {
            if n % 64 == 0 {
                heard.extend(evil.hear(64));
                // The latest datagrams belong to the current session.
                heard.drain(..heard.len().saturating_sub(256));
            }
            one_of_a_flood(&mut evil, n, &heard, keyed, &mut random);
        }
    });

    let mut deploys = 0;
    while deploys == 0 || !flooding.is_finished() {
        write(&lab.site().join("page"), format!("new {deploys}"));
        lab.deploy(&["--rate", "4MB"]).exits(0);
        lab.all_same(&lab.site());
        deploys += 1;
    }

    flooding.join().expect("no panic");
    bounded(&lab);
    let ran = lab.makuo(&["members", "--json"]).exits(0);
    assert!(
        ran.out.contains("web1") && ran.out.contains("web2"),
        "{ran}"
    );

    if keyed {
        assert!(
            !ran.out.contains("ghost") && ran.out.contains("speaks without a group key"),
            "{ran}"
        );
    }
}

#[test]
fn a_flood_against_hosts_with_a_group_key_holds_up_nobody() {
    flood(true);
}

#[test]
fn a_flood_against_hosts_without_a_group_key_spoils_no_tree() {
    flood(false);
}

#[test]
fn what_was_sealed_and_is_replayed_is_not_heard_again() {
    let Some((lab, evil)) = lab(true) else { return };
    write(&lab.site().join("page"), "old");
    let over = Arc::new(AtomicBool::new(false));
    let recorder = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || (evil.record(|| over.load(Ordering::Relaxed)), evil))
    };

    lab.deploy(&[]).exits(0);
    over.store(true, Ordering::Relaxed);
    let (recorded, evil) = recorder.join().expect("no panic");
    if recorded.is_empty() {
        return skipped("nothing was heard");
    }

    write(&lab.site().join("page"), "new");
    lab.deploy(&[]).exits(0);
    let before: Vec<String> = lab.hosts.iter().map(Host::log).collect();
    for _ in 0..5 {
        recorded.iter().for_each(|datagram| evil.send(datagram));
    }

    lab.makuo(&["members", "--json"])
        .exits(0)
        .says(&["\"members\":2"]);
    lab.all_same(&lab.site());

    for (host, before) in lab.hosts.iter().zip(before) {
        assert_eq!(
            host.log(),
            before,
            "nothing of it reached anything that would speak of it"
        );
    }
}

/// Returns the last deployed release, as announced.
fn deployed(lab: &Lab, mut evil: Adversary) -> (Adversary, Release) {
    let over = Arc::new(AtomicBool::new(false));
    let recorder = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let heard = evil.record(|| over.load(Ordering::Relaxed));
            let messages = evil.messages(&heard);
            (evil, messages)
        })
    };

    lab.deploy(&[]).exits(0);
    over.store(true, Ordering::Relaxed);
    let (evil, messages) = recorder.join().expect("no panic");
    let release = messages.into_iter().find_map(|(_, message)| match message {
        Message::Announce(a) => Release::from_bytes(&a.header).ok(),
        _ => None,
    });

    (evil, release.expect("an announcement was heard"))
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: TreePath::new(path.as_bytes()).expect("legal"),
        kind,
        mode: Mode::from_bits(0o644),
        owner: Arc::new(Owner {
            uid: 0,
            gid: 0,
            user: None,
            group: None,
        }),
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    }
}

/// Makes a page and replaces `from` by `to` in its bytes.
fn page(entries: Vec<Entry>, from: &str, to: &str) -> (Vec<u8>, u64) {
    let count = entries.len() as u64;
    let mut page = Node::Page(entries).encode();
    if !from.is_empty() {
        let at = page
            .windows(from.len())
            .rposition(|w| w == from.as_bytes())
            .expect("it is in there");
        page[at..at + to.len()].copy_from_slice(to.as_bytes());
    }

    (page, count)
}

/// Deploys a release with a manifest of one page, signed by `key`, and returns a host's final
/// report.
fn push(
    evil: &mut Adversary,
    lab: &Lab,
    like: &Release,
    nth: u64,
    (page, entries): (Vec<u8>, u64),
) -> String {
    let root = NodeRef {
        block: BlockRef::of(&page),
        nodes: 1,
        blocks: 0,
        entries,
        bytes: 0,
    };

    let header = Header {
        serial: Serial(1000 + nth),
        root,
        session: None,
        ..like.header().clone()
    };

    let release = Release::new(header).expect("a legal header");
    let signer = open_signer(&lab.path("key")).expect("the lab's key");
    let signature = signer
        .sign(Namespace::RELEASE, release.bytes())
        .expect("signs")
        .as_bytes()
        .to_vec();

    let (source, session) = (InstanceId(500 + nth), SessionId(500 + nth));
    let mut map = Map::default();
    map.push(Ordinal(0), page.len() as u32);
    let payload = map.payload(&page);
    let columns = grid_for(payload.len(), 1400).expect("small").columns();
    let generation = Generation(0);
    let symbol = SymbolHeader {
        session,
        generation,
        row: 0,
        column: 0,
        columns,
        payload: payload.len() as u32,
        sent: 0,
    };

    let watch = support::Stopwatch::start();
    loop {
        assert!(
            watch.read() < support::wait::LONG,
            "no host says what became of it"
        );
        evil.say(
            source,
            &offer(session.0, release.bytes().to_vec(), signature.clone()),
        );
        evil.symbol(source, symbol, &payload);
        let heard = evil.hear(1000);
        for (_, message) in evil.messages(&heard) {
            if let Message::State(state) = message
                && state.session == session
                && state.stage == HostStage::Refused
            {
                return state.text.unwrap_or_default();
            }
        }
    }
}

#[test]
fn a_manifest_that_is_signed_and_means_harm_is_refused_by_name_before_anything_is_written() {
    let Some((lab, evil)) = lab(false) else {
        return;
    };

    write(&lab.site().join("page"), "right");
    let (mut evil, like) = deployed(&lab, evil);
    let fifo = |path: &str| entry(path, EntryKind::Fifo);
    let dir = |path: &str| entry(path, EntryKind::Directory);
    let link = |path: &str, to: &str| {
        entry(
            path,
            EntryKind::Hardlink(TreePath::new(to.as_bytes()).expect("legal")),
        )
    };

    let large = |path: &str, bytes| {
        let list = ListRef {
            block: BlockRef::of(b"list"),
            blocks: 1,
            bytes,
        };
        entry(path, EntryKind::File(Content::Lists(vec![list])))
    };

    let cases = [
        (page(vec![dir("d"), fifo("d/AA")], "AA", ".."), ".."),
        (page(vec![fifo("Aetc")], "Aetc", "/etc"), "absolute"),
        (page(vec![fifo("aAb")], "aAb", "a\0b"), "NUL"),
        (
            page(vec![fifo("same"), fifo("same")], "", ""),
            "same: out of order or twice",
        ),
        (
            page(
                vec![
                    entry("d", EntryKind::Symlink(b"/etc".to_vec())),
                    fifo("d/evil"),
                ],
                "",
                "",
            ),
            "d/evil",
        ),
        (page(vec![fifo("f"), fifo("f/evil")], "", ""), "f/evil"),
        (
            page(vec![fifo("zz"), link("zzz", "BB/passwd")], "BB", ".."),
            "..",
        ),
        (page(vec![link("zz", "not-there")], "", ""), "zz"),
        (
            page(vec![large("zz", 1 << 60)], "", ""),
            "zz: a block list with a size that no list has",
        ),
    ];

    for (nth, (page, word)) in (0..).zip(cases) {
        let why = push(&mut evil, &lab, &like, nth, page);
        assert!(why.contains(word), "{word:?} is not in {why:?}");
        lab.all_same(&lab.site());
    }

    // Invalid headers are rejected before any processing: no host answers, and each logs the
    // reason.
    let signer = open_signer(&lab.path("key")).expect("the lab's key");
    let root = like.header().root;
    let sizes = [
        (
            NodeRef {
                entries: 1_000_000_000,
                ..root
            },
            "1000000000 entries, more than any tree has",
        ),
        (
            NodeRef {
                bytes: 1 << 60,
                ..root
            },
            "1152921504606846976 bytes, more than any tree has",
        ),
        (
            NodeRef {
                blocks: u64::MAX,
                ..root
            },
            "more blocks than any tree has",
        ),
    ];

    for (nth, (root, why)) in (900..).zip(sizes) {
        let header = Header {
            serial: Serial(nth),
            root,
            ..like.header().clone()
        }
        .encode();
        let signature = signer
            .sign(Namespace::RELEASE, &header)
            .expect("signs")
            .as_bytes()
            .to_vec();
        support::until("a line in the log", || {
            evil.say(
                InstanceId(nth),
                &offer(nth, header.clone(), signature.clone()),
            );
            lab.hosts.iter().all(|host| host.log().contains(why))
        });
        lab.all_same(&lab.site());
    }

    bounded(&lab);
}
