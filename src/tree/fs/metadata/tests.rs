//! Tests of metadata on real files.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn everything_is_set_through_a_handle_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    std::fs::set_permissions(
        dir.path().join("file"),
        std::fs::Permissions::from_mode(0o000),
    )
    .unwrap();

    let top = File::open(dir.path()).unwrap();
    let wanted = Metadata {
        mode: Some(Mode::from_bits(0o4750)),
        mtime: Some(Mtime {
            secs: -5,
            nanos: 123_456_789,
        }),
        ..Metadata::default()
    };

    wanted
        .set(handle_of(top.as_fd(), c"file").unwrap())
        .unwrap();
    let now = Metadata::present(top.as_fd(), c"file", false).unwrap();

    assert_eq!((now.mode, now.mtime), (wanted.mode, wanted.mtime));
}

#[test]
fn a_link_has_a_time_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    symlink("nowhere", dir.path().join("link")).unwrap();
    let top = File::open(dir.path()).unwrap();
    let wanted = Metadata {
        mtime: Some(Mtime { secs: 99, nanos: 1 }),
        ..Metadata::default()
    };

    wanted
        .set(handle_of(top.as_fd(), c"link").unwrap())
        .unwrap();
    let meta = std::fs::symlink_metadata(dir.path().join("link")).unwrap();

    assert_eq!((meta.mtime(), meta.mtime_nsec()), (99, 1));
}

#[test]
fn attributes_become_exactly_what_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("file")).unwrap();
    if rustix::fs::fsetxattr(&file, "user.old", b"1", XattrFlags::empty()).is_err() {
        crate::skip::skipped("no user xattrs here");
        return;
    }

    let xattrs = vec![Xattr {
        name: b"user.new".to_vec(),
        value: b"2".to_vec(),
    }];
    let wanted = Metadata {
        xattrs: Some(xattrs),
        mode: Some(Mode::from_bits(0o444)),
        ..Metadata::default()
    };

    let top = File::open(dir.path()).unwrap();
    wanted
        .set(handle_of(top.as_fd(), c"file").unwrap())
        .unwrap();
    let now = Metadata::present(top.as_fd(), c"file", true).unwrap();

    assert_eq!((now.xattrs, now.mode), (wanted.xattrs, wanted.mode));
}
