//! Hard links in an index: names that move, vanish or come with a directory.

#![expect(
    clippy::disallowed_methods,
    reason = "what is scanned is touched by the system's clock"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::vandal::{REST, said};
use super::world::scratch;
use crate::manifest::EntryKind;
use crate::tree::fs::root::Root;
use crate::tree::index::Index;
use crate::tree::scan::{ScanOptions, scan};

/// A directory scanned repeatedly with its index.
struct Linked {
    dir: tempfile::TempDir,
    root: Root,
}

impl Linked {
    /// Makes `current/app` and `stable/app` names of one file.
    fn new() -> Self {
        let dir = scratch();
        for made in ["top", "top/current", "top/stable", "outside"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }

        let root = Root::open(dir.path().join("top")).unwrap();
        std::fs::write(dir.path().join("top/current/app"), "version 1").unwrap();
        let new = Self { dir, root };
        new.link("top/current/app", "top/stable/app");

        new
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn link(&self, from: &str, to: &str) {
        std::fs::hard_link(self.at(from), self.at(to)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.at(from), self.at(to)).unwrap();
    }

    /// Scans and returns the paths, after a check against a scan without an index.
    fn scan(&self) -> Vec<String> {
        std::thread::sleep(REST);
        let options = ScanOptions::new(SystemTime::now());
        let old = Index::open(&self.at("index"), self.root.id()).map(Arc::new);
        let with = scan(&self.root, &options, old.as_ref(), &self.at("index")).unwrap();
        let without = scan(&self.root, &options, None, &self.at("fresh")).unwrap();
        assert_eq!(said(&with.index), said(&without.index));
        let entries = with.index.entries().map(|e| e.unwrap().entry);

        entries
            .map(|e| match &e.kind {
                EntryKind::Hardlink(first) => format!("{} = {first}", e.path),
                kind => format!(
                    "{}{}",
                    e.path,
                    if *kind == EntryKind::Directory {
                        "/"
                    } else {
                        ""
                    }
                ),
            })
            .collect()
    }
}

#[test]
fn a_link_follows_its_first_name_when_a_directory_is_renamed() {
    let f = Linked::new();
    assert_eq!(
        f.scan(),
        [
            "current/",
            "current/app",
            "stable/",
            "stable/app = current/app"
        ]
    );

    f.rename("top/current", "top/previous");
    assert_eq!(
        f.scan(),
        [
            "previous/",
            "previous/app",
            "stable/",
            "stable/app = previous/app"
        ]
    );

    std::fs::create_dir(f.at("top/current")).unwrap();
    std::fs::write(f.at("top/current/app"), "version 2").unwrap();
    assert_eq!(f.scan()[..2], ["current/", "current/app"]);

    // Moves the directory of the second name, then adds a directory with an earlier name.
    f.rename("top/stable", "top/z");
    assert_eq!(
        f.scan()[2..],
        ["previous/", "previous/app", "z/", "z/app = previous/app"]
    );
    f.rename("top/z", "top/a");

    assert_eq!(
        f.scan(),
        [
            "a/",
            "a/app",
            "current/",
            "current/app",
            "previous/",
            "previous/app = a/app"
        ]
    );
}

#[test]
fn a_link_keeps_its_content_when_its_first_name_is_replaced_with_the_directory() {
    let f = Linked::new();
    f.scan();
    f.rename("top/current", "top/previous");
    std::fs::create_dir(f.at("top/current")).unwrap();
    std::fs::write(f.at("top/current/app"), "VERSION 2").unwrap();
    let expected = [
        "current/",
        "current/app",
        "previous/",
        "previous/app",
        "stable/",
        "stable/app = previous/app",
    ];

    assert_eq!(f.scan(), expected);
}

#[test]
fn names_moved_in_with_a_directory_become_links() {
    let f = Linked::new();
    f.link("top/current/app", "outside/app");
    f.scan();
    f.rename("outside", "top/a");
    assert_eq!(
        f.scan()[..4],
        ["a/", "a/app", "current/", "current/app = a/app"]
    );

    f.rename("top/a", "outside");
    assert_eq!(
        f.scan(),
        [
            "current/",
            "current/app",
            "stable/",
            "stable/app = current/app"
        ]
    );
}

#[test]
fn an_index_with_a_dangling_link_is_not_used() {
    let f = Linked::new();
    f.scan();
    let good = Index::open(&f.at("index"), f.root.id()).unwrap();
    let bad = || {
        let mut bad = crate::tree::index::IndexWriter::create(&f.at("index"), f.root.id()).unwrap();
        for found in good.entries() {
            let mut found = found.unwrap();
            if let EntryKind::Hardlink(first) = &mut found.entry.kind {
                *first = crate::manifest::TreePath::new(&b"current/gone"[..]).unwrap();
            }
            bad.push(found).unwrap();
        }
        bad
    };

    // Written without the check of links, as by older versions; no change since.
    bad().unchecked().finish(good.origin().clone()).unwrap();
    assert_eq!(f.scan()[2..], ["stable/", "stable/app = current/app"]);
    bad().unchecked().finish(good.origin().clone()).unwrap();
    std::fs::write(f.at("top/new"), "").unwrap();
    assert_eq!(f.scan()[3..], ["stable/", "stable/app = current/app"]);

    // The writer refuses to finish such an index.
    let before = std::fs::read(f.at("index")).unwrap();

    assert!(bad().finish(good.origin().clone()).is_err());
    assert_eq!(std::fs::read(f.at("index")).unwrap(), before);
}
