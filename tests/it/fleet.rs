//! Fleet-wide commits: votes before the commit, batches, health checks afterwards, and reverts.

use std::path::PathBuf;

use super::NETWORK;
use crate::support::{self, DELETE, Lab, Noise, Ran, copy, same, until, write};

/// Makes five hosts with a first release, copied to `old`, and then with `rules`; the source has a
/// second release.
fn fleet(rules: impl Fn(&Lab, usize) -> Option<String>) -> Option<Lab> {
    let mut lab = NETWORK.hosts(5)?;
    Noise::new(1).tree(&lab.site(), 20, 2000);
    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("old"));

    for number in 0..5 {
        if let Some(rule) = rules(&lab, number + 1) {
            lab.hosts[number].rule(&rule);
            lab.hosts[number].restart();
        }
    }

    write(&lab.site().join("page"), "new");
    std::fs::remove_file(lab.site().join("dir0/sub0/file0")).expect("there");
    write(&lab.site().join("added/file"), "new");

    Some(lab)
}

/// Makes a hook from a shell script.
fn hook(key: &str, script: &str) -> String {
    format!("{key} = [\"/bin/sh\", \"-c\", {script:?}]")
}

/// Appends a hook's environment to the lab's file `log`.
fn note(lab: &Lab) -> String {
    let words =
        "$MAKUO_HOST $MAKUO_PHASE $MAKUO_CAUSE $MAKUO_TREE@$MAKUO_SERIAL $(cat $MAKUO_PATH/page)";
    format!("echo \"{words}\" >> {}", lab.path("log").display())
}

fn noted(lab: &Lab) -> Vec<String> {
    std::fs::read_to_string(lab.path("log"))
        .unwrap_or_default()
        .lines()
        .map(String::from)
        .collect()
}

fn forget(lab: &Lab) {
    let _ = std::fs::remove_file(lab.path("log"));
}

#[track_caller]
fn state(ran: &Ran, host: &str) -> String {
    ran.host(host).0
}

const REVERT: &str = "[commit]\non_failure = \"revert\"\n";

#[test]
fn one_unhealthy_host_takes_all_of_them_back() {
    // Healthy while the page is the old one.
    let sick = "echo the page says $(cat $MAKUO_PATH/page); grep -q old $MAKUO_PATH/page";
    let Some(lab) = fleet(|lab, n| {
        let health = if n == 4 {
            sick.to_string()
        } else {
            "true".into()
        };
        let short = "health_deadline = \"500ms\"\nhealth_interval = \"100ms\"";
        Some(format!(
            "{}\n{}\n{short}",
            hook("after", &note(lab)),
            hook("health", &health)
        ))
    }) else {
        return;
    };

    lab.spec(&format!("{DELETE}{REVERT}"));
    let ran = lab.deploy(&[]).exits(3);
    lab.all_same(&lab.path("old"));
    for number in 1..=5 {
        assert_eq!(state(&ran, &format!("web{number}")), "reverted", "{ran}");
    }

    assert_eq!(ran.result()["committed"].as_u64(), Some(0), "{ran}");
    let error = ran.result()["error"].as_str().expect("why").to_string();
    assert!(
        error.contains("web4: health check") && error.contains("exit status 1"),
        "{ran}"
    );
    assert!(
        error.contains("the page says new"),
        "the output of the check: {ran}"
    );

    assert!(
        ran.host("web4")
            .1
            .contains("went back to www@1, for the health check"),
        "{ran}"
    );

    // Services restarted with the new release are restarted with the old one.
    let notes = noted(&lab);
    assert_eq!(
        notes
            .iter()
            .filter(|l| l.contains("after commit www@2 new"))
            .count(),
        5,
        "{notes:?}"
    );

    assert_eq!(
        notes
            .iter()
            .filter(|l| l.contains("after revert www@2 old"))
            .count(),
        5,
        "{notes:?}"
    );

    // The same with an exchange of the whole tree.
    lab.spec(&format!("{DELETE}{REVERT}layout = \"swap\"\n"));

    let human = lab.makuo(&["deploy", "www.toml"]).exits(3);
    human.says(&[
        "www@3 was taken back",
        "web4",
        "the page says new",
        "went back to www@1",
    ]);

    lab.all_same(&lab.path("old"));

    // The release itself failed: a later one is accepted.
    write(&lab.site().join("page"), "older than old");
    lab.deploy(&[]).exits(0);

    lab.all_same(&lab.site());
}

