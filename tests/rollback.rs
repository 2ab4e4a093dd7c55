//! Back to an earlier release: by hosts that kept it, by one that did not, by keys that may do no more.

mod support;

use std::path::PathBuf;

use support::{Lab, Noise, Ran, copy, read, write};

/// The bytes of the file that every release changes.
const LARGE: usize = 2_000_000;
/// A rollback among hosts that kept the release sends this many bytes at most, whatever its size.
const LITTLE: u64 = 400_000;

/// A lab whose hosts had three releases, of which `r1`, `r2` and `r3` are copies; each keeps five.
fn released(hosts: usize, more: &str) -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    lab.spec(&format!("{}{more}", support::DELETE));
    let back = lab.keygen("back");
    let keys = read(&lab.path("authorized_keys"));
    write(&lab.path("authorized_keys"), format!("{}tree=\"www\",rollback {back}", String::from_utf8_lossy(&keys)));
    for i in 1..=hosts {
        let host = lab.host(&format!("web{i}"));
        host.rule("keep = 5");
        host.start();
    }
    Noise::new(1).tree(&lab.site(), 20, 2000);
    for n in 1..=3u64 {
        write(&lab.site().join("large"), Noise::new(n).bytes(LARGE));
        write(&lab.site().join(format!("only{n}")), format!("release {n}"));
        if n > 1 {
            std::fs::remove_file(lab.site().join(format!("only{}", n - 1))).expect("there");
        }
        lab.deploy(&[]).exits(0);
        copy(&lab.site(), &lab.path(&format!("r{n}")));
    }
    Some(lab)
}

fn config(lab: &Lab, host: &str) -> String {
    let path: PathBuf = lab.path(host).join("makuo.toml");
    path.to_str().expect("UTF-8").to_string()
}

fn sent(ran: &Ran) -> u64 {
    ran.result()["bytes_sent"].as_u64().expect("a number")
}

#[test]
fn hosts_go_back_to_what_they_kept_and_next_to_nothing_is_sent() {
    for more in ["", "[commit]\nlayout = \"swap\"\n"] {
        let Some(lab) = released(3, more) else { return };
        let on = config(&lab, "web1");
        let ran = lab.makuo(&["rollback", "www", "-n", "-c", &on]).exits(0);
        ran.says(&["large", "only2", "*deleting"]);
        lab.all_same(&lab.path("r3"));
        let ran = lab.makuo(&["rollback", "www", "--json", "--expect", "3", "-c", &on]).exits(0);
        lab.all_same(&lab.path("r2"));
        let result = ran.result();
        assert_eq!((result["serial"].as_u64(), result["rollback_to"].as_u64()), (Some(4), Some(2)), "{ran}");
        assert!(sent(&ran) < LITTLE, "{ran}");
        // From anywhere, as all of them kept it.
        let ran = lab.makuo(&["rollback", "www", "--json", "--to", "1"]).exits(0);
        lab.all_same(&lab.path("r1"));
        assert!(sent(&ran) < LITTLE, "{ran}");
        lab.makuo(&["rollback", "www", "--to", "www@3"]).exits(0).says(&["www@6 (rollback to www@3)"]);
        lab.all_same(&lab.path("r3"));
        lab.makuo(&["rollback", "www", "--to", "99"]).exits(3).says(&["www@99", "kept are"]);
        lab.makuo(&["rollback", "www", "--expect", "9", "--timeout", "2s"]).exits(3).says(&["9 were expected"]);
        lab.all_same(&lab.path("r3"));
    }
}

#[test]
fn a_host_that_did_not_keep_it_is_served_by_one_that_did() {
    let Some(mut lab) = released(2, "") else { return };
    lab.host("web3").start();
    let refused = lab.makuo(&["rollback", "www", "--expect", "3"]).exits(3);
    refused.says(&["web3 did not keep all of www@2", "run the rollback on a host that kept it"]);
    lab.hosts[..2].iter().for_each(|host| support::same(&lab.path("r3"), &host.tree()));
    assert_eq!(std::fs::read_dir(lab.hosts[2].tree()).expect("there").count(), 0);
    let on = config(&lab, "web2");
    let ran = lab.makuo(&["rollback", "www", "--json", "--expect", "3", "-c", &on, "--to", "2"]).exits(0);
    lab.all_same(&lab.path("r2"));
    assert!(sent(&ran) > LARGE as u64, "{ran}");
}

#[test]
fn a_key_for_rollbacks_goes_back_and_does_no_more() {
    let Some(lab) = released(2, "") else { return };
    let (key, on) = (lab.path("back").to_str().expect("UTF-8").to_string(), config(&lab, "web1"));
    lab.makuo(&["rollback", "www", "-k", &key, "-c", &on]).exits(0);
    lab.all_same(&lab.path("r2"));
    write(&lab.site().join("large"), "new");
    lab.makuo(&["deploy", "www.toml", "-k", &key]).exits(3).says(&["may not deploy www"]);
    lab.all_same(&lab.path("r2"));
    // What it signed itself it may put again, and so may the other.
    lab.makuo(&["rollback", "www", "--to", "1", "-k", &key, "-c", &on]).exits(0);
    lab.makuo(&["rollback", "www", "--to", "4", "-c", &on]).exits(0);
    lab.all_same(&lab.path("r2"));
}

#[test]
fn what_an_unknown_key_signed_is_not_signed_again() {
    let Some(lab) = released(1, "") else { return };
    lab.keygen("stranger");
    let key = lab.path("stranger").to_str().expect("UTF-8").to_string();
    lab.makuo(&["rollback", "www", "-k", &key]).exits(3).says(&["SHA256:", "--authorized-keys"]);
    // Known to whoever rolls back, but not to the hosts.
    let keys = lab.path("authorized_keys").to_str().expect("UTF-8").to_string();
    lab.makuo(&["rollback", "www", "-k", &key, "--authorized-keys", &keys]).exits(3).says(&["may not rollback www"]);
    lab.all_same(&lab.path("r3"));
}
