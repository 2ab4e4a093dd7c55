//! Repositories with packs that are missing, damaged or cut, and what a publication makes of them.
//! `MAKUO_REPOSITORY_SEED` replays one seed.

use super::budgets::setup;
use super::collector::{Collector, gc};
use super::host::{Host, PullEnd, Pulling};
use super::publisher::{PublishWay, Publisher};
use super::site::{Files, Site, edit, many_files, noise};
use super::store::MemoryStore;
use super::together::seeds;
use crate::repository::gc::{GcError, GcSetup};
use crate::repository::object::{FaultKind, ObjectPath};
use crate::repository::pack::PackName;
use crate::repository::publish::{PublishError, PublishNote, PublishSetup, Published};

/// A harm to a pack.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Deleted,
    Changed,
    Cut,
}

/// Does harm to an object.
fn harm(store: &mut MemoryStore, rng: &mut fastrand::Rng, object: &ObjectPath, harm: Harm) {
    let mut bytes = store.bytes(object).expect("there").to_vec();
    let at = rng.usize(..bytes.len());
    match harm {
        Harm::Deleted => return store.delete(object),
        Harm::Changed => bytes[at] ^= 1 << rng.u32(..8),
        Harm::Cut => bytes.truncate(at),
    }
    store.overwrite(object, bytes);
}

fn packs(store: &MemoryStore) -> Vec<ObjectPath> {
    let all = store.list().into_iter().map(|listed| listed.object);
    all.filter(|object| PackName::of_object(object).is_some())
        .collect()
}

/// Four releases of a tree with large files, which take several packs, and small ones.
fn store_of(rng: &mut fastrand::Rng) -> (MemoryStore, Files) {
    let mut store = MemoryStore::default();
    let mut files = many_files(rng, 80, 3_000);
    for n in 0..3 {
        files.insert(format!("large{n}"), noise(rng, 12 << 20));
    }
    for _ in 0..4 {
        edit(rng, &mut files);
        files.insert("changing".into(), noise(rng, 400_000));
        Publisher::new(&Site::new(&files), setup())
            .run(&mut store)
            .expect("published");
    }
    (store, files)
}

fn repair(
    store: &mut MemoryStore,
    site: &Site,
    way: PublishWay,
) -> Result<Published, PublishError> {
    let setup = PublishSetup {
        repair: true,
        ..setup()
    };
    let mut publisher = Publisher::new(site, setup);
    publisher.way = way;
    publisher.run(store)
}

fn pull(store: &mut MemoryStore, site: &Site) -> PullEnd {
    let mut host = Host::new();
    let end = Pulling::new(&host, 1).run(&mut host, store);
    assert!(end != PullEnd::Done || host.has(site), "another content");
    end
}

fn check(store: &mut MemoryStore) -> Result<(), GcError> {
    let check = GcSetup {
        grace: None,
        ..gc(1)
    };
    Collector::new(check).run(store).map(drop)
}

#[test]
fn a_repair_stores_again_what_is_missing_or_damaged_and_little_else() {
    let mut rng = fastrand::Rng::with_seed(31);
    let (whole, files) = store_of(&mut rng);
    let site = Site::new(&files);
    let harms = [Harm::Deleted, Harm::Changed, Harm::Cut];
    for (object, done) in packs(&whole).iter().flat_map(|o| harms.map(|h| (o, h))) {
        let mut store = whole.clone();
        harm(&mut store, &mut rng, object, done);
        store.take_traffic();
        let published = repair(&mut store, &site, PublishWay::Look).expect("published");

        println!("{object} {done:?}: {published:?}");
        let size = whole.bytes(object).expect("there").len() as u64;
        assert!(published.packs > 0, "{object} {done:?}: not mended");
        assert!(published.stored < size + (1 << 20), "{object} {done:?}");
        assert_eq!(pull(&mut store, &site), PullEnd::Done, "{object} {done:?}");
        assert_eq!(check(&mut store), Ok(()), "{object} {done:?}");
    }
}

