//! Regression seeds from fuzzing: real encodings, and inputs that once broke a decoder.
//!
//! Seeds are in tests/fuzz/seeds/TARGET. A seed with a name beginning with `whole` must be
//! accepted; all others only must not panic. `MAKUO_WRITE_SEEDS=1 cargo test --test it seeds::`
//! rewrites the former after a change of format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use makuo::block::frame::{Compressor, Level};
use makuo::block::{BlockHash, BlockRef};
use makuo::fuzz::{FUZZ_TARGETS, ROOT, SIGNED};
use makuo::id::{Generation, HostName, InstanceId, Nonce, Ordinal, Serial, SessionId, TreeName};
use makuo::keys::{FileSigner, Namespace, Signer};
use makuo::manifest::read::{NodeSource, ReadError};
use makuo::manifest::{
    Content, Entry, EntryKind, Header, Intent, ListRef, Mode, Mtime, Node, NodeRef, Owner, Release,
    ReleaseId, Rules, TreePath, Xattr,
};
use makuo::proto::generation::Map;
use makuo::repository::SignedRelease;
use makuo::repository::head::{Head, HeadValidity, SignedHead};
use makuo::repository::object::{GetReply, Put, PutReply};
use makuo::repository::pack::Extent;
use makuo::repository::publish::{Publish, PublishSetup, PublishStep};
use makuo::repository::record::ReleaseRecord;
use makuo::tree::index::{IndexEntry, IndexWriter, Origin};
use makuo::tree::{CommitMark, DirStep, FORWARD, Journal, Mark, Root, StateDir, Step, Version};
use makuo::units::{Moment, WallTime};
use makuo::wire::count::{CountRequest, CountedProbe, ProbeCounts};
use makuo::wire::datagram::{
    Fragment, write_fragment, write_peer, write_relayed_symbol, write_symbol,
};
use makuo::wire::message::{
    Announce, Message, Missing, Nack, Order, OrderKind, Ranges, SignedOrder, StageReport, WantList,
};
use makuo::wire::peer::{PeerMessage, Ping, Pong};
use makuo::wire::relay::RelayTargets;
use makuo::wire::{Front, HostStage, SymbolHeader};

#[test]
fn every_seed_is_decoded() {
    if std::env::var_os("MAKUO_WRITE_SEEDS").is_some() {
        write_all();
    }

    for (name, door) in FUZZ_TARGETS {
        let mut whole = 0;
        for path in seeds(name) {
            let accepted = door(&std::fs::read(&path).expect("readable"));
            if path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("whole"))
            {
                assert!(
                    accepted,
                    "{}: not accepted: MAKUO_WRITE_SEEDS=1 writes seeds anew",
                    path.display()
                );
                whole += 1;
            }
        }
        assert!(whole > 0, "{name}: no seed that begins with `whole`");
    }
}

