//! Networks without multicast: everything works there, and hosts pass data on to each other.

use crate::support::{Capture, Lab, NetworkKind, Packet, same, skipped, until, write};

#[path = "fleet.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests on another network")]
mod fleet;
#[path = "network.rs"]
#[allow(clippy::duplicate_mod, reason = "the same tests on another network")]
mod network;

/// The network of all tests here.
const NETWORK: NetworkKind = NetworkKind::Unicast;

#[test]
fn the_sender_sends_a_payload_once_and_hosts_pass_it_on() {
    const PAYLOAD: usize = 12 << 20;
    let Some(lab) = NETWORK.hosts(5) else { return };
    let mut content = vec![0; PAYLOAD];
    fastrand::Rng::with_seed(7).fill(&mut content);
    write(&lab.site().join("large"), &content);

    let ran = lab.deploy(&["--rate", "100Mbit"]).exits(0);
    lab.all_same(&lab.site());
    let sent = ran.result()["bytes_sent"].as_u64().expect("a number") as f64;
    assert!(sent < PAYLOAD as f64 * 1.2, "{sent}: {}", ran.err);

    // A change of a few bytes goes to each host directly.
    write(&lab.site().join("small"), "changed");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn any_host_is_a_way_in_and_hosts_come_go_and_return() {
    let Some(mut lab) = NETWORK.idle_hosts(3) else {
        return;
    };

    let way_in = |number: usize| {
        let peer = format!("10.77.0.{number}");
        ["--interface", "eth0", "--no-multicast", "--peers", &peer]
            .map(String::from)
            .to_vec()
    };

    lab.flags = Some(way_in(1));
    for host in &mut lab.hosts {
        host.flags = Some(way_in(1));
        host.start();
    }

    let members = |lab: &Lab| {
        let flags = ["members", "--wait", "1s"];
        lab.makuo(&flags).exits(0).out.lines().count()
    };
    until("all to be known", || members(&lab) == 3);

    // The way in of the others is gone; the command asks another host.
    lab.hosts[0].stop();
    lab.flags = Some(way_in(3));
    until("the two others to be known", || members(&lab) == 2);
    write(&lab.site().join("page"), "one");
    lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);

    lab.hosts[0].start();
    until("all to be known again", || members(&lab) == 3);
    write(&lab.site().join("page"), "two");
    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
}

#[test]
fn a_host_that_stops_passing_on_keeps_nothing_from_the_others() {
    const PAYLOAD: usize = 16 << 20;
    let Some(lab) = NETWORK.hosts(5) else { return };
    let mut content = vec![0; PAYLOAD];
    fastrand::Rng::with_seed(8).fill(&mut content);
    write(&lab.site().join("large"), &content);
    lab.spec("[commit]\nrequire = 4\n");

    let flags = ["--rate", "40Mbit", "--timeout", "6s", "--expect", "5"];
    let deploy = lab.start(&[&["deploy", "--json", "www.toml"], &flags[..]].concat());
    until("a transfer under way", || {
        bytes_below(&lab.hosts[2].state()) > 1 << 20
    });
    lab.hosts[1].signal(nix::sys::signal::Signal::SIGSTOP);

    let ran = deploy.wait();
    lab.hosts[1].signal(nix::sys::signal::Signal::SIGCONT);
    for host in [0, 2, 3, 4] {
        let host = &lab.hosts[host];
        assert_eq!(ran.host(&host.name).0, "committed", "{}", ran.err);
        same(&lab.site(), &host.tree());
    }
}

/// Makes two segments with multicast of two hosts each; commands are in the first one. The first
/// host is the way in, except for the last host, which names nobody that is there.
fn segments() -> Option<Lab> {
    let mut lab = Lab::network_idle(4)?;
    lab.switch().split(&[3, 4]);
    let flags = |peer: &str| ["--interface", "eth0", "--peers", peer].map(String::from);

    for (host, peer) in lab.hosts.iter_mut().zip([1, 1, 1, 99]) {
        host.flags = Some(flags(&format!("10.77.0.{peer}")).into());
        host.start();
    }

    lab.flags = Some(flags("10.77.0.1").into());
    Some(lab)
}

#[test]
fn segments_with_multicast_are_joined_by_unicast() {
    let Some(mut lab) = segments() else { return };
    let members = |lab: &Lab| {
        let flags = ["members", "--wait", "1s"];
        lab.makuo(&flags).exits(0).out.lines().count()
    };
    // Multicast of the third host is the only way to the fourth.
    until("all to be known", || members(&lab) == 4);

    let capture = Capture::start(&lab.admin).map_err(|why| skipped(&why)).ok();
    write(&lab.site().join("page"), "one");
    lab.makuo(&["deploy", "www.toml", "--expect", "4"]).exits(0);
    lab.all_same(&lab.site());

    // Messages to all are not copied to hosts that hear the multicast of the command.
    if let Some(capture) = capture {
        let packets = capture.finish();
        let messages = |host: u8| {
            let udp = packets.iter().filter_map(Packet::udp);
            let to = udp.filter(|udp| udp.to.octets() == [10, 77, 0, host]);
            to.filter(|udp| udp.head.get(3) == Some(&0x81)).count()
        };
        let [near, far] = [messages(1).max(messages(2)), messages(3).min(messages(4))];
        assert!(
            near < far,
            "{near} to one that hears, {far} to one that does not"
        );
    }

    // Words keep hosts apart that hear each other, and unicast serves them.
    for (host, word) in lab.hosts.iter_mut().zip(["a", "b", "c", "c"]) {
        host.stop();
        host.setting(&format!("network.segment = \"{word}\""));
        host.flags = Some(
            ["--interface", "eth0", "--peers", "10.77.0.1"]
                .map(String::from)
                .into(),
        );
        host.start();
    }
    until("all to be known again", || members(&lab) == 4);
    write(&lab.site().join("page"), "two");
    lab.makuo(&["deploy", "www.toml", "--expect", "4"]).exits(0);
    lab.all_same(&lab.site());
}

/// Bytes of all files below a directory.
fn bytes_below(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
