//! Content of packages: files exist, scripts and units are valid, the SysV script starts and stops
//! a daemon, and the .deb, if it can be built, is installed and purged.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::skipped;
use crate::support::{self, run::try_tool};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the test binary, without debug information if that can be stripped.
fn small(dir: &Path) -> PathBuf {
    let small = dir.join("makuo");
    match try_tool(
        Command::new("strip")
            .arg("-o")
            .arg(&small)
            .arg(env!("CARGO_BIN_EXE_makuo")),
    ) {
        Ok(_) => small,
        Err(_) => env!("CARGO_BIN_EXE_makuo").into(),
    }
}

/// Returns source and destination of every file, for both kinds of packages.
pub(super) fn assets() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let cargo: toml::Table = text.parse().expect("TOML");
    let metadata = &cargo["package"]["metadata"];
    let text = |value: &toml::Value| value.as_str().expect("text").to_string();
    let deb = metadata["deb"]["assets"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|a| (text(&a[0]), text(&a[1])));
    let rpm = metadata["generate-rpm"]["assets"]
        .as_array()
        .expect("a list");
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
                .any(|e| {
                    e.expect("readable")
                        .file_name()
                        .to_string_lossy()
                        .ends_with(end)
                }),
        };
        assert!(there, "{source}");
    }

    // The old names link to the command, relative to the unpacked package.
    for (link, target) in [("msync", "makuo"), ("makuosan", "../bin/makuo")] {
        let found = std::fs::read_link(root().join("packaging/links").join(link)).expect("a link");
        assert_eq!(found, Path::new(target));
    }
}

/// Returns the installed path of every file of one kind of package, with the files that a pattern names.
fn installed(metadata: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let cargo: toml::Table = text.parse().expect("TOML");
    let assets = cargo["package"]["metadata"][metadata]["assets"]
        .as_array()
        .expect("a list");
    let text = |value: &toml::Value| value.as_str().expect("text").to_string();
    let mut all = BTreeSet::new();
    for asset in assets {
        let (source, dest) = match asset {
            toml::Value::Array(parts) => (text(&parts[0]), format!("/{}", text(&parts[1]))),
            table => (text(&table["source"]), text(&table["dest"])),
        };
        let (dir, name) = source.rsplit_once('/').unwrap_or((".", &source));
        let names: Vec<String> = match name.strip_prefix('*') {
            None => vec![name.to_string()],
            Some(end) => std::fs::read_dir(root().join(dir))
                .expect("readable")
                .map(|entry| {
                    entry
                        .expect("readable")
                        .file_name()
                        .into_string()
                        .expect("UTF-8")
                })
                .filter(|name| name.ends_with(end))
                .collect(),
        };
        for name in names {
            all.insert(if dest.ends_with('/') {
                format!("{dest}{name}")
            } else {
                dest.clone()
            });
        }
    }

    all
}

/// Where the kinds of packages differ on purpose: links are made by a script of the .rpm, and the
/// directories of settings and of zsh have other names there.
#[test]
fn both_kinds_of_packages_install_the_same_files() {
    let deb: BTreeSet<String> = installed("deb")
        .into_iter()
        .filter(|path| !path.ends_with("bin/msync") && !path.ends_with("bin/makuosan"))
        .map(|path| path.replace("/etc/default/", "/etc/sysconfig/"))
        .map(|path| path.replace("/zsh/vendor-completions/", "/zsh/site-functions/"))
        .collect();
    assert!(deb.len() > 60, "{deb:?}");
    assert_eq!(deb, installed("generate-rpm"));

    let script = std::fs::read_to_string(root().join("packaging/rpm/post")).expect("readable");
    for link in ["/usr/bin/msync", "/usr/sbin/makuosan"] {
        assert!(script.contains(&format!(" {link}\n")), "{link}");
    }
}

/// rpm knows no hyphen in a version, so the list has it once more.
#[test]
fn the_rpm_has_the_version_of_the_source() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let cargo: toml::Table = text.parse().expect("TOML");
    let version = cargo["package"]["metadata"]["generate-rpm"]["version"].as_str();
    assert_eq!(
        version,
        Some(env!("CARGO_PKG_VERSION").replace('-', "~").as_str())
    );
}

