//! Reuse of an earlier index, and files that are read again.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::manifest::EntryKind;
use crate::tree::index::Index;

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
                reuse: IndexReuse {
                    checksum: true,
                    ..IndexReuse::default()
                },
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

        let mut options = ScanOptions { paths: PathSelection { excludes: vec![exclude(None, "*.tmp")], ignore_files: IgnoreFiles::Makuo, ..PathSelection::default() }, ..options() };

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
        paths: PathSelection {
            excludes: vec![exclude(None, "/5/")],
            ..PathSelection::default()
        },
        ..options()
    });

    let excluded = f.try_scan(&other, Some(&changed.index)).unwrap();
    assert!(excluded.index.totals().files < 3000 && excluded.stats.hashed_files == 0);
}
