//! Everyday capabilities around a deploy: messages, labels, kept releases, second signatures, a
//! command that is told the result.

use std::path::Path;

use serde_json::Value;

use crate::support::{Lab, Ran, read, until, write};

fn of<'a>(events: &'a [Value], event: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["event"] == event).collect()
}

/// Runs a command that has no network flags.
fn offline(lab: &mut Lab, args: &[&str]) -> Ran {
    let flags = lab.flags.replace(Vec::new());
    let ran = lab.makuo(args);
    lab.flags = flags;
    ran
}

fn config(lab: &Lab, host: &str) -> String {
    let path = lab.path(host).join("makuo.toml");
    path.to_str().expect("UTF-8").to_string()
}

#[test]
fn a_message_is_shown_wherever_the_release_is_and_is_one_line() {
    let Some(lab) = Lab::loopback(1) else { return };
    write(&lab.site().join("page"), "one");
    let ran = lab.deploy(&["-m", "fix css, grün"]).exits(0);
    assert_eq!(ran.result()["message"], "fix css, grün", "{ran}");

    lab.makuo(&["log", "www"]).exits(0).says(&["fix css, grün"]);
    let log = lab.makuo(&["log", "--json", "www"]).exits(0);
    assert_eq!(of(&log.events(), "release")[0]["message"], "fix css, grün");
    let status = lab.makuo(&["status", "--json", "www"]).exits(0);
    assert_eq!(of(&status.events(), "host")[0]["message"], "fix css, grün");
    let shown = lab.makuo(&["show", "www"]).exits(0);
    shown.says(&["www@1  fix css, grün", "runs on   web1", "kept by   web1"]);

    write(&lab.site().join("page"), "two");
    let none = lab.deploy(&[]).exits(0);
    assert!(none.result().get("message").is_none(), "{none}");
    for bad in ["two\nlines", "\x1b[2J", "", &"x".repeat(201)] {
        lab.deploy(&["-m", bad]).exits(2);
    }
}

#[test]
fn targets_and_batches_follow_labels_and_a_reload_changes_them() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    for (name, zone) in [("web1", "a"), ("web2", "b"), ("web3", "a")] {
        let host = lab.host(name);
        host.setting(&format!("labels = {{ zone = {zone:?}, role = \"web\" }}"));
        host.start();
    }
    let members = lab.makuo(&["members", "--json"]).exits(0);
    let events = members.events();
    let zones: Vec<&Value> = of(&events, "member")
        .iter()
        .map(|m| &m["labels"]["zone"])
        .collect();
    assert_eq!(zones, ["a", "b", "a"], "{members}");
    lab.makuo(&["members"]).exits(0).says(&["role=web,zone=b"]);

    write(&lab.site().join("page"), "of zone a");
    let zone = [
        "deploy", "--json", "www.toml", "-t", "zone=a", "--expect", "2",
    ];
    let ran = lab.makuo(&zone).exits(0);
    assert_eq!(ran.result()["targets"], 2, "{ran}");
    assert_eq!(lab.with_release(), ["web1", "web3"]);
    lab.makuo(&["status", "www"]).exits(0);
    lab.makuo(&["deploy", "www.toml", "-t", "zone=c", "--timeout", "2s"])
        .exits(3)
        .says(&["no host matches zone=c", "names and labels"]);
    lab.makuo(&["deploy", "www.toml", "-t", "zone="]).exits(2);

    // One zone at a time: a failure in the first keeps the release from the second.
    lab.hosts[0].kill();
    lab.hosts[0].rule("health = [\"/bin/false\"]\nhealth_deadline = \"1ms\"");
    lab.hosts[0].start();
    write(&lab.site().join("page"), "of both zones");
    lab.spec("[commit]\nbatches = [\"zone=b\", \"zone=a\"]\non_failure = \"stop\"\n");
    let ran = lab.deploy(&[]).exits(4);
    let states = ["web1", "web2", "web3"].map(|host| ran.host(host).0);
    assert_eq!(states[1], "committed", "{ran}");
    assert_eq!(states[0], "unhealthy", "{ran}");

    lab.spec("[commit]\nbatches = [\"zone=a\"]\non_failure = \"stop\"\n");
    write(&lab.site().join("page"), "not for zone b");
    let ran = lab.deploy(&[]).exits(4);
    assert_eq!(ran.host("web2").0, "aborted", "{ran}");
    assert_eq!(read(&lab.hosts[1].tree().join("page")), b"of both zones");

    let path = lab.hosts[1].config_path();
    let text = std::fs::read_to_string(&path).expect("there");
    write(&path, text.replace("zone = \"b\"", "zone = \"c\""));
    lab.hosts[1].reload();
    until("the new label", || {
        let members = lab.makuo(&["members"]).exits(0);
        members.out.contains("role=web,zone=c")
    });
    let diff = [
        "diff", "--json", "www.toml", "-t", "zone=c", "--expect", "1",
    ];
    lab.makuo(&diff).exits(1);
}

