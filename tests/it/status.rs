//! Status of the fleet: `makuo log` and `makuo status` with real daemons.

use crate::support::{self, Lab, Ran, until, write};
use serde_json::Value;

fn of<'a>(events: &'a [Value], event: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["event"] == event).collect()
}

fn names(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|name| name.as_str().expect("text"))
        .collect()
}

/// Returns the entry of `host` in `makuo status`.
fn standing(ran: &Ran, host: &str) -> Value {
    let events = ran.events();
    let found = of(&events, "host")
        .into_iter()
        .find(|e| e["host"] == host)
        .cloned();
    found.unwrap_or_else(|| panic!("nothing about {host}: {ran}"))
}

/// Makes three hosts with a first release; web3 was away for the second.
fn left_behind() -> Option<Lab> {
    let mut lab = Lab::loopback(3)?;
    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    lab.hosts[2].kill();
    write(&lab.site().join("page"), "a new page");
    lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);
    lab.hosts[2].start();

    Some(lab)
}

#[test]
fn a_log_names_every_release_and_who_runs_and_keeps_it() {
    let Some(lab) = left_behind() else { return };
    let ran = lab.makuo(&["log", "--json", "www"]).exits(0);
    let events = ran.events();
    let releases = of(&events, "release");
    assert_eq!(releases.len(), 2, "{ran}");
    let (newest, first) = (releases[0], releases[1]);
    assert!(
        newest["serial"].as_u64() > first["serial"].as_u64(),
        "{ran}"
    );

    assert_eq!(
        (names(&newest["running"]), names(&newest["kept"])),
        (vec!["web1", "web2"], vec!["web1", "web2"])
    );
    assert_eq!(
        (names(&first["running"]), names(&first["kept"])),
        (vec!["web3"], vec!["web1", "web2", "web3"])
    );

    assert!(
        newest["key"]
            .as_str()
            .is_some_and(|key| key.starts_with("SHA256:")),
        "{ran}"
    );

    assert_eq!(
        newest["bytes"].as_u64(),
        Some("a new page".len() as u64),
        "{ran}"
    );

    let result = ran.result();
    assert_eq!(
        (&result["releases"], &result["serial"]),
        (&2.into(), &newest["serial"]),
        "{ran}"
    );

    assert_eq!(names(&result["hosts"]), ["web1", "web2", "web3"]);
    let human = lab.makuo(&["log", "www"]).exits(0).says(&[
        "runs on web1, web2",
        "runs on web3 (behind)",
        "all 3",
    ]);

    assert_eq!(human.out.lines().count(), 2, "{human}");
    assert!(human.out.starts_with("*  www@"), "{human}");
}

#[test]
fn a_host_that_missed_a_release_is_told_apart() {
    let Some(lab) = left_behind() else { return };
    for args in [&["status", "--json", "www"][..], &["status", "--json"]] {
        let ran = lab.makuo(args).exits(1);
        let (ahead, behind) = (standing(&ran, "web1"), standing(&ran, "web3"));
        assert_eq!(
            (&ahead["behind"], &ahead["newest"], &ahead["state"]),
            (&false.into(), &Value::Null, &"idle".into())
        );
        assert_eq!(
            (&behind["behind"], &behind["newest"]),
            (&true.into(), &ahead["serial"]),
            "{ran}"
        );
        assert_eq!(names(&ran.result()["behind"]), ["web3"], "{ran}");
    }

    lab.makuo(&["status"]).exits(1).says(&[
        "web3",
        "idle",
        "behind: newest is www@",
        "3 hosts, 1 behind",
    ]);

    lab.deploy(&[]).exits(0);
    lab.makuo(&["status"])
        .exits(0)
        .says(&["3 hosts, none behind"]);
}

