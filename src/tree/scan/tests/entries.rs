//! Entries of a scan: names, kinds, hard links, attributes and errors.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::manifest::{Content, EntryKind, TreePath};
use crate::tree::fs::root::Root;
use crate::{Kind, Result};

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
        entries: EntryRules {
            hardlinks: false,
            ..EntryRules::default()
        },
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
        crate::skip::skipped(format!("no user xattrs here: {e}"));
        return;
    }

    assert!(entries(&f.scan(&options()))[0].xattrs.is_empty());
    let with = ScanOptions {
        entries: EntryRules {
            xattrs: true,
            ..EntryRules::default()
        },
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
fn errors_name_unreadable_paths() {
    let f = Fixture::new();
    f.write(b"d/secret\n", b"");
    std::fs::set_permissions(f.at(b"d/secret\n"), std::fs::Permissions::from_mode(0o000)).unwrap();

    if std::fs::File::open(f.at(b"d/secret\n")).is_ok() {
        crate::skip::skipped("this user may read everything");
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
