//! An index must not change a result: random trees under random changes, scanned with and without
//! an index.
//!
//! `MAKUO_INDEX_SEED` sets the seed, `MAKUO_INDEX_ROUNDS` the number of rounds.

#![expect(
    clippy::disallowed_methods,
    reason = "what is scanned is touched by the system's clock"
)]

use std::sync::Arc;
use std::time::SystemTime;

use super::vandal::{REST, Vandal, filter, number, said};
use super::world::scratch;
use crate::manifest::rules::Exclude;
use crate::tree::fs::root::Root;
use crate::tree::index::Index;
use crate::tree::scan::{ScanOptions, scan};

#[test]
fn a_scan_with_an_index_equals_one_without() {
    let seed = number("MAKUO_INDEX_SEED", 1);
    let rounds = number("MAKUO_INDEX_ROUNDS", 30);
    println!("MAKUO_INDEX_SEED={seed} MAKUO_INDEX_ROUNDS={rounds}");
    let dir = scratch();
    let mut vandal = Vandal::new(seed, dir.path(), "top");
    let root = Root::open(&vandal.top).unwrap();
    (0..100).for_each(|_| vandal.act());

    let mut base = ScanOptions {
        threads: 2,
        ..ScanOptions::new(SystemTime::UNIX_EPOCH)
    };

    let path = dir.path().join("index");
    for round in 0..rounds {
        for _ in 0..vandal.rng.usize(..8) {
            vandal.act();
        }
        if vandal.rng.u8(..8) == 0 {
            let rng = &mut vandal.rng;
            base.paths.closed = vec![filter(rng)];
            base.paths.unhashed = vec![filter(rng)];
            base.paths.excludes.clear();
            if rng.bool() {
                base.paths.excludes.push(Exclude {
                    base: None,
                    pattern: "*.tmp".into(),
                });
            }
        }
        // Some scans follow the changes as closely as possible.
        if vandal.rng.u8(..4) > 0 {
            std::thread::sleep(REST);
        }
        let options = ScanOptions {
            started: SystemTime::now(),
            ..base.clone()
        };
        let old = Index::open(&path, root.id()).map(Arc::new);
        let with = scan(&root, &options, old.as_ref(), &path).unwrap();
        let without = scan(&root, &options, None, &dir.path().join("fresh")).unwrap();
        assert_eq!(
            said(&with.index),
            said(&without.index),
            "seed {seed}, round {round}"
        );
        assert_eq!(with.top, without.top, "seed {seed}, round {round}");
        let totals = |scanned: &crate::tree::Scanned| scanned.index.totals();
        assert_eq!(
            totals(&with),
            totals(&without),
            "seed {seed}, round {round}"
        );
        if with.index.totals().unread == 0 {
            assert_eq!(
                with.index.root(),
                without.index.root(),
                "seed {seed}, round {round}"
            );
        }
    }
}
