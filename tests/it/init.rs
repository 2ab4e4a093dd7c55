//! `makuo init`: from scratch to a sealed deployment with one file for the hosts, and the limits of
//! such a file.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{self, Lab, Ran, Running, copy, read, same, write};

/// Makes a lab with commands that have no key yet.
fn lab() -> Option<Lab> {
    let lab = Lab::loopback_idle()?;
    std::fs::remove_dir_all(lab.path(".config")).expect("there");
    Some(lab)
}

/// Runs a command without network flags, with the lab's directory as its home.
fn makuo(lab: &Lab, args: &[&str]) -> Ran {
    let mut command = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
    command
        .args(args)
        .current_dir(lab.path(""))
        .env("HOME", lab.path(""));
    for variable in ["MAKUO_CONFIG", "MAKUO_KEY", "MAKUO_GROUP_KEY", "SUDO_UID"] {
        command.env_remove(variable);
    }

    Running::start(&mut command).wait()
}

/// Unpacks `file` for a host with the configuration `dir`/makuo.toml.
fn unpack(lab: &Lab, file: &Path, dir: &str, more: &[&str]) -> Ran {
    let config = lab.path(dir).join("makuo.toml");
    let words = [
        "init",
        "--host",
        file.to_str().expect("UTF-8"),
        "--config",
        config.to_str().expect("UTF-8"),
    ];
    makuo(lab, &[&words, more].concat())
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").mode() & 0o7777
}

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mine");
}

fn host_file(lab: &Lab) -> PathBuf {
    lab.path(".config/makuo/host.toml")
}

/// Makes a host file for the tree www in `DIR/www`.
fn init(lab: &Lab) -> PathBuf {
    let tree = format!("www={}", lab.path("host/www").display());
    makuo(lab, &["init", &tree]).exits(0);
    host_file(lab)
}

