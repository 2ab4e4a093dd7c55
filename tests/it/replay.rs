//! An attacker at the switch without the group key replays recorded sealed datagrams to commands
//! and to restarted hosts. No replayed datagram has an effect.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{self, Adversary, Beside, Lab, Noise, pause, recording, write};
use nix::sys::signal::Signal;

/// Sealed datagrams.
type Recording = Vec<Vec<u8>>;

/// Makes a lab of hosts with a group key, with a keyless attacker at the switch.
fn lab(hosts: usize) -> Option<(Lab, Adversary)> {
    let mut lab = Lab::network_idle(hosts)?;
    lab.flags = Some(Vec::new());
    lab.makuo(&["keygen", "--group", "-o", "group.key"])
        .exits(0);
    let key = lab.path("group.key").to_str().expect("UTF-8").to_string();
    let place = lab.plug();
    let evil = Adversary::at(&place)?;
    let flags = [lab.admin.flags(), vec!["--group-key".to_string(), key]].concat();

    for host in &mut lab.hosts {
        host.flags = Some(flags.clone());
        host.start();
    }

    lab.flags = Some(flags);
    Some((lab, evil))
}

/// Replays a recording continuously, to the group and to every sender of a datagram.
fn replaying(evil: Adversary, recording: Recording) -> Beside<Adversary> {
    assert!(!recording.is_empty(), "nothing was heard");
    Beside::begin(move |over| {
        while !over.load(Ordering::Relaxed) {
            for some in recording.chunks(16) {
                some.iter().for_each(|datagram| evil.send(datagram));
                for (who, _) in evil.hear_from(4) {
                    recording
                        .iter()
                        .take(64)
                        .for_each(|datagram| evil.send_to(who, datagram));
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        evil
    })
}

/// Records beacons until every host has sent one.
fn beacons(evil: &Adversary, hosts: usize) -> Recording {
    let (mut heard, mut from) = (Vec::new(), std::collections::BTreeSet::new());
    support::until("beacons of all hosts", || {
        for (who, datagram) in evil.hear_from(100) {
            from.insert(who.ip());
            heard.push(datagram);
        }
        from.len() >= hosts
    });
    heard
}

/// Deploys one more file during the attack.
fn deploy(lab: &Lab, nth: u32) {
    write(&lab.site().join("page"), format!("new {nth}"));
    let ran = lab.deploy(&["--timeout", "5s"]).exits(0);
    assert_eq!(
        ran.result()["targets"].as_u64(),
        Some(lab.hosts.len() as u64),
        "{ran}"
    );
    lab.all_same(&lab.site());
}

#[test]
fn the_beacon_of_a_host_that_is_gone_is_neither_a_target_nor_a_member() {
    let Some((mut lab, evil)) = lab(3) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    let recorded = beacons(&evil, 3);

    // Two hosts have new instance ids, and a third disappeared without a goodbye.
    lab.hosts[0].restart();
    lab.hosts[1].restart();
    let replay = replaying(evil, recorded);
    (0..3).for_each(|nth| deploy(&lab, nth));
    let ran = lab.makuo(&["members", "--json"]).exits(0);
    assert_eq!(ran.result()["members"].as_u64(), Some(3), "{ran}");

    lab.hosts[2].kill();
    let ran = lab.makuo(&["members", "--json"]).exits(0);
    assert!(
        !ran.out.contains("web3") && ran.out.contains("web1") && ran.out.contains("web2"),
        "{ran}"
    );
    let ran = lab.makuo(&["status", "--json"]);

    assert!(
        !ran.out.contains("web3") && ran.out.contains("web1"),
        "{ran}"
    );
    write(&lab.site().join("page"), "without web3");
    lab.makuo(&[
        "deploy",
        "--json",
        "www.toml",
        "--expect",
        "2",
        "--timeout",
        "5s",
    ])
    .exits(0);

    replay.end();
}

#[test]
fn a_session_that_was_aborted_or_killed_holds_no_tree_of_restarted_hosts() {
    for kills in [false, true] {
        let Some((mut lab, evil)) = lab(2) else {
            return;
        };
        write(&lab.site().join("page"), "old");
        lab.deploy(&[]).exits(0);
        let recorder = recording(evil);
        write(&lab.site().join("big"), Noise::new(5).bytes(12 << 20));
        let mut running = lab.start(&["deploy", "--json", "www.toml", "--rate", "1MB"]);
        running.until_event("data", |event| event["event"] == "progress");
        // The transfer takes twelve seconds, so most of the data is still to come.
        pause(Duration::from_millis(500));
        if kills {
            running.kill();
        } else {
            running.signal(Signal::SIGINT);
            running.wait().exits(3);
        }
        let (evil, recorded) = recorder.end();
        std::fs::remove_file(lab.site().join("big")).expect("there");
        lab.hosts.iter_mut().for_each(support::Host::restart);
        let replay = replaying(evil, recorded);
        pause(Duration::from_millis(500));
        (0..4).for_each(|nth| deploy(&lab, nth));
        replay.end();
    }
}

#[test]
fn a_comparison_that_was_recorded_holds_up_no_deploy() {
    let Some((mut lab, evil)) = lab(2) else {
        return;
    };

    write(&lab.site().join("page"), "old");
    lab.deploy(&[]).exits(0);
    Noise::new(7).tree(&lab.site(), 300, 20_000);
    let recorder = recording(evil);
    lab.diff(&["--checksum"]).exits(1);
    let (evil, recorded) = recorder.end();
    lab.hosts.iter_mut().for_each(support::Host::restart);
    let replay = replaying(evil, recorded);
    pause(Duration::from_millis(300));
    (0..4).for_each(|nth| deploy(&lab, nth));

    replay.end();
}
