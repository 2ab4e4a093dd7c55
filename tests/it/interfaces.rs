//! Deployments over unusual interfaces: small or large MTUs, IPv6, and several interfaces.

use crate::support::{self, Lab, NetworkKind, Noise, write};

fn flags(line: &str) -> Option<Vec<String>> {
    Some(line.split(' ').map(String::from).collect())
}

/// Makes a lab with hosts not started yet and a source of a few megabytes.
fn lab(hosts: usize, seed: u64) -> Option<Lab> {
    let lab = Lab::network_idle(hosts)?;
    let mut noise = Noise::new(seed);
    noise.tree(&lab.site(), 100, 8000);
    write(&lab.site().join("big"), noise.bytes(3 << 20));
    Some(lab)
}

fn start(lab: &mut Lab) {
    lab.hosts.iter_mut().for_each(support::Host::start);
}

/// Deploys to every host, requires success, and returns the output.
#[track_caller]
fn deploys(lab: &Lab) -> support::Ran {
    let ran = lab.deploy(&["-v"]).exits(0);
    lab.all_same(&lab.site());
    ran
}

#[test]
fn a_host_with_a_smaller_mtu_makes_datagrams_smaller_for_all() {
    let Some(mut lab) = lab(3, 1) else { return };
    lab.hosts[1].place.ip("link set eth0 mtu 1400");
    start(&mut lab);
    deploys(&lab).says(&["datagrams of 1232 bytes", "do not reach web2"]);
}

#[test]
fn jumbo_frames_are_used_where_all_have_them_and_not_where_one_has_not() {
    let Some(mut lab) = lab(3, 2) else { return };
    lab.switch().widen(9000);
    start(&mut lab);
    let ran = deploys(&lab);
    assert!(!ran.err.contains("do not reach"), "{ran}");

    lab.hosts[2].place.ip("link set eth0 mtu 1500");
    lab.hosts[2].restart();
    write(&lab.site().join("big"), Noise::new(3).bytes(3 << 20));

    deploys(&lab).says(&["datagrams of 1472 bytes", "do not reach web3"]);
}

#[test]
fn an_interface_that_becomes_narrow_in_the_middle_ends_the_deploy_with_its_name() {
    let Some(mut lab) = lab(2, 4) else { return };
    start(&mut lab);
    write(&lab.site().join("big"), Noise::new(5).bytes(12 << 20));
    let mut deploy = lab.start(&["deploy", "--json", "www.toml", "--rate", "4MB"]);
    deploy.until_event("the middle of the transfer", |event| {
        event["event"] == "progress" && event["sent"].as_u64().is_some_and(|sent| sent > 3 << 20)
    });
    lab.admin.ip("link set eth0 mtu 1300");
    deploy.wait().exits(3).says(&["eth0", "MTU"]);

    deploys(&lab);
}

#[test]
fn an_ipv6_group_over_link_local_addresses_alone() {
    for (group, seed) in [("ff02::6d61", 6), ("ff12::4d4b", 7), ("ff15::4d4b", 8)] {
        let Some(mut lab) = lab(2, seed) else { return };
        let network = flags(&format!("--interface eth0 --group {group} --ttl 3"));
        for host in &mut lab.hosts {
            host.place.ip("-4 addr flush dev eth0");
            host.flags = network.clone();
        }
        lab.admin.ip("-4 addr flush dev eth0");
        lab.flags = network;
        start(&mut lab);
        deploys(&lab);
    }
}

#[test]
fn a_sender_and_a_host_with_two_interfaces() {
    let Some(mut lab) = lab(3, 9) else { return };
    // web1 is on the first switch, web2 on the second, web3 and the sender on both.
    let (admin, places) = (
        lab.admin.clone(),
        lab.hosts
            .iter()
            .map(|h| h.place.clone())
            .collect::<Vec<_>>(),
    );

    let switch = lab.switch();
    switch.bridge("br1");
    switch.wire(&places[1], "br1", "eth1", "10.78.0.2/16");
    switch.wire(&places[2], "br1", "eth1", "10.78.0.3/16");
    switch.wire(&admin, "br1", "eth1", "10.78.0.4/16");
    places[1].ip("link set eth0 down");
    lab.hosts[1].flags = flags("--interface eth1");

    lab.hosts[2].flags = flags("--interface eth0 --interface eth1");
    lab.flags = flags("--interface eth0,eth1");
    start(&mut lab);
    deploys(&lab);

    // The smallest MTU applies to all, and losses on one interface are repaired.
    admin.ip("link set eth1 mtu 1400");

    places[1].lose_on("eth1", 3);
    places[2].lose_on("eth0", 3);
    write(&lab.site().join("big"), Noise::new(10).bytes(6 << 20));
    let ran = deploys(&lab);
    assert!(
        ran.result()["repaired"].as_u64() > Some(0),
        "nothing was lost: {ran}"
    );

    let members = lab
        .makuo(&["members"])
        .exits(0)
        .says(&["web1", "web2", "web3"]);

    assert_eq!(members.out.lines().count(), 3, "{members}");
    lab.flags = flags("--interface eth0,eth7");
    lab.makuo(&["deploy", "www.toml"]).exits(2).says(&[
        "no network interface is named eth7",
        "there are: ",
        "eth1 (",
    ]);
}