#[test]
fn a_sick_host_is_named_where_nobody_goes_back() {
    let sick = |lab: &Lab| {
        format!(
            "test -e {} || {{ echo no reload; exit 7; }}",
            lab.path("well").display()
        )
    };

    let Some(mut lab) = fleet(|lab, n| (n == 2).then(|| hook("after", &sick(lab)))) else {
        return;
    };

    let ran = lab.deploy(&[]).exits(4);
    lab.all_same(&lab.site());
    assert_eq!(state(&ran, "web2"), "unhealthy", "{ran}");
    assert_eq!(state(&ran, "web1"), "committed", "{ran}");
    ran.says(&["exit status 7", "no reload"]);

    // No file changes, and the failed hook runs again.
    lab.hosts[1].restart();
    lab.makuo(&["status", "www"])
        .exits(1)
        .says(&["web2", "exit status 7", "no reload"]);
    let ran = lab
        .deploy(&[])
        .exits(4)
        .says(&["exit status 7", "no reload"]);

    assert_eq!(state(&ran, "web2"), "unhealthy", "{ran}");
    assert_eq!(state(&ran, "web1"), "unchanged", "{ran}");
    write(&lab.path("well"), "");
    let ran = lab.deploy(&[]).exits(0);
    assert_eq!(state(&ran, "web2"), "unchanged", "{ran}");
    std::fs::remove_file(lab.path("well")).expect("there");

    lab.deploy(&[]).exits(0);
}

#[test]
fn a_recheck_finds_the_host_that_became_unhealthy_and_no_deploy_passes_over_it() {
    let Some(lab) = fleet(|lab, n| {
        let sick = format!("test ! -e {}", lab.path("sick").display());
        let short = "health_deadline = \"300ms\"\nhealth_interval = \"100ms\"";
        (n == 4).then(|| {
            format!(
                "{}\n{}\n{short}",
                hook("after", &note(lab)),
                hook("health", &sick)
            )
        })
    }) else {
        return;
    };

    lab.spec(&format!("{DELETE}[commit]\nbatches = [1, 1]\n"));
    lab.deploy(&[]).exits(0);
    write(&lab.path("sick"), "");
    lab.deploy(&[]).exits(0);
    let ran = lab
        .deploy(&["--recheck"])
        .exits(4)
        .says(&["web4", "exit status 1"]);

    assert_eq!(state(&ran, "web4"), "unhealthy", "{ran}");
    // The failure is remembered from now on, although earlier batches are healthy.
    let ran = lab.deploy(&[]).exits(4);
    assert_eq!(state(&ran, "web4"), "unhealthy", "{ran}");
    assert_eq!(state(&ran, "web1"), "unchanged", "{ran}");
    std::fs::remove_file(lab.path("sick")).expect("there");
    lab.deploy(&[]).exits(0);

    assert_eq!(
        noted(&lab).len(),
        1,
        "`after` passed the first time: {:?}",
        noted(&lab)
    );
}

