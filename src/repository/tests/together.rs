//! Publishers, hosts and gc at the same time. `MAKUO_REPOSITORY_SEED` replays one seed.

use super::budgets::setup;
use super::site::{Files, Site, edit, many_files, noise, replace};
use super::store::{Collector, Host, MemoryStore, PublishWay, Publisher, PullEnd, Pulling};
use crate::id::Serial;
use crate::repository::gc::{GcError, GcRewrite, GcSetup};
use crate::repository::head::{HeadValidity, SignedHead, head_object};
use crate::repository::publish::{PublishError, PublishSetup};

pub(super) fn seeds(count: u64) -> std::ops::Range<u64> {
    let one = std::env::var("MAKUO_REPOSITORY_SEED").ok();
    let one = one.map(|seed| seed.parse().expect("a number"));
    one.map_or(0..count, |seed: u64| seed..seed + 1)
}

fn gc(seed: u64) -> GcSetup {
    GcSetup {
        grace: 3600,
        rewrites: Some(GcRewrite {
            keep: 2,
            valid_for: HeadValidity::AsBefore,
        }),
        seed,
    }
}

fn serial(store: &MemoryStore) -> Serial {
    let head = store
        .bytes(&head_object(&super::store::www()))
        .expect("a head");
    let signed = SignedHead::decode(&head).expect("a head");
    super::store::verified(&signed).head().serial()
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
fn releases_of_random_edits_come_whole_from_few_packs() {
    for seed in seeds(12) {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore {
            has_conditions: rng.bool(),
            ..MemoryStore::default()
        };
        let mut files = many_files(&mut rng, 300, 3_000);
        let large = noise(&mut rng, 3 << 20);
        files.insert("large".into(), large);
        let mut host = Host::new();

        for _ in 0..12 {
            edit(&mut rng, &mut files);
            let site = Site::new(&files);
            let publisher = Publisher::new(&site, setup());
            publisher.run(&mut store).expect("published");
            if rng.bool() {
                assert_eq!(
                    Pulling::new(&host, seed).run(&mut host, &mut store),
                    PullEnd::Done
                );
                assert!(host.has(&site), "another content");
                host.tidy(&site);
            }
        }

        let site = Site::new(&files);
        store.now.0 += 7200;
        Collector::new(gc(seed)).run(&mut store).expect("collected");
        let mut fresh = Host::new();
        assert_eq!(
            Pulling::new(&fresh, seed).run(&mut fresh, &mut store),
            PullEnd::Done
        );
        assert!(fresh.has(&site), "another content after gc");
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
            let site = Site::new(&files);
            Publisher::new(&site, setup())
                .run(&mut store)
                .expect("published");
        }

        let mut hosts: Vec<Follower> = (0..20).map(|n| Follower::new(seed + n * 1000)).collect();
        let steps = rng.usize(1..2000);
        for host in &mut hosts {
            (0..rng.usize(..steps)).any(|_| host.step(&mut store));
        }

        store.now.0 += 7200;
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
        for files in [&last, &files] {
            let site = Site::new(files);
            Publisher::new(&site, setup())
                .run(&mut clean)
                .expect("published");
        }
        println!("{report:?}: {} and {} alone", store.size(), clean.size());
        assert!(store.size() * 100 < clean.size() * 125, "{report:?}");
        assert!(report.deleted > 0 && report.rewritten > 0, "{report:?}");
    }
}

#[test]
fn what_is_young_stays_and_what_is_old_goes() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut store = MemoryStore::default();
    let site = Site::new(&many_files(&mut rng, 10, 9_000));
    Publisher::new(&site, setup())
        .run(&mut store)
        .expect("published");
    let orphan = crate::repository::pack::PackName(crate::block::BlockHash::of(b"x")).object();
    store.overwrite(&orphan, b"x".to_vec());

    let plain = GcSetup {
        rewrites: None,
        ..gc(1)
    };
    let report = Collector::new(plain.clone())
        .run(&mut store)
        .expect("collected");
    assert_eq!((report.deleted, store.list().len()), (0, 4));
    store.now.0 += 3600;
    let report = Collector::new(plain).run(&mut store).expect("collected");
    assert_eq!((report.deleted, store.list().len()), (1, 3));
    assert!(store.bytes(&orphan).is_none());
}

