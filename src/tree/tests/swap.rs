//! Exchanges of whole trees: the readers' view, the carried paths, and the refusals.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::deploy::Mount;
use super::world::{Scanned, Thing, World, as_nobody, file, look};
use crate::diff::HostRules;
use crate::error::Kind;
use crate::id::Serial;
use crate::manifest::read::Manifest;
use crate::manifest::rules::PathFilter;
use crate::tree::fs::root::open_file_at;
use crate::tree::index::Index;
use crate::tree::scan::{ScanOptions, scan};
use crate::units::Limit;

fn ino(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

fn names(top: &Path) -> Vec<String> {
    look(top).into_keys().collect()
}

#[test]
fn a_reader_who_opened_the_directory_sees_one_release() {
    let at = |n: u32| {
        [
            ("a", file(&n.to_string())),
            ("d", Thing::Dir(0o755)),
            ("d/b", file(&n.to_string())),
        ]
    };

    let world = World::new(&at(0), &at(1)).swapping(true);
    let stop = AtomicBool::new(false);
    let www = world.www();
    let source = world.source();

    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let top = File::open(&www).expect("the tree is always there");
                let text = |dir: std::os::fd::BorrowedFd<'_>, name| -> Option<String> {
                    let mut text = String::new();
                    open_file_at(dir, name)
                        .ok()?
                        .read_to_string(&mut text)
                        .ok()?;
                    Some(text)
                };
                let first = text(top.as_fd(), c"a");
                let below = crate::tree::fs::root::open_dir_at(top.as_fd(), c"d").ok();
                let second = below.and_then(|d| text(d.as_fd(), c"b"));
                // An old tree may be missing already, but never mixes two releases.
                if let (Some(first), Some(second)) = (first, second) {
                    assert_eq!(first, second);
                    reads += 1;
                }
            }
            reads
        });
        let tree = world.open();
        for serial in 1..40u64 {
            std::fs::write(source.join("a"), serial.to_string()).unwrap();
            std::fs::write(source.join("d/b"), serial.to_string()).unwrap();
            world.deploy(&tree, serial).unwrap();
            assert!(tree.still_there().unwrap());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("no panic") > 0);
    });
}

#[test]
fn what_the_release_leaves_alone_comes_along_with_what_happens_to_it_meanwhile() {
    let old = [
        ("d", Thing::Dir(0o755)),
        ("d/extra", file("extra")),
        ("d/own", file("old")),
        ("up", Thing::Dir(0o2775)),
        ("up/deep", Thing::Dir(0o700)),
        ("up/deep/keep", file("keep")),
        ("up/goes", file("goes")),
        ("up/link", Thing::Link("nowhere")),
        ("up/pipe", Thing::Pipe),
    ];

    let new = [
        ("d", Thing::Dir(0o755)),
        ("d/own", file("new")),
        ("fresh", file("fresh")),
    ];

    let mut world = World::new(&old, &new).swapping(true);
    world.rules.delete_extras = false;
    world.protect = PathFilter::at_top(&["/up/"]);
    let www = world.www();
    let tree = world.open();
    std::os::unix::net::UnixListener::bind(www.join("up/socket")).unwrap();
    let kept =
        ["d/extra", "up/deep/keep", "up/link", "up/pipe", "up/socket"].map(|p| ino(&www.join(p)));

    let (stage, release) = world.stage(&tree, 1).unwrap();
    // Between ready and commit, one file is added, one removed, one replaced and one written to.
    std::fs::write(www.join("up/deep/came"), "came").unwrap();
    std::fs::remove_file(www.join("up/goes")).unwrap();
    std::fs::create_dir_all(www.join("up/more/nested")).unwrap();
    std::fs::write(www.join("up/more/nested/file"), "nested").unwrap();
    std::fs::write(www.join("up/deep/keep"), "kept and written to").unwrap();

    let mode = std::fs::metadata(www.join("up/deep")).unwrap();
    let before = ino(&www);
    stage.commit(&release, b"").unwrap();
    assert_ne!(ino(&www), before, "another directory");
    assert_eq!(
        kept,
        ["d/extra", "up/deep/keep", "up/link", "up/pipe", "up/socket"].map(|p| ino(&www.join(p)))
    );

    std::fs::remove_file(www.join("up/socket")).unwrap();
    let expected = [
        ".",
        "d",
        "d/extra",
        "d/own",
        "fresh",
        "up",
        "up/deep",
        "up/deep/came",
        "up/deep/keep",
        "up/link",
        "up/more",
        "up/more/nested",
        "up/more/nested/file",
        "up/pipe",
    ];

    assert_eq!(names(&www), expected);
    let now = std::fs::metadata(www.join("up/deep")).unwrap();
    assert_eq!(
        (now.mode(), now.mtime(), now.mtime_nsec()),
        (mode.mode(), mode.mtime(), mode.mtime_nsec())
    );
    assert_eq!(
        std::fs::metadata(www.join("up")).unwrap().mode() & 0o7777,
        0o2775
    );

    // Also after the commit: a revert carries new files along.
    std::fs::write(www.join("up/later"), "later").unwrap();
    std::fs::remove_file(www.join("up/link")).unwrap();
    tree.revert().unwrap();
    assert_eq!(ino(&www), before);
    let expected = [
        ".",
        "d",
        "d/extra",
        "d/own",
        "up",
        "up/deep",
        "up/deep/came",
        "up/deep/keep",
        "up/later",
        "up/more",
        "up/more/nested",
        "up/more/nested/file",
        "up/pipe",
    ];

    assert_eq!(names(&www), expected);
    assert_eq!(std::fs::read_to_string(www.join("d/own")).unwrap(), "old");
}

