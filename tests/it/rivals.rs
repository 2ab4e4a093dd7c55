//! Several concurrent senders, of one tree or of two, alive or killed.

use crate::support::{self, DELETE, Lab, Noise, same, write};

/// Arguments of a deployment that takes a few seconds.
const SLOW: [&str; 5] = ["deploy", "--json", "www.toml", "--rate", "4MB"];
const BIG: usize = 12 << 20;

/// Makes two hosts with a first release, and a large file to release.
fn lab(seed: u64) -> Option<Lab> {
    let lab = Lab::loopback(2)?;
    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    write(&lab.site().join("big"), Noise::new(seed).bytes(BIG));
    Some(lab)
}

fn is_in_the_middle(event: &serde_json::Value) -> bool {
    event["event"] == "progress"
        && event["sent"]
            .as_u64()
            .is_some_and(|sent| sent > BIG as u64 / 4)
}

#[test]
fn deploys_of_two_trees_at_once_do_not_mix() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    let keys = lab.path("authorized_keys");
    let line = String::from_utf8(support::read(&keys))
        .expect("text")
        .replace("tree=\"www\"", "tree=\"*\"");
    write(&keys, line);

    for name in ["web1", "web2"] {
        let host = lab.host(name);
        let db = host.disk().join("db");
        std::fs::create_dir_all(&db).expect("new");
        host.rule(&format!("[[tree]]\nname = \"db\"\npath = {db:?}"));
        host.start();
    }

    write(
        &lab.path("db.toml"),
        format!("tree = \"db\"\nsource = \"other\"\n{DELETE}"),
    );
    write(&lab.site().join("big"), Noise::new(1).bytes(BIG));
    write(&lab.path("other/big"), Noise::new(2).bytes(BIG));
    Noise::new(3).tree(&lab.path("other"), 50, 4000);

    let mut first = lab.start(&SLOW);
    first.until_event("the middle of the first", is_in_the_middle);
    let second = lab.start(&["deploy", "--json", "db.toml", "--rate", "4MB"]);
    for ran in [first.wait().exits(0), second.wait().exits(0)] {
        assert_eq!(ran.result()["committed"].as_u64(), Some(2), "{ran}");
    }

    lab.all_same(&lab.site());
    lab.hosts
        .iter()
        .for_each(|host| same(&lab.path("other"), &host.disk().join("db")));
}

#[test]
fn a_second_deploy_of_a_tree_is_refused_and_names_the_first() {
    let Some(lab) = lab(4) else { return };
    let mut first = lab.start(&SLOW);
    first.until_event("the middle of the first", is_in_the_middle);
    let name = nix::unistd::gethostname()
        .expect("a name")
        .into_string()
        .expect("text");
    let name = name.split('.').next().expect("one part");
    let refused = lab.makuo(&["deploy", "www.toml"]).exits(3);
    refused.says(&["web1", "web2", "busy with www@2 from ", name]);
    let ran = first.wait().exits(0);
    assert_eq!(ran.result()["committed"].as_u64(), Some(2), "{ran}");

    lab.all_same(&lab.site());
}

#[test]
fn after_a_killed_deploy_the_next_one_waits_and_succeeds() {
    let Some(lab) = lab(5) else { return };
    let mut first = lab.start(&SLOW);
    first.until_event("the middle of the first", is_in_the_middle);
    first.kill();
    let ran = lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);
    lab.all_same(&lab.site());
    ran.says(&["waiting for www@2 from ", "which is silent"]);
}