#[test]
fn many_small_publications_end_in_few_packs() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut store = MemoryStore::default();
    let mut files = many_files(&mut rng, 60, 9_000);
    for n in 0..40 {
        let content = noise(&mut rng, 20_000);
        files.insert(format!("more{n}"), content);
        let site = Site::new(&files);
        // Small trees are stored whole each time; a large file makes this one worth a comparison.
        files
            .entry("large".into())
            .or_insert_with(|| noise(&mut rng, 2 << 20));
        Publisher::new(&site, setup())
            .run(&mut store)
            .expect("published");
    }

    let site = Site::new(&files);
    Publisher::new(&site, setup())
        .run(&mut store)
        .expect("published");
    store.now.0 += 7200;
    Collector::new(gc(1)).run(&mut store).expect("collected");
    store.take_traffic();
    let mut host = Host::new();
    assert_eq!(
        Pulling::new(&host, 1).run(&mut host, &mut store),
        PullEnd::Done
    );
    assert!(host.has(&site));
    let traffic = store.take_traffic();
    assert!(traffic.gets < 20, "{traffic:?}");
}

#[test]
fn two_publishers_at_once_both_publish_or_one_is_told() {
    for seed in seeds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore {
            has_conditions: seed % 2 == 0,
            ..MemoryStore::default()
        };
        let files = many_files(&mut rng, 200, 4_000);
        Publisher::new(&Site::new(&files), setup())
            .run(&mut store)
            .expect("published");

        let sites: Vec<Site> = (0..2)
            .map(|_| {
                let mut files = files.clone();
                edit(&mut rng, &mut files);
                Site::new(&files)
            })
            .collect();
        let mut open: Vec<Publisher> = sites
            .iter()
            .map(|site| Publisher::new(site, setup()))
            .collect();
        while !open.is_empty() {
            let at = rng.usize(..open.len());
            match open[at].step(&mut store) {
                None => {}
                Some(Ok(_)) => drop(open.swap_remove(at)),
                Some(Err(error)) => panic!("seed {seed}: {error}"),
            }
        }

        let mut host = Host::new();
        assert_eq!(
            Pulling::new(&host, seed).run(&mut host, &mut store),
            PullEnd::Done
        );
        assert!(sites.iter().any(|site| host.has(site)), "seed {seed}");
        if store.has_conditions {
            assert_eq!(serial(&store), Serial(3), "seed {seed}: one is lost");
        }
    }
}

