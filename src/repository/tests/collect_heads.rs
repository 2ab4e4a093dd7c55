//! What a gc does with heads: of those that are hidden, damaged or newer, and of their releases.
//! `MAKUO_REPOSITORY_SEED` replays one seed.

use super::collector::{Collector, HOUR, busy_store, gc, head, orphan, plain, publish};
use super::host::pulls;
use super::site::{Site, many_files, replace};
use super::store::{MemoryStore, www};
use super::together::seeds;
use crate::id::Serial;
use crate::repository::gc::{GcError, GcReport, GcRewrite, GcSetup};
use crate::repository::head::head_object;
use crate::repository::object::ObjectPath;
use crate::repository::pack::PackName;
use crate::units::Moment;

#[test]
fn a_head_that_is_hidden_ends_a_gc() {
    let mut rng = fastrand::Rng::with_seed(5);
    let (whole, _) = busy_store(&mut rng, 4, 2);
    for setup in [plain(), gc(1)] {
        let fresh = || {
            let mut store = whole.clone();
            store.now.0 += 9 * HOUR;
            store
        };

        // It is listed, and answered as missing.
        let mut store = fresh();
        store.hides_heads = true;
        let end = Collector::new(setup.clone()).run(&mut store);
        assert_eq!(end, Err(GcError::Changed(www())));

        // It is not listed.
        store = fresh();
        store.delete(&head_object(&www()));
        let packs = store.list();
        let end = Collector::new(setup.clone()).run(&mut store);
        assert_eq!((end, store.list()), (Err(GcError::NoTrees), packs));

        // It vanishes, or another one comes, before the last list.
        let other = ObjectPath::new("trees/other/head").expect("legal");
        for hide in [true, false] {
            store = fresh();
            let count = store.list().len();
            let mut collector = Collector::new(setup.clone());
            let end = collector.run_until(&mut store, |collector| collector.lists == 1);
            assert_eq!(end, None);
            if hide {
                store.hides_heads = true;
                store.delete(&head_object(&www()));
            } else {
                store.overwrite(&other, b"x".to_vec());
            }
            let end = collector.run_until(&mut store, |_| false).expect("an end");
            assert!(matches!(end, Err(GcError::Changed(_))), "{end:?}");
            let packs = |store: &MemoryStore| {
                let list = store.list().into_iter();
                list.filter(|l| PackName::of_object(&l.object).is_some())
                    .count()
            };
            assert!(packs(&store) >= count - 2 && collector.deletions == 0);
        }
    }

    let end = Collector::new(gc(1)).run(&mut MemoryStore::default());
    assert_eq!(end, Ok(GcReport::default()), "nothing is there yet");
}

#[test]
fn gc_drops_only_what_it_is_told_to_and_heads_keep_their_times() {
    let mut rng = fastrand::Rng::with_seed(10);
    let (mut store, files) = busy_store(&mut rng, 9, 9);
    let before = head(&store);
    assert_eq!(before.kept.len(), 9);
    store.now.0 += 400 * HOUR;

    let all = GcSetup {
        rewrites: Some(GcRewrite::default()),
        ..gc(1)
    };
    Collector::new(all).run(&mut store).expect("collected");
    assert_eq!(head(&store).kept.len(), 9);

    // The head is stale by now, and stays so.
    let report = Collector::new(gc(1)).run(&mut store).expect("collected");
    let after = head(&store);
    assert!(report.rewritten > 0 && report.deleted > 0, "{report:?}");
    assert_eq!(after.kept.len(), 2);
    assert_eq!(after.serial(), before.serial());
    assert_eq!(
        (after.made, after.valid_until),
        (before.made, before.valid_until)
    );
    pulls(&mut store, &Site::new(&files));
}

#[test]
fn a_head_that_does_not_change_is_stored_as_it_is_and_not_over_a_newer_one() {
    let mut rng = fastrand::Rng::with_seed(11);
    for has_conditions in [true, false] {
        let (mut store, mut files) = busy_store(&mut rng, 2, 2);
        store.has_conditions = has_conditions;
        store.now.0 += 9 * HOUR;
        let object = head_object(&www());
        let before = store.bytes(&object);
        Collector::new(gc(1)).run(&mut store).expect("collected");
        assert_eq!(store.bytes(&object), before);

        // The gc reads the head, and a publisher stores the next one.
        let mut collector = Collector::new(gc(1));
        let end = collector.run_until(&mut store, |collector| collector.lists == 2);
        assert_eq!(end, None);
        replace(&mut rng, &mut files, 2, 20_000);
        let site = publish(&mut store, &files);
        let end = collector.run_until(&mut store, |_| false);
        assert_eq!(end, Some(Err(GcError::Changed(www()))));
        assert_eq!(head(&store).serial(), Serial(3));
        pulls(&mut store, &site);
    }
}

#[test]
fn a_damaged_release_that_is_dropped_does_not_stop_a_gc() {
    for has_conditions in [true, false] {
        let mut rng = fastrand::Rng::with_seed(12);
        let mut store = MemoryStore {
            has_conditions,
            ..MemoryStore::default()
        };
        let mut files = many_files(&mut rng, 100, 20_000);
        for _ in 0..3 {
            // All of it changes: no other release needs the packs of the first one.
            replace(&mut rng, &mut files, 1, 20_000);
            publish(&mut store, &files);
        }

        store.now.0 += 9 * HOUR;
        let oldest = head(&store).kept[2].pack;
        store.delete(&oldest.object());
        Collector::new(gc(1)).run(&mut store).expect("collected");
        pulls(&mut store, &Site::new(&files));
    }
}

/// If the head of one tree is damaged in any way, gc names the tree and deletes nothing: any pack
/// may be one that this tree needs. A head that was damaged only on the way is read again.
#[test]
fn a_damaged_head_ends_a_gc_before_anything_is_deleted() {
    for seed in seeds(30) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut store, _) = busy_store(&mut rng, 4, 2);
        (0..3).for_each(|n| drop(orphan(&mut store, n)));
        store.now.0 += 9 * HOUR;

        let (good, other) = (head_object(&www()), ObjectPath::new("trees/db/head"));
        let is_other = rng.bool();
        let damaged = if is_other {
            other.expect("legal")
        } else {
            good.clone()
        };
        let whole = store.bytes(&good).expect("a head").to_vec();
        let mut bytes = whole.clone();
        let at = rng.usize(..bytes.len());
        bytes[at] ^= 1 << rng.u8(..8);
        bytes.truncate(rng.usize(at..bytes.len()) + 1);
        store.overwrite(&damaged, bytes);

        let before: Vec<ObjectPath> = store.list().into_iter().map(|o| o.object).collect();
        let setup = if rng.bool() { gc(seed) } else { plain() };
        let ended = Collector::new(setup.clone()).run(&mut store);
        let named = if is_other { "db" } else { "www" };
        assert!(
            matches!(&ended, Err(GcError::Head(tree, _)) if tree.as_str() == named),
            "seed {seed}: {ended:?}"
        );
        let after: Vec<ObjectPath> = store.list().into_iter().map(|o| o.object).collect();
        assert_eq!(before, after, "seed {seed}");

        if !is_other {
            let mut collector = Collector::new(setup);
            let waits = |collector: &Collector| collector.now > Moment(0);
            assert!(
                collector.run_until(&mut store, waits).is_none(),
                "seed {seed}"
            );
            store.overwrite(&good, whole);
            let ended = collector.run(&mut store).expect("a head again");
            assert!(ended.deleted > 0, "seed {seed}: {ended:?}");
        }
    }
}
