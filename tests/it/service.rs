//! The daemon as a service: notifications to the service manager, reloads by SIGHUP, and clean
//! exits at any moment.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::support::{
    self, DELETE, Lab, Noise, append, copy, differences, pause, read, until, write,
};

/// Receiving end of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("new");
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("possible");
        Self(socket)
    }

    /// Returns the next notification other than `but`.
    fn next(&self, but: &str) -> String {
        let mut word = [0; 1000];
        loop {
            let len = match self.0.recv(&mut word) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                len => len.expect("a word"),
            };

            let word = String::from_utf8_lossy(&word[..len]).trim().to_string();
            if word != but {
                return word;
            }
        }
    }
}

#[test]
fn the_service_manager_is_told() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let path = lab.path("manager");
    let manager = Manager::at(&path);
    let log = lab.path("web1/log");
    write(&log, "");
    let meta = std::fs::metadata(&log).expect("just written");
    let host = lab.host("web1");

    // Makes the daemon take its standard error for the journal.
    host.env.push((
        "JOURNAL_STREAM".into(),
        format!("{}:{}", meta.dev(), meta.ino()),
    ));

    host.env
        .push(("NOTIFY_SOCKET".into(), path.to_str().expect("UTF-8").into()));
    host.env.push(("WATCHDOG_USEC".into(), "200000".into()));
    host.start();
    assert_eq!(manager.next("WATCHDOG=1"), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.next(""), "WATCHDOG=1");
    }

    host.reload();
    assert!(manager.next("WATCHDOG=1").starts_with("RELOADING=1"));
    assert_eq!(manager.next("WATCHDOG=1"), "READY=1");
    assert!(host.stop().success());
    assert_eq!(manager.next("WATCHDOG=1"), "STOPPING=1");
    let log = lab.hosts[0].log();

    assert!(
        log.contains("trees www") && log.lines().all(|line| !line.starts_with("20")),
        "no times twice: {log}"
    );
}

#[test]
fn a_daemon_trusts_no_file_that_others_could_have_changed() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let (password, sender) = (lab.path("password"), lab.path("sender"));
    write(&password, "sesame\n");
    std::fs::copy(lab.path("key"), &sender).expect("room");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mine")
    };

    mode(&password, 0o600);
    let host = lab.host("web1");
    host.setting(&format!(
        "[sender]\nkey = {sender:?}\n[console]\npassword = {password:?}"
    ));
    host.start();
    host.kill();

    let files = [
        host.config_path(),
        host.group_key(),
        lab.path("authorized_keys"),
        password,
        sender,
    ];

    // Starts the daemon like the lab does, but waits for its exit.
    let refused = |what: &Path, mends: &str| {
        let mut command = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
        command
            .args(["daemon", "-c"])
            .arg(&files[0])
            .args(lab.admin.flags())
            .env_remove("MAKUO_GROUP_KEY");
        let ran = support::Running::start(&mut command).wait().exits(2);
        let name = std::fs::canonicalize(what)
            .expect("there")
            .display()
            .to_string();
        ran.says(&[&name, "owner ", "mode 0", mends]);
    };

    for file in &files {
        let (dir, before) = (
            file.parent().expect("one"),
            std::fs::metadata(file).expect("there").permissions(),
        );
        mode(file, 0o666);
        refused(file, "chmod go-w");
        mode(file, before.mode());
        let above = std::fs::metadata(dir).expect("there").permissions();
        mode(dir, 0o777);
        refused(dir, "chmod go-w");
        mode(dir, above.mode());
        if support::is_root() {
            chown(file, Some(65_533), None).expect("root may");
            refused(file, "chown -h 0");
            chown(file, Some(0), None).expect("root may");
        }
    }

    for (secret, open) in [(&files[1], 0o604), (&files[3], 0o640), (&files[4], 0o640)] {
        mode(secret, open);
        refused(secret, "chmod 0600");
        mode(secret, 0o600);
    }

    // A reload with such an error keeps the former settings.
    let keys = files[2].clone();
    lab.hosts[0].start();
    mode(&keys, 0o666);
    lab.hosts[0].reload();
    until("the refusal", || {
        lab.hosts[0]
            .log()
            .contains("keeping the old authorized keys")
    });

    write(&lab.site().join("page"), "x");
    lab.deploy(&[]).exits(0);
}

