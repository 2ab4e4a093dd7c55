//! Rollback to an earlier release: by hosts with and without a retained copy, and by keys limited
//! to rollbacks.

use std::path::PathBuf;

use crate::support::{self, Lab, Noise, Ran, copy, read, write};

/// Bytes of the file that every release changes.
const LARGE: usize = 2_000_000;
/// Largest number of bytes sent by a rollback among hosts with a retained copy, regardless of its
/// size.
const LITTLE: u64 = 400_000;

/// Makes a lab of hosts with three past releases, copied to `r1`, `r2` and `r3`; each host retains
/// five.
fn released(hosts: usize, more: &str) -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    lab.spec(&format!("{}{more}", support::DELETE));
    let back = lab.keygen("back");
    let keys = read(&lab.path("authorized_keys"));
    write(
        &lab.path("authorized_keys"),
        format!(
            "{}tree=\"www\",rollback {back}",
            String::from_utf8_lossy(&keys)
        ),
    );

    for i in 1..=hosts {
        let host = lab.host(&format!("web{i}"));
        host.rule("keep = 5");
        host.start();
    }

    Noise::new(1).tree(&lab.site(), 20, 2000);
    for n in 1..=3u64 {
        write(&lab.site().join("large"), Noise::new(n).bytes(LARGE));
        write(&lab.site().join(format!("only{n}")), format!("release {n}"));
        if n > 1 {
            std::fs::remove_file(lab.site().join(format!("only{}", n - 1))).expect("there");
        }
        lab.deploy(&[]).exits(0);
        copy(&lab.site(), &lab.path(&format!("r{n}")));
    }

    Some(lab)
}

fn config(lab: &Lab, host: &str) -> String {
    let path: PathBuf = lab.path(host).join("makuo.toml");
    path.to_str().expect("UTF-8").to_string()
}

fn sent(ran: &Ran) -> u64 {
    ran.result()["bytes_sent"].as_u64().expect("a number")
}

#[test]
fn hosts_go_back_to_what_they_kept_and_next_to_nothing_is_sent() {
    for more in ["", "[commit]\nlayout = \"swap\"\n"] {
        let Some(lab) = released(3, more) else { return };
        let on = config(&lab, "web1");
        let ran = lab.makuo(&["rollback", "www", "-n", "-c", &on]).exits(0);
        ran.says(&["large", "only2", "*deleting"]);
        lab.all_same(&lab.path("r3"));
        let ran = lab
            .makuo(&["rollback", "www", "--json", "--expect", "3", "-c", &on])
            .exits(0);
        lab.all_same(&lab.path("r2"));
        let result = ran.result();
        assert_eq!(
            (result["serial"].as_u64(), result["rollback_to"].as_u64()),
            (Some(4), Some(2)),
            "{ran}"
        );
        assert!(sent(&ran) < LITTLE, "{ran}");
        // From any machine, as all hosts retained the release.
        let ran = lab
            .makuo(&["rollback", "www", "--json", "--to", "1"])
            .exits(0);
        lab.all_same(&lab.path("r1"));
        assert!(sent(&ran) < LITTLE, "{ran}");
        lab.makuo(&["rollback", "www", "--to", "www@3"])
            .exits(0)
            .says(&["www@6 (rollback to www@3)"]);
        lab.all_same(&lab.path("r3"));
        lab.makuo(&["rollback", "www", "--to", "99"])
            .exits(3)
            .says(&["www@99", "kept are"]);
        lab.makuo(&["rollback", "www", "--expect", "9", "--timeout", "2s"])
            .exits(3)
            .says(&["of 9 expected hosts answered"]);
        lab.all_same(&lab.path("r3"));
    }
}

#[test]
fn a_host_that_did_not_keep_it_is_served_by_one_that_did() {
    let Some(mut lab) = released(2, "") else {
        return;
    };

    lab.host("web3").start();
    let refused = lab.makuo(&["rollback", "www", "--expect", "3"]).exits(3);
    refused.says(&[
        "web3 did not keep all of www@2",
        "run the rollback on a host that kept it",
    ]);
    lab.hosts[..2]
        .iter()
        .for_each(|host| support::same(&lab.path("r3"), &host.tree()));

    assert_eq!(
        std::fs::read_dir(lab.hosts[2].tree())
            .expect("there")
            .count(),
        0
    );

    let on = config(&lab, "web2");
    let ran = lab
        .makuo(&[
            "rollback", "www", "--json", "--expect", "3", "-c", &on, "--to", "2",
        ])
        .exits(0);

    lab.all_same(&lab.path("r2"));
    assert!(sent(&ran) > LARGE as u64, "{ran}");
}