#[test]
fn a_host_that_says_no_keeps_all_of_them_as_they_are() {
    let Some(lab) = fleet(|lab, n| {
        let veto = format!("{}; test -e {}", note(lab), lab.path("yes").display());
        (n > 3).then(|| format!("{}\n{}", hook("before", &veto), hook("after", &note(lab))))
    }) else {
        return;
    };

    write(&lab.site().join("big"), Noise::new(2).bytes(3 << 20));
    // web4 and web5 vote no.
    let ran = lab.deploy(&[]).exits(3).says(&["before hook"]);
    assert!(ran.result()["bytes_sent"].as_u64() > Some(3 << 20), "{ran}");
    lab.all_same(&lab.path("old"));
    assert_eq!(state(&ran, "web4"), "refused", "{ran}");
    let (aborted, why) = ran.host("web1");
    assert_eq!(aborted, "aborted", "{ran}");
    assert!(
        why.starts_with("not changed: 3 of 5 hosts are ready"),
        "{ran}"
    );

    assert_eq!(noted(&lab).len(), 2, "{:?}", noted(&lab));
    // After agreement, `before` runs once before any change, and `after` runs once.
    write(&lab.path("yes"), "");
    forget(&lab);
    let ran = lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());

    // Content staged in the first attempt is not sent again.
    assert!(ran.result()["bytes_sent"].as_u64() < Some(200_000), "{ran}");
    let mut notes = noted(&lab);
    notes.sort();
    let expected = [
        "web4 after commit",
        "web4 before commit",
        "web5 after commit",
        "web5 before commit",
    ]
    .map(String::from);

    let shown: Vec<String> = notes
        .iter()
        .map(|l| l.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(shown, expected);

    assert!(
        notes[1].ends_with("www@3 old") && notes[0].ends_with("www@3 new"),
        "{notes:?}"
    );
}

#[test]
fn batches_go_one_after_the_other_and_a_sick_canary_is_the_last() {
    let Some(lab) = fleet(|lab, n| {
        let sick = format!("test ! -e {}", lab.path("sick").display());
        let short = "health_deadline = \"300ms\"\nhealth_interval = \"100ms\"";
        let health = if n == 1 {
            format!("{}\n{short}", hook("health", &sick))
        } else {
            String::new()
        };
        Some(format!("{}\n{health}", hook("after", &note(lab))))
    }) else {
        return;
    };

    lab.spec(&format!("{DELETE}[commit]\nbatches = [1, \"40%\"]\n"));
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    let hosts: Vec<String> = noted(&lab).iter().map(|l| l[..4].to_string()).collect();
    let batch = |range: std::ops::Range<usize>| {
        let mut batch = hosts[range].to_vec();
        batch.sort();
        batch
    };

    assert_eq!(
        (batch(0..1), batch(1..3), batch(3..5)),
        (
            vec!["web1".to_string()],
            vec!["web2".into(), "web3".into()],
            vec!["web4".into(), "web5".into()]
        )
    );

    copy(&lab.site(), &lab.path("second"));

    write(&lab.site().join("page"), "newer");
    write(&lab.path("sick"), "");
    let ran = lab.deploy(&[]).exits(4);
    same(&lab.site(), &lab.hosts[0].tree());
    lab.hosts[1..]
        .iter()
        .for_each(|host| same(&lab.path("second"), &host.tree()));

    assert_eq!(state(&ran, "web1"), "unhealthy", "{ran}");
    for host in ["web2", "web3", "web4", "web5"] {
        let (state, why) = ran.host(host);
        assert_eq!(state, "aborted", "{ran}");
        assert!(why.starts_with("not changed: web1"), "{ran}");
    }

    // With revert enabled, the canary reverts, too.
    lab.spec(&format!(
        "{DELETE}[commit]\nbatches = [1]\non_failure = \"revert\"\n"
    ));
    std::fs::remove_file(lab.path("sick")).expect("there");
    lab.deploy(&[]).exits(0);
    write(&lab.site().join("page"), "newest");

    copy(&lab.hosts[0].tree(), &lab.path("third"));
    write(&lab.path("sick"), "");
    let ran = lab.deploy(&[]).exits(3);
    assert_eq!(state(&ran, "web1"), "reverted", "{ran}");

    lab.all_same(&lab.path("third"));
}

