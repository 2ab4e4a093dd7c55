//! Directories that go or change places in the middle of a scan.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::*;
use crate::manifest::EntryKind;
use crate::tree::scan::{Gap, Hints};

/// Ends of the directory `d`.
#[derive(Debug, Clone, Copy)]
enum DirEnd {
    Removed,
    Renamed,
    ReplacedByFile,
    ReplacedByLink,
    ReplacedByOther,
    Exchanged,
}

impl DirEnd {
    const ALL: [Self; 6] = [
        Self::Removed,
        Self::Renamed,
        Self::ReplacedByFile,
        Self::ReplacedByLink,
        Self::ReplacedByOther,
        Self::Exchanged,
    ];

    fn happen(self, root: &std::path::Path) {
        let (dir, away) = (root.join("d"), root.join("away"));
        match self {
            Self::Removed => return std::fs::remove_dir_all(&dir).unwrap(),
            Self::Exchanged => {
                let other = root.join("other");
                let flags = RenameFlags::RENAME_EXCHANGE;
                return renameat2(AT_FDCWD, &dir, AT_FDCWD, &other, flags).unwrap();
            }
            _ => std::fs::rename(&dir, &away).unwrap(),
        }

        match self {
            Self::ReplacedByFile => std::fs::write(&dir, "a file").unwrap(),
            Self::ReplacedByLink => symlink("other", &dir).unwrap(),
            Self::ReplacedByOther => {
                std::fs::create_dir_all(dir.join("s")).unwrap();
                std::fs::write(dir.join("s/else"), "of another").unwrap();
            }
            _ => {}
        }
    }
}

fn hinted(paths: &[&str]) -> Hints {
    Hints {
        paths: paths
            .iter()
            .map(|path| TreePath::new(path.as_bytes()).unwrap())
            .collect(),
        top: true,
        ..Hints::default()
    }
}

fn reusing(hints: Option<Hints>) -> ScanOptions {
    ScanOptions {
        reuse: IndexReuse {
            hints,
            ..IndexReuse::default()
        },
        ..options()
    }
}

/// Fails unless the directory of each path is there.
fn is_a_tree(scanned: &Scanned, what: &str) {
    let mut dirs = BTreeSet::new();
    for entry in entries(scanned) {
        let parent = entry.path.parent();
        assert!(
            parent.as_ref().is_none_or(|dir| dirs.contains(dir)),
            "{what}: {} is below no directory: {:?}",
            entry.path,
            shown(scanned)
        );
        if matches!(entry.kind, EntryKind::Directory) {
            dirs.insert(entry.path);
        }
    }
}

/// Lets `d` end at step `step` of a scan. Returns false if the scan has fewer steps.
fn ends_at(step: usize, end: DirEnd, is_hinted: bool) -> bool {
    let f = Fixture::new();
    for path in ["d/a", "d/s/b", "d/s/t/c", "d/u/v", "other/s/x", "z"] {
        f.write(path.as_bytes(), b"first");
    }
    let first = f.scan(&options());
    for path in ["d/a", "d/s/b", "d/s/new", "d/u/w/new"] {
        f.write(path.as_bytes(), b"changed");
    }

    let (steps, has_ended) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let (root, ended) = (f.root.path().to_path_buf(), Arc::clone(&has_ended));
    let happen = move || {
        if steps.fetch_add(1, Ordering::SeqCst) == step {
            end.happen(&root);
            ended.store(true, Ordering::SeqCst);
        }
    };

    let written = ["d/a", "d/s", "d/s/b", "d/s/new", "d/u", "d/u/w"];
    let during = ScanOptions {
        gap: Gap(Some(Arc::new(happen))),
        ..reusing(is_hinted.then(|| hinted(&written)))
    };
    let what = format!("{end:?} at step {step}, hints: {is_hinted}");

    // A file that changes while it is read ends a scan.
    let scanned = scan(
        &f.root,
        &during,
        Some(&first.index),
        &f.dir.path().join("during"),
    );
    let known = match scanned {
        Ok(scanned) => {
            is_a_tree(&scanned, &what);
            scanned.index
        }
        Err(_) => first.index,
    };

    let moved = [&written[..], &["d", "away", "other"]].concat();
    let after = reusing(is_hinted.then(|| hinted(&moved)));
    let after = scan(&f.root, &after, Some(&known), &f.dir.path().join("after")).unwrap();
    let fresh = scan(&f.root, &options(), None, &f.dir.path().join("fresh")).unwrap();
    assert_eq!(entries(&after), entries(&fresh), "{what}");

    has_ended.load(Ordering::SeqCst)
}

#[test]
fn a_directory_that_goes_in_the_middle_takes_everything_below_along() {
    for end in DirEnd::ALL {
        for is_hinted in [false, true] {
            let steps = (0..100).take_while(|step| ends_at(*step, end, is_hinted));
            assert!(steps.count() > 5, "{end:?}, hints: {is_hinted}");
        }
    }
}
