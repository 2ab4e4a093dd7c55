//! Tests of writing, reading, damaging and copying index pages.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::block::{BlockHash, BlockRef};
use crate::manifest::build::ContentBuilder;
use crate::manifest::{Content, Entry, EntryKind, Mode, Mtime, Owner, TreePath};
use crate::tree::fs::root::FileId;
use crate::tree::fs::stat::Version;

const ROOT: FileId = FileId { dev: 7, ino: 2 };

fn an_entry(n: u32, kind: EntryKind) -> IndexEntry {
    let entry = Entry {
        path: TreePath::new(format!("f{n:06}").as_bytes()).expect("legal"),
        kind,
        mode: Mode::from_bits(0o640),
        owner: Arc::new(Owner {
            uid: n % 3,
            gid: 0,
            user: None,
            group: Some("g".into()),
        }),
        mtime: Mtime { secs: -5, nanos: n },
        xattrs: Vec::new(),
    };

    let dev = if n.is_multiple_of(2) { ROOT.dev } else { 99 };
    let time = Mtime {
        secs: i64::from(n),
        nanos: 1,
    };

    IndexEntry {
        entry,
        version: Version {
            dev,
            ino: u64::from(n),
            size: 4,
            mtime: time,
            ctime: time,
        },
    }
}

fn index_of(path: &Path) -> Index {
    Index::open(path, ROOT).expect("whole")
}

fn an_origin() -> Origin {
    let top = Version {
        dev: ROOT.dev,
        ino: ROOT.ino,
        ..Version::NONE
    };

    Origin {
        started: Mtime {
            secs: 100,
            nanos: 0,
        },
        options: BlockHash([1; 32]),
        top,
        owners: vec![(
            1,
            2,
            Owner {
                uid: 1,
                gid: 2,
                user: None,
                group: Some("g".into()),
            },
        )],
        patterns: Vec::new(),
        ignore_files: vec![(TreePath::new(&b".makuoignore"[..]).unwrap(), top)],
        skipped: vec![(TreePath::new(&b"socket"[..]).unwrap(), "why".into())],
        mounts: vec![TreePath::new(&b"mnt"[..]).unwrap()],
    }
}

fn written(path: &Path) -> (Index, Vec<IndexEntry>) {
    let mut writer = IndexWriter::create(path, ROOT).unwrap();
    let mut content = ContentBuilder::default();
    (0..9000u32).for_each(|i| {
        content
            .push(BlockRef::of(&i.to_be_bytes()), &mut writer)
            .unwrap()
    });
    let large = EntryKind::File(content.finish(&mut writer).unwrap());
    let small = |n: u32| EntryKind::File(Content::Blocks(vec![BlockRef::of(&n.to_be_bytes())]));
    let mut entries: Vec<_> = (0..2000).map(|n| an_entry(n, small(n))).collect();
    entries.push(an_entry(2000, large));
    entries.push(an_entry(2001, EntryKind::Directory));
    entries.iter().for_each(|e| writer.push(e.clone()).unwrap());

    (writer.finish(an_origin()).unwrap(), entries)
}

#[test]
fn entries_and_lists_round_trip_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (index, entries) = written(&path);
    let again = Index::open(&path, ROOT).expect("whole");

    for index in [&index, &again, &again] {
        assert_eq!(
            index.entries().collect::<io::Result<Vec<_>>>().unwrap(),
            entries
        );
        let EntryKind::File(content) = &entries[2000].entry.kind else {
            panic!("a file")
        };
        assert!(content.list_count() > 1);
        assert_eq!(index.blocks(content).unwrap().len(), 9000);
        assert_eq!(index.totals().files, 2001);
        assert_eq!(index.totals().bytes, 4 * 11_000);
        assert_eq!(*index.origin(), an_origin());
        let manifest = crate::manifest::read::Manifest::new(index.root(), index_of(&path));
        assert!(
            manifest
                .entries()
                .map(|l| l.unwrap().entry)
                .eq(entries.iter().map(|e| e.entry.clone()))
        );
        assert_eq!(
            index.find(&entries[1234].entry.path).unwrap().as_ref(),
            Some(&entries[1234])
        );
        assert_eq!(
            index
                .find(&TreePath::new(&b"f001234x"[..]).unwrap())
                .unwrap(),
            None
        );
    }

    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn a_foreign_or_missing_index_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    assert!(Index::open(&path, ROOT).is_none());
    written(&path);
    assert!(Index::open(&path, FileId { ino: 3, ..ROOT }).is_none());
    std::fs::write(
        &path,
        "something else entirely, and long enough to hold a magic",
    )
    .unwrap();
    assert!(Index::open(&path, ROOT).is_none());
    std::fs::write(&path, "").unwrap();

    assert!(Index::open(&path, ROOT).is_none());
}

