//! Retained content of older releases: a rollback fetches nothing, and no content outlives its
//! release.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::deploy::noise;
use super::world::{Scanned, Thing, World, file, look};
use crate::id::{Ordinal, Serial};
use crate::tree::{LiveTree, MAX_PINS, SourceError, StateReader, StoredSource, Tree};

fn large(seed: u64) -> Thing {
    Thing::File(noise(300_000, seed), 0o644)
}

/// Four releases, each with changed, removed and added files; some files differ in metadata only.
fn version(n: u64) -> Vec<(&'static str, Thing)> {
    let mode = 0o600 + (n as u32 % 2) * 0o44;
    let mut all = vec![
        ("always", large(1000)),
        ("changes", large(n)),
        ("d", Thing::Dir(0o755)),
        ("d/mode", Thing::File(noise(90_000, 7), mode)),
        ("d/small", file(&format!("version {n}"))),
        ("d/twin", Thing::Hard("d/small")),
    ];

    all.push(match n {
        1 => ("kind", large(50)),
        2 => ("kind", Thing::Link("nowhere")),
        _ => ("kind", Thing::Dir(0o755)),
    });

    if n > 2 {
        all.push(("kind/inside", large(50 + n)));
    }

    if n != 2 {
        all.push(("often", large(60 + n % 2)));
    }

    all
}

fn world(swap: bool) -> (World, Arc<Tree>) {
    let world = World::new(&[("foreign", large(99))], &version(1)).swapping(swap);
    let tree = world.open();
    (world, tree)
}

fn put(world: &World, tree: &Arc<Tree>, n: u64, serial: u64) {
    world.release(&version(n));
    world.deploy(tree, serial).unwrap();
    tree.forget_undo().unwrap();
}

/// Returns the bytes that a return to release `n` would fetch.
fn to_fetch(world: &World, tree: &Arc<Tree>, n: u64, serial: u64) -> u64 {
    world.release(&version(n));
    let (stage, ..) = world.begin(tree, serial).unwrap();
    let left = stage.plan().summary.fetch_bytes;
    assert_eq!(stage.wants().is_empty(), left == 0);
    assert_eq!(stage.plan().summary.fetch_bytes, left);
    left
}

fn shelf(tree: &Tree, serial: u64) -> PathBuf {
    tree.state().path().join("kept").join(serial.to_string())
}

/// Returns the total size of the files in a directory, in bytes.
fn weight(dir: &Path) -> u64 {
    let weigh = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => weight(&entry.path()),
        false => entry.metadata().unwrap().len(),
    };
    std::fs::read_dir(dir).map_or(0, |all| all.map(|e| weigh(e.unwrap())).sum())
}

#[test]
fn going_back_to_a_kept_release_fetches_nothing() {
    for swap in [false, true] {
        for back in [1, 2] {
            let (world, tree) = world(swap);
            (1..=3).for_each(|n| put(&world, &tree, n, n));
            // The initial tree belonged to no release.
            assert!(
                !std::fs::read_dir(tree.state().path().join("kept"))
                    .unwrap()
                    .any(|e| { weight(&e.unwrap().path()) > 1_000_000 })
            );
            world.release(&version(back));
            let (stage, release, _) = world.begin(&tree, 4).unwrap();
            assert!(
                stage.wants().is_empty() && stage.plan().wants.is_empty(),
                "swap {swap}, back to {back}"
            );
            assert!(stage.plan().summary.reuse_bytes > 300_000);
            let staged = stage.finish().unwrap();
            staged.commit(&release, b"signature").unwrap();
            assert_eq!(
                look(&world.www()),
                look(&world.source()),
                "swap {swap}, back to {back}"
            );
            // Forward again, also after a restart, and reverted like any other commit.
            drop(tree);
            let tree = world.open();
            assert_eq!(tree.revert().unwrap(), Serial(4));
            world.release(&version(3));
            assert_eq!(look(&world.www()), look(&world.source()));
            put(&world, &tree, back, 5);
            assert_eq!(to_fetch(&world, &tree, 3, 6), 0, "swap {swap}, forth to 3");
        }
    }
}

