//! Publications of content that a repository has: the head is signed again, or an earlier release
//! comes back. `MAKUO_REPOSITORY_SEED` replays one seed.

use super::budgets::setup;
use super::collector::Collector;
use super::host::{Host, PullEnd, Pulling};
use super::publisher::{PublishWay, Publisher};
use super::site::{Site, edit, many_files, noise};
use super::store::{MemoryStore, Traffic, www};
use super::together::seeds;
use crate::id::Serial;
use crate::repository::gc::{GcRewrite, GcSetup};
use crate::repository::head::{Head, SignedHead, head_object};
use crate::repository::publish::{PublishError, Published};
use crate::units::WallTime;

fn publish(
    store: &mut MemoryStore,
    site: &Site,
    way: PublishWay,
) -> Result<Published, PublishError> {
    let mut publisher = Publisher::new(site, setup());
    publisher.way = way;
    publisher.run(store)
}

fn head(store: &MemoryStore) -> Head {
    let bytes = store.bytes(&head_object(&www())).expect("a head");
    let signed = SignedHead::decode(&bytes).expect("a head");
    Head::decode(&signed.head).expect("a head")
}

#[track_caller]
fn takes(store: &mut MemoryStore, host: &mut Host, site: &Site) {
    let end = Pulling::new(host, 1).run(host, store);
    assert_eq!(end, PullEnd::Done);
    assert!(host.has(site));
}

#[test]
fn unchanged_content_keeps_its_serial_and_costs_no_pack() {
    let mut rng = fastrand::Rng::with_seed(21);
    let mut store = MemoryStore::default();
    let mut files = many_files(&mut rng, 900, 4_000);
    publish(&mut store, &Site::new(&files), PublishWay::Look).expect("published");
    for round in 0..3 {
        let site = Site::new(&files);
        let before = (store.list().len(), head(&store));
        store.take_traffic();
        store.now.0 += 1000;
        let again = publish(&mut store, &site, PublishWay::Look).expect("signed again");

        assert_eq!((store.take_traffic().requests(), again.packs), (3, 0));
        let now = head(&store);
        assert_eq!(
            (store.list().len(), &now.kept),
            (before.0, &before.1.kept),
            "round {round}"
        );
        assert_eq!(
            (now.made, now.valid_until),
            (store.now, Some(WallTime(store.now.0 + 86_400)))
        );
        assert_eq!(again.valid_until, now.valid_until);

        edit(&mut rng, &mut files);
        let site = Site::new(&files);
        publish(&mut store, &site, PublishWay::Look).expect("published");
        assert_eq!(head(&store).serial(), Serial(round + 2));
        takes(&mut store, &mut Host::new(), &site);
    }
}

#[test]
fn a_look_at_the_newest_release_costs_nothing_more() {
    for seed in seeds(40) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut files = many_files(&mut rng, 400, 3_000);
        let mut store = MemoryStore::default();
        publish(&mut store, &Site::new(&files), PublishWay::Begin).expect("published");
        for _ in 0..3 {
            edit(&mut rng, &mut files);
            if rng.bool() {
                let large = noise(&mut rng, 700_000);
                files.insert(format!("large{}", rng.u8(..)), large);
            }
            let site = Site::new(&files);
            let mut other = store.clone();
            let cost = |store: &mut MemoryStore, way| -> Traffic {
                store.take_traffic();
                publish(store, &site, way).expect("published");
                store.take_traffic()
            };
            let plain = cost(&mut other, PublishWay::Begin);
            let looked = cost(&mut store, PublishWay::Look);
            // Without a look few new bytes are stored without a comparison.
            assert!(
                looked.requests() <= plain.requests() + 1 && looked.into <= plain.into,
                "seed {seed}: {looked:?}, {plain:?}"
            );
            takes(&mut store, &mut Host::new(), &site);
        }
    }
}

