//! `makuo send` and `makuo sync`: transfers of parts of a host's tree, through its daemon's control
//! socket.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::process::Command;

use crate::support::run::Running;
use crate::support::{Old, is_root, read, skipped, until, write};

/// Starts the daemons of `old` without a console, and waits until the first has discovered the
/// others.
fn started(mut old: Old, count: usize) -> Old {
    (0..count).for_each(|host| old.start(host, &["-o"]));
    write(&old.base(0).join("first"), "first");
    let all = Some(count as u64 - 1);
    until("members", || {
        old.makuo(0, &["send", "-n", "first", "--json"]).result()["targets"].as_u64() == all
    });
    std::fs::remove_file(old.base(0).join("first")).expect("there");

    old
}

#[test]
fn files_are_sent_through_the_control_socket() {
    let Some(old) = Old::loopback(3).map(|old| started(old, 3)) else {
        return;
    };
    assert_eq!(
        std::fs::metadata(old.control(0)).expect("there").mode() & 0o777,
        0o600
    );
    let makuo = |args: &[&str]| old.makuo(0, args);
    let base = old.base(0);
    for file in ["img/a.png", "img/b.png", "img/c.txt", "img/deep/d.png"] {
        write(&base.join(file), file);
    }
    let ran = makuo(&["send", "-n", "img/*.png"])
        .exits(0)
        .says(&["img/a.png", "img/b.png"]);
    assert!(
        !ran.out.contains("c.txt") && !old.base(1).join("img").exists(),
        "{ran}"
    );
    makuo(&["send", "img/*.png"]).exits(0);
    assert_eq!(read(&old.base(1).join("img/b.png")), b"img/b.png");
    assert!(!old.base(1).join("img/c.txt").exists() && !old.base(1).join("img/deep").exists());
    makuo(&["send", "-r", "-t", "mk2", "img"]).exits(0);
    assert!(old.base(1).join("img/deep/d.png").exists() && !old.base(2).join("img/deep").exists());

    // A deletion stays within the scope.
    write(&old.base(1).join("img/extra"), "");
    write(&old.base(1).join("outside"), "");
    std::fs::remove_file(base.join("img/a.png")).expect("there");
    let json = makuo(&["sync", "-r", "--json", "img"]).exits(0);
    assert_eq!(json.result()["files_deleted"].as_u64(), Some(3), "{json}");
    assert!(!old.base(1).join("img/extra").exists() && old.base(1).join("outside").exists());
    assert!(!old.base(2).join("img/a.png").exists());
    makuo(&["send", "nosuch"])
        .exits(2)
        .says(&["No such file or directory nosuch"]);
    makuo(&["send", "-r", "-t", "nohost", "."]).exits(3);
    makuo(&["send", "-r", "-D", "."]).exits(0);
    assert!(!old.base(1).join("outside").exists());
    // The sending host itself commits nothing.
    assert!(!old.log(0).contains(": committed"), "{}", old.log(0));
}

#[test]
fn members_of_the_sockets_group_need_no_key_and_others_get_nothing() {
    if !is_root() {
        return skipped("only root can be somebody else");
    }

    const GROUP: u32 = 1;
    let Some(mut old) = Old::loopback(2) else {
        return;
    };

    let name = nix::unistd::Group::from_gid(GROUP.into())
        .expect("readable")
        .expect("every system has it")
        .name;
    old.top(0, &format!("socket_group = {name:?}"));
    let old = started(old, 2);
    for dir in [old.lab.path(""), old.dir(0)] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("mine");
    }

    let meta = std::fs::metadata(old.control(0)).expect("there");
    assert_eq!((meta.gid(), meta.mode() & 0o777), (GROUP, 0o660));
    write(&old.base(0).join("page"), "x");

    // The group cannot read the keys.
    assert_eq!(
        std::fs::metadata(old.lab.path("key"))
            .expect("there")
            .mode()
            & 0o077,
        0
    );

    let as_member = |group: u32, args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--regid",
            &group.to_string(),
            "--clear-groups",
        ]);
        command
            .arg(env!("CARGO_BIN_EXE_makuo"))
            .args(args)
            .arg("--socket")
            .arg(old.control(0));
        Running::start(command.env_remove("MAKUO_CONFIG").env("HOME", "/")).wait()
    };

    as_member(65534, &["send", "page"])
        .exits(3)
        .says(&["socket_group"]);
    assert!(!old.base(1).join("page").exists());
    as_member(GROUP, &["send", "page"]).exits(0);
    assert_eq!(read(&old.base(1).join("page")), b"x");
    std::fs::remove_file(old.base(0).join("page")).expect("there");

    as_member(GROUP, &["sync", "page"]).exits(0);
    assert!(!old.base(1).join("page").exists());
}

#[test]
fn devices_and_fifos_are_sent() {
    let Some(old) = Old::loopback(2).map(|old| started(old, 2)) else {
        return;
    };
    let make = |name: &str, words: &[&str]| {
        Command::new("mknod")
            .arg(old.base(0).join(name))
            .args(words)
            .status()
            .is_ok_and(|status| status.success())
    };
    std::fs::create_dir(old.base(0).join("dev")).expect("new");
    assert!(make("dev/queue", &["p"]), "anybody may make a fifo");
    let devices = make("dev/null", &["c", "1", "3"]);
    old.makuo(0, &["send", "-r", "dev"]).exits(0);
    let there = |name: &str| std::fs::symlink_metadata(old.base(1).join(name)).expect("there");
    assert!(there("dev/queue").file_type().is_fifo());
    if devices {
        let null = there("dev/null");
        assert!(null.file_type().is_char_device());
        assert_eq!(
            null.rdev(),
            std::fs::symlink_metadata(old.base(0).join("dev/null"))
                .expect("there")
                .rdev()
        );
    } else {
        skipped("no device can be made here");
    }
}

#[test]
fn hooks_run_around_what_is_sent_by_hand() {
    let Some(mut old) = Old::loopback(3) else {
        return;
    };

    let told = old.lab.path("told");
    let script = format!(
        "test -e $MAKUO_PATH/page && is=there || is=missing; echo $MAKUO_PHASE $MAKUO_TREE $MAKUO_SENDER $is >> {}",
        told.display()
    );
    let hook = |key: &str| format!("{key} = [\"/bin/sh\", \"-c\", {script:?}]\n");
    old.tree(1, &["before", "after"].map(hook).concat());

    old.tree(2, "before = [\"/bin/sh\", \"-c\", \"test ! -e $MAKUO_PATH/lock || { echo locked; exit 1; }\"]");
    let old = started(old, 3);
    let _ = std::fs::remove_file(&told);
    write(&old.base(0).join("page"), "x");
    old.makuo(0, &["send", "page"]).exits(0);
    assert_eq!(
        String::from_utf8(read(&told)).expect("text"),
        "before default mk1 missing\nafter default mk1 there\n"
    );

    // A single refusal leaves all hosts unchanged.
    write(&old.base(2).join("lock"), "");
    write(&old.base(0).join("page"), "newer");
    old.makuo(0, &["send", "page"])
        .exits(3)
        .says(&["mk3", "locked"]);
    assert_eq!(read(&old.base(1).join("page")), b"x");

    old.makuo(0, &["send", "-t", "mk2", "page"]).exits(0);
    assert_eq!(read(&old.base(1).join("page")), b"newer");
}
