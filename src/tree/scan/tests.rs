//! Scans of real directories: order, excludes, reuse and rereads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::manifest::rules::Exclude;
use crate::manifest::{Content, Entry, EntryKind, TreePath};
use crate::tree::fs::root::Root;
use crate::tree::index::Index;
use crate::{Kind, Result};

/// A tree with room for indexes beside it.
pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) root: Root,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        let root = Root::open(dir.path().join("tree")).unwrap();
        Self { dir, root }
    }

    fn at(&self, path: &[u8]) -> std::path::PathBuf {
        self.root.path().join(OsStr::from_bytes(path))
    }

    fn write(&self, path: &[u8], text: &[u8]) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    pub(super) fn try_scan(
        &self,
        options: &ScanOptions,
        old: Option<&Arc<Index>>,
    ) -> Result<Scanned> {
        scan(&self.root, options, old, &self.dir.path().join("index"))
    }

    pub(super) fn scan(&self, options: &ScanOptions) -> Scanned {
        self.try_scan(options, None).unwrap()
    }
}

/// Options with a start long after every write of the test.
pub(super) fn options() -> ScanOptions {
    ScanOptions {
        threads: 2,
        ..ScanOptions::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33))
    }
}

fn entries(scanned: &Scanned) -> Vec<Entry> {
    scanned.index.entries().map(|e| e.unwrap().entry).collect()
}

fn shown(scanned: &Scanned) -> Vec<String> {
    entries(scanned)
        .iter()
        .map(|e| format!("{} {}", e.kind.letter(), e.path))
        .collect()
}

fn exclude(base: Option<&str>, pattern: &str) -> Exclude {
    Exclude {
        base: base.map(|b| TreePath::new(b.as_bytes()).unwrap()),
        pattern: pattern.into(),
    }
}

#[test]
fn an_empty_tree_is_an_empty_index() {
    let scanned = Fixture::new().scan(&options());
    assert_eq!(scanned.index.entries().count(), 0);
    assert_eq!(scanned.index.totals(), Default::default());
}

