//! Flags of the old daemon: four hosts as in the old manual, in every variant, and the effect of
//! each flag.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::run::Running;
use crate::support::{
    self, Capture, Noise, Old, append, is_root, pace, read, skipped, until, write,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Group, Pid, User};

/// Returns the ids of the user and group www-data. Only root can start a daemon as that user.
fn www_data() -> Option<(u32, u32)> {
    let user = User::from_name("www-data").ok().flatten();
    let group = Group::from_name("www-data").ok().flatten();
    let found = user
        .zip(group)
        .filter(|_| is_root())
        .map(|(user, group)| (user.uid.as_raw(), group.gid.as_raw()));
    if found.is_none() {
        skipped("needs root, and a user and a group www-data");
    }

    found
}

/// Returns a line of /proc/PID/status.
fn status(process: Pid, key: &str) -> String {
    let all = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = all
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))
        .expect("every kernel has it");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn facts(path: &Path) -> (u32, u32, u32, i64) {
    let meta = std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (meta.mode(), meta.uid(), meta.gid(), meta.mtime())
}

/// Runs msync between four hosts; the first one sends.
fn as_the_old_readme_has_it(old: &mut Old) {
    let base = old.base(0);
    write(&base.join("hoge.html"), "hoge\n");
    write(&base.join("sub/x"), "x\n");
    std::fs::set_permissions(
        base.join("hoge.html"),
        std::fs::Permissions::from_mode(0o640),
    )
    .expect("mine");
    if is_root() {
        chown(base.join("hoge.html"), Some(1), Some(2)).expect("root may");
    }
    old.know_each_other(None);
    let members = old.msync(&["--members"]).exits(0).out;
    assert!(members.starts_with("mk2 10.77.0.2 (Ver"), "{members}");

    let dry = "(dryrun) [update:hoge.html]\n(dryrun) [update:sub/x]\n";
    assert_eq!(old.msync(&["-r", "-n"]).exits(0).out, dry);
    assert!(!old.base(1).join("hoge.html").exists());
    assert_eq!(old.msync(&["-r"]).exits(0).out, "");
    for host in 1..4 {
        for file in ["hoge.html", "sub/x"] {
            let (here, there) = (base.join(file), old.base(host).join(file));
            assert_eq!(
                (read(&here), facts(&here)),
                (read(&there), facts(&there)),
                "{file}"
            );
        }
    }
    let out = old.msync(&["-r", "-vv", "-t", "mk3"]).exits(0).out;
    assert_eq!(out, "skip   mk3:hoge.html\nskip   mk3:sub/x\n");
    assert_eq!(
        old.msync(&["-r", "-t", "nohost"]).exits(1).out,
        "nohost is not contained in members\n"
    );

    append(&old.base(2).join("sub/x"), b"!");
    write(&old.base(3).join("extra/file"), "extra");
    assert_eq!(
        old.msync(&["--check", "-r"]).exits(1).out,
        "mk3: NG sub/x\n"
    );
    assert_eq!(
        old.msync(&["-v", "-t", "mk3", "sub/x"]).exits(0).out,
        "update mk3:sub/x\n"
    );
    assert_eq!(old.msync(&["--check", "-r"]).exits(0).out, "");
    let extra = "(dryrun) delete mk4:extra/file\n(dryrun) delete mk4:extra\n";
    assert_eq!(old.msync(&["--delete", "-n", "-r"]).exits(0).out, extra);
    assert_eq!(
        old.msync(&["--delete", "-r"]).exits(0).out,
        extra.replace("(dryrun) ", "")
    );
    assert!(!old.base(3).join("extra").exists());

    // Files missing at the sender are deleted, except for excluded ones.
    std::fs::remove_file(base.join("sub/x")).expect("there");
    write(&old.base(1).join("sub/keep.tmp"), "");
    let out = old
        .msync(&["--sync", "-r", "-v", "--exclude=*.tmp"])
        .exits(0)
        .out;
    assert!(
        out.contains("delete mk2:sub/x\n") && !out.contains("keep"),
        "{out}"
    );
    assert!(old.base(1).join("sub/keep.tmp").exists() && !old.base(1).join("sub/x").exists());

    let script = old.lab.path("script");
    write(&script, "loglevel 1\nsend hoge.html\n\nsend 'nosuch'\n");
    let ran = old.msync(&["-f", script.to_str().expect("UTF-8")]).exits(1);
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("", "error: No such file or directory nosuch\n")
    );
    let piped = format!(
        "printf 'loglevel 2\\r\\nsend -n hoge.html\\r\\n' | {}/msync -f -",
        old.lab.path("").display()
    );
    let ran = Running::start(old.place(0).command("sh").args(["-c", &piped]))
        .wait()
        .exits(0);
    assert_eq!(
        ran.out,
        ["mk2", "mk3", "mk4"]
            .map(|host| format!("(dryrun) skip   {host}:hoge.html\n"))
            .concat()
    );
    for (path, why) in [
        ("../x", "outside the base directory"),
        ("/etc/passwd", "outside the base directory"),
    ] {
        let ran = old.msync(&[path]).exits(1);
        assert!(
            ran.err.starts_with("error: ") && ran.err.contains(why) && ran.err.lines().count() == 1,
            "{ran}"
        );
    }
    write(&base.join("a1.txt"), "1");
    write(&base.join("a2.txt"), "2");
    write(&script, "/a2.txt\n");
    let from = format!("--exclude-from={}", script.display());
    assert_eq!(
        old.msync(&["-v", &from, "-t", "mk2", "a*.txt"])
            .exits(0)
            .out,
        "update mk2:a1.txt\n"
    );
    assert_eq!(
        old.msync(&["-v", "-t", "mk2", "a*.txt"]).exits(0).out,
        "update mk2:a2.txt\n"
    );

    // The daemon is gone: one line of error, and a non-zero exit code.
    old.stop(0);
    let ran = old.msync(&["-r"]).exits(1);
    assert!(
        ran.err
            .starts_with("error: can't connect tcp:127.0.0.1:5000")
            && ran.err.lines().count() == 1,
        "{ran}"
    );
}