#[test]
fn no_publication_is_lost_behind_a_cache_with_old_heads() {
    for seed in seeds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore {
            old_heads: Some(Vec::new()),
            rng: fastrand::Rng::with_seed(seed),
            ..MemoryStore::default()
        };
        let mut files = many_files(&mut rng, 100, 4_000);
        let mut published = 0;
        for _ in 0..8 {
            edit(&mut rng, &mut files);
            let site = Site::new(&files);
            match Publisher::new(&site, setup()).run(&mut store) {
                Ok(_) => published += 1,
                Err(PublishError::Store(_) | PublishError::Outdated(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
            assert_eq!(
                serial(&store),
                Serial(published),
                "seed {seed}: one is lost"
            );
        }

        assert!(published > 4, "seed {seed}: {published} of 8");
        store.now.0 += 7200;
        let collected = Collector::new(gc(seed)).run(&mut store);
        assert!(matches!(
            collected,
            Ok(_) | Err(GcError::Changed(_) | GcError::Missing(_))
        ));

        store.old_heads = None;
        assert_eq!(
            serial(&store),
            Serial(published),
            "seed {seed}: one is lost"
        );
        let mut host = Host::new();
        let end = Pulling::new(&host, seed).run(&mut host, &mut store);
        assert_eq!(end, PullEnd::Done, "seed {seed}");
    }
}

#[test]
fn a_head_that_is_only_signed_again_costs_no_pack() {
    let mut rng = fastrand::Rng::with_seed(13);
    let mut store = MemoryStore::default();
    let site = Site::new(&many_files(&mut rng, 30, 2_000));
    Publisher::new(&site, setup())
        .run(&mut store)
        .expect("published");
    let before = store.list().len();
    store.take_traffic();
    store.now.0 += 1000;

    let mut publisher = Publisher::new(&site, setup());
    publisher.way = PublishWay::Renew;
    publisher.run(&mut store).expect("signed again");
    assert_eq!(
        (store.take_traffic().requests(), store.list().len()),
        (2, before)
    );

    let head = store
        .bytes(&head_object(&super::store::www()))
        .expect("a head");
    let head = super::store::verified(&SignedHead::decode(&head).expect("a head"));
    assert_eq!(head.head().made, store.now);
    let mut host = Host::new();
    assert_eq!(
        Pulling::new(&host, 1).run(&mut host, &mut store),
        PullEnd::Done
    );
    assert!(host.has(&site));
}

#[test]
fn a_publisher_that_dies_after_any_step_leaves_the_old_or_the_new_release() {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut files = many_files(&mut rng, 300, 4_000);
    let old = Site::new(&files);
    let mut before = MemoryStore::default();
    Publisher::new(&old, setup())
        .run(&mut before)
        .expect("published");
    for _ in 0..5 {
        edit(&mut rng, &mut files);
    }
    let new = Site::new(&files);

    for steps in 0.. {
        let mut store = before.clone();
        let mut publisher = Publisher::new(&new, setup());
        let ended = (0..steps).any(|_| publisher.step(&mut store).is_some());

        let mut host = Host::new();
        assert_eq!(
            Pulling::new(&host, 1).run(&mut host, &mut store),
            PullEnd::Done
        );
        assert!(host.has(&old) || host.has(&new), "after {steps} steps");
        edit(&mut rng, &mut files);
        let next = Site::new(&files);
        Publisher::new(&next, setup())
            .run(&mut store)
            .expect("repaired");
        assert_eq!(
            Pulling::new(&host, 1).run(&mut host, &mut store),
            PullEnd::Done
        );
        assert!(host.has(&next), "after {steps} steps");
        if ended {
            return;
        }
    }
}

#[test]
fn a_publisher_during_a_gc_uses_no_pack_that_is_gone() {
    for seed in seeds(30) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore::default();
        let mut files = many_files(&mut rng, 100, 20_000);
        for _ in 0..5 {
            Publisher::new(&Site::new(&files), setup())
                .run(&mut store)
                .expect("published");
            replace(&mut rng, &mut files, 2, 20_000);
        }

        store.now.0 += 7200;
        let site = Site::new(&files);
        let mut publisher = Publisher::new(&site, setup());
        let mut collector = Collector::new(gc(seed));
        let (mut published, mut collected) = (None, None);
        while published.is_none() || collected.is_none() {
            if published.is_none() && (collected.is_some() || rng.bool()) {
                published = publisher.step(&mut store);
            } else {
                collected = collector.step(&mut store);
            }
        }

        assert!(published.expect("an end").is_ok(), "seed {seed}");
        assert!(
            matches!(
                collected,
                Some(Ok(_) | Err(GcError::Changed(_) | GcError::Missing(_)))
            ),
            "seed {seed}: {collected:?}"
        );
        let mut host = Host::new();
        assert_eq!(
            Pulling::new(&host, seed).run(&mut host, &mut store),
            PullEnd::Done
        );
        assert!(host.has(&site), "seed {seed}");
    }
}

#[test]
fn pages_with_the_same_bytes_in_two_packs_are_two_pages() {
    let mut rng = fastrand::Rng::with_seed(11);
    // A name at which a page ends: the tree with a further file has two pages and an index.
    let ends_page = |name: &str| {
        let files: Files = [(name.to_string(), vec![1]), ("z".into(), vec![2])].into();
        Site::new(&files).root().nodes == 3
    };
    let name = (0..)
        .map(|n| format!("m{n}"))
        .find(|name| ends_page(name))
        .expect("some");

    let mut files: Files = [("a".to_string(), noise(&mut rng, 8192))].into();
    files.insert(name, noise(&mut rng, 8192));
    let mut store = MemoryStore::default();
    let few = PublishSetup {
        keep: 1,
        level: None,
        ..setup()
    };
    Publisher::new(&Site::new(&files), few.clone())
        .run(&mut store)
        .expect("published");

    for name in ["y", "z"] {
        files.insert(name.into(), noise(&mut rng, 8192));
    }
    // Beyond the bytes for which no comparison is made.
    files.insert("zz".into(), noise(&mut rng, 16 << 10));
    let large = noise(&mut rng, 300 << 10);
    files.insert("zzz".into(), large);
    let site = Site::new(&files);
    Publisher::new(&site, few)
        .run(&mut store)
        .expect("published");
    let mut host = Host::new();
    assert_eq!(
        Pulling::new(&host, 1).run(&mut host, &mut store),
        PullEnd::Done
    );
    assert!(host.has(&site));
}

#[test]
fn an_older_release_is_not_published_over_a_newer_one() {
    let mut rng = fastrand::Rng::with_seed(12);
    let mut store = MemoryStore::default();
    let site = Site::new(&many_files(&mut rng, 3, 1_000));
    Publisher::new(&site, setup())
        .run(&mut store)
        .expect("published");

    let mut machine = crate::repository::publish::Publish::new(setup());
    let head = store
        .bytes(&head_object(&super::store::www()))
        .expect("a head");
    let head = super::store::verified(&SignedHead::decode(&head).expect("a head"));
    let other = Site::new(&many_files(&mut rng, 3, 1_000));
    machine.begin(Some(&head), other.release(Serial(1)));
    let step = machine.poll(crate::units::Moment(0));
    assert!(
        matches!(
            step,
            crate::repository::publish::PublishStep::Failed(PublishError::Outdated(Serial(1)))
        ),
        "{step:?}"
    );
}
