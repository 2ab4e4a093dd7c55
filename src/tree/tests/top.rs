//! The tree's root directory: compared, set, undone, refused.

use std::os::unix::fs::MetadataExt;

use super::world::{Thing, World, as_nobody, file, is_root, look, set_top};
use crate::diff::{LocalOwner, Plan};
use crate::error::Kind;
use crate::manifest::header::tests::a_header;
use crate::manifest::read::Manifest;
use crate::manifest::{Header, TreePath};
use crate::tree::stage::Stage;

fn plan(world: &World, tree: &crate::tree::Tree) -> Plan {
    let source = super::world::Scanned::of(&world.source());
    let header = Header {
        root: source.manifest(tree),
        top: source.top.clone(),
        ..a_header()
    };
    world.plan(&Manifest::of(&header, tree.nodes())).unwrap()
}

#[test]
fn a_top_alone_is_drift_is_set_and_is_set_back() {
    let things = [("d", Thing::Dir(0o755)), ("f", file("same"))];
    let world = World::new(&things, &things).topped(0o2711);
    if is_root() {
        std::os::unix::fs::chown(world.source(), Some(33), Some(44)).unwrap();
        set_top(&world.source(), 0o2711, 77);
    }

    let xattr = rustix::fs::XattrFlags::empty();
    let carried = rustix::fs::setxattr(world.source(), "user.new", b"1", xattr)
        .and_then(|()| rustix::fs::setxattr(world.www(), "user.old", b"1", xattr));
    if let Err(e) = carried {
        println!("without attributes: no user xattrs here: {e}");
    }

    let before = look(&world.www());
    let tree = world.open();
    let found = plan(&world, &tree);
    assert!(!found.is_clean() && found.changes.is_empty());
    assert_eq!(found.summary.metadata, 1);
    let expected = match (is_root(), carried.is_ok()) {
        (true, true) => ".d..tpog..x",
        (true, false) => ".d..tpog...",
        (false, true) => ".d..tp....x",
        (false, false) => ".d..tp.....",
    };

    assert_eq!(found.top.unwrap().itemized(), expected);
    let report = world.deploy(&tree, 1).unwrap();
    assert_eq!((report.files_written, report.metadata_changed), (0, 1));
    assert_eq!(look(&world.www()), look(&world.source()));
    assert!(plan(&world, &tree).is_clean());
    tree.revert().unwrap();

    assert_eq!(look(&world.www()), before);
}

#[test]
fn names_that_change_in_the_top_leave_its_time_as_the_release_says() {
    let world = World::new(&[("f", file("old"))], &[("f", file("new"))]);
    for path in [world.www(), world.source()] {
        set_top(&path, 0o755, 55);
    }

    let tree = world.open();
    assert!(!plan(&world, &tree).top.unwrap().differs());
    world.deploy(&tree, 1).unwrap();
    assert_eq!(std::fs::metadata(world.www()).unwrap().mtime(), 55);

    assert!(plan(&world, &tree).is_clean());
}

#[test]
fn rules_and_scope_decide_what_is_set() {
    let mut world = World::new(&[], &[("f", file("1"))]);
    world.rules.mtime = false;
    let tree = world.open();
    assert_eq!(plan(&world, &tree).top.unwrap().itemized(), ".d...p.....");
    world.deploy(&tree, 1).unwrap();
    let now = std::fs::metadata(world.www()).unwrap();
    assert_eq!(now.mode() & 0o7777, 0o750);

    assert!(now.mtime() > 1_000_000_000, "the time of the last change");

    let source = super::world::Scanned::of(&world.source());
    let header = Header {
        root: source.manifest(&tree),
        top: source.top.clone(),
        ..a_header()
    };

    let scope = [TreePath::new(&b"f"[..]).unwrap()];
    let want = Manifest::of(&header, tree.nodes());
    assert!(world.plan_within(&want, &scope).unwrap().top.is_none());
}

#[test]
fn a_top_that_cannot_be_set_is_refused_before_anything_changes() {
    as_nobody(|| {
        let world = World::new(&[], &[("f", file("1"))]);
        let tree = world.open();
        let mut plan = plan(&world, &tree);
        let top = plan.top.as_mut().unwrap();
        (top.owner, top.delta.user) = (
            LocalOwner {
                uid: Some(0),
                gid: None,
            },
            true,
        );
        let refused = Stage::begin(&tree, plan).map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(
            refused
                .to_string()
                .contains("/www: its owner cannot be set"),
            "{refused}"
        );
        assert!(refused.hint_text().is_some());
    });
}
