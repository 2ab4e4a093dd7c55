//! Large or odd trees: huge sparse files, directories without access for their own user, and
//! renamed paths.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::support::{self, Lab, copy, same, skipped, write};
use rustix::fs::SeekFrom;

#[test]
fn a_file_of_holes_arrives_as_a_file_of_holes() {
    let gib = std::env::var("MAKUO_SPARSE_GIB")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8u64);
    let Some(lab) = Lab::loopback(1) else { return };
    let path = lab.site().join("disk.img");
    let size = (gib << 30) + 12_345;

    let file = File::create(&path).expect("new");
    if let Err(e) = file.set_len(size) {
        return skipped(format!("no file of {size} bytes here: {e}"));
    }

    let data = [
        (0, "begin"),
        ((1 << 30) + 77, "somewhere"),
        ((gib << 29) - 3, "in the middle"),
        (size - 3, "end"),
    ];

    for (at, text) in data {
        file.write_all_at(text.as_bytes(), at).expect("space");
    }

    for more in ["", "[commit]\nlayout = \"swap\"\n"] {
        lab.spec(&format!("{}{more}", support::DELETE));
        write(&lab.site().join("more"), more);
        lab.deploy(&[]).exits(0);
        let there = lab.hosts[0].tree().join("disk.img");
        let found = std::fs::metadata(&there).expect("there");
        assert_eq!(found.size(), size);
        assert!(found.blocks() * 512 < 8 << 20, "{} blocks", found.blocks());
        assert!(pages(&path) == pages(&there), "another content");
    }

    // A hole is filled with data, and data becomes a hole.
    file.write_all_at(b"late", (1 << 29) + 5).expect("space");
    lab.deploy(&[]).exits(0);

    assert!(
        pages(&path) == pages(&lab.hosts[0].tree().join("disk.img")),
        "another content"
    );
}

/// Reads the non-zero pages of a file by position, within the data ranges reported by the kernel.
fn pages(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    const PAGE: u64 = 4096;
    let file = File::open(path).expect("there");
    let size = file.metadata().expect("there").size();
    let mut pages = BTreeMap::new();
    let mut at = 0;

    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).expect("data ends");
        for place in (start / PAGE * PAGE..end).step_by(PAGE as usize) {
            let mut page = vec![0; PAGE.min(size - place) as usize];
            file.read_exact_at(&mut page, place).expect("readable");
            if page.iter().any(|&byte| byte != 0) {
                pages.insert(place, page);
            }
        }
        at = end;
    }

    pages
}

const NOBODY: u32 = 65_534;