#[test]
fn any_legal_name_is_scanned_in_order() {
    let f = Fixture::new();
    let long = [b'x'; 255];
    let names: [&[u8]; 7] = [
        b"a\nb",
        b"a",
        b"\xff\xfe",
        b"-rf",
        &long,
        b" ",
        "ünï".as_bytes(),
    ];

    for name in names {
        f.write(name, name);
    }

    f.write(b"b/z", b"");
    f.write(b"b-c", b"");
    let deep: Vec<u8> = [&b"d/"[..]; 50].concat();
    f.write(&[&deep, &b"end"[..]].concat(), b"deep");
    let found = entries(&f.scan(&options()));
    assert!(found.windows(2).all(|w| w[0].path < w[1].path));
    assert_eq!(found.len(), 7 + 3 + 51);

    assert!(
        names
            .iter()
            .all(|n| found.iter().any(|e| e.path.as_bytes() == *n))
    );

    let empty = found.iter().find(|e| e.path.as_bytes() == b"b/z").unwrap();
    assert_eq!(empty.kind, EntryKind::File(Content::Blocks(Vec::new())));
}

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
        excludes,
        ignore_files: IgnoreFiles::Makuo,
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
        ignore_files: IgnoreFiles::MakuoAndGit,
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
    let rules = [makuo.excludes, scanned.ignore_rules].concat();

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
        ignore_files: IgnoreFiles::Makuo,
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
        ignore_files: IgnoreFiles::Makuo,
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
        without_state: true,
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
fn the_error_names_a_path_that_is_too_long() {
    let f = Fixture::new();
    let name = "n".repeat(250);
    let mut dir = Root::open(f.root.path()).unwrap();
    for depth in 0..17 {
        let next = TreePath::new(name.as_bytes()).unwrap();
        rustix::fs::mkdirat(&dir, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        dir = dir
            .open_below(&next)
            .unwrap_or_else(|e| panic!("{depth}: {e}"));
    }

    let e = f.try_scan(&options(), None).unwrap_err();
    assert!(
        e.kind() == Kind::Usage && e.to_string().matches(&name).count() >= 16,
        "{e}"
    );
}

#[test]
fn every_kind_of_file_is_recorded() {
    let f = Fixture::new();
    f.write(b"file", b"text");
    symlink("/absolute/nowhere", f.at(b"link")).unwrap();
    symlink("..", f.at(b"up")).unwrap();
    nix::unistd::mkfifo(&f.at(b"pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(f.at(b"socket")).unwrap();
    std::fs::set_permissions(f.at(b"file"), std::fs::Permissions::from_mode(0o4751)).unwrap();

    let scanned = f.scan(&options());
    assert_eq!(shown(&scanned), ["f file", "L link", "S pipe", "L up"]);
    assert_eq!(
        scanned
            .skipped
            .iter()
            .map(|s| s.path.as_bytes())
            .collect::<Vec<_>>(),
        [b"socket"]
    );

    let found = entries(&scanned);
    assert_eq!(found[0].mode.bits(), 0o4751);
    assert_eq!(
        found[1].kind,
        EntryKind::Symlink(b"/absolute/nowhere".to_vec())
    );

    assert_eq!(found[0].kind.size(), 4);
}

#[test]
fn names_of_one_inode_are_hard_links_when_asked() {
    let f = Fixture::new();
    f.write(b"b", b"same");
    f.write(b"d/x", b"");
    for (from, to) in [("b", "a"), ("b", "d/c"), ("d/x", "e")] {
        std::fs::hard_link(f.at(from.as_bytes()), f.at(to.as_bytes())).unwrap();
    }

    let scanned = f.scan(&options());
    assert_eq!(
        shown(&scanned),
        ["f a", "h b", "d d", "h d/c", "f d/x", "h e"]
    );
    let found = entries(&scanned);
    assert_eq!(found[3].kind, EntryKind::Hardlink(found[0].path.clone()));

    assert_eq!(found[5].kind, EntryKind::Hardlink(found[4].path.clone()));
    let apart = f.scan(&ScanOptions {
        hardlinks: false,
        ..options()
    });

    assert_eq!(
        shown(&apart),
        ["f a", "f b", "d d", "f d/c", "f d/x", "f e"]
    );
}

#[test]
fn xattrs_are_read_when_asked() {
    let f = Fixture::new();
    f.write(b"file", b"");
    let file = std::fs::File::open(f.at(b"file")).unwrap();
    if let Err(e) =
        rustix::fs::fsetxattr(&file, "user.note", b"hi", rustix::fs::XattrFlags::empty())
    {
        println!("skipped: no user xattrs here: {e}");
        return;
    }

    assert!(entries(&f.scan(&options()))[0].xattrs.is_empty());
    let with = ScanOptions {
        xattrs: true,
        ..options()
    };

    let first = f.scan(&with);
    let again = f.try_scan(&with, Some(&first.index)).unwrap();
    assert_eq!(again.stats.reused_files, 1);

    for scanned in [&first, &again] {
        let xattrs = &entries(scanned)[0].xattrs;
        assert_eq!(
            (&xattrs[0].name[..], &xattrs[0].value[..]),
            (&b"user.note"[..], &b"hi"[..])
        );
    }
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
        shown(&f.scan(&ScanOptions { scope, ..options() })),
        ["d a", "d a/b", "f a/b/c", "d z", "f z/y"]
    );

    let state = f
        .root
        .open_below(&TreePath::new(&b"state"[..]).unwrap())
        .unwrap();
    let found = f.scan(&ScanOptions {
        apart: vec![state.id()],
        ..options()
    });

    assert_eq!(
        shown(&found),
        ["d a", "d a/b", "f a/b/c", "f a/x", "f ab", "d z", "f z/y"]
    );
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let f = Fixture::new();
    f.write(b"a", b"one");
    f.write(b"d/b", b"two");
    f.write(b"e", b"three");
    let first = f.scan(&options());
    assert_eq!(first.stats.hashed_files, 3);
    f.write(b"d/b", b"TWO");

    std::fs::remove_file(f.at(b"e")).unwrap();
    f.write(b"0", b"new");
    let again = f.try_scan(&options(), Some(&first.index)).unwrap();
    assert_eq!(
        (
            again.stats.hashed_files,
            again.stats.reused_files,
            again.stats.hashed_bytes
        ),
        (2, 1, 6)
    );

    assert_eq!(entries(&again), entries(&f.scan(&options())));
    let all = f
        .try_scan(
            &ScanOptions {
                checksum: true,
                ..options()
            },
            Some(&again.index),
        )
        .unwrap();

    assert_eq!((all.stats.hashed_files, all.stats.reused_files), (3, 0));
}

#[test]
fn a_file_changed_around_the_last_scan_is_not_trusted() {
    let f = Fixture::new();
    f.write(b"a", b"one");
    let changed = std::fs::metadata(f.at(b"a")).unwrap();
    let ctime = SystemTime::UNIX_EPOCH
        + Duration::new(
            std::os::unix::fs::MetadataExt::ctime(&changed) as u64,
            std::os::unix::fs::MetadataExt::ctime_nsec(&changed) as u32,
        );

    for (started, reused) in [
        (ctime, 0),
        (ctime + Duration::from_millis(10), 0),
        (ctime + Duration::from_secs(3), 1),
    ] {
        let first = f.scan(&ScanOptions {
            started,
            ..options()
        });
        let again = f.try_scan(&options(), Some(&first.index)).unwrap();
        assert_eq!(again.stats.reused_files, reused, "{started:?}");
    }
}

#[test]
fn a_damaged_index_costs_only_reads() {
    let f = Fixture::new();
    (0..2000).for_each(|i| f.write(format!("{i:04}").as_bytes(), format!("{i}").as_bytes()));
    let first = entries(&f.scan(&options()));
    let path = f.dir.path().join("index");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;

    std::fs::write(&path, bytes).unwrap();
    let damaged = Arc::new(Index::open(&path, f.root.id()).expect("its ends are whole"));
    let again = f.try_scan(&options(), Some(&damaged)).unwrap();
    assert!(
        again.stats.hashed_files > 0 && again.stats.reused_files > 0,
        "{:?}",
        again.stats
    );

    assert_eq!(again.stats.hashed_files + again.stats.reused_files, 2000);
    assert_eq!(entries(&again), first);
}

#[test]
fn the_lists_of_a_large_file_are_copied_between_indexes() {
    let f = Fixture::new();
    let mut rng = fastrand::Rng::with_seed(1);
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u64(..))
        .take(3 << 20)
        .flat_map(u64::to_le_bytes)
        .collect();
    f.write(b"big", &bytes);

    let first = f.scan(&options());
    let again = f.try_scan(&options(), Some(&first.index)).unwrap();
    assert_eq!(again.stats.reused_files, 1);
    let EntryKind::File(content) = &entries(&again)[0].kind else {
        panic!("a file")
    };

    assert!(content.list_count() > 0, "{} blocks", content.block_count());
    let direct: Vec<_> = crate::block::chunk::cuts(&bytes, true)
        .map(|r| crate::block::BlockRef::of(&bytes[r]))
        .collect();

    assert_eq!(again.index.blocks(content).unwrap(), direct);
}

#[test]
fn errors_name_unreadable_paths() {
    let f = Fixture::new();
    f.write(b"d/secret\n", b"");
    std::fs::set_permissions(f.at(b"d/secret\n"), std::fs::Permissions::from_mode(0o000)).unwrap();

    if std::fs::File::open(f.at(b"d/secret\n")).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }

    let e = f.try_scan(&options(), None).unwrap_err();
    assert!(
        e.kind() == Kind::Usage && e.to_string().contains("d/secret\\n"),
        "{e}"
    );

    assert!(e.hint_text().is_some());
}

