//! Hosts and publishers on a store that fails. `MAKUO_REPOSITORY_SEED` replays one seed.

use super::budgets::setup;
use super::host::{Host, PullEnd, Pulling};
use super::publisher::Publisher;
use super::site::{Site, edit, many_files, noise};
use super::store::{MemoryStore, signer, www};
use super::together::seeds;
use crate::id::TreeName;
use crate::keys::{Namespace, Signer};
use crate::repository::head::{Head, SignedHead, head_object};
use crate::repository::object::ObjectPath;
use crate::repository::publish::PublishSetup;
use crate::repository::pull::PullError;
use crate::repository::record::RecordError;

/// A store with two releases, and the newer one.
fn store_of(seed: u64) -> (MemoryStore, Site) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut store = MemoryStore::default();
    let mut files = many_files(&mut rng, 120, 2_000);
    let large = noise(&mut rng, 600 << 10);
    files.insert("large".into(), large);
    Publisher::new(&Site::new(&files), setup())
        .run(&mut store)
        .expect("published");

    edit(&mut rng, &mut files);
    let site = Site::new(&files);
    Publisher::new(&site, setup())
        .run(&mut store)
        .expect("published");
    store.take_traffic();
    (store, site)
}

#[test]
fn random_faults_delay_a_pull_and_little_comes_twice() {
    let (mut faults, mut extra, mut all, mut done) = (0, 0, 0, 0);
    for seed in seeds(300) {
        let (mut store, site) = store_of(seed % 3);
        let mut host = Host::new();
        assert_eq!(
            Pulling::new(&host, seed).run(&mut host, &mut store),
            PullEnd::Done
        );
        let plain = store.take_traffic();

        store.fault_every = 3;
        store.rng = fastrand::Rng::with_seed(seed);
        let mut host = Host::new();
        let end = Pulling::new(&host, seed).run(&mut host, &mut store);
        let traffic = store.take_traffic();
        faults += traffic.faults;
        extra += traffic.out.saturating_sub(plain.out);
        all += plain.out;

        match end {
            PullEnd::Done => {
                assert!(host.has(&site), "seed {seed}");
                done += 1;
            }
            // A fault hit the one head or marker more often than a host is patient.
            PullEnd::Failed(PullError::Store(_) | PullError::Head(_)) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
    }

    println!("{faults} faults, {done} pulls, {extra} of {all} bytes twice");
    assert!(extra * 20 < all, "{extra} of {all} bytes twice");
    let is_one = seeds(2).count() == 1;
    assert!(
        faults > 400 && done > 280 || is_one,
        "{faults} faults, {done} pulls"
    );
}

#[test]
fn random_faults_delay_a_publication() {
    let (mut faults, mut done) = (0, 0);
    for seed in seeds(200) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = MemoryStore {
            fault_every: 4,
            rng: fastrand::Rng::with_seed(seed),
            ..MemoryStore::default()
        };
        let mut files = many_files(&mut rng, 100, 5_000);
        for _ in 0..3 {
            edit(&mut rng, &mut files);
            let site = Site::new(&files);
            let published = Publisher::new(&site, setup()).run(&mut store);
            let faulty = std::mem::take(&mut store.fault_every);
            faults += store.take_traffic().faults;
            if published.is_ok() {
                done += 1;
                let mut host = Host::new();
                assert_eq!(
                    Pulling::new(&host, 1).run(&mut host, &mut store),
                    PullEnd::Done
                );
                assert!(host.has(&site), "seed {seed}");
            }
            store.fault_every = faulty;
        }
    }

    println!("{faults} faults, {done} of 600 publications");
    let is_one = seeds(2).count() == 1;
    assert!(
        faults > 700 && done > 570 || is_one,
        "{faults} faults, {done} publications"
    );
}

