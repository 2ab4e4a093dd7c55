//! Any two trees: the plan makes the release, and nothing else happens.

use super::*;
use crate::manifest::node::tests::an_entry;

/// Generates entries with all their parents; a parent is a directory.
fn a_tree() -> impl Strategy<Value = Memory> {
    prop::collection::vec(an_entry(), 0..25).prop_map(|entries| {
        let mut all = Memory::default();

        for e in entries {
            let mut parent = e.path.parent();
            while let Some(path) = parent {
                parent = path.parent();
                all.0.insert(
                    path.clone(),
                    Entry {
                        kind: EntryKind::Directory,
                        path,
                        ..e.clone()
                    },
                );
            }
            all.0.entry(e.path.clone()).or_insert(e);
        }
        all
    })
}

proptest! {
    #[test]
    fn applied_plans_make_the_release_and_once_is_enough(have in a_tree(), want in a_tree()) {
        let none = filter(&[]);
        let rules = Rules { xattrs: true, ..deleting() };
        let plan = run(&have, &want, &rules, &none).expect("accepted");
        let after = apply(&have, &plan);
        let expected: Vec<TreePath> = want.0.keys().cloned().collect();
        prop_assert_eq!(after.0.keys().cloned().collect::<Vec<_>>(), expected);
        for (path, e) in &want.0 {
            prop_assert_eq!(&after.0[path].kind, &e.kind);
        }

        let again = run(&after, &want, &rules, &none).expect("accepted");
        prop_assert!(again.is_clean() && again.changes.is_empty(), "{:?}", shown(&again));
        prop_assert!(again.wants.is_empty());
    }

    #[test]
    fn what_is_protected_is_never_touched(
        have in a_tree(),
        want in a_tree(),
        exclude in any::<bool>(),
    ) {
        let patterns = ["a*", "/b/c", "*.d", "c/"];
        let (protect, rules) = if exclude {
            let excludes = patterns.iter().map(|t| Exclude::at_top(*t)).collect();
            (filter(&[]), Rules { excludes, ..deleting() })
        } else {
            (filter(&patterns), deleting())
        };

        let guarded = filter(&patterns);
        if let Ok(plan) = run(&have, &want, &rules, &protect) {
            let after = apply(&have, &plan);
            for (path, e) in &have.0 {
                let is_dir = e.kind == EntryKind::Directory;
                if guarded.matches(path, is_dir) {
                    prop_assert_eq!(after.0.get(path), Some(e), "{} was touched", path);
                    let mut parent = path.parent();
                    while let Some(above) = parent {
                        prop_assert_eq!(&after.0[&above].kind, &EntryKind::Directory);
                        parent = above.parent();
                    }
                }
            }
            for path in after.0.keys().filter(|path| !have.0.contains_key(*path)) {
                let is_dir = after.0[path].kind == EntryKind::Directory;
                prop_assert!(!guarded.matches(path, is_dir), "{} was made", path);
            }
        }
    }

    #[test]
    fn without_deletion_every_extra_stays(have in a_tree(), want in a_tree()) {
        let rules = Rules { delete_extras: false, ..deleting() };
        if let Ok(plan) = run(&have, &want, &rules, &filter(&[])) {
            prop_assert_eq!(plan.summary.deleted, 0);
            let after = apply(&have, &plan);
            prop_assert!(have.0.keys().all(|path| after.0.contains_key(path)));
            prop_assert!(want.0.keys().all(|path| after.0.contains_key(path)));
        }
    }

    #[test]
    fn every_block_is_fetched_or_found(have in a_tree(), want in a_tree()) {
        let plan = run(&have, &want, &deleting(), &filter(&[])).expect("accepted");
        let mut fetched = Vec::new();
        plan.each_fetched(&NoLists, |_, block| fetched.push(*block)).expect("no lists");

        for change in &plan.changes {
            let content = plan.content(&change);
            let blocks = content.map_or(Vec::new(), |content| direct(content).expect("blocks"));
            for block in &blocks {
                let fetched = fetched.contains(block);
                prop_assert!(fetched != plan.reuse.contains_key(&block.hash));
            }
        }

        let wanted: u64 = plan.wants.iter().map(|r| r.end - r.start).sum();
        prop_assert_eq!(wanted, fetched.len() as u64);
        prop_assert!(plan.wants.windows(2).all(|w| w[0].end < w[1].start));
    }
}
