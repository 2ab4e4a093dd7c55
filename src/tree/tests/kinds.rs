//! Every kind of file in both layouts, sparse files, and obstacles that refuse a release before the
//! commit.

use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::XattrFlags;

use super::deploy::noise;
use super::world::{Scanned, Thing, World, as_nobody, file, is_root, look, scratch};
use crate::error::Kind;
use crate::manifest::read::Manifest;
use crate::tree::stage::Stage;

/// Encodes an access list that lets user 12 read, in the kernel's format.
pub(super) fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    let entries = [
        (1u16, 6u16, u32::MAX),
        (2, 4, 12),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ];

    for (tag, rights, id) in entries {
        bytes.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }

    bytes
}

/// Adds attributes and files that need root or particular filesystems.
fn decorate(top: &Path) {
    for (path, name, value) in [
        ("f", "user.note", b"\0x".to_vec()),
        ("d", "user.dir", b"1".to_vec()),
        ("f", "system.posix_acl_access", acl()),
    ] {
        if let Err(e) = rustix::fs::setxattr(top.join(path), name, &value, XattrFlags::empty()) {
            println!("without {name}: {e}");
        }
    }

    if !is_root() {
        println!("without devices and owners: not root");
        return;
    }

    use nix::sys::stat::{Mode, SFlag, mknod};
    for (name, kind, device) in [
        ("char", SFlag::S_IFCHR, (1, 3)),
        ("block", SFlag::S_IFBLK, (7, 200)),
    ] {
        let device = rustix::fs::makedev(device.0, device.1);
        if let Err(e) = mknod(&top.join(name), kind, Mode::S_IRWXU, device) {
            println!("without {name}: {e}");
        }
    }

    for (path, uid) in [
        ("pipe", 70_000),
        ("link", 4_000_000_000),
        ("d", 3),
        ("empty", 65_536),
    ] {
        std::os::unix::fs::lchown(top.join(path), Some(uid), Some(uid + 10)).unwrap();
    }
}

fn all() -> Vec<(&'static str, Thing)> {
    vec![
        ("d", Thing::Dir(0o3711)),
        ("empty", file("")),
        ("f", Thing::File(noise(70_000, 5), 0o640)),
        ("hard", Thing::Hard("f")),
        ("link", Thing::Link("/no/where")),
        ("pipe", Thing::Pipe),
        ("setgid", Thing::File(b"#!".to_vec(), 0o2755)),
        ("setuid", Thing::File(b"#!".to_vec(), 0o4711)),
        ("sticky", Thing::Dir(0o1777)),
    ]
}

#[test]
fn every_kind_arrives_stays_and_leaves_in_both_layouts() {
    for swap in [false, true] {
        let world = World::new(&[("z", file("z"))], &all()).swapping(swap);
        decorate(&world.source());
        let tree = world.open();
        let empty = look(&world.www());
        world.deploy(&tree, 1).unwrap();
        assert_eq!(
            look(&world.www()),
            look(&world.source()),
            "arrives, swap {swap}"
        );
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), empty, "taken back, swap {swap}");
        world.deploy(&tree, 2).unwrap();
        let before = look(&world.www());
        for path in ["f", "link", "pipe", "char", "d", "empty"] {
            if is_root() && world.source().join(path).symlink_metadata().is_ok() {
                std::os::unix::fs::lchown(world.source().join(path), Some(11), None).unwrap();
            }
        }
        super::world::set_top(&world.source().join("sticky"), 0o700, 5);
        world.deploy(&tree, 3).unwrap();
        assert_eq!(
            look(&world.www()),
            look(&world.source()),
            "changes, swap {swap}"
        );
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), before, "changes back, swap {swap}");
        for entry in std::fs::read_dir(world.source()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir(path)
            } else {
                std::fs::remove_file(path)
            }
            .unwrap();
        }
        world.deploy(&tree, 4).unwrap();
        assert_eq!(look(&world.www()).len(), 1, "leaves, swap {swap}");
    }
}

#[test]
fn kinds_change_into_each_other_in_one_exchange_and_back() {
    let kinds = || [Thing::Dir(0o755), file("f"), Thing::Link("t"), Thing::Pipe];
    for (old, new) in kinds()
        .into_iter()
        .flat_map(|old| kinds().map(|new| (old.clone(), new)))
    {
        let with_inside = |thing: Thing| {
            let is_dir = matches!(thing, Thing::Dir(_));
            let inside = is_dir.then(|| ("x/inside", file("inside")));
            std::iter::once(("x", thing))
                .chain(inside)
                .collect::<Vec<_>>()
        };
        let world = World::new(&with_inside(old), &with_inside(new)).swapping(true);
        let tree = world.open();
        let before = look(&world.www());
        world.deploy(&tree, 1).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), before);
    }
}

