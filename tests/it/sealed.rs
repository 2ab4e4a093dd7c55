//! Deployments with a group key: nothing readable on the network, and hosts without the key are
//! absent.

use crate::support::{self, Capture, Lab, Packet, skipped, until, write};
use makuo::keys::GroupKey;

const SECRET: &str = "plans-for-the-takeover.txt";

/// Makes a lab of hosts and commands with a group key, the default, and a source to release.
fn sealed(count: usize) -> Option<Lab> {
    let lab = Lab::network(count)?;
    write(&lab.site().join(SECRET), "attack at dawn");
    Some(lab)
}

/// Makes another group key.
fn keygen(lab: &Lab, name: &str) {
    GroupKey::random()
        .and_then(|key| key.save(&lab.path(name), false))
        .expect("a group key");
}

/// Counts the occurrences of `what` in the packets.
fn said(packets: &[Packet], what: &str) -> usize {
    packets
        .iter()
        .filter(|p| {
            p.head
                .windows(what.len())
                .any(|bytes| bytes == what.as_bytes())
        })
        .count()
}

#[test]
fn those_with_the_key_deploy_and_the_network_shows_no_name() {
    let Some(lab) = sealed(3) else { return };
    let Ok(capture) = Capture::start(&lab.hosts[0].place).map_err(|why| skipped(&why)) else {
        return;
    };

    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    lab.makuo(&["members", "--json"])
        .exits(0)
        .says(&["\"members\":3", "\"strangers\":0"]);
    lab.makuo(&["status", "www"])
        .exits(0)
        .says(&["web1", "web2", "web3"]);

    lab.makuo(&["log", "www"]).exits(0).says(&["www@1"]);
    lab.diff(&[]).exits(0);
    let sealed = capture.finish();
    for name in [SECRET, "web1", "www"] {
        assert_eq!(said(&sealed, name), 0, "{name} is on the network");
    }

    // Control experiment without a key: the capture would show the text.
    let Some(lab) = Lab::plain_network(1) else {
        return;
    };

    write(&lab.site().join(SECRET), "attack at dawn");
    let Ok(capture) = Capture::start(&lab.hosts[0].place).map_err(|why| skipped(&why)) else {
        return;
    };

    lab.deploy(&[]).exits(0).says(&["traffic is plain"]);
    assert_eq!(
        lab.hosts[0].log().matches("traffic is plain").count(),
        1,
        "{}",
        lab.hosts[0].log()
    );

    let plain = capture.finish();
    for name in [SECRET, "web1", "www"] {
        assert!(said(&plain, name) > 0, "{name} is not on the network");
    }
}

#[test]
fn those_without_the_key_get_nothing_and_are_seen() {
    let Some(mut lab) = sealed(2) else { return };
    // For a plain sender and for one with another key, no host answers, and each command prints the
    // reason.
    lab.makuo(&["deploy", "www.toml", "--plain"])
        .exits(3)
        .says(&[
            "no hosts answered",
            "speaks with a group key",
            "--group-key",
        ]);

    keygen(&lab, "other.key");
    lab.makuo(&["deploy", "www.toml", "--group-key", "other.key"])
        .exits(3)
        .says(&["no hosts answered", "another group key"]);

    for host in &lab.hosts {
        assert_eq!(
            std::fs::read_dir(host.tree()).expect("a tree").count(),
            0,
            "nothing was put on {}",
            host.name
        );
        for what in [
            "speaks without a group key",
            "speaks with another group key",
        ] {
            assert_eq!(
                host.log().matches(what).count(),
                1,
                "{what}: {}",
                host.log()
            );
        }
    }

    // A plain host is not a member, but the output names the host.
    let (plain, dir, keys) = (lab.plug(), lab.path("plain"), lab.path("authorized_keys"));
    lab.hosts
        .push(support::Host::new("plain", plain, dir, keys));
    lab.hosts[2].plain = true;
    lab.hosts[2].start();
    until("the plain host is seen", || {
        lab.makuo(&["members", "--json"])
            .exits(0)
            .out
            .contains("speaks without a group key")
    });

    let ran = lab
        .makuo(&["members", "--json"])
        .exits(0)
        .says(&["\"members\":2"]);
    assert!(!ran.out.contains("\"plain\""), "{ran}");
    let ran = lab
        .makuo(&["deploy", "--json", "www.toml", "--expect", "2"])
        .exits(0);

    assert_eq!(ran.result()["targets"].as_u64(), Some(2), "{ran}");
    assert_eq!(lab.with_release(), ["web1", "web2"]);
}

#[test]
fn a_group_changes_its_key_while_it_runs() {
    let Some(lab) = sealed(2) else { return };
    keygen(&lab, "new.key");
    lab.deploy(&[]).exits(0);

    // The configured path stays the same: the file's content changes, and SIGHUP reloads the file.
    let one = &lab.hosts[1];
    let before = one.log().matches("datagrams are sealed with").count();
    for host in &lab.hosts {
        std::fs::copy(lab.path("new.key"), host.group_key()).expect("writable");
        host.reload();
    }

    until("both have the new key", || {
        lab.hosts
            .iter()
            .all(|host| host.log().matches("datagrams are sealed with").count() > before)
    });

    write(&lab.site().join("page"), "new");
    lab.deploy(&["--group-key", "new.key"]).exits(0);
    lab.all_same(&lab.site());
}