#[test]
fn metadata_never_changes_what_the_old_tree_has_too() {
    let old = [
        ("a", file("same")),
        ("b", Thing::Hard("a")),
        ("l", Thing::Link("t")),
        ("z", file("z")),
    ];

    let new = [
        ("a", Thing::File(b"same".to_vec(), 0o600)),
        ("b", Thing::Hard("a")),
        ("l", Thing::Link("t")),
        ("y", Thing::Hard("a")),
        ("z", file("z")),
    ];

    let world = World::new(&old, &new).swapping(true);
    let before = look(&world.www());
    let tree = world.open();
    let (stage, release) = world.stage(&tree, 1).unwrap();
    assert!(stage.plan().wants.is_empty());
    assert_eq!(look(&world.www()), before);
    let committed = stage.commit(&release, b"").unwrap();
    let report = committed.report();
    assert_eq!(
        (report.files_written, report.metadata_changed),
        (1, 3),
        "{report:?}"
    );

    assert_eq!(look(&world.www()), look(&world.source()));
    tree.revert().unwrap();
    assert_eq!(look(&world.www()), before);
    world.deploy(&tree, 2).unwrap();
    tree.forget_undo().unwrap();
    assert_eq!(look(&world.www()), look(&world.source()));
    assert_eq!(std::fs::metadata(world.www().join("a")).unwrap().nlink(), 3);

    assert_eq!(
        std::fs::metadata(world.www().join("z")).unwrap().nlink(),
        1,
        "nothing is left beside the tree"
    );
}

#[test]
fn a_tree_behind_an_operators_link_is_exchanged_where_it_stands() {
    let mut world = World::new(&[("f", file("old"))], &[("f", file("new"))]).swapping(true);
    let real = world.www().with_file_name("real");
    std::fs::rename(world.www(), &real).unwrap();
    std::os::unix::fs::symlink("real", world.www()).unwrap();
    world.rules.delete_extras = true;
    let tree = world.open();
    world.deploy(&tree, 1).unwrap();
    assert_eq!(std::fs::read_to_string(real.join("f")).unwrap(), "new");
    assert!(
        std::fs::symlink_metadata(world.www()).unwrap().is_symlink() && tree.still_there().unwrap()
    );
    tree.revert().unwrap();

    assert_eq!(std::fs::read_to_string(real.join("f")).unwrap(), "old");
}