#[test]
fn four_hosts() {
    let Some(mut old) = Old::network(4) else {
        return;
    };

    (0..4).for_each(|host| old.start(host, &[]));
    assert_eq!(
        old.log(0).matches("traffic is plain").count(),
        1,
        "{}",
        old.log(0)
    );
    as_the_old_readme_has_it(&mut old);
}

#[test]
fn four_hosts_with_a_user_and_confined() {
    let Some((uid, gid)) = www_data() else { return };
    let Some(mut old) = Old::network(4) else {
        return;
    };

    (0..4).for_each(|host| {
        old.start(
            host,
            &["-u", "www-data", "-g", "www-data", "-G", "daemon,adm"],
        )
    });

    let groups: Vec<String> = ["daemon", "adm"]
        .iter()
        .filter_map(|name| Some(Group::from_name(name).ok()??.gid.to_string()))
        .collect();

    for host in 0..4 {
        let process = old.pid(host);
        assert_eq!(
            status(process, "Uid"),
            [uid; 4].map(|n| n.to_string()).join(" ")
        );
        assert_eq!(
            status(process, "Gid"),
            [gid; 4].map(|n| n.to_string()).join(" ")
        );
        let has = status(process, "Groups");
        assert!(
            groups
                .iter()
                .all(|group| has.split(' ').any(|g| g == group)),
            "{has}"
        );
        assert_eq!(status(process, "NoNewPrivs"), "1");
        assert!(!old.log(host).contains("not confined"), "{}", old.log(host));
    }

    as_the_old_readme_has_it(&mut old);
}

/// Makes a group key.
fn group_key(old: &Old, name: &str) -> String {
    let path = old.lab.path(name).to_str().expect("UTF-8").to_string();
    let mut command = old.lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
    Running::start(command.args(["keygen", "--group", "-o", &path]))
        .wait()
        .exits(0);
    path
}

