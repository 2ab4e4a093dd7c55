//! Releases that a host refuses, and trees that stay as they were.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::deploy::{Mount, noise};
use super::world::{Scanned, Thing, World, as_nobody, file, is_root, look, scratch};
use crate::diff::LocalOwner;
use crate::error::Kind;
use crate::id::TreeName;
use crate::manifest::TreePath;
use crate::manifest::read::Manifest;
use crate::tree::lifecycle::Tree;
use crate::tree::stage::Stage;
use crate::tree::state::worktree::TreeOptions;

#[test]
fn a_link_planted_where_a_directory_was_is_not_followed() {
    let old = [
        ("d", Thing::Dir(0o755)),
        ("d/f", file("old")),
        ("d/gone", file("gone")),
        ("other", file("1")),
    ];

    let new = [
        ("d", Thing::Dir(0o755)),
        ("d/f", file("new")),
        ("d/more", file("more")),
        ("other", file("2")),
    ];

    let world = World::new(&old, &new);
    let tree = world.open();
    let (stage, release) = world.stage(&tree, 1).unwrap();
    let outside = scratch();
    std::fs::write(outside.path().join("f"), "outside").unwrap();
    std::fs::write(outside.path().join("gone"), "outside").unwrap();
    std::fs::rename(world.www().join("d"), world.www().join("moved")).unwrap();

    symlink(outside.path(), world.www().join("d")).unwrap();
    let before = look(&world.www());
    let refused = stage.commit(&release, b"").unwrap_err();
    assert!(refused.to_string().contains("/d"), "{refused}");
    assert_eq!(look(&world.www()), before);
    assert_eq!(
        std::fs::read_to_string(outside.path().join("f")).unwrap(),
        "outside"
    );

    assert!(outside.path().join("gone").exists() && !outside.path().join("more").exists());
}

#[test]
fn what_appeared_meanwhile_is_not_overwritten() {
    let world = World::new(
        &[("a", file("old"))],
        &[("a", file("new")), ("b", file("new"))],
    );
    let tree = world.open();
    let (stage, release) = world.stage(&tree, 1).unwrap();
    std::fs::write(world.www().join("b"), "somebody's").unwrap();

    let before = look(&world.www());
    let refused = stage.commit(&release, b"").unwrap_err();
    assert_eq!(refused.kind(), Kind::Io);
    assert!(refused.to_string().contains("/b: "), "{refused}");
    assert_eq!(look(&world.www()), before);

    // Content from a failed staging is reused by the next attempt.
    let (stage, release) = world.stage(&tree, 2).unwrap();
    assert_eq!(stage.plan().summary.fetch_bytes, 0);
    stage.commit(&release, b"").unwrap();

    assert_eq!(look(&world.www()), look(&world.source()));
}

#[test]
fn read_only_directories_bind_an_ordinary_user_and_not_the_deploy() {
    as_nobody(|| {
        let old = [
            ("ro", Thing::Dir(0o555)),
            ("ro/change", file("old")),
            ("ro/gone", Thing::Dir(0o555)),
            ("ro/gone/x", file("x")),
        ];
        let new = [
            ("ro", Thing::Dir(0o555)),
            ("ro/change", file("new")),
            ("ro/new", Thing::Dir(0o500)),
            ("ro/new/y", file("y")),
        ];
        let world = World::new(&old, &new);
        let before = look(&world.www());
        let tree = world.open();
        let (stage, release) = world.stage(&tree, 1).unwrap();
        std::fs::set_permissions(
            world.www().join("ro/gone"),
            PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        std::fs::write(world.www().join("ro/gone/foreign"), "in the way").unwrap();
        assert!(stage.commit(&release, b"").is_err());
        std::fs::remove_file(world.www().join("ro/gone/foreign")).unwrap();
        let mode = |path: &str| std::fs::metadata(world.www().join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("ro"), mode("ro/gone")), (0o555, 0o755));
        assert_eq!(
            look(&world.www()).keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>()
        );
        world.deploy(&tree, 2).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()));
        tree.revert().unwrap();
        assert_eq!(mode("ro/gone"), 0o755);
    });
}

#[test]
fn an_owner_that_cannot_be_set_is_refused_before_anything_changes() {
    as_nobody(|| {
        let world = World::new(&[], &[("f", file("1"))]);
        let tree = world.open();
        let source = Scanned::of(&world.source());
        let mut plan = world
            .plan(&Manifest::new(source.manifest(&tree), tree.nodes()))
            .unwrap();
        plan.changes.tamper(0, |c| {
            c.owner = LocalOwner {
                uid: Some(0),
                gid: None,
            }
        });
        let refused = Stage::begin(&tree, plan).map(drop).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("f: its owner cannot be set"),
            "{refused}"
        );
        assert!(refused.hint_text().is_some());
        assert!(tree.forget_undo().is_ok(), "the tree is free again");
    });
}

#[test]
fn too_little_space_is_refused_with_what_is_needed_and_free() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(&dir.path().join("small"), "size=2m") else {
        crate::skip::skipped("no right to mount a small filesystem");
        return;
    };

    let world = World::new(
        &[],
        &[
            ("big", Thing::File(noise(3 << 20, 1), 0o644)),
            ("small", file("s")),
        ],
    );

    let name = TreeName::new("www").unwrap();
    let tree = Tree::open(
        name,
        &dir.path().join("small/www"),
        None,
        TreeOptions::default(),
    )
    .unwrap();

    let source = Scanned::of(&world.source());
    let plan = world
        .plan(&Manifest::new(source.manifest(&tree), tree.nodes()))
        .unwrap();
    let refused = Stage::begin(&tree, plan).map(drop).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);

    assert!(refused.to_string().contains("3.20 MB needed"), "{refused}");
}

