//! Whole deployments, and obstacles to them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::world::{Scanned, Thing, World, file, is_root, look, set_top};
use crate::diff::Action;
use crate::id::{Ordinal, Serial};
use crate::manifest::header::tests::a_header;
use crate::manifest::read::Manifest;
use crate::manifest::rules::PathFilter;
use crate::manifest::{Header, Release};
use crate::tree::stage::Stage;
use crate::units::WallTime;

pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

/// A mount that is unmounted when the test ends.
pub(super) struct Mount(std::path::PathBuf);

impl Mount {
    pub(super) fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|o| o.status.success())
            .then(|| Self(at.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn every_kind_arrives_and_a_second_look_finds_nothing_to_do() {
    let mut things = vec![
        ("-dash", file("x")),
        ("a\nline", file("newline")),
        ("big", Thing::File(noise(20 << 20, 1), 0o640)),
        ("dir", Thing::Dir(0o2750)),
        ("dir/empty", file("")),
        ("dir/locked", Thing::File(b"none may read".to_vec(), 0o400)),
        ("dir/setuid", Thing::File(b"#!".to_vec(), 0o4755)),
        ("hard", Thing::Hard("big")),
        ("link", Thing::Link("/etc/passwd")),
        ("pipe", Thing::Pipe),
        ("readonly", Thing::Dir(0o555)),
        ("readonly/x", file("x")),
    ];

    things.push(("same", things[1].1.clone()));
    let world = World::new(&[], &things);
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        let made = nix::sys::stat::mknod(
            &world.source().join("null"),
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRWXU,
            device,
        );
        if let Err(e) = made {
            println!("no device in this test: {e}");
        }
        for (path, uid) in [("pipe", 1), ("link", 2), ("dir", 3), ("big", 4)] {
            std::os::unix::fs::lchown(world.source().join(path), Some(uid), Some(uid + 10))
                .unwrap();
        }
    }

    let tree = world.open();
    let report = world.deploy(&tree, 1).unwrap();
    assert!(report.bytes_written > 20 << 20);
    assert_eq!(look(&world.www()), look(&world.source()));
    let source = Scanned::of(&world.source());
    let again = world
        .plan(&Manifest::new(source.manifest(&tree), tree.nodes()))
        .unwrap();

    assert!(again.changes.is_empty(), "{:?}", again.changes);
    assert!(
        std::fs::read_dir(tree.state().stage_path())
            .unwrap()
            .next()
            .is_none(),
        "the stage is not empty"
    );

    tree.forget_undo().unwrap();
    assert_eq!(tree.current().unwrap().unwrap().signature, b"signature");
}

#[test]
fn kinds_change_into_each_other() {
    let kinds = || [Thing::Dir(0o755), file("f"), Thing::Link("t"), Thing::Pipe];
    for old in kinds() {
        for new in kinds() {
            let with_inside = |thing: Thing| {
                let is_dir = matches!(thing, Thing::Dir(_));
                let mut things = vec![("x", thing)];
                if is_dir {
                    things.push(("x/inside", file("inside")));
                }
                things
            };
            let world = World::new(&with_inside(old.clone()), &with_inside(new));
            world.deploy(&world.open(), 1).unwrap();
            assert_eq!(look(&world.www()), look(&world.source()));
        }
    }
}

#[test]
fn what_is_protected_stays_with_the_directories_around_it() {
    let old = [
        ("d", Thing::Dir(0o755)),
        ("d/gone", file("g")),
        ("d/up", Thing::Dir(0o755)),
        ("d/up/keep", file("k")),
        ("z", file("z")),
    ];

    let mut world = World::new(&old, &[("new", file("n"))]);
    world.protect = PathFilter::at_top(&["/d/up/"]);
    let kept = std::fs::metadata(world.www().join("d/up/keep"))
        .unwrap()
        .ino();
    let report = world.deploy(&world.open(), 1).unwrap();
    assert_eq!(report.deleted, 2);

    let names: Vec<String> = look(&world.www()).into_keys().collect();
    assert_eq!(names, [".", "d", "d/up", "d/up/keep", "new"]);
    assert_eq!(
        std::fs::metadata(world.www().join("d/up/keep"))
            .unwrap()
            .ino(),
        kept
    );
}

#[test]
fn metadata_alone_moves_no_data() {
    let old = [
        ("d", Thing::Dir(0o755)),
        ("d/f", file("same")),
        ("l", Thing::Link("t")),
    ];

    let new = [
        ("d", Thing::Dir(0o700)),
        ("d/f", Thing::File(b"same".to_vec(), 0o600)),
        ("l", Thing::Link("t")),
    ];

    let world = World::new(&old, &new);
    filetime(&world.source().join("d/f"), 77);
    set_top(&world.www(), 0o750, 900_000_002);
    let ino = std::fs::metadata(world.www().join("d/f")).unwrap().ino();
    let tree = world.open();
    let (stage, release) = world.stage(&tree, 1).unwrap();
    assert!(stage.plan().wants.is_empty());

    assert!(
        stage
            .plan()
            .changes
            .iter()
            .all(|c| c.action == Action::Meta)
    );

    let committed = stage.commit(&release, b"").unwrap();
    let report = committed.report();
    assert_eq!((report.files_written, report.metadata_changed), (0, 2));
    assert_eq!(look(&world.www()), look(&world.source()));

    assert_eq!(
        std::fs::metadata(world.www().join("d/f")).unwrap().ino(),
        ino
    );
}

fn filetime(path: &Path, secs: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
    std::fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[test]
fn attributes_are_set_and_taken_back() {
    let things = [("d", Thing::Dir(0o755)), ("f", file("same"))];
    let world = World::new(&things, &things);
    let set = |path: &Path, name: &str| {
        rustix::fs::setxattr(path, name, b"1", rustix::fs::XattrFlags::empty())
    };

    if set(&world.source().join("f"), "user.new").is_err() {
        crate::skip::skipped("no user xattrs here");
        return;
    }

    set(&world.source().join("d"), "user.dir").unwrap();
    set(&world.www().join("f"), "user.old").unwrap();
    let before = look(&world.www());
    let tree = world.open();
    world.deploy(&tree, 1).unwrap();
    assert_eq!(look(&world.www()), look(&world.source()));
    tree.revert().unwrap();

    assert_eq!(look(&world.www()), before);
}

#[test]
fn an_owner_that_is_left_to_the_host_survives_an_update() {
    if !is_root() {
        crate::skip::skipped("only root gives files away");
        return;
    }

    let mut world = World::new(&[("f", file("old"))], &[("f", file("new"))]);
    (world.rules.set_user, world.rules.set_group) = (false, false);
    std::os::unix::fs::chown(world.www().join("f"), Some(33), Some(44)).unwrap();
    world.deploy(&world.open(), 1).unwrap();
    let now = std::fs::metadata(world.www().join("f")).unwrap();

    assert_eq!((now.uid(), now.gid(), now.len()), (33, 44, 3));
}

#[test]
fn hard_links_are_made_split_and_joined() {
    let apart = [("a", file("1")), ("b", file("1")), ("c", Thing::Hard("a"))];
    let joined = [("a", file("1")), ("b", Thing::Hard("a")), ("c", file("1"))];
    for (old, new) in [(&apart, &joined), (&joined, &apart)] {
        let world = World::new(old, new);
        let tree = world.open();
        let (stage, release) = world.stage(&tree, 1).unwrap();
        assert!(stage.plan().wants.is_empty(), "everything is here already");
        stage.commit(&release, b"").unwrap();
        // The replaced file remains a second hard link as long as the undo data is kept.
        tree.forget_undo().unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
    }
}

#[test]
fn a_reader_always_finds_a_whole_file() {
    let one = noise(300_000, 1);
    let two = noise(300_000, 2);
    let world = World::new(
        &[("f", Thing::File(one.clone(), 0o644))],
        &[("f", Thing::File(two.clone(), 0o644))],
    );
    let stop = AtomicBool::new(false);
    let path = world.www().join("f");

    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let now = std::fs::read(&path).expect("the file is always there");
                assert!(now == one || now == two, "half a file");
                reads += 1;
            }
            reads
        });
        let tree = world.open();
        for serial in 1..30 {
            std::fs::write(
                world.source().join("f"),
                if serial % 2 == 0 { &one } else { &two },
            )
            .unwrap();
            world.deploy(&tree, serial).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("no panic") > 0);
    });
}