#[test]
fn a_canary_that_failed_is_checked_again_by_every_deploy() {
    let Some(mut lab) = fleet(|lab, n| {
        let sick = format!("test ! -e {}", lab.path("sick").display());
        let short = "health_deadline = \"300ms\"\nhealth_interval = \"100ms\"";
        (n == 1).then(|| {
            format!(
                "{}\n{}\n{short}",
                hook("after", &note(lab)),
                hook("health", &sick)
            )
        })
    }) else {
        return;
    };

    lab.spec(&format!("{DELETE}[commit]\nbatches = [1]\n"));
    write(&lab.path("sick"), "");
    for round in 0..3 {
        let ran = lab.deploy(&[]).exits(4);
        assert_eq!(state(&ran, "web1"), "unhealthy", "{ran}");
        assert_eq!(
            lab.with_release(),
            ["web1"],
            "the others wait for the canary"
        );
        if round == 1 {
            lab.hosts[0].restart();
            lab.makuo(&["status", "www"])
                .exits(1)
                .says(&["health check", "exit status 1"]);
        }
    }

    assert_eq!(
        noted(&lab).len(),
        1,
        "`after` runs where something changes: {:?}",
        noted(&lab)
    );

    std::fs::remove_file(lab.path("sick")).expect("there");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn a_host_that_dies_between_ready_and_commit_is_told_apart() {
    // The first batch waits for a file, which leaves time between the batches.
    let Some(mut lab) = fleet(|lab, n| {
        let wait = format!(
            "while test ! -e {}; do sleep 0.05; done",
            lab.path("go").display()
        );
        (n == 1).then(|| hook("after", &wait))
    }) else {
        return;
    };

    lab.spec(&format!("{DELETE}[commit]\nbatches = [1]\n"));
    let mut deploy = lab.start(&[
        "deploy",
        "--json",
        "www.toml",
        "--expect",
        "5",
        "--timeout",
        "2s",
    ]);

    deploy.until_event("the canary", |e| {
        e["event"] == "host" && e["host"] == "web1" && e["state"] == "checking"
    });
    lab.hosts[2].kill();
    write(&lab.path("go"), "");
    let ran = deploy.wait().exits(4).says(&["web3"]);

    // The host was ready when the order was sent.
    assert_eq!(state(&ran, "web3"), "unknown", "{ran}");
    assert_eq!(lab.with_release(), ["web1", "web2", "web4", "web5"]);
    same(&lab.path("old"), &lab.hosts[2].tree());

    // After its return, the host is listed separately from the others.
    lab.hosts[2].start();
    let ran = lab.makuo(&["status", "www", "--json"]).exits(1);
    for event in ran.events().iter().filter(|e| e["event"] == "host") {
        let late = event["host"] == "web3";
        assert_eq!(
            (event["serial"].as_u64(), event["behind"].as_bool()),
            (Some(2 - u64::from(late)), Some(late)),
            "{ran}"
        );
    }

    lab.makuo(&["status", "www"])
        .exits(1)
        .says(&["behind", "web3  www@1", "web1  www@2"]);
    lab.deploy(&[]).exits(0);

    lab.all_same(&lab.site());
}

/// Returns the path of a file, and a script that blocks until the file exists.
fn gate(lab: &Lab) -> (PathBuf, String) {
    let go = lab.path("go");
    let wait = format!("while test ! -e {}; do sleep 0.05; done", go.display());
    (go, wait)
}

/// Starts a deployment with an answer timeout of two seconds.
fn impatient(lab: &Lab) -> support::Running {
    lab.start(&[
        "deploy",
        "--json",
        "www.toml",
        "--expect",
        "5",
        "--timeout",
        "2s",
    ])
}

#[track_caller]
fn until_state(deploy: &mut support::Running, host: &str, state: &str) {
    deploy.until_event(state, |e| {
        e["event"] == "host" && e["host"] == host && e["state"] == state
    });
}

#[test]
fn a_host_whose_daemon_dies_during_its_checks_has_the_release() {
    let Some(mut lab) = fleet(|lab, n| (n == 2).then(|| hook("after", &gate(lab).1))) else {
        return;
    };

    let mut deploy = lab.start(&[
        "deploy",
        "--json",
        "www.toml",
        "-t",
        "web2",
        "--timeout",
        "2s",
    ]);

    until_state(&mut deploy, "web2", "checking");
    lab.hosts[1].kill();
    let ran = deploy.wait().exits(4);
    assert_eq!(state(&ran, "web2"), "checking", "{ran}");
    assert!(
        ran.host("web2")
            .1
            .contains("has the release, and has been silent"),
        "{ran}"
    );

    assert_eq!(lab.with_release(), ["web2"]);
}

#[test]
fn a_host_that_falls_silent_before_it_is_ordered_to_commit_is_as_before() {
    let Some(lab) = fleet(|lab, n| (n == 2).then(|| hook("before", &gate(lab).1))) else {
        return;
    };

    let mut deploy = impatient(&lab);
    until_state(&mut deploy, "web2", "ready");
    lab.hosts[1].place.cut("output", "");

    // The host goes silent after the request to prepare: no host is ordered to commit.
    let ran = deploy.wait().exits(3);
    assert_eq!(state(&ran, "web2"), "absent", "{ran}");
    write(&gate(&lab).0, "");

    lab.all_same(&lab.path("old"));
}

#[test]
fn a_host_that_falls_silent_once_it_is_ordered_to_commit_is_unknown() {
    let Some(lab) = fleet(|lab, n| (n == 1).then(|| hook("after", &gate(lab).1))) else {
        return;
    };

    lab.spec(&format!("{DELETE}[commit]\nbatches = [1]\n"));
    let mut deploy = lab.start(&[
        "deploy",
        "www.toml",
        "--expect",
        "5",
        "--timeout",
        "5s",
        "-v",
    ]);

    support::until("the canary", || {
        deploy.talk().contains("web1 checking") || deploy.is_over()
    });
    lab.hosts[1].place.cut("output", "");
    write(&gate(&lab).0, "");
    let ran = deploy.wait().exits(4);
    let ran = ran.says(&[
        "web2 unknown: ordered to commit, and has been silent",
        "4 hosts with www@2, 1 host unknown",
    ]);

    assert!(!ran.err.contains("no host changed"), "{ran}");
    assert_eq!(lab.with_release(), ["web1", "web2", "web3", "web4", "web5"]);
}

#[test]
fn a_sender_that_hears_nothing_of_the_commit_does_not_say_that_no_host_changed() {
    let Some(lab) = fleet(|lab, _| Some(hook("after", &gate(lab).1))) else {
        return;
    };

    let mut deploy = impatient(&lab);
    until_state(&mut deploy, "web1", "ready");
    lab.admin.cut("input", "");
    write(&gate(&lab).0, "");
    let ran = deploy.wait();
    let unknown = (1..=5)
        .filter(|n| state(&ran, &format!("web{n}")) == "unknown")
        .count();

    match ran.code {
        // The order was sent.
        4 => assert!(
            unknown > 0 && ran.result()["unknown"].as_u64() == Some(unknown as u64),
            "{ran}"
        ),
        // The order was not sent, since not all hosts had reported ready.
        code => {
            assert_eq!(code, 3, "{ran}");
            lab.all_same(&lab.path("old"));
        }
    }
}

#[test]
fn a_host_that_is_killed_after_its_commit_and_does_not_hear_that_all_go_back_is_unknown() {
    let Some(mut lab) = fleet(|lab, n| match n {
        2 => Some(hook("after", &gate(lab).1)),
        4 => Some(format!(
            "{}\nhealth_deadline = \"3s\"",
            hook("health", "false")
        )),
        _ => None,
    }) else {
        return;
    };

    lab.spec(&format!("{DELETE}{REVERT}"));
    let mut deploy = impatient(&lab);
    until_state(&mut deploy, "web2", "checking");
    lab.hosts[1].kill();
    let ran = deploy.wait().exits(4).says(&["ordered to go back"]);
    assert_eq!(state(&ran, "web2"), "unknown", "{ran}");
    assert_eq!(state(&ran, "web1"), "reverted", "{ran}");

    assert_eq!(lab.with_release(), ["web2"]);
}

#[test]
fn a_daemon_that_is_started_again_says_what_became_of_its_commit() {
    let Some(mut lab) = fleet(|lab, n| (n == 2).then(|| hook("after", &gate(lab).1))) else {
        return;
    };

    let mut deploy = lab.start(&["deploy", "--json", "www.toml", "-t", "web[23]"]);
    until_state(&mut deploy, "web2", "checking");
    lab.hosts[1].restart();

    // The command ends before the timeout for silent hosts.
    let ran = deploy.wait().exits(4);
    assert_eq!(state(&ran, "web2"), "checking", "{ran}");
    assert_eq!(state(&ran, "web3"), "committed", "{ran}");

    assert_eq!(lab.with_release(), ["web2", "web3"]);
}

#[test]
fn a_tree_that_cannot_be_undone_is_told_as_torn_and_made_whole_later() {
    let Some(mut lab) = NETWORK.hosts(1) else {
        return;
    };

    write(&lab.site().join("a/page"), "old");
    write(&lab.site().join("z/old"), "old");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("old"));
    let z = lab.hosts[0].tree().join("z");
    let chattr = |flag: &str| {
        std::process::Command::new("chattr")
            .arg(flag)
            .arg(&z)
            .output()
    };

    if !chattr("+a").is_ok_and(|out| out.status.success()) {
        return support::skipped("no directory can be made append-only here");
    }

    chattr("-a").expect("it ran before");
    // The directory is append-only: files created by the release cannot be removed.
    let sick = hook(
        "after",
        &format!(
            "test $MAKUO_CAUSE = revert || chattr +a {}; false",
            z.display()
        ),
    );

    let docs = lab.path("docs");
    std::fs::create_dir(&docs).expect("new");
    lab.hosts[0].rule(&format!(
        "{sick}\n[[tree]]\nname = \"docs\"\npath = {docs:?}"
    ));
    lab.hosts[0].restart();
    write(&lab.site().join("a/page"), "new");

    write(&lab.site().join("z/new"), "new");
    lab.spec(&format!("{DELETE}{REVERT}"));
    let ran = lab.deploy(&[]).exits(4);
    let (said, why) = ran.host("web1");
    assert_eq!(said, "torn", "{ran}");
    assert!(
        why.contains("part new, part old") && why.contains("z/new"),
        "{ran}"
    );

    assert_eq!(
        support::read(&lab.hosts[0].tree().join("a/page")),
        b"old",
        "the rest is undone"
    );

    // The daemon starts and serves its other tree; this tree accepts no release until repaired.
    lab.hosts[0].restart();

    lab.makuo(&["status"])
        .exits(1)
        .says(&["docs", "part new, part old"]);
    lab.deploy(&[]).exits(3).says(&["part new, part old"]);
    assert!(chattr("-a").expect("it ran before").status.success());
    lab.spec(DELETE);
    lab.makuo(&["deploy", "www.toml", "-n"]).exits(0);

    until("the rest to be undone", || {
        support::differences(&lab.path("old"), &lab.hosts[0].tree()).is_empty()
    });

    // Its last deploy was refused.
    lab.makuo(&["status"]).exits(1);
}