#[test]
fn four_hosts_with_a_group_key() {
    let Some(mut old) = Old::network(4) else {
        return;
    };
    let key = group_key(&old, "group.key");
    let user: &[&str] = if www_data().is_some() {
        &["-u", "www-data", "-g", "www-data"]
    } else {
        &[]
    };
    (0..4).for_each(|host| old.start(host, &[user, &["-k", &key]].concat()));
    assert!(!old.log(0).contains("traffic is plain"), "{}", old.log(0));
    let capture = Capture::start(old.place(1))
        .map_err(|why| skipped(&why))
        .ok();
    as_the_old_readme_has_it(&mut old);
    if let Some(capture) = capture {
        let packets = capture.finish();
        assert!(packets.len() > 100, "{} packets", packets.len());
        for name in ["hoge.html", "mk1", "mk2", "default"] {
            let says = |p: &&support::Packet| {
                p.head
                    .windows(name.len())
                    .any(|bytes| bytes == name.as_bytes())
            };
            assert_eq!(
                packets.iter().filter(says).count(),
                0,
                "{name} is on the network"
            );
        }
    }
    // A host without the key is not a member, and receives no readable data.
    old.start(0, user);
    until("a word about it", || {
        old.log(1).contains("speaks without a group key")
    });
    assert_eq!(old.msync(&["--members"]).exits(0).out, "Total: 0 members\n");
    let ran = old.msync(&["-r"]).exits(1);
    assert!(
        ran.err.starts_with("error: no hosts answered") && ran.err.lines().count() == 1,
        "{ran}"
    );
    // A key in the old format is rejected.
    write(&old.lab.path("old.key"), "sesame\n");
    let bad = old.lab.path("old.key").to_str().expect("UTF-8").to_string();
    std::fs::set_permissions(&bad, std::fs::Permissions::from_mode(0o600)).expect("mine");
    old.stop(0);
    let ran = Running::start(&mut old.command(0, &["-n", "-k", &bad]))
        .wait()
        .exits(2);
    assert!(
        ran.err
            .lines()
            .last()
            .is_some_and(|l| l.contains("is not a group key")),
        "{ran}"
    );
}

#[test]
fn group_keys_change_while_sends_go_on() {
    let Some(mut old) = Old::network(3) else {
        return;
    };

    let (one, two) = (group_key(&old, "one"), group_key(&old, "two"));
    let (before, after) = (read(Path::new(&one)), read(Path::new(&two)));
    (0..3).for_each(|host| old.start(host, &["-k", &one, "-k", &two]));
    old.know_each_other(None);
    let (ending, sends) = (AtomicBool::new(false), AtomicUsize::new(0));
    let old = &old;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !ending.load(Ordering::Relaxed) {
                let number = sends.load(Ordering::Relaxed);
                write(&old.base(0).join("page"), format!("number {number}"));
                let ran = old.msync(&["-v", "page"]).exits(0);
                assert_eq!(ran.out, "update mk2:page\nupdate mk3:page\n", "{ran}");
                sends.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more_sends = || {
            let now = sends.load(Ordering::Relaxed);
            until("two more sends", || {
                sender.is_finished() || sends.load(Ordering::Relaxed) > now + 1
            });
        };
        let reload = || {
            let said = |host| {
                old.log(host)
                    .matches("datagrams are sealed with the first of")
                    .count()
            };
            for host in 0..3 {
                let before = said(host);
                kill(old.pid(host), Signal::SIGHUP).expect("runs");
                until("the new keys", || said(host) > before);
            }
            more_sends();
        };
        more_sends();
        // The new key seals while both keys open; then only the new key is left.
        write(Path::new(&one), &after);
        write(Path::new(&two), &before);
        reload();
        write(Path::new(&two), &after);
        reload();
        ending.store(true, Ordering::Relaxed);
        sender.join().expect("all sends went well");
    });

    assert_eq!(
        read(&old.base(2).join("page")),
        read(&old.base(0).join("page"))
    );
}

#[test]
fn who_does_not_send_and_who_does_not_receive() {
    let Some(mut old) = Old::loopback(3) else {
        return;
    };
    let socket = |old: &Old, host| old.dir(host).join("console");
    for (host, flag) in [(0, "-d9"), (1, "-r"), (2, "-s")] {
        let at = socket(&old, host).to_str().expect("UTF-8").to_string();
        write(&old.base(host).join(format!("of{host}")), "x");
        old.start(host, &["-U", &at, flag]);
    }
    old.know_each_other(Some(&socket(&old, 0)));
    let msync = |host, args: &[&str]| old.msync_at(host, Some(&socket(&old, host)), args);
    assert_eq!(msync(0, &["-v", "-r"]).exits(0).out, "update mk3:of0\n");
    assert!(!old.base(1).join("of0").exists() && old.base(2).join("of0").exists());
    assert_eq!(
        msync(1, &["-v", "-r"]).exits(0).out,
        "update mk1:of1\nupdate mk3:of1\n"
    );
    assert_eq!(
        msync(2, &["-r"]).exits(1).err,
        "error: this server can't send\n"
    );
    assert_eq!(msync(2, &["--check", "of2"]).exits(1).out, "mk1: NG of2\n");
    assert!(old.log(0).contains("DEBUG") && !old.log(1).contains("DEBUG"));
}