#[test]
fn hosts_that_want_equal_blocks_by_each_ordinal_get_all_of_them() {
    let mut twins = 0;
    for seed in seeds(60) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut files = many_files(&mut rng, 20, 3_000);
        for n in 0..60 {
            let copied = files.values().nth(rng.usize(..20)).cloned();
            files.insert(format!("copy{n}"), copied.expect("there"));
        }
        let site = Site::new(&files);
        let mut store = MemoryStore::default();
        Publisher::new(&site, setup())
            .run(&mut store)
            .expect("published");

        store.fault_every = [0, 3, 6][rng.usize(..3)];
        store.rng = fastrand::Rng::with_seed(seed);
        let mut host = Host::new();
        host.wants_twins = true;
        match Pulling::new(&host, seed).run(&mut host, &mut store) {
            PullEnd::Done => {
                assert!(host.has(&site) && host.came.len() == 80, "seed {seed}");
                twins += u32::from(store.traffic.faults > 0);
            }
            PullEnd::Failed(PullError::Store(_) | PullError::Head(_)) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    println!("{twins} pulls with faults");
    assert!(twins > 10 || seeds(2).count() == 1);
}

/// Publishes `site` as the tree `db`, and a head of `www` that names this release.
fn head_of_another_tree(store: &mut MemoryStore, site: &Site) {
    let other = TreeName::new("db").expect("legal");
    let mut site = site.clone();
    site.tree = other.clone();
    let setup = PublishSetup {
        tree: other.clone(),
        ..setup()
    };
    Publisher::new(&site, setup).run(store).expect("published");

    let bytes = store.bytes(&head_object(&other)).expect("a head");
    let signed = SignedHead::decode(&bytes).expect("legal");
    let mut head = Head::decode(&signed.head).expect("legal");
    head.tree = www();
    let head = head.encode();
    let signature = signer().sign(Namespace::HEAD, &head).expect("signs");
    let signed = SignedHead {
        head,
        signature: signature.as_bytes().to_vec(),
    };
    store.overwrite(&head_object(&www()), signed.encode());
}

#[test]
fn a_head_that_names_the_release_of_another_tree_is_refused() {
    let mut rng = fastrand::Rng::with_seed(1);
    let site = Site::new(&many_files(&mut rng, 20, 2_000));
    let mut store = MemoryStore::default();
    head_of_another_tree(&mut store, &site);

    let mut host = Host::new();
    let end = Pulling::new(&host, 1).run(&mut host, &mut store);
    let error = RecordError::OtherTree(www(), TreeName::new("db").expect("legal"));
    assert_eq!(end, PullEnd::Failed(PullError::Record(error)));
    assert!(host.pulled.is_none() && host.nodes.0.is_empty());
}

/// Changes some bytes of an object: flips, cuts, repeats, foreign bytes.
pub(super) fn mutate(rng: &mut fastrand::Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len().max(1));
        match rng.u32(..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), rng.u8(..)),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 => {
                let len = rng.usize(..64);
                let foreign = noise(rng, len);
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), foreign);
            }
            _ if !bytes.is_empty() => bytes[at] ^= 1 << rng.u32(..8),
            _ => bytes.push(0),
        }
    }
    bytes
}

#[test]
fn mutated_objects_have_no_effect() {
    let (whole, site) = store_of(1);
    let old = whole.clone();
    let objects: Vec<ObjectPath> = whole.list().into_iter().map(|l| l.object).collect();
    let head = head_object(&www());
    let (mut refused, mut unharmed) = (0, 0);
    for seed in seeds(400) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut store = old.clone();
        let object = if rng.bool() {
            &head
        } else {
            &objects[rng.usize(..objects.len())]
        };
        let bytes = mutate(&mut rng, &store.bytes(object).expect("there"));
        let same = store.bytes(object).as_deref() == Some(&bytes[..]);
        store.overwrite(object, bytes);

        let mut host = Host::new();
        match Pulling::new(&host, seed).run(&mut host, &mut store) {
            PullEnd::Done => {
                assert!(host.has(&site), "seed {seed}: another content");
                assert!(*object != head || same, "seed {seed}: a forged head");
                unharmed += 1;
            }
            PullEnd::Failed(_) => {
                assert!(host.release.is_none() && !same, "seed {seed}");
                refused += 1;
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    println!("{refused} refused, {unharmed} unharmed");
    assert!(refused > 200 || seeds(2).count() == 1);
}

#[test]
fn a_store_that_is_gone_is_told_from_one_without_the_tree() {
    let mut store = MemoryStore::default();
    let pull = |store: &mut MemoryStore| {
        let mut host = Host::new();
        Pulling::new(&host, 1).run(&mut host, store)
    };
    assert_eq!(pull(&mut store), PullEnd::Failed(PullError::NoRepository));

    let marker = crate::repository::marker::marker_object();
    store.overwrite(&marker, crate::repository::marker::marker());
    assert_eq!(pull(&mut store), PullEnd::Failed(PullError::NoTree(www())));
    store.overwrite(&marker, b"format = 2\n".to_vec());
    let PullEnd::Failed(error) = pull(&mut store) else {
        panic!("it is a later format");
    };
    assert!(
        error.to_string().contains("install a newer makuo"),
        "{error}"
    );

    let (mut store, _) = store_of(1);
    for listed in store
        .list()
        .iter()
        .filter(|l| l.object.as_str().starts_with("packs/"))
    {
        store.delete(&listed.object);
    }
    assert!(matches!(
        pull(&mut store),
        PullEnd::Failed(PullError::Missing(_))
    ));
}
