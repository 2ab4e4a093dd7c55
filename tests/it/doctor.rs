//! The search for the cause of a trouble: faults of networks and machines, made in namespaces, are
//! named with the host that has them.

use std::process::Command;

use makuo::keys::GroupKey;
use serde_json::Value;

use crate::support::run::try_tool;
use crate::support::{Lab, Ran, skipped, write};

/// A library that sets the clock of a process ten minutes ahead, and limits its receive buffers as
/// the kernel does by net.core.rmem_max, which all namespaces share.
const FAULTY_LIBRARY: &str = r#"
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int setsockopt(int socket, int level, int name, const void *value, socklen_t length) {
    int most = 65536;
    if (level == SOL_SOCKET && name == SO_RCVBUF && *(const int *)value > most)
        value = &most;
    return syscall(SYS_setsockopt, socket, level, name, value, length);
}
int clock_gettime(clockid_t id, struct timespec *at) {
    int done = syscall(SYS_clock_gettime, id, at);
    if (done == 0 && id == CLOCK_REALTIME)
        at->tv_sec += 630;
    return done;
}
"#;

/// A finding about one host, or about the machine of the command for no host.
struct Found<'a>(&'a [Value]);

impl Found<'_> {
    /// Findings of a check about a host, with the verdict.
    fn of(&self, check: &str, host: &str) -> Vec<(&str, String)> {
        let is_about = |finding: &&Value| {
            let mut hosts = finding["hosts"].as_array().into_iter().flatten();
            finding["check"] == check && (host.is_empty() || hosts.any(|name| name == host))
        };
        let found = self.0.iter().filter(is_about);
        found
            .map(|finding| {
                let level = finding["level"].as_str().expect("a verdict");
                (level, format!("{} {}", finding["what"], finding["todo"]))
            })
            .collect()
    }

    /// Fails unless a check gives a verdict about a host with each of the words.
    #[track_caller]
    fn says(&self, (check, host): (&str, &str), level: &str, words: &[&str]) {
        let found = self.of(check, host);
        let fits = |(found, text): &(&str, String)| {
            *found == level && words.iter().all(|word| text.contains(word))
        };
        assert!(
            found.iter().any(fits),
            "{check} of {host:?}: no {level} with {words:?} in {found:?}\n{:#?}",
            self.0
        );
    }
}

fn findings(ran: &Ran) -> Vec<Value> {
    let events = ran.events().into_iter();
    events.filter(|e| e["event"] == "finding").collect()
}

/// Gives a host a fast clock and small buffers; returns whether that is possible here.
fn make_faulty(lab: &mut Lab, host: usize) -> bool {
    let (source, library) = (lab.path("faulty.c"), lab.path("faulty.so"));
    write(&source, FAULTY_LIBRARY);
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source);
    if let Err(why) = try_tool(&mut cc) {
        skipped(&why);
        return false;
    }

    let library = library.to_str().expect("UTF-8").to_string();
    lab.hosts[host].env.push(("LD_PRELOAD".into(), library));
    true
}

#[test]
fn each_fault_is_named_with_its_host() {
    let Some(mut lab) = Lab::network_idle(7) else {
        return;
    };
    let place = |lab: &Lab, host: usize| lab.hosts[host].place.clone();
    place(&lab, 1).ip("link set eth0 mtu 1280");
    place(&lab, 2).lose(3);
    place(&lab, 3).cut("input", "ip daddr 224.0.0.0/4");
    place(&lab, 4).cut("input", "udp dport 5001");
    let other = GroupKey::random().expect("random");
    other
        .save(&lab.hosts[5].group_key(), true)
        .expect("writable");

    let is_faulty = make_faulty(&mut lab, 6);
    let state = lab.hosts[6].state();
    let state = state.to_str().expect("UTF-8");
    write(&lab.path("rmem_max"), "65536\n");
    let limit = lab.path("rmem_max").display().to_string();
    lab.hosts[6].wrap(&format!(
        "exec unshare -m sh -c 'mkdir -p {state} && mount -t tmpfs none {state} && mount --bind \
         {limit} /proc/sys/net/core/rmem_max && exec setpriv --bounding-set=-net_admin \
         --inh-caps=-net_admin \"$@\"' sh \"$@\""
    ));
    for host in &mut lab.hosts {
        host.start();
    }

    let ran = lab.makuo(&["doctor", "--json"]).exits(1);
    let all = findings(&ran);
    let found = Found(&all);
    found.says(
        ("datagram", "web2"),
        "warn",
        &["eth0 there has an MTU of 1280"],
    );
    found.says(
        ("loss", "web3"),
        "warn",
        &["lost on the way", "the network"],
    );
    found.says(
        ("multicast", "web4"),
        "fail",
        &["0 of 20", "20 of 20 to its address", "firewall on web4"],
    );
    found.says(
        ("unicast", "web5"),
        "fail",
        &["0 of 20", "20 of 20 to the group", "port 5001"],
    );
    found.says(
        ("group-key", ""),
        "fail",
        &["10.77.0.6", "another group key"],
    );
    found.says(
        ("filesystem", "web7"),
        "warn",
        &["not on the filesystem of", "state_dir"],
    );
    if is_faulty {
        found.says(("clock", "web7"), "fail", &["10 min ahead"]);
        let words = ["65.5 kB", "sysctl -w net.core.rmem_max="];
        found.says(("buffer", "web7"), "warn", &words);
    }
    // A good host has no fault of another one.
    for check in ["multicast", "unicast", "datagram", "clock", "filesystem"] {
        found.says((check, "web1"), "ok", &[]);
        assert_eq!(found.of(check, "web1").len(), 1, "{all:#?}");
    }
    let result = ran.result();
    assert_eq!(result["hosts"], 6, "web6 is not heard: {result}");
    assert!(result["failed"].as_u64() >= Some(3), "{result}");

    only_one_host(&lab);
    wrong_interface_and_ttl(&mut lab);
}