#[test]
fn scripts_and_units_are_legal() {
    for script in ["deb/postinst", "deb/prerm", "deb/postrm", "makuosan.sysv"] {
        let path = root().join("packaging").join(script);
        assert!(
            std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o111
                != 0,
            "{script}"
        );
        try_tool(Command::new("sh").arg("-n").arg(&path)).expect(script);
    }

    for script in ["rpm/post", "rpm/preun", "rpm/postun"] {
        try_tool(
            Command::new("sh")
                .arg("-n")
                .arg(root().join("packaging").join(script)),
        )
        .expect(script);
    }

    let daemon = &["WatchdogSec=", "ExecStart=/usr/bin/makuo daemon --config "][..];
    let watch = &[
        "ProtectSystem=strict\n",
        "ExecStart=/usr/bin/makuo watch /etc/makuo/watch/%i.toml\n",
    ][..];

    for (unit, lines) in [
        ("makuo.service", daemon),
        ("makuo@.service", daemon),
        ("makuo-watch@.service", watch),
    ] {
        let text = std::fs::read_to_string(root().join("packaging").join(unit)).expect("there");
        for line in [
            "Type=notify\n",
            "NoNewPrivileges=yes\n",
            "\nTasksMax=",
            "\nMemoryMax=",
            "\nLimitCORE=0\n",
        ]
        .iter()
        .chain(lines)
        {
            assert!(text.contains(line), "{unit}: {line}");
        }
        let sections: Vec<&str> = text.lines().filter(|l| l.starts_with('[')).collect();
        assert_eq!(sections, ["[Unit]", "[Service]", "[Install]"]);
    }
}

#[test]
fn units_are_exposed_no_more_than_they_say() {
    for (unit, says, most) in [
        ("makuo.service", "rates the unit 3.5, OK", "38"),
        ("makuo@.service", "rates the unit 3.5, OK", "38"),
        ("makuo-watch@.service", "rates the unit 2.3, OK", "26"),
    ] {
        let path = root().join("packaging").join(unit);
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.contains(says), "{unit}");
        let mut command = Command::new("systemd-analyze");
        // The score differs slightly between versions of systemd.
        command
            .args([
                "security",
                "--offline=true",
                "--no-pager",
                &format!("--threshold={most}"),
            ])
            .arg(&path);
        match command.output() {
            Err(e) => return skipped(format!("systemd-analyze: {e}")),
            Ok(told) => {
                let said = String::from_utf8_lossy(&told.stdout).into_owned()
                    + &String::from_utf8_lossy(&told.stderr);
                if !said.contains("Overall exposure level") {
                    return skipped(format!("systemd-analyze cannot say: {said}"));
                }
                assert!(told.status.success(), "{said}");
            }
        }
    }
}

#[test]
fn units_are_what_systemd_understands() {
    if let Err(why) = try_tool(Command::new("systemd-analyze").arg("--version")) {
        return skipped(format!("no systemd here: {why}"));
    }

    let dir = tempfile::tempdir().expect("a directory");
    for (unit, name) in [
        ("makuo.service", "makuo.service"),
        ("makuo@.service", "makuo@one.service"),
        ("makuo-watch@.service", "makuo-watch@one.service"),
        (PULL_UNIT, "makuo-pull@www.service"),
    ] {
        let text = std::fs::read_to_string(root().join("packaging").join(unit)).expect("there");
        let path = dir.path().join(name);
        std::fs::write(
            &path,
            text.replace("/usr/bin/makuo", env!("CARGO_BIN_EXE_makuo")),
        )
        .expect("writable");
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&path)
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&verified.stderr);
        // Units of the machine may cause warnings of their own.
        let about_us: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(
            verified.status.success() && about_us.is_empty(),
            "{unit}: {said}"
        );
    }
}

const PULL_UNIT: &str = "repository/makuo-pull@.service";