#[test]
fn a_status_tells_what_went_wrong_last_until_a_commit_follows() {
    let Some(lab) = Lab::loopback(2) else { return };
    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    lab.keygen("stranger");
    let key = lab.path("stranger").display().to_string();
    write(&lab.site().join("page"), "new");
    lab.makuo(&["deploy", "www.toml", "--key", &key]).exits(3);

    let ran = lab.makuo(&["status", "--json"]).exits(1);
    assert_eq!(names(&ran.result()["failed"]), ["web1", "web2"], "{ran}");
    let told = standing(&ran, "web1");
    assert!(
        told["error"]
            .as_str()
            .is_some_and(|e| e.contains("authorized_keys")),
        "{ran}"
    );

    assert!(
        told["error_age"].is_u64() && told["behind"] == false,
        "{ran}"
    );
    lab.makuo(&["status"]).exits(1).says(&["ago: ", "2 failed"]);
    lab.deploy(&[]).exits(0);
    let ran = lab.makuo(&["status", "--json"]).exits(0);

    assert_eq!(standing(&ran, "web1")["error"], Value::Null, "{ran}");
}

#[test]
fn a_status_tells_what_is_done_now() {
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };

    support::Noise::new(3).tree(&lab.site(), 30, 200_000);
    let mut deploy = lab.start(&["deploy", "--json", "www.toml", "--rate", "8Mbit"]);
    let mut seen = Vec::new();
    until("a host at work", || {
        let ran = lab.makuo(&["status", "--json"]);
        let told = standing(&ran, "web1");
        seen.push(told["state"].to_string());
        told["state"] == "staging"
            && told["at_work"]["serial"].is_u64()
            && told["at_work"]["sender"].is_string()
    });

    assert!(!deploy.is_over(), "it was seen while it went on: {seen:?}");
    lab.makuo(&["status"])
        .exits(0)
        .says(&["web1  www  staging www@"]);
    deploy.kill();

    lab.hosts[0].kill();
}

#[test]
fn a_tree_that_nobody_has_is_refused() {
    let Some(lab) = Lab::loopback(1) else { return };
    for command in ["log", "status"] {
        let ran = lab
            .makuo(&[command, "docs", "--wait", "500ms"])
            .exits(3)
            .says(&["no host", "docs", "makuo members"]);
        assert!(ran.out.is_empty(), "{ran}");
        lab.makuo(&[command, "no/tree"]).exits(2);
    }

    let ran = lab.makuo(&["log", "--json", "www"]).exits(0);
    assert_eq!(
        (&ran.result()["releases"], names(&ran.result()["without"])),
        (&0.into(), vec!["web1"]),
        "{ran}"
    );
}

#[test]
fn a_host_whose_release_is_too_old_says_so_in_its_log_and_when_it_is_asked() {
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };

    lab.host("web2").rule("max_age = \"1s\"");
    lab.hosts[1].start();
    lab.makuo(&["status"])
        .exits(0)
        .says(&["2 hosts, none behind"]);
    write(&lab.site().join("page"), "new");
    lab.deploy(&[]).exits(0);

    until("an old release", || {
        standing(&lab.makuo(&["status", "--json"]), "web2")["stale"].is_object()
    });
    let ran = lab.makuo(&["status", "--json"]).exits(1);
    assert_eq!(standing(&ran, "web2")["stale"]["max_age"], 1, "{ran}");
    assert_eq!(
        standing(&ran, "web1")["stale"],
        Value::Null,
        "this host allows any age: {ran}"
    );

    assert_eq!(names(&ran.result()["stale"]), ["web2"], "{ran}");
    lab.makuo(&["status"]).exits(1).says(&[
        "old: made ",
        "max_age is 1 s",
        "1 with an old release",
    ]);

    let said = |lab: &Lab, host: usize| lab.hosts[host].log().matches("max_age is 1 s").count();
    assert_eq!(
        (said(&lab, 0), said(&lab, 1)),
        (0, 1),
        "asked often, said once: {}",
        lab.hosts[1].log()
    );

    lab.hosts[1].restart();
    until("a word at the start", || said(&lab, 1) == 2);
}

