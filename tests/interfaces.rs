//! Deploys over interfaces that are not the plain one: narrow or wide ones, IPv6 ones, several of them.

mod support;

use support::{Lab, Noise, write};

fn flags(line: &str) -> Option<Vec<String>> {
    Some(line.split(' ').map(String::from).collect())
}

/// A lab whose hosts do not run yet, with a site of a few megabytes.
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

/// A deploy to every host that has to succeed; what it said.
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
    let (admin, places) = (lab.admin.clone(), lab.hosts.iter().map(|h| h.place.clone()).collect::<Vec<_>>());
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

    // The smallest of the interfaces decides, and losses on one of them are mended.
    admin.ip("link set eth1 mtu 1400");
    places[1].lose_on("eth1", 3);
    places[2].lose_on("eth0", 3);
    write(&lab.site().join("big"), Noise::new(10).bytes(6 << 20));
    let ran = deploys(&lab);
    assert!(ran.result()["repaired"].as_u64() > Some(0), "nothing was lost: {ran}");

    let members = lab.makuo(&["members"]).exits(0).says(&["web1", "web2", "web3"]);
    assert_eq!(members.out.lines().count(), 3, "{members}");
    lab.flags = flags("--interface eth0,eth7");
    lab.makuo(&["deploy", "www.toml"]).exits(2).says(&["no network interface is named eth7", "there are: ", "eth1 ("]);
}

#[test]
fn a_host_with_a_small_receive_buffer_says_so_and_the_sender_hears_of_its_losses() {
    let Some(mut lab) = lab(2, 11) else { return };
    lab.hosts[0].wrap("exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin \"$@\"");
    start(&mut lab);
    if !lab.hosts[0].log().contains("net.core.rmem_max") {
        return support::skipped("this kernel's net.core.rmem_max is large, or the tests are not root's");
    }
    assert!(!lab.hosts[1].log().contains("net.core.rmem_max"), "{}", lab.hosts[1].log());
    write(&lab.site().join("big"), Noise::new(12).bytes(40 << 20));
    let mut deploy = lab.start(&["deploy", "www.toml", "--json", "--rate", "40MB"]);
    deploy.until_event("the transfer", |e| e["event"] == "progress" && e["sent"].as_u64() > Some(1 << 20));
    // It does not read for a while; what the sender goes on sending is more than its buffer holds.
    let pid = nix::unistd::Pid::from_raw(lab.hosts[0].pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("my child");
    support::pause(std::time::Duration::from_millis(1500));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("my child");
    deploy.wait().exits(0).says(&["web1 dropped ", "net.core.rmem_max"]);
    lab.all_same(&lab.site());
    assert!(lab.hosts[0].log().contains("lost in the receive buffer of eth0"), "{}", lab.hosts[0].log());
}