/// Compares the trees by rsync, without owners.
fn differences(here: &Path, there: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let mut rsync = Command::new("rsync");
    let out = rsync
        .args(["-n", "-i", "-rlptDHXc", "--delete"])
        .arg(slash(here))
        .arg(slash(there))
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
fn a_directory_that_bars_its_own_user_is_updated_emptied_and_taken_back() {
    if !support::is_root() {
        return skipped("only root can run a host as another user");
    }

    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let (program, flag) = (lab.path("makuo"), lab.path("unhealthy"));
    support::copy_program(&program);
    for open in [lab.path(""), program.clone()] {
        std::fs::set_permissions(open, Permissions::from_mode(0o755)).expect("mine");
    }

    let host = lab.host("web1");
    let user = format!("--reuid {NOBODY} --regid {NOBODY} --clear-groups --pdeathsig KILL");
    host.wrap(&format!(
        "shift; exec setpriv {user} {} \"$@\"",
        program.display()
    ));
    host.rule(&format!(
        "health = [\"test\", \"!\", \"-e\", {:?}]",
        flag.display().to_string()
    ));
    host.rule("health_deadline = \"300ms\"\nhealth_interval = \"100ms\"");

    let own = host.disk().parent().expect("a parent").to_path_buf();
    assert!(
        Command::new("chown")
            .args(["-R", &NOBODY.to_string()])
            .arg(own)
            .status()
            .expect("chown")
            .success()
    );

    host.start();
    let tree = host.tree();

    let spec = |layout: &str| {
        lab.spec(&format!(
            "{}[owner]\nuser = \"ignore\"\ngroup = \"ignore\"\n[commit]\nlayout = \"{layout}\"\non_failure = \"revert\"\n",
            support::DELETE
        ));
    };

    let locked = lab.site().join("locked");
    let bar = || std::fs::set_permissions(&locked, Permissions::from_mode(0o0)).expect("mine");
    spec("in-place");
    for name in ["a", "b", "deep/c", "deep/d", "deep/er/e"] {
        write(&locked.join(name), name);
    }

    bar();
    lab.deploy(&[]).exits(0);
    assert_eq!(differences(&lab.site(), &tree), "");
    assert_eq!(
        std::fs::metadata(tree.join("locked"))
            .expect("there")
            .mode()
            & 0o7777,
        0
    );

    write(&locked.join("a"), "updated");

    std::fs::remove_file(locked.join("b")).expect("there");
    std::fs::remove_dir_all(locked.join("deep/er")).expect("there");

    // A further copy of existing content, outside the locked directory.
    std::fs::copy(locked.join("deep/c"), lab.site().join("copied")).expect("a copy");
    bar();
    lab.deploy(&[]).exits(0);
    assert_eq!(differences(&lab.site(), &tree), "", "updated");

    write(&locked.join("deep/d"), "below it alone");

    bar();
    lab.deploy(&[]).exits(0);
    assert_eq!(differences(&lab.site(), &tree), "", "updated below");
    lab.diff(&[]).exits(0);

    let before = lab.path("before");
    copy(&lab.site(), &before);

    write(&locked.join("a"), "bad");
    write(&locked.join("new"), "new");
    std::fs::remove_dir_all(locked.join("deep")).expect("there");
    bar();
    write(&flag, "");
    lab.deploy(&[]).exits(3);
    assert_eq!(differences(&before, &tree), "", "taken back");

    std::fs::remove_file(&flag).expect("there");

    spec("swap");
    lab.deploy(&[])
        .exits(3)
        .says(&["locked", "keeps this daemon's user out"]);
    assert_eq!(differences(&before, &tree), "", "refused");

    spec("in-place");

    lab.deploy(&[]).exits(0);
    assert_eq!(differences(&lab.site(), &tree), "", "deployed after all");
    std::fs::remove_dir_all(&locked).expect("mine");
    lab.deploy(&[]).exits(0);

    assert_eq!(differences(&lab.site(), &tree), "", "removed");
}

#[test]
fn names_of_one_file_in_directories_that_move_are_what_they_are_in_the_source() {
    for more in ["", "[commit]\nlayout = \"swap\"\n"] {
        let Some(lab) = Lab::loopback(2) else { return };
        lab.spec(&format!("{}{more}", support::DELETE));
        let at = |path: &str| lab.site().join(path);
        let deployed = |what: &str| {
            println!("{what}");
            lab.deploy(&[]).exits(0);
            for host in &lab.hosts {
                same(&lab.site(), &host.tree());
            }
            lab.diff(&[]).exits(0);
        };
        write(&at("current/app.js"), "the first release");
        std::fs::create_dir(at("stable")).expect("new");
        std::fs::hard_link(at("current/app.js"), at("stable/app.js")).expect("new");
        deployed("two names");

        std::fs::rename(at("current"), at("previous")).expect("there");
        write(&at("current/app.js"), "second, release");
        deployed("another file under the first name");

        std::fs::rename(at("previous"), at("archive")).expect("there");
        deployed("the directory of a name has another name");

        std::fs::rename(at("archive"), at("zoo")).expect("there");
        deployed("the first name is the last");

        std::fs::remove_dir_all(at("stable")).expect("there");
        std::fs::rename(at("zoo"), at("stable")).expect("there");
        std::fs::hard_link(at("current/app.js"), at("stable/both.js")).expect("new");
        deployed("one name left, and another file has two");

        std::fs::rename(at("stable"), at("a")).expect("there");
        deployed("the further name comes first");
    }
}

#[test]
fn names_of_links_pipes_and_devices_are_scanned_as_names_of_one() {
    use nix::sys::stat::{Mode, SFlag, mknod};
    for more in ["", "[commit]\nlayout = \"swap\"\n"] {
        let Some(lab) = Lab::loopback(1) else { return };
        lab.spec(&format!("{}{more}", support::DELETE));
        let at = |path: &str| lab.site().join(path);
        let link = |first: &str, name: &str| std::fs::hard_link(at(first), at(name)).expect("new");
        std::fs::create_dir(at("d")).expect("new");
        std::os::unix::fs::symlink("no/where", at("link")).expect("new");
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).expect("new");
        let device = |name: &str, kind, minor| {
            mknod(
                &at(name),
                kind,
                Mode::S_IRUSR,
                rustix::fs::makedev(1, minor),
            )
        };
        let mut kinds = vec!["link", "pipe"];
        match device("char", SFlag::S_IFCHR, 3).and_then(|()| device("block", SFlag::S_IFBLK, 5)) {
            Ok(()) => kinds.extend(["char", "block"]),
            Err(e) => skipped(format!("in part: no devices: {e}")),
        }
        let deployed = |what: &str| {
            println!("{what} {more}");
            lab.deploy(&[]).exits(0);
            lab.all_same(&lab.site());
            lab.diff(&[]).exits(0);
        };
        for kind in &kinds {
            link(kind, &format!("d/{kind}"));
            link(kind, &format!("zz-{kind}"));
        }
        // In rsync's notation.
        lab.diff(&[]).exits(1).says(&["hL+++++++++", "hS+++++++++"]);
        deployed("three names of each");

        for kind in &kinds {
            std::fs::remove_file(at(kind)).expect("there");
            link(&format!("zz-{kind}"), &format!("d/more-{kind}"));
        }
        deployed("the first name gone, another one come");

        std::fs::rename(at("d"), at("zzz")).expect("there");
        deployed("names in a directory that moved");

        std::fs::remove_file(at("zz-pipe")).expect("there");
        nix::unistd::mkfifo(&at("zz-pipe"), Mode::S_IRUSR | Mode::S_IWUSR).expect("new");
        deployed("one of them is another pipe");
    }
}