#[test]
fn an_aborted_session_serves_the_next() {
    let world = World::new(
        &[],
        &[
            ("a", Thing::File(noise(400_000, 1), 0o644)),
            ("b", file("b")),
        ],
    );

    let tree = world.open();
    let source = Scanned::of(&world.source());
    let root = source.manifest(&tree);
    let plan = world.plan(&Manifest::new(root, tree.nodes())).unwrap();
    let total: u64 = plan.wants.iter().map(|r| r.end - r.start).sum();
    let stage = Stage::begin(&tree, plan.clone()).unwrap();
    assert!(
        Stage::begin(&tree, plan.clone()).is_err(),
        "one stage at a time"
    );

    let first = Ordinal(stage.wants()[0].start);
    let block = stage.wanted(first).unwrap().unwrap();
    assert!(!stage.put(first, b"something else").unwrap());
    assert!(
        !stage
            .put(Ordinal(999_999), &source.blocks[&block.hash])
            .unwrap()
    );

    assert!(stage.put(first, &source.blocks[&block.hash]).unwrap());
    assert!(
        stage.put(first, &source.blocks[&block.hash]).unwrap(),
        "twice does no harm"
    );
    assert!(stage.finish().is_err(), "blocks are missing");

    drop(tree);
    let tree = world.open();
    let stage = Stage::begin(&tree, plan.clone()).unwrap();
    assert_eq!(
        stage.wants().iter().map(|r| r.end - r.start).sum::<u64>(),
        total - 1
    );

    assert!(
        stage
            .put(Ordinal(stage.wants()[0].start), b"no")
            .is_ok_and(|verified| !verified)
    );

    drop(stage);
    // Content in the stage is trusted only after hashing.
    for slot in std::fs::read_dir(tree.state().stage_path()).unwrap() {
        let path = slot.unwrap().path();
        if !path.to_string_lossy().contains("log-") {
            std::fs::write(path, vec![0; 400_000]).unwrap();
        }
    }

    let stage = Stage::begin(&tree, plan).unwrap();
    assert_eq!(stage.fetched().unwrap().len() as u64, total);
    drop(stage);
    world.deploy(&tree, 1).unwrap();

    assert_eq!(look(&world.www()), look(&world.source()));
}