#[test]
fn two_commands_and_a_copy_make_a_group_that_deploys() {
    let Some(lab) = lab() else { return };
    let tree = lab.path("host/www");
    let ran = makuo(&lab, &["init", &format!("www={}", tree.display())]).exits(0);
    assert_eq!(ran.out, format!("{}\n", host_file(&lab).display()));
    for name in ["deploy.key", "group.key", "host.toml"] {
        assert_eq!(mode(&lab.path(".config/makuo").join(name)), 0o600, "{name}");
    }

    // The file is readable for people and for TOML parsers.
    let text = String::from_utf8(read(&host_file(&lab))).expect("text");
    let table: toml::Table = text.parse().expect("TOML");
    assert_eq!(table["format"].as_integer(), Some(1));
    assert!(
        table["authorized_keys"]
            .as_str()
            .is_some_and(|t| t.starts_with("tree=\"www\",deploy,audit,rollback "))
    );

    assert_eq!(
        table["group_key"].as_str().map(str::as_bytes),
        Some(&*read(&lab.path(".config/makuo/group.key")))
    );

    let ran = unpack(&lab, &host_file(&lab), "etc/makuo", &[]).exits(0);
    let ran = ran.says(&["wrote", "tree       www in ", "makuo daemon"]);

    assert!(ran.out.is_empty(), "{ran}");
    for (name, wanted) in [
        ("group.key", 0o600),
        ("authorized_keys", 0o644),
        ("makuo.toml", 0o644),
    ] {
        assert_eq!(mode(&lab.path("etc/makuo").join(name)), wanted, "{name}");
    }

    assert_eq!(mode(&lab.path("etc/makuo")), 0o755);
    assert_eq!(
        std::fs::read_dir(lab.path("etc/makuo"))
            .expect("there")
            .count(),
        3,
        "and nothing else"
    );

    // Neither the daemon nor the deployment needs options for keys.
    std::fs::create_dir_all(&tree).expect("mine");

    let mut daemon = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
    let (config, socket) = (lab.path("etc/makuo/makuo.toml"), lab.path("sock"));
    daemon
        .args(["daemon", "-c"])
        .arg(&config)
        .arg("--socket")
        .arg(&socket)
        .args(lab.admin.flags());

    let mut daemon = Running::start(daemon.env_remove("MAKUO_GROUP_KEY"));
    support::until("a daemon that listens", || {
        assert!(!daemon.is_over(), "{}", daemon.talk());
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    assert!(
        daemon.talk().contains("datagrams are sealed"),
        "{}",
        daemon.talk()
    );

    write(&lab.site().join("page"), "hello");
    let flags = lab.admin.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let deploy = ["deploy", "www.toml", "--expect", "1"];
    makuo(&lab, &[&deploy[..], &flags].concat()).exits(0);

    same(&lab.site(), &tree);
}

#[test]
fn what_is_there_stays_unless_a_word_says_otherwise() {
    let Some(lab) = lab() else { return };
    let file = init(&lab);
    let keys = || {
        ["deploy.key", "group.key", "host.toml"]
            .map(|name| read(&lab.path(".config/makuo").join(name)))
    };

    let before = keys();
    init(&lab);
    assert_eq!(keys(), before, "the same again is no change");
    makuo(&lab, &["init", "other=/srv/other"])
        .exits(2)
        .says(&["host.toml exists already", "--force"]);
    assert_eq!(keys(), before);

    makuo(&lab, &["init", "other=/srv/other", "-o", "other.toml"]).exits(0);
    assert_eq!(keys(), before);
    assert!(
        String::from_utf8(read(&lab.path("other.toml")))
            .expect("text")
            .contains("path = \"/srv/other\"")
    );

    unpack(&lab, &file, "etc", &[]).exits(0);

    copy(&lab.path("etc/."), &lab.path("was"));
    unpack(&lab, &file, "etc", &[]).exits(0).says(&["kept"]);
    same(&lab.path("was"), &lab.path("etc"));
    let has = |files: &Path| {
        for name in ["makuo.toml", "group.key", "authorized_keys"] {
            let (wanted, there) = (files.join(name), lab.path("etc").join(name));
            assert_eq!(
                (read(&wanted), mode(&wanted)),
                (read(&there), mode(&there)),
                "{name}"
            );
        }
    };

    // If one target is occupied, none of the three files is written.
    for name in ["makuo.toml", "group.key", "authorized_keys"] {
        std::fs::remove_dir_all(lab.path("etc")).expect("mine");
        std::fs::create_dir(lab.path("etc")).expect("new");
        write(&lab.path("etc").join(name), "# mine\n");
        let said = unpack(&lab, &file, "etc", &[]).exits(2);
        said.says(&[
            name,
            "already has other content: nothing was written",
            "--force",
        ]);
        assert_eq!(read(&lab.path("etc").join(name)), b"# mine\n");
        assert_eq!(
            std::fs::read_dir(lab.path("etc")).expect("there").count(),
            1,
            "{name}"
        );
        unpack(&lab, &file, "etc", &["--force"])
            .exits(0)
            .says(&["wrote"]);
        has(&lab.path("was"));
    }

    // The configuration of a package may be replaced.
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/makuo.toml");
    std::fs::copy(packaged, lab.path("etc/makuo.toml")).expect("room");
    set(&lab.path("etc/makuo.toml"), 0o644);
    unpack(&lab, &file, "etc", &[]).exits(0);
    has(&lab.path("was"));

    // A dangling link.
    std::fs::remove_file(lab.path("etc/group.key")).expect("mine");
    symlink(lab.path("elsewhere"), lab.path("etc/group.key")).expect("new");
    unpack(&lab, &file, "etc", &[]).exits(2);

    assert!(!lab.path("elsewhere").exists());
}

#[test]
fn a_file_that_means_harm_or_that_others_could_have_written_is_refused_whole() {
    let Some(lab) = lab() else { return };
    let file = init(&lab);
    let text = String::from_utf8(read(&file)).expect("text");
    let evil = lab.path("evil.toml");
    let refused = |text: &str, what: &str| {
        write(&evil, text);
        set(&evil, 0o600);
        unpack(&lab, &evil, "etc", &[])
            .exits(2)
            .says(&["evil.toml", what]);
        unpack(&lab, &evil, "etc", &["--force"]).exits(2);
        assert!(!lab.path("etc").exists(), "{what}");
    };

    for (old, new, what) in [
        (
            "format = 1",
            "format = 1\n\"../../root/.ssh/authorized_keys\" = \"x\"",
            "unknown key",
        ),
        ("format = 1", "format = 9", "format"),
        (
            "[[tree]]",
            "authorized_keys = \"/root/.ssh/authorized_keys\"\n[[tree]]",
            "keys that come with it",
        ),
        (
            "[[tree]]",
            "[network]\nplain = true\n[[tree]]",
            "keys that come with it",
        ),
        ("name = \"www\"", "name = \"../../www\"", "config: "),
        ("name = \"www\"", "nom = \"www\"", "config: "),
        ("makuo-group-key-v1", "makuo-group-key-v0", "no group key"),
        ("ssh-ed25519 ", "ssh-ed25519 A", "authorized_keys: "),
    ] {
        refused(&text.replace(old, new), what);
    }

    refused("", "no `format`");
    refused("source = \"site\"\n", "no `format`");

    for (open, what) in [
        (0o644, "a secret that others can read"),
        (0o620, "can be written to by its group"),
    ] {
        set(&file, open);
        unpack(&lab, &file, "etc", &[])
            .exits(2)
            .says(&["host.toml", what]);
        assert!(!lab.path("etc").exists(), "{what}");
    }

    set(&file, 0o600);
    set(&lab.path(".config/makuo"), 0o777);
    unpack(&lab, &file, "etc", &[])
        .exits(2)
        .says(&["makuo can be written to by anybody", "chmod go-w"]);

    // Under sudo, root accepts a file of the invoking user.
    if support::is_root() {
        set(&lab.path(".config/makuo"), 0o700);
        std::os::unix::fs::chown(&file, Some(65_533), None).expect("root may");
        unpack(&lab, &file, "etc", &[])
            .exits(2)
            .says(&["host.toml does not belong to root"]);
        let mut command = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
        command
            .args(["init", "--host"])
            .arg(&file)
            .arg("--config")
            .arg(lab.path("etc/makuo.toml"));
        Running::start(command.env("SUDO_UID", "65533"))
            .wait()
            .exits(0);
    }
}