#[test]
fn a_reload_takes_keys_and_says_what_it_does_not_take() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let keys = lab.path("authorized_keys");
    let listed = read(&keys);
    write(&keys, "# nobody\n");
    lab.host("web1").start();
    write(&lab.site().join("page"), "x");
    lab.deploy(&[]).exits(3);
    write(&keys, &listed);

    let host = &lab.hosts[0];
    host.reload();
    until("the key", || host.log().contains(": 1 keys"));
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());

    // Configures another file of keys and a moved tree.
    write(&lab.path("other_keys"), "# nobody\n");
    let config = String::from_utf8(read(&host.config_path())).expect("text");
    let other = config.replace("authorized_keys\"", "other_keys\"");
    assert!(other != config);
    write(&host.config_path(), format!("{other}keep = 9\n"));
    host.reload();

    until("no key", || host.log().contains(": 0 keys"));
    assert!(
        host.log()
            .contains("these changes need a restart: [[tree]] www"),
        "{}",
        host.log()
    );

    append(&lab.site().join("page"), b"y");
    lab.deploy(&[]).exits(3);

    // An invalid file has no effect.
    write(&host.config_path(), "keep = 9\n");
    host.reload();
    until("a word about it", || {
        host.log().contains("keeping the old configuration")
    });
    assert!(host.log().contains("keep"), "{}", host.log());

    until("the keys that it began with", || {
        host.log().matches(": 1 keys").count() > 1
    });

    lab.deploy(&[]).exits(0);
}

#[test]
fn an_end_in_the_middle_of_a_transfer_is_told_and_loses_nothing() {
    let Some(mut lab) = Lab::network(3) else {
        return;
    };

    let site = lab.site();
    write(&site.join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&site, &lab.path("old"));
    write(&site.join("page"), "new");
    let big = 12 << 20;
    write(&site.join("big"), Noise::new(3).bytes(big));

    let mut deploy = lab.start(&[
        "deploy",
        "--json",
        "www.toml",
        "--expect",
        "3",
        "--rate",
        "4MB",
        "--timeout",
        "8s",
    ]);

    deploy.until_event("the middle of the transfer", |event| {
        event["event"] == "progress"
            && event["sent"]
                .as_u64()
                .is_some_and(|sent| sent > big as u64 / 2)
    });

    let ended = lab.hosts[1].stop();
    let log = lab.hosts[1].log();
    assert!(ended.success(), "{ended}: {log}");
    assert!(log.trim_end().ends_with("ended"), "{log}");
    let ran = deploy.wait().exits(3).says(&["web2"]);
    assert_eq!(ran.result()["committed"].as_u64(), Some(0), "{ran}");
    lab.all_same(&lab.path("old"));

    // The host resumes: content already staged is not sent again.
    lab.hosts[1].start();
    let ran = lab.deploy(&[]).exits(0);
    lab.all_same(&site);
    let sent = ran.result()["bytes_sent"].as_u64().expect("a number");
    assert!(
        sent < big as u64 * 3 / 4,
        "{sent} of {big} bytes sent again"
    );

    assert!(
        !lab.hosts[1].log().contains("ERROR"),
        "{}",
        lab.hosts[1].log()
    );
}

#[test]
fn an_end_at_any_moment_leaves_one_release_and_a_whole_journal() {
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };

    let releases = [lab.path("a"), lab.path("b")];
    Noise::new(1).tree(&releases[0], 150, 6000);
    Noise::new(2).tree(&releases[1], 170, 6000);
    lab.spec_of("a", DELETE);
    lab.deploy(&[]).exits(0);
    let (tree, mut now) = (lab.hosts[0].tree(), 0);
    let mut new = 0;

    for round in 0..12u64 {
        lab.spec_of(["b", "a"][now], DELETE);
        // Half of them in the middle of the transfer, half around the commit.
        let early = round % 2 == 0;
        // No host retains this content from an earlier round, so a transfer is needed.
        write(
            &releases[1 - now].join("big"),
            Noise::new(100 + round).bytes(600_000),
        );
        let rate: &[&str] = if early { &["--rate", "1MB"] } else { &[] };
        let mut deploy =
            lab.start(&[&["deploy", "--json", "www.toml", "--timeout", "5s"], rate].concat());
        let awaited = if early { "staging" } else { "ready" };
        deploy.until_event(awaited, |e| e["event"] == "host" && e["state"] == awaited);
        pause(Duration::from_millis(round * 3));
        let ended = lab.hosts[0].stop();
        assert!(
            ended.success(),
            "round {round}: {ended}: {}",
            lab.hosts[0].log()
        );
        // No repair was needed: while the daemon is down, the tree equals one of the two releases.
        let at = releases
            .iter()
            .position(|release| differences(release, &tree).is_empty());
        let at =
            at.unwrap_or_else(|| panic!("round {round}: {}", differences(&releases[now], &tree)));
        let ran = deploy.wait();
        assert_eq!(ran.code == 0, at != now, "the sender was told: {ran}");
        assert!(
            !early || at == now,
            "round {round}: nothing was complete: {ran}"
        );
        new += usize::from(at != now);
        now = at;
        lab.hosts[0].start();
    }

    assert!(new > 0, "a commit that has begun is ended");
    lab.spec_of(["b", "a"][now], DELETE);
    lab.deploy(&[]).exits(0);

    lab.all_same(&releases[1 - now]);
}
