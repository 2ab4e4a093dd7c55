//! What packages install: the files are there, scripts and units are legal, the SysV script starts and stops a daemon,
//! and the .deb, where it can be built, is installed and purged.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::run::try_tool;
use support::skipped;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Source and destination of every file, of both kinds of packages.
fn assets() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let cargo: toml::Table = text.parse().expect("TOML");
    let metadata = &cargo["package"]["metadata"];
    let text = |value: &toml::Value| value.as_str().expect("text").to_string();
    let deb = metadata["deb"]["assets"].as_array().expect("a list").iter().map(|a| (text(&a[0]), text(&a[1])));
    let rpm = metadata["generate-rpm"]["assets"].as_array().expect("a list");
    let rpm = rpm.iter().map(|a| (text(&a["source"]), text(&a["dest"])));
    deb.chain(rpm).collect()
}

#[test]
fn everything_that_is_packed_is_there() {
    for (source, dest) in assets() {
        assert!(dest.starts_with(['/', 'u', 'e']), "{dest}");
        if source.starts_with("target/") {
            continue;
        }
        let (dir, name) = source.rsplit_once('/').unwrap_or((".", &source));
        let there = match name.strip_prefix('*') {
            None => std::fs::symlink_metadata(root().join(&source)).is_ok(),
            Some(end) => std::fs::read_dir(root().join(dir))
                .expect("readable")
                .any(|e| e.expect("readable").file_name().to_string_lossy().ends_with(end)),
        };
        assert!(there, "{source}");
    }
    // The old names lead to the command, wherever the package is unpacked.
    for (link, target) in [("msync", "makuo"), ("makuosan", "../bin/makuo")] {
        let found = std::fs::read_link(root().join("packaging/links").join(link)).expect("a link");
        assert_eq!(found, Path::new(target));
    }
}

#[test]
fn scripts_and_units_are_legal() {
    for script in ["deb/postinst", "deb/prerm", "deb/postrm", "makuosan.sysv"] {
        let path = root().join("packaging").join(script);
        assert!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o111 != 0, "{script}");
        try_tool(Command::new("sh").arg("-n").arg(&path)).expect(script);
    }
    for script in ["rpm/post", "rpm/postun"] {
        try_tool(Command::new("sh").arg("-n").arg(root().join("packaging").join(script))).expect(script);
    }
    for unit in ["makuo.service", "makuo@.service"] {
        let text = std::fs::read_to_string(root().join("packaging").join(unit)).expect("there");
        for line in
            ["Type=notify\n", "WatchdogSec=", "NoNewPrivileges=yes\n", "ExecStart=/usr/bin/makuo daemon --config "]
        {
            assert!(text.contains(line), "{unit}: {line}");
        }
        let sections: Vec<&str> = text.lines().filter(|l| l.starts_with('[')).collect();
        assert_eq!(sections, ["[Unit]", "[Service]", "[Install]"]);
    }
}

#[test]
fn the_configuration_that_is_installed_is_legal() {
    let path = root().join("packaging/makuo.toml");
    let check = |path: &Path| try_tool(Command::new(env!("CARGO_BIN_EXE_makuo")).arg("check").arg(path));
    check(&path).expect("legal");
    // With every example switched on, too.
    let text = std::fs::read_to_string(&path).expect("readable");
    let on = |line: &str| line.strip_prefix('#').filter(|l| l.contains(" = ") || l.starts_with('[')).map(String::from);
    let mut lines: Vec<String> = text.lines().map(|l| on(l).unwrap_or_else(|| l.to_string())).collect();
    lines.retain(|l| l != "listen = \"off\"");
    let dir = tempfile::tempdir().expect("a directory");
    let all = dir.path().join("makuo.toml");
    std::fs::write(&all, lines.join("\n")).expect("writable");
    check(&all).expect("legal");
}

#[test]
fn the_sysv_script_starts_and_stops_a_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_makuo"), at("makuosan")).expect("a link");
    std::fs::create_dir(at("base")).expect("new");
    let port = fastrand::u16(20_000..32_000);
    let config = format!(
        "name = \"sysv\"\nauthorized_keys = {:?}\nsocket = {:?}\n[network]\ninterface = \"lo\"\nport = {port}\n",
        at("keys"),
        at("control")
    );
    std::fs::write(at("makuo.toml"), config).expect("writable");
    let script = |word: &str| {
        let mut command = Command::new("sh");
        command.arg(root().join("packaging/makuosan.sysv")).arg(word);
        command.env("DAEMON", at("makuosan")).env("PIDFILE", at("pid")).env("MAKUOSAN_BASE", at("base"));
        command.env("MAKUO_CONFIG", at("makuo.toml")).env("OPTIONS", "-o").env_remove("NOTIFY_SOCKET");
        command.output().expect("sh")
    };
    assert_eq!(script("status").status.code(), Some(3));
    let started = script("start");
    assert!(started.status.success(), "{started:?}");
    let pid: u32 = std::fs::read_to_string(at("pid")).expect("there").trim().parse().expect("a number");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(script("status").status.success() && script("reload").status.success() && script("start").status.success());
    assert!(script("stop").status.success());
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists() && !at("control").exists());
    assert_eq!(script("status").status.code(), Some(3));
}

/// Takes minutes and a release build: run with `cargo test --test package -- --ignored`.
#[test]
#[ignore = "builds the release and a package"]
fn the_deb_is_installed_used_and_purged() {
    if let Err(why) = try_tool(Command::new("cargo").args(["deb", "--version"])) {
        return skipped(&format!("no cargo-deb: {why}"));
    }
    if !support::is_root() {
        return skipped("installing a package needs root");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let deb = dir.path().join("makuo.deb");
    try_tool(Command::new("cargo").args(["deb", "--output"]).arg(&deb).current_dir(root())).expect("built");
    // This system's files below a layer of their own: what is installed is gone with it.
    let script = format!(
        "set -e; cd {dir}; mkdir upper work root; mount -t tmpfs none upper; mkdir upper/u upper/w; \
         mount -t overlay overlay -o lowerdir=/,upperdir=upper/u,workdir=upper/w root; mount -t proc proc root/proc; \
         cp makuo.deb root/tmp/; chroot root sh -ec 'dpkg -i /tmp/makuo.deb; makuo --version; msync --version; \
         makuosan -V; makuo check /etc/makuo/makuo.toml; test -e /usr/share/man/man5/makuo.toml.5.gz; \
         dpkg -P makuo; ! command -v makuo; test ! -e /etc/makuo/makuo.toml'",
        dir = dir.path().display()
    );
    let done = try_tool(Command::new("unshare").args(["-m", "-p", "-f", "sh", "-c", &script]));
    match done {
        Err(why) if why.contains("mount") => skipped(&why),
        done => drop(done.expect("installed, used and purged")),
    }
}
