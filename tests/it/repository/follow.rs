//! Daemons that follow a repository: which release they take, when, and beside what.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::run;
use crate::support::bucket::MemoryBucket;
use crate::support::{Host, Lab, differences, read, until, write};

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

/// A host whose hook refuses releases of its repository for now.
struct Refusing {
    lab: Lab,
    /// Server with the content of the repository.
    server: MemoryBucket,
    /// Lines of a tree that follows the repository.
    rule: String,
    /// A line for each run of the hook.
    runs: PathBuf,
    /// The hook takes releases once this file is there.
    ready: PathBuf,
}

impl Refusing {
    fn start(lab: Lab) -> Self {
        let repo = lab.path("repo");
        std::fs::create_dir(&repo).expect("new");
        let server = MemoryBucket::of(&repo);
        let rule = format!("repository = \"{}\"\npoll = \"1s\"", server.web_url());
        let (runs, ready) = (lab.path("runs"), lab.path("ready"));
        let hook = hook(&lab, &runs, &format!("[ -e {} ]", ready.display()));
        let mut one = Self {
            lab,
            server,
            rule,
            runs,
            ready,
        };
        let rule = format!("{}\nbefore = [\"{}\"]", one.rule, hook.display());
        let host = one.lab.host("web1");
        host.catch_up = true;
        host.rule(&rule);
        host.start();
        one
    }

    fn publish(&self, content: &str) {
        publish(&self.lab, content);
        self.server.refill(&self.lab.path("repo"));
    }

    /// Waits until the hosts have looked at the repository so many times more.
    fn until_looks(&self, count: usize) {
        let looks = || self.server.gets("trees/www/head");
        let before = looks();
        until("further looks", || looks() >= before + count);
    }

    /// Publishes a release that the hook takes.
    fn take_next(&self) {
        write(&self.ready, "");
        self.publish("taken");
        until("the next release", || {
            let mut hosts = self.lab.hosts.iter();
            hosts.all(|host| has_site(&self.lab, host))
        });
    }
}

#[test]
fn a_release_that_a_hook_refuses_is_not_tried_at_every_look() {
    let Some(lab) = Lab::loopback_idle() else {
        return;
    };
    let mut one = Refusing::start(lab);
    one.publish("refused");
    until("the hook to run", || one.runs.exists());

    // The pauses are 5 s, 10 s and more: only looks that are further apart would each be a try.
    one.until_looks(5);
    let tries = runs_of(&one.runs, "1");
    assert!(tries < 4, "{tries} tries");
    one.lab.hosts[0].stop();
}

#[test]
fn another_release_than_the_one_that_rests_is_taken_at_once() {
    let Some(lab) = Lab::loopback_idle() else {
        return;
    };
    let one = Refusing::start(lab);
    one.publish("refused");
    until("the hook to run", || one.runs.exists());
    one.take_next();
}

#[test]
fn a_release_that_failed_rests_over_a_restart_and_beside_hosts_that_have_it() {
    let Some(lab) = Lab::loopback_idle() else {
        return;
    };
    let mut one = Refusing::start(lab);
    let failed = one.lab.hosts[0].state().join("www/failed");
    one.publish("refused");
    until("the failure to be stored", || failed.exists());

    // As after the ninth failure, so that the pause outlasts the test.
    one.lab.hosts[0].stop();
    let text = String::from_utf8(read(&failed)).expect("text");
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    assert_eq!(words[2], "1", "{text}");
    write(
        &failed,
        format!("{} {} 9 {}\n", words[0], words[1], words[3]),
    );
    one.lab.hosts[0].start();

    // It finds the release itself.
    one.until_looks(3);
    assert_eq!(runs_of(&one.runs, "1"), 1);

    // Another host offers it.
    let other = one.lab.host("web2");
    other.catch_up = true;
    other.rule(&one.rule);
    other.start();
    until("the other host", || has_site(&one.lab, &one.lab.hosts[1]));
    one.until_looks(6);
    assert_eq!(runs_of(&one.runs, "1"), 1);

    // A command is for now, and so is another release.
    write(&one.lab.site().join("page"), "deployed");
    one.lab.deploy(&[]);
    assert!(runs_of(&one.runs, "2") > 0, "the hook has to run");
    one.take_next();
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
