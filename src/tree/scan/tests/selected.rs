//! Excludes, ignore files, scope and the state directories that a scan leaves out.

use std::os::unix::fs::symlink;

use super::*;
use crate::Kind;
use crate::manifest::{EntryKind, TreePath};

#[test]
fn excludes_and_ignore_files_apply_from_the_top_down() {
    let f = Fixture::new();
    for path in [
        "a.tmp",
        "keep.tmp",
        "cache/x",
        "d/a.log",
        "d/cache/x",
        "e/a.log",
        "e/only.git",
        "e/deep/b.log",
    ] {
        f.write(path.as_bytes(), b"");
    }

    f.write(b".makuoignore", b"# comment\n\n!keep.tmp\n*.log\r\n");
    f.write(b"e/.makuoignore", b"!*.log\n");
    f.write(b"e/.gitignore", b"*.git\n*.log\n");
    f.write(b"cache/.makuoignore", b"never read {\n");
    let excludes = vec![exclude(None, "*.tmp"), exclude(None, "/cache/")];
    let makuo = ScanOptions {
        paths: PathSelection {
            excludes,
            ignore_files: IgnoreFiles::Makuo,
            ..PathSelection::default()
        },
        ..options()
    };

    let scanned = f.scan(&makuo);
    let expected = [
        "f .makuoignore",
        "d d",
        "d d/cache",
        "f d/cache/x",
        "d e",
        "f e/.gitignore",
        "f e/.makuoignore",
        "f e/a.log",
        "d e/deep",
        "f e/deep/b.log",
        "f e/only.git",
        "f keep.tmp",
    ];

    assert_eq!(shown(&scanned), expected);
    assert_eq!(
        scanned.ignore_rules,
        [
            exclude(None, "!keep.tmp"),
            exclude(None, "*.log"),
            exclude(Some("e"), "!*.log")
        ]
    );

    let git = ScanOptions {
        paths: PathSelection {
            ignore_files: IgnoreFiles::MakuoAndGit,
            ..makuo.paths.clone()
        },
        ..makuo.clone()
    };

    let scanned = f.scan(&git);
    assert_eq!(
        shown(&scanned),
        expected
            .into_iter()
            .filter(|p| !p.ends_with("only.git"))
            .collect::<Vec<_>>()
    );

    // The release's rules leave out the same paths as the walk.
    let rules = [makuo.paths.excludes, scanned.ignore_rules].concat();

    let filter = crate::manifest::rules::PathFilter::new(&rules);
    let all = entries(&f.scan(&options()));
    let left: Vec<String> = all
        .iter()
        .filter(|e| !filter.matches(&e.path, e.kind == EntryKind::Directory))
        .map(|e| format!("{} {}", e.kind.letter(), e.path))
        .collect();

    assert_eq!(left, shown(&f.scan(&git)));
}

#[test]
fn too_many_bytes_of_patterns_are_a_usage_error() {
    let f = Fixture::new();
    f.write(b"d/.makuoignore", &b"x\n".repeat(100_000));
    let on = ScanOptions {
        paths: PathSelection {
            ignore_files: IgnoreFiles::Makuo,
            ..PathSelection::default()
        },
        ..options()
    };

    f.try_scan(&on, None).unwrap();
    f.write(b"e/.makuoignore", &b"x\n".repeat(100_000));
    let e = f.try_scan(&on, None).unwrap_err();
    assert!(
        e.kind() == Kind::Usage && e.to_string().contains("200000 patterns"),
        "{e}"
    );

    f.write(b"e/.makuoignore", &b"x\n".repeat(600_000));
    let e = f.try_scan(&on, None).unwrap_err();
    assert!(
        e.kind() == Kind::Usage && e.to_string().contains("e/.makuoignore"),
        "{e}"
    );
}

#[test]
fn only_a_regular_ignore_file_has_patterns() {
    let f = Fixture::new();
    for path in ["a/x", "b/x", "c/x", "elsewhere"] {
        f.write(path.as_bytes(), b"x\n");
    }

    f.write(b"a/.makuoignore/inside", b"");
    symlink("../elsewhere", f.at(b"b/.makuoignore")).unwrap();
    nix::unistd::mkfifo(&f.at(b"c/.makuoignore"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let on = ScanOptions {
        paths: PathSelection {
            ignore_files: IgnoreFiles::Makuo,
            ..PathSelection::default()
        },
        ..options()
    };

    let scanned = f.scan(&on);
    assert_eq!(
        shown(&scanned)
            .iter()
            .filter(|path| path.ends_with("/x"))
            .count(),
        3
    );

    // A link replaced by a regular file is read.
    std::fs::remove_file(f.at(b"b/.makuoignore")).unwrap();

    f.write(b"b/.makuoignore", b"x\n");
    let again = f.try_scan(&on, Some(&scanned.index)).unwrap();
    assert_eq!(
        shown(&again)
            .iter()
            .filter(|path| path.ends_with("/x"))
            .count(),
        2
    );
}

#[test]
fn state_directories_are_left_out() {
    let f = Fixture::new();
    for path in [
        "www/page",
        ".makuo/www/lock",
        "d/.makuo/www/x",
        "var/www/lock",
        "lib/lock",
        "lib/stage/a",
    ] {
        f.write(path.as_bytes(), b"");
    }

    for path in ["var/www/stage", "var/www/undo", "var/www/releases"] {
        std::fs::create_dir(f.at(path.as_bytes())).unwrap();
    }

    let on = ScanOptions {
        paths: PathSelection {
            without_state: true,
            ..PathSelection::default()
        },
        ..options()
    };

    let scanned = f.scan(&on);
    assert_eq!(
        shown(&scanned),
        [
            "d d",
            "d lib",
            "f lib/lock",
            "d lib/stage",
            "f lib/stage/a",
            "d var",
            "d www",
            "f www/page"
        ]
    );

    let skipped: Vec<String> = scanned
        .skipped
        .iter()
        .map(|skipped| skipped.path.to_string())
        .collect();

    assert_eq!(skipped, [".makuo", "d/.makuo"]);

    // A scan of changes leaves state out as well.
    f.write(b".makuo/www/new", b"");
    f.write(b"var/www/new", b"");
    f.write(b"e/.makuo/www/x", b"");
    let again = f.try_scan(&on, Some(&scanned.index)).unwrap();

    assert_eq!(shown(&again).len(), shown(&scanned).len() + 1);
    // A host's own tree includes such paths.
    assert!(shown(&f.scan(&options())).contains(&"f .makuo/www/lock".to_string()));
}

#[test]
fn scope_and_separate_directories_limit_the_walk() {
    let f = Fixture::new();
    for path in ["a/b/c", "a/x", "ab", "z/y", "state/secret"] {
        f.write(path.as_bytes(), b"");
    }

    let scope = vec![
        TreePath::new(&b"a/b"[..]).unwrap(),
        TreePath::new(&b"z/y"[..]).unwrap(),
    ];
    assert_eq!(
        shown(&f.scan(&ScanOptions {
            paths: PathSelection {
                scope,
                ..PathSelection::default()
            },
            ..options()
        })),
        ["d a", "d a/b", "f a/b/c", "d z", "f z/y"]
    );

    let state = f
        .root
        .open_below(&TreePath::new(&b"state"[..]).unwrap())
        .unwrap();
    let found = f.scan(&ScanOptions {
        paths: PathSelection {
            apart: vec![state.id()],
            ..PathSelection::default()
        },
        ..options()
    });

    assert_eq!(
        shown(&found),
        ["d a", "d a/b", "f a/b/c", "f a/x", "f ab", "d z", "f z/y"]
    );
}