#[test]
fn a_tree_that_cannot_be_opened_keeps_no_other_tree_from_being_served() {
    let Some(mut lab) = NETWORK.idle_hosts(1) else {
        return;
    };

    let parent = lab.path("missing");
    lab.hosts[0].rule(&format!(
        "[[tree]]\nname = \"docs\"\npath = {:?}",
        parent.join("docs")
    ));
    lab.hosts[0].start();
    write(&lab.site().join("page"), "new");

    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    lab.makuo(&["status"])
        .exits(1)
        .says(&["tree docs is not served", "missing"]);
    lab.makuo(&["status", "docs"])
        .exits(1)
        .says(&["tree docs is not served", "missing"]);

    // The disk is mounted while the daemon runs.
    let keys = support::read(&lab.path("authorized_keys"));

    let keys = String::from_utf8(keys)
        .expect("text")
        .replace("tree=\"www\"", "tree=\"*\"");
    write(&lab.path("authorized_keys"), keys);
    lab.hosts[0].restart();
    std::fs::create_dir(&parent).expect("new");
    write(
        &lab.path("docs.toml"),
        "tree = \"docs\"\nsource = \"site\"\n",
    );

    until("the tree to be served", || {
        lab.makuo(&["deploy", "docs.toml", "--expect", "1"]).code == 0
    });
    same(&lab.site(), &parent.join("docs"));
    let ran = lab.makuo(&["status"]).exits(0);

    assert!(!ran.out.contains("not served"), "{ran}");
}