#[test]
fn every_door_has_a_target_and_every_target_a_door() {
    let targets = dir().join("targets");
    let mut found: Vec<String> = std::fs::read_dir(&targets)
        .expect("targets")
        .map(|e| {
            e.expect("readable")
                .path()
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();

    found.sort();
    assert_eq!(
        found,
        FUZZ_TARGETS
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
    );
    let manifest = std::fs::read_to_string(dir().join("Cargo.toml")).expect("readable");

    found.iter().for_each(|name| {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is not built"
        )
    });
}

#[test]
fn a_cut_or_changed_seed_is_decoded_without_panic() {
    let mut random = fastrand::Rng::with_seed(1);
    for (name, door) in FUZZ_TARGETS {
        for path in seeds(name) {
            let bytes = std::fs::read(&path).expect("readable");
            for _ in 0..200 {
                let mut other = bytes[..random.usize(..=bytes.len())].to_vec();
                for _ in 0..random.usize(0..4) {
                    if !other.is_empty() {
                        let at = random.usize(..other.len());
                        other[at] = random.u8(..);
                    }
                }
                door(&other);
            }
        }
    }
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn seeds(name: &str) -> Vec<PathBuf> {
    let dir = dir().join("seeds").join(name);
    let all = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = all.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    paths
}

fn write_all() {
    let put = |name: &str, number: usize, bytes: &[u8]| {
        let dir = dir().join("seeds").join(name);
        std::fs::create_dir_all(&dir).expect("writable");
        std::fs::write(dir.join(format!("whole-{number}")), bytes).expect("writable");
    };

    let all = |name: &str, seeds: Vec<Vec<u8>>| {
        seeds
            .iter()
            .enumerate()
            .for_each(|(number, bytes)| put(name, number, bytes));
    };

    all("authorized_keys", vec![keys().into_bytes()]);
    all(
        "config",
        vec![
            CONFIG.into(),
            "[[tree]]\nname = \"a\"\npath = \"/srv/a\"\n".into(),
        ],
    );

    all("console", vec![CONSOLE.into()]);
    all("datagram", vec![datagrams()]);
    all("drift", vec![drift()]);
    all("frame", vec![frame()]);
    let [head, places, record] = repository();
    all("head", vec![head]);
    all("header", vec![header().encode()]);
    all("host_file", vec![HOST_FILE.into()]);
    all("index", vec![index()]);

    all("journal", vec![journal()]);
    all("map", vec![map()]);
    all("message", messages().iter().map(Message::encode).collect());
    all("node", nodes().iter().map(Node::encode).collect());
    all("order", vec![order().encode()]);
    let peers = peer_messages();
    all("peer", peers.iter().map(PeerMessage::encode).collect());
    all("places", vec![places]);
    all("record", vec![record]);
    let signature = signer().sign(Namespace::RELEASE, SIGNED).expect("signs");
    all(
        "signature",
        vec![
            signature.as_bytes().to_vec(),
            signature.to_armor().into_bytes(),
        ],
    );

    all("spec", vec![SPEC.into(), "source = \"site\"\n".into()]);
}

const CONSOLE: &str = "send -r -n -t web1 -g www \"a file\" 'b c'\nsync -r dir/*.html\ncheck -r\nexclude add *.tmp\nexclude list\n\
members\nstatus\nloglevel 2\nalive on\necho hello\nhelp\nquit\n";

const HOST_FILE: &str = r#"format = 1
authorized_keys = '''
tree="www",deploy,audit,rollback ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ci
'''
group_key = "makuo-group-key-v1 BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"
config = '''
[[tree]]
name = "www"
path = "/var/www"
'''
"#;

const CONFIG: &str = r#"name = "web1"
authorized_keys = "/etc/makuo/authorized_keys"
state_dir = "/var/lib/makuo"
socket = "/run/makuo/makuo.sock"
[network]
interface = ["eth0", "10.0.0.1"]
group = "224.0.0.108"
port = 5000
[[tree]]
name = "www"
path = "/var/www"
protect = ["/uploads/", "*.keep"]
max_delete = "20%"
keep = 3
max_age = "30d"
before = ["/etc/makuo/hooks/drain"]
after = ["systemctl", "reload", "nginx"]
health = ["curl", "-fsS", "http://127.0.0.1/health"]
hook_timeout = "60s"
"#;

const SPEC: &str = r#"tree = "www"
source = "../site"
exclude = ["*.tmp", "/cache/", "!keep.tmp"]
gitignore = false
[delete]
extras = true
max = "10%"
allow_empty = false
[owner]
user = "www-data"
group = "ignore"
unknown = "numeric"
[mode]
files = "0644"
dirs = "preserve"
[meta]
mtime = true
xattrs = false
hardlinks = true
[targets]
hosts = ["web*"]
expect = ["web1", "web2"]
[commit]
require = "80%"
layout = "swap"
batches = [1, "50%"]
on_failure = "revert"
[transfer]
rate = "800Mbit"
compress = 3
"#;

fn signer() -> FileSigner {
    FileSigner::from_seed([7; 32])
}

fn keys() -> String {
    let key = base64ct_line(&signer().public().blob());
    format!(
        "# who may\ntree=\"www\",deploy,audit ssh-ed25519 {key} ci@example\n\n\
         tree=\"w*\",rollback,expiry-time=\"20270101\" ssh-ed25519 {key} oncall\n"
    )
}

fn base64ct_line(blob: &[u8]) -> String {
    use base64ct::Encoding;
    base64ct::Base64::encode_string(blob)
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("legal")
}

fn block(number: u32) -> BlockRef {
    BlockRef {
        hash: BlockHash::of(&number.to_be_bytes()),
        size: number + 1,
    }
}

fn entries() -> Vec<Entry> {
    let owner = Arc::new(Owner {
        uid: 33,
        gid: 33,
        user: Some("www-data".into()),
        group: None,
    });

    let list = ListRef {
        block: block(9),
        blocks: 3,
        bytes: 300,
    };

    let kinds = [
        ("a", EntryKind::Directory),
        (
            "a/file",
            EntryKind::File(Content::Blocks(vec![block(1), block(2)])),
        ),
        ("a/file2", EntryKind::Hardlink(path("a/file"))),
        ("a/large", EntryKind::File(Content::Lists(vec![list]))),
        ("a/link", EntryKind::Symlink(b"../b".to_vec())),
        ("b", EntryKind::Fifo),
        ("c", EntryKind::CharDevice(1, 3)),
        ("d", EntryKind::BlockDevice(8, 0)),
    ];

    let entry = |(name, kind): (&str, EntryKind)| Entry {
        path: path(name),
        kind,
        mode: Mode::from_bits(0o644),
        owner: Arc::clone(&owner),
        mtime: Mtime {
            secs: 1_700_000_000,
            nanos: 5,
        },
        xattrs: vec![Xattr {
            name: b"user.x".to_vec(),
            value: b"y".to_vec(),
        }],
    };

    kinds.into_iter().map(entry).collect()
}

fn root() -> NodeRef {
    let page = nodes().remove(0);
    let (nodes, blocks, entries, bytes) = page.sums().expect("small");
    NodeRef {
        block: BlockRef::of(&page.encode()),
        nodes,
        blocks,
        entries,
        bytes,
    }
}

fn nodes() -> Vec<Node> {
    let reference = NodeRef {
        block: block(5),
        nodes: 1,
        blocks: 2,
        entries: 3,
        bytes: 400,
    };

    vec![
        Node::Page(entries()),
        Node::Index(vec![reference; 2]),
        Node::List(vec![block(1), block(2), block(3)]),
    ]
}

fn header() -> Header {
    Header {
        format: makuo::manifest::FORMAT,
        tree: TreeName::new("www").expect("legal"),
        serial: Serial(17),
        created: WallTime(1_700_000_000),
        expires: Some(WallTime(1_800_000_000)),
        intent: Intent::Deploy,
        scope: vec![path("a")],
        targets: vec!["web*".into()],
        root: root(),
        rules: Rules::default(),
        top: None,
        again: None,
        session: None,
        sender: None,
        checksum: None,
        quick: None,
        message: None,
        paused: None,
    }
}

/// The head, a places page and the record of a tree with one file, as a publisher makes them.
fn repository() -> [Vec<u8>; 3] {
    let file = Entry {
        path: path("file"),
        kind: EntryKind::File(Content::Blocks(vec![BlockRef::of(b"content")])),
        ..entries().remove(0)
    };
    let nodes = OnePage(Node::Page(vec![file]).encode());
    let mut machine = Publish::new(PublishSetup {
        tree: TreeName::new("www").expect("legal"),
        keep: Some(1),
        level: None,
        valid_for: HeadValidity::For(3600),
        repair: false,
        pin: None,
        seed: 1,
    });

    let mut objects: Vec<Put> = Vec::new();
    loop {
        match machine.poll(Moment(0)) {
            PublishStep::Get(id, _) => machine.reply(id, GetReply::Missing, Moment(0)),
            PublishStep::Put(id, put) => {
                objects.push(put);
                machine.stored(id, PutReply::Done { etag: None }, Moment(0));
            }
            PublishStep::Head(_) | PublishStep::Newest(_) => machine.begin(None, nodes.release()),
            PublishStep::Note(note) => panic!("{note}"),
            PublishStep::Walk => machine.walk(&nodes).expect("one page"),
            PublishStep::Read(ordinal, _) => machine.block(ordinal, b"content"),
            PublishStep::Seal => {
                let bytes = machine.head_to_sign(WallTime(1_790_000_000));
                let signature = signer().sign(Namespace::HEAD, &bytes).expect("signs");
                machine.signed(signature.as_bytes());
            }
            PublishStep::Done(_) => break,
            other => panic!("{other:?}"),
        }
    }

    let [_, pack, head] = &objects[..] else {
        panic!("a marker, a pack and a head");
    };
    let signed = SignedHead::decode(&head.bytes).expect("legal");
    let kept = Head::decode(&signed.head).expect("legal").kept[0];
    let bytes =
        |extent: Extent| pack.bytes[extent.offset as usize..][..extent.len as usize].to_vec();
    let record = bytes(kept.record());
    let read = ReleaseRecord::decode(&record, kept.pack, &kept.hash).expect("legal");
    [head.bytes.to_vec(), bytes(read.root.places.extent), record]
}

/// A manifest of one page.
struct OnePage(Vec<u8>);

impl OnePage {
    fn release(&self) -> SignedRelease {
        let (root, _) = Node::decode(&self.0)
            .expect("legal")
            .finish()
            .expect("small");
        let header = Header { root, ..header() };
        let release = Release::new(header).expect("legal");
        let signature = signer()
            .sign(Namespace::RELEASE, release.bytes())
            .expect("signs");
        SignedRelease {
            release,
            signature: signature.as_bytes().to_vec(),
            orders: vec![SignedOrder {
                order: order().encode(),
                signature: vec![7; 180],
                hosts: None,
            }],
        }
    }
}

impl NodeSource for OnePage {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        if BlockHash::of(&self.0) == *hash {
            Ok(self.0.clone().into())
        } else {
            Err(ReadError::Missing(*hash))
        }
    }
}

fn order() -> Order {
    let (session, release) = (SessionId(3), ReleaseId(BlockHash::of(b"release")));
    let up_to = Some(HostName::new("web3").expect("legal"));
    let (tree, serial) = (Some(TreeName::new("www").expect("legal")), Some(Serial(17)));
    Order {
        session,
        release,
        kind: OrderKind::Commit,
        up_to,
        tree,
        serial,
        hosts: None,
        except: None,
    }
}

fn messages() -> Vec<Message> {
    let signature = signer()
        .sign(Namespace::RELEASE, &header().encode())
        .expect("signs")
        .as_bytes()
        .to_vec();

    let host = HostName::new("web1").expect("legal");
    let missing = Missing {
        generation: Generation(1),
        need: vec![2, 0, 1],
        symbols: Ranges(vec![3..5]),
    };

    vec![
        Message::Solicit(Some(Nonce(7)), TreeName::new("www").ok()),
        Message::Bye(host.clone()),
        Message::Announce(Announce {
            session: SessionId(1),
            sender: HostName::new("build").expect("legal"),
            header: header().encode(),
            signature: signature.clone(),
            symbol: 1400,
            hosts: 3,
            checksum: false,
            quick: Some(true),
            recheck: None,
            grant: Some(SignedOrder {
                order: vec![1; 40],
                signature: vec![2; 80],
                hosts: None,
            }),
            follows: None,
            only: None,
            proves: Some(true),
            after: None,
            staged: None,
        }),
        Message::State(StageReport {
            session: SessionId(1),
            number: 1,
            name: host,
            stage: HostStage::Refused,
            text: Some("no room".into()),
            summary: None,
            received: 5,
            serial: Serial(17),
            dropped: Some(2),
            torn: None,
            identity: None,
            signature: Some([7; 64].into()),
            nonce: Some(Nonce(9)),
            targets: None,
            tags: None,
            keeps: None,
            held: None,
        }),
        Message::Want(WantList {
            session: SessionId(1),
            number: 2,
            ranges: Ranges(vec![0..3, 5..900]),
            more: false,
            seen: 3,
            fetch: Some(4096),
        }),
        Message::Nack(Nack {
            session: SessionId(1),
            seen: 9,
            missing: vec![missing],
        }),
        Message::Order(SignedOrder {
            order: order().encode(),
            signature,
            hosts: None,
        }),
        Message::Targets(
            RelayTargets {
                session: SessionId(1),
                number: 2,
                heads: vec![InstanceId(3), InstanceId(4)],
                group: vec![InstanceId(5), InstanceId(6)],
                relays: vec![InstanceId(7)],
                multicast: false,
                tags: None,
            }
            .into_tagged(),
        ),
        Message::Counted(CountedProbe {
            run: 1,
            train: 2,
            number: 300,
            size: 600,
            padding: vec![0; 9],
        }),
        Message::CountAsk(CountRequest {
            run: 1,
            train: 2,
            number: 3,
            host: Some(InstanceId(4)),
            by_group: true,
            padding: vec![0; 64],
        }),
        Message::Counts(ProbeCounts {
            run: 1,
            train: 2,
            number: 3,
            by_group: true,
            arrived: 300,
            repeated: 1,
            late: 2,
            largest: 1452,
            dropped: 5,
        }),
    ]
}

/// Encodes a message in pieces and a symbol.
fn peer_messages() -> Vec<PeerMessage> {
    let peers = ["10.0.0.1:5001", "[2001:db8::7]:5001"];
    vec![
        PeerMessage::Ping(Ping {
            nonce: Nonce(1),
            echo: Some(Nonce(2)),
            host: true,
            list: true,
            heard: None,
            segment: None,
            interval: None,
        }),
        PeerMessage::Pong(Pong {
            echo: Nonce(1),
            nonce: Nonce(3),
            host: true,
            known: 2,
            peers: peers.map(|peer| peer.parse().expect("legal")).into(),
            heard: None,
            segment: None,
        }),
        PeerMessage::Leave(Nonce(3)),
    ]
}

fn datagrams() -> Vec<u8> {
    let bytes = messages()[2].encode();
    let front = |counter| Front {
        source: InstanceId(1),
        counter,
    };

    let mut all = Vec::new();
    let half = bytes.len() / 2;
    for (index, bytes) in [&bytes[..half], &bytes[half..]].into_iter().enumerate() {
        let piece = Fragment {
            message: 1,
            index: index as u8,
            count: 2,
            bytes,
        };
        let mut datagram = Vec::new();
        write_fragment(&mut datagram, front(index as u64 + 1), piece);
        all.push(datagram);
    }

    let header = SymbolHeader {
        session: SessionId(1),
        generation: Generation(0),
        row: 2,
        column: 0,
        columns: 1,
        payload: 4000,
        sent: 5,
    };

    let mut symbol = Vec::new();
    write_symbol(&mut symbol, front(1), header, &[7; 1400]);
    all.push(symbol);
    let mut relayed = Vec::new();
    write_relayed_symbol(&mut relayed, front(2), header, &[7; 1400]);
    all.push(relayed);
    for message in peer_messages() {
        let mut datagram = Vec::new();
        write_peer(&mut datagram, front(1), &message.encode());
        all.push(datagram);
    }

    all.iter()
        .flat_map(|one| [&(one.len() as u16).to_be_bytes()[..], one].concat())
        .collect()
}

fn drift() -> Vec<u8> {
    let lines = vec![(
        minicbor::bytes::ByteVec::from(b"css/site.css".to_vec()),
        ">f.st......",
        2u8,
    )];
    minicbor::to_vec((lines, 1u64, 0u64, 0u64)).expect("encodes")
}

fn frame() -> Vec<u8> {
    let content = b"the same words again and again ".repeat(50);
    let mut compressor = Compressor::new();
    compressor
        .begin(Level::new(3).expect("legal"), Some(content.len()))
        .expect("begins");
    compressor.add(&content).expect("fits");
    let frame = compressor.end().expect("ends");

    [&(content.len() as u32).to_be_bytes()[..], frame].concat()
}

fn map() -> Vec<u8> {
    let mut map = Map::default();
    [(4, 100), (5, 200), (9, 30)]
        .into_iter()
        .for_each(|(ordinal, size)| map.push(Ordinal(ordinal), size));
    map.payload(&[1; 330])
}

fn index() -> Vec<u8> {
    use makuo::manifest::build::NodeSink;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("index");
    let mut writer = IndexWriter::create(&path, ROOT).expect("writable");
    let list = Node::List(vec![block(1), block(2), block(3)]).encode();
    writer.put(BlockRef::of(&list), list).expect("writable");

    for (number, entry) in entries().into_iter().enumerate() {
        let (size, mtime) = (entry.kind.size(), entry.mtime);
        let version = Version {
            dev: ROOT.dev,
            ino: number as u64 + 10,
            size,
            mtime,
            ctime: mtime,
        };
        writer
            .push(IndexEntry { entry, version })
            .expect("writable");
    }

    writer.finish(origin()).expect("writable");
    std::fs::read(&path).expect("readable")
}

fn journal() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("new");
    let (name, root) = (
        TreeName::new("www").expect("legal"),
        Root::open(&tree).expect("there"),
    );

    let state = StateDir::open(&name, &root, None).expect("a state");
    let mark = |serial| CommitMark {
        release: Mark {
            serial: Serial(serial),
            id: ReleaseId(BlockHash::of(b"release")),
        },
        number: serial,
    };

    let steps = vec![
        Step::Mkdir(path("a")),
        Step::Place {
            path: path("a/file"),
            slot: 1,
            ino: 2,
            replaces: true,
            copy: None,
            born: None,
        },
        Step::Remove {
            path: path("b"),
            slot: 2,
            is_dir: false,
        },
    ];

    let journal = Journal {
        commit: mark(2),
        previous: Some(mark(1)),
        steps: steps.into_iter().collect(),
        dirs: vec![DirStep {
            path: None,
            old: None,
            new: None,
        }],
        header: header().encode(),
        signature: vec![1, 2, 3],
        swap: None,
    };

    journal.write(&state).expect("writable");
    std::fs::read(state.path().join(FORWARD)).expect("readable")
}

fn origin() -> Origin {
    let top = Version {
        dev: ROOT.dev,
        ino: ROOT.ino,
        size: 4096,
        mtime: Mtime::default(),
        ctime: Mtime::default(),
    };

    Origin {
        started: Mtime {
            secs: 1_800_000_000,
            nanos: 0,
        },
        options: BlockHash::of(b"options"),
        top,
        owners: Vec::new(),
        patterns: Vec::new(),
        ignore_files: Vec::new(),
        skipped: Vec::new(),
        mounts: Vec::new(),
    }
}
