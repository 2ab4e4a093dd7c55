//! Opening a tree: its path, its state directory, and the lock against a second daemon.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::world::{World, file, is_root};
use crate::id::TreeName;
use crate::tree::lifecycle::Tree;
use crate::tree::state::worktree::TreeOptions;

#[test]
fn a_tree_that_was_moved_away_is_left_alone() {
    let world = World::new(&[("f", file("old"))], &[("f", file("new"))]);
    let tree = world.open();
    let (stage, release) = world.stage(&tree, 1).unwrap();
    let moved = world.www().with_extension("moved");
    std::fs::rename(world.www(), &moved).unwrap();
    std::fs::create_dir(world.www()).unwrap();
    assert!(
        stage
            .commit(&release, b"")
            .unwrap_err()
            .hint_text()
            .is_some()
    );

    assert_eq!(std::fs::read_to_string(moved.join("f")).unwrap(), "old");
}

/// Makes a directory with `real/` and a link `theirs` to `real/`, owned by another user; `None`
/// without root.
fn with_a_foreign_link() -> Option<(tempfile::TempDir, PathBuf)> {
    if !is_root() {
        crate::skip::skipped("only root can give a link to another user");
        return None;
    }

    let dir = tempfile::tempdir().unwrap();
    let top = std::fs::canonicalize(dir.path()).unwrap();
    std::fs::create_dir_all(top.join("real/www")).unwrap();
    symlink("real", top.join("theirs")).unwrap();
    std::os::unix::fs::lchown(top.join("theirs"), Some(65_534), None).unwrap();

    Some((dir, top))
}

#[test]
fn a_tree_is_not_reached_through_another_users_link_unless_that_is_allowed() {
    let Some((_dir, top)) = with_a_foreign_link() else {
        return;
    };

    let open = |path: &str, follow_links: bool| {
        let options = TreeOptions {
            follow_links,
            ..TreeOptions::default()
        };
        Tree::open(
            TreeName::new("www").unwrap(),
            &top.join(path),
            None,
            options,
        )
    };

    for path in ["theirs/www", "theirs", "theirs/new"] {
        let refused = open(path, false).map(drop).unwrap_err();
        let path = top.join(path);
        let link = top.join("theirs");
        let wanted = format!(
            "{} goes through the link {} of user 65534",
            path.display(),
            link.display()
        );
        assert_eq!(
            (refused.to_string(), refused.kind()),
            (wanted, crate::Kind::Refused)
        );
        assert!(refused.hint_text().unwrap().contains("follow_links"));
    }

    assert!(
        !top.join("real/new").exists()
            && !top.join("real/.makuo").exists()
            && !top.join(".makuo").exists()
    );

    let tree = open("theirs/www", true).unwrap();

    assert_eq!(tree.state().path(), top.join("real/.makuo/www"));
    drop(tree);

    // After the opening, another user's link to the same directory does not count as the same path.
    let tree = open("real/www", false).unwrap();
    assert!(tree.still_there().unwrap());
    std::fs::rename(top.join("real"), top.join("moved")).unwrap();

    symlink("moved", top.join("real")).unwrap();
    assert!(
        tree.still_there().unwrap(),
        "root's own link is as good as a directory"
    );
    std::os::unix::fs::lchown(top.join("real"), Some(65_534), None).unwrap();

    assert!(!tree.still_there().unwrap());
}

#[test]
fn a_state_directory_is_not_made_through_another_users_link() {
    let Some((_dir, top)) = with_a_foreign_link() else {
        return;
    };

    std::fs::create_dir(top.join("www")).unwrap();
    let open = |state: Option<&Path>| {
        let options = TreeOptions {
            follow_links: true,
            ..TreeOptions::default()
        };
        Tree::open(
            TreeName::new("t").unwrap(),
            &top.join("www"),
            state,
            options,
        )
        .map(drop)
    };

    let refused = open(Some(&top.join("theirs/state"))).unwrap_err();
    assert!(
        refused.to_string().contains("theirs of user 65534"),
        "{refused}"
    );
    std::fs::rename(top.join("theirs"), top.join(".makuo")).unwrap();
    let refused = open(None).unwrap_err();

    assert!(
        refused.to_string().contains(".makuo of user 65534"),
        "{refused}"
    );
    assert!(refused.hint_text().unwrap().contains("state_dir"));
    assert_eq!(
        std::fs::read_dir(top.join("real")).unwrap().count(),
        1,
        "nothing is made where the link leads"
    );

    std::os::unix::fs::lchown(top.join(".makuo"), Some(0), None).unwrap();

    open(None).unwrap();
    assert!(top.join("real/t/lock").exists());
}

#[test]
fn two_daemons_cannot_serve_one_tree() {
    let world = World::new(&[], &[]);
    let _tree = world.open();
    let refused = world.open_crashing(None).map(drop).unwrap_err();
    assert!(
        refused.to_string().contains("another makuo daemon"),
        "{refused}"
    );
}

#[test]
fn the_state_stands_on_the_trees_filesystem_and_not_inside_it() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("www");
    let open = |state: Option<&Path>| {
        Tree::open(
            TreeName::new("www").unwrap(),
            &top,
            state,
            TreeOptions::default(),
        )
    };

    let tree = open(None).unwrap();
    assert_eq!(
        tree.state().path(),
        std::fs::canonicalize(dir.path())
            .unwrap()
            .join(".makuo/www")
    );

    assert_eq!(
        std::fs::metadata(tree.state().path()).unwrap().mode() & 0o7777,
        0o700
    );
    drop(tree);
    let given = dir.path().join("state");
    let tree = open(Some(&given)).unwrap();

    assert_eq!(
        (tree.state().path(), tree.state().warning()),
        (given.join("www").as_path(), None)
    );
    drop(tree);
    let inside = open(Some(&top.join("state"))).map(drop).unwrap_err();
    assert!(
        inside.to_string().contains("is inside tree www") && !top.join("state").exists(),
        "{inside}"
    );

    let missing = Tree::open(
        TreeName::new("x").unwrap(),
        &dir.path().join("no/such"),
        None,
        TreeOptions::default(),
    );

    assert!(missing.map(drop).unwrap_err().hint_text().is_some());
    if let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") {
        let tree = open(Some(elsewhere.path())).unwrap();
        let other = std::fs::metadata(elsewhere.path()).unwrap().dev()
            != std::fs::metadata(&top).unwrap().dev();
        assert_eq!(tree.state().warning().is_some(), other);
    }
}

#[test]
fn what_a_scan_that_was_killed_left_goes_when_the_tree_is_opened() {
    let world = World::new(&[], &[("f", file("f"))]);
    let tree = world.open();
    let stale = tree.state().path().join(".index-abc");
    std::fs::write(&stale, "half").unwrap();
    drop(tree);
    drop(world.open());
    assert!(!stale.exists());
}