#[test]
fn holes_stay_holes() {
    let size = 40 << 20;
    for swap in [false, true] {
        let world = World::new(&[], &[("sparse", file("")), ("tail", file("tail"))]).swapping(swap);
        let source = std::fs::File::options()
            .write(true)
            .open(world.source().join("sparse"))
            .unwrap();
        source.write_all_at(&noise(100_000, 1), 9 << 20).unwrap();
        source.set_len(size).unwrap();
        let tail = std::fs::File::options()
            .write(true)
            .open(world.source().join("tail"))
            .unwrap();
        tail.set_len(3 << 20).unwrap();
        drop((source, tail));
        let tree = world.open();
        world.deploy(&tree, 1).unwrap();
        tree.forget_undo().unwrap();
        let blocks = |path: &str| std::fs::metadata(world.www().join(path)).unwrap().blocks() * 512;
        for path in ["sparse", "tail"] {
            let here = std::fs::read(world.www().join(path));
            let there = std::fs::read(world.source().join(path));
            assert!(here.unwrap() == there.unwrap());
        }
        assert!(
            blocks("sparse") < 2 << 20 && blocks("tail") < 1 << 20,
            "{} {}",
            blocks("sparse"),
            blocks("tail")
        );
        // Metadata only: the swap layout copies the file, including its holes.
        std::fs::set_permissions(
            world.source().join("sparse"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .unwrap();
        world.deploy(&tree, 2).unwrap();
        assert!(blocks("sparse") < 2 << 20, "{}", blocks("sparse"));
        assert_eq!(
            look(&world.www())["sparse"],
            look(&world.source())["sparse"]
        );
    }
}

#[test]
fn a_hole_needs_no_space() {
    let dir = scratch();
    let Some(_mount) = super::deploy::Mount::tmpfs(&dir.path().join("small"), "size=4m") else {
        crate::skip::skipped("no right to mount a small filesystem");
        return;
    };

    let world = World::new(&[], &[("sparse", file(""))]);
    let source = std::fs::File::options()
        .write(true)
        .open(world.source().join("sparse"))
        .unwrap();
    source.set_len(30 << 20).unwrap();
    let name = crate::id::TreeName::new("www").unwrap();

    let tree = crate::tree::Tree::open(
        name,
        &dir.path().join("small/www"),
        None,
        Default::default(),
    )
    .unwrap();

    let scanned = Scanned::of(&world.source());
    let plan = world
        .plan(&Manifest::new(scanned.manifest(&tree), tree.nodes()))
        .unwrap();
    let stage = Stage::begin(&tree, plan).unwrap();
    for (ordinal, block) in stage.fetched().unwrap() {
        assert!(stage.put(ordinal, &scanned.blocks[&block.hash]).unwrap());
    }

    stage.finish().unwrap();
}

#[test]
fn a_socket_in_the_way_is_named_before_anything_changes() {
    let old = [
        ("d", Thing::Dir(0o755)),
        ("d/x", file("x")),
        ("f", file("old")),
    ];

    for (place, swap) in [("s", false), ("d/s", false), ("s", true), ("d/s", true)] {
        let world = World::new(&old, &[("f", file("new")), ("s", file("s"))]).swapping(swap);
        let socket = world.www().join(place);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let tree = world.open();
        // A scan omits sockets.
        let source = Scanned::of(&world.source());
        let header = crate::manifest::Header {
            root: source.manifest(&tree),
            ..crate::manifest::header::tests::a_header()
        };
        let plan = world.plan(&Manifest::of(&header, tree.nodes())).unwrap();
        let refused = Stage::begin(&tree, plan).map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        let said = format!("/{place}: a socket is in the way");
        assert!(
            refused.to_string().contains(&said) && refused.hint_text().is_some(),
            "{refused}"
        );
        assert_eq!(
            std::fs::read_to_string(world.www().join("f")).unwrap(),
            "old"
        );
        std::fs::remove_file(&socket).unwrap();
        world.deploy(&tree, 2).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
    }
}

#[test]
fn a_device_that_cannot_be_made_is_refused_with_its_path_and_the_right() {
    as_nobody(|| {
        let world = World::new(&[], &[("pipe", Thing::Pipe)]);
        let tree = world.open();
        let source = Scanned::of(&world.source());
        let mut plan = world
            .plan(&Manifest::new(source.manifest(&tree), tree.nodes()))
            .unwrap();
        plan.changes.tamper(0, |c| {
            c.want.as_mut().unwrap().entry.kind = crate::manifest::EntryKind::CharDevice(1, 3)
        });
        let refused = Stage::begin(&tree, plan).map(drop).unwrap_err();
        assert_eq!(refused.to_string(), "pipe: only root may make devices");
        assert!(refused.hint_text().is_some());
    });
}

#[test]
fn what_dead_sessions_left_for_nobody_goes_when_the_tree_is_opened() {
    let world = World::new(&[], &[("big", Thing::File(noise(400_000, 3), 0o644))]);
    let tree = world.open();
    let source = Scanned::of(&world.source());
    let plan = world
        .plan(&Manifest::new(source.manifest(&tree), tree.nodes()))
        .unwrap();
    let stage = Stage::begin(&tree, plan).unwrap();

    let (ordinal, block) = stage.fetched().unwrap()[0];
    stage.put(ordinal, &source.blocks[&block.hash]).unwrap();
    drop(stage);
    let staged = tree.state().stage_path();
    std::fs::write(staged.join("77"), "no log tells of it").unwrap();
    std::fs::File::create(staged.join("log-99"))
        .unwrap()
        .write_all(b"")
        .unwrap();

    std::fs::create_dir_all(tree.state().path().join("next/half/built")).unwrap();
    let next = tree.state().path().join("next");
    drop(tree);
    let tree = world.open();

    // The earlier paths belonged to handles that are closed by now.
    let mut left: Vec<_> = std::fs::read_dir(tree.state().stage_path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();

    left.sort();
    assert_eq!(left, ["1", "log-1"], "what the next session can use");
    assert!(!next.exists());
}
