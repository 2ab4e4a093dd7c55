//! Decoders on 40,000 mutated objects.

use super::budgets::setup;
use super::faults::mutate;
use super::publisher::Publisher;
use super::site::{Site, many_files};
use super::store::{MemoryStore, NOW, keys, verified, www};
use crate::block::BlockHash;
use crate::repository::head::{SignedHead, head_object};
use crate::repository::places::Places;
use crate::repository::record::ReleaseRecord;

#[test]
fn forty_thousand_mutated_objects_are_refused_or_the_same() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut store = MemoryStore::default();
    let site = Site::new(&many_files(&mut rng, 20, 500));
    Publisher::new(&site, setup())
        .run(&mut store)
        .expect("published");

    let head = store.bytes(&head_object(&www())).expect("a head");
    let signed = SignedHead::decode(&head).expect("legal");
    let kept = verified(&signed).head().kept[0];
    let pack = store.bytes(&kept.pack.object()).expect("a pack");
    let bytes = |offset: u32, len: u32| &pack[offset as usize..(offset + len) as usize];
    let record = bytes(kept.offset, kept.len);
    let root = ReleaseRecord::decode(record, kept.pack, &kept.hash)
        .expect("legal")
        .root;
    let page = bytes(root.places.extent.offset, root.places.extent.len);
    assert!(root.places.open(page).is_some());

    for _ in 0..14_000 {
        let wrong = mutate(&mut rng, &head);
        let read = SignedHead::decode(&wrong).ok();
        let trusted = read.and_then(|s| s.verify(&www(), &keys(), None, NOW).ok());
        assert!(trusted.is_none() || trusted == Some(verified(&signed)));

        let wrong = mutate(&mut rng, record);
        let hash = ReleaseRecord::decode(&wrong, kept.pack, &kept.hash);
        assert!(hash.is_err() || wrong == record);
        // A publisher could sign such a record.
        let _ = ReleaseRecord::decode(&wrong, kept.pack, &BlockHash::of(&wrong));

        let wrong = mutate(&mut rng, page);
        assert!(root.places.open(&wrong).is_none() || wrong == page);
        if let Ok(places) = Places::decode(&wrong, kept.pack) {
            let all = places.blocks().count() + 2 * places.children().count();
            assert_eq!(all, places.block_count() + 2 * places.child_count());
        }
    }
}