#[test]
fn a_daemon_without_a_tree_that_opens_stays_and_serves_each_one_that_is_mended() {
    let Some(mut lab) = NETWORK.idle_hosts(2) else {
        return;
    };

    lab.hosts.iter_mut().for_each(|host| host.catch_up = true);
    lab.hosts[0].start();
    write(&lab.site().join("page"), "new");
    lab.makuo(&["deploy", "www.toml", "--expect", "1"]).exits(0);

    // A file is in the place of the tree's directory.
    let tree = lab.hosts[1].tree();
    std::fs::remove_dir(&tree).expect("empty");
    write(&tree, "no directory");
    lab.hosts[1].start();
    lab.makuo(&["status"])
        .exits(1)
        .says(&["tree www is not served"]);

    lab.makuo(&["deploy", "www.toml", "--expect", "2"])
        .exits(3)
        .says(&["tree www is not served"]);
    std::fs::remove_file(&tree).expect("there");
    std::fs::create_dir(&tree).expect("new");
    until("the tree to be served and to have caught up", || {
        tree.join("page").exists()
    });

    lab.all_same(&lab.site());
    until("nothing to be said of it any more", || {
        let ran = lab.makuo(&["status"]);
        ran.code == 0 && !ran.out.contains("not served") && ran.err.contains("none behind")
    });
    assert_eq!(
        lab.hosts[1]
            .log()
            .matches("ERROR tree www is not served")
            .count(),
        1,
        "{}",
        lab.hosts[1].log()
    );

    write(&lab.site().join("page"), "newer");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn guards_hold_and_nothing_is_lost() {
    let Some(mut lab) = NETWORK.idle_hosts(2) else {
        return;
    };

    lab.hosts[0].rule("protect = [\"/uploads/\"]");
    lab.hosts.iter_mut().for_each(support::Host::start);
    for number in 0..100 {
        write(&lab.site().join(format!("file{number}")), "x");
    }

    lab.spec("exclude = [\"*.tmp\"]\n[delete]\nextras = true\nmax = \"10%\"\n");
    lab.deploy(&[]).exits(0);
    for host in &lab.hosts {
        write(&host.tree().join("uploads.tmp"), "excluded");
    }

    write(&lab.hosts[0].tree().join("uploads/mine"), "protected");
    let before: Vec<PathBuf> = (0..2).map(|n| lab.path(&format!("before{n}"))).collect();
    lab.hosts
        .iter()
        .zip(&before)
        .for_each(|(host, copied)| copy(&host.tree(), copied));
    let unchanged = |lab: &Lab| {
        lab.hosts
            .iter()
            .zip(&before)
            .for_each(|(host, old)| same(old, &host.tree()))
    };

    // 11 of 100, under 10 %.
    for number in 0..11 {
        std::fs::remove_file(lab.site().join(format!("file{number}"))).expect("there");
    }

    lab.deploy(&[]).exits(3).says(&["11", "10%"]);
    unchanged(&lab);

    // An emptied source.
    let parked = lab.path("parked");
    std::fs::rename(lab.site(), &parked).expect("moves");
    std::fs::create_dir(lab.site()).expect("new");
    let ran = lab.deploy(&[]);
    assert!([2, 3].contains(&ran.code), "{ran}");
    ran.says(&["empty"]);

    unchanged(&lab);
    // Nine are deleted; excluded and protected files stay.
    std::fs::remove_dir(lab.site()).expect("empty");
    std::fs::rename(&parked, lab.site()).expect("moves");
    write(&lab.site().join("file0"), "x");
    write(&lab.site().join("file1"), "x");
    lab.deploy(&[]).exits(0);

    let tree = lab.hosts[0].tree();
    assert!(
        tree.join("uploads/mine").exists()
            && tree.join("uploads.tmp").exists()
            && !tree.join("file2").exists()
    );
}