#[test]
fn content_goes_with_its_release() {
    for swap in [false, true] {
        let (world, tree) = world(swap);
        (1..=3).for_each(|n| put(&world, &tree, n, n));
        assert!(weight(&shelf(&tree, 1)) > 300_000 && weight(&shelf(&tree, 2)) > 300_000);
        let before = weight(tree.state().path());
        put(&world, &tree, 4, 4);
        assert_eq!(tree.releases().unwrap(), [2, 3, 4].map(Serial));
        assert!(!shelf(&tree, 1).exists());
        assert!(
            weight(tree.state().path()) < before + 500_000,
            "swap {swap}"
        );
        assert!(to_fetch(&world, &tree, 1, 5) >= 300_000);
        assert_eq!(to_fetch(&world, &tree, 2, 5), 0, "swap {swap}");
        assert_eq!(
            std::fs::read_dir(tree.state().path().join("undo"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn what_is_shared_with_the_live_tree_is_not_kept_a_second_time() {
    let (world, tree) = world(true);
    (1..=2).for_each(|n| put(&world, &tree, n, n));

    // Changed or removed: `changes`, `d/small`, `kind`, `often`. Not: `always`, `d/mode`.
    let kept = weight(&shelf(&tree, 1));
    assert!((900_000..910_000).contains(&kept), "{kept}");

    assert_eq!(
        std::fs::metadata(shelf(&tree, 1))
            .map(|m| std::os::unix::fs::MetadataExt::mode(&m) & 0o777)
            .unwrap(),
        0o700
    );
}

#[test]
fn one_release_keeps_no_content_of_others() {
    let (world, tree) = world(false);
    drop(tree);
    let name = crate::id::TreeName::new("www").unwrap();
    let open = |keep| {
        Tree::open(
            name.clone(),
            &world.www(),
            None,
            crate::tree::TreeOptions {
                keep,
                ..Default::default()
            },
        )
        .unwrap()
    };

    let tree = open(1);
    (1..=3).for_each(|n| put(&world, &tree, n, n));
    assert_eq!(
        (
            tree.releases().unwrap(),
            weight(&tree.state().path().join("kept"))
        ),
        (vec![Serial(3)], 0)
    );

    drop(tree);
    // Raises the retention, then lowers it again.
    let tree = open(2);
    put(&world, &tree, 4, 4);
    assert!(weight(&shelf(&tree, 3)) > 0);
    drop(tree);
    let tree = open(1);

    assert_eq!(
        (
            tree.releases().unwrap(),
            weight(&tree.state().path().join("kept"))
        ),
        (vec![Serial(4)], 0)
    );
}

#[test]
fn damaged_content_is_fetched_again() {
    for swap in [false, true] {
        let (world, tree) = world(swap);
        (1..=2).for_each(|n| put(&world, &tree, n, n));
        let all: Vec<PathBuf> = std::fs::read_dir(shelf(&tree, 1))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        let largest = |p: &&PathBuf| {
            p.metadata().unwrap().len() == 300_000 && std::fs::read(p).unwrap() == noise(300_000, 1)
        };
        let changes = all
            .iter()
            .find(largest)
            .expect("the old content of `changes`");
        let mut bytes = std::fs::read(changes).unwrap();
        bytes[150_000] ^= 1;
        std::fs::write(changes, bytes).unwrap();
        let fetch = to_fetch(&world, &tree, 1, 3);
        assert!(
            fetch > 0 && fetch < 300_000,
            "only what is damaged: {fetch}"
        );
        world.deploy(&tree, 3).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
        // A truncated or missing index costs transfers only.
        put(&world, &tree, 2, 4);
        for (nth, index) in [shelf(&tree, 3), shelf(&tree, 2), shelf(&tree, 1)]
            .iter()
            .enumerate()
        {
            match nth {
                0 => std::fs::write(index.join("index"), b"makuo kept v0001short")
                    .unwrap_or_default(),
                _ => drop(std::fs::remove_file(index.join("index"))),
            }
        }
        assert!(to_fetch(&world, &tree, 1, 5) > 0);
        world.deploy(&tree, 5).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
    }
}

#[test]
fn drift_that_a_release_replaced_is_not_taken_for_it() {
    let (world, tree) = world(false);
    put(&world, &tree, 1, 1);
    std::fs::write(world.www().join("changes"), noise(300_000, 77)).unwrap();
    std::fs::write(world.www().join("d/small"), "of another length").unwrap();
    put(&world, &tree, 2, 2);
    assert!(to_fetch(&world, &tree, 1, 3) >= 300_000);
    put(&world, &tree, 1, 3);
    assert_eq!(look(&world.www()), look(&world.source()));

    // A release that repairs drift leaves no release to roll back to.
    std::fs::write(world.www().join("changes"), noise(300_000, 78)).unwrap();
    put(&world, &tree, 1, 3);

    assert!(!shelf(&tree, 3).exists());
}

#[test]
fn a_crash_anywhere_in_a_confirmation_loses_no_content() {
    for swap in [false, true] {
        let mut unconfirmed = 0;
        let mut confirmed = 0;
        for after in 0.. {
            let (world, tree) = world(swap);
            (1..=3).for_each(|n| put(&world, &tree, n, n));
            world.release(&version(4));
            world.deploy(&tree, 4).unwrap();
            drop(tree);
            let tree = world.open_crashing(Some(after)).unwrap();
            let done = tree.forget_undo().is_ok();
            drop(tree);
            let tree = world.open();
            assert_eq!(look(&world.www()), look(&world.source()), "crash {after}");
            match tree.revertible().unwrap() {
                Some(serial) if after % 2 == 0 => {
                    assert_eq!((serial, done), (Serial(4), false));
                    unconfirmed += 1;
                    // After the revert, no trace of the confirmation remains.
                    tree.revert().unwrap();
                    world.release(&version(3));
                    assert_eq!(look(&world.www()), look(&world.source()), "crash {after}");
                    put(&world, &tree, 4, 5);
                }
                Some(_) => tree.forget_undo().unwrap(),
                None => confirmed += 1,
            }
            assert_eq!(tree.releases().unwrap().len(), 3, "crash {after}");
            assert!(!shelf(&tree, 1).exists(), "crash {after}");
            assert_eq!(
                std::fs::read_dir(tree.state().path().join("undo"))
                    .unwrap()
                    .count(),
                0,
                "crash {after}"
            );
            for back in [2, 3] {
                assert_eq!(
                    to_fetch(&world, &tree, back, 6),
                    0,
                    "swap {swap}, crash {after}, back to {back}"
                );
            }
            put(&world, &tree, 2, 6);
            assert_eq!(look(&world.www()), look(&world.source()), "crash {after}");
            if done {
                break;
            }
        }
        assert!(
            unconfirmed > 0 && confirmed > 2,
            "swap {swap}: {unconfirmed} {confirmed}"
        );
    }
}

/// Reads the whole release `serial` like a sender in another process.
fn stored(world: &World, tree: &Tree, serial: u64) -> StoredSource {
    let records = StateReader::find(tree.name(), &world.www(), None)
        .unwrap()
        .expect("a state");
    let release = records
        .stored(Serial(serial))
        .unwrap()
        .expect("kept")
        .release;
    StoredSource::open(LiveTree::At(world.www()), records, release.header().root).unwrap()
}

#[test]
fn a_sender_reads_any_kept_release_out_of_the_tree_and_what_is_kept() {
    for swap in [false, true] {
        let (world, tree) = world(swap);
        (1..=3).for_each(|n| put(&world, &tree, n, n));
        for n in 1..=3 {
            world.release(&version(n));
            let expected = Scanned::of(&world.source()).blocks;
            let mut source = stored(&world, &tree, n);
            let root = tree
                .release(Serial(n))
                .unwrap()
                .unwrap()
                .release
                .header()
                .root;
            let mut out = Vec::new();
            let mut seen = HashSet::new();
            for ordinal in 0..root.nodes + root.blocks {
                out.clear();
                let block = source.read(Ordinal(ordinal), &mut out).unwrap();
                assert!(
                    block.matches(&out)
                        && (ordinal < root.nodes || expected.contains_key(&block.hash))
                );
                seen.insert(block.hash);
            }
            assert!(
                expected.keys().all(|hash| seen.contains(hash)),
                "swap {swap}, release {n}"
            );
            assert!(
                source
                    .read(Ordinal(root.nodes + root.blocks), &mut out)
                    .is_err()
            );
        }
    }
}

#[test]
fn what_is_passed_on_is_read_in_the_directory_that_is_served() {
    let (world, tree) = world(false);
    put(&world, &tree, 1, 1);
    let root = tree
        .release(Serial(1))
        .unwrap()
        .unwrap()
        .release
        .header()
        .root;

    let victim = world.www().with_file_name("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::rename(world.www(), world.www().with_file_name("away")).unwrap();
    std::os::unix::fs::symlink(&victim, world.www()).unwrap();
    let records = (*tree.state()).clone();
    let all = |live| -> Result<(), SourceError> {
        let mut source = StoredSource::open(live, records.clone(), root).unwrap();
        (root.nodes..root.nodes + root.blocks)
            .try_for_each(|o| source.read(Ordinal(o), &mut Vec::new()).map(drop))
    };

    assert!(matches!(
        all(LiveTree::At(world.www())),
        Err(SourceError::NotKept(_))
    ));

    all(LiveTree::Served(tree)).unwrap();
}

#[test]
fn a_sender_finds_what_moves_while_it_reads_and_says_what_is_gone() {
    for swap in [false, true] {
        let (world, tree) = world(swap);
        (1..=2).for_each(|n| put(&world, &tree, n, n));
        let root = tree
            .release(Serial(2))
            .unwrap()
            .unwrap()
            .release
            .header()
            .root;
        let mut source = stored(&world, &tree, 2);
        let all = |source: &mut StoredSource| -> Result<(), SourceError> {
            (root.nodes..root.nodes + root.blocks)
                .try_for_each(|o| source.read(Ordinal(o), &mut Vec::new()).map(drop))
        };
        all(&mut source).unwrap();
        put(&world, &tree, 3, 3);
        all(&mut source).unwrap();
        std::fs::remove_dir_all(shelf(&tree, 2)).unwrap();
        let gone = all(&mut stored(&world, &tree, 2)).unwrap_err();
        assert!(
            matches!(&gone, SourceError::NotKept(path) if path.as_bytes() == b"changes"),
            "{gone}"
        );
    }
}

#[test]
fn a_pinned_release_stays_whole_until_its_pin_ends() {
    for swap in [false, true] {
        let (world, tree) = world(swap);
        put(&world, &tree, 1, 1);
        tree.state().pin(Serial(1)).unwrap();
        (2..=4).for_each(|n| put(&world, &tree, n, n));
        for n in 5..=9 {
            put(&world, &tree, 2 + n % 3, n);
        }

        let pinned = |kept: &crate::tree::KeptRelease| kept.pinned;
        let kept = tree.kept().unwrap();
        assert_eq!(kept.iter().filter(|k| pinned(k)).count(), 1, "swap {swap}");
        assert_eq!(kept.last().map(|k| k.serial), Some(Serial(1)));
        assert_eq!(to_fetch(&world, &tree, 1, 20), 0, "swap {swap}");

        assert!(tree.state().unpin(Serial(1)).unwrap());
        assert!(!tree.state().unpin(Serial(1)).unwrap());
        put(&world, &tree, 3, 10);
        assert!(!tree.releases().unwrap().contains(&Serial(1)));
        assert!(to_fetch(&world, &tree, 1, 20) >= 300_000, "swap {swap}");
    }
}

#[test]
fn pins_are_bounded_and_unreadable_ones_lose_no_release() {
    let (world, tree) = world(false);
    put(&world, &tree, 1, 1);
    let state = tree.state();
    (1..=MAX_PINS as u64).for_each(|n| state.pin(Serial(n)).unwrap());
    state.pin(Serial(1)).unwrap();
    let refused = state.pin(Serial(1000)).unwrap_err();
    assert!(
        refused.to_string().contains("are pinned already"),
        "{refused}"
    );
    assert_eq!(state.pins().unwrap().len(), MAX_PINS);

    // A name in the place of the directory loses no release.
    std::fs::remove_dir_all(state.path().join("pins")).unwrap();
    std::fs::write(state.path().join("pins"), b"").unwrap();
    (2..=9).for_each(|n| put(&world, &tree, 1 + n % 4, n));
    assert_eq!(tree.releases().unwrap().len(), 9);
}
