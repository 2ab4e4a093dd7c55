//! What a gc deletes and what it leaves: by age, with wrong clocks, and what killed publishers left.
//! `MAKUO_REPOSITORY_SEED` replays one seed.

use super::budgets::setup;
use super::collector::{Collector, HOUR, busy_store, gc, orphan, plain, publish};
use super::host::pulls;
use super::publisher::Publisher;
use super::site::{Files, Site, many_files, noise};
use super::store::{MemoryStore, www};
use super::together::seeds;
use crate::repository::gc::{GcError, GcReport, GcRewrite, GcSetup};
use crate::repository::head::head_object;
use crate::repository::marker::marker_object;
use crate::repository::object::{ObjectPath, temporary_name};
use crate::repository::pack::MAX_PACK_BYTES;

#[test]
fn what_is_young_stays_and_what_is_old_goes() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut store = MemoryStore::default();
    publish(&mut store, &many_files(&mut rng, 10, 9_000));
    let orphan = orphan(&mut store, 1);

    let report = Collector::new(plain()).run(&mut store).expect("collected");
    let shown = |report: GcReport| (report.deleted, report.later);
    assert_eq!((shown(report), store.list().len()), ((0, 4), 4));
    store.now.0 += HOUR;
    let report = Collector::new(plain()).run(&mut store).expect("collected");
    assert_eq!((shown(report), store.list().len()), ((4, 0), 3));
    assert!(store.bytes(&orphan).is_none());
}

#[test]
fn a_check_writes_and_deletes_nothing() {
    let mut rng = fastrand::Rng::with_seed(4);
    let (mut store, _) = busy_store(&mut rng, 4, 2);
    orphan(&mut store, 1);
    store.now.0 += 9 * HOUR;
    store.take_traffic();
    let before = store.list();
    let check = GcSetup {
        grace: None,
        ..gc(1)
    };
    let report = Collector::new(check).run(&mut store).expect("whole");
    assert!(report.live > 0 && report.before > report.live, "{report:?}");
    assert_eq!((store.take_traffic().puts, store.list()), (0, before));
}

#[test]
fn a_clock_that_is_wrong_makes_nothing_old() {
    let mut rng = fastrand::Rng::with_seed(6);
    for ahead in [0, HOUR + 1, 400 * 24 * HOUR, -HOUR] {
        let (mut store, _) = busy_store(&mut rng, 4, 2);
        store.now.0 += 9 * HOUR;
        let young = orphan(&mut store, 1);
        let mut collector = Collector::new(gc(1));
        collector.ahead = ahead;
        let report = collector.run_until(&mut store, |_| false).expect("an end");
        let report = report.expect("collected");
        assert!(store.bytes(&young).is_some(), "{ahead}");
        assert!(report.deleted > 0, "{ahead}: {report:?}");
    }
}

#[test]
fn an_idle_repository_is_collected_as_well() {
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut store, _) = busy_store(&mut rng, 2, 2);
    let orphan = orphan(&mut store, 1);
    // Nothing in it is an hour older than the newest object.
    store.now.0 += 2 * HOUR;
    Collector::new(plain()).run(&mut store).expect("collected");
    assert!(store.bytes(&orphan).is_none());
    assert!(store.bytes(&marker_object()).is_some());
}

#[test]
fn what_killed_publishers_leave_goes_after_the_grace_time() {
    let mut rng = fastrand::Rng::with_seed(9);
    let (mut store, files) = busy_store(&mut rng, 2, 2);
    let pack = orphan(&mut store, 1);
    let temporary = |object: &ObjectPath, n| {
        ObjectPath::new(&temporary_name(object.as_str(), n)).expect("legal")
    };
    let old = [temporary(&pack, 1), temporary(&head_object(&www()), 2)];
    for object in &old {
        store.overwrite(object, b"half".to_vec());
    }
    store.now.0 += 9 * HOUR;
    let young = temporary(&pack, 3);
    store.overwrite(&young, b"half".to_vec());

    Collector::new(plain()).run(&mut store).expect("collected");
    assert!(old.iter().all(|object| store.bytes(object).is_none()));
    assert!(store.bytes(&young).is_some());
    pulls(&mut store, &Site::new(&files));
}

