//! The daemon as an unprivileged user: its capabilities, their use, and the processes beside the
//! daemon.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::support::run::Running;
use crate::support::{DELETE, Lab, Ran, copy_program, is_root, read, skipped, write};

/// CHOWN, DAC_OVERRIDE, FOWNER and FSETID.
const RIGHTS: u64 = 0b11011;
const NOBODY: u32 = 65534;

/// Makes a host with a daemon that runs as nobody.
fn lab() -> Option<Lab> {
    if !is_root() {
        skipped("only root may become another user");
        return None;
    }

    let mut lab = Lab::loopback_idle()?;
    let mut flags = lab.admin.flags();
    flags.extend(["--user", &NOBODY.to_string()].map(String::from));
    lab.host("web1").flags = Some(flags);

    Some(lab)
}

fn status(pid: u32, key: &str) -> String {
    let all = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = all
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))
        .expect("every kernel has it");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let meta =
        std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777)
}

fn own(path: &Path, uid: u32, gid: u32, mode: u32) {
    chown(path, Some(uid), Some(gid)).expect("root may");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("root may");
}

#[test]
fn every_thread_has_the_user_and_the_rights_and_no_more() {
    let Some(mut lab) = lab() else { return };
    lab.hosts[0].start();
    let pid = lab.hosts[0].pid();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        let id: u32 = thread
            .expect("readable")
            .file_name()
            .to_string_lossy()
            .parse()
            .expect("a number");
        assert_eq!(
            status(id, "Uid"),
            [NOBODY; 4].map(|n| n.to_string()).join(" ")
        );
        assert_eq!(status(id, "Gid"), status(pid, "Gid"));
        assert!(
            !status(id, "Gid").starts_with("0 ")
                && !status(id, "Groups").split(' ').any(|g| g == "0")
        );
        for (key, wanted) in [
            ("CapEff", RIGHTS),
            ("CapPrm", RIGHTS),
            ("CapBnd", RIGHTS),
            ("CapInh", 0),
            ("CapAmb", 0),
        ] {
            let rights = u64::from_str_radix(&status(id, key), 16).expect("a number");
            assert_eq!(rights & !wanted, 0, "{key} {rights:x}");
        }
        assert_eq!(status(id, "NoNewPrivs"), "1");
    }
}

#[test]
fn it_still_puts_any_owner_and_mode_in_place() {
    let Some(mut lab) = lab() else { return };
    let site = lab.site();
    write(&site.join("theirs"), "a");
    write(&site.join("dir/shared"), "b");
    own(&site.join("theirs"), 33, 33, 0o600);
    own(&site.join("dir/shared"), 12_345, 54_321, 0o2755);
    own(&site.join("dir"), 12_345, 54_321, 0o2750);

    lab.hosts[0].start();
    lab.spec(&format!("{DELETE}[owner]\nunknown = \"numeric\"\n"));
    lab.deploy(&[]).exits(0);
    lab.all_same(&site);
    let tree = lab.hosts[0].tree();
    assert_eq!(owner(&tree.join("theirs")), (33, 33, 0o600));
    assert_eq!(owner(&tree.join("dir/shared")), (12_345, 54_321, 0o2755));

    assert_eq!(owner(&tree.join("dir")), (12_345, 54_321, 0o2750));

    // The files belong to other users now, and after a restart so does the state.
    lab.hosts[0].restart();
    write(&site.join("theirs"), "longer");
    std::fs::remove_file(site.join("dir/shared")).expect("there");
    lab.deploy(&[]).exits(0);

    lab.all_same(&site);
    lab.spec(&format!(
        "{DELETE}[owner]\nunknown = \"numeric\"\n[commit]\nlayout = \"swap\"\n"
    ));

    for text in ["again", "and again"] {
        write(&site.join("theirs"), text);
        lab.deploy(&[]).exits(0);
        lab.all_same(&site);
    }
}