/// Makes a host with three releases, of which it keeps two.
fn released() -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    lab.host("web1").rule("keep = 2");
    lab.hosts[0].start();
    for n in 1..=3 {
        write(&lab.site().join("page"), format!("release {n}"));
        write(&lab.site().join(format!("only{n}")), "x");
        let _ = std::fs::remove_file(lab.site().join(format!("only{}", n - 1)));
        lab.deploy(&["-m", &format!("the release {n}")]).exits(0);
    }

    // The host tidies up once the session is closed.
    until("two kept releases", || {
        let log = lab.makuo(&["log", "--json", "www"]).exits(0);
        let file = lab.makuo(&["show", "-c", &config(&lab, "web1"), "www@2:page"]);
        of(&log.events(), "release").len() == 2 && file.code == 0
    });
    Some(lab)
}

#[test]
fn kept_releases_are_shown_and_compared_and_give_their_files() {
    let Some(lab) = released() else { return };
    let on = config(&lab, "web1");
    let show = |release: &str| lab.makuo(&["show", "-c", &on, release]);
    let ran = show("www@2").exits(0);
    ran.says(&["www@2  the release 2", "key       SHA256:", "entries"]);
    show("www").exits(0).says(&["www@3  the release 3"]);
    let ran = lab
        .makuo(&["show", "--json", "--paths", "-c", &on, "www@2"])
        .exits(0);
    let events = ran.events();
    let paths: Vec<&Value> = of(&events, "entry").iter().map(|e| &e["path"]).collect();
    assert_eq!(paths, ["only2", "page"], "{ran}");
    let result = ran.result();
    assert_eq!(
        (&result["serial"], &result["entries"]),
        (&2.into(), &2.into())
    );
    assert_eq!(result["message"], "the release 2", "{ran}");

    assert_eq!(show("www@2:page").exits(0).out, "release 2");
    assert_eq!(show("www@3:page").exits(0).out, "release 3");
    show("www@2:only3").exits(3).says(&["www@2 has no only3"]);
    show("www@1")
        .exits(3)
        .says(&["does not keep www@1 any more", "www@3, www@2"]);
    show("www@1:../x").exits(2);

    let ran = lab.makuo(&["diff", "-c", &on, "www@2", "www@3"]).exits(1);
    let ran = ran.says(&[
        "www@2 to www@3: ",
        "1 new",
        "1 deleted",
        "*deleting",
        "only2",
    ]);
    assert!(
        ran.out.contains(">f") && ran.out.contains("content  page"),
        "{ran}"
    );
    lab.makuo(&["diff", "-c", &on, "www@3", "www@3"])
        .exits(0)
        .says(&["no difference"]);
    let ran = lab
        .makuo(&["diff", "--json", "-c", &on, "www@3", "www@2"])
        .exits(1);
    let result = ran.result();
    assert_eq!(
        (&result["new"], &result["deleted"]),
        (&1.into(), &1.into()),
        "{ran}"
    );

    // Elsewhere the hosts tell about a release, and do not show its entries.
    let ran = lab.makuo(&["show", "www@2"]).exits(0);
    ran.says(&["www@2  the release 2", "kept by   web1"]);
    lab.makuo(&["show", "www@2:page"])
        .exits(3)
        .says(&["does not keep www@2", "run this on a host that keeps it"]);
    lab.makuo(&["show", "www@9"])
        .exits(3)
        .says(&["hosts keep www@3, www@2"]);
}

#[test]
fn a_repository_shows_its_releases_as_a_host_does() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    std::fs::create_dir(lab.path("repo")).expect("new");
    let url = format!("file://{}", lab.path("repo").display());
    for n in 1..=2 {
        let content = format!("release {n}\n").repeat(200_000);
        write(&lab.site().join("d/page"), content);
        let message = format!("the release {n}");
        let args = ["publish", "www.toml", "--to", &url, "-m", &message];
        offline(&mut lab, &args).exits(0);
    }

    let from = |lab: &Lab, args: &[&str]| lab.makuo(&[args, &["--from", &url]].concat());
    from(&lab, &["show", "-v", "www@1"])
        .exits(0)
        .says(&["www@1  the release 1", "d/page"]);
    let file = from(&lab, &["show", "www@1:d/page"]).exits(0);
    assert!(file.out == "release 1\n".repeat(200_000));
    from(&lab, &["diff", "www@1", "www@2"])
        .exits(1)
        .says(&["1 changed", "d/page"]);
    from(&lab, &["show", "www@7"])
        .exits(3)
        .says(&["does not keep www@7", "www@2, www@1"]);
    offline(&mut lab, &["repo", "list", &url])
        .exits(0)
        .says(&["the release 2"]);
}