#[test]
fn two_hosts_of_one_name_are_told_by_their_addresses() {
    let Some(mut lab) = Lab::network_idle(3) else {
        return;
    };

    lab.hosts[1].name = "web1".into();
    lab.hosts.iter_mut().for_each(support::Host::start);
    write(&lab.site().join("page"), "old");
    lab.spec("[targets]\nexpect = [\"web1\", \"web3\"]\n");
    until("three hosts answer", || {
        of(&lab.makuo(&["members", "--json"]).events(), "member").len() == 3
    });

    let ran = lab.makuo(&["deploy", "--json", "www.toml"]).exits(0);

    let events = ran.events();
    let notes = of(&events, "note");
    let warnings = notes.iter().filter(|n| {
        n["text"]
            .as_str()
            .is_some_and(|t| t.contains("2 hosts are named web1"))
    });

    assert_eq!(warnings.count(), 1, "{ran}");
    let ends: Vec<&Value> = of(&events, "host")
        .into_iter()
        .filter(|e| e["seconds"].is_number())
        .collect();
    let address = |end: &&Value| end["address"].as_str().map(String::from);
    let twins: Vec<String> = ends
        .iter()
        .filter(|e| e["host"] == "web1")
        .filter_map(address)
        .collect();

    assert_eq!(twins.len(), 2, "{ran}");
    assert_ne!(twins[0], twins[1], "{ran}");
    assert!(
        ends.iter()
            .any(|e| e["host"] == "web3" && e["address"].is_null()),
        "its name tells it apart: {ran}"
    );

    let both = [
        format!("web1 ({})", twins[0]),
        format!("web1 ({})", twins[1]),
    ];

    let both = [both[0].as_str(), both[1].as_str()];
    write(&lab.site().join("page"), "a new page");
    lab.makuo(&["deploy", "www.toml"])
        .exits(0)
        .says(&both)
        .says(&["2 hosts are named web1"]);
    lab.makuo(&["members"])
        .exits(0)
        .says(&["2 hosts are named web1"]);

    lab.makuo(&["status"])
        .exits(0)
        .says(&both)
        .says(&["3 hosts", "2 hosts are named web1"]);

    // One host differs, and the status names that host.
    write(&lab.hosts[1].tree().join("page"), "a strange page");

    let ran = lab.makuo(&["diff", "--json", "www.toml"]).exits(1);
    let events = ran.events();
    let changes = of(&events, "change");
    assert_eq!(names(&changes[0]["hosts"]), ["web1"], "{ran}");
    let other = names(&changes[0]["addresses"])[0].to_string();
    assert!(twins.contains(&other), "{ran}");

    lab.makuo(&["diff", "www.toml"])
        .exits(1)
        .says(&[&format!("web1 ({other}): 1 changed")]);
}

#[test]
fn a_host_whose_tree_is_empty_or_another_one_looks_at_once_and_says_what_it_found() {
    for is_other in [false, true] {
        let Some(mut lab) = Lab::loopback(2) else {
            return;
        };
        for name in ["one", "two"] {
            write(&lab.site().join(name), name);
        }
        lab.deploy(&[]).exits(0);
        lab.hosts[1].stop();
        let tree = lab.hosts[1].tree();
        std::fs::rename(&tree, lab.path("moved")).expect("there");
        std::fs::create_dir(&tree).expect("new");
        if is_other {
            write(&tree.join("one"), "one");
        }
        lab.hosts[1].start();
        until("the host to have looked", || {
            let found = standing(&lab.makuo(&["status", "--json"]), "web2");
            // The existing file has another time, and so has the directory.
            found["drift"]["drifted"] == 1 && found["drift"]["paths"].as_u64() >= Some(2)
        });
        lab.makuo(&["status"])
            .exits(1)
            .says(&["paths are not as its release says"]);
        lab.deploy(&[]).exits(0);
        lab.all_same(&lab.site());
        let found = standing(&lab.makuo(&["status", "--json"]).exits(0), "web2");
        assert_eq!(found["drift"]["paths"], 0, "{found}");
    }
}

