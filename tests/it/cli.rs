//! The command line for people and scripts: the built binary, its output and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn makuo(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_makuo"))
        .args(args)
        .current_dir(dir)
        .env("HOME", dir)
        .env_remove("MAKUO_KEY")
        .env_remove("MAKUO_CONFIG")
        .output()
        .expect("the binary runs")
}

fn here(args: &[&str]) -> Output {
    makuo(Path::new(env!("CARGO_MANIFEST_DIR")), args)
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn last_line(output: &Output) -> Value {
    let text = out(output);
    let line = text
        .lines()
        .last()
        .unwrap_or_else(|| panic!("no output; stderr: {}", err(output)));
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn help_names_every_command_that_exists_and_no_other() {
    let help = out(&here(&["--help"]));
    let commands = [
        "deploy",
        "watch",
        "diff",
        "promote",
        "rollback",
        "publish",
        "pull",
        "repo",
        "log",
        "show",
        "pin",
        "unpin",
        "status",
        "members",
        "send",
        "sync",
        "check",
        "doctor",
        "init",
        "keygen",
        "daemon",
        "demo",
        "completions",
        "man",
    ];

    for command in commands {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} in\n{help}"
        );
    }

    assert!(!help.contains("\n  complete "), "{help}");

    assert!(!help.contains("group-key"));
}

#[test]
fn help_of_a_command_is_what_its_flag_shows() {
    for command in [&["deploy"][..], &["repo", "gc"], &["status"]] {
        let asked = out(&here(&[&["help"], command].concat()));
        let flag = out(&here(&[command, &["--help"]].concat()));
        assert!(
            asked == flag && asked.contains("Usage: "),
            "{asked}\n{flag}"
        );
    }
    assert_eq!(code(&here(&["help", "nothing"])), 2);
}

