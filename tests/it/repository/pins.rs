//! Pins in a repository: a release that stays, whatever comes later.

use serde_json::Value;

use super::Depot;
use crate::support::{Ran, Running, write};

/// Runs a command on the repository with the depot's keys.
fn on(depot: &Depot, args: &[&str], keys: &[&str]) -> Ran {
    let args = [args, &[&depot.url], keys, &["--json"]].concat();
    Running::start(&mut depot.makuo(&args)).wait()
}

fn pin(depot: &Depot, word: &str, release: &str) -> Ran {
    let keys = ["-k", "deploy.key", "--authorized-keys", "keys"];
    on(depot, &[word, release, "--repository"], &keys)
}

fn gc(depot: &Depot) -> Ran {
    let keys = ["--authorized-keys", "keys", "--key", "deploy.key"];
    let keep = ["--keep", "1", "--grace", "1ms"];
    on(depot, &["repo", "gc"], &[&keys[..], &keep[..]].concat())
}

/// The releases of the repository, and those of them that are pinned.
fn listed(depot: &Depot) -> (Vec<u64>, Vec<u64>) {
    let ran = on(depot, &["repo", "list"], &["--authorized-keys", "keys"]).exits(0);
    let result = ran.result();
    let releases = result["releases"].as_array().expect("a list");
    let serial = |release: &&Value| release["serial"].as_u64().expect("a serial");
    let pinned = releases.iter().filter(|release| release["pinned"] == true);
    (
        releases.iter().map(|r| serial(&r)).collect(),
        pinned.map(|r| serial(&r)).collect(),
    )
}

#[test]
fn gc_leaves_a_pinned_release_alone_until_its_pin_ends() {
    let depot = Depot::new(None);
    let mut serials = Vec::new();
    for n in 1..=6 {
        write(&depot.site("page"), format!("release {n}"));
        serials.push(depot.publish());
        if n == 1 {
            let first = format!("www@{}", serials[0]);
            pin(&depot, "pin", &first).exits(0);
        }
    }

    // Publications keep three releases, and the pinned one.
    let first = serials[0];
    let newest: Vec<u64> = serials[3..].iter().rev().copied().collect();
    assert_eq!(
        listed(&depot),
        ([&newest[..], &[first]].concat(), vec![first])
    );

    let name = format!("www@{first}");
    gc(&depot).exits(0);
    assert_eq!(listed(&depot), (vec![newest[0], first], vec![first]));
    let show = ["show", &format!("{name}:page"), "--from", &depot.url];
    let shown = Running::start(&mut depot.makuo(&show)).wait().exits(0);
    assert_eq!(shown.out, "release 1");
    on(&depot, &["repo", "check"], &["--authorized-keys", "keys"]).exits(0);
    let text = ["repo", "list", &depot.url, "--authorized-keys", "keys"];
    Running::start(&mut depot.makuo(&text))
        .wait()
        .exits(0)
        .says(&["pinned"]);

    pin(&depot, "pin", "www@999")
        .exits(3)
        .says(&["does not keep www@999"]);
    pin(&depot, "unpin", &name).exits(0);
    pin(&depot, "unpin", &name)
        .exits(3)
        .says(&["is not pinned"]);
    gc(&depot).exits(0);
    assert_eq!(listed(&depot), (vec![newest[0]], vec![]));
    Running::start(&mut depot.makuo(&show)).wait().exits(3);
}
