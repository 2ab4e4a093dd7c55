//! Requests and bytes of publications and pulls.

use super::host::{Host, PullEnd, Pulling};
use super::publisher::Publisher;
use super::site::{Files, Site, many_files, noise};
use super::store::{MemoryStore, www};
use crate::block::frame::Level;
use crate::repository::head::HeadValidity;
use crate::repository::publish::PublishSetup;

pub(crate) fn setup() -> PublishSetup {
    PublishSetup {
        tree: www(),
        keep: Some(3),
        level: Level::new(3),
        valid_for: HeadValidity::For(86_400),
        repair: false,
        pin: None,
        seed: 1,
    }
}

fn publish(store: &mut MemoryStore, files: &Files) -> Site {
    let site = Site::new(files);
    let done = Publisher::new(&site, setup()).run(store);
    done.expect("published");
    site
}

fn pull(store: &mut MemoryStore, host: &mut Host) -> PullEnd {
    Pulling::new(host, 1).run(host, store)
}

#[test]
fn a_first_pull_reads_what_is_stored_in_few_requests() {
    let mut rng = fastrand::Rng::with_seed(1);
    // 64 MiB here; the requests for data are counted for 256 MiB below.
    let large: Files = (0..4)
        .map(|n| (format!("file{n}"), noise(&mut rng, 16 << 20)))
        .collect();
    let small = many_files(&mut rng, 4_000, 16 << 10);

    for files in [large, small] {
        let mut store = MemoryStore::default();
        let site = publish(&mut store, &files);
        store.take_traffic();

        let mut host = Host::new();
        assert_eq!(pull(&mut store, &mut host), PullEnd::Done);
        assert!(host.has(&site));
        let traffic = store.take_traffic();
        println!("first pull: {traffic:?}, stored {}", store.size());
        // 256 MiB have 4 times as many packs, and the same number of other requests.
        let packs = store.list().len() as u64 - 2;
        let others = traffic.gets - 2 * packs;
        assert!(8 * packs + others < 45, "{traffic:?} of {packs} packs");
        assert!(
            traffic.out as f64 <= 1.02 * store.size() as f64,
            "{traffic:?}"
        );

        assert_eq!(pull(&mut store, &mut host), PullEnd::Unchanged);
        let traffic = store.take_traffic();
        assert_eq!((traffic.gets, traffic.out), (1, 0));
    }
}

#[test]
fn a_small_change_costs_little() {
    let mut rng = fastrand::Rng::with_seed(2);
    let mut files = many_files(&mut rng, 10_000, 8 << 10);
    let mut store = MemoryStore::default();
    publish(&mut store, &files);
    let mut host = Host::new();
    assert_eq!(pull(&mut store, &mut host), PullEnd::Done);

    for _ in 0..6 {
        let count = files.len();
        let (_, content) = files.iter_mut().nth(rng.usize(..count)).expect("there");
        *content = noise(&mut rng, 8 << 10);

        store.take_traffic();
        let site = publish(&mut store, &files);
        let traffic = store.take_traffic();
        println!("publish: {traffic:?}");
        assert!(traffic.requests() <= 5, "{traffic:?}");
        assert!(traffic.bytes() < 300_000, "{traffic:?}");

        assert_eq!(pull(&mut store, &mut host), PullEnd::Done);
        let traffic = store.take_traffic();
        println!("pull: {traffic:?}");
        assert!(host.has(&site));
        assert!(traffic.requests() <= 6, "{traffic:?}");
        assert!(traffic.bytes() < 300_000, "{traffic:?}");
    }
}

#[test]
fn content_that_moved_was_copied_or_came_back_is_not_stored_again() {
    let mut rng = fastrand::Rng::with_seed(4);
    let before = many_files(&mut rng, 4_000, 6_000);
    let mut store = MemoryStore::default();
    publish(&mut store, &before);
    let first = store.size();
    let mut costs = |files: &Files| {
        store.take_traffic();
        let site = publish(&mut store, files);
        let traffic = store.take_traffic();
        let mut host = Host::new();
        assert_eq!(pull(&mut store, &mut host), PullEnd::Done);
        assert!(host.has(&site));
        traffic.into
    };

    let renamed = |prefix: &str| -> Files {
        let rename =
            |(name, content): (&String, &Vec<u8>)| (format!("{prefix}-{name}"), content.clone());
        before.iter().map(rename).collect()
    };
    let moved = costs(&renamed("moved"));
    let mut both = renamed("moved");
    both.extend(renamed("copy"));

    let copied = costs(&both);
    let back = costs(&before);
    println!("{moved}, {copied} and {back} of {first} bytes");
    assert!(20 * moved.max(copied).max(back) < first);
}