#[test]
fn a_key_for_rollbacks_goes_back_and_does_no_more() {
    let Some(lab) = released(2, "") else { return };
    let (key, on) = (
        lab.path("back").to_str().expect("UTF-8").to_string(),
        config(&lab, "web1"),
    );
    lab.makuo(&["rollback", "www", "-k", &key, "-c", &on])
        .exits(0);

    lab.all_same(&lab.path("r2"));
    write(&lab.site().join("large"), "new");
    lab.makuo(&["deploy", "www.toml", "-k", &key])
        .exits(3)
        .says(&["may not deploy www"]);
    lab.all_same(&lab.path("r2"));

    // A key may roll back to its own releases, and so may the other key.
    lab.makuo(&["rollback", "www", "--to", "1", "-k", &key, "-c", &on])
        .exits(0);
    lab.makuo(&["rollback", "www", "--to", "4", "-c", &on])
        .exits(0);

    lab.all_same(&lab.path("r2"));
}

#[test]
fn what_an_unknown_key_signed_is_not_signed_again() {
    let Some(lab) = released(1, "") else { return };
    lab.keygen("stranger");
    let key = lab.path("stranger").to_str().expect("UTF-8").to_string();
    lab.makuo(&["rollback", "www", "-k", &key])
        .exits(3)
        .says(&["SHA256:", "--authorized-keys"]);

    // Trusted by the command, but not by the hosts.
    let keys = lab
        .path("authorized_keys")
        .to_str()
        .expect("UTF-8")
        .to_string();

    lab.makuo(&["rollback", "www", "-k", &key, "--authorized-keys", &keys])
        .exits(3)
        .says(&["may not rollback www"]);

    lab.all_same(&lab.path("r3"));
}

/// Makes hosts web1 to web3 with a retention of three releases; the first release is copied to
/// `r1`.
fn three(more: &str) -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    lab.spec(&format!("{}{more}", support::DELETE));
    for i in 1..=3 {
        lab.host(&format!("web{i}")).start();
    }

    write(&lab.site().join("page"), "good");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("r1"));

    Some(lab)
}

/// Returns the serials listed by `makuo log`, newest first.
fn logged(lab: &Lab) -> Vec<u64> {
    let ran = lab.makuo(&["log", "www", "--json"]).exits(0);
    let events = ran.events();
    events
        .iter()
        .filter(|e| e["event"] == "release")
        .filter_map(|e| e["serial"].as_u64())
        .collect()
}

#[test]
fn deploys_that_change_nothing_are_no_history() {
    for more in ["", "[commit]\nlayout = \"swap\"\n"] {
        let Some(lab) = three(more) else { return };
        write(&lab.site().join("page"), "broken");
        lab.deploy(&[]).exits(0);
        for _ in 0..3 {
            let ran = lab.deploy(&[]).exits(0);
            assert_eq!(ran.result()["unchanged"].as_u64(), Some(3), "{ran}");
        }
        // All hosts run the last release, which equals an earlier one in their history.
        assert_eq!(logged(&lab), [5, 1]);
        lab.makuo(&["rollback", "www"])
            .exits(0)
            .says(&["back from www@5 to www@1", "3 of 3 hosts"]);
        lab.all_same(&lab.path("r1"));
        assert_eq!(logged(&lab), [6, 5]);
    }
}

#[test]
fn a_canary_by_hand_is_nothing_that_others_go_back_to() {
    let Some(lab) = three("") else { return };
    write(&lab.site().join("page"), "broken");
    write(&lab.site().join("canary"), "of web1 only");
    lab.makuo(&["deploy", "www.toml", "-t", "web1"]).exits(0);
    std::fs::remove_file(lab.site().join("canary")).expect("there");
    lab.deploy(&[]).exits(0);
    lab.makuo(&["rollback", "www"]).exits(0).says(&[
        "back from www@3 to www@1",
        "3 of 3 hosts",
        "web1-web3: 2 changed",
    ]);

    lab.all_same(&lab.path("r1"));
    // The same content, first on one host and later on all, is one release.
    write(&lab.site().join("page"), "second");
    lab.makuo(&["deploy", "www.toml", "-t", "web1"]).exits(0);
    lab.makuo(&["rollback", "www"]).exits(3).says(&[
        "hosts run different releases",
        "www@5 on web1",
        "--to",
    ]);

    lab.deploy(&[]).exits(0);
    lab.makuo(&["rollback", "www"])
        .exits(0)
        .says(&["www@4", "3 of 3 hosts"]);

    lab.all_same(&lab.path("r1"));
}