#[test]
fn what_changed_in_the_way_of_a_release_is_refused_and_nothing_changes() {
    let old = [
        ("d", Thing::Dir(0o755)),
        ("d/x", file("x")),
        ("m", file("same")),
    ];

    let new = [
        ("m", Thing::File(b"same".to_vec(), 0o600)),
        ("new", file("new")),
    ];

    for (path, said) in [
        ("new", "/new: something was put"),
        ("d/came", "/d/came: something was put"),
        ("m", "/m changed"),
    ] {
        let world = World::new(&old, &new).swapping(true);
        let tree = world.open();
        let (stage, release) = world.stage(&tree, 1).unwrap();
        std::fs::write(world.www().join(path), "meanwhile").unwrap();
        let before = look(&world.www());
        let refused = stage.commit(&release, b"").unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
        assert_eq!(look(&world.www()), before);
        world.deploy(&tree, 2).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
    }
}

#[test]
fn where_no_exchange_is_possible_it_is_said_before_anything_is_sent() {
    let things = [("f", file("new"))];
    let world = World::new(&[], &things).swapping(true).exchanging(false);
    let refused = world.stage(&world.open(), 1).map(drop).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(
        refused.to_string().contains("has no exchange of two names"),
        "{refused}"
    );

    assert!(refused.hint_text().unwrap().contains("in-place"));

    as_nobody(|| {
        let world = World::new(&[], &[("f", file("new"))]).swapping(true);
        let tree = world.open();
        let above = world.www().parent().unwrap().to_path_buf();
        std::fs::set_permissions(&above, PermissionsExt::from_mode(0o555)).unwrap();
        let refused = tree.check_swap().unwrap_err();
        std::fs::set_permissions(&above, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(refused.to_string().contains("cannot write to"), "{refused}");
        assert!(
            refused
                .hint_text()
                .unwrap()
                .contains(above.to_str().unwrap())
        );
        tree.check_swap().unwrap();
        assert_eq!(
            std::fs::read_dir(&above).unwrap().count(),
            3,
            "the state, the source, the tree"
        );
    });
}

#[test]
fn a_mount_anywhere_in_the_tree_cannot_come_along() {
    let mut world = World::new(
        &[("f", file("old")), ("up", Thing::Dir(0o755))],
        &[("f", file("new"))],
    )
    .swapping(true);

    world.protect = PathFilter::at_top(&["/up/"]);
    let Some(_mount) = Mount::tmpfs(&world.www().join("up"), "size=1m") else {
        crate::skip::skipped("no right to mount");
        return;
    };

    let before = look(&world.www());
    let refused = world.stage(&world.open(), 1).map(drop).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("/up: a filesystem is mounted here"),
        "{refused}"
    );

    assert_eq!(look(&world.www()), before);
}

#[test]
fn layouts_may_follow_each_other_and_old_releases_are_kept_until_confirmed() {
    let mut world = World::new(&[], &[("a", file("1")), ("d", Thing::Dir(0o755))]);
    let tree = world.open();
    for serial in 1..=8u64 {
        world.rules.layout = match serial % 3 {
            0 => crate::manifest::rules::Layout::InPlace,
            _ => crate::manifest::rules::Layout::Swap,
        };
        let before = look(&world.www());
        std::fs::write(world.source().join("d/b"), serial.to_string()).unwrap();
        world.deploy(&tree, serial).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
        if serial % 2 == 0 {
            assert_eq!(tree.revert().unwrap(), Serial(serial));
            assert_eq!(look(&world.www()), before);
            assert_eq!(
                tree.current().unwrap().unwrap().release.header().serial,
                Serial(serial - 1)
            );
            assert_eq!(tree.revertible().unwrap(), None);
        } else if serial > 3 {
            tree.forget_undo().unwrap();
        }
    }

    let kept: Vec<_> = tree
        .kept()
        .unwrap()
        .into_iter()
        .map(|k| (k.serial.0, k.running))
        .collect();

    assert_eq!(kept, [(7, true), (5, false), (3, false)]);
    for serial in [3, 5, 7] {
        let stored = tree.release(Serial(serial)).unwrap().unwrap().release;
        assert!(tree.nodes().has_all(&stored.header().root).unwrap());
    }
}

/// Returns the number of unpacked parts of the plan during staging, and the number of its parts.
fn looks(world: &World) -> (usize, usize) {
    let tree = world.open();
    let (stage, _) = world.stage(&tree, 1).unwrap();
    let changes = &stage.plan().changes;
    (changes.unpacked(), changes.len() / crate::packed::CHUNK_LEN)
}

/// Returns `count` names, neither created nor listed in order.
fn scattered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("name-{:05}", n * 7919 % count))
}