#[test]
fn only_what_the_user_owns_is_sent() {
    let Some((uid, gid)) = www_data() else { return };
    let Some(mut old) = Old::loopback(2) else {
        return;
    };
    let socket = old.lab.path("console");
    old.start(
        0,
        &[
            "-U",
            socket.to_str().expect("UTF-8"),
            "-O",
            "-u",
            "www-data",
            "-g",
            "www-data",
        ],
    );
    old.start(1, &["-o"]);
    let meta = std::fs::metadata(&socket).expect("there");
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o777),
        (uid, gid, 0o660),
        "the console is the user's"
    );
    for (file, owner) in [("mine", uid), ("theirs", 1), ("roots", 0)] {
        write(&old.base(0).join(file), file);
        chown(old.base(0).join(file), Some(owner), Some(0)).expect("root may");
    }
    write(&old.base(1).join("theirs"), "an older one");
    old.know_each_other(Some(&socket));
    let msync = |args: &[&str]| old.msync_at(0, Some(&socket), args).exits(0).out;
    assert_eq!(msync(&["-v", "-r"]), "update mk2:mine\n");
    assert_eq!(msync(&["--sync", "-v", "-r"]), "");
    assert_eq!(read(&old.base(1).join("theirs")), b"an older one");
    assert!(!old.base(1).join("roots").exists());
}

#[test]
fn the_rate_has_a_ceiling() {
    let Some(mut old) = Old::network(2) else {
        return;
    };
    write(&old.base(0).join("big"), Noise::new(5).bytes(1 << 20));
    old.start(0, &["-T", "8"]);
    old.start(1, &[]);
    old.know_each_other(None);
    let Ok(capture) = Capture::start(old.place(0)).map_err(|why| skipped(&why)) else {
        return;
    };
    old.msync(&["-r"]).exits(0);
    let mut packets = capture.finish();
    packets.retain(|packet| packet.outgoing);
    assert!(packets.iter().map(support::Packet::wire).sum::<usize>() > 1 << 20);
    // Control datagrams, such as beacons, come on top.
    assert!(pace(&packets, 8).window < 1.1, "{:?}", pace(&packets, 8));
}

#[test]
fn other_addresses_and_ports() {
    let Some(mut old) = Old::loopback(3) else {
        return;
    };

    let port = fastrand::u16(32_000..40_000);
    let number = port.to_string();
    let password = old.lab.path("password");
    write(&password, "sesame\n");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("mine");
    let password = password.to_str().expect("UTF-8").to_string();
    let network = ["-p", &number, "-i", "127.0.0.1"];

    old.start(
        0,
        &[
            &network[..],
            &["-l", "127.0.0.2", "-K", &password, "-m", "239.77.0.1"],
        ]
        .concat(),
    );

    old.start(1, &[&network[..], &["-m", "239.77.0.1", "-o"]].concat());
    old.start(2, &[&network[..], &["-o"]].concat());
    let console = format!("tcp:127.0.0.2:{port}");
    let members = || {
        old.msync(&["-c", &console, "-K", &password, "--members"])
            .exits(0)
            .out
    };

    until("the other one of its group", || {
        members().contains("Total: 1 members")
    });
    assert!(members().starts_with("mk2 "), "{}", members());
    let ran = Running::start(&mut old.command(0, &["-n", "-l", "0.0.0.0"]))
        .wait()
        .exits(2);

    assert!(
        ran.err.contains("other machines reach") && ran.err.lines().count() == 1,
        "{ran}"
    );
}

#[test]
fn confined_means_confined() {
    let Some(mut old) = Old::loopback(2) else {
        return;
    };
    (0..2).for_each(|host| old.top(host, "sandbox = \"off\""));
    old.start(0, &["-o"]);
    assert_eq!(
        status(old.pid(0), "NoNewPrivs"),
        "0",
        "without -c it is as the configuration says"
    );
    let ran = Running::start(&mut old.command(1, &["-n", "-c", "-b", "/nowhere"])).wait();
    if ran.err.contains("no Landlock") {
        return skipped("this kernel has no Landlock");
    }
    old.start(1, &["-c", "-o"]);
    // The socket takes connections before the daemon confines itself and serves them.
    until("a confined daemon", || {
        status(old.pid(1), "NoNewPrivs") == "1"
    });
    // The daemon still accepts transfers.
    write(&old.base(0).join("sub/page"), "x");
    until("a send", || old.makuo(0, &["send", "-r", "."]).code == 0);
    assert_eq!(read(&old.base(1).join("sub/page")), b"x");
    // An exchange of the whole base would need the parent directory, which the daemon cannot write
    // to.
    let site = old.base(0);
    write(
        &old.lab.path("www.toml"),
        format!("source = {site:?}\n[commit]\nlayout = \"swap\"\n[targets]\nhosts = [\"mk2\"]\n"),
    );
    let ran = old.lab.makuo(&["deploy", "www.toml"]).exits(3);
    assert!(
        format!("{ran}").contains("be exchanged as a whole"),
        "{ran}"
    );
}

