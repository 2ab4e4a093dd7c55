//! Tests of the handle of a tree.

use std::io::Read;
use std::os::unix::fs::symlink;

use super::*;

fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("legal")
}

fn a_tree() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let top = dir.path().join("top");
    std::fs::create_dir_all(top.join("a/b")).unwrap();
    std::fs::write(top.join("a/b/file"), "inside").unwrap();
    std::fs::write(dir.path().join("secret"), "outside").unwrap();
    let root = Root::open(&top).unwrap();
    (dir, root)
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn files_are_found_inside() {
    let (_dir, root) = a_tree();
    assert_eq!(text(root.open_file(&path("a/b/file")).unwrap()), "inside");
    assert_eq!(root.stat(&path("a/b/file")).unwrap().st_size, 6);
    let (parent, name) = root.parent(&path("a/b/file")).unwrap();
    assert_eq!(name.as_bytes(), b"file");
    assert_eq!(
        FileId::of(&rustix::fs::fstat(parent).unwrap()),
        root.open_below(&path("a/b")).unwrap().id()
    );

    assert_eq!(
        FileId::of(&rustix::fs::fstat(root.dir(None).unwrap()).unwrap()),
        root.id()
    );

    assert_eq!(
        root.open_file(&path("a/x")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn no_link_is_followed_anywhere() {
    let (dir, root) = a_tree();
    let top = root.path();
    symlink("..", top.join("up")).unwrap();
    symlink("b", top.join("a/here")).unwrap();
    symlink(dir.path().join("secret"), top.join("a/absolute")).unwrap();
    symlink("/proc/self/fd/0", top.join("a/magic")).unwrap();
    symlink("/proc/self/root", top.join("slash")).unwrap();

    let refused = [
        "up/secret",
        "a/here/file",
        "a/absolute",
        "a/magic",
        "slash/etc/passwd",
    ];

    for name in refused {
        let e = root.open_file(&path(name)).unwrap_err();
        assert_eq!(
            e.raw_os_error(),
            Some(Errno::LOOP.raw_os_error()),
            "{name}: {e}"
        );
    }

    assert!(root.dir(Some(&path("up"))).is_err());
    assert!(root.dir(Some(&path("a/here"))).is_err());
    assert!(root.parent(&path("a/here/file")).is_err());

    // The status of a link is allowed: the parent is resolved, the link is not followed.
    assert_eq!(
        FileType::from_raw_mode(root.stat(&path("a/magic")).unwrap().st_mode),
        FileType::Symlink
    );
}

#[test]
fn the_kernel_refuses_dots_even_if_a_path_had_them() {
    let (_dir, root) = a_tree();
    for raw in [c"../secret", c"a/../../secret", c"/etc/passwd"] {
        let opened = openat2(&root, raw, OFlags::RDONLY, Mode::empty(), RESOLVE);
        assert_eq!(opened.map(drop), Err(Errno::XDEV), "{raw:?}");
    }
    assert!(TreePath::new(b"../secret".as_slice()).is_err());
}

#[test]
fn magic_links_of_proc_are_not_followed() {
    let Ok(proc) = Root::open("/proc/self") else {
        crate::skip::skipped("no /proc here");
        return;
    };
    assert!(proc.open_file(&path("fd/0")).is_err());
    assert!(proc.open_file(&path("root/etc/passwd")).is_err());
    assert!(proc.dir(Some(&path("cwd"))).is_err());
}

#[test]
fn only_regular_files_are_opened() {
    let (_dir, root) = a_tree();
    nix::unistd::mkfifo(&root.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        root.open_file(&path("pipe")).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        root.open_file(&path("a")).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

#[test]
fn a_replaced_root_is_noticed_and_the_handle_still_works() {
    let (dir, root) = a_tree();
    assert!(root.still_there().unwrap());
    let moved = dir.path().join("moved");
    std::fs::rename(root.path(), &moved).unwrap();
    assert!(!root.still_there().unwrap());
    symlink("moved", root.path()).unwrap();
    assert!(!root.still_there().unwrap());
    std::fs::remove_file(root.path()).unwrap();
    std::fs::create_dir(root.path()).unwrap();
    assert!(!root.still_there().unwrap());
    assert_eq!(text(root.open_file(&path("a/b/file")).unwrap()), "inside");
    std::fs::remove_dir(root.path()).unwrap();
    std::fs::rename(&moved, root.path()).unwrap();

    assert!(root.still_there().unwrap());
}

#[test]
fn an_operators_link_to_the_root_is_accepted() {
    let (dir, root) = a_tree();
    let link = dir.path().join("link");
    symlink("top", &link).unwrap();
    let through = Root::open(&link).unwrap();
    assert_eq!(through.id(), root.id());
    assert!(through.still_there().unwrap());
    assert!(through.same_filesystem(&root).unwrap());
    if let Ok(proc) = Root::open("/proc") {
        assert!(!proc.same_filesystem(&root).unwrap());
    }

    std::fs::remove_file(&link).unwrap();
    symlink(dir.path(), &link).unwrap();
    assert!(!through.still_there().unwrap());
}
