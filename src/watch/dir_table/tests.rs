//! Tests of the table of directories.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn path(dirs: &DirTable, watch: Watch) -> Option<String> {
    let mut path = Vec::new();
    let there = dirs.path(dirs.of(watch)?, &mut path);
    there.then(|| String::from_utf8(path).expect("UTF-8"))
}

#[test]
fn a_rename_takes_along_what_is_below() {
    let mut dirs = DirTable::new(1);
    let PutResult::New(a) = dirs.put(TOP_DIR, b"a", 2) else {
        panic!("new")
    };

    let PutResult::New(b) = dirs.put(a, b"b", 3) else {
        panic!("new")
    };

    dirs.put(b, b"c", 4);
    assert_eq!(path(&dirs, 4).as_deref(), Some("a/b/c"));
    assert_eq!(dirs.put(TOP_DIR, b"z", 3), PutResult::Moved(b));
    assert_eq!(
        (path(&dirs, 4).as_deref(), path(&dirs, 2).as_deref()),
        (Some("z/c"), Some("a"))
    );

    assert_eq!(dirs.put(TOP_DIR, b"z", 3), PutResult::Known(b));
    assert_eq!(dirs.put(b, b"a", 1), PutResult::Impossible);
    assert_eq!(
        dirs.put(dirs.of(4).expect("there"), b"z", 3),
        PutResult::Impossible
    );
}

#[test]
fn what_is_away_has_no_path_and_can_come_back() {
    let mut dirs = DirTable::new(1);
    let PutResult::New(a) = dirs.put(TOP_DIR, b"a", 2) else {
        panic!("new")
    };

    dirs.put(a, b"b", 3);
    dirs.detach(a);
    assert!(dirs.is_away(2) && !dirs.is_away(3) && path(&dirs, 3).is_none());
    assert_eq!(dirs.below(a), [2, 3]);
    dirs.put(TOP_DIR, b"new", 2);
    assert_eq!(path(&dirs, 3).as_deref(), Some("new/b"));

    // A different directory takes the name.
    dirs.put(TOP_DIR, b"new", 4);
    assert!(dirs.is_away(2) && path(&dirs, 4).as_deref() == Some("new"));
    dirs.remove(2);
    dirs.remove(3);

    assert_eq!((dirs.len(), dirs.of(2)), (2, None));
}

#[test]
fn one_directory_in_two_places() {
    let mut dirs = DirTable::new(1);
    dirs.put(TOP_DIR, b"a", 2);
    let again = dirs.put_again(TOP_DIR, b"b", 2);
    assert_eq!(dirs.put_again(TOP_DIR, b"b", 2), again);
    assert_eq!(dirs.more(2), [again]);
    dirs.remove(2);

    assert!(
        dirs.more(2).is_empty()
            && dirs.child(TOP_DIR, b"b").is_none()
            && dirs.child(TOP_DIR, b"a").is_none()
    );
}

proptest! {
    #[test]
    fn as_a_map_of_paths(
        steps in proptest::collection::vec((0u8..3, 0usize..12, "[a-d]", 2i32..14), 1..80),
    ) {
        let mut dirs = DirTable::new(1);
        let mut model: BTreeMap<Watch, (Watch, String)> = BTreeMap::new();
        let full = |model: &BTreeMap<Watch, (Watch, String)>, watch: Watch| {
            let mut parts = Vec::new();
            let mut at = watch;
            while at != 1 {
                let (parent, name) = model.get(&at)?;
                parts.insert(0, name.clone());
                at = *parent;
            }
            Some(parts.join("/"))
        };

        for (what, parent, name, watch) in steps {
            let known: Vec<Watch> = std::iter::once(1)
                .chain(2..14)
                .filter(|w| dirs.of(*w).is_some())
                .collect();
            let parent = known[parent % known.len()];
            match what {
                0 | 1 => {
                    let mut path = Vec::new();
                    let dir = dirs.of(parent).expect("known");
                    if !dirs.path(dir, &mut path) {
                        continue;
                    }
                    if dirs.put(dir, name.as_bytes(), watch) != PutResult::Impossible {
                        model.retain(|w, (p, n)| *w == watch || (*p, &*n) != (parent, &name));
                        model.insert(watch, (parent, name));
                    }
                }
                _ => {
                    dirs.remove(watch);
                    model.remove(&watch);
                    model.retain(|_, (p, _)| *p != watch);
                }
            }
            for watch in 2..14 {
                prop_assert_eq!(path(&dirs, watch), full(&model, watch));
            }
        }
    }
}