#[test]
fn each_part_of_a_plan_is_unpacked_once_for_all_directories_that_stay() {
    for count in [600, 4000] {
        let mut world = World::new(&[], &[("own", file("own"))]).swapping(true);
        world.rules.delete_extras = false;
        scattered(count).for_each(|name| std::fs::create_dir(world.www().join(name)).unwrap());
        let (looks, parts) = looks(&world);
        assert!(
            parts >= count / crate::packed::CHUNK_LEN && looks <= 2 * parts,
            "{count}: {looks} looks at {parts} parts"
        );
    }
}

#[test]
fn each_part_of_a_plan_is_unpacked_once_for_all_names_of_a_directory_that_goes() {
    for count in [600, 4000] {
        let world = World::new(&[("gone", Thing::Dir(0o755))], &[("own", file("own"))]);
        scattered(count)
            .for_each(|name| std::fs::write(world.www().join("gone").join(name), "").unwrap());
        let (looks, parts) = looks(&world);
        assert!(
            parts >= count / crate::packed::CHUNK_LEN && looks <= 2 * parts,
            "{count}: {looks} looks at {parts} parts"
        );
    }
}

#[test]
fn a_kept_release_says_who_signed_it() {
    let world = World::new(&[], &[("a", file("1"))]).swapping(true);
    let tree = world.open();
    let (stage, release) = world.stage(&tree, 1).unwrap();
    let (key, signature) = super::world::signed(release.bytes());
    stage.commit(&release, &signature).unwrap();
    let kept = tree.kept().unwrap();
    assert_eq!(kept.len(), 1);

    assert_eq!(
        (kept[0].key, kept[0].id, kept[0].running),
        (Some(key.fingerprint()), release.id(), true)
    );
}

#[test]
fn after_an_exchange_only_what_changed_is_read_again() {
    let things: Vec<(String, Thing)> = (0..50)
        .map(|i| (format!("f{i:02}"), file(&i.to_string())))
        .collect();
    let things: Vec<(&str, Thing)> = things
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();

    let world = World::new(&things, &things).swapping(true);
    let tree = world.open();
    let rescan = || {
        // Long enough after the last change that no file is too recent to trust.
        std::thread::sleep(std::time::Duration::from_millis(60));
        let later = FileTime::now(&world.source());
        let old = Index::open(&tree.index_path(), tree.root().id()).map(std::sync::Arc::new);
        scan(
            &tree.root(),
            &ScanOptions::new(later),
            old.as_ref(),
            &tree.index_path(),
        )
        .unwrap()
    };

    rescan();
    std::fs::write(world.source().join("f07"), "changed").unwrap();
    let source = Scanned::of(&world.source());
    let root = source.manifest(&tree);
    let header = crate::manifest::Header {
        root,
        rules: world.rules.clone(),
        ..crate::manifest::header::tests::a_header()
    };

    let scanned = rescan();
    let names = crate::tree::HostNames::default();
    let host = HostRules {
        protect: &world.protect,
        spared: &[],
        max_delete: Limit::NONE,
        reports_limits: false,
        owners: &names,
    };

    let plan = crate::diff::diff(
        &scanned,
        &Manifest::of(&header, tree.nodes()),
        &world.rules,
        &[],
        &host,
    )
    .unwrap();

    let stage = crate::tree::Stage::begin(&tree, plan).unwrap();
    for (ordinal, block) in stage.fetched().unwrap() {
        stage.put(ordinal, &source.blocks[&block.hash]).unwrap();
    }

    let staged = stage.finish().unwrap();
    staged
        .commit(&crate::manifest::Release::new(header).unwrap(), b"")
        .unwrap();
    tree.forget_undo().unwrap();
    let again = rescan();

    assert_eq!(
        (again.stats.reused_files, again.stats.hashed_files),
        (49, 1)
    );

    assert_eq!(rescan().stats.hashed_files, 0);
}

/// The filesystem's clock, the source of file times.
struct FileTime;

impl FileTime {
    fn now(dir: &Path) -> std::time::SystemTime {
        let at = dir.with_file_name("clock");
        std::fs::write(&at, "").unwrap();
        std::fs::metadata(&at).unwrap().modified().unwrap()
    }
}
