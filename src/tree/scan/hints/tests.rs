//! Tests of the search from hints.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::manifest::rules::Exclude;
use crate::tree::scan::tests::{Fixture, options};
use crate::tree::scan::{IndexReuse, PathSelection, ScanOptions, Scanned};

/// Scans as if long after every change: known contents are not read again.
fn scan(f: &Fixture, name: &str, hints: Option<Hints>, old: Option<&Arc<Index>>) -> Scanned {
    let options = ScanOptions {
        reuse: IndexReuse {
            hints,
            ..IndexReuse::default()
        },
        ..options()
    };
    crate::tree::scan(&f.root, &options, old, &f.dir.path().join(name)).unwrap()
}

fn at(f: &Fixture, path: &str) -> PathBuf {
    f.root.path().join(path)
}

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).unwrap()
}

fn hints(paths: &[&str]) -> Hints {
    Hints {
        paths: paths.iter().map(|p| path(p)).collect(),
        ..Hints::default()
    }
}

#[test]
fn unnamed_paths_stay_as_indexed() {
    let f = Fixture::new();
    std::fs::create_dir(at(&f, "d")).unwrap();
    for name in ["a", "d/b", "d/c"] {
        std::fs::write(at(&f, name), name).unwrap();
    }

    let first = scan(&f, "i", None, None);
    for name in ["a", "d/b", "d/new"] {
        std::fs::write(at(&f, name), "changed").unwrap();
    }

    let some = scan(&f, "j", Some(hints(&["a"])), Some(&first.index));
    assert_eq!(some.stats.hashed_files, 1, "d/b was not looked at");
    let find = |scanned: &Scanned, at: &str| scanned.index.find(&path(at)).unwrap();
    assert_eq!(find(&some, "d/b"), find(&first, "d/b"));
    assert_eq!(find(&some, "d/new"), None);
    let all = scan(&f, "k", Some(hints(&["d/b", "d/new"])), Some(&some.index));
    assert_eq!(all.index.root(), scan(&f, "l", None, None).index.root());

    let same = scan(
        &f,
        "m",
        Some(hints(&["a", "d/gone/deep", "d"])),
        Some(&all.index),
    );

    assert_eq!(same.index.root(), all.index.root());
}

#[test]
fn held_files_stay_as_indexed() {
    let f = Fixture::new();
    std::fs::write(at(&f, "log"), "old").unwrap();
    let first = scan(&f, "i", None, None);
    std::fs::write(at(&f, "log"), "half").unwrap();
    std::fs::write(at(&f, "new"), "half").unwrap();
    std::fs::create_dir(at(&f, "d")).unwrap();
    std::fs::write(at(&f, "d/new"), "half").unwrap();

    let held = |names: &[&str]| names.iter().map(|n| path(n)).collect();
    let told = Hints {
        held: held(&["log", "new", "d/new"]),
        ..hints(&["log", "new", "d", "d/new"])
    };

    let some = scan(&f, "j", Some(told.clone()), Some(&first.index));
    let names: Vec<String> = some
        .index
        .entries()
        .map(|e| e.unwrap().entry.path.to_string())
        .collect();

    assert_eq!(names, ["d", "log"]);
    assert_eq!(
        some.index.find(&path("log")).unwrap(),
        first.index.find(&path("log")).unwrap()
    );

    // A full scan holds nothing back.
    let all = scan(&f, "k", Some(told.clone()), None);
    assert_eq!(all.index.totals().entries, 4);

    // A missing file is not held.
    std::fs::remove_file(at(&f, "log")).unwrap();
    assert_eq!(
        scan(&f, "l", Some(told), Some(&some.index))
            .index
            .find(&path("log"))
            .unwrap(),
        None
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "files bear the times of the real clock"
)]
fn a_full_comparison_finds_unnamed_changes_and_reads_no_unchanged_file() {
    let f = Fixture::new();
    let mut windows = ScanWindows::default();

    // Longer than a tick of the kernel's clock and than the margin of `is_racy`.
    let rest = || std::thread::sleep(std::time::Duration::from_millis(50));
    let mut scan = |name: &str, hints: Option<Hints>, old: Option<&Arc<Index>>| {
        rest();
        let began = std::time::SystemTime::now();
        let options = ScanOptions {
            reuse: IndexReuse {
                hints,
                ..IndexReuse::default()
            },
            started: began,
            ..options()
        };
        let scanned = crate::tree::scan(&f.root, &options, old, &f.dir.path().join(name)).unwrap();
        windows.add(began, std::time::SystemTime::now());
        (scanned, windows.clone())
    };

    for name in ["a", "b", "held"] {
        std::fs::write(at(&f, name), name).unwrap();
    }

    let (first, _) = scan("i", None, None);
    rest();
    std::fs::write(at(&f, "b"), "named").unwrap();
    let (named, windows) = scan("j", Some(hints(&["b"])), Some(&first.index));
    assert_eq!(named.stats.hashed_files, 1);

    let all = |windows: &ScanWindows| Hints {
        everywhere: Some(windows.clone()),
        ..Hints::default()
    };

    let (same, windows) = scan("k", Some(all(&windows)), Some(&named.index));
    assert!(
        Arc::ptr_eq(&same.index, &named.index),
        "nothing is read again"
    );
    let (plain, _) = scan("l", None, Some(&named.index));
    assert_eq!(
        plain.stats.hashed_files, 1,
        "without the windows it is not known that b was at rest"
    );

    rest();

    for name in ["a", "held"] {
        std::fs::write(at(&f, name), "unheard").unwrap();
    }

    let told = Hints {
        held: [path("held")].into(),
        ..all(&windows)
    };

    let (found, windows) = scan("m", Some(told), Some(&same.index));
    assert_eq!(found.stats.hashed_files, 1);
    let (closed, _) = scan("n", Some(all(&windows)), Some(&found.index));
    assert_eq!(closed.stats.hashed_files, 1);

    assert_eq!(
        closed.index.root(),
        self::scan(&f, "o", None, None).index.root()
    );
}