#[test]
fn a_rollback_that_would_change_nothing_says_so_and_is_no_success() {
    let Some(lab) = three("") else { return };
    lab.makuo(&["rollback", "www"])
        .exits(3)
        .says(&["no release of www to go back to"]);
    lab.makuo(&["rollback", "www", "--to", "1"])
        .exits(3)
        .says(&["nothing to change", "web1-web3"]);

    assert_eq!(logged(&lab), [1]);
    write(&lab.hosts[1].tree().join("page"), "drifted");
    lab.makuo(&["rollback", "www", "--to", "1", "-n"])
        .exits(0)
        .says(&["back from www@1 to www@1", "page"]);
    let on = config(&lab, "web1");
    lab.makuo(&["rollback", "www", "--to", "1", "-c", &on])
        .exits(0)
        .says(&["web2: 1 changed"]);

    lab.all_same(&lab.path("r1"));
}

#[test]
fn a_rollback_leaves_alone_what_the_running_release_excludes() {
    for layout in ["", "[commit]\nlayout = \"swap\"\n"] {
        let Some(mut lab) = three(layout) else { return };
        lab.hosts.iter_mut().for_each(|host| {
            host.rule("repair = \"1s\"");
            host.restart();
        });
        let spec = |exclude: &str| format!("exclude = {exclude}\n{}{layout}", support::DELETE);
        lab.spec(&spec(r#"["/cache/", "/local.conf"]"#));
        write(&lab.site().join("page"), "second");
        lab.deploy(&[]).exits(0);
        let own = ["cache/a", "local.conf"];
        std::fs::create_dir(lab.hosts[0].tree().join("cache")).expect("new");
        own.iter()
            .for_each(|path| write(&lab.hosts[0].tree().join(path), "the host's own"));
        lab.spec(&spec(r#"["/cache/", "/local.conf", "/more/"]"#));
        write(&lab.site().join("page"), "third");
        lab.deploy(&[]).exits(0);
        std::fs::create_dir(lab.hosts[0].tree().join("more")).expect("new");
        write(&lab.hosts[0].tree().join("more/x"), "the host's own");
        let all_there = |lab: &Lab| {
            for path in ["cache/a", "local.conf", "more/x"] {
                assert_eq!(
                    read(&lab.hosts[0].tree().join(path)),
                    b"the host's own",
                    "{path}"
                );
            }
        };

        let shown = lab.makuo(&["rollback", "www", "--to", "1", "-n"]).exits(0);
        assert!(!shown.out.contains("deleting"), "{shown}");
        shown.says(&["left alone, as excluded by what runs: /cache/, /local.conf, /more/"]);
        // Back to the first, forward to the second, and back again.
        for (to, page) in [("1", "good"), ("2", "second"), ("4", "good")] {
            lab.makuo(&["rollback", "www", "--to", to]).exits(0);
            lab.hosts
                .iter()
                .for_each(|host| assert_eq!(read(&host.tree().join("page")), page.as_bytes()));
            all_there(&lab);
        }
        // The host does not report drift either.
        let looks = |lab: &Lab| {
            let ran = lab.makuo(&["status", "--json", "www"]);
            let events = ran.events();
            let web1 = events
                .iter()
                .find(|e| e["host"] == "web1")
                .expect("web1")
                .clone();
            (
                web1["drift"]["looks"].as_u64().unwrap_or(0),
                web1["drift"]["drifted"].as_u64(),
            )
        };
        let before = looks(&lab);
        support::until("web1 to look at its tree", || looks(&lab).0 > before.0 + 1);
        assert_eq!(looks(&lab).1, before.1, "{}", lab.hosts[0].log());
        all_there(&lab);
        // A deployment follows its spec.
        lab.spec(&format!("{}{layout}", support::DELETE));
        lab.deploy(&[]).exits(0);
        lab.all_same(&lab.site());
    }
}

#[test]
fn damaged_marks_of_a_release_are_named_by_a_diff() {
    let Some(lab) = three("") else { return };
    lab.diff(&[]).exits(0);
    for mark in ["current", "serial"] {
        let path = lab.hosts[1].state().join("www").join(mark);
        let whole = read(&path);
        write(&path, &whole[..whole.len() / 2]);
        let ran = lab.diff(&[]);
        assert!(
            ran.code != 0 && ran.host("web2").1.contains("is damaged"),
            "{ran}"
        );
        write(&path, whole);
    }

    lab.diff(&[]).exits(0);
}
