//! Tests of repositories in directories: odd files, and publishers that die.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use super::{Directory, ObjectFileReader};
use crate::error::sentence::repetition;
use crate::repository::object::{
    FaultKind, Get, GetReply, ListedObject, ObjectPath, Put, PutCondition, PutReply,
};

fn directory() -> (tempfile::TempDir, Arc<Directory>) {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = Arc::new(Directory::new(dir.path().to_path_buf()));
    (dir, directory)
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).expect("legal")
}

async fn end(directory: &Arc<Directory>, object: &str, max: u64) -> GetReply {
    let get = Get {
        object: path(object),
        range: None,
        unless: None,
        max,
    };
    let mut reader = ObjectFileReader::new(Arc::clone(directory), get);
    loop {
        match reader.next().await.expect("a last reply") {
            GetReply::Bytes(_) => {}
            end => return end,
        }
    }
}

async fn put(directory: &Arc<Directory>, object: &str, condition: PutCondition) -> PutReply {
    let put = Put {
        object: path(object),
        bytes: Arc::new(b"content".to_vec()),
        condition,
    };
    directory.put(&put).await
}

#[tokio::test]
async fn only_files_are_read() {
    let (dir, directory) = directory();
    std::fs::create_dir(dir.path().join("folder")).expect("writable");
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), 0o600.into()).expect("a pipe");
    symlink("nowhere", dir.path().join("link")).expect("writable");
    for (name, kind) in [("folder", "not a file"), ("pipe", "not a file")] {
        let GetReply::Failed(fault) = end(&directory, name, 10).await else {
            panic!("{name} was read");
        };
        assert!(fault.text.contains(kind), "{name}: {fault}");
    }

    assert_eq!(end(&directory, "link", 10).await, GetReply::Missing);
    assert_eq!(end(&directory, "pipe/below", 10).await, GetReply::Missing);
    put(&directory, "file", PutCondition::Any).await;
    let GetReply::Failed(fault) = end(&directory, "file", 6).await else {
        panic!("a file over the limit was read");
    };
    assert_eq!(fault.kind, FaultKind::TooLarge);
}

#[tokio::test]
async fn a_publisher_that_dies_leaves_a_file_that_gc_finds() {
    let (dir, directory) = directory();
    put(&directory, "trees/www/head", PutCondition::Any).await;
    std::fs::write(dir.path().join("trees/www/head.tmp-0123"), "half").expect("writable");
    let mut found = Vec::new();
    let mut each = |one: crate::repository::object::ListedObject| {
        found.push(one.object.as_str().to_string());
    };
    directory.list(&mut each).await.expect("a list");
    found.sort();
    assert_eq!(found, ["trees/www/head", "trees/www/head.tmp-0123"]);
    directory
        .delete(&path("trees/www/head.tmp-0123"))
        .await
        .expect("deleted");
}

#[tokio::test]
async fn a_failed_put_leaves_nothing() {
    let (dir, directory) = directory();
    std::fs::write(dir.path().join("trees"), "a file in the way").expect("writable");
    let PutReply::Failed(fault) = put(&directory, "trees/www/head", PutCondition::Any).await else {
        panic!("stored below a file");
    };
    assert!(fault.text.contains("trees"), "{fault}");
    put(&directory, "head", PutCondition::Absent).await;
    let twice = put(&directory, "head", PutCondition::Absent).await;
    assert_eq!(twice, PutReply::Conflict);
    let names = std::fs::read_dir(dir.path()).expect("readable");
    assert_eq!(names.count(), 2, "a temporary file is left");
}

#[tokio::test]
async fn a_list_has_the_parts_on_other_disks() {
    let (dir, directory) = directory();
    let (other_dir, other) = self::directory();
    for (place, object) in [
        (&directory, "packs/aa/1.pack"),
        (&other, "www/head"),
        (&other, "2.pack"),
    ] {
        let stored = put(place, object, PutCondition::Any).await;
        assert!(matches!(stored, PutReply::Done { .. }), "{stored:?}");
    }
    let there = |name: &str| other_dir.path().join(name);
    symlink(there(""), dir.path().join("trees")).expect("writable");
    symlink(there("2.pack"), dir.path().join("packs/aa/2.pack")).expect("writable");
    symlink(".", dir.path().join("packs/round")).expect("writable");

    let mut found = BTreeMap::new();
    let mut each = |one: ListedObject| {
        found.insert(one.object.as_str().to_string(), one.size);
    };
    directory.list(&mut each).await.expect("a list");
    for object in ["packs/aa/1.pack", "packs/aa/2.pack", "trees/www/head"] {
        assert_eq!(found.get(object), Some(&7), "{object}: {found:?}");
    }
}

/// Gc takes what is not listed for what is not there.
#[tokio::test]
async fn a_list_without_a_part_that_a_link_leads_to_fails() {
    for link in ["trees", "packs/bb", "packs/aa/2.pack"] {
        let (dir, directory) = directory();
        let stored = put(&directory, "packs/aa/1.pack", PutCondition::Any).await;
        assert!(matches!(stored, PutReply::Done { .. }), "{stored:?}");
        let link = dir.path().join(link);
        symlink(dir.path().join(".unmounted"), &link).expect("writable");

        let listed = directory.list(&mut |_| {}).await;
        let fault = listed.expect_err("a part is missing");
        assert_eq!(fault.kind, FaultKind::Permanent);
        let place = link.display().to_string();
        assert!(fault.text.contains(&place), "{fault}");
        assert!(fault.text.contains("mounted"), "{fault}");
        assert_eq!(repetition(&fault.text), None, "{fault}");

        std::fs::remove_file(&link).expect("a link");
        let mut found = 0;
        let listed = directory.list(&mut |_| found += 1).await;
        assert_eq!((listed, found), (Ok(()), 1));
    }
}

#[tokio::test]
async fn no_fault_says_a_thing_twice() {
    let (dir, directory) = directory();
    std::fs::create_dir(dir.path().join("folder")).expect("writable");
    std::fs::write(dir.path().join("large"), "too large").expect("writable");
    let mut faults = Vec::new();
    for object in ["folder", "large"] {
        let GetReply::Failed(fault) = end(&directory, object, 2).await else {
            panic!("{object} was read");
        };
        faults.push(fault);
    }
    let PutReply::Failed(fault) = put(&directory, "large/below", PutCondition::Any).await else {
        panic!("stored below a file");
    };
    faults.push(fault);
    faults.push(
        directory
            .delete(&path("folder"))
            .await
            .expect_err("no file"),
    );
    let gone = Arc::new(Directory::new(dir.path().join("gone")));
    faults.push(gone.list(&mut |_| {}).await.expect_err("no directory"));
    let file = Arc::new(Directory::new(dir.path().join("large")));
    faults.push(file.list(&mut |_| {}).await.expect_err("a file"));

    for fault in faults {
        assert!(fault.text.starts_with("cannot "), "{fault}");
        // The name of the test's directory is made at random.
        let text = fault
            .text
            .replace(&dir.path().display().to_string(), "/srv");
        assert_eq!(repetition(&text), None, "{text}");
    }
}
