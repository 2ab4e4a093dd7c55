//! Fuzz targets: every decoder of untrusted bytes, as a function over any bytes.
//!
//! Owns the list only. A target returns whether its decoder accepted the bytes. It panics if the
//! decoder does, and if an accepted value does not survive its own encoding. tests/fuzz/ feeds the
//! targets, and tests/it/seeds.rs replays the interesting inputs.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::block::frame::Expander;
use crate::block::{BlockHash, BlockRef, chunk};
use crate::config::HostConfig;
use crate::face::command::{self, ConsoleCommand};
use crate::id::TreeName;
use crate::keys::{AuthorizedKeys, Namespace, PublicKey, Role, Signature, verify};
use crate::manifest::missing_nodes::Explorer;
use crate::manifest::read::{Manifest, NodeSource, ReadError};
use crate::manifest::{Header, Node, NodeRef, Release};
use crate::proto::generation::Map;
use crate::repository::head::{Head, SignedHead};
use crate::repository::pack::PackName;
use crate::repository::places::Places;
use crate::repository::record::ReleaseRecord;
use crate::spec::Spec;
use crate::tree::index::Index;
use crate::tree::{FileId, Journal};
use crate::units::{Moment, WallTime};
use crate::wire::Datagram;
use crate::wire::fragment::Reassembly;
use crate::wire::message::{Message, Order};
use crate::wire::peer::{MAX_LISTED_PEERS, PeerMessage};

/// Fuzz target; returns whether the bytes were accepted.
pub type FuzzTarget = fn(&[u8]) -> bool;

/// All targets by name, which is also the name of the directory of seeds.
pub const FUZZ_TARGETS: &[(&str, FuzzTarget)] = &[
    ("authorized_keys", authorized_keys),
    ("config", config),
    ("console", console),
    ("datagram", datagram),
    ("drift", drift),
    ("frame", frame),
    ("head", head),
    ("header", header),
    ("host_file", host_file),
    ("index", index),
    ("journal", journal),
    ("map", map),
    ("message", message),
    ("node", node),
    ("order", order),
    ("peer", peer),
    ("places", places),
    ("record", record),
    ("signature", signature),
    ("spec", spec),
];

/// Root of a replayed index.
pub const ROOT: FileId = FileId { dev: 1, ino: 2 };
/// Message of a replayed signature.
pub const SIGNED: &[u8] = b"a release";

/// Lines of a list of keys.
pub fn authorized_keys(bytes: &[u8]) -> bool {
    let Ok(keys) = AuthorizedKeys::parse(bytes, Path::new("authorized_keys")) else {
        return false;
    };

    let tree = TreeName::new("www").expect("legal");
    let key = PublicKey::from_bytes([0; 32]);
    if let Ok(key) = key {
        let _ = keys.allows(&key, &tree, Role::Deploy, WallTime(0));
    }

    !keys.is_empty()
}

/// Configuration of a host.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    HostConfig::parse(text, Path::new("makuo.toml"))
        .map(|config| config.explain())
        .is_ok()
}

/// Lines of the console.
pub fn console(bytes: &[u8]) -> bool {
    let mut understood = false;
    for line in bytes.split(|b| *b == b'\n') {
        understood |= !matches!(
            command::parse(line),
            ConsoleCommand::Wrong(_) | ConsoleCommand::Foreign(_) | ConsoleCommand::Nothing
        );
    }

    understood
}

/// Datagrams from the network, each preceded by its length in two bytes, up to the message
/// reassembled from them.
pub fn datagram(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut reassembly = Reassembly::default();
    let mut accepted = false;
    while let Some((len, more)) = rest.split_first_chunk::<2>() {
        let (one, more) = more.split_at(usize::from(u16::from_be_bytes(*len)).min(more.len()));
        rest = more;
        match Datagram::parse(one) {
            Ok(Datagram::Control(front, piece)) => {
                let whole = reassembly.add(Moment(front.counter), front.source, piece);
                accepted |= whole.is_some_and(|whole| message(&whole));
            }
            Ok(Datagram::Data(..)) => accepted = true,
            Ok(Datagram::Peer(_, message)) => accepted |= PeerMessage::decode(message).is_some(),
            Err(_) => {}
        }
    }

    accepted
}

/// A host's list of differences.
pub fn drift(bytes: &[u8]) -> bool {
    crate::drive::drift::decode(bytes).is_some()
}

/// Compressed frame, preceded by its claimed size in four bytes.
pub fn frame(bytes: &[u8]) -> bool {
    let Some((size, frame)) = bytes.split_first_chunk::<4>() else {
        return false;
    };
    let size = u32::from_be_bytes(*size) as usize % (crate::proto::generation::MAX_PLAIN + 1);
    Expander::default()
        .expand(frame, size)
        .is_some_and(|content| content.len() == size)
}

/// Setup file for a host of a group.
pub fn host_file(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(crate::cli::is_host_file)
}

/// Signed head of a tree in a repository.
pub fn head(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedHead::decode(bytes) else {
        return false;
    };
    assert_eq!(SignedHead::decode(&signed.encode()).as_ref(), Ok(&signed));
    let _ = verify(Namespace::HEAD, &signed.head, &signed.signature);

    let Ok(head) = Head::decode(&signed.head) else {
        return false;
    };
    assert!(
        head.kept
            .iter()
            .all(|kept| kept.window().end() == kept.record().end())
    );
    let again = Head::decode(&head.encode());
    assert!(again.is_err() || again.as_ref() == Ok(&head));
    true
}