#[test]
fn hooks_run_beside_it_with_the_rights_that_it_had() {
    let Some(mut lab) = lab() else { return };
    let told = lab.path("told");
    let script = format!(
        "echo $MAKUO_PHASE $MAKUO_SERIAL $(id -u) >> {}",
        told.display()
    );
    let command = |key: &str, script: &str| format!("{key} = [\"/bin/sh\", \"-c\", {script:?}]");

    for key in ["before", "after", "health"] {
        lab.hosts[0].rule(&command(key, &script));
    }

    lab.hosts[0].start();
    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(0);

    assert_eq!(
        String::from_utf8(read(&told)).expect("text"),
        "before 1 0\nafter 1 0\nhealth 1 0\n"
    );
}

#[test]
fn a_hook_that_says_no_is_told_with_its_words() {
    let Some(mut lab) = lab() else { return };
    lab.hosts[0].rule("before = [\"/bin/sh\", \"-c\", \"echo not today; exit 7\"]");
    lab.hosts[0].start();
    write(&lab.site().join("a"), "a");
    lab.deploy(&[])
        .exits(3)
        .says(&["exit status 7", "not today"]);
}

#[test]
fn a_host_that_refuses_exchanges_refuses_them_unconfined_too() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let host = lab.host("web1");
    host.setting("sandbox = \"off\"");
    host.rule("swap = false");
    host.start();
    write(&lab.site().join("a"), "a");
    lab.spec(&format!("{DELETE}[commit]\nlayout = \"swap\"\n"));
    lab.deploy(&[])
        .exits(3)
        .says(&["does not let", "write swap = true in its [[tree]]"]);
    lab.spec(DELETE);
    lab.deploy(&[]).exits(0);

    lab.all_same(&lab.site());
}

#[test]
fn a_user_who_came_while_a_confined_daemon_runs_is_known_though_it_reads_nothing_of_etc() {
    if !is_root() {
        return skipped("only root can give a file to somebody");
    }

    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let etc = lab.path("etc");
    let host = lab.host("web1");
    host.wrap(&format!(
        "cp -a /etc {0} && sed -i /^daemon:/d {0}/passwd && mount --bind {0} /etc && exec \"$@\"",
        etc.display()
    ));
    host.start();

    if host.log().contains("not confined") {
        return skipped("this kernel has no Landlock");
    }

    let page = lab.site().join("page");
    write(&page, "page");
    chown(&page, Some(1), Some(0)).expect("root may");
    lab.deploy(&[]).exits(3).says(&["daemon"]);

    // Like useradd: a new file under the same name.
    let all = String::from_utf8(read(&etc.join("passwd"))).expect("text");
    write(
        &etc.join("passwd+"),
        format!("{all}daemon:x:4321:0::/:/bin/false\n"),
    );
    std::fs::rename(etc.join("passwd+"), etc.join("passwd")).expect("mine");

    lab.deploy(&[]).exits(0);
    assert_eq!(owner(&lab.hosts[0].tree().join("page")).0, 4321);
}

#[test]
fn a_daemon_that_is_kept_to_its_tree_cannot_exchange_it() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let host = lab.host("web1");
    host.rule("# Nothing about swap = ...");
    host.start();

    if host.log().contains("not confined") {
        skipped("this kernel has no Landlock");
        return;
    }

    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(0);
    write(&lab.site().join("a"), "b");
    lab.spec(&format!("{DELETE}[commit]\nlayout = \"swap\"\n"));
    lab.deploy(&[])
        .exits(3)
        .says(&["write swap = true in its [[tree]]"]);

    assert_eq!(read(&lab.hosts[0].tree().join("a")), b"a");
    lab.spec(DELETE);
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());

    // If configured, the daemon has access to the tree's parent directory.
    lab.spec(&format!("{DELETE}[commit]\nlayout = \"swap\"\n"));
    write(&lab.site().join("a"), "c");
    lab.hosts[0].rule("swap = true");
    lab.hosts[0].restart();
    lab.deploy(&[]).exits(0);

    lab.all_same(&lab.site());
}

