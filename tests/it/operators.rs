//! What an operator needs beside the deploy itself: who is missing, what a limit would refuse, rules
//! that change while the daemon runs, and questions without the group key.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Lab, is_root, read, skipped, until, write};

/// Sends SIGHUP to a host and waits for the end of the reload.
fn reload(lab: &Lab, host: usize) {
    let reloads = |lab: &Lab| lab.hosts[host].log().matches(": 1 keys").count();
    let before = reloads(lab);
    lab.hosts[host].reload();
    until("the reload", || reloads(lab) > before);
}

/// Replaces `old` in the configuration of a running host.
fn reconfigure(lab: &Lab, host: usize, old: &str, new: &str) {
    let path = lab.hosts[host].config_path();
    let text = std::fs::read_to_string(&path).expect("there");
    assert!(text.contains(old), "{old} in {text}");
    write(&path, text.replace(old, new));
    reload(lab, host);
}

#[test]
fn a_host_of_the_last_deploy_is_missed_and_a_list_of_targets_is_no_alarm() {
    let Some(mut lab) = Lab::loopback(3) else {
        return;
    };
    write(&lab.site().join("page"), "one");
    let first = lab.deploy(&[]).exits(0);
    assert!(!first.out.contains("earlier deploy"), "{first}");

    lab.hosts[2].kill();
    write(&lab.site().join("page"), "two");
    let quiet = ["deploy", "www.toml", "-t", "web[12]"];
    let ran = lab.makuo(&quiet).exits(0);
    assert!(!format!("{ran}").contains("earlier deploy"), "{ran}");

    // With the list of known hosts as an expectation, nothing changes.
    write(&lab.site().join("page"), "three");
    let known = ["deploy", "www.toml", "--expect", "known", "--timeout", "2s"];
    lab.makuo(&known)
        .exits(3)
        .says(&["expected hosts did not answer: web3", "last_hosts"]);
    assert_eq!(read(&lab.hosts[0].tree().join("page")), b"two");
    lab.spec("[targets]\nexpect = \"known\"\n");
    lab.makuo(&["deploy", "www.toml", "--timeout", "2s"])
        .exits(3)
        .says(&["web3"]);
    lab.spec("");

    let ran = lab.makuo(&["deploy", "www.toml"]).exits(0);
    let ran = ran.says(&[
        "web3 took part in an earlier deploy and is not there now",
        "delete the line",
    ]);

    // The line goes, and with it the alarm.
    let file = ran
        .err
        .lines()
        .find_map(|line| line.split("delete the line in ").nth(1));
    let file = std::path::PathBuf::from(file.expect("named").trim());
    let text = String::from_utf8(read(&file)).expect("text");
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("web3 "))
        .collect();
    assert_eq!(kept.len(), 2, "{text}");
    write(&file, kept.join("\n"));
    let ran = lab.makuo(&known[..4]).exits(0);
    assert!(!format!("{ran}").contains("earlier deploy"), "{ran}");
}

