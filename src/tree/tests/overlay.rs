//! Trees in the lower layer of an overlay filesystem, as in a container image.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::crash::{new, old};
use super::world::{Thing, World, file, is_root, look, make, scratch};
use crate::tree::lifecycle::Recovery;

/// An overlay mount, unmounted on drop, in a namespace that ends with its thread.
struct Layered {
    dir: tempfile::TempDir,
}

impl Layered {
    /// Mounts an overlay on `www` with `things` in the lower layer, on a separate filesystem if
    /// `apart`.
    fn new(things: &[(&str, Thing)], apart: bool) -> Self {
        let dir = scratch();
        let layered = Self { dir };
        for name in ["lower", "upper", "work", "at"] {
            std::fs::create_dir(layered.path(name)).expect("new");
        }

        if apart {
            mount(&["-t", "tmpfs", "tmpfs"], &layered.path("lower"));
        }

        make(&layered.path("lower/www"), things);
        super::world::set_top(&layered.path("lower/www"), 0o755, 900_000_001);
        layered.mount("redirect_dir=off");

        layered
    }

    fn mount(&self, more: &str) {
        let path = |name| self.path(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},xino=off,index=off,metacopy=off,{more}",
            path("lower"),
            path("upper"),
            path("work")
        );
        mount(
            &["-t", "overlay", "overlay", "-o", &options],
            &self.path("at"),
        );
    }

    fn unmount(&self) {
        // A forked child of another test may hold copies of the handles until its exec.
        let gone = |_| {
            let out = Command::new("umount")
                .arg(self.path("at"))
                .output()
                .expect("umount");
            std::thread::sleep(std::time::Duration::from_millis(if out.status.success() {
                0
            } else {
                20
            }));
            out.status.success()
        };

        assert!((0..500).any(gone), "it cannot be unmounted");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a world with its tree in the overlay and a source of `things`.
    fn world(&self, things: &[(&str, Thing)]) -> World {
        World::new(&[], things).hosted(&self.path("at"))
    }
}

fn mount(what: &[&str], at: &Path) {
    assert!(
        Command::new("mount")
            .args(what)
            .arg(at)
            .status()
            .expect("mount")
            .success(),
        "{what:?}"
    );
}

/// Runs `test` in a private mount namespace.
fn with_mounts(test: impl FnOnce() + Send + 'static) {
    let kinds = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !is_root() || !kinds.contains("overlay") {
        return println!(
            "skipped: only root mounts overlay filesystems, where the kernel has them"
        );
    }

    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("root may");
        assert!(
            Command::new("mount")
                .args(["--make-rprivate", "/"])
                .status()
                .expect("mount")
                .success()
        );
        test();
    });

    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Returns the changes that rsync would make.
fn judged(from: &Path, to: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let mut rsync = Command::new("rsync");
    let out = rsync
        .args(["-n", "-i", "-rlptgoDHXc", "--delete"])
        .arg(slash(from))
        .arg(slash(to))
        .output();
    let out = out.expect("rsync");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );

    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn a_release_replaces_and_removes_directories_of_a_lower_layer() {
    with_mounts(|| {
        for apart in [false, true] {
            let layered = Layered::new(&old(), apart);
            let world = layered.world(&new());
            let before = look(&world.www());
            let tree = world.open();
            world.deploy(&tree, 1).expect("a commit");
            assert_eq!(judged(&world.source(), &world.www()), "", "apart: {apart}");
            assert_eq!(look(&world.www()), look(&world.source()));

            tree.revert().expect("it goes back");
            assert_eq!(look(&world.www()), before);
            assert_eq!(
                judged(&layered.path("lower/www"), &world.www()),
                "",
                "apart: {apart}"
            );
            world.deploy(&tree, 2).expect("a commit");
            tree.forget_undo().expect("it is confirmed");
            assert_eq!(judged(&world.source(), &world.www()), "", "apart: {apart}");
        }
    });
}

/// A commit copies files up from the lower layer: without space for the copies, the release is
/// refused before the host reports ready.
#[test]
fn a_full_disk_above_a_lower_layer_is_found_before_the_commit() {
    with_mounts(|| {
        let large = |byte: u8| Thing::File(vec![byte; 3 << 20], 0o644);
        let old = [
            ("changes", large(1)),
            ("goes", large(2)),
            ("mode", large(3)),
            ("stays", large(4)),
        ];
        let mode = Thing::File(vec![3; 3 << 20], 0o600);
        let new = [
            ("changes", file("small")),
            ("mode", mode),
            ("stays", large(4)),
        ];
        for (size, fits) in [("6m", false), ("8m", false), ("16m", true)] {
            let dir = scratch();
            let layered = Layered { dir };
            for name in ["lower", "disk", "at"] {
                std::fs::create_dir(layered.path(name)).expect("new");
            }
            mount(
                &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"],
                &layered.path("disk"),
            );
            for name in ["upper", "work"] {
                std::fs::create_dir(layered.path("disk").join(name)).expect("new");
                std::os::unix::fs::symlink(format!("disk/{name}"), layered.path(name))
                    .expect("new");
            }
            make(&layered.path("lower/www"), &old);
            layered.mount("redirect_dir=off");
            let world = layered.world(&new);
            let before = look(&world.www());
            let tree = world.open();
            match world.stage(&tree, 1) {
                Ok((stage, release)) => {
                    assert!(fits, "{size}: it says that it is ready");
                    stage.commit(&release, b"signature").expect("there is room");
                    assert_eq!(judged(&world.source(), &world.www()), "", "{size}");
                }
                Err(e) => {
                    assert!(!fits, "{size}: {e}");
                    assert!(
                        e.hint_text().is_some_and(|hint| hint.contains("space")),
                        "{size}: {e}: {:?}",
                        e.hint_text()
                    );
                    assert_eq!(look(&world.www()), before, "{size}");
                }
            }
        }
    });
}

