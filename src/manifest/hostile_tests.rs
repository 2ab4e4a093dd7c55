//! Manifests with a valid signature and hostile content. Each trick is refused when the manifest is
//! read, before anything acts on it, and the refusal names the fault.

use super::fixtures::{entry, manifest_of};
use super::header::tests::a_header;
use super::node::Node;
use super::*;

/// Decodes a page of one entry with altered bytes, which no builder of ours would produce.
fn refusal(kind: EntryKind, legal: &str, evil: &str) -> String {
    assert_eq!(legal.len(), evil.len());
    let mut page = Node::Page(vec![
        entry("zz/first", EntryKind::Fifo),
        entry("zzz/AA/page", kind),
    ])
    .encode();
    assert!(Node::decode(&page).is_ok());
    let at = page
        .windows(legal.len())
        .rposition(|w| w == legal.as_bytes())
        .expect("it is in there");
    page[at..at + evil.len()].copy_from_slice(evil.as_bytes());

    Node::decode(&page).expect_err(evil).to_string()
}

#[test]
fn a_path_that_leads_out_of_the_tree_is_no_path() {
    for (legal, evil, word) in [
        ("z/AA/page", "z/../page", ".."),
        ("z/AA/page", "z/AA/./ge", ". or .."),
        ("z/AA/page", "z\0AA/page", "NUL"),
    ] {
        let why = refusal(EntryKind::Fifo, legal, evil);
        assert!(why.contains(word), "{evil:?}: {why}");
    }

    let mut page = Node::Page(vec![entry("Aetc/passwd", EntryKind::Fifo)]).encode();
    let at = page
        .windows(4)
        .position(|w| w == b"Aetc")
        .expect("it is in there");
    page[at] = b'/';
    let why = Node::decode(&page).expect_err("absolute").to_string();

    assert!(why.contains("absolute"), "{why}");
    // A hard link may name only a path of the tree.
    let link = EntryKind::Hardlink(TreePath::new(&b"BB/etc/passwd"[..]).expect("legal"));
    let why = refusal(link, "BB/etc/passwd", "../etc/passwd");

    assert!(why.contains(".."), "{why}");
}

#[test]
fn nothing_lies_below_what_is_no_directory_and_nothing_is_there_twice() {
    let link = EntryKind::Symlink(b"/etc".to_vec());
    let cases = [
        vec![entry("d", link), entry("d/passwd", EntryKind::Fifo)],
        vec![
            entry("f", EntryKind::Fifo),
            entry("f/passwd", EntryKind::Fifo),
        ],
        vec![entry("gone/passwd", EntryKind::Fifo)],
    ];

    for entries in cases {
        let read: Result<Vec<_>, _> = manifest_of(entries).entries().collect();
        let why = read.map(drop).expect_err("not legal").to_string();
        assert!(why.contains("/passwd"), "{why}");
    }

    let twice = Node::Page(vec![
        entry("a", EntryKind::Fifo),
        entry("a", EntryKind::Directory),
    ])
    .encode();

    let why = Node::decode(&twice).expect_err("twice").to_string();
    assert!(why.contains("a: out of order or twice"), "{why}");
}

#[test]
fn sizes_that_no_tree_has_are_refused_with_the_header() {
    let header = |change: &dyn Fn(&mut NodeRef)| {
        let mut header = a_header();
        change(&mut header.root);
        Header::decode(&header.encode())
            .map(drop)
            .expect_err("not legal")
            .to_string()
    };

    assert!(header(&|root| root.entries = 1_000_000_000).contains("1000000000 entries"));
    assert!(header(&|root| root.bytes = 1 << 60).contains("1152921504606846976 bytes"));
    assert!(header(&|root| root.nodes = 1 << 40).contains("more blocks"));

    assert!(header(&|root| root.blocks = u64::MAX).contains("more blocks"));
}
