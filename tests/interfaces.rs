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