#[test]
fn a_look_goes_on_when_the_newest_release_is_damaged_or_changes() {
    for seed in seeds(200) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore {
            rng: fastrand::Rng::with_seed(seed),
            ..MemoryStore::default()
        };
        let mut files = many_files(&mut rng, 60, 6_000);
        let first = Site::new(&files);
        publish(&mut store, &first, PublishWay::Begin).expect("published");
        let is_same = rng.bool();
        if !is_same {
            edit(&mut rng, &mut files);
        }
        let site = Site::new(&files);

        if rng.bool() {
            store.fault_every = 3;
        } else {
            for listed in store.list() {
                if listed.object.is_immutable() {
                    store.delete(&listed.object);
                }
            }
        }
        let mut publisher = Publisher::new(&site, setup());
        publisher.way = PublishWay::Look;
        let meets_another = rng.usize(1..12);
        let mut end = None;
        while end.is_none() && publisher.steps < meets_another as u64 {
            end = publisher.step(&mut store);
        }
        if rng.bool() {
            let faulty = std::mem::take(&mut store.fault_every);
            publish(&mut store, &first, PublishWay::Begin).expect("published");
            store.fault_every = faulty;
        }

        let is_over = end.is_some();
        let published = end.unwrap_or_else(|| publisher.run(&mut store));
        store.fault_every = 0;
        if !is_over && published.is_ok() {
            takes(&mut store, &mut Host::new(), &site);
        }
    }
}

#[test]
fn an_earlier_release_comes_back_as_one_record() {
    let mut rng = fastrand::Rng::with_seed(23);
    let mut store = MemoryStore::default();
    let mut files = many_files(&mut rng, 700, 5_000);
    let old = Site::new(&files);
    publish(&mut store, &old, PublishWay::Begin).expect("published");
    let mut host = Host::new();
    takes(&mut store, &mut host, &old);
    let earlier = host.release.clone().expect("pulled");

    (0..40).for_each(|_| edit(&mut rng, &mut files));
    let bad = Site::new(&files);
    publish(&mut store, &bad, PublishWay::Begin).expect("published");
    takes(&mut store, &mut host, &bad);
    store.take_traffic();
    let restored =
        publish(&mut store, &old, PublishWay::Restore(Box::new(earlier))).expect("published");

    let traffic = store.take_traffic();
    assert_eq!((traffic.requests(), restored.blocks), (3, 0));
    assert!(traffic.into < 5000, "{traffic:?}");
    assert_eq!(head(&store).serial(), Serial(3));
    takes(&mut store, &mut host, &old);
    takes(&mut store, &mut Host::new(), &old);

    let rewrites = GcRewrite { keep: Some(1) };
    store.now.0 += 100_000;
    let gc = GcSetup {
        grace: Some(10),
        no_trees: false,
        rewrites: Some(rewrites),
        seed: 1,
    };
    Collector::new(gc).run(&mut store).expect("collected");
    assert_eq!(head(&store).kept.len(), 1);
    takes(&mut store, &mut Host::new(), &old);
}

#[test]
fn two_publishers_of_the_same_content_make_one_release() {
    let mut renewals = 0;
    for seed in seeds(200) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut files = many_files(&mut rng, 40, 4_000);
        let mut store = MemoryStore {
            has_conditions: rng.bool(),
            rng: fastrand::Rng::with_seed(seed),
            ..MemoryStore::default()
        };
        publish(&mut store, &Site::new(&files), PublishWay::Begin).expect("published");
        edit(&mut rng, &mut files);
        let site = Site::new(&files);

        let mut ends = [None, None];
        // Their releases differ in the time alone.
        let mut publishers = [0, 1].map(|seconds| {
            let mut own = site.clone();
            own.created.0 += seconds;
            let mut publisher = Publisher::new(&own, setup());
            publisher.way = PublishWay::Look;
            publisher
        });
        while ends.iter().any(Option::is_none) {
            let at = rng.usize(..2);
            if ends[at].is_none() {
                ends[at] = publishers[at].step(&mut store);
            }
        }

        for end in ends {
            end.expect("ended").expect("published");
        }
        renewals += publishers.iter().map(|p| p.found).sum::<u32>();
        assert_eq!(head(&store).serial(), Serial(2), "seed {seed}");
        takes(&mut store, &mut Host::new(), &site);
    }
    assert!(renewals > 0 || seeds(2).count() == 1);
}
