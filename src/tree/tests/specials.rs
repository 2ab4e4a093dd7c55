//! Devices, pipes and symbolic links: their attributes are set and listed without opening the file.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::{OFlags, XattrFlags};

use super::kinds::acl;
use super::world::{Thing, World, file, look, xattrs_of};
use crate::tree::fs::metadata::handle_of;

/// A character device without a driver on this machine: opening the device fails.
const NO_DRIVER: (u32, u32) = (241, 250);

/// Makes a device without a driver. Prints the reason and returns false where that is not
/// permitted.
fn device(at: &Path) -> bool {
    let made = mknod(
        at,
        SFlag::S_IFCHR,
        Mode::S_IRUSR | Mode::S_IWUSR,
        rustix::fs::makedev(NO_DRIVER.0, NO_DRIVER.1),
    );

    if let Err(e) = made {
        crate::skip::skipped(format!("no devices here: {e}"));
        return false;
    }

    assert!(
        std::fs::File::open(at).is_err(),
        "a device that can be opened proves nothing"
    );
    true
}

fn set(at: &Path, name: &str, value: &[u8]) -> bool {
    let done = rustix::fs::lsetxattr(at, name, value, XattrFlags::empty());
    if let Err(e) = done {
        crate::skip::skipped(format!("no {name} here: {e}"));
    }
    done.is_ok()
}

#[test]
fn an_attribute_of_a_device_that_the_source_lacks_goes() {
    for swap in [false, true] {
        let world = World::new(&[("a", file("a"))], &[("a", file("b"))]).swapping(swap);
        let ours = world.www().join("n");
        let theirs = world.source().join("n");
        if !device(&ours) || !device(&theirs) || !set(&ours, "system.posix_acl_access", &acl()) {
            return;
        }
        let tree = world.open();
        let before = look(&world.www());
        world.deploy(&tree, 1).unwrap();
        assert_eq!(xattrs_of(&ours), [], "swap {swap}");
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), before, "swap {swap}");
    }
}

#[test]
fn a_device_without_a_driver_arrives_with_its_attributes() {
    for swap in [false, true] {
        let world = World::new(&[("a", file("a"))], &[("a", file("b"))]).swapping(swap);
        let theirs = world.source().join("n");
        if !device(&theirs) || !set(&theirs, "system.posix_acl_access", &acl()) {
            return;
        }
        world.deploy(&world.open(), 1).unwrap();
        assert_eq!(
            xattrs_of(&world.www().join("n")),
            xattrs_of(&theirs),
            "swap {swap}"
        );
    }
}

#[test]
fn a_commit_over_a_device_with_other_attributes_is_done_and_undone() {
    for swap in [false, true] {
        let world = World::new(&[("a", file("a"))], &[("a", file("b"))]).swapping(swap);
        let ours = world.www().join("n");
        let theirs = world.source().join("n");
        if !device(&ours) || !device(&theirs) {
            return;
        }
        if !set(&ours, "trusted.one", b"1") || !set(&theirs, "trusted.two", b"2") {
            return;
        }
        let tree = world.open();
        let before = look(&world.www());
        world.deploy(&tree, 1).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "swap {swap}");
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), before, "swap {swap}");
    }
}

fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap()
}

/// Waits until the thread sleeps in the kernel, blocked on the pipe.
fn wait_until_it_sleeps(thread: i32) {
    let sleeps = || {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('S'))
    };

    while !sleeps() {
        std::thread::yield_now();
    }
}