#[test]
fn a_pin_keeps_a_release_and_is_shown() {
    let Some(mut lab) = released() else { return };
    let on = config(&lab, "web1");
    offline(&mut lab, &["pin", "-c", &on, "www@1"])
        .exits(3)
        .says(&["does not keep www@1"]);
    offline(&mut lab, &["pin", "-c", &on, "www@2"])
        .exits(0)
        .says(&["unpin"]);
    for n in 4..=6 {
        write(&lab.site().join("page"), format!("release {n}"));
        lab.deploy(&[]).exits(0);
    }

    until("the end of the unpinned releases", || {
        let log = lab.makuo(&["log", "--json", "www"]).exits(0);
        of(&log.events(), "release").len() == 3
    });
    lab.makuo(&["log", "www"])
        .exits(0)
        .says(&["www@2", "pinned on web1"]);
    let file = lab.makuo(&["show", "-c", &on, "www@2:page"]).exits(0);
    assert_eq!(file.out, "release 2");
    lab.makuo(&["rollback", "www", "--to", "2", "-c", &on])
        .exits(0);
    assert_eq!(read(&lab.hosts[0].tree().join("page")), b"release 2");

    offline(&mut lab, &["unpin", "-c", &on, "www@2"]).exits(0);
    offline(&mut lab, &["unpin", "-c", &on, "www@2"]).exits(3);
}

#[test]
fn a_command_is_told_the_result_and_changes_no_exit_code() {
    let Some(lab) = Lab::loopback(1) else { return };
    let told = lab.path("told");
    let notify = |script: &str| {
        let text = format!("notify = [\"/bin/sh\", \"-c\", {script:?}, {:?}]\n", told);
        lab.spec(&format!("[commit]\n{text}"));
    };
    let result = |path: &Path| -> Value { serde_json::from_slice(&read(path)).expect("JSON") };

    notify("cat > \"$0\"");
    write(&lab.site().join("page"), "one");
    let ran = lab.deploy(&["-m", "one"]).exits(0);
    assert_eq!(result(&told), ran.result(), "{ran}");
    std::fs::remove_file(&told).expect("told");
    lab.makuo(&["deploy", "-n", "www.toml"]).exits(0);
    lab.makuo(&["diff", "www.toml"]).exits(0);
    assert!(!told.exists(), "nothing was deployed");

    notify("echo no line >&2; exit 7");
    write(&lab.site().join("page"), "two");
    lab.deploy(&[])
        .exits(0)
        .says(&["commit.notify", "exit status 7: no line"]);
    notify("cat > \"$0\"");
    lab.makuo(&["deploy", "www.toml", "--expect", "9", "--timeout", "1s"])
        .exits(3);
    assert_eq!(result(&told)["exit"], 3);
}

#[test]
fn a_host_takes_what_enough_keys_have_signed() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let second = lab.keygen("second");
    let keys = String::from_utf8(read(&lab.path("authorized_keys"))).expect("text");
    write(
        &lab.path("authorized_keys"),
        format!("{keys}deploy {second}"),
    );
    lab.host("web1").rule("require_signatures = 2");
    lab.host("web2");
    lab.hosts.iter_mut().for_each(|host| {
        host.catch_up = true;
        host.start();
    });

    write(&lab.site().join("page"), "one");
    let ran = lab.deploy(&[]).exits(3);
    assert!(
        ran.host("web1").1.contains("1 of the 2 signatures"),
        "{ran}"
    );
    lab.diff(&[]).exits(1);
    lab.deploy(&["--cosign", "key"])
        .exits(2)
        .says(&["signs already"]);

    // Passed on by another host, it still has both signatures.
    lab.hosts[0].kill();
    lab.makuo(&["deploy", "www.toml", "--cosign", "second"])
        .exits(0);
    lab.hosts[0].start();
    until("the release of both keys", || lab.with_release().len() == 2);
    write(&lab.site().join("page"), "two");
    lab.deploy(&["--cosign", "second"]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn a_deploy_waits_for_its_turn() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let gate = lab.path("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    lab.host("web1")
        .rule(&format!("before = [\"/bin/sh\", \"-c\", {wait:?}]"));
    lab.hosts[0].start();

    write(&lab.site().join("page"), "one");
    let first = lab.start(&["deploy", "--json", "www.toml"]);
    until("a session that holds the tree", || {
        let status = lab.makuo(&["status", "--json", "www"]);
        status
            .events()
            .iter()
            .any(|event| !event["at_work"].is_null())
    });
    lab.makuo(&["deploy", "www.toml", "--timeout", "5s"])
        .exits(3)
        .says(&["busy with"]);
    let mut second = lab.start(&["deploy", "--json", "www.toml", "--wait", "60s"]);
    second.until_event("the wait", |event| {
        event["text"]
            .as_str()
            .is_some_and(|text| text.contains("waiting for up to"))
    });
    write(&gate, "");
    first.wait().exits(0);
    second.wait().exits(0);
}
