//! Commits with pauses: a deploy ends after the first batch, and `makuo promote` goes on.

use serde_json::{Value, json};

use crate::support::{Lab, Noise, Ran, copy, differences, same, until, write};

/// Rules of a rollout in three batches.
const PAUSED: &str = "[commit]\nbatches = [1, \"50%\"]\npause = true\n";

/// Makes `count` hosts with a release, which is copied to `old`, and the source of the next one.
fn fleet(count: usize, rule: impl Fn(usize) -> String, more: &str) -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    for n in 1..=count {
        let rule = rule(n);
        let host = lab.host(&format!("web{n}"));
        host.catch_up = true;
        host.rule(&rule);
    }
    let back = lab.keygen("back");
    let keys = lab.path("authorized_keys");
    let listed = std::fs::read_to_string(&keys).expect("there");
    write(&keys, format!("{listed}tree=\"www\",rollback {back}"));
    lab.hosts.iter_mut().for_each(crate::support::Host::start);

    lab.spec("");
    Noise::new(1).tree(&lab.site(), 6, 2000);
    write(&lab.site().join("changes"), "old");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("old"));
    write(&lab.site().join("changes"), "new");
    lab.spec(&format!("{PAUSED}{more}"));
    Some(lab)
}

/// Fails unless the first `new` hosts have the source, and the others the release before.
#[track_caller]
fn have(lab: &Lab, new: usize) {
    for (nth, host) in lab.hosts.iter().enumerate() {
        let expected = if nth < new {
            lab.site()
        } else {
            lab.path("old")
        };
        same(&expected, &host.tree());
    }
}

/// Command for the health check that fails where the release is new.
fn sick() -> String {
    let check = "! grep -q new $MAKUO_PATH/changes";
    format!(
        "health = [\"/bin/sh\", \"-c\", {check:?}]\nhealth_deadline = \"300ms\"\n\
         health_interval = \"100ms\"\n"
    )
}

/// The rollout in a status.
fn rollout(ran: &Ran) -> Value {
    let events = ran.events();
    let found = events.iter().find(|event| event["event"] == "rollout");
    found.cloned().unwrap_or_default()
}

#[test]
fn a_person_says_when_each_batch_commits() {
    let Some(mut lab) = fleet(5, |_| String::new(), "") else {
        return;
    };
    // One host is away when the release is staged.
    lab.hosts[4].kill();
    let ran = lab
        .makuo(&["deploy", "--json", "www.toml", "--expect", "4"])
        .exits(0);
    have(&lab, 1);
    assert_eq!(ran.host("web1").0, "committed", "{ran}");
    assert_eq!(
        ran.host("web2"),
        ("staged".into(), "waits for its batch".into()),
        "{ran}"
    );
    let result = ran.result();
    let batch = (&result["batch"], &result["next"], &result["staged"]);
    assert_eq!(
        batch,
        (
            &json!([1, 3]),
            &json!("makuo promote www@2 --batch 2"),
            &json!(3)
        ),
        "{ran}"
    );

    // Staged releases outlive restarts, and a host that comes back takes nothing before its time.
    lab.hosts[4].start();
    lab.hosts[2].kill();
    lab.hosts[2].start();
    let ran = lab.makuo(&["status", "--json", "www"]);
    let found = rollout(&ran);
    assert_eq!(
        (&found["batch"], &found["batches"]),
        (&json!(2), &json!(3)),
        "{ran}"
    );
    assert_eq!(found["next"], json!(["web2", "web3"]), "{ran}");
    assert_eq!(found["waiting"], json!(["web4"]), "{ran}");
    lab.makuo(&["status"])
        .says(&["batch 2 of 3 is next", "makuo promote www@2 --batch 2"]);

    std::fs::rename(lab.site(), lab.path("gone")).expect("there");
    lab.makuo(&["promote", "www@2", "--batch", "1"])
        .exits(3)
        .says(&[
            "batch 1 of www@2 is not next",
            "makuo promote www@2 --batch 2",
        ]);
    let ran = lab.makuo(&["promote", "www@2", "--batch", "2", "--expect", "4"]);
    std::fs::rename(lab.path("gone"), lab.site()).expect("there");
    let words = [
        "batch 2 of 3: web2, web3",
        "web4 waits",
        "web5: not staged there",
    ];
    ran.exits(0).says(&words);
    have(&lab, 3);
    let other = lab.path("back");
    let other = other.to_str().expect("UTF-8");
    lab.makuo(&["promote", "www", "-k", other])
        .exits(3)
        .says(&["only that key can commit"]);

    let ran = lab.makuo(&["promote", "www@2", "--json"]).exits(4);
    assert_eq!(ran.result()["committed"], 4, "{ran}");
    assert_eq!(ran.host("web5").0, "absent", "{ran}");
    until("the host that came later to have it", || {
        differences(&lab.site(), &lab.hosts[4].tree()).is_empty()
    });
    lab.makuo(&["promote", "www"])
        .exits(3)
        .says(&["no host that answers keeps"]);
}

