//! Nodes come back as they were; other bytes are refused without a panic.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::manifest::{Content, Mode, Mtime, TreePath, Xattr};

pub(crate) fn an_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        Just(EntryKind::Directory),
        prop::collection::vec(any::<[u8; 4]>(), 0..4).prop_map(|seeds| EntryKind::File(
            Content::Blocks(seeds.iter().map(|s| BlockRef::of(s)).collect())
        )),
        "[a-z/.]{1,20}".prop_map(|t| EntryKind::Symlink(t.into_bytes())),
        Just(EntryKind::Fifo),
        (0..512u32, 0..512u32).prop_map(|(a, b)| EntryKind::CharDevice(a, b)),
    ];

    let owner = (0..3u32, prop::option::of("[a-z]{1,8}")).prop_map(|(id, name)| Owner {
        uid: id,
        gid: id,
        user: name.map(Into::into),
        group: None,
    });

    let xattrs =
        prop::collection::vec(("user\\.[a-z]{1,4}", any::<[u8; 3]>()), 0..2).prop_map(|list| {
            list.into_iter()
                .map(|(n, v)| Xattr {
                    name: n.into_bytes(),
                    value: v.to_vec(),
                })
                .collect::<Vec<_>>()
        });

    (
        "[a-c]{1,3}(/[a-d]{1,3}){0,3}",
        kind,
        0..0o10000u32,
        owner,
        any::<i64>(),
        0..1_000_000_000u32,
        xattrs,
    )
        .prop_map(|(path, kind, mode, owner, secs, nanos, xattrs)| Entry {
            path: TreePath::new(path.as_bytes()).expect("the pattern is legal"),
            kind,
            mode: Mode::from_bits(mode),
            owner: Arc::new(owner),
            mtime: Mtime { secs, nanos },
            xattrs,
        })
}

proptest! {
    #[test]
    fn pages_come_back_as_they_were(entries in prop::collection::vec(an_entry(), 0..40)) {
        let mut entries = entries;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        let page = Node::Page(entries);
        prop_assert_eq!(Node::decode(&page.encode()), Ok(page));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Node::decode(&bytes);
    }

    #[test]
    fn a_changed_byte_never_passes_as_an_unsorted_page(
        entries in prop::collection::vec(an_entry(), 1..10),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut entries = entries;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        let mut bytes = Node::Page(entries).encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;

        if let Ok(Node::Page(entries)) = Node::decode(&bytes) {
            prop_assert!(entries.windows(2).all(|w| w[0].path < w[1].path));
        }
    }
}

#[test]
fn counts_and_modes_are_checked() {
    let entry = |mode| WireEntry {
        shared: 0,
        rest: b"a".to_vec(),
        kind: EntryKind::Directory,
        mode,
        owner: 0,
        secs: 0,
        nanos: 0,
        xattrs: None,
    };

    let owner = || Arc0(Arc::new(Owner::nameless(0, 0)));

    let mode = Mode::from_bits(0o755);
    let many = (0..=MAX_PAGE_ENTRIES).map(|_| entry(mode)).collect();
    let owners = (0..=MAX_PAGE_ENTRIES).map(|_| owner()).collect();
    for page in [
        WireNode::Page(vec![owner()], many),
        WireNode::Page(owners, vec![entry(mode)]),
    ] {
        assert!(matches!(
            Node::decode(&to_vec(&page)),
            Err(NodeError::Limit(_))
        ));
    }

    assert!(minicbor::decode::<Mode>(&to_vec(&0o7777u16)).is_ok());
    assert!(minicbor::decode::<Mode>(&to_vec(&0o10755u16)).is_err());
}

#[test]
fn duplicates_and_disorder_are_refused() {
    let make = |path: &str| Entry {
        path: TreePath::new(path.as_bytes()).expect("legal"),
        kind: EntryKind::Directory,
        mode: Mode::from_bits(0o755),
        owner: Arc::new(Owner::nameless(0, 0)),
        mtime: Mtime::default(),
        xattrs: Vec::new(),
    };

    for paths in [["a", "a"], ["b", "a"]] {
        let bytes = Node::Page(paths.iter().map(|p| make(p)).collect()).encode();
        assert!(
            matches!(Node::decode(&bytes), Err(NodeError::Entry(_))),
            "{paths:?}"
        );
    }
}