#[test]
fn blocks_may_come_from_many_threads_in_any_order() {
    let things: Vec<(String, Vec<u8>)> = (0..40)
        .map(|i| {
            (
                format!("f{i:02}"),
                noise(if i % 5 == 0 { 500_000 } else { 900 + i }, (i % 30) as u64),
            )
        })
        .collect();

    let things: Vec<(&str, Thing)> = things
        .iter()
        .map(|(n, b)| (n.as_str(), Thing::File(b.clone(), 0o644)))
        .collect();
    let world = World::new(&[], &things);
    let tree = world.open();
    let source = Scanned::of(&world.source());

    let root = source.manifest(&tree);
    let plan = world.plan(&Manifest::new(root, tree.nodes())).unwrap();
    let mut ordinals: Vec<Ordinal> = plan.wants.iter().cloned().flatten().map(Ordinal).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut ordinals);
    let stage = Stage::begin(&tree, plan).unwrap();
    let blocks = &source.blocks;
    std::thread::scope(|scope| {
        for part in 0..4 {
            let stage = &stage;
            let ordinals = &ordinals;
            // Every block arrives twice, from different threads.
            scope.spawn(move || {
                for ordinal in ordinals
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| i % 4 == part || (i + 1) % 4 == part)
                    .map(|(_, o)| o)
                {
                    let block = stage.wanted(*ordinal).unwrap().unwrap();
                    assert!(stage.put(*ordinal, &blocks[&block.hash]).unwrap());
                }
            });
        }
    });

    let staged = stage.finish().unwrap();
    let header = Header {
        serial: Serial(1),
        root,
        rules: world.rules.clone(),
        ..a_header()
    };

    staged.commit(&Release::new(header).unwrap(), b"").unwrap();
    set_top(&world.www(), 0o750, 900_000_002);
    assert_eq!(look(&world.www()), look(&world.source()));
}

#[test]
fn older_releases_are_refused_and_old_ones_forgotten() {
    let world = World::new(&[], &[("f", file("1"))]);
    let tree = world.open();
    for serial in 1..=5 {
        std::fs::write(world.source().join("f"), format!("{serial}")).unwrap();
        world.deploy(&tree, serial).unwrap();
    }

    assert_eq!(
        tree.releases().unwrap(),
        [2, 3, 4, 5].map(Serial),
        "the last one is not confirmed yet"
    );

    tree.forget_undo().unwrap();
    assert_eq!(tree.releases().unwrap(), [Serial(3), Serial(4), Serial(5)]);
    let kept = tree.kept().unwrap();
    let shown: Vec<_> = kept
        .iter()
        .map(|k| (k.serial.0, k.entries, k.bytes.0, k.running, k.key))
        .collect();

    assert_eq!(
        shown,
        [
            (5, 1, 1, true, None),
            (4, 1, 1, false, None),
            (3, 1, 1, false, None)
        ]
    );

    let before = look(&world.www());
    std::fs::write(world.source().join("f"), "another").unwrap();
    let refused = world.deploy(&tree, 4).unwrap_err();
    assert!(
        refused.to_string().contains("not newer than 5"),
        "{refused}"
    );

    // Of two releases with one serial, the later one wins.
    let (stage, twin) = world.stage(&tree, 5).unwrap();
    let created = WallTime(twin.header().created.0 - 1);
    let earlier = Release::new(Header {
        created,
        ..twin.header().clone()
    })
    .unwrap();

    let refused = stage.commit(&earlier, b"").unwrap_err();
    assert!(
        refused.to_string().contains("not newer than 5"),
        "{refused}"
    );
    assert_eq!(look(&world.www()), before);
    let kept = tree.release(Serial(4)).unwrap().unwrap().release;

    assert!(tree.nodes().has_all(&kept.header().root).unwrap());
}
