//! Hosts that missed a release, or lost a part of one, make it up from each other: the sender is gone.

mod support;

use std::os::unix::fs::MetadataExt;

use support::{Lab, differences, until, write};

const FILES: usize = 40;
/// One of them.
const ONE: &str = "one.bin";

/// Hosts that catch up, all of them with a first release.
fn lab(hosts: usize, more: &str) -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    for n in 1..=hosts {
        let host = lab.host(&format!("web{n}"));
        host.catch_up = true;
        host.rule(more);
        host.start();
    }
    let mut noise = support::Noise::new(5);
    noise.tree(&lab.site(), FILES, 30_000);
    write(&lab.site().join(ONE), noise.bytes(5000));
    lab.deploy(&[]).exits(0);
    Some(lab)
}

fn has_release(lab: &Lab, host: usize) -> bool {
    differences(&lab.site(), &lab.hosts[host].tree()).is_empty()
}

/// How often one of the hosts says so in its log.
fn said(lab: &Lab, what: &str) -> usize {
    lab.hosts.iter().map(|host| host.log().matches(what).count()).sum()
}

#[test]
fn a_host_that_was_away_has_the_newest_release_soon_after_its_start() {
    let Some(mut lab) = lab(3, "") else { return };
    lab.hosts[2].kill();
    for text in ["second", "third"] {
        write(&lab.site().join("page"), text);
        std::fs::remove_file(lab.site().join("page")).expect("there");
        write(&lab.site().join("page"), text);
        lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);
    }
    lab.hosts[2].start();
    until("the third host to catch up", || has_release(&lab, 2));
    lab.all_same(&lab.site());
    until("the host to say so", || said(&lab, "passed on to web3") == 1);
    // Its number is the fleet's: the next release follows for all.
    write(&lab.site().join("page"), "fourth");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn new_servers_become_complete_together_and_who_does_not_want_to_does_not() {
    let Some(mut lab) = lab(2, "") else { return };
    for (name, catch_up) in [("web3", true), ("web4", true), ("web5", false)] {
        let host = lab.host(name);
        host.catch_up = catch_up;
        host.start();
    }
    until("the new hosts to be complete", || has_release(&lab, 2) && has_release(&lab, 3));
    until("one session for both", || said(&lab, "passed on to web3, web4") == 1);
    assert_eq!(std::fs::read_dir(lab.hosts[4].tree()).expect("a tree").count(), 0);
    // One of the new ones is as good as the old ones are.
    lab.hosts[0].kill();
    lab.hosts[1].kill();
    lab.host("web6").catch_up = true;
    lab.hosts[5].start();
    until("a host to be complete by what others made up", || has_release(&lab, 5));
}

/// Changes a file of the host's tree behind its back: the same size and the same time of modification.
fn tamper(lab: &Lab, host: usize, name: &str) {
    let path = lab.hosts[host].tree().join(name);
    let before = std::fs::metadata(&path).expect("there");
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[100] ^= 1;
    write(&path, &bytes);
    let then = before.modified().expect("known");
    std::fs::File::options().write(true).open(&path).and_then(|f| f.set_modified(then)).expect("mine");
    assert_eq!(std::fs::metadata(&path).expect("there").size(), before.size());
}

#[test]
fn what_was_tampered_with_is_not_spread() {
    let Some(mut lab) = lab(2, "") else { return };
    let name = ONE;
    tamper(&lab, 0, name);
    tamper(&lab, 1, name);
    lab.host("web3").catch_up = true;
    lab.hosts[2].start();
    until("both to be asked in vain", || said(&lab, "not all of it could be given") >= 2);
    assert_eq!(std::fs::read_dir(lab.hosts[2].tree()).expect("a tree").count(), 0, "all or nothing");
    // What one of them lacks the other has.
    std::fs::copy(lab.site().join(name), lab.hosts[1].tree().join(name)).expect("mended");
    until("the host to be complete", || has_release(&lab, 2));
}

#[test]
fn a_tree_that_drifted_is_made_good_by_others() {
    let Some(lab) = lab(2, "repair = \"1s\"\n") else { return };
    let name = ONE;
    write(&lab.hosts[0].tree().join(name), "somebody was here");
    write(&lab.hosts[0].tree().join("extra"), "and here");
    until("the tree to be repaired", || has_release(&lab, 0));
    until("the host to say so", || said(&lab, "repaired: 1 paths made anew") == 1);
    assert!(said(&lab, "drifted: 3 paths are not as its release says") >= 1);
    until("it to be counted", || {
        let ran = lab.makuo(&["status", "--json", "www"]).exits(0);
        let events = ran.events();
        let told = events.iter().find(|e| e["host"] == "web1").expect("web1").clone();
        told["drift"]["repaired"] == 1 && told["drift"]["drifted"].as_u64() >= Some(1)
    });
    lab.makuo(&["status"]).exits(0).says(&["repaired 1"]);
    // Nothing else changed hands, and what is whole is left alone.
    write(&lab.site().join("page"), "new");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn parts_of_a_tree_follow_the_whole_that_they_belong_to() {
    let Some(mut lab) = lab(2, "") else { return };
    lab.hosts[1].kill();
    write(&lab.site().join("page"), "of the whole");
    lab.makuo(&["deploy", "www.toml", "--expect", "1"]).exits(0);
    // A part of it, twice, under newer numbers.
    let web1 = lab.hosts[0].tree();
    lab.host("web3").catch_up = true;
    lab.hosts[2].start();
    until("a host that gets the whole", || has_release(&lab, 2));
    let line = lab.keygen("sender");
    let keys = std::fs::read_to_string(lab.path("authorized_keys")).expect("readable");
    write(&lab.path("authorized_keys"), format!("{keys}tree=\"www\",deploy {line}"));
    lab.hosts[0].kill();
    let sender = format!("[sender]\nkey = {:?}", lab.path("sender").to_str().expect("UTF-8"));
    lab.hosts[0].setting(&sender);
    lab.hosts[0].start();
    lab.hosts[2].restart();
    for text in ["first part", "second part"] {
        for tree in [&web1, &lab.site()] {
            write(&tree.join("part"), text);
        }
        let (part, socket) = (web1.join("part"), lab.hosts[0].socket());
        let (part, socket) = (part.to_str().expect("UTF-8"), socket.to_str().expect("UTF-8"));
        let sent = |lab: &Lab| std::fs::read_to_string(lab.hosts[2].tree().join("part")).unwrap_or_default();
        until("web3 to be heard", || {
            let mut send = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
            send.args(["send", part, "--socket", socket]).status().expect("runs").success() && sent(&lab) == text
        });
    }
    lab.hosts[1].start();
    let text = |name: &str| std::fs::read_to_string(lab.hosts[1].tree().join(name)).unwrap_or_default();
    until("the host that missed the whole and both parts", || {
        text("page") == "of the whole" && text("part") == "second part"
    });
}
