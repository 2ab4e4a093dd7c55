//! Trees that are mount points: the state is in a directory inside the tree under a reserved name.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::crash::{new, old};
use super::deploy::Mount;
use super::filesystems::mounted;
use super::world::{Thing, World, file, look, make, scratch, set_top};
use crate::id::Serial;
use crate::manifest::path::RESERVED;
use crate::tree::lifecycle::Recovery;
use crate::tree::{ScanOptions, StateReader};

/// Makes a world with the root of the filesystem at `at`/www as its tree.
fn world(at: &Path, old: &[(&str, Thing)], new: &[(&str, Thing)]) -> World {
    let www = at.join("www");
    let _ = std::fs::remove_dir(www.join("lost+found"));
    make(&www, old);
    set_top(&www, 0o755, 900_000_001);
    World::new(&[], new).hosted(at)
}

/// Deploys over a mount point, reverts, deletes, and starts from scratch.
#[expect(
    clippy::disallowed_methods,
    reason = "files bear the times of the real clock"
)]
fn lives(at: &Path) {
    let world = world(at, &old(), &new());
    let before = look(&world.www());
    let tree = world.open();
    let state = std::fs::canonicalize(world.www())
        .expect("there")
        .join(RESERVED)
        .join("www");

    assert_eq!(tree.state().path(), state);
    for dir in [state.as_path(), state.parent().expect("a parent")] {
        assert_eq!(
            std::fs::metadata(dir).expect("there").mode() & 0o7777,
            0o700
        );
    }

    world.deploy(&tree, 1).expect("a commit");

    assert_eq!(look(&world.www()), look(&world.source()));
    tree.revert().expect("it goes back");
    assert_eq!(look(&world.www()), before);
    world.deploy(&tree, 2).expect("a commit");
    drop(tree);

    let tree = world.open();

    let kept = StateReader::find(tree.name(), &world.www(), None)
        .expect("readable")
        .expect("a state");
    assert_eq!(
        kept.highest().expect("read").map(|mark| mark.serial),
        Some(Serial(2))
    );

    assert!(!tree.is_strange());
    for entry in std::fs::read_dir(world.www())
        .expect("there")
        .flatten()
        .filter(|e| e.file_name() != RESERVED)
    {
        match entry.file_type().expect("there").is_dir() {
            true => std::fs::remove_dir_all(entry.path()).expect("root may"),
            false => std::fs::remove_file(entry.path()).expect("root may"),
        }
    }

    assert!(tree.is_strange(), "all but the state is gone");
    world.release(&[("only", file("this"))]);
    world.deploy(&tree, 3).expect("a commit");
    assert_eq!(look(&world.www()), look(&world.source()));
    world.release(&[]);
    world.deploy(&tree, 4).expect("a commit");
    let left: Vec<_> = std::fs::read_dir(world.www())
        .expect("there")
        .flatten()
        .map(|e| e.file_name())
        .collect();

    assert_eq!(left, [RESERVED]);

    let mut options = ScanOptions::new(std::time::SystemTime::now());
    options.paths.apart = tree.state().apart();
    let scanned =
        crate::tree::scan(&tree.root(), &options, None, &tree.index_path()).expect("scanned");

    assert_eq!(scanned.index.totals().entries, 0);
}

#[test]
fn a_tree_that_is_a_mount_point_has_its_state_inside() {
    let dir = scratch();
    for kind in ["ext4", "xfs"] {
        let at = dir.path().join(kind);
        std::fs::create_dir(&at).expect("new");
        let www = at.join("www");
        let Some(_disk) = mounted(kind, &at, &www) else {
            continue;
        };
        lives(&at);
    }

    let at = dir.path().join("tmpfs");
    match Mount::tmpfs(&at.join("www"), "size=20m") {
        Some(_mount) => lives(&at),
        None => println!("skipped in part: no right to mount"),
    }
}

#[test]
fn a_crash_in_a_tree_that_is_a_mount_point_leaves_all_old_or_all_new() {
    for after in 0.. {
        let dir = scratch();
        let Some(_mount) = Mount::tmpfs(&dir.path().join("www"), "size=20m") else {
            return crate::skip::skipped("no right to mount");
        };
        let world = world(dir.path(), &old(), &new());
        let before = look(&world.www());
        let wanted = look(&world.source());
        let tree = world.open_crashing(Some(after)).expect("opens");
        let (stage, release) = world.stage(&tree, 5).expect("staged");
        let committed = stage.commit(&release, b"signature").is_ok();
        drop(tree);
        let tree = world.open();
        let is_old =
            tree.recovery() == Recovery::Nothing && tree.state().current().expect("read").is_none();
        assert_eq!(
            look(&world.www()),
            if is_old { before } else { wanted },
            "crash {after}"
        );
        if committed {
            break;
        }
    }
}

#[test]
fn an_exchange_of_a_tree_that_is_a_mount_point_is_refused() {
    let dir = scratch();
    let Some(_mount) = Mount::tmpfs(&dir.path().join("www"), "size=20m") else {
        return crate::skip::skipped("no right to mount");
    };

    let world = world(dir.path(), &old(), &new()).swapping(true);
    let before = look(&world.www());
    let Err(refused) = world.begin(&world.open(), 1) else {
        panic!("not possible")
    };

    assert!(refused.to_string().contains("mount point"), "{refused}");
    assert_eq!(look(&world.www()), before);
}

#[test]
fn no_release_names_the_directory_of_the_state() {
    for things in [
        vec![(RESERVED, file("x"))],
        vec![
            (RESERVED, Thing::Dir(0o755)),
            (".makuo/www", Thing::Dir(0o755)),
        ],
    ] {
        let world = World::new(&[], &[]);
        let tree = world.open();
        let mut builder = crate::manifest::build::Builder::default();
        let mut sink = tree.nodes();
        for (path, thing) in things {
            let kind = match thing {
                Thing::Dir(_) => crate::manifest::EntryKind::Directory,
                _ => crate::manifest::EntryKind::Fifo,
            };
            builder
                .push(crate::manifest::fixtures::entry(path, kind), &mut sink)
                .expect("kept");
        }
        let root = builder.finish(&mut sink).expect("kept");
        let header = crate::manifest::Header {
            root,
            ..crate::manifest::header::tests::a_header()
        };
        let Err(refused) = world.plan(&crate::manifest::read::Manifest::of(&header, tree.nodes()))
        else {
            panic!("it is planned");
        };
        assert!(refused.to_string().contains(".makuo"), "{refused}");
    }
}