#[test]
fn a_comparison_lists_what_a_limit_would_refuse_and_a_deploy_allows_it_once() {
    let Some(lab) = Lab::loopback(1) else { return };
    for n in 0..10 {
        write(&lab.site().join(n.to_string()), "x");
    }
    lab.spec("[delete]\nextras = true\nmax = 2\n");
    lab.deploy(&[]).exits(0);
    for n in 0..6 {
        std::fs::remove_file(lab.site().join(n.to_string())).expect("there");
    }

    lab.deploy(&[])
        .exits(3)
        .says(&["6 of ", "`makuo diff` lists them"]);
    let lists = [
        "*deleting",
        "6 of ",
        "would be deleted",
        "would be refused",
        "--allow-deletes",
    ];
    lab.makuo(&["diff", "www.toml"]).exits(1).says(&lists);
    lab.makuo(&["deploy", "-n", "www.toml"])
        .exits(3)
        .says(&lists);
    let json = lab.makuo(&["diff", "--json", "www.toml"]).exits(1);
    let limits = json.events().into_iter().filter(|e| e["event"] == "limit");
    assert_eq!(limits.count(), 1, "{json}");

    lab.deploy(&["--allow-deletes", "5"]).exits(3);
    lab.deploy(&["--allow-deletes", "6"]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn a_hosts_own_limit_holds_until_its_configuration_allows_more() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    lab.host("web1").rule("max_delete = 1");
    lab.hosts[0].start();
    for n in 0..10 {
        write(&lab.site().join(n.to_string()), "x");
    }
    lab.deploy(&[]).exits(0);
    for n in 0..3 {
        std::fs::remove_file(lab.site().join(n.to_string())).expect("there");
    }

    lab.deploy(&["--allow-deletes", "100%"])
        .exits(3)
        .says(&["the host allows 1", "max_delete"]);
    reconfigure(&lab, 0, "max_delete = 1", "max_delete = 3");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn a_reload_takes_protected_paths_and_hooks() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let marks = lab.path("marks");
    let hook = |word: &str| {
        format!(
            "after = [\"/bin/sh\", \"-c\", \"echo {word} >> {}\"]",
            marks.display()
        )
    };
    lab.host("web1").rule(&hook("old"));
    lab.hosts[0].start();
    write(&lab.site().join("page"), "one");
    lab.deploy(&[]).exits(0);
    write(&lab.hosts[0].tree().join("uploads/mine"), "mine");

    let rules = format!("{}\nprotect = [\"/uploads/\"]", hook("new"));
    reconfigure(&lab, 0, &hook("old"), &rules);
    write(&lab.site().join("page"), "two");
    write(&lab.site().join("uploads/theirs"), "theirs");
    lab.deploy(&[]).exits(0);
    assert_eq!(read(&marks), b"old\nnew\n");
    assert!(lab.hosts[0].tree().join("uploads/mine").exists());
    assert!(!lab.hosts[0].tree().join("uploads/theirs").exists());

    // What the release has and the host protects is named.
    lab.makuo(&["diff", "www.toml"]).exits(0).says(&[
        "web1: protected there, so left as it is: uploads",
        "web1: no drift",
    ]);
    let json = lab.makuo(&["diff", "--json", "www.toml"]).exits(0);
    let events = json.events();
    let found = events.iter().find(|e| e["event"] == "protected");
    assert_eq!(found.expect("a line")["count"], 1, "{json}");
}

#[test]
fn who_may_use_the_socket_asks_without_the_group_key() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    if !is_root() {
        return skipped("only root can become another user");
    }

    let host = lab.host("web1");
    host.setting("socket_group = \"nogroup\"");
    host.start();
    write(&lab.site().join("page"), "one");
    lab.deploy(&[]).exits(0);
    let open = std::fs::Permissions::from_mode(0o711);
    for dir in [lab.path(""), lab.path("web1")] {
        std::fs::set_permissions(dir, open.clone()).expect("mine");
    }

    let config = lab.path("other.toml");
    let socket = lab.hosts[0].socket();
    let key = lab.hosts[0].group_key();
    write(
        &config,
        format!("socket = {socket:?}\n[network]\ngroup_key = {key:?}\n"),
    );
    let ask = |group: &str, args: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--clear-groups",
            &format!("--regid={group}"),
        ]);
        command
            .arg(env!("CARGO_BIN_EXE_makuo"))
            .args(args)
            .arg("-c")
            .arg(&config);
        command.args(lab.admin.flags()).env("HOME", "/nonexistent");
        command
            .env_remove("MAKUO_GROUP_KEY")
            .env_remove("XDG_CACHE_HOME");
        let output = command.output().expect("setpriv");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };

    for (args, word) in [
        (&["status"][..], "web1  www@1  idle"),
        (&["status", "www"], "web1  www@1  idle"),
        (&["members"], "www@1"),
        (&["log", "www"], "runs on web1"),
    ] {
        let (code, said) = ask("nogroup", args);
        assert!(
            code == Some(0) && said.contains(word),
            "{args:?}: {code:?} {said}"
        );
    }

    let (code, said) = ask("daemon", &["status"]);
    assert!(
        code == Some(2) && said.contains("socket_group"),
        "{code:?} {said}"
    );
}
