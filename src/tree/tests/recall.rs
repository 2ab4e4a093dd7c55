//! Blocks of a release are read back from every place where the host has them, and from no other.

use std::os::unix::fs::FileExt;

use super::deploy::noise;
use super::world::{Thing, World};
use crate::id::Ordinal;
use crate::manifest::EntryKind;
use crate::manifest::read::Manifest;
use crate::tree::stage::BlockReader;

fn large(seed: u64) -> Thing {
    Thing::File(noise(300_000, seed), 0o644)
}

#[test]
fn a_block_that_is_here_is_found_and_no_other() {
    let old = [
        ("damaged", large(1)),
        ("lost", large(2)),
        ("old name", large(3)),
        ("same", large(4)),
    ];

    let new = [
        ("coming", large(5)),
        ("damaged", large(1)),
        ("here", large(6)),
        ("lost", large(2)),
        ("new name", large(3)),
        ("same", large(4)),
    ];

    let world = World::new(&old, &new);
    let tree = world.open();
    let (stage, release, source) = world.begin(&tree, 1).unwrap();
    let manifest = Manifest::of(release.header(), tree.nodes());
    let mut all = Vec::new();

    for located in manifest.entries() {
        let located = located.unwrap();
        let EntryKind::File(content) = &located.entry.kind else {
            continue;
        };
        let blocks = manifest.blocks(content).unwrap();
        let path = located.entry.path.to_string();
        all.extend(
            blocks
                .into_iter()
                .zip(located.first.0..)
                .map(|(block, n)| (path.clone(), Ordinal(n), block)),
        );
    }

    for (_, ordinal, block) in all.iter().filter(|(path, ..)| path == "here") {
        assert!(stage.put(*ordinal, &source.blocks[&block.hash]).unwrap());
    }

    // Both files match the release during the comparison, and not afterwards.
    let damaged = std::fs::File::options()
        .write(true)
        .open(world.www().join("damaged"))
        .unwrap();

    damaged.write_all_at(b"damage", 0).unwrap();
    std::fs::remove_file(world.www().join("lost")).unwrap();
    std::os::unix::fs::symlink("same", world.www().join("lost")).unwrap();

    let mut recall = BlockReader::open(&tree, release.header().root).unwrap();
    let mut bytes = Vec::new();
    assert!(all.len() > 20);

    for backwards in [false, true] {
        let mut order: Vec<_> = all.iter().collect();
        if backwards {
            order.reverse();
        }
        for (path, ordinal, block) in order {
            let first = all
                .iter()
                .find(|(other, ..)| other == path)
                .is_some_and(|(_, first, _)| first == ordinal);
            let expected = match path.as_str() {
                "coming" | "lost" => false,
                "damaged" => !first,
                _ => true,
            };
            assert_eq!(
                recall.read(&stage, *ordinal, &mut bytes),
                expected,
                "{path} {ordinal:?}"
            );
            assert!(
                !expected || bytes == source.blocks[&block.hash],
                "{path} {ordinal:?}"
            );
        }
    }

    let top = release.header().root;
    for ordinal in [0, top.nodes - 1, top.nodes + top.blocks, u64::MAX] {
        assert!(
            !recall.read(&stage, Ordinal(ordinal), &mut bytes),
            "{ordinal} is no block of a file"
        );
    }
}