#[test]
fn a_crash_on_an_overlay_leaves_all_old_or_all_new() {
    with_mounts(|| {
        let mut apart = false;
        let mut after = 0;
        loop {
            let layered = Layered::new(&old(), apart);
            let world = layered.world(&new());
            let before = look(&world.www());
            let wanted = look(&world.source());
            let tree = world.open_crashing(Some(after)).expect("opens");
            let (stage, release) = world.stage(&tree, 5).expect("staged");
            let committed = stage.commit(&release, b"signature").is_ok();
            drop(tree);
            // As after a reboot: no kernel state is left.
            layered.unmount();
            layered.mount("redirect_dir=off");
            let tree = world.open();
            let now = look(&world.www());
            let is_old = tree.recovery() == Recovery::Nothing
                && tree.state().current().expect("read").is_none();
            assert_eq!(
                now,
                if is_old { before } else { wanted },
                "apart: {apart}, crash {after}"
            );
            match (committed, apart) {
                (true, true) => break,
                (true, false) => (apart, after) = (true, 0),
                (false, _) => after += 3,
            }
        }
    });
}

#[test]
fn an_exchange_with_a_tree_of_a_lower_layer_is_refused_before_anything_is_staged() {
    with_mounts(|| {
        for (apart, why) in [(false, "lower layer"), (true, "inode numbers")] {
            let layered = Layered::new(&old(), apart);
            let world = layered.world(&new()).swapping(true);
            let before = look(&world.www());
            let tree = world.open();
            let Err(refused) = world.begin(&tree, 1) else {
                panic!("not possible")
            };
            assert!(refused.to_string().contains(why), "{refused}");
            assert!(
                refused
                    .hint_text()
                    .is_some_and(|hint| hint.contains("in-place")),
                "{refused}"
            );
            assert_eq!(look(&world.www()), before);
        }

        // A tree created after the image is exchanged like any other.
        let layered = Layered::new(&[], false);
        make(&layered.path("at/second/www"), &old());
        let world = World::new(&[], &new())
            .hosted(&layered.path("at/second"))
            .swapping(true);
        let tree = world.open();
        world.deploy(&tree, 1).expect("a commit");
        assert_eq!(judged(&world.source(), &world.www()), "");
    });
}

#[test]
fn the_names_of_one_file_in_a_lower_layer_stay_together() {
    with_mounts(|| {
        let d = || ("d", Thing::Dir(0o755));
        let old = [
            ("a", file("one")),
            ("b", Thing::Hard("a")),
            d(),
            ("d/c", Thing::Hard("a")),
        ];
        let more = [
            ("a", file("one")),
            ("b", Thing::Hard("a")),
            d(),
            ("d/c", Thing::Hard("a")),
            ("e", Thing::Hard("a")),
        ];
        let fewer = [("a", file("one")), d(), ("d/c", Thing::Hard("a"))];
        let split = [
            ("a", file("one")),
            ("b", file("two")),
            d(),
            ("d/c", Thing::Hard("a")),
        ];
        for (apart, new) in [false, true]
            .into_iter()
            .flat_map(|apart| [(apart, &more[..]), (apart, &fewer), (apart, &split)])
        {
            let layered = Layered::new(&old, apart);
            let world = layered.world(new);
            let before = look(&world.www());
            let tree = world.open();
            world.deploy(&tree, 1).expect("a commit");
            assert_eq!(judged(&world.source(), &world.www()), "", "apart: {apart}");
            tree.revert().expect("it goes back");
            assert_eq!(look(&world.www()), before, "apart: {apart}");
        }
    });
}