#[test]
fn a_batch_that_fails_takes_every_host_back_or_stops_the_rollout() {
    let rule = |n| if n == 3 { sick() } else { String::new() };
    let Some(lab) = fleet(4, rule, "on_failure = \"revert\"\n") else {
        return;
    };
    lab.deploy(&[]).exits(0);
    have(&lab, 1);
    let ran = lab.makuo(&["promote", "www", "--json"]).exits(3);
    assert_eq!(ran.host("web1").0, "reverted", "{ran}");
    assert_eq!(ran.host("web3").0, "reverted", "{ran}");
    assert_eq!(ran.host("web4").0, "aborted", "{ran}");
    have(&lab, 0);
    lab.makuo(&["promote", "www"])
        .exits(3)
        .says(&["no host that answers keeps"]);

    // Without the way back the rollout stops, and a person who may only roll back ends it.
    lab.spec(PAUSED);
    write(&lab.site().join("changes"), "newer");
    lab.deploy(&[]).exits(0);
    lab.makuo(&["promote", "www"]).exits(4);
    have(&lab, 3);
    lab.makuo(&["promote", "www"])
        .exits(3)
        .says(&["fails its checks on web3", "makuo rollback www"]);
    lab.makuo(&["status"])
        .says(&["batch 2 of 3 fails its checks on web3"]);
    let back = lab.path("back");
    let back = back.to_str().expect("UTF-8");
    let keys = lab.path("authorized_keys");
    let keys = keys.to_str().expect("UTF-8");
    let rollback = [
        "rollback",
        "www",
        "--to",
        "1",
        "-k",
        back,
        "--authorized-keys",
        keys,
    ];
    lab.makuo(&rollback).exits(0);
    have(&lab, 0);
    lab.makuo(&["promote", "www"])
        .exits(3)
        .says(&["no host that answers keeps"]);
}

#[test]
fn a_rollout_ends_by_commit_by_abort_and_by_a_newer_release() {
    let Some(mut lab) = fleet(3, |_| String::new(), "") else {
        return;
    };
    lab.deploy(&[]).exits(0);
    // With one host less the second batch is the last one.
    lab.hosts[2].kill();
    lab.makuo(&["promote", "www"])
        .exits(3)
        .says(&["it was made for 3", "makuo promote www@2 --expect 2"]);
    lab.hosts[2].start();
    lab.makuo(&["abort", "www"]).exits(0);
    have(&lab, 1);
    lab.makuo(&["promote", "www"]).exits(3);

    write(&lab.site().join("changes"), "newer");
    lab.deploy(&["--stage"])
        .exits(0)
        .says(&["makuo promote www@3 --batch 1"]);
    lab.makuo(&["promote", "www", "--expect", "4"])
        .exits(3)
        .says(&["3 hosts", "4 are expected"]);
    lab.makuo(&["promote", "www"]).exits(0);
    lab.makuo(&["commit", "www@3"]).exits(0);
    have(&lab, 3);

    write(&lab.site().join("changes"), "fourth");
    lab.deploy(&[]).exits(0);
    lab.spec("");
    write(&lab.site().join("changes"), "fifth");
    lab.makuo(&["deploy", "www.toml", "-t", "web1"]).exits(0);
    lab.makuo(&["promote", "www"]).exits(3).says(&[
        "web1: a newer release than www@4 is there",
        "makuo abort www@4",
    ]);
    lab.deploy(&[]).exits(0);
    lab.makuo(&["promote", "www"]).exits(3);
    have(&lab, 3);

    // A staged release without batches, and commands that have nobody to decide.
    lab.deploy(&["--stage"]).exits(0);
    lab.makuo(&["promote", "www"])
        .exits(3)
        .says(&["has no batches with pauses", "makuo commit www@7"]);
    lab.spec(PAUSED);
    lab.makuo(&["watch", "www.toml"])
        .exits(2)
        .says(&["nobody to promote"]);
    lab.deploy(&["--to", "file:///nowhere"])
        .exits(2)
        .says(&["cannot be published yet"]);
}

#[test]
fn a_host_that_was_away_takes_the_release_from_any_batch() {
    let Some(mut lab) = fleet(3, |_| String::new(), "") else {
        return;
    };
    lab.hosts[2].kill();
    lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);
    lab.makuo(&["promote", "www"]).exits(0);
    have(&lab, 2);

    // The hosts of the last batch are gone.
    lab.hosts[1].kill();
    lab.hosts[2].start();
    until("the host that was away to have it", || {
        differences(&lab.site(), &lab.hosts[2].tree()).is_empty()
    });
}
