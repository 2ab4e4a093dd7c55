//! Daemons that follow a repository: which release they take, when, and beside what.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run;
use crate::support::{Host, Lab, differences, pause, read, until, write};

/// A hook that appends the serial to `runs` and then does `then`.
fn hook(lab: &Lab, runs: &Path, then: &str) -> PathBuf {
    let hook = lab.path("hook");
    let script = format!(
        "#!/bin/sh\necho $MAKUO_SERIAL >> {}\n{then}\n",
        runs.display()
    );
    write(&hook, script);
    std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).expect("ours");
    hook
}

fn runs_of(runs: &Path, serial: &str) -> usize {
    let text = String::from_utf8(read(runs)).expect("text");
    text.lines().filter(|line| *line == serial).count()
}

/// A repository in a directory, and the lines of a tree that follows it.
fn repository(lab: &Lab) -> String {
    let repo = lab.path("repo");
    std::fs::create_dir(&repo).expect("new");
    format!("repository = \"file://{}\"\npoll = \"1s\"", repo.display())
}

const PUBLISH: [&str; 4] = ["publish", "www.toml", "--to", "./repo"];

fn publish(lab: &Lab, content: &str) {
    write(&lab.site().join("page"), content);
    run(lab, &PUBLISH).exits(0);
}

fn has_site(lab: &Lab, host: &Host) -> bool {
    differences(&lab.site(), &host.tree()).is_empty()
}

#[test]
fn a_release_that_a_hook_refuses_is_not_tried_at_every_look() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let (rule, runs, ready) = (repository(&lab), lab.path("runs"), lab.path("ready"));
    let hook = hook(&lab, &runs, &format!("[ -e {} ]", ready.display()));
    let host = lab.host("web1");
    host.catch_up = true;
    host.rule(&format!("{rule}\nbefore = [\"{}\"]", hook.display()));
    host.start();
    publish(&lab, "refused");
    until("the hook to run", || runs.exists());

    // Some looks later the first release still rests, for 5 s in all: a slow machine needs the
    // difference. Another one does not.
    pause(Duration::from_secs(2));
    assert_eq!(runs_of(&runs, "1"), 1);
    write(&ready, "");
    publish(&lab, "taken");
    until("the next release", || has_site(&lab, &lab.hosts[0]));
}

#[test]
fn a_release_that_failed_rests_over_a_restart_and_beside_hosts_that_have_it() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let (rule, runs, ready) = (repository(&lab), lab.path("runs"), lab.path("ready"));
    let hook = hook(&lab, &runs, &format!("[ -e {} ]", ready.display()));
    let host = lab.host("web1");
    host.catch_up = true;
    host.rule(&format!("{rule}\nbefore = [\"{}\"]", hook.display()));
    host.start();
    let failed = host.state().join("www/failed");
    publish(&lab, "refused");
    until("the failure to be stored", || failed.exists());

    // As after the fifth failure, so that the pause outlasts the test.
    lab.hosts[0].stop();
    let text = String::from_utf8(read(&failed)).expect("text");
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    assert_eq!(words[2], "1", "{text}");
    write(
        &failed,
        format!("{} {} 9 {}\n", words[0], words[1], words[3]),
    );
    lab.hosts[0].start();

    // It finds the release itself, and another host offers it.
    let other = lab.host("web2");
    other.catch_up = true;
    other.rule(&rule);
    other.start();
    until("the other host", || has_site(&lab, &lab.hosts[1]));
    pause(Duration::from_secs(4));
    assert_eq!(runs_of(&runs, "1"), 1);

    // A command is for now, and so is another release.
    write(&lab.site().join("page"), "deployed");
    lab.deploy(&[]);
    assert!(runs_of(&runs, "2") > 0, "the hook has to run");
    write(&ready, "");
    publish(&lab, "taken");
    until("the next release", || {
        lab.hosts.iter().all(|host| has_site(&lab, host))
    });
}

#[test]
fn a_tree_follows_its_repository_while_another_tree_is_busy() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let (rule, runs, ready) = (repository(&lab), lab.path("runs"), lab.path("ready"));
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", ready.display());
    let hook = hook(&lab, &runs, &wait);
    let db = lab.path("db");
    std::fs::create_dir(&db).expect("new");
    let keys = String::from_utf8(read(&lab.path("authorized_keys"))).expect("text");
    write(
        &lab.path("authorized_keys"),
        keys.replace("tree=\"www\"", "tree=\"www,db\""),
    );
    let host = lab.host("web1");
    host.catch_up = true;
    host.rule(&format!(
        "before = [\"{}\"]\n[[tree]]\nname = \"db\"\npath = \"{}\"\n{rule}",
        hook.display(),
        db.display(),
    ));
    host.start();

    write(&lab.site().join("page"), "slow");
    let deploy = lab.start(&["deploy", "www.toml", "--expect", "1"]);
    until("the hook to run", || runs.exists());
    write(&lab.path("db.toml"), "tree = \"db\"\nsource = \"site\"\n");
    run(&lab, &["publish", "db.toml", "--to", "./repo"]).exits(0);
    until("the other tree", || db.join("page").exists());

    write(&ready, "");
    deploy.wait().exits(0);
    lab.all_same(&lab.site());
}