#[test]
fn a_pull_at_boot_is_not_repeated_where_that_is_in_vain() {
    let text = std::fs::read_to_string(root().join("packaging").join(PULL_UNIT)).expect("there");
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(key));
        lines.next().expect(key).to_string()
    };
    assert_eq!(value("Restart="), "on-failure");
    assert!(!value("TimeoutStartSec=").is_empty());
    let final_codes = value("RestartPreventExitStatus=");

    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(path("empty")).expect("writable");
    std::fs::write(path("keys"), "").expect("writable");
    let pull = |url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_makuo"));
        let keys = path("keys");
        let tree = path("tree");
        command.args(["pull", url, "www", &tree, "--authorized-keys", &keys]);
        let ran = command.output().expect("runs");
        (ran.status.code().expect("no signal").to_string(), ran)
    };

    for (url, kind) in [
        ("nonsense://x".to_string(), "2"),
        (format!("file://{}", path("empty")), "3"),
    ] {
        let (code, ran) = pull(&url);
        assert_eq!(code, kind, "{url}: {ran:?}");
        assert!(final_codes.split(' ').any(|code| code == kind), "{kind}");
    }
    // Somebody else's fault may pass.
    assert!(final_codes.split(' ').all(|code| code != "1"));
}

#[test]
fn a_static_build_is_packed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("sh");
    command
        .arg(root().join("packaging/tarball"))
        .arg(small(dir.path()));
    let said = try_tool(command.env("CARGO_TARGET_DIR", dir.path().join("build"))).expect("packs");
    let to = dir.path().join("local");

    std::fs::create_dir(&to).expect("new");
    let unpack = ["--strip-components=1", "-xzf", said.trim()];
    try_tool(Command::new("tar").arg("-C").arg(&to).args(unpack)).expect("unpacks");

    for (name, flag, word) in [
        ("bin/makuo", "--version", "makuo "),
        ("bin/msync", "--version", "msync "),
    ] {
        let out = try_tool(Command::new(to.join(name)).arg(flag)).expect("runs");
        assert!(out.starts_with(word), "{out}");
    }

    assert!(
        try_tool(Command::new(to.join("sbin/makuosan")).arg("-V"))
            .expect("runs")
            .starts_with("makuosan ")
    );

    let unit = std::fs::read_to_string(to.join("lib/systemd/system/makuo.service")).expect("there");
    assert!(
        unit.contains("\nExecStart=/usr/local/bin/makuo daemon"),
        "{unit}"
    );

    // This installation has every file of the package.
    for (_, dest) in assets()
        .iter()
        .filter(|(_, dest)| dest.starts_with("/usr/share/man/") && dest.ends_with(".1"))
    {
        assert!(to.join(dest.trim_start_matches("/usr/")).exists(), "{dest}");
    }

    for file in [
        "share/man/man5/makuo.toml.5",
        "share/bash-completion/completions/makuo",
        "share/doc/makuo/makuo.toml",
        "share/doc/makuo/guide/repository.md",
        "share/doc/makuo/repository/README.md",
    ] {
        assert!(to.join(file).exists(), "{file}");
    }
}

#[test]
fn the_configuration_that_is_installed_is_legal() {
    let path = root().join("packaging/makuo.toml");
    let check = |path: &Path| {
        try_tool(
            Command::new(env!("CARGO_BIN_EXE_makuo"))
                .args(["check", "--elsewhere"])
                .arg(path),
        )
    };

    check(&path).expect("legal");
    // Also with all examples enabled.
    let text = std::fs::read_to_string(&path).expect("readable");
    let on = |line: &str| {
        line.strip_prefix('#')
            .filter(|l| l.contains(" = ") || l.starts_with('['))
            .map(String::from)
    };

    let mut lines: Vec<String> = text
        .lines()
        .map(|l| on(l).unwrap_or_else(|| l.to_string()))
        .collect();
    lines.retain(|l| l != "listen = \"off\"");
    let dir = tempfile::tempdir().expect("a directory");
    let all = dir.path().join("makuo.toml");

    std::fs::write(&all, lines.join("\n")).expect("writable");
    check(&all).expect("legal");
}