#[test]
fn a_writer_that_waits_at_a_pipe_goes_on_waiting() {
    for swap in [false, true] {
        let world = World::new(&[("p", Thing::Pipe)], &[("p", Thing::Pipe)]).swapping(swap);
        std::fs::set_permissions(
            world.source().join("p"),
            std::fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        // The swap layout may make a new pipe: the old one is found by inode.
        let old = handle_of(rustix::fs::CWD, &c_path(&world.www().join("p"))).unwrap();
        let by_inode = format!("/proc/self/fd/{}", old.as_raw_fd());
        let went_on = Arc::new(AtomicBool::new(false));
        let (told, writer_id) = std::sync::mpsc::channel();
        let writer = std::thread::spawn({
            let path = by_inode.clone();
            let went_on = Arc::clone(&went_on);
            move || {
                told.send(rustix::thread::gettid().as_raw_nonzero())
                    .unwrap();
                let pipe = std::fs::File::options().write(true).open(path).unwrap();
                went_on.store(true, Ordering::SeqCst);
                drop(pipe);
            }
        });
        wait_until_it_sleeps(writer_id.recv().unwrap().get());

        world.deploy(&world.open(), 1).unwrap();
        assert!(!went_on.load(Ordering::SeqCst), "swap {swap}");

        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let reader = rustix::fs::open(by_inode, flags, rustix::fs::Mode::empty()).unwrap();
        writer.join().unwrap();
        drop(reader);
    }
}

#[test]
fn attributes_of_symbolic_links_arrive_change_and_go() {
    for swap in [false, true] {
        let links = || [("gone", Thing::Link("x")), ("kept", Thing::Link("y"))];
        let world = World::new(&links(), &links()).swapping(swap);
        if !set(&world.www().join("gone"), "trusted.old", b"1")
            || !set(&world.source().join("kept"), "trusted.new", b"2")
        {
            return;
        }
        let tree = world.open();
        let before = look(&world.www());
        world.deploy(&tree, 1).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "swap {swap}");
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), before, "swap {swap}");
    }
}

#[test]
fn an_attribute_that_cannot_be_set_is_named() {
    super::world::as_nobody(|| {
        let dir = super::world::scratch();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let handle = std::fs::File::open(&path).unwrap();
        let xattrs = vec![crate::manifest::Xattr {
            name: b"trusted.mine".to_vec(),
            value: b"1".to_vec(),
        }];
        let wanted = crate::tree::fs::metadata::Metadata {
            xattrs: Some(xattrs),
            ..Default::default()
        };
        let e = wanted.set(&handle).unwrap_err();
        assert!(e.to_string().contains("trusted.mine"), "{e}");
    });
}

#[test]
fn further_names_of_links_pipes_and_devices_are_one_inode() {
    for swap in [false, true] {
        let apart = [
            ("a-link", Thing::Link("x")),
            ("b-link", Thing::Link("x")),
            ("c-pipe", Thing::Pipe),
        ];
        let joined = [
            ("a-link", Thing::Link("x")),
            ("b-link", Thing::Hard("a-link")),
            ("c-pipe", Thing::Pipe),
            ("d-pipe", Thing::Hard("c-pipe")),
        ];
        let world = World::new(&apart, &joined).swapping(swap);
        let theirs = world.source().join("e-device");
        if device(&theirs) {
            std::fs::hard_link(&theirs, world.source().join("f-device")).unwrap();
        }
        let tree = world.open();
        let before = look(&world.www());
        world.deploy(&tree, 1).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "swap {swap}");
        let ino = |name: &str| {
            std::fs::symlink_metadata(world.www().join(name))
                .unwrap()
                .ino()
        };
        assert_eq!(
            (ino("a-link"), ino("c-pipe")),
            (ino("b-link"), ino("d-pipe")),
            "swap {swap}"
        );
        tree.revert().unwrap();
        assert_eq!(look(&world.www()), before, "swap {swap}");

        // Changes the metadata of all names at once, and separates the names again.
        world.deploy(&tree, 2).unwrap();
        for name in ["a-link", "c-pipe"] {
            let time = filetime(7);
            rustix::fs::utimensat(
                rustix::fs::CWD,
                world.source().join(name),
                &time,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )
            .unwrap();
        }
        world.deploy(&tree, 3).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "swap {swap}");
        assert_eq!(
            (ino("a-link"), ino("c-pipe")),
            (ino("b-link"), ino("d-pipe")),
            "swap {swap}"
        );
        world.release(&apart);
        world.deploy(&tree, 4).unwrap();
        assert_eq!(look(&world.www()), look(&world.source()), "swap {swap}");
        assert_ne!(ino("a-link"), ino("b-link"), "swap {swap}");
    }
}

fn filetime(secs: i64) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec {
        tv_sec: secs,
        tv_nsec: 0,
    };

    rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    }
}