#[test]
fn a_refusal_that_an_index_may_have_caused_is_looked_into_after_a_restart_too() {
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };

    let is_doubted = |lab: &Lab| {
        lab.hosts[0]
            .tree()
            .with_file_name("state")
            .join("www/doubt")
            .exists()
    };

    for n in 0..10 {
        write(&lab.site().join(n.to_string()), "x");
    }

    lab.deploy(&[]).exits(0);
    lab.deploy(&[]).exits(0);
    for n in 0..9 {
        std::fs::remove_file(lab.site().join(n.to_string())).expect("there");
    }

    lab.spec("[delete]\nextras = true\nmax = 2\n");
    lab.deploy(&[]).exits(3).says(&["would be deleted"]);
    assert!(is_doubted(&lab));
    lab.hosts[0].restart();
    assert!(is_doubted(&lab));

    // After a complete scan, the refusal is trusted.
    lab.deploy(&[]).exits(3).says(&["would be deleted"]);
    assert!(!is_doubted(&lab));
}

#[test]
fn a_monitor_tells_nobody_from_all_is_well() {
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };
    for command in [&["status"][..], &["members"]] {
        lab.makuo(command).exits(0);
    }
    lab.hosts[0].kill();
    for command in [
        &["status"][..],
        &["status", "www"],
        &["members"],
        &["log", "www"],
    ] {
        let wait = [command, &["--wait", "300ms"]].concat();
        let ran = lab.makuo(&wait).exits(3).says(&["no hosts answered at"]);
        assert!(ran.out.is_empty(), "{ran}");
        let ran = lab.makuo(&[&wait[..], &["--json"]].concat()).exits(3);
        assert_eq!(ran.result()["exit"], 3, "{ran}");
    }
}

#[test]
fn a_host_is_not_behind_a_release_for_others() {
    let Some(lab) = Lab::loopback(2) else { return };
    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    write(&lab.site().join("page"), "for web1");
    lab.makuo(&["deploy", "www.toml", "-t", "web1"]).exits(0);

    let ran = lab
        .makuo(&["status"])
        .exits(0)
        .says(&["web1  www@2", "web2  www@1", "none behind"]);
    assert!(!ran.out.contains("behind"), "{ran}");
    let ran = lab.makuo(&["log", "www"]).exits(0);
    assert!(!ran.out.contains("behind"), "{ran}");
}

#[test]
fn a_peer_with_another_key_is_named_by_each_question() {
    let Some(mut lab) = Lab::loopback(2) else {
        return;
    };
    write(&lab.site().join("page"), "one");
    lab.deploy(&[]).exits(0);
    lab.hosts[1].plain = true;
    lab.hosts[1].restart();

    let commands = [&["status"][..], &["log", "www"], &["members"]];
    for command in commands {
        until("the host without a key to be named", || {
            let ran = lab.makuo(command);
            assert_eq!(ran.code, 0, "{ran}");
            ran.err.contains("127.0.0.1 speaks without a group key")
        });
        let json = lab.makuo(&[command, &["--json"]].concat());
        assert_eq!(json.result()["strangers"], 1, "{json}");
        assert_eq!(of(&json.events(), "stranger").len(), 1, "{json}");
    }

    lab.hosts[0].kill();
    for command in commands {
        until("the host alone to be named", || {
            let ran = lab.makuo(command).exits(3);
            ran.err
                .contains("127.0.0.1 speaks without a group key: do the hosts have")
        });
    }
}

#[test]
fn a_watched_status_has_a_line_for_each_change() {
    let Some(mut lab) = Lab::loopback(2) else {
        return;
    };
    for command in ["status", "members"] {
        let mut watch = lab.start(&[command, "--watch", "--json"]);
        until("both hosts to be listed", || watch.events().len() >= 2);
        lab.hosts[1].kill();
        watch.until_event("a host to be gone", |e| e["event"] == "gone");
        watch.signal(nix::sys::signal::Signal::SIGINT);
        let ran = watch.wait().exits(0);
        let events = ran.events();
        let gone = of(&events, "gone");
        assert_eq!((gone.len(), &gone[0]["host"]), (1, &"web2".into()), "{ran}");
        ran.result();
        lab.hosts[1].start();
    }
}