#[test]
fn what_a_first_publication_left_goes_if_somebody_says_so() {
    let told = GcSetup {
        no_trees: true,
        ..plain()
    };
    let (mut cleaned, mut refused) = (0, 0);
    for seed in seeds(60) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore::default();
        let site = Site::new(&many_files(&mut rng, 100, 20_000));
        let mut publisher = Publisher::new(&site, setup());
        // It is killed shortly before its end: packs come late.
        let mut alone = Publisher::new(&site, setup());
        let mut other = MemoryStore::default();
        while alone.step(&mut other).is_none() {}
        let steps = alone.steps.saturating_sub(rng.u64(1..8));
        (0..steps).any(|_| publisher.step(&mut store).is_some());
        let before = store.list();
        if before.len() < 2 || store.bytes(&head_object(&www())).is_some() {
            continue;
        }

        // Nobody has said so, it is young, or the store hides what is below `trees/`.
        let end = Collector::new(plain()).run(&mut store);
        assert_eq!((end, store.list()), (Err(GcError::NoTrees), before.clone()));
        let young = Collector::new(told.clone()).run(&mut store);
        assert_eq!(young.map(|report| report.deleted), Ok(0), "seed {seed}");
        assert_eq!(store.list(), before, "seed {seed}");
        store.now.0 += rng.i64(2 * HOUR..99 * HOUR);
        let mut lying = store.clone();
        lying.hides_trees = true;
        let end = Collector::new(told.clone()).run(&mut lying);
        assert_eq!(end, Err(GcError::NoTrees), "seed {seed}");
        assert!(before.iter().all(|l| lying.bytes(&l.object).is_some()));
        refused += 1;

        // Another publisher ends meanwhile, or none does.
        let mut collector = Collector::new(told.clone());
        let lists = rng.u32(..2);
        let mut end = collector.run_until(&mut store, |collector| collector.lists == lists);
        let published = end.is_none() && rng.bool();
        if published {
            Publisher::new(&site, setup())
                .run(&mut store)
                .expect("published");
        }
        end = end.or_else(|| collector.run_until(&mut store, |_| false));
        match end.expect("an end") {
            Ok(_) if !published => {
                let left: Vec<_> = store.list().into_iter().map(|l| l.object).collect();
                assert_eq!(left, [marker_object()], "seed {seed}");
                cleaned += 1;
            }
            Ok(_) | Err(GcError::Changed(_)) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        if !published {
            Publisher::new(&site, setup())
                .run(&mut store)
                .expect("published");
        }
        pulls(&mut store, &site);
    }
    println!("{cleaned} cleaned, {refused} refused");
    assert!(cleaned > 5 && refused > 10 || seeds(2).count() == 1);
}

#[test]
fn a_pack_beyond_the_cap_is_an_error() {
    let mut rng = fastrand::Rng::with_seed(13);
    let (mut store, _) = busy_store(&mut rng, 2, 2);
    let large = orphan(&mut store, 1);
    let size = MAX_PACK_BYTES as usize + 1;
    store.overwrite(&large, vec![0; size]);
    let end = Collector::new(plain()).run(&mut store);
    assert!(matches!(end, Err(GcError::TooLarge(..))), "{end:?}");
}

#[test]
fn a_large_pile_of_small_files_ends_in_few_bytes() {
    let mut rng = fastrand::Rng::with_seed(14);
    let mut store = MemoryStore::default();
    let mut files: Files = [("a".to_string(), noise(&mut rng, 1 << 20))].into();
    for _ in 0..8 {
        files.insert("b".into(), noise(&mut rng, 300_000));
        publish(&mut store, &files);
    }
    store.now.0 += 9 * HOUR;

    let one = GcSetup {
        rewrites: Some(GcRewrite { keep: Some(1) }),
        ..gc(1)
    };
    let report = Collector::new(one.clone())
        .run(&mut store)
        .expect("collected");
    assert!(store.size() * 4 < report.live * 5, "{report:?}");

    // Without conditions, what the head before referred to goes with the next gc.
    store = MemoryStore {
        has_conditions: false,
        ..MemoryStore::default()
    };
    for _ in 0..8 {
        files.insert("b".into(), noise(&mut rng, 300_000));
        publish(&mut store, &files);
    }
    store.now.0 += 9 * HOUR;
    let report = Collector::new(one.clone())
        .run(&mut store)
        .expect("collected");
    assert!(report.later > 500_000, "{report:?}");
    store.now.0 += 9 * HOUR;
    let report = Collector::new(one).run(&mut store).expect("collected");
    assert!(report.deleted > 500_000, "{report:?}");
    assert!(store.size() * 4 < report.live * 5, "{report:?}");
}