/// Signed header of a release.
pub fn header(bytes: &[u8]) -> bool {
    let Ok(release) = Release::from_bytes(bytes) else {
        return false;
    };
    let header = release.header();
    assert_eq!(Header::decode(&header.encode()).as_ref(), Ok(header));
    let _ = header.rules.excluded();
    true
}

/// Stat cache.
pub fn index(bytes: &[u8]) -> bool {
    // In memory only, but with a path.
    let Ok(file) = rustix::fs::memfd_create(c"index", rustix::fs::MemfdFlags::CLOEXEC) else {
        return false;
    };

    let mut file = std::fs::File::from(file);
    if file.write_all(bytes).is_err() {
        return false;
    }

    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let Some(index) = Index::open(Path::new(&path), ROOT) else {
        return false;
    };

    let mut whole = true;
    for entry in index.entries() {
        match entry {
            Ok(entry) => {
                if let crate::manifest::EntryKind::File(content) = &entry.entry.kind {
                    let _ = index.blocks(content);
                }
                let _ = index.find(&entry.entry.path);
            }
            Err(_) => whole = false,
        }
    }

    whole
}

/// Journal of a commit.
pub fn journal(bytes: &[u8]) -> bool {
    Journal::parse(bytes).is_some()
}

/// Front of a generation's payload.
pub fn map(bytes: &[u8]) -> bool {
    let Ok(Some((map, body))) = Map::parse(bytes, bytes.len()) else {
        return false;
    };

    assert!(body.start <= bytes.len());
    let end = map
        .placed()
        .map(|placed| placed.bytes.end)
        .max()
        .unwrap_or(0);
    assert!(end <= body.plain);
    map.ranges().for_each(drop);

    true
}

/// Message of the protocol.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(message) = Message::decode(bytes) else {
        return false;
    };

    if let Message::Announce(announce) = &message {
        header(&announce.header);
        signature(&announce.signature);
    }

    // Escaping makes text longer, and then possibly too long.
    let _ = Message::decode(&message.encode());
    true
}

/// Node of a manifest, and the manifest with this root.
pub fn node(bytes: &[u8]) -> bool {
    let Ok(node) = Node::decode(bytes) else {
        return false;
    };

    if bytes.len() <= crate::manifest::node::MAX_NODE_BYTES {
        assert_eq!(Node::decode(&node.encode()).as_ref(), Ok(&node));
    }

    if let Some((nodes, blocks, entries, size)) = node.sums() {
        let root = NodeRef {
            block: BlockRef::of(bytes),
            nodes,
            blocks,
            entries,
            bytes: size,
        };
        let manifest = Manifest::new(root, Only(bytes.into()));
        manifest.entries().take(chunk::MAX).for_each(drop);
        let _ = Explorer::new(root).advance(&Only(bytes.into()), |_| false);
    }

    true
}

/// Order to commit or abort.
pub fn order(bytes: &[u8]) -> bool {
    let Some(order) = Order::decode(bytes) else {
        return false;
    };
    assert_eq!(Order::decode(&order.encode()).as_ref(), Some(&order));
    true
}

/// Message between peers of a network without multicast.
pub fn peer(bytes: &[u8]) -> bool {
    let Some(message) = PeerMessage::decode(bytes) else {
        return false;
    };
    if let PeerMessage::Pong(pong) = &message {
        assert!(pong.peers.len() <= MAX_LISTED_PEERS);
    }

    // Scopes and flow labels of addresses are left out.
    let again = PeerMessage::decode(&message.encode());
    assert!(again.is_some());
    true
}

/// Places page of a manifest node in a repository.
pub fn places(bytes: &[u8]) -> bool {
    let own = PackName(BlockHash::of(b"own"));
    let Ok(places) = Places::decode(bytes, own) else {
        return false;
    };

    let children = places.children().map(|child| child.node);
    assert!(
        places
            .blocks()
            .chain(children)
            .all(|extent| extent.is_legal())
    );
    assert_eq!(places.blocks().count(), places.block_count());
    assert_eq!(places.children().count(), places.child_count());
    assert_eq!(Places::decode(&places.encode(), own).as_ref(), Ok(&places));
    true
}

/// Record of a release in a repository.
pub fn record(bytes: &[u8]) -> bool {
    let own = PackName(BlockHash::of(b"own"));
    ReleaseRecord::decode(bytes, own, &BlockHash::of(bytes)).is_ok_and(|record| {
        header(record.release.bytes());
        signature(&record.signature);
        record.root.node.is_legal()
    })
}

/// Signature as blob or text.
pub fn signature(bytes: &[u8]) -> bool {
    let armored = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Signature::from_armor(text).ok());
    if let Some(signature) = &armored {
        assert!(Signature::from_bytes(signature.as_bytes()).is_ok());
    }
    verify(Namespace::RELEASE, SIGNED, bytes).is_ok() || armored.is_some()
}

/// Spec.
pub fn spec(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    Spec::parse(text, Path::new("www.toml"))
        .map(|spec| (spec.explain(), spec.rules()))
        .is_ok()
}

/// A source of one node only.
struct Only(Arc<[u8]>);

impl NodeSource for Only {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        if BlockHash::of(&self.0) == *hash {
            Ok(Arc::clone(&self.0))
        } else {
            Err(ReadError::Missing(*hash))
        }
    }
}