#[test]
fn a_held_new_file_is_found_by_the_next_comparison() {
    let f = Fixture::new();
    std::fs::create_dir(at(&f, "known")).unwrap();
    std::fs::write(at(&f, "known/a"), "a").unwrap();
    let first = scan(&f, "i", None, None);
    std::fs::create_dir(at(&f, "new")).unwrap();
    let late = ["late", "known/late", "new/late"];
    for name in late {
        std::fs::write(at(&f, name), "half").unwrap();
    }

    std::fs::write(at(&f, "known/b"), "b").unwrap();
    let held = late.iter().map(|name| path(name)).collect();
    let told = Hints {
        held,
        top: true,
        ..hints(&["known/b", "late", "known/late", "new", "new/late"])
    };

    let some = scan(&f, "j", Some(told), Some(&first.index));
    let names: Vec<String> = some
        .index
        .entries()
        .map(|e| e.unwrap().entry.path.to_string())
        .collect();

    assert_eq!(names, ["known", "known/a", "known/b", "new"]);

    // Neither directories nor files change from here on.
    let whole = scan(&f, "whole", None, None).index;
    let plain = scan(&f, "plain", None, Some(&some.index)).index;
    assert_eq!(plain.root(), whole.root(), "a plain scan");
    let named = scan(&f, "named", Some(hints(&late)), Some(&some.index)).index;

    assert_eq!(named.root(), whole.root(), "a scan that is told of them");
    for (nth, index) in [plain, named].iter().enumerate() {
        let again = scan(&f, &format!("again{nth}"), None, Some(index)).index;
        assert!(Arc::ptr_eq(&again, index), "nothing is left to look at");
    }
}

#[test]
fn a_named_path_missing_from_the_index_is_added_unless_excluded() {
    let f = Fixture::new();
    std::fs::create_dir_all(at(&f, "d/e")).unwrap();
    std::fs::write(at(&f, "d/e/a"), "a").unwrap();
    std::fs::write(at(&f, "d/e/a.log"), "log").unwrap();
    let exclude = Exclude {
        base: None,
        pattern: "*.log".into(),
    };

    let scan = |name: &str, hints, old| {
        let options = ScanOptions {
            reuse: IndexReuse {
                hints,
                ..IndexReuse::default()
            },
            paths: PathSelection {
                excludes: vec![exclude.clone()],
                ..PathSelection::default()
            },
            ..options()
        };
        crate::tree::scan(&f.root, &options, old, &f.dir.path().join(name)).unwrap()
    };

    let whole = scan("whole", None, None).index;
    let out = scan("out", Some(hints(&["d/e/a.log"])), Some(&whole)).index;
    assert!(
        Arc::ptr_eq(&out, &whole),
        "what is excluded leads to nothing"
    );

    // An index without the path, although the directory is unchanged.
    let options = ScanOptions {
        paths: PathSelection {
            scope: vec![path("d/e/other")],
            ..PathSelection::default()
        },
        ..options()
    };

    let scoped = crate::tree::scan(&f.root, &options, None, &f.dir.path().join("scoped"))
        .unwrap()
        .index;
    assert_eq!(scoped.find(&path("d/e/a")).unwrap(), None);
    let filter = IgnoreFilter::new(std::slice::from_ref(&exclude));
    let found = |name| {
        touched_paths(&f.root, &scoped, &hints(&[name]), &filter, 1)
            .unwrap()
            .unwrap()
    };

    let touched: Vec<_> = found("d/e/a")
        .touched
        .into_iter()
        .map(|t| (t.path, t.was_dir))
        .collect();

    assert_eq!(touched, [(path("d/e"), true)]);
    assert_eq!(found("d/e/a.log").touched, []);
}