#[test]
fn one_and_four_threads_give_the_same_index() {
    let f = Fixture::new();
    for i in 0..5000u32 {
        f.write(
            format!("{:02}/{:02}/{i}", i % 40, i % 7).as_bytes(),
            &i.to_le_bytes().repeat(i as usize % 50),
        );
    }

    let one = f.scan(&ScanOptions {
        threads: 1,
        ..options()
    });
    let four = f.scan(&ScanOptions {
        threads: 4,
        ..options()
    });

    assert_eq!(one.index.totals().files, 5000);
    assert_eq!(one.stats, four.stats);
    assert!(
        one.index
            .entries()
            .map(Result::unwrap)
            .eq(four.index.entries().map(Result::unwrap))
    );
}

/// Plain recursive walk with the standard library.
fn plainly(dir: &Path, below: &Path, out: &mut Vec<(Vec<u8>, char, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let bytes = path.as_os_str().as_bytes().to_vec();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            out.push((bytes, 'd', Vec::new()));
            plainly(&entry.path(), &path, out);
        } else {
            out.push((bytes, 'f', std::fs::read(entry.path()).unwrap()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_parallel_scan_equals_a_plain_walk(
        paths in prop::collection::vec(
            ("[a-c.-]{1,2}x(/[a-c-]{1,2}){0,4}y", prop::collection::vec(any::<u8>(), 0..9)),
            0..60,
        ),
        threads in 1..5usize
    ) {
        let f = Fixture::new();
        for (path, text) in &paths {
            f.write(path.as_bytes(), text);
        }

        let mut plain = Vec::new();
        plainly(f.root.path(), Path::new(""), &mut plain);
        plain.sort_by(|a, b| crate::manifest::path::compare(&a.0, &b.0));
        let scanned = f.scan(&ScanOptions { threads, ..options() });
        let found: Vec<_> = entries(&scanned)
            .into_iter()
            .map(|e| (e.path.as_bytes().to_vec(), e.kind))
            .collect();

        let expected: Vec<_> = plain
            .into_iter()
            .map(|(path, kind, text)| {
                let block = (!text.is_empty()).then(|| crate::block::BlockRef::of(&text));
                let blocks = block.into_iter().collect();
                let kind = match kind {
                    'd' => EntryKind::Directory,
                    _ => EntryKind::File(Content::Blocks(blocks)),
                };

                (path, kind)
            })
            .collect();

        prop_assert_eq!(found, expected);
    }
}

/// Random changes of a tree, as a program makes them.
#[derive(Debug, Clone)]
enum Op {
    Write(u8, u8, u8),
    Remove(u8, u8),
    MakeDir(u8, u8),
    RemoveDir(u8),
    Rename(u8, u8, u8, u8),
    RenameDir(u8, u8),
    Link(u8, u8, u8, u8),
    Chmod(u8, u8, bool),
    Symlink(u8, u8),
    Ignore(u8, u8),
}

fn an_op() -> impl Strategy<Value = Op> {
    let dir = || (0..7u8, 0..6u8);
    prop_oneof![
        6 => (0..7u8, 0..6u8, any::<u8>()).prop_map(|(d, n, t)| Op::Write(d, n, t)),
        3 => dir().prop_map(|(d, n)| Op::Remove(d, n)),
        2 => dir().prop_map(|(d, n)| Op::MakeDir(d, n)),
        1 => (1..7u8).prop_map(Op::RemoveDir),
        2 => (dir(), dir()).prop_map(|((a, b), (c, d))| Op::Rename(a, b, c, d)),
        1 => (1..7u8, 1..7u8).prop_map(|(a, b)| Op::RenameDir(a, b)),
        1 => (dir(), dir()).prop_map(|((a, b), (c, d))| Op::Link(a, b, c, d)),
        1 => (0..7u8, 0..6u8, any::<bool>()).prop_map(|(d, n, x)| Op::Chmod(d, n, x)),
        1 => dir().prop_map(|(d, n)| Op::Symlink(d, n)),
        1 => (0..7u8, 0..4u8).prop_map(|(d, p)| Op::Ignore(d, p)),
    ]
}

impl Fixture {
    /// Directories at several depths, some missing.
    fn dir_at(&self, n: u8) -> std::path::PathBuf {
        self.root
            .path()
            .join(["", "a", "a/b", "c", "c-d", "c/e/f", "zz"][usize::from(n) % 7])
    }

    fn name_at(&self, dir: u8, name: u8) -> std::path::PathBuf {
        self.dir_at(dir)
            .join(["0", "b", "e", "skip.tmp", "x y", "z"][usize::from(name) % 6])
    }

    /// Applies the change; impossible ones are skipped.
    fn apply(&self, op: &Op) {
        let _ = match op {
            Op::Write(d, n, text) => {
                let _ = std::fs::create_dir_all(self.dir_at(*d));
                std::fs::write(
                    self.name_at(*d, *n),
                    text.to_string().repeat(usize::from(*text)),
                )
            }

            Op::Remove(d, n) => std::fs::remove_file(self.name_at(*d, *n)),
            Op::MakeDir(d, n) => std::fs::create_dir_all(self.name_at(*d, *n)),
            Op::RemoveDir(d) => std::fs::remove_dir_all(self.dir_at(*d)),
            Op::Rename(a, b, c, d) => std::fs::rename(self.name_at(*a, *b), self.name_at(*c, *d)),
            Op::RenameDir(a, b) => std::fs::rename(self.dir_at(*a), self.dir_at(*b)),
            Op::Link(a, b, c, d) => std::fs::hard_link(self.name_at(*a, *b), self.name_at(*c, *d)),

            Op::Chmod(d, n, x) => {
                let mode = std::fs::Permissions::from_mode(if *x { 0o755 } else { 0o640 });
                std::fs::set_permissions(self.name_at(*d, *n), mode)
            }
            Op::Symlink(d, n) => symlink("where", self.name_at(*d, *n)),
            Op::Ignore(d, p) => {
                let pattern = ["z\n", "!z\n", "x*\n/b/\n", ""][usize::from(*p)];
                std::fs::write(self.dir_at(*d).join(".makuoignore"), pattern)
            }
        };
    }
}

/// Waits until earlier changes are too old for another unnoticed change.
fn settle() -> SystemTime {
    std::thread::sleep(CLOCK_GRANULARITY + CLOCK_GRANULARITY);
    now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is scanned is touched by the system's clock"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    /// A scan with the previous index gives the same result as a scan without one, whatever the
    /// changes between them.
    #[test]
    fn a_scan_after_changes_equals_a_fresh_scan(
        rounds in prop::collection::vec(prop::collection::vec(an_op(), 0..8), 1..6),
        files in 0..1500u32,
        settled in any::<bool>(),
    ) {
        let f = Fixture::new();
        for i in 0..files {
            f.write(format!("many/{}/{i}", i % 5).as_bytes(), &i.to_le_bytes());
        }

        let mut options = ScanOptions {
            excludes: vec![exclude(None, "*.tmp")],
            ignore_files: IgnoreFiles::Makuo,
            ..options()
        };

        let mut old: Option<Arc<Index>> = None;
        for ops in rounds {
            ops.iter().for_each(|op| f.apply(op));
            options.started = if settled { settle() } else { now() };
            let scanned = f.try_scan(&options, old.as_ref()).unwrap();
            let apart = tempfile::tempdir().unwrap();
            let fresh = scan(&f.root, &options, None, &apart.path().join("index")).unwrap();
            prop_assert_eq!(entries(&scanned), entries(&fresh));
            prop_assert_eq!(scanned.index.root(), fresh.index.root());
            prop_assert_eq!(scanned.index.totals(), fresh.index.totals());
            prop_assert_eq!(&scanned.ignore_rules, &fresh.ignore_rules);
            prop_assert_eq!(&scanned.skipped, &fresh.skipped);

            let again = f.try_scan(&options, Some(&scanned.index)).unwrap();
            prop_assert_eq!(again.index.root(), fresh.index.root());
            old = Some(scanned.index);
        }
    }
}

#[test]
fn a_tree_without_changes_keeps_its_index_and_reads_nothing() {
    let f = Fixture::new();
    (0..3000).for_each(|i| f.write(format!("{}/{i}", i % 7).as_bytes(), b"text"));
    let then = |options: ScanOptions| ScanOptions {
        started: settle(),
        ..options
    };

    let first = f.scan(&then(options()));
    let inode =
        |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let path = f.dir.path().join("index");
    let before = inode(&path);

    let again = f.try_scan(&then(options()), Some(&first.index)).unwrap();
    assert_eq!(
        (
            again.stats.hashed_files,
            again.stats.reused_files,
            inode(&path)
        ),
        (0, 3000, before)
    );

    assert!(Arc::ptr_eq(&again.index, &first.index));

    // One file is read, one page rebuilt, and the rest copied.
    f.write(b"3/10", b"TEXT");
    let changed = f.try_scan(&then(options()), Some(&first.index)).unwrap();
    assert_eq!(
        (changed.stats.hashed_files, changed.index.totals().files),
        (1, 3000)
    );

    let had: std::collections::HashSet<_> = first
        .index
        .rows()
        .iter()
        .map(|r| r.node.block.hash)
        .collect();

    let new = changed
        .index
        .rows()
        .iter()
        .filter(|r| !had.contains(&r.node.block.hash))
        .count();

    assert_eq!(new, 1, "of {} pages", changed.index.rows().len());

    // An index with other options leads to a walk; its contents are reused.
    let other = then(ScanOptions {
        excludes: vec![exclude(None, "/5/")],
        ..options()
    });

    let excluded = f.try_scan(&other, Some(&changed.index)).unwrap();
    assert!(excluded.index.totals().files < 3000 && excluded.stats.hashed_files == 0);
}
