//! What a gc deletes and what it leaves: with pulls and publishers beside it, wrong clocks, heads
//! that are hidden, and stores without conditions. `MAKUO_REPOSITORY_SEED` replays one seed.

use super::budgets::setup;
use super::collector::{Collector, gc};
use super::site::{Files, Site, many_files, noise, replace};
use super::store::{Host, MemoryStore, Publisher, PullEnd, Pulling, verified, www};
use super::together::seeds;
use crate::block::BlockHash;
use crate::id::Serial;
use crate::repository::gc::{GcError, GcReport, GcRewrite, GcSetup, MAX_DELETED_AT_ONCE};
use crate::repository::head::{Head, SignedHead, head_object};
use crate::repository::marker::marker_object;
use crate::repository::object::{ObjectPath, temporary_name};
use crate::repository::pack::{MAX_PACK_BYTES, PackName};
use crate::repository::publish::PublishSetup;
use crate::units::Moment;

const HOUR: i64 = 3600;

/// A gc that only deletes.
fn plain() -> GcSetup {
    GcSetup {
        rewrites: None,
        ..gc(1)
    }
}

fn publish(store: &mut MemoryStore, files: &Files) -> Site {
    let site = Site::new(files);
    Publisher::new(&site, setup())
        .run(store)
        .expect("published");
    site
}

/// A store with releases of `count` states of a site; most of the content changes each time.
fn busy_store(rng: &mut fastrand::Rng, count: u32, keep: usize) -> (MemoryStore, Files) {
    let mut store = MemoryStore::default();
    let mut files = many_files(rng, 100, 20_000);
    for _ in 0..count {
        replace(rng, &mut files, 2, 20_000);
        let setup = PublishSetup {
            keep: Some(keep),
            ..setup()
        };
        Publisher::new(&Site::new(&files), setup)
            .run(&mut store)
            .expect("published");
    }
    (store, files)
}

fn head(store: &MemoryStore) -> Head {
    let object = store.bytes(&head_object(&www())).expect("a head");
    let signed = SignedHead::decode(&object).expect("a head");
    verified(&signed).head().clone()
}

/// A pack that nobody refers to.
fn orphan(store: &mut MemoryStore, n: u32) -> ObjectPath {
    let bytes = n.to_be_bytes();
    let object = PackName(BlockHash::of(&bytes)).object();
    store.overwrite(&object, bytes.to_vec());
    object
}

#[track_caller]
fn pulls(store: &mut MemoryStore, site: &Site) {
    let mut host = Host::new();
    let end = Pulling::new(&host, 1).run(&mut host, store);
    assert_eq!(end, PullEnd::Done);
    assert!(host.has(site), "another content");
}

/// Pulls until a release is there, as a host does.
struct Follower {
    host: Host,
    pulling: Option<Pulling>,
    seed: u64,
}

impl Follower {
    fn new(seed: u64) -> Self {
        Self {
            host: Host::new(),
            pulling: None,
            seed,
        }
    }

    /// Takes one step; returns true when the host has a release or the newest one.
    fn step(&mut self, store: &mut MemoryStore) -> bool {
        self.seed += 1;
        let host = &mut self.host;
        let pulling = self
            .pulling
            .get_or_insert_with(|| Pulling::new(host, self.seed));
        match pulling.step(host, store) {
            None => return false,
            Some(PullEnd::Done | PullEnd::Unchanged) => {
                self.pulling = None;
                return true;
            }
            Some(PullEnd::Superseded) => {
                self.pulling = None;
                self.host.etag = None;
            }
            Some(PullEnd::Failed(error)) => panic!("a pull failed: {error}"),
        }
        false
    }
}

