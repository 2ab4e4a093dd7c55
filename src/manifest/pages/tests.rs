//! A table of pages finds paths and parts, and the pages that differ.

use super::*;
use crate::block::BlockRef;
use crate::manifest::fixtures::{self, MemoryNodes, manifest_of};
use crate::manifest::{Content, Entry};

fn entry(path: &str, text: Option<&str>) -> Entry {
    let file = |text: &str| EntryKind::File(Content::Blocks(vec![BlockRef::of(text.as_bytes())]));
    fixtures::entry(path, text.map_or(EntryKind::Directory, file))
}

fn many(changed: Option<usize>) -> Vec<Entry> {
    let mut all = Vec::new();
    for dir in 0..20 {
        all.push(entry(&format!("{dir:02}"), None));
        for file in 0..1000 {
            let text = if changed == Some(dir * 1000 + file) {
                "new"
            } else {
                "old"
            };
            all.push(entry(&format!("{dir:02}/{file:04}"), Some(text)));
        }
    }

    all
}

#[test]
fn every_entry_is_found_and_no_other() {
    let entries = many(None);
    let manifest = manifest_of(entries.clone());
    let pages = Pages::of(&manifest).unwrap();
    let all: Vec<Located> = manifest.entries().map(Result::unwrap).collect();

    for located in all.iter().step_by(333) {
        assert_eq!(
            pages.find(&manifest, &located.entry.path).unwrap().as_ref(),
            Some(located)
        );
    }

    for path in ["00/0000x", "zz", "!", "05/"] {
        let Ok(path) = TreePath::new(path.as_bytes()) else {
            continue;
        };
        assert_eq!(pages.find(&manifest, &path).unwrap(), None);
    }

    let bounds = all[3333].entry.path.clone()..=all[9999].entry.path.clone();
    assert_eq!(pages.within(&manifest, &bounds).unwrap(), all[3333..=9999]);
    assert!(
        Pages::of(&manifest_of(Vec::new()))
            .unwrap()
            .keys(&manifest)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_differs_lies_within_few_pages() {
    let old = manifest_of(many(None));
    let new = manifest_of(many(Some(7777)));
    let keys = |m: &Manifest<MemoryNodes>| Pages::of(m).unwrap().keys(m).unwrap();
    let ranges = differing(&keys(&old), &keys(&new));
    assert_eq!(ranges.len(), 1);
    let within = Pages::of(&new).unwrap().within(&new, &ranges[0]).unwrap();
    assert!(
        within.len() < 6000 && within.iter().any(|l| l.entry.path.as_bytes() == b"07/0777"),
        "{ranges:?}"
    );
    assert!(differing(&keys(&old), &keys(&old)).is_empty());
    let known = Pages::of(&new).unwrap();
    known.learn(&keys(&old));

    assert_eq!(known.keys(&new).unwrap(), keys(&new));
}

#[test]
fn a_part_without_its_directory_is_refused() {
    let mut entries = many(None);
    entries.retain(|e| e.path.as_bytes() != b"07");
    let manifest = manifest_of(entries);
    let pages = Pages::of(&manifest).unwrap();
    let path = |p: &str| TreePath::new(p.as_bytes()).unwrap();
    assert!(
        pages
            .within(&manifest, &(path("07/0500")..=path("07/0600")))
            .is_err()
    );

    assert!(
        pages
            .within(&manifest, &(path("08/0500")..=path("08/0600")))
            .is_ok()
    );
}
