//! Holds and windows: hosts that stage a release and do not commit it yet.

use serde_json::Value;

use crate::support::{Lab, Ran, same, until, write};

/// Makes three hosts that catch up, with a first release.
fn released(rule: Option<&str>) -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    for name in ["web1", "web2", "web3"] {
        let host = lab.host(name);
        host.catch_up = true;
        if let Some(rule) = rule.filter(|_| name == "web3") {
            host.rule(rule);
        }
        host.start();
    }
    lab.spec("");
    write(&lab.site().join("page"), "old");
    Some(lab)
}

fn held(ran: &Ran, host: &str) -> Value {
    let events = ran.events();
    let is_it = |e: &&Value| e["event"] == "host" && e["host"] == host;
    events.iter().find(is_it).expect("the host")["held"].clone()
}

#[test]
fn a_held_host_commits_nothing_until_its_hold_ends_and_then_catches_up() {
    let Some(mut lab) = released(None) else {
        return;
    };
    lab.deploy(&[]).exits(0);
    let socket = lab.hosts[2].socket();
    let socket = socket.to_str().expect("UTF-8");
    let hold = [
        "hold", "--socket", socket, "--for", "4h", "--by", "ops", "--why",
    ];
    lab.makuo(&[&hold[..], &["database move"]].concat())
        .exits(0)
        .says(&["www: held"]);
    lab.hosts[2].restart();
    let ran = lab.makuo(&["status", "--json", "www"]).exits(0);
    assert_eq!(held(&ran, "web3")["by"], "ops", "{ran}");

    write(&lab.site().join("page"), "new");
    let ran = lab.deploy(&[]).exits(3);
    let (state, why) = ran.host("web3");
    assert_eq!(state, "refused", "{ran}");
    assert!(
        why.starts_with("held by ops until") && why.ends_with(": database move"),
        "{why}"
    );

    // The others go on if the spec permits it, and it can stage meanwhile.
    lab.spec("[commit]\nrequire = 2\n");
    lab.deploy(&["--stage"]).exits(0);
    lab.makuo(&["commit", "www@3", "--require", "2"])
        .exits(4)
        .says(&["held by ops until"]);
    let is_new = |host: usize| {
        let page = std::fs::read(lab.hosts[host].tree().join("page"));
        page.expect("there") == b"new"
    };
    assert!(is_new(0) && is_new(1) && !is_new(2));

    let other = lab.keygen("other");
    assert!(!other.is_empty());
    let key = lab.path("other");
    let key = key.to_str().expect("UTF-8");
    lab.makuo(&["release", "web3", "-k", key])
        .exits(3)
        .says(&["no host followed", "web3: "]);
    lab.makuo(&["release", "web9"])
        .exits(3)
        .says(&["no host that answers is named web9"]);
    assert!(!is_new(2));

    lab.makuo(&["release", "web*", "--tree", "www"])
        .exits(0)
        .says(&["web1-web3: not held any more"]);
    until("a host that catches up", || is_new(2));
    lab.all_same(&lab.site());
}

#[test]
fn a_tree_commits_only_in_its_window() {
    // Three days from now, by the clock of the hosts.
    let seconds = makuo::drive::clock::wall_seconds().0;
    let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let far = days[(seconds / 86_400 + 3).rem_euclid(7) as usize];
    let window = format!("window = \"{far} 02:00-04:00\"");
    let Some(lab) = released(Some(&window)) else {
        return;
    };

    let ran = lab.deploy(&[]).exits(3);
    let (_, why) = ran.host("web3");
    let expected = format!("commits only {far} 02:00-04:00 UTC, next {far} 02:00 UTC");
    assert_eq!(why, expected, "{ran}");
    lab.deploy(&["--stage"]).exits(0);
    lab.makuo(&["commit", "www@2"])
        .exits(3)
        .says(&[&expected, "stays staged"]);

    let config = lab.hosts[2].config_path();
    let text = std::fs::read_to_string(&config).expect("text");
    write(&config, text.replace(&window, ""));
    lab.hosts[2].reload();
    until("the new rules", || {
        lab.makuo(&["commit", "www@2"]).code == 0
    });
    lab.hosts
        .iter()
        .for_each(|host| same(&lab.site(), &host.tree()));
}