#[test]
fn devices_are_made_where_the_host_says_so_and_nowhere_else() {
    let Some(mut lab) = lab() else { return };
    write(&lab.site().join("page"), "old");
    lab.hosts[0].start();
    lab.deploy(&[]).exits(0);
    let made = std::process::Command::new("mknod")
        .arg(lab.site().join("null"))
        .args(["c", "1", "3"])
        .status();

    if !made.is_ok_and(|status| status.success()) {
        skipped("no device can be made here");
        return;
    }

    // Without the capability, the error names the path, and no part of the release is committed.
    write(&lab.site().join("page"), "new");
    lab.deploy(&[]).exits(3).says(&["null"]);
    assert_eq!(read(&lab.hosts[0].tree().join("page")), b"old");
    lab.hosts[0].rule("devices = true");
    lab.hosts[0].restart();
    lab.deploy(&[]).exits(0);

    lab.all_same(&lab.site());
}

/// Asks the daemon at `socket` to send, as user `user`, and returns the result.
fn asked_by(lab: &Lab, socket: &Path, user: u32) -> Ran {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(lab.path("makuo"));
    command
        .args(["send", "-n", "page", "--socket"])
        .arg(socket)
        .env_clear()
        .uid(user)
        .gid(user);
    Running::start(&mut command).wait()
}

#[test]
fn the_control_socket_is_for_root_the_daemons_user_and_its_group_whatever_its_mode() {
    const REFUSED: &str = "you may not use this daemon's control socket";
    const OTHER: u32 = 65_533;
    if !is_root() {
        return skipped("only root may become another user");
    }

    let Ok(Some(group)) = nix::unistd::Group::from_gid(NOBODY.into()) else {
        return skipped("there is no group of nobody");
    };

    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let flags = lab.admin.flags();
    lab.host("root");
    lab.host("nobody").flags = Some([&flags[..], &["--user".into(), NOBODY.to_string()]].concat());
    lab.host("group")
        .setting(&format!("socket_group = {:?}", group.name));
    copy_program(&lab.path("makuo"));
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mine")
    };

    open(&lab.path(""), 0o755);
    for (nth, (name, mode, lets_in)) in [
        ("root", 0o600, [0].as_slice()),
        ("nobody", 0o600, &[0, NOBODY]),
        ("group", 0o660, &[0, NOBODY]),
    ]
    .into_iter()
    .enumerate()
    {
        lab.hosts[nth].start();
        let socket = lab.hosts[nth].socket();
        assert_eq!(
            std::fs::metadata(&socket)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            mode,
            "{name}"
        );
        // Access is opened to all users.
        open(&lab.path(name), 0o755);
        open(&socket, 0o666);
        for user in [0, NOBODY, OTHER] {
            let ran = asked_by(&lab, &socket, user);
            assert_eq!(
                !ran.err.contains(REFUSED),
                lets_in.contains(&user),
                "{name} {user}: {ran}"
            );
            // An admitted user gets the next error: this host has no key.
            assert!(
                ran.err.contains(REFUSED) || ran.err.contains("page") || ran.err.contains("key"),
                "{ran}"
            );
        }
        lab.hosts[nth].kill();
    }
}

#[test]
fn nobody_is_refused_who_is_not_there() {
    let Some(lab) = Lab::loopback_idle() else {
        return;
    };

    let dir = lab.path("tree");
    let base = dir.to_str().expect("UTF-8");
    let socket = lab.path("sock");
    let socket = socket.to_str().expect("UTF-8");

    for (flag, what) in [("--user", "no user"), ("--run-group", "no group")] {
        lab.makuo(&[
            "daemon",
            "--base",
            base,
            "--socket",
            socket,
            flag,
            "no-such-name-here",
            "--plain",
        ])
        .exits(2)
        .says(&[what]);
    }
}
