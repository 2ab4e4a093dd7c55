//! Entries, ordinals and blocks agree across pages, and illegal manifests are refused.

use super::*;
use crate::manifest::Entry;
use crate::manifest::build::{Builder, ContentBuilder};
use crate::manifest::fixtures::{MemoryNodes, entry, manifest_of};

fn files(count: u32, changed: Option<u32>) -> Vec<Entry> {
    let mut all = vec![entry("d", EntryKind::Directory)];
    all.extend((0..count).map(|i| {
        let seed = if Some(i) == changed { u32::MAX } else { i };
        let block = BlockRef::of(&seed.to_be_bytes());
        entry(
            &format!("d/{i:07}"),
            EntryKind::File(Content::Blocks(vec![block])),
        )
    }));
    all
}

#[test]
fn entries_and_ordinals_agree_over_many_pages() {
    let entries = files(20_000, None);
    let manifest = manifest_of(entries.clone());
    assert!(manifest.root().nodes > 10);
    let read: Vec<Located> = manifest.entries().collect::<Result<_, _>>().expect("legal");
    assert_eq!(
        read.iter().map(|l| l.entry.clone()).collect::<Vec<_>>(),
        entries
    );

    for located in read.iter().step_by(777).skip(1) {
        assert_eq!(
            manifest
                .entry_of_block(located.first)
                .expect("there")
                .entry
                .path,
            located.entry.path
        );
    }

    for ordinal in 0..manifest.root().nodes {
        let block = manifest.node_at(Ordinal(ordinal)).expect("there");
        assert!(manifest.source.0.contains_key(&block.hash));
    }

    assert!(manifest.node_at(Ordinal(manifest.root().nodes)).is_err());
}

#[test]
fn one_changed_file_changes_one_page_and_its_indexes() {
    let old = manifest_of(files(50_000, None));
    let new = manifest_of(files(50_000, Some(31_415)));
    let fresh = new
        .source
        .0
        .keys()
        .filter(|h| !old.source.0.contains_key(h))
        .count();
    assert!(fresh <= 4, "{fresh} nodes changed");
}

#[test]
fn a_large_file_lists_its_blocks_in_nodes_of_their_own() {
    let mut memory = MemoryNodes::default();
    let blocks: Vec<BlockRef> = (0..30_000u32)
        .map(|i| BlockRef::of(&i.to_be_bytes()))
        .collect();
    let mut content = ContentBuilder::default();
    for &b in &blocks {
        let Ok(()) = content.push(b, &mut memory);
    }

    let Ok(content) = content.finish(&mut memory);
    assert!(content.list_count() > 3);
    let mut builder = Builder::default();
    let Ok(()) = builder.push(entry("big", EntryKind::File(content.clone())), &mut memory);
    let Ok(root) = builder.finish(&mut memory);
    let manifest = Manifest::new(root, memory);
    assert_eq!(manifest.blocks(&content).expect("there"), blocks);

    assert_eq!(root.nodes, 1 + content.list_count());
    let last = Ordinal(root.nodes + 29_999);
    assert_eq!(
        manifest.entry_of_block(last).expect("there").first,
        Ordinal(root.nodes)
    );

    assert!(manifest.node_at(Ordinal(root.nodes - 1)).is_ok());
}

#[test]
fn an_empty_manifest_has_one_empty_page() {
    let manifest = manifest_of(Vec::new());
    assert_eq!(manifest.entries().count(), 0);
    assert_eq!(manifest.root().nodes, 1);
}

#[test]
fn a_file_below_a_file_or_without_its_directory_is_refused() {
    for paths in [vec![("a", false), ("a/b", false)], vec![("x/y", false)]] {
        let entries: Vec<Entry> = paths
            .iter()
            .map(|&(p, dir)| {
                entry(
                    p,
                    if dir {
                        EntryKind::Directory
                    } else {
                        EntryKind::Fifo
                    },
                )
            })
            .collect();

        let manifest = manifest_of(entries);
        let read: Result<Vec<_>, _> = manifest.entries().collect();
        assert!(matches!(read, Err(ReadError::Illegal(_))), "{paths:?}");
    }
}
