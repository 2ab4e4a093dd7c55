//! Ungoverned metadata of files and directories: nothing is inherited from the stage, everything
//! from the replaced file, and otherwise the defaults of the parent directory.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::XattrFlags;

use super::kinds::acl;
use super::world::{Thing, World, file, is_root, xattrs_of};

const DEFAULT: &str = "system.posix_acl_default";
const ACCESS: &str = "system.posix_acl_access";

/// Sets an attribute. Prints the reason and returns false where attributes are not supported.
fn set(at: &Path, name: &str, value: &[u8]) -> bool {
    let done = rustix::fs::lsetxattr(at, name, value, XattrFlags::empty());
    if let Err(e) = done {
        crate::skip::skipped(format!("no {name} here: {e}"));
    }
    done.is_ok()
}

fn names(at: &Path) -> Vec<String> {
    xattrs_of(at)
        .into_iter()
        .map(|x| String::from_utf8(x.name).unwrap())
        .collect()
}

fn label(at: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 100];
    let length = rustix::fs::lgetxattr(at, "security.selinux", &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn ungoverned(old: &[(&str, Thing)], new: &[(&str, Thing)], swap: bool) -> World {
    let mut world = World::new(old, new).swapping(swap);
    world.rules.xattrs = false;
    world
}

#[test]
fn a_default_acl_beside_the_tree_lands_on_nothing() {
    for swap in [false, true] {
        let new = [
            ("d", Thing::Dir(0o750)),
            ("d/secret", Thing::File(b"x".to_vec(), 0o640)),
            ("p", Thing::Pipe),
        ];
        let world = ungoverned(&[], &new, swap);
        if !set(world.www().parent().unwrap(), DEFAULT, &acl()) {
            return;
        }
        world.deploy(&world.open(), 1).unwrap();
        for path in ["d", "d/secret", "p", ""] {
            assert_eq!(
                names(&world.www().join(path)),
                [""; 0],
                "{path}, swap {swap}"
            );
        }
    }
}

#[test]
fn the_default_acl_of_a_directory_goes_to_what_is_made_in_it_and_below() {
    for swap in [false, true] {
        let old = [("d", Thing::Dir(0o755))];
        let new = [
            ("d", Thing::Dir(0o755)),
            ("d/deep", Thing::Dir(0o750)),
            ("d/deep/f", Thing::File(b"x".to_vec(), 0o640)),
            ("d/f", Thing::File(b"y".to_vec(), 0o600)),
            ("d/link", Thing::Link("f")),
            ("d/p", Thing::Pipe),
            ("f", file("z")),
        ];
        let world = ungoverned(&old, &new, swap);
        if !set(&world.www().join("d"), DEFAULT, &acl()) {
            return;
        }
        world.deploy(&world.open(), 1).unwrap();
        for (path, has) in [
            ("d/deep", vec![ACCESS, DEFAULT]),
            ("d/deep/f", vec![ACCESS]),
            ("d/f", vec![ACCESS]),
            ("d/link", vec![]),
            ("d/p", vec![ACCESS]),
            ("f", vec![]),
        ] {
            assert_eq!(names(&world.www().join(path)), has, "{path}, swap {swap}");
        }
        let mode = |path| {
            std::fs::metadata(world.www().join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(
            (mode("d/deep/f"), mode("d/f"), mode("d/deep")),
            (0o640, 0o600, 0o750),
            "swap {swap}"
        );
    }
}

#[test]
fn a_set_group_id_directory_gives_its_group_where_the_release_leaves_it() {
    if !is_root() {
        crate::skip::skipped("not root");
        return;
    }

    for swap in [false, true] {
        let old = [("d", Thing::Dir(0o2775)), ("d/old", file("old"))];
        let new = [
            ("d", Thing::Dir(0o2775)),
            ("d/f", file("f")),
            ("d/old", file("new")),
            ("d/plain", Thing::Dir(0o755)),
            ("d/plain/f", file("f")),
            ("d/plain/more", Thing::Dir(0o755)),
            ("d/set", Thing::Dir(0o2755)),
            ("d/set/f", file("f")),
        ];
        let mut world = ungoverned(&old, &new, swap);
        world.rules.set_user = false;
        world.rules.set_group = false;
        std::os::unix::fs::chown(world.www().join("d"), None, Some(1234)).unwrap();
        std::os::unix::fs::chown(world.www().join("d/old"), None, Some(77)).unwrap();
        super::world::set_top(&world.www().join("d"), 0o2775, 5);
        world.deploy(&world.open(), 1).unwrap();
        let gid = |path: &str| std::fs::metadata(world.www().join(path)).unwrap().gid();
        for (path, group) in [
            ("d/f", 1234),
            ("d/old", 77),
            ("d/plain", 1234),
            ("d/plain/f", 0),
            ("d/plain/more", 0),
            ("d/set", 1234),
            ("d/set/f", 1234),
        ] {
            assert_eq!(gid(path), group, "{path}, swap {swap}");
        }
    }
}

#[test]
fn a_file_with_new_content_keeps_what_it_had_but_for_its_capabilities() {
    for swap in [false, true] {
        let world = ungoverned(
            &[("f", file("old"))],
            &[("f", Thing::File(b"new".to_vec(), 0o640))],
            swap,
        );
        let f = world.www().join("f");
        if !set(&f, "user.note", b"1") || !set(&f, ACCESS, &acl()) {
            return;
        }
        let is_privileged = is_root() && set(&f, "security.selinux", b"system_u:object_r:web_t:s0");
        if is_privileged {
            // Version 2, permitted: CAP_NET_BIND_SERVICE.
            set(
                &f,
                "security.capability",
                &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            );
            set(&f, "trusted.mine", b"2");
        }
        world.deploy(&world.open(), 1).unwrap();
        let mut expected = vec![ACCESS, "user.note"];
        if is_privileged {
            expected.insert(1, "trusted.mine");
            assert_eq!(
                label(&f).as_deref(),
                Some(&b"system_u:object_r:web_t:s0"[..]),
                "swap {swap}"
            );
        }
        assert_eq!(names(&f), expected, "swap {swap}");
        assert_eq!(
            std::fs::metadata(&f).unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert_eq!(std::fs::read(&f).unwrap(), b"new");
    }
}

#[test]
fn labels_come_from_the_directory_and_those_of_directories_stay() {
    let web = b"system_u:object_r:web_t:s0";
    let own = b"system_u:object_r:own_t:s0";
    for (swap, xattrs) in [(false, false), (false, true), (true, false), (true, true)] {
        let old = [
            ("d", Thing::Dir(0o755)),
            ("d/x", file("x")),
            ("keep", Thing::Dir(0o755)),
        ];
        let new = [
            ("d", Thing::Dir(0o755)),
            ("d/f", file("f")),
            ("d/new", Thing::Dir(0o755)),
            ("d/new/f", file("f")),
            ("d/x", file("changed")),
            ("keep", Thing::Dir(0o755)),
        ];
        let mut world = ungoverned(&old, &new, swap);
        world.rules.xattrs = xattrs;
        let www = world.www();
        if !set(&www.join("d"), "security.selinux", web)
            || !set(&www.join("keep"), "security.selinux", own)
        {
            return;
        }
        world.deploy(&world.open(), 1).unwrap();
        for path in ["d", "d/f"] {
            assert_eq!(
                label(&www.join(path)).as_deref(),
                Some(&web[..]),
                "{path}, swap {swap}, xattrs {xattrs}"
            );
        }
        if swap {
            // In place, the kernel labels a new directory.
            assert_eq!(
                label(&www.join("d/new")).as_deref(),
                Some(&web[..]),
                "xattrs {xattrs}"
            );
        }
        assert_eq!(
            label(&www.join("d/new/f")).as_deref(),
            Some(&web[..]),
            "swap {swap}, xattrs {xattrs}"
        );
        assert_eq!(
            label(&www.join("keep")).as_deref(),
            Some(&own[..]),
            "swap {swap}, xattrs {xattrs}"
        );
    }
}