#[test]
fn help_and_version_are_no_failure_and_no_command_is() {
    assert_eq!(code(&here(&["--help"])), 0);
    assert_eq!(
        out(&here(&["--version"])),
        format!("makuo {}\n", env!("CARGO_PKG_VERSION"))
    );

    for wrong in [
        &[][..],
        &["deploy"],
        &["frobnicate"],
        &["members", "--port", "0"],
        &["diff", "x", "--rate", "fast"],
    ] {
        let output = here(wrong);
        assert_eq!(code(&output), 2, "{wrong:?}");
        assert!(
            out(&output).is_empty() && !err(&output).is_empty(),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_usage_error_is_a_result_line_for_a_script() {
    let output = here(&["--json", "deploy", "x", "--rate", "fast"]);
    let result = last_line(&output);
    assert_eq!(
        (code(&output), &result["event"], &result["exit"]),
        (2, &"result".into(), &2.into())
    );
    assert!(
        result["error"].as_str().is_some_and(|e| e.contains("fast")),
        "{result}"
    );
}

#[test]
fn check_explains_the_example_specs() {
    for spec in ["manifests/www.toml", "manifests/minimal.toml"] {
        let output = here(&["check", spec]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).contains("source "), "{}", out(&output));
    }

    let found = out(&here(&["check", "manifests/www.toml"]));
    assert!(
        found.contains("ignores    .makuoignore in the source"),
        "{found}"
    );
    let result = last_line(&here(&["check", "--json", "manifests/www.toml"]));

    assert_eq!(
        (&result["event"], &result["kind"], &result["trees"][0]),
        (&"result".into(), &"spec".into(), &"www".into())
    );
}

#[test]
fn check_names_the_key_and_the_line() {
    let dir = temp();
    std::fs::write(
        dir.path().join("bad.toml"),
        "source = \".\"\n\n[delete]\nextrass = true\n",
    )
    .expect("written");
    let output = makuo(dir.path(), &["check", "bad.toml"]);
    assert_eq!(code(&output), 2);
    let said = err(&output);

    assert!(
        said.starts_with("error: ") && said.contains("extrass") && said.contains('4'),
        "{said}"
    );
}

/// A directory with a sound configuration for the loopback interface, its keys and its tree, and
/// `lines` in the tree's table.
fn configured(lines: &str) -> tempfile::TempDir {
    let dir = temp();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("new");
    let network = "[network]\nplain = true\ninterface = \"lo\"\n";
    let text = format!("{network}[[tree]]\nname = \"www\"\npath = {tree:?}\n{lines}\n");
    std::fs::write(dir.path().join("makuo.toml"), text).expect("written");
    let key = out(&makuo(dir.path(), &["keygen", "--deploy", "-o", "key"]));
    std::fs::write(dir.path().join("authorized_keys"), key).expect("written");
    dir
}

#[test]
fn check_warns_of_a_hook_that_is_not_there() {
    let hooks = "before = [\"/nowhere/drain\"]\nafter = [\"/bin/sh\", \"-c\", \"true\"]\nhealth = [\"nothing-such\"]\n";
    let dir = configured(hooks);
    let output = makuo(dir.path(), &["check", "makuo.toml"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(
        err(&output),
        "warning: tree www: before: /nowhere/drain is no executable file on this machine\n\
         warning: tree www: health: nothing-such is no program in the PATH here\n"
    );
    let result = last_line(&makuo(dir.path(), &["check", "--json", "makuo.toml"]));
    assert_eq!(result["warnings"].as_array().map(Vec::len), Some(2));

    let output = makuo(dir.path(), &["check", "--elsewhere", "makuo.toml"]);
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
}

/// The daemon refuses what the check calls an error, and in the same words.
#[test]
fn check_finds_what_keeps_the_daemon_from_starting() {
    let sound = configured("");
    let output = makuo(sound.path(), &["check", "makuo.toml"]);
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));

    let cases: [(&str, &str, &str); 5] = [
        (
            "",
            "[sender]\nkey = \"/nowhere/sender.key\"\n",
            "/nowhere/sender.key",
        ),
        (
            "",
            "[console]\npassword = \"/nowhere/password\"\n",
            "/nowhere/password",
        ),
        (
            "plain = true",
            "group_key = \"/nowhere/group.key\"",
            "/nowhere/group.key",
        ),
        ("", "socket_group = \"nobody-such\"\n", "nobody-such"),
        ("", "authorized_keys = \"/etc/passwd\"\n", "/etc/passwd:1"),
    ];
    for (old, new, named) in cases {
        let dir = configured("");
        let path = dir.path().join("makuo.toml");
        let text = std::fs::read_to_string(&path).expect("there");
        let text = match old {
            "" => format!("{new}{text}"),
            old => text.replace(old, new),
        };
        std::fs::write(&path, text).expect("written");

        let checked = makuo(dir.path(), &["check", "makuo.toml"]);
        assert_eq!(code(&checked), 2, "{named}: {}", err(&checked));
        assert!(err(&checked).contains(named), "{}", err(&checked));
        let json = last_line(&makuo(dir.path(), &["check", "--json", "makuo.toml"]));
        assert_eq!(json["exit"], 2, "{json}");
        assert_eq!(json["errors"].as_array().map(Vec::len), Some(1), "{json}");

        let daemon = makuo(
            dir.path(),
            &["daemon", "-c", "makuo.toml", "--socket", "sock"],
        );
        assert_ne!(code(&daemon), 0);
        let words = |output: &Output| {
            let said = err(output);
            let line = said.lines().find(|line| line.starts_with("error: "));
            line.unwrap_or_default().to_string()
        };
        assert_eq!(words(&checked), words(&daemon), "{}", err(&checked));
    }
}

#[test]
fn check_finds_a_tree_an_interface_and_a_file_that_daemons_refuse() {
    use std::os::unix::fs::PermissionsExt;
    let checked = |change: &dyn Fn(&Path, String) -> String| {
        let dir = configured("");
        let path = dir.path().join("makuo.toml");
        let text = std::fs::read_to_string(&path).expect("there");
        std::fs::write(&path, change(dir.path(), text)).expect("written");
        let output = makuo(dir.path(), &["check", "makuo.toml"]);
        (code(&output), err(&output))
    };

    let (code, said) = checked(&|_, text| text.replace("\"lo\"", "\"eth77\""));
    assert!(code == 2 && said.contains("eth77"), "{said}");
    let (code, said) = checked(&|dir, text| {
        let tree = dir.join("tree").display().to_string();
        text.replace(&tree, "/nowhere/below/tree")
    });
    assert!(code == 2 && said.contains("/nowhere/below/tree"), "{said}");
    let (code, said) = checked(&|dir, text| {
        std::fs::remove_file(dir.join("authorized_keys")).expect("there");
        text
    });
    assert!(
        code == 0 && said.contains("every release will be refused"),
        "{said}"
    );
    let (code, said) = checked(&|_, _| "[network]\nplain = true\ninterface = \"lo\"\n".into());
    assert!(code == 0 && said.contains("there is no [[tree]]"), "{said}");
    let (code, said) = checked(&|_, text| format!("{text}max_age = \"30\"\nkeep = 0\n"));
    assert!(
        code == 0 && said.contains("max_age is 30 s") && said.contains("keep = 0"),
        "{said}"
    );

    let dir = configured("");
    let path = dir.path().join("makuo.toml");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("mine");
    let output = makuo(dir.path(), &["check", "makuo.toml"]);
    let said = err(&output);
    assert!(
        said.contains("mode 0666") && said.contains("chmod go-w"),
        "{said}"
    );
}

#[test]
fn check_explains_files_of_keys_and_shows_no_secret() {
    let dir = configured("");
    let line = std::fs::read_to_string(dir.path().join("authorized_keys")).expect("there");
    let line = &line[line.find("ssh-ed25519").expect("a key")..];
    let restricted = format!("tree=\"www,db*\",audit,expires=\"2020-01-31\" {line}");
    std::fs::write(dir.path().join("authorized_keys"), restricted).expect("written");
    let output = makuo(dir.path(), &["check", "authorized_keys"]);
    let said = out(&output);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for word in ["SHA256:", "audit on www, db*", "expired 2020-01-31"] {
        assert!(said.contains(word), "{word} in {said}");
    }

    std::fs::write(
        dir.path().join("authorized_keys"),
        format!("tre=\"www\" {line}"),
    )
    .expect("written");
    let output = makuo(dir.path(), &["check", "authorized_keys"]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("authorized_keys:1: unknown option"),
        "{}",
        err(&output)
    );

    assert_eq!(
        code(&makuo(
            dir.path(),
            &["keygen", "--group", "-o", "group.key"]
        )),
        0
    );
    for (file, word) in [("group.key", "group key"), ("key", "deploy key")] {
        let output = makuo(dir.path(), &["check", file]);
        let said = out(&output);
        assert!(
            code(&output) == 0 && said.contains(word),
            "{said}{}",
            err(&output)
        );
        let secret = std::fs::read_to_string(dir.path().join(file)).expect("there");
        let shows = |line: &str| line.len() > 20 && !line.contains("KEY") && said.contains(line);
        assert!(!secret.split([' ', '\n']).any(shows), "{said}");
    }
}

#[test]
fn a_repository_that_cannot_be_opened_is_named_with_its_tree_and_line() {
    let dir = temp();
    let path = dir.path().join("makuo.toml");
    let refused = |rule: &str, line: u32, why: &str| {
        let trees = "[[tree]]\nname = \"db\"\npath = \"/srv/db\"\n\n[[tree]]\nname = \"www\"\n";
        let rest = "path = \"/var/www\"\n";
        let plain = "[network]\nplain = true\n";
        std::fs::write(&path, format!("{trees}{rest}{rule}\n{plain}")).expect("written");
        let place = format!("makuo.toml:{line}: tree.repository: tree www: ");
        for args in [
            &["check", "makuo.toml"][..],
            &["daemon", "-c", "makuo.toml"],
        ] {
            let output = makuo(dir.path(), args);
            let said = err(&output);
            assert_eq!(code(&output), 2, "{said}");
            assert!(said.contains(&place) && said.contains(why), "{said}");
        }
    };

    refused("repository = \"ftp://host/fleet\"", 8, "ftp");
    refused("poll = \"5s\"\nrepository = \"https://\"", 9, "https://");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").expect("written");
    let with_ca = |ca: &std::path::Path| {
        let url = "repository = \"https://host/fleet\"\n";
        format!("{url}repository_ca = \"{}\"", ca.display())
    };
    refused(&with_ca(&empty), 8, "empty.pem");

    // A file that is not here may be there.
    let tree = "[[tree]]\nname = \"www\"\npath = \"/var/www\"\n";
    let missing = with_ca(std::path::Path::new("/nowhere/ca.pem"));
    let plain = "[network]\nplain = true\n";
    std::fs::write(&path, format!("{tree}{missing}\n{plain}")).expect("written");
    let output = makuo(dir.path(), &["check", "--elsewhere", "makuo.toml"]);
    assert_eq!(code(&output), 0);
    let output = makuo(dir.path(), &["check", "makuo.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("/nowhere/ca.pem"));
    let output = makuo(dir.path(), &["daemon", "-c", "makuo.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("/nowhere/ca.pem"));

    let unused = "repository_ca = \"/nowhere/ca.pem\"\n";
    std::fs::write(
        &path,
        format!("[[tree]]\nname = \"www\"\npath = \"/var/www\"\n{unused}"),
    )
    .expect("written");
    let output = makuo(dir.path(), &["check", "makuo.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("makuo.toml:4: tree.repository_ca"));
}

#[test]
fn a_command_without_a_group_key_says_how_to_make_one() {
    let dir = temp();
    let output = makuo(dir.path(), &["members", "--json"]);
    let result = last_line(&output);
    assert_eq!((code(&output), &result["exit"]), (2, &2.into()), "{result}");
    assert!(
        result["error"]
            .as_str()
            .is_some_and(|e| e.contains("there is no group key")),
        "{result}"
    );

    let hint = result["hint"].as_str().unwrap_or_default();
    assert!(
        ["makuo keygen", "--group-key", "--plain"]
            .iter()
            .all(|word| hint.contains(word)),
        "{result}"
    );

    // The message names the remedy, in text and in JSON.
    let plain = [
        "members",
        "--plain",
        "--interface",
        "lo",
        "--port",
        "29999",
        "--wait",
        "10ms",
    ];

    assert!(err(&makuo(dir.path(), &plain)).contains("traffic is plain"));
    assert!(
        out(&makuo(dir.path(), &[&plain[..], &["--json"]].concat())).contains("traffic is plain")
    );
    assert_eq!(
        code(&makuo(
            dir.path(),
            &["members", "--plain", "--group-key", "x"]
        )),
        2
    );

    let output = makuo(
        dir.path(),
        &["daemon", "-b", "x", "--socket", "sock", "--interface", "lo"],
    );

    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("there is no group key") && err(&output).contains("makuo keygen"),
        "{}",
        err(&output)
    );

    assert!(
        !dir.path().join("x").exists() && !dir.path().join("sock").exists(),
        "it refuses before it begins"
    );
}

#[test]
fn a_missing_spec_or_source_is_a_usage_error() {
    let dir = temp();
    assert_eq!(code(&makuo(dir.path(), &["check", "none.toml"])), 2);
    std::fs::write(dir.path().join("s.toml"), "source = \"nowhere\"\n").expect("written");
    let output = makuo(dir.path(), &["deploy", "s.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("nowhere"), "{}", err(&output));
}

#[test]
fn a_deploy_without_a_key_says_how_to_make_one() {
    let dir = temp();
    std::fs::write(dir.path().join("s.toml"), "source = \".\"\n").expect("written");
    let output = makuo(dir.path(), &["deploy", "s.toml", "--json"]);
    let result = last_line(&output);
    assert_eq!((code(&output), &result["exit"]), (2, &2.into()));
    assert!(
        result["hint"]
            .as_str()
            .is_some_and(|h| h.contains("makuo keygen")),
        "{result}"
    );

    assert!(
        err(&output).contains("hint:  `makuo keygen`"),
        "{}",
        err(&output)
    );
}

#[test]
fn keygen_makes_a_key_once_and_prints_the_line_for_hosts() {
    use std::os::unix::fs::MetadataExt;
    let dir = temp();
    let output = makuo(dir.path(), &["keygen"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(out(&output).lines().count(), 1);
    assert!(
        out(&output).contains(" ssh-ed25519 AAAA"),
        "{}",
        out(&output)
    );

    assert!(err(&output).contains("SHA256:"), "{}", err(&output));
    let key = dir.path().join(".config/makuo/deploy.key");
    assert_eq!(key.metadata().expect("there").mode() & 0o777, 0o600);

    let before = std::fs::read(&key).expect("readable");
    let group = dir.path().join(".config/makuo/group.key");
    assert_eq!(group.metadata().expect("there").mode() & 0o777, 0o600);

    assert!(
        err(&output).contains("group.key (a secret"),
        "{}",
        err(&output)
    );

    let again = makuo(dir.path(), &["keygen"]);

    assert_eq!(code(&again), 2);
    assert!(err(&again).contains("exists"), "{}", err(&again));
    assert_eq!(std::fs::read(&key).expect("readable"), before);

    // A missing file is created, and the existing one stays.
    let secret = std::fs::read(&group).expect("readable");
    std::fs::remove_file(&key).expect("mine");

    assert_eq!(
        code(&makuo(dir.path(), &["keygen"])),
        2,
        "a deploy key that only lost its private half"
    );

    std::fs::remove_file(key.with_extension("key.pub")).expect("mine");
    assert_eq!(code(&makuo(dir.path(), &["keygen"])), 0);
    assert_eq!(std::fs::read(&group).expect("readable"), secret);
    let before = std::fs::read(&key).expect("readable");
    std::fs::remove_file(&group).expect("mine");
    let output = makuo(dir.path(), &["keygen"]);
    assert_eq!(
        (code(&output), out(&output).lines().count()),
        (0, 1),
        "{}",
        err(&output)
    );

    assert!(
        err(&output).contains("deploy.key is kept"),
        "{}",
        err(&output)
    );

    assert_eq!(std::fs::read(&key).expect("readable"), before);
    assert_ne!(std::fs::read(&group).expect("readable"), secret);

    // Only --group --force replaces a group key.
    let secret = std::fs::read(&group).expect("readable");
    assert_eq!(code(&makuo(dir.path(), &["keygen", "--force"])), 0);
    assert_eq!(std::fs::read(&group).expect("readable"), secret);

    for one in ["--deploy", "--group"] {
        assert_eq!(code(&makuo(dir.path(), &["keygen", one])), 2, "{one}");
        assert_eq!(
            code(&makuo(dir.path(), &["keygen", one, "--force"])),
            0,
            "{one}"
        );
    }

    assert_ne!(std::fs::read(&group).expect("readable"), secret);

    let json = last_line(&makuo(dir.path(), &["keygen", "--json", "-o", "other.key"]));
    assert!(
        !dir.path().join("group.key").exists() && json["group_key"].is_null(),
        "{json}"
    );

    assert_eq!(json["private"], "other.key");
    assert!(
        json["fingerprint"]
            .as_str()
            .is_some_and(|f| f.starts_with("SHA256:"))
    );
}

#[test]
fn colour_comes_only_when_asked_for() {
    let error = |args: &[&str]| err(&here(args));
    assert!(!error(&["check", "none.toml"]).contains('\x1b'));
    assert!(error(&["check", "none.toml", "--color", "always"]).contains('\x1b'));
}

#[test]
fn a_reader_that_left_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_makuo"))
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
}

/// Users install the committed scripts; `MAKUO_BLESS=1 cargo test --test it cli::` rewrites them.
#[test]
fn committed_completions_are_what_the_binary_prints() {
    for (shell, file) in [
        ("bash", "makuo.bash"),
        ("zsh", "_makuo"),
        ("fish", "makuo.fish"),
    ] {
        let made = out(&here(&["completions", shell]));
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("completions")
            .join(file);
        if std::env::var_os("MAKUO_BLESS").is_some() {
            std::fs::write(&path, &made).expect("written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == made,
            "{} drifted: MAKUO_BLESS=1 cargo test --test it cli::",
            path.display()
        );
    }
}

/// The manual pages are generated from the same definition;
/// `MAKUO_BLESS=1 cargo test --test it cli::` rewrites them.
#[test]
fn committed_man_pages_are_what_the_binary_writes() {
    let dir = temp();
    assert_eq!(code(&makuo(dir.path(), &["man", "man1"])), 0);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man");
    let pages = |dir: &Path| -> Vec<String> {
        let names = std::fs::read_dir(dir)
            .expect("readable")
            .map(|e| e.expect("readable").file_name());
        let mut names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
        names.retain(|n| n.ends_with(".1"));
        names.sort();
        names
    };

    let made = pages(&dir.path().join("man1"));
    if std::env::var_os("MAKUO_BLESS").is_some() {
        pages(&committed)
            .iter()
            .for_each(|page| std::fs::remove_file(committed.join(page)).expect("mine"));
        for page in &made {
            std::fs::copy(dir.path().join("man1").join(page), committed.join(page))
                .expect("written");
        }
    }

    assert_eq!(
        made,
        pages(&committed),
        "MAKUO_BLESS=1 cargo test --test it cli::"
    );

    for page in &made {
        let read = |dir: &Path| std::fs::read_to_string(dir.join(page)).expect("readable");
        assert!(
            read(&dir.path().join("man1")) == read(&committed),
            "{page} drifted: MAKUO_BLESS=1 cargo test --test it cli::"
        );
    }

    for old in ["makuosan.1", "msync.1", "makuo-send.1"] {
        assert!(made.iter().any(|page| page == old), "{made:?}");
    }
}

#[test]
fn man_pages_are_written() {
    let dir = temp();
    assert_eq!(code(&makuo(dir.path(), &["man", "man1"])), 0);
    let page = std::fs::read_to_string(dir.path().join("man1/makuo-deploy.1")).expect("there");
    assert!(page.contains("dry\\-run"), "{page}");
    for page in ["makuo.1", "makuo.toml.5", "makuo-manifest.5"] {
        assert!(dir.path().join("man1").join(page).exists(), "{page}");
    }
}