#[test]
fn a_renumbered_device_is_the_same_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    written(&path);
    let moved = Index::open(&path, FileId { dev: 8, ..ROOT }).expect("whole");
    let devs: Vec<u64> = moved
        .entries()
        .take(2)
        .map(|e| e.unwrap().version.dev)
        .collect();
    assert_eq!(devs, [8, 99]);

    assert_eq!(moved.origin().top.dev, 8);
}

#[test]
fn no_damage_passes_as_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (_, entries) = written(&path);
    let whole = std::fs::read(&path).unwrap();
    let mut rng = fastrand::Rng::with_seed(4);

    for _ in 0..60 {
        let mut bytes = whole.clone();
        if rng.bool() {
            bytes.truncate(rng.usize(..whole.len()));
        } else {
            bytes[rng.usize(..whole.len())] ^= 1 << rng.u8(..8);
        }
        std::fs::write(&path, &bytes).unwrap();
        let Some(index) = Index::open(&path, ROOT) else {
            continue;
        };
        let read: Vec<_> = index.entries().map_while(Result::ok).collect();
        assert_eq!(read, entries[..read.len()]);
    }
}

#[test]
fn copied_pages_give_the_same_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let (old, entries) = written(&dir.path().join("index"));
    let again = dir.path().join("again");
    let fresh = dir.path().join("fresh");
    let mut writer = IndexWriter::create(&again, ROOT).unwrap();
    let rows = old.rows().len();
    assert!(rows > 1);
    let mut whole = 0;

    for row in 0..rows {
        if row != 1 && writer.copy_page(&old, row, row + 1 == rows).unwrap() {
            whole += 1;
            continue;
        }
        for entry in old.page(row).unwrap() {
            writer.copy_lists(&old, &entry).unwrap();
            writer.push(entry).unwrap();
        }
    }

    let copied = writer.finish(an_origin()).unwrap();
    assert_eq!(
        (whole, copied.root(), copied.totals()),
        (rows - 1, old.root(), old.totals())
    );
    assert_eq!(
        copied.entries().collect::<io::Result<Vec<_>>>().unwrap(),
        entries
    );

    let EntryKind::File(content) = &entries[2000].entry.kind else {
        panic!("a file")
    };

    assert_eq!(index_of(&again).blocks(content).unwrap().len(), 9000);
    // The last page ends only because the entries ended.
    let mut writer = IndexWriter::create(&fresh, ROOT).unwrap();

    assert!(!writer.copy_page(&old, rows - 1, false).unwrap());
}

#[test]
fn the_filter_of_a_page_knows_its_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (index, entries) = written(&dir.path().join("index"));
    let mut buffer = Vec::new();
    for entry in entries.iter().take(2000).step_by(97) {
        let EntryKind::File(Content::Blocks(blocks)) = &entry.entry.kind else {
            panic!("small")
        };
        let row = index.row_of(&entry.entry.path).unwrap();
        assert!(
            index
                .filter(row, &mut buffer)
                .unwrap()
                .may_have(&blocks[0].hash)
        );
    }
}

#[test]
fn leftovers_of_killed_writers_are_removed_and_active_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join(".index-old");
    let new = dir.path().join(".index-new");
    let other = dir.path().join("other");

    for path in [&old, &new, &other] {
        let file = std::fs::File::create(path).unwrap();
        let age = std::time::Duration::from_secs(if *path == new { 60 } else { 7200 });
        file.set_modified(file.metadata().unwrap().modified().unwrap() - age)
            .unwrap();
    }

    drop(IndexWriter::create(&dir.path().join("index"), ROOT).unwrap());
    assert_eq!(
        [old.exists(), new.exists(), other.exists()],
        [false, true, true]
    );
}