#[test]
fn a_file_given_to_the_user_is_found_in_an_unchanged_directory() {
    let f = Fixture::new();
    if !rustix::process::geteuid().is_root() {
        return crate::skip::skipped("only root can give files away");
    }

    std::fs::create_dir(at(&f, "d")).unwrap();
    let files = ["d/mine", "d/other", "mine", "other"];
    for name in files {
        std::fs::write(at(&f, name), name).unwrap();
    }

    let give = |name: &str, user| std::os::unix::fs::chown(at(&f, name), Some(user), None).unwrap();
    give("d/other", 1234);
    give("other", 1234);
    let scan = |name: &str, old| {
        let options = ScanOptions {
            paths: PathSelection {
                owner: Some(0),
                ..PathSelection::default()
            },
            ..options()
        };
        crate::tree::scan(&f.root, &options, old, &f.dir.path().join(name)).unwrap()
    };

    let names = |scanned: &Scanned| -> Vec<String> {
        scanned
            .index
            .entries()
            .map(|e| e.unwrap().entry.path.to_string())
            .collect()
    };

    let first = scan("first", None);
    assert_eq!(names(&first), ["d", "d/mine", "mine"]);
    give("d/mine", 1234);
    give("mine", 1234);
    let second = scan("second", Some(&first.index));
    assert_eq!(names(&second), ["d"]);
    files.iter().for_each(|name| give(name, 0));

    let third = scan("third", Some(&second.index));
    assert_eq!(names(&third), ["d", "d/mine", "d/other", "mine", "other"]);
    assert_eq!(third.skipped, []);
}

/// Waits until new files get a later time than the scanned ones.
fn next_tick() {
    let now = || rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let start = now();
    while now() == start {
        std::thread::yield_now();
    }
}

/// Applies one random file operation and returns the paths for the hints.
fn change(f: &Fixture, op: u8, from: &str, to: &str) -> Vec<String> {
    let a = at(f, from);
    let b = at(f, to);
    // A change through a symbolic link happens at neither path.
    let is_link = |above: &Path| above.is_symlink() && above.starts_with(f.root.path());

    if [&a, &b]
        .iter()
        .any(|path| path.ancestors().skip(1).any(is_link))
        || (op == 0 && a.is_symlink())
    {
        return Vec::new();
    }

    let made = |path: &Path| {
        path.parent()
            .is_some_and(|dir| std::fs::create_dir_all(dir).is_ok())
    };

    let named = [from.to_string(), to.to_string()];
    match op {
        0 if made(&a) => drop(std::fs::write(&a, format!("{from}{to}"))),
        1 => drop(std::fs::remove_file(&a)),
        2 => drop(std::fs::remove_dir_all(&a)),
        3 => drop(made(&b) && std::fs::rename(&a, &b).is_ok()),
        4 => drop(made(&b) && std::fs::hard_link(&a, &b).is_ok()),
        5 => drop(made(&a) && std::os::unix::fs::symlink(to, &a).is_ok()),
        6 if made(&a) => drop(std::fs::create_dir(&a)),
        _ => {}
    }

    // Directories above may be new, too: a watcher reports them.
    let above = |p: &String| {
        Path::new(p)
            .ancestors()
            .filter_map(|a| a.to_str())
            .map(str::to_string)
            .collect()
    };

    named
        .iter()
        .flat_map(above as fn(&String) -> Vec<String>)
        .filter(|p| !p.is_empty())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_scan_with_hints_equals_a_full_scan(
        batches in prop::collection::vec(
            prop::collection::vec((0..7u8, "[ab](/[ab]){0,2}", "[ab](/[ab]){0,2}"), 1..8), 1..5)
    ) {
        let f = Fixture::new();
        let mut index = scan(&f, "first", None, None).index;
        for (nth, batch) in batches.iter().enumerate() {
            let mut told = Hints { top: true, ..Hints::default() };
            next_tick();
            for (op, from, to) in batch {
                told.paths.extend(change(&f, *op, from, to).iter().map(|p| path(p)));
            }
            let found = scan(&f, &format!("{nth}"), Some(told), Some(&index)).index;
            let whole = scan(&f, &format!("{nth}w"), None, None).index;
            let list = |index: &Index| {
                let entries = index.entries().map(|e| e.unwrap().entry);
                entries.map(|e| format!("{} {}", e.kind.letter(), e.path)).collect::<Vec<_>>()
            };
            prop_assert_eq!(list(&found), list(&whole));
            prop_assert_eq!(found.root(), whole.root());

            index = found;
        }
    }
}