#[test]
fn gc_during_pulls_makes_none_fail_and_leaves_little_that_is_dead() {
    for seed in seeds(4) {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore::default();
        let mut files: Files = many_files(&mut rng, 40, 100_000);
        let mut last = files.clone();
        for _ in 0..6 {
            last = files.clone();
            replace(&mut rng, &mut files, 3, 100_000);
            publish(&mut store, &files);
        }

        let mut hosts: Vec<Follower> = (0..20).map(|n| Follower::new(seed + n * 1000)).collect();
        let steps = rng.usize(1..2000);
        for host in &mut hosts {
            (0..rng.usize(..steps)).any(|_| host.step(&mut store));
        }

        store.now.0 += 2 * HOUR;
        let mut collector = Collector::new(gc(seed));
        let mut report = None;
        let mut left: Vec<usize> = (0..hosts.len()).collect();
        while report.is_none() || !left.is_empty() {
            if report.is_none() && (left.is_empty() || rng.u32(..9) == 0) {
                report = collector.step(&mut store);
            } else if !left.is_empty() {
                let at = rng.usize(..left.len());
                if hosts[left[at]].step(&mut store) {
                    left.swap_remove(at);
                }
            }
        }

        let report = report.expect("an end").expect("collected");
        let site = Site::new(&files);
        assert!(hosts.iter().all(|follower| follower.host.has(&site)));

        // The same two releases in a repository of their own.
        let mut clean = MemoryStore::default();
        publish(&mut clean, &last);
        publish(&mut clean, &files);
        println!("{report:?}: {} and {} alone", store.size(), clean.size());
        assert!(store.size() * 100 < clean.size() * 125, "{report:?}");
        assert!(report.deleted > 0 && report.rewritten > 0, "{report:?}");
    }
}

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
fn a_pack_that_is_stored_again_during_the_deletion_stays() {
    let mut rng = fastrand::Rng::with_seed(8);
    let (mut store, _) = busy_store(&mut rng, 2, 2);
    let count = MAX_DELETED_AT_ONCE + 40;
    let orphans: Vec<ObjectPath> = (0..count as u32).map(|n| orphan(&mut store, n)).collect();
    store.now.0 += 9 * HOUR;

    let mut collector = Collector::new(plain());
    let end = collector.run_until(&mut store, |collector| collector.deletions > 0);
    assert_eq!(end, None, "there is more to delete");
    let (gone, left): (Vec<_>, Vec<_>) = orphans
        .into_iter()
        .partition(|object| store.bytes(object).is_none());
    assert_eq!((gone.len(), left.len()), (MAX_DELETED_AT_ONCE, 40));

    // A publisher stores some of them, and one that is deleted already.
    for object in left[..20].iter().chain(&gone[..1]) {
        store.overwrite(object, b"again".to_vec());
    }
    let end = collector.run_until(&mut store, |_| false).expect("an end");
    assert!(end.is_ok(), "{end:?}");
    for (at, object) in left.iter().enumerate() {
        assert_eq!(store.bytes(object).is_some(), at < 20, "{at}");
    }
    assert!(store.bytes(&gone[0]).is_some());
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
fn a_publisher_during_a_gc_uses_no_pack_that_is_gone() {
    for has_conditions in [true, false] {
        let (mut collections, mut overtaken) = (0, 0);
        let all = seeds(20);
        for seed in all.clone() {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut store, mut files) = busy_store(&mut rng, 5, 3);
            store.has_conditions = has_conditions;
            replace(&mut rng, &mut files, 2, 20_000);
            store.now.0 += 2 * HOUR;

            let site = Site::new(&files);
            let mut publisher = Publisher::new(&site, setup());
            let mut collector = Collector::new(gc(seed));
            // The publisher is somewhere when the gc begins.
            let mut other = store.clone();
            let mut alone = Publisher::new(&site, setup());
            while alone.step(&mut other).is_none() {}
            let (mut published, mut collected) = (None, None);
            for _ in 0..rng.u64(..alone.steps) {
                published = published.or_else(|| publisher.step(&mut store));
            }

            while published.is_none() || collected.is_none() {
                if published.is_none() && (collected.is_some() || rng.bool()) {
                    published = publisher.step(&mut store);
                } else {
                    collected = collector.step(&mut store);
                }
            }

            assert!(published.expect("an end").is_ok(), "seed {seed}");
            match collected.expect("an end") {
                Ok(_) => collections += 1,
                Err(GcError::Changed(_)) => overtaken += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }

            let mut host = Host::new();
            let end = Pulling::new(&host, seed).run(&mut host, &mut store);
            assert_eq!(end, PullEnd::Done, "seed {seed}");
            assert!(
                host.has(&site) || !has_conditions,
                "seed {seed}: another one"
            );
            // Nothing that any release of the head needs is gone.
            let check = GcSetup {
                grace: None,
                ..gc(seed)
            };
            let whole = Collector::new(check).run(&mut store);
            assert!(whole.is_ok(), "seed {seed}: {whole:?}");
        }

        println!("{collections} collections, {overtaken} overtaken by a publisher");
        let some = all.count() as u64 / 8;
        assert!(
            collections >= some && overtaken >= some.min(1),
            "{collections}, {overtaken}"
        );
    }
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

/// Whatever is wrong with the head of one tree, gc names the tree and deletes nothing: any pack may
/// be one that this tree needs. A head that was damaged only on the way is read again.
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