/// The file is copied up for its mode, and the original leaves the lower layer during the same
/// staging.
#[test]
fn a_file_of_a_lower_layer_that_is_copied_was_changed_by_nobody() {
    with_mounts(|| {
        let tools = |mode| {
            let tool = || Thing::File(b"same".to_vec(), mode);
            [
                ("alone", tool()),
                ("empty", Thing::File(Vec::new(), mode)),
                ("linked", tool()),
                ("name", Thing::Hard("linked")),
            ]
        };
        for (apart, tries) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
            let layered = Layered::new(&tools(0o644), apart);
            let world = layered.world(&tools(0o755));
            let before = look(&world.www());
            let tree = world.open();
            let deploy = |serial| {
                for _ in 1..tries {
                    let (staged, _) = world.stage(&tree, serial).expect("staged");
                    staged.abort();
                }
                let (staged, release) = world.stage(&tree, serial).expect("it can be tried again");
                staged
                    .commit(&release, b"signature")
                    .unwrap_or_else(|e| panic!("apart: {apart}, {tries} tries: {e}"));
                assert_eq!(
                    judged(&world.source(), &world.www()),
                    "",
                    "apart: {apart}, {tries} tries"
                );
            };
            deploy(1);
            tree.revert().expect("it goes back");
            assert_eq!(look(&world.www()), before, "apart: {apart}, {tries} tries");
            deploy(2);
            world.release(&tools(0o4755));
            deploy(3);
        }
    });
}

#[test]
fn a_file_of_a_lower_layer_that_somebody_changes_after_it_was_copied_is_refused() {
    with_mounts(|| {
        let tool = |mode| [("tool", Thing::File(b"same".to_vec(), mode))];
        let write = |at: &Path| std::fs::write(at, "evil").expect("written");
        let mode = |at: &Path| {
            std::fs::set_permissions(at, Permissions::from_mode(0o600)).expect("changed")
        };
        let replace = |at: &Path| {
            std::fs::write(at.with_file_name("new"), "same").expect("written");
            std::fs::rename(at.with_file_name("new"), at).expect("moved");
        };
        let changes: [&dyn Fn(&Path); 3] = [&write, &mode, &replace];
        for (apart, change) in [false, true]
            .into_iter()
            .flat_map(|apart| changes.map(|change| (apart, change)))
        {
            let layered = Layered::new(&tool(0o644), apart);
            let world = layered.world(&tool(0o755));
            let tree = world.open();
            let (stage, release) = world.stage(&tree, 1).expect("staged");
            change(&world.www().join("tool"));
            let theirs = look(&world.www());
            let e = stage
                .commit(&release, b"signature")
                .expect_err("theirs would be lost");
            assert!(e.to_string().contains("tool changed"), "{e}");
            assert_eq!(look(&world.www()), theirs, "apart: {apart}");
        }
    });
}

#[test]
fn random_trees_of_a_lower_layer_become_what_rsync_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let seed: u64 = number("MAKUO_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("MAKUO_OVERLAYS").unwrap_or(12);
    println!("MAKUO_SEED={seed} MAKUO_OVERLAYS={rounds}");

    with_mounts(move || {
        let mut rng = fastrand::Rng::with_seed(seed);
        for round in 0..rounds {
            let first = random(&mut rng);
            let second = random(&mut rng);
            let third = random(&mut rng);
            let apart = rng.bool();
            let layered = Layered::new(&first, apart);
            let world = layered.world(&second);
            let tree = world.open();
            let before = look(&world.www());
            let mut serial = 0;
            let mut deploy = || {
                serial += 1;
                world.deploy(&tree, serial).expect("a commit");
            };
            deploy();
            assert_eq!(
                judged(&world.source(), &world.www()),
                "",
                "seed {seed}, round {round}"
            );
            if rng.bool() {
                tree.revert().expect("it goes back");
                assert_eq!(
                    look(&world.www()),
                    before,
                    "seed {seed}, round {round}, taken back"
                );
                deploy();
            }
            world.release(&third);
            deploy();
            assert_eq!(
                judged(&world.source(), &world.www()),
                "",
                "seed {seed}, round {round}, the second"
            );
        }
    });
}

/// Returns up to thirty things, each directory before its content.
fn random(rng: &mut fastrand::Rng) -> Vec<(&'static str, Thing)> {
    const NAMES: [&str; 12] = [
        "a", "a/b", "a/b/c", "a/d", "e", "e/f", "e/g", "e/g/h", "i", "j", "k", "k/l",
    ];
    let mut made: Vec<(&'static str, Thing)> = Vec::new();
    let mut files: Vec<&'static str> = Vec::new();

    for path in NAMES {
        let parent = path.rsplit_once('/').map(|(dir, _)| dir);
        let has_parent = parent.is_none_or(|dir| {
            made.iter()
                .any(|(p, t)| *p == dir && matches!(t, Thing::Dir(_)))
        });
        if !has_parent || rng.u8(..5) == 0 {
            continue;
        }
        let thing = match rng.u8(..10) {
            0..4 => Thing::Dir([0o755, 0o700, 0o555][rng.usize(..3)]),
            4..7 => {
                files.push(path);
                Thing::File(
                    vec![rng.u8(..3); rng.usize(..9)],
                    [0o644, 0o600, 0o755][rng.usize(..3)],
                )
            }
            7 => Thing::Link(["a", "no/where"][rng.usize(..2)]),
            8 if !files.is_empty() => Thing::Hard(files[rng.usize(..files.len())]),
            _ => Thing::Pipe,
        };
        made.push((path, thing));
    }

    made
}