#[test]
fn it_lets_go_of_the_terminal() {
    let Some(old) = Old::loopback(1) else { return };
    let ran = Running::start(&mut old.command(0, &["-f", "5", "-R", "1000", "-S", "1000", "-C"]))
        .wait()
        .exits(0);
    let process = ran
        .err
        .lines()
        .find_map(|l| l.strip_prefix("pid       : "))
        .expect("a process");

    let process = Pid::from_raw(process.trim().parse().expect("a number"));
    for flag in ["-f", "-R", "-S", "-C"] {
        assert_eq!(
            ran.err
                .matches(&format!("{flag} has no meaning any more"))
                .count(),
            1,
            "{ran}"
        );
    }

    assert!(ran.err.contains(&format!("makuosan[{process}]: ")), "{ran}");
    assert!(
        ran.err.contains(&format!("started, pid {process}")),
        "{ran}"
    );
    let stat = String::from_utf8(read(Path::new(&format!("/proc/{process}/stat")))).expect("text");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();

    assert_eq!(
        fields[3],
        process.to_string(),
        "a session of its own: {stat}"
    );

    assert_eq!(
        std::fs::read_link(format!("/proc/{process}/cwd")).expect("mine"),
        Path::new("/")
    );

    // A second daemon for the same base reports the conflict.
    let ran = Running::start(&mut old.command(0, &[])).wait();
    assert!(
        ran.code != 0 && ran.err.contains("another makuo daemon serves"),
        "{ran}"
    );
    kill(process, Signal::SIGTERM).expect("mine");

    until("its end", || !old.control(0).exists());
    // The started process reports impossible settings.
    let ran = Running::start(&mut old.command(0, &["-u", "no-such-user"]))
        .wait()
        .exits(2);
    assert!(
        ran.err.contains("no user") && !ran.err.contains("pid       :"),
        "{ran}"
    );

    for (args, code, word) in [(["-V"], 0, "makuosan"), (["-h"], 0, "-b"), (["-x"], 2, "")] {
        let ran = Running::start(&mut old.command(0, &args))
            .wait()
            .exits(code);
        assert!(ran.out.contains(word), "{ran}");
    }
}

#[test]
fn the_systems_log_has_its_lines() {
    if !is_root() {
        return skipped("a /dev of its own needs root");
    }

    let Some(old) = Old::loopback(1) else { return };
    let log = UnixDatagram::bind(old.lab.path("devlog")).expect("new");
    let dev = format!(
        "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && \
         ln -s {} /dev/log && exec \"$@\" 2>/dev/null",
        old.lab.path("devlog").display()
    );

    let daemon = old.command(0, &["-o"]);
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-m", "sh", "-c", &dev, "sh"])
        .arg(daemon.get_program())
        .args(daemon.get_args());
    command
        .env_remove("MAKUO_CONFIG")
        .env_remove("NOTIFY_SOCKET");

    let ran = Running::start(&mut command).wait();
    if ran.err.contains("unshare") || ran.err.contains("mount:") {
        return skipped(format!("no /dev of its own: {ran}"));
    }

    ran.exits(0);
    let mut line = [0; 2000];
    log.set_nonblocking(true).expect("possible");
    let mut said = Vec::new();
    until("a line in the log", || {
        said.extend(
            log.recv(&mut line)
                .ok()
                .map(|len| String::from_utf8_lossy(&line[..len]).into_owned()),
        );
        said.iter().any(|line| line.contains("pid "))
    });

    let started = said
        .iter()
        .find_map(|line| line.strip_prefix("<30>makuosan["))
        .expect("its form");
    let process: i32 = started
        .split(']')
        .next()
        .and_then(|p| p.parse().ok())
        .expect("a number");

    assert!(
        said.iter()
            .any(|line| line.ends_with(&format!("pid {process}"))),
        "{said:?}"
    );

    kill(Pid::from_raw(process), Signal::SIGTERM).expect("mine");
    until("its end", || !old.control(0).exists());
}