/// The page is written by hand and must contain every key.
#[test]
fn the_page_of_the_configuration_names_every_key() {
    let page = std::fs::read_to_string(root().join("packaging/man/makuo.toml.5")).expect("there");
    let words: Vec<&str> = page
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .collect();

    for key in makuo::config::CONFIG_KEYS {
        let name = key.rsplit('.').next().expect("a name");
        assert!(words.contains(&name), "{key}");
    }
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
        command
            .arg(root().join("packaging/makuosan.sysv"))
            .arg(word);
        command
            .env("DAEMON", at("makuosan"))
            .env("PIDFILE", at("pid"))
            .env("MAKUOSAN_BASE", at("base"));
        command
            .env("MAKUO_CONFIG", at("makuo.toml"))
            .env("OPTIONS", "-o")
            .env_remove("NOTIFY_SOCKET");
        command.output().expect("sh")
    };

    assert_eq!(script("status").status.code(), Some(3));
    let started = script("start");
    assert!(started.status.success(), "{started:?}");
    let pid: u32 = std::fs::read_to_string(at("pid"))
        .expect("there")
        .trim()
        .parse()
        .expect("a number");

    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(
        script("status").status.success()
            && script("reload").status.success()
            && script("start").status.success()
    );

    assert!(script("stop").status.success());
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists() && !at("control").exists());
    assert_eq!(script("status").status.code(), Some(3));
}

/// Builds the package: by cargo-deb if installed and MAKUO_RELEASE is set (a release build),
/// otherwise by dpkg-deb from the same list and the test binary.
fn deb(dir: &Path) -> Result<PathBuf, String> {
    let deb = dir.join("makuo.deb");
    if std::env::var_os("MAKUO_RELEASE").is_some() {
        try_tool(
            Command::new("cargo")
                .args(["deb", "--output"])
                .arg(&deb)
                .current_dir(root()),
        )?;
        return Ok(deb);
    }

    let tree = dir.join("tree");
    for (source, dest, mode) in deb_assets() {
        let source = match source.as_str() {
            "target/release/makuo" => small(dir).to_str().expect("UTF-8").to_string(),
            _ => root().join(source).to_str().expect("UTF-8").to_string(),
        };
        let script = "set -e; for f in $1; do case $2 in */) to=$2${f##*/};; *) to=$2;; esac; \
                      mkdir -p \"${to%/*}\"; cp -d \"$f\" \"$to\"; test -h \"$to\" || chmod $3 \"$to\"; done";
        let to = format!("{}/{dest}", tree.display());
        try_tool(Command::new("sh").args(["-c", script, "sh", &source, &to, &mode]))?;
    }

    let control = tree.join("DEBIAN");
    std::fs::create_dir_all(&control).map_err(|e| e.to_string())?;
    let version = env!("CARGO_PKG_VERSION").replace('-', "~");
    let text = format!(
        "Package: makuo\nVersion: {version}-1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"
    );
    let files = [
        ("control", text.as_str()),
        (
            "conffiles",
            "/etc/makuo/makuo.toml\n/etc/default/makuosan\n",
        ),
    ];

    for (name, text) in files {
        std::fs::write(control.join(name), text).map_err(|e| e.to_string())?;
    }

    for script in ["postinst", "prerm", "postrm"] {
        let from = root().join("packaging/deb").join(script);
        std::fs::copy(from, control.join(script)).map_err(|e| e.to_string())?;
    }

    try_tool(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "--build"])
            .arg(&tree)
            .arg(&deb),
    )?;

    Ok(deb)
}

/// Returns source, destination and mode of each file in the .deb.
fn deb_assets() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let cargo: toml::Table = text.parse().expect("TOML");
    let assets = cargo["package"]["metadata"]["deb"]["assets"]
        .as_array()
        .expect("a list")
        .clone();
    let text = |value: &toml::Value| value.as_str().expect("text").to_string();

    assets
        .iter()
        .map(|a| (text(&a[0]), text(&a[1]), text(&a[2])))
        .collect()
}