/// Stages `files` small files in a tree on a small filesystem mounted with `options`, and returns
/// the error.
fn staged_in(options: &str, files: usize) -> Option<crate::Error> {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::tmpfs(&dir.path().join("small"), options) else {
        crate::skip::skipped("no right to mount a small filesystem");
        return None;
    };

    let names: Vec<String> = (0..files).map(|i| i.to_string()).collect();
    let things: Vec<(&str, Thing)> = names.iter().map(|n| (n.as_str(), file(n))).collect();
    let world = World::new(&[], &things);
    let name = TreeName::new("www").unwrap();
    let tree = Tree::open(
        name,
        &dir.path().join("small/www"),
        None,
        TreeOptions::default(),
    )
    .unwrap();

    let source = Scanned::of(&world.source());
    let plan = world
        .plan(&Manifest::new(source.manifest(&tree), tree.nodes()))
        .unwrap();

    Some(Stage::begin(&tree, plan).map(drop).unwrap_err())
}

#[test]
fn too_few_inodes_are_refused() {
    let Some(refused) = staged_in("size=8m,nr_inodes=60", 80) else {
        return;
    };

    assert_eq!(refused.kind(), Kind::Refused);
    assert!(
        refused
            .to_string()
            .contains("not enough inodes for tree www: 80 needed"),
        "{refused}"
    );
    assert!(refused.hint_text().is_some());
}

#[test]
fn a_mount_inside_the_tree_is_an_error_that_changes_nothing() {
    let world = World::new(
        &[("a", file("old")), ("m", Thing::Dir(0o755))],
        &[
            ("a", file("new")),
            ("m", Thing::Dir(0o755)),
            ("m/f", file("f")),
        ],
    );

    let Some(_mount) = Mount::tmpfs(&world.www().join("m"), "size=1m") else {
        crate::skip::skipped("no right to mount");
        return;
    };

    let before = look(&world.www());
    let refused = world.deploy(&world.open(), 1).unwrap_err();
    assert!(refused.to_string().contains("m/f"), "{refused}");
    assert_eq!(look(&world.www()), before);

    assert!(TreePath::new(b"m/f".as_slice()).is_ok());
}

fn give(path: &Path, uid: u32, mode: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Makes a world of an unprivileged user with `changes` already staged and the tree's directory `d`
/// still owned by the user.
fn of_nobody() -> Option<World> {
    if !is_root() {
        crate::skip::skipped("only root can give directories away");
        return None;
    }

    let old = [
        ("d", Thing::Dir(0o755)),
        ("d/a", file("old")),
        ("z", file("old")),
    ];

    let new = [
        ("d", Thing::Dir(0o755)),
        ("d/a", file("new")),
        ("z", file("new")),
    ];

    let mut world = World::new(&old, &new);
    (world.rules.set_user, world.rules.set_group) = (false, false);
    for top in [world.www(), world.source()] {
        give(top.parent().unwrap(), 65_534, 0o755);
        for (path, mode) in [("", 0o755), ("d", 0o755), ("d/a", 0o644), ("z", 0o644)] {
            give(&top.join(path), 65_534, mode);
        }
    }

    Some(world)
}

#[test]
fn what_only_its_owner_may_set_is_refused_before_the_commit() {
    let Some(world) = of_nobody() else { return };
    give(&world.www().join("d"), 0, 0o777);
    let world = std::sync::Arc::new(world);
    let theirs = std::sync::Arc::clone(&world);

    as_nobody(move || {
        let before = look(&theirs.www());
        let error = theirs.stage(&theirs.open(), 1).unwrap_err();
        assert!(error.to_string().contains("belongs to user 0"), "{error}");
        assert_eq!(look(&theirs.www()), before);
    });
}

#[test]
fn undo_goes_on_past_a_time_that_it_may_not_set() {
    let Some(world) = of_nobody() else { return };
    let world = std::sync::Arc::new(world);
    let staged = std::sync::Arc::new(std::sync::Mutex::new(None));
    let theirs = std::sync::Arc::clone(&world);
    let slot = std::sync::Arc::clone(&staged);

    as_nobody(move || {
        let tree = theirs.open();
        *slot.lock().unwrap() = Some((theirs.stage(&tree, 1).unwrap(), tree));
    });
    give(&world.www().join("d"), 0, 0o777);
    let theirs = std::sync::Arc::clone(&world);

    as_nobody(move || {
        let ((stage, release), tree) = staged.lock().unwrap().take().unwrap();
        stage.commit(&release, b"").unwrap_err();
        for path in ["d/a", "z"] {
            assert_eq!(
                std::fs::read_to_string(theirs.www().join(path)).unwrap(),
                "old",
                "{path}"
            );
        }
        assert!(tree.state().current().unwrap().is_none());
        // No release is left pending: the next one is refused for reasons of its own.
        let error = theirs.stage(&tree, 2).unwrap_err();
        assert!(error.to_string().contains("belongs to user 0"), "{error}");
    });
}