#[test]
fn a_host_with_a_small_receive_buffer_says_so_and_the_sender_hears_of_its_losses() {
    let Some(mut lab) = lab(2, 11) else { return };
    lab.hosts[0].wrap("exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin \"$@\"");
    start(&mut lab);

    if !lab.hosts[0].log().contains("net.core.rmem_max") {
        return support::skipped(
            "this kernel's net.core.rmem_max is large, or the tests are not root's",
        );
    }

    assert!(
        !lab.hosts[1].log().contains("net.core.rmem_max"),
        "{}",
        lab.hosts[1].log()
    );

    write(&lab.site().join("big"), Noise::new(12).bytes(40 << 20));
    let mut deploy = lab.start(&["deploy", "www.toml", "--json", "--rate", "40MB"]);
    deploy.until_event("the transfer", |e| {
        e["event"] == "progress" && e["sent"].as_u64() > Some(1 << 20)
    });

    // The stopped host does not read, and the sender's data exceeds the receive buffer.
    let pid = nix::unistd::Pid::from_raw(lab.hosts[0].pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("my child");
    support::pause(std::time::Duration::from_millis(1500));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("my child");
    deploy
        .wait()
        .exits(0)
        .says(&["web1 dropped ", "net.core.rmem_max"]);

    lab.all_same(&lab.site());
    assert!(
        lab.hosts[0]
            .log()
            .contains("lost in the receive buffer of eth0"),
        "{}",
        lab.hosts[0].log()
    );
}

/// Waits for a line in the log of a host.
#[track_caller]
fn says(lab: &Lab, host: usize, line: &str) {
    support::until(line, || lab.hosts[host].log().contains(line));
}

/// Removes the interface of a place, with its port at the switch, and creates a new one of the same
/// name.
fn another_eth0(lab: &mut Lab, place: &support::Place, address: &str) {
    place.ip("link del eth0");
    lab.switch().wire(place, "br0", "eth0", address);
}

#[test]
fn a_daemon_follows_its_interface() {
    let Some(mut lab) = lab(2, 13) else { return };
    start(&mut lab);
    deploys(&lab);
    let place = lab.hosts[0].place.clone();

    place.ip("addr del 10.77.0.1/16 dev eth0");
    says(&lab, 0, "has no IPv4 address");

    place.ip("addr add 10.77.0.99/16 dev eth0");
    says(&lab, 0, "eth0 has a new address 10.77.0.99: reopened");
    write(&lab.site().join("page"), "a new address");
    deploys(&lab);

    // An additional address has no effect; the loss of the first address has.
    place.ip("addr add 10.77.0.98/17 dev eth0");

    place.ip("addr del 10.77.0.99/16 dev eth0");
    says(&lab, 0, "eth0 has a new address 10.77.0.98: reopened");
    write(&lab.site().join("page"), "one of several addresses");
    deploys(&lab);

    another_eth0(&mut lab, &place, "10.77.0.1/16");
    says(
        &lab,
        0,
        "eth0 is another interface now, with the address 10.77.0.1: reopened",
    );

    write(&lab.site().join("page"), "another interface");
    deploys(&lab);

    // A new interface may have been down for a moment already.
    let down = |lab: &Lab| {
        lab.hosts[0]
            .log()
            .matches("eth0 is down: waiting for eth0")
            .count()
    };

    let before = down(&lab);
    place.ip("link set eth0 down");
    support::until("a word about the interface", || down(&lab) > before);
    place.ip("link set eth0 up");
    says(&lab, 0, "eth0 is back with the address 10.77.0.1");
    write(&lab.site().join("page"), "up again");
    deploys(&lab);

    let log = lab.hosts[0].log();
    assert_eq!(log.matches("reopened").count(), 3, "{log}");
    assert!(
        !lab.hosts[1].log().contains("reopened"),
        "{}",
        lab.hosts[1].log()
    );
}

#[test]
fn a_daemon_that_peers_know_by_its_port_follows_its_interface() {
    for kind in [NetworkKind::Multicast, NetworkKind::Unicast] {
        let Some(mut lab) = kind.idle_hosts(2) else {
            return;
        };
        if kind == NetworkKind::Multicast {
            let network = flags("--interface eth0 --peers 10.77.0.1,10.77.0.2");
            lab.hosts
                .iter_mut()
                .for_each(|host| host.flags = network.clone());
        }

        start(&mut lab);
        write(&lab.site().join("page"), "one");
        deploys(&lab);
        let place = lab.hosts[0].place.clone();
        another_eth0(&mut lab, &place, "10.77.0.1/16");
        says(
            &lab,
            0,
            "eth0 is another interface now, with the address 10.77.0.1: reopened",
        );
        // Other machines remember the MAC address of the interface that is gone.
        for place in [&lab.hosts[1].place, &lab.admin] {
            place.ip("neigh flush dev eth0");
        }
        write(&lab.site().join("page"), "another interface");
        deploys(&lab);

        place.ip("addr del 10.77.0.1/16 dev eth0");
        place.ip("addr add 10.77.0.99/16 dev eth0");
        says(&lab, 0, "eth0 has a new address 10.77.0.99: reopened");
        write(&lab.site().join("page"), "a new address");
        deploys(&lab);

        let log = lab.hosts[0].log();
        assert!(!log.contains("in use"), "{log}");
    }
}

#[test]
fn a_daemon_without_multicast_uses_an_address_of_another_family_that_comes_later() {
    let addresses = [
        ["10.77.0.1/16", "fd77::1/64"],
        ["fd77::1/64", "10.77.0.1/16"],
    ];
    for [first, later] in addresses {
        // The switch passes multicast on, which IPv6 needs to find neighbors.
        let Some(mut lab) = lab(2, 19) else { return };
        let network = flags("--interface eth0 --no-multicast --peers 10.77.0.1,fd77::1");
        lab.flags = network.clone();
        for host in &mut lab.hosts {
            host.flags = network.clone();
        }

        let add = |place: &support::Place, address: &str| {
            place.ip(&format!("addr add {address} dev eth0 nodad"));
        };
        let place = lab.hosts[0].place.clone();
        place.ip("addr flush dev eth0");
        add(&place, first);
        // The other host and the sender have the other family alone.
        let others = [lab.hosts[1].place.clone(), lab.admin.clone()];
        if later.starts_with("fd") {
            for (other, n) in others.iter().zip(2..) {
                other.ip("addr flush dev eth0");
                add(other, &format!("fd77::{n}/64"));
            }
        }
        start(&mut lab);

        add(&place, later);
        let address = later.split('/').next().expect("an address");
        says(
            &lab,
            0,
            &format!("eth0 has the address {address} now: opened"),
        );
        write(&lab.site().join("page"), "over the other family");
        support::until("both hosts to be known", || {
            let members = lab.makuo(&["members", "--wait", "1s"]).exits(0);
            members.out.lines().count() == 2
        });
        deploys(&lab);
    }
}

#[test]
fn a_daemon_follows_its_interface_over_ipv6() {
    let Some(mut lab) = lab(1, 14) else { return };
    let network = flags("--interface eth0 --group ff15::4d4b --ttl 3");
    lab.hosts[0].flags = network.clone();
    lab.flags = network;
    let place = lab.hosts[0].place.clone();
    place.ip("addr add fd77::1/64 dev eth0 nodad");
    lab.admin.ip("addr add fd77::9/64 dev eth0 nodad");

    start(&mut lab);
    deploys(&lab);

    // Without that address, only the link-local one is left.
    place.ip("addr del fd77::1/64 dev eth0");
    says(&lab, 0, "eth0 has a new address fe80:");
    place.ip("link set eth0 down");
    place.ip("link set eth0 up");
    place.ip("addr add fd77::2/64 dev eth0 nodad");
    write(&lab.site().join("page"), "again");

    deploys(&lab);
}

#[test]
fn a_daemon_waits_for_its_interface() {
    let Some(mut lab) = lab(2, 15) else { return };
    let place = lab.hosts[0].place.clone();
    lab.hosts[1].start();
    place.ip("addr flush dev eth0");
    lab.hosts[0].begin();
    says(&lab, 0, "eth0 has no IPv4 address");

    // SIGHUP during the wait has nothing to reload yet.
    lab.hosts[0].reload();
    place.ip("link del eth0");
    says(
        &lab,
        0,
        "no network interface is named eth0: waiting for it",
    );

    lab.switch().wire(&place, "br0", "eth0", "10.77.0.1/16");
    lab.hosts[0].listens();
    deploys(&lab);

    // A command does not wait.
    lab.flags = flags("--interface eth7");
    lab.makuo(&["deploy", "www.toml"])
        .exits(2)
        .says(&["no network interface is named eth7", "there are: "]);

    lab.makuo(&["members"]).exits(2);
}

#[test]
fn a_host_that_loses_one_of_two_interfaces_goes_on_with_the_other() {
    let Some(mut lab) = lab(1, 16) else { return };
    let (place, admin) = (lab.hosts[0].place.clone(), lab.admin.clone());
    let switch = lab.switch();
    switch.bridge("br1");
    switch.wire(&place, "br1", "eth1", "10.78.0.1/16");
    switch.wire(&admin, "br1", "eth1", "10.78.0.2/16");
    lab.hosts[0].flags = flags("--interface eth0 --interface eth1");

    lab.flags = flags("--interface eth0");
    start(&mut lab);
    deploys(&lab);
    place.ip("link del eth1");
    says(
        &lab,
        0,
        "no network interface is named eth1: waiting for eth1",
    );

    place.ip("addr del 10.77.0.1/16 dev eth0");
    place.ip("addr add 10.77.0.50/16 dev eth0");
    says(&lab, 0, "eth0 has a new address 10.77.0.50: reopened");
    write(&lab.site().join("page"), "over the one that is left");
    deploys(&lab);
    lab.switch().wire(&place, "br1", "eth1", "10.78.0.1/16");
    says(&lab, 0, "eth1 is another interface now");

    admin.ip("link del eth1");
    lab.switch().wire(&admin, "br1", "eth1", "10.78.0.3/16");
    lab.flags = flags("--interface eth1");
    write(&lab.site().join("page"), "over the other one");

    deploys(&lab);
}

#[test]
fn a_watch_goes_on_when_the_sender_gets_another_address_or_interface() {
    let Some(mut lab) = lab(2, 17) else { return };
    start(&mut lab);
    let watch = lab.start(&[
        "watch", "--json", "-v", "www.toml", "--settle", "100ms", "--expect", "2",
    ]);
    let reaches = |lab: &Lab| support::until("the release", || lab.with_release().len() == 2);
    reaches(&lab);

    let admin = lab.admin.clone();
    for address in ["10.77.0.40/16", "10.77.0.41/16"] {
        admin.ip("addr flush dev eth0");
        admin.ip(&format!("addr add {address} dev eth0"));
        write(&lab.site().join("page"), address);
        reaches(&lab);
    }

    another_eth0(&mut lab, &admin, "10.77.0.42/16");
    write(&lab.site().join("page"), "another interface");
    reaches(&lab);
    assert!(!watch.talk().is_empty());

    drop(watch);
}

/// Network changes at hosts and at the sender, by seed, followed by a deployment to every host.
#[test]
fn whatever_becomes_of_the_network_a_deploy_reaches_every_host() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };

    let (seeds, rounds) = (
        number("MAKUO_NETWORK_SEEDS", 1),
        number("MAKUO_NETWORK_ROUNDS", 4),
    );
    let first = number("MAKUO_NETWORK_SEED", fastrand::u64(0..1 << 32));

    for seed in first..first + seeds {
        println!("MAKUO_NETWORK_SEED={seed}");
        let Some(mut lab) = Lab::network(3) else {
            return;
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut last = 100;
        write(&lab.site().join("page"), "first");
        deploys(&lab);
        for round in 0..rounds {
            for _ in 0..rng.u32(1..5) {
                let at = rng.usize(0..4);
                let place = lab
                    .hosts
                    .get(at)
                    .map_or(lab.admin.clone(), |host| host.place.clone());
                happen(&mut rng, &mut lab, &place, &mut last);
                if rng.bool() {
                    support::pause(std::time::Duration::from_millis(rng.u64(0..400)));
                }
            }
            // Change notifications are debounced.
            support::pause(std::time::Duration::from_millis(500));
            println!("round {round}");
            write(&lab.site().join("page"), format!("{seed} {round}"));
            deploys(&lab);
        }
    }
}

/// Makes one change of the network at `place`, which ends up with an address.
fn happen(rng: &mut fastrand::Rng, lab: &mut Lab, place: &support::Place, last: &mut u32) {
    let mut fresh = || {
        *last += 1;
        format!("10.77.1.{last}/16")
    };

    match rng.u8(0..5) {
        0 => {
            place.ip("addr flush dev eth0");
            place.ip(&format!("addr add {} dev eth0", fresh()));
        }
        1 => {
            let (one, two) = (fresh(), fresh());
            place.ip(&format!("addr add {one} dev eth0"));
            place.ip(&format!("addr add {two} dev eth0"));
            place.ip(&format!("addr del {one} dev eth0"));
        }
        2 => {
            place.ip("link set eth0 down");
            place.ip("link set eth0 up");
        }
        3 => {
            place.ip("link set eth0 down");
            place.ip("addr flush dev eth0");
            place.ip(&format!("addr add {} dev eth0", fresh()));
            place.ip("link set eth0 up");
        }
        _ => another_eth0(lab, place, &fresh()),
    }
}
