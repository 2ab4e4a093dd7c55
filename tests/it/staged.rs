//! Releases that stay staged: `makuo deploy --stage`, then `makuo commit` or `makuo abort`.

use serde_json::Value;

use crate::support::{Lab, Noise, Ran, copy, same, write};

/// Bytes of the file that every release changes.
const LARGE: usize = 600_000;
/// Most bytes that a commit of a staged release sends.
const LITTLE: u64 = 100_000;

/// Makes three hosts with a release, and a second one that is staged; `old` has the first.
fn staged(more: &str) -> Option<Lab> {
    let lab = Lab::loopback(3)?;
    lab.spec(more);
    Noise::new(1).tree(&lab.site(), 8, 3000);
    write(&lab.site().join("large"), Noise::new(1).bytes(LARGE));
    write(&lab.site().join("same"), "of both releases");
    lab.deploy(&[]).exits(0);
    copy(&lab.site(), &lab.path("old"));
    write(&lab.site().join("large"), Noise::new(2).bytes(LARGE));
    write(&lab.site().join("added"), "new");

    let ran = lab.deploy(&["--stage"]).exits(0);
    let hosts = ["web1", "web2", "web3"];
    assert!(
        hosts.iter().all(|host| ran.host(host).0 == "staged"),
        "{ran}"
    );
    lab.all_same(&lab.path("old"));
    Some(lab)
}

/// Serial that the host says it keeps staged.
fn kept(ran: &Ran, host: &str) -> Value {
    let events = ran.events();
    let is_it = |e: &&Value| e["event"] == "host" && e["host"] == host;
    let found = events.iter().find(is_it).expect("the host");
    found["staged"]["serial"].clone()
}

#[test]
fn a_staged_release_is_committed_after_restarts_by_an_order_alone() {
    for more in ["", "[commit]\nlayout = \"swap\"\n"] {
        let Some(mut lab) = staged(more) else { return };
        let ran = lab.makuo(&["status", "--json", "www"]).exits(0);
        assert_eq!(kept(&ran, "web2"), 2, "{ran}");
        lab.makuo(&["status"]).exits(0).says(&["www@2 staged"]);

        lab.hosts[0].kill();
        lab.hosts[0].start();
        assert_eq!(lab.hosts[1].stop().code(), Some(0));
        lab.hosts[1].start();
        std::fs::rename(lab.site(), lab.path("new")).expect("there");

        let commit = ["commit", "www@2", "--json", "--expect", "3", "--batch", "1"];
        let ran = lab.makuo(&commit).exits(0);
        lab.all_same(&lab.path("new"));
        let sent = ran.result()["bytes_sent"].as_u64();
        assert!(sent.is_some_and(|sent| sent < LITTLE), "{ran}");

        let ran = lab.makuo(&["status", "--json", "www"]).exits(0);
        assert_eq!(kept(&ran, "web2"), Value::Null, "{ran}");
        let again = lab.makuo(&["commit", "www@2"]).exits(3);
        again.says(&["no host that answers keeps www@2 staged"]);
    }
}

#[test]
fn a_host_whose_tree_was_changed_since_is_not_ready() {
    let Some(lab) = staged("") else { return };
    write(&lab.hosts[2].tree().join("same"), "edited by hand");

    let ran = lab.makuo(&["commit", "www@2", "--expect", "3"]).exits(3);
    ran.says(&[
        "web3",
        "is not whole any more as it was staged here",
        "stays staged",
    ]);
    lab.hosts[..2]
        .iter()
        .for_each(|host| same(&lab.path("old"), &host.tree()));

    lab.makuo(&["commit", "www@2", "--require", "2"])
        .exits(4)
        .says(&["web3 refused"]);
    lab.hosts[..2]
        .iter()
        .for_each(|host| same(&lab.site(), &host.tree()));
}

#[test]
fn an_aborted_release_is_staged_nowhere() {
    let Some(mut lab) = staged("") else { return };
    let other = lab.keygen("other");
    assert!(!other.is_empty());
    let key = lab.path("other");
    let key = key.to_str().expect("UTF-8");
    lab.makuo(&["abort", "www", "-k", key])
        .exits(3)
        .says(&["only that key can commit or abort it", "--key"]);
    lab.makuo(&["abort", "www@9"]).exits(3).says(&[
        "no host that answers keeps www@9 staged",
        "www@2 on web1-web3",
    ]);

    let ran = lab.makuo(&["abort", "www"]).exits(0);
    ran.says(&["www@2: aborted on 3 of 3 hosts"]);
    lab.makuo(&["commit", "www@2"]).exits(3);
    lab.hosts[0].restart();
    let ran = lab.makuo(&["status", "--json", "www"]).exits(0);
    assert_eq!(kept(&ran, "web1"), Value::Null, "{ran}");
    lab.all_same(&lab.path("old"));
}

#[test]
fn a_newer_release_takes_its_place() {
    let Some(lab) = staged("") else { return };
    write(&lab.site().join("added"), "newer");
    let ran = lab.deploy(&["--stage"]).exits(0);
    let (_, why) = ran.host("web1");
    assert_eq!(why, "in place of www@2", "{ran}");
    lab.makuo(&["commit", "www@2"])
        .exits(3)
        .says(&["www@3 on web1-web3"]);

    // A deploy commits at once.
    write(&lab.site().join("added"), "newest");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    lab.makuo(&["commit", "www@3"])
        .exits(3)
        .says(&["stage one with `makuo deploy --stage`"]);
}