/// Script that uses the package, in a temporary copy of this system.
const USE: &str = r#"
export HOME=/tmp
all() { find /etc /home /opt /root /srv /usr /var /run -xdev | sort; }
all >/tmp/before
dpkg -i /tmp/makuo.deb
makuo --version; msync --version; makuosan -V
ls /usr/share/man/man5/makuo.toml.5* /usr/share/man/man1/msync.1* /usr/lib/systemd/system/makuo@.service
getent group makuo
getent passwd makuo
makuo check --elsewhere /etc/makuo/makuo.toml
mkdir /srv/www
printf '[[tree]]\nname = "www"\npath = "/srv/www"\n' >>/etc/makuo/makuo.toml
sed -i 's/^\[network\]/[network]\ninterface = "lo"/; s/^#socket_group/socket_group/' /etc/makuo/makuo.toml
makuo keygen -o /etc/makuo/sender.key >/etc/makuo/authorized_keys
makuo keygen --group -o /etc/makuo/group.key
ip link set lo up
makuo check /etc/makuo/makuo.toml
$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/makuo.service) &
daemon=$!
for i in $(seq 100); do test -S /run/makuo/makuo.sock && break; sleep 0.1; done
test "$(stat -c %a:%G /run/makuo/makuo.sock)" = 660:makuo
makuo complete trees | grep -x www
mkdir /tmp/site; echo hello >/tmp/site/page
printf 'tree = "www"\nsource = "site"\n' >/tmp/www.toml
makuo deploy --key /etc/makuo/sender.key --expect 1 /tmp/www.toml
test "$(cat /srv/www/page)" = hello
makuo diff --key /etc/makuo/sender.key /tmp/www.toml
makuo status www
MAINPID=$daemon sh -c "$(sed -n 's/^ExecReload=//p' /usr/lib/systemd/system/makuo.service)"
kill -TERM $daemon; wait $daemon
test ! -e /run/makuo/makuo.sock
dpkg -r makuo
test -e /etc/makuo/makuo.toml; test ! -e /usr/bin/makuo
dpkg -P makuo
test ! -e /usr/bin/makuo; test ! -h /usr/bin/msync; test ! -h /usr/sbin/makuosan; test ! -e /etc/makuo/makuo.toml
test "$(cat /srv/www/page)" = hello
# What somebody made stays, and what dpkg and others write down for themselves.
all >/tmp/after
echo left behind:
comm -13 /tmp/before /tmp/after | grep -Ev '^/(srv/(www|\.makuo)(/|$)|etc/makuo(/(sender\.key|sender\.key\.pub|group\.key|authorized_keys))?$|tmp/|var/(lib|cache|log)/(dpkg|debconf|man)|etc/(passwd|shadow|group|gshadow|subuid|subgid)-?$)' || true
echo end of it
echo all is well
"#;

#[test]
fn the_deb_is_installed_used_and_purged() {
    if !support::is_root() {
        return skipped("installing a package needs root");
    }

    if let Err(why) = try_tool(Command::new("dpkg").arg("--version")) {
        return skipped(format!("no dpkg here: {why}"));
    }

    let dir = tempfile::tempdir().expect("a directory");
    let deb = deb(dir.path()).expect("a package");
    std::fs::write(dir.path().join("use"), USE).expect("writable");

    // The installation writes to an overlay above this system's files.
    let script = format!(
        "set -e; cd {}; mkdir layer root; mount -t tmpfs none layer; mkdir layer/u layer/w; \
         mount -t overlay overlay -o lowerdir=/,upperdir=layer/u,workdir=layer/w root; mount -t proc proc root/proc; \
         mount -t tmpfs none root/run; mount -t tmpfs none root/tmp; cp {} use root/tmp/; echo mounted; \
         exec chroot root sh -e /tmp/use",
        dir.path().display(),
        deb.display()
    );

    let mut command = Command::new("unshare");
    command.args(["-m", "-n", "-p", "-f", "--kill-child", "sh", "-c", &script]);
    command
        .env_remove("MAKUO_CONFIG")
        .env_remove("NOTIFY_SOCKET")
        .env("DEBIAN_FRONTEND", "noninteractive");
    let output = command.output().expect("unshare");

    let out = String::from_utf8_lossy(&output.stdout);
    if !out.contains("mounted") {
        return skipped(format!(
            "no layer over this system: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }

    assert!(
        output.status.success() && out.ends_with("all is well\n"),
        "{out}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let left = out
        .split("left behind:\n")
        .nth(1)
        .and_then(|rest| rest.split("end of it\n").next());

    assert_eq!(
        left,
        Some(""),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