#[test]
fn after_any_harm_a_repair_makes_a_whole_repository() {
    for seed in seeds(40) {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore::default();
        let mut files = many_files(&mut rng, 60, 20_000);
        for n in 0..rng.usize(1..5) {
            edit(&mut rng, &mut files);
            files.insert(format!("new{n}"), noise(&mut rng, 300_000));
            Publisher::new(&Site::new(&files), setup())
                .run(&mut store)
                .expect("published");
        }
        if rng.bool() {
            store.now.0 += 100_000;
            Collector::new(gc(seed)).run(&mut store).expect("collected");
        }

        for object in packs(&store) {
            match rng.u32(..6) {
                0 => harm(&mut store, &mut rng, &object, Harm::Deleted),
                1 => harm(&mut store, &mut rng, &object, Harm::Changed),
                2 => harm(&mut store, &mut rng, &object, Harm::Cut),
                _ => {}
            }
        }
        if rng.bool() {
            edit(&mut rng, &mut files);
        }

        let site = Site::new(&files);
        let way = [PublishWay::Look, PublishWay::Begin][rng.usize(..2)].clone();
        store.has_conditions = rng.bool();
        store.fault_every = [0, 20][rng.usize(..2)];
        store.rng = fastrand::Rng::with_seed(seed);
        repair(&mut store, &site, way).expect("published");
        store.fault_every = 0;
        assert_eq!(pull(&mut store, &site), PullEnd::Done, "seed {seed}");
        assert_eq!(check(&mut store), Ok(()), "seed {seed}");
        let again = repair(&mut store, &site, PublishWay::Look).expect("signed again");
        assert_eq!(again.packs, 0, "seed {seed}: it is whole");
    }
}

#[test]
fn a_publication_says_what_it_cannot_read_and_stores_it_again() {
    let mut rng = fastrand::Rng::with_seed(33);
    let (whole, mut files) = store_of(&mut rng);
    files.insert("changing".into(), noise(&mut rng, 500_000));
    let site = Site::new(&files);
    for done in [Harm::Deleted, Harm::Changed] {
        let mut store = whole.clone();
        for object in packs(&whole) {
            match done {
                Harm::Changed => store.overwrite(&object, vec![7; 17 << 20]),
                done => harm(&mut store, &mut rng, &object, done),
            }
        }

        let mut publisher = Publisher::new(&site, setup());
        while publisher.step(&mut store).is_none() {}
        let [note] = publisher.notes[..] else {
            panic!("{:?}", publisher.notes);
        };
        assert_eq!(
            matches!(note, PublishNote::Missing(_)),
            done == Harm::Deleted,
            "{note}"
        );
        assert_eq!(pull(&mut store, &site), PullEnd::Done);
    }
}

#[test]
fn a_publisher_that_may_not_read_fails_with_the_cause() {
    let mut rng = fastrand::Rng::with_seed(34);
    let (whole, mut files) = store_of(&mut rng);
    files.insert("changing".into(), noise(&mut rng, 500_000));
    let site = Site::new(&files);
    for kind in [
        FaultKind::Denied,
        FaultKind::Temporary,
        FaultKind::Permanent,
    ] {
        for way in [PublishWay::Look, PublishWay::Begin] {
            for repairs in [false, true] {
                let mut store = whole.clone();
                store.packs_fail = Some(kind);
                store.take_traffic();
                let setup = PublishSetup {
                    repair: repairs,
                    ..setup()
                };
                let mut publisher = Publisher::new(&site, setup);
                publisher.way = way.clone();
                let end = publisher.run(&mut store);
                let Err(PublishError::Store(fault)) = end else {
                    panic!("{kind:?}: {end:?}");
                };
                assert_eq!(fault.kind, kind);
                assert_eq!(store.take_traffic().puts, 0, "nothing is stored again");
            }
        }
    }
}