/// One host alone, by name and by address, and one that is not there.
fn only_one_host(lab: &Lab) {
    for host in ["web5", "10.77.0.5"] {
        let ran = lab.makuo(&["doctor", "--json", host]).exits(1);
        let all = findings(&ran);
        Found(&all).says(("unicast", "web5"), "fail", &["port 5001"]);
        let mut hosts = all.iter().flat_map(|f| f["hosts"].as_array()).flatten();
        assert!(hosts.all(|name| name == "web5"), "{all:#?}");
    }

    let ran = lab.makuo(&["doctor", "10.77.9.9"]).exits(1);
    ran.says(&["fail  hosts: 10.77.9.9 answers neither to the group nor at 10.77.9.9:5001"]);
}

/// A command on an interface without hosts, and with a TTL without effect.
fn wrong_interface_and_ttl(lab: &mut Lab) {
    let admin = lab.admin.clone();
    lab.switch().bridge("br1");
    lab.switch().wire(&admin, "br1", "eth1", "10.78.0.9/16");
    let flags = ["--interface", "eth1", "--ttl", "4"];
    lab.flags = Some(flags.map(String::from).into());
    admin.cut("input", "ip daddr 224.0.0.0/4");

    let ran = lab.makuo(&["doctor", "--json"]).exits(1);
    let all = findings(&ran);
    let found = Found(&all);
    found.says(
        ("firewall", ""),
        "warn",
        &["ip daddr 224.0.0.0/4 drop (table inet"],
    );
    found.says(
        ("interface", ""),
        "fail",
        &["answer on eth0", "--interface eth0"],
    );
    found.says(("scope", ""), "warn", &["ttl = 4 has no effect", "239."]);
    found.says(("hosts", ""), "fail", &["no hosts answered"]);
}

#[test]
fn the_questions_of_a_querier_are_heard() {
    let Some(mut lab) = Lab::network(1) else {
        return;
    };
    // The bridge asks each second, by IGMP and by MLD.
    let switch = lab.switch();
    switch.ip(
        "link set br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_query_interval 100 \
         mcast_startup_query_interval 100 mcast_query_response_interval 50 mcast_query_use_ifaddr 1",
    );
    switch.ip("addr add 10.77.9.1/16 dev br0");

    let is_heard = |lab: &Lab, flags: &[&str], words: &str| {
        let ran = lab.makuo(&[&["doctor", "--long", "--json"], flags].concat());
        let all = findings(&ran);
        Found(&all).says(("querier", ""), "ok", &[words]);
    };
    is_heard(&lab, &["web1"], "10.77.9.1 asks for members");
    is_heard(&lab, &["--group", "ff15::4d4b"], "asks for members");
}

#[test]
fn a_network_that_cannot_be_joined_is_a_finding_and_a_wrong_flag_is_not() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };
    let flags = ["--interface", "none0"];
    lab.flags = Some(flags.map(String::from).into());
    lab.makuo(&["doctor"])
        .exits(1)
        .says(&["fail  interface: no network interface is named none0"]);
    lab.makuo(&["doctor", "--nothing"]).exits(2);
    lab.makuo(&["doctor", "--config", "missing.toml"]).exits(2);
}

#[test]
fn a_machine_is_looked_at_by_its_configuration() {
    let Some(mut lab) = Lab::loopback(1) else {
        return;
    };
    write(&lab.site().join("page"), "one");
    lab.deploy(&[]).exits(0);
    let config = lab.hosts[0].config_path();
    let config = config.to_str().expect("UTF-8").to_string();
    let ran = lab.makuo(&["doctor", "--json", "-c", &config]);
    let all = findings(&ran);
    let found = Found(&all);
    found.says(("port", ""), "ok", &["the daemon runs here"]);
    found.says(("multicast", "web1"), "ok", &[]);
    let abilities = [", which exchanges", "reflinks"];
    found.says(("filesystem", "web1"), "ok", &abilities);
    found.says(("offload", ""), "ok", &["(UDP GRO)"]);
    found.says(("hosts", ""), "ok", &["1 host answers"]);

    // Nobody may sign, and the daemon is gone.
    lab.hosts[0].stop();
    write(&lab.path("authorized_keys"), "");
    let ran = lab.makuo(&["doctor", "--json", "-c", &config]).exits(1);
    let all = findings(&ran);
    let found = Found(&all);
    found.says(("configuration", ""), "warn", &["no key is listed"]);
    found.says(("port", ""), "warn", &["no daemon answers"]);
    found.says(
        ("hosts", "web1"),
        "warn",
        &["took part in an earlier deploy"],
    );
    found.says(("hosts", ""), "fail", &["no hosts answered"]);
}
