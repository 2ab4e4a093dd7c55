//! A gc beside pulls and publishers. `MAKUO_REPOSITORY_SEED` replays one seed.

use super::budgets::setup;
use super::collector::{Collector, HOUR, busy_store, gc, orphan, plain, publish};
use super::host::{Host, PullEnd, Pulling};
use super::publisher::Publisher;
use super::site::{Files, Site, many_files, replace};
use super::store::MemoryStore;
use super::together::seeds;
use crate::repository::gc::{GcError, GcSetup, MAX_DELETED_AT_ONCE};
use crate::repository::object::ObjectPath;

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
