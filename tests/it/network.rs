//! Deployments between hosts at one switch, each in its own network namespace.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::NETWORK;
use crate::support::{
    self, Capture, DELETE, NetworkKind, Noise, Packet, Stopwatch, append, copy, same, skipped,
    until, write,
};

/// Arguments of a deployment that lasts some seconds after the kill: longer than the detection of a
/// silent host.
const SLOW: [&str; 4] = ["--rate", "2MB", "--timeout", "4s"];
const BIG: usize = 12 << 20;
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 108);
const GROUP_PORT: u16 = 5000;
/// Port of hosts without multicast.
const HOST_PORT: u16 = 5001;

fn is_in_the_middle(event: &serde_json::Value) -> bool {
    event["event"] == "progress"
        && event["sent"]
            .as_u64()
            .is_some_and(|sent| sent > BIG as u64 / 16)
}

#[test]
fn five_hosts_get_a_release_and_its_change() {
    let Some(lab) = NETWORK.hosts(5) else { return };
    let site = lab.site();
    let mut noise = Noise::new(1);
    noise.tree(&site, 200, 8000);
    write(&site.join("big"), noise.bytes(3_000_000));
    let first = lab.deploy(&[]).exits(0).result();
    assert_eq!(
        (first["targets"].as_u64(), first["committed"].as_u64()),
        (Some(5), Some(5)),
        "{first}"
    );

    lab.all_same(&site);

    append(&site.join("dir0/sub0/file0"), b"changed");
    write(&site.join("new/file"), "new");
    std::fs::remove_file(site.join("dir1/sub1/file1")).expect("there");
    std::fs::remove_dir_all(site.join("dir6")).expect("there");
    let second = lab.deploy(&[]).exits(0).result();

    assert!(second["bytes_sent"].as_u64() < Some(100_000), "{second}");
    assert!(
        second["serial"].as_u64() > first["serial"].as_u64(),
        "{second}"
    );

    lab.all_same(&site);
}

#[test]
fn firewalls_with_the_rules_of_the_guides_let_a_deploy_pass() {
    let Some(mut lab) = NETWORK.idle_hosts(3) else {
        return;
    };
    for host in &mut lab.hosts {
        host.catch_up = true;
        host.start();
    }
    let rules = guide_rules();
    assert!(!rules.is_empty(), "the guide names no rule");
    let places = lab.hosts.iter().map(|host| &host.place);

    for place in places.chain([&lab.admin]) {
        place.shell(
            "nft 'table inet filter { chain input { type filter hook input priority 0; \
             policy drop; iif lo accept; ct state established,related accept; }; }'",
        );
        rules.iter().for_each(|rule| place.shell(rule));
    }

    let site = lab.site();
    Noise::new(8).tree(&site, 50, 8000);
    write(&site.join("big"), Noise::new(9).bytes(2 << 20));
    until("all hosts to be heard", || {
        let ran = lab.makuo(&["members"]);
        ["web1", "web2", "web3"]
            .iter()
            .all(|name| ran.out.contains(name))
    });
    lab.deploy(&[]).exits(0);
    lab.all_same(&site);

    // A host that was away takes the release from the others.
    lab.hosts[2].kill();
    write(&site.join("late"), "late");
    lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);
    lab.hosts[2].start();
    let tree = lab.hosts[2].tree();
    until("the host to catch up", || tree.join("late").exists());
}

/// Returns the firewall rules that the guide to this kind of network gives, for the lab's addresses.
fn guide_rules() -> Vec<String> {
    let (guide, section) = match NETWORK {
        NetworkKind::Multicast => (
            include_str!("../../packaging/guide/first-fleet.md"),
            "## Firewalls",
        ),
        NetworkKind::Unicast => (
            include_str!("../../packaging/guide/clouds-and-sites.md"),
            "## Without multicast",
        ),
    };

    let lines = guide.lines().skip_while(|line| !line.starts_with(section));
    let lines = lines
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .map(str::trim);
    lines
        .filter(|line| line.starts_with("nft add rule"))
        .map(|line| line.replace("10.0.1.0/24", "10.77.0.0/16"))
        .collect()
}

#[test]
fn every_host_loses_a_twentieth_of_the_datagrams() {
    let Some(lab) = NETWORK.hosts(4) else { return };
    let site = lab.site();
    let mut noise = Noise::new(2);
    noise.tree(&site, 100, 20_000);
    write(&site.join("big"), noise.bytes(8 << 20));
    lab.hosts.iter().for_each(|host| host.place.lose(5));
    lab.admin.lose(5);
    let result = lab.deploy(&[]).exits(0).result();
    assert!(
        result["repaired"].as_u64() > Some(0),
        "nothing was lost: {result}"
    );

    lab.all_same(&site);
}

#[test]
fn what_hosts_have_of_what_they_lose_is_read_from_their_disks() {
    let Some(mut lab) = NETWORK.idle_hosts(3) else {
        return;
    };

    let site = lab.site();
    Noise::new(3).tree(&site, 150, 60_000);
    for (nth, host) in lab.hosts.iter_mut().enumerate() {
        // Each host has another third of the files.
        copy(&site.join("."), &host.tree());
        for file in (0..150).filter(|file| file / 7 % 3 != nth) {
            std::fs::remove_file(host.tree().join(format!(
                "dir{}/sub{}/file{file}",
                file % 7,
                file % 3
            )))
            .expect("there");
        }
        let mut flags = host.place.flags();
        flags.extend(["-v".into(), "-v".into()]);
        host.flags = Some(flags);
        host.start();
        host.place.lose(10);
    }

    lab.deploy(&["--rate", "4MB"]).exits(0);
    lab.all_same(&site);
    let log: String = lab.hosts.iter().map(support::Host::log).collect();
    let read = log.lines().filter_map(|line| {
        line.split_once(" parts of blocks read back")?
            .0
            .split_once(" of ")
    });

    let counts: Vec<_> = read
        .map(|(read, asked)| (read.rsplit(' ').next(), asked))
        .collect();

    // No other change touched the trees: the requested content was present.
    assert!(
        !counts.is_empty() && counts.iter().all(|(read, asked)| *read == Some(*asked)),
        "{log}"
    );
}

#[test]
fn a_host_that_dies_in_the_middle_holds_up_all_of_them() {
    let Some(mut lab) = NETWORK.hosts(5) else {
        return;
    };

    let site = lab.site();
    write(&site.join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&site, &lab.path("old"));
    write(&site.join("page"), "new");
    write(&site.join("big"), Noise::new(3).bytes(BIG));

    let mut deploy = lab.start(&[&["deploy", "--json", "www.toml"], &SLOW[..]].concat());

    deploy.until_event("the middle of the transfer", is_in_the_middle);
    lab.hosts[2].kill();
    let ran = deploy.wait().exits(3).says(&["web3"]);
    assert_eq!(ran.result()["committed"].as_u64(), Some(0), "{ran}");
    lab.all_same(&lab.path("old"));

    lab.hosts[2].start();

    lab.deploy(&[]).exits(0);
    lab.all_same(&site);
}

#[test]
fn a_host_that_dies_in_the_middle_is_left_behind_by_a_quorum() {
    let Some(mut lab) = NETWORK.hosts(5) else {
        return;
    };

    let site = lab.site();
    write(&site.join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&site, &lab.path("old"));
    write(&site.join("page"), "new");
    write(&site.join("big"), Noise::new(4).bytes(BIG));
    lab.spec(&format!("[commit]\nrequire = 4\n{DELETE}"));

    let mut deploy = lab.start(&[&["deploy", "--json", "www.toml"], &SLOW[..]].concat());

    deploy.until_event("the middle of the transfer", is_in_the_middle);
    lab.hosts[2].kill();
    let ran = deploy.wait().exits(4);
    assert_eq!(ran.result()["committed"].as_u64(), Some(4), "{ran}");

    // The order to commit did not include the host that had timed out before.
    assert_eq!(ran.host("web3").0, "absent", "{ran}");
    assert_eq!(lab.with_release(), ["web1", "web2", "web4", "web5"]);
    same(&lab.path("old"), &lab.hosts[2].tree());

    lab.hosts[2].start();
    write(&site.join("page"), "newer");

    lab.deploy(&[]).exits(0);
    lab.all_same(&site);
}

#[test]
fn drift_is_found_told_once_and_repaired() {
    let Some(lab) = NETWORK.hosts(5) else { return };
    let site = lab.site();
    Noise::new(5).tree(&site, 30, 3000);
    lab.deploy(&[]).exits(0);
    lab.diff(&[]).exits(0);

    for number in [1, 3] {
        let tree = lab.hosts[number].tree();
        write(&tree.join("dir2/sub2/file2"), "somebody's edit");
        write(&tree.join("dir2/note"), "mine");
        std::fs::remove_file(tree.join("dir3/sub0/file3")).expect("there");
    }

    let found = lab.diff(&[]).exits(1);
    let changes: Vec<_> = found
        .events()
        .into_iter()
        .filter(|e| e["event"] == "change")
        .collect();

    let told = |path: &str, what: &str| {
        let lines: Vec<_> = changes.iter().filter(|c| c["path"] == path).collect();
        assert_eq!(lines.len(), 1, "{path} is told once: {found}");
        assert_eq!(
            lines[0]["hosts"],
            serde_json::json!(["web2", "web4"]),
            "{found}"
        );
        assert_eq!(lines[0]["what"], what, "{found}");
    };

    told("dir2/sub2/file2", "content");
    told("dir2/note", "extra");
    told("dir3/sub0/file3", "missing");
    assert_eq!(found.result()["drifted"].as_u64(), Some(2), "{found}");

    let human = lab.makuo(&["diff", "www.toml"]).exits(1);
    let groups: Vec<_> = human
        .out
        .lines()
        .filter(|l| l.contains("web2, web4:"))
        .collect();

    assert!(
        matches!(groups[..], [line] if line.contains("1 extra") && line.contains("1 missing")),
        "{human}"
    );
    assert_eq!(
        human
            .out
            .lines()
            .filter(|l| l.contains("dir2/note"))
            .count(),
        1,
        "{human}"
    );

    lab.deploy(&[]).exits(0);

    lab.diff(&[]).exits(0);
    lab.all_same(&site);
}

#[test]
fn a_key_that_no_host_lists_changes_nothing() {
    let Some(lab) = NETWORK.hosts(3) else { return };
    let site = lab.site();
    write(&site.join("page"), "old");
    lab.deploy(&[]).exits(0);
    copy(&site, &lab.path("old"));
    write(&site.join("page"), "new");
    lab.keygen("stranger");

    let shown = support::run::tool(
        std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(lab.path("stranger.pub")),
    );

    let fingerprint = shown.split(' ').nth(1).expect("bits, fingerprint, remark");
    let ran = lab
        .makuo(&["deploy", "www.toml", "-k", "stranger"])
        .exits(3);
    ran.says(&[fingerprint, "web1-web3 refused: "]);

    lab.all_same(&lab.path("old"));
}

#[test]
fn nobody_there_is_said_soon() {
    let Some(lab) = NETWORK.hosts(0) else { return };
    write(&lab.site().join("page"), "x");
    let watch = Stopwatch::start();
    let ran = lab.makuo(&["deploy", "www.toml"]).exits(3).says(&["hint"]);
    let took = watch.read();
    assert!(took < Duration::from_secs(5), "{took:?}: {ran}");
}

#[test]
fn a_replay_of_an_older_release_changes_nothing() {
    // Plain mode, so that the datagrams are accepted at all.
    let Some(mut lab) = NETWORK.plain_hosts(2) else {
        return;
    };

    let place = lab.plug();
    let Some(namespace) = place.file() else {
        return support::skipped("only root can join a network namespace from a thread");
    };

    let site = lab.site();
    write(&site.join("page"), "older");
    lab.deploy(&[]).exits(0);

    let Ok(capture) = Capture::whole(&lab.hosts[0].place).map_err(|why| skipped(&why)) else {
        return;
    };

    write(&site.join("page"), "old");
    write(&site.join("only in the old one"), "x");
    lab.deploy(&[]).exits(0);
    let heard = datagrams_to_hosts(&capture.finish());
    assert!(
        heard.len() >= 4,
        "announcements and orders were heard: {}",
        heard.len()
    );

    write(&site.join("page"), "new");

    std::fs::remove_file(site.join("only in the old one")).expect("there");
    let last = lab.deploy(&[]).exits(0).result();
    let targets = match NETWORK {
        NetworkKind::Multicast => vec![(GROUP, GROUP_PORT)],
        NetworkKind::Unicast => [1, 2]
            .map(|n| (Ipv4Addr::new(10, 77, 0, n), HOST_PORT))
            .into(),
    };
    let replay = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root joins");
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("free");
        for _ in 0..3 {
            for datagram in &heard {
                for target in &targets {
                    socket.send_to(datagram, target).expect("sends");
                }
                support::pause(Duration::from_millis(2));
            }
        }
    });
    replay.join().expect("no panic");

    support::pause(Duration::from_secs(1));
    lab.all_same(&site);

    // The hosts are not confused either: the next release follows right after the last.
    write(&site.join("page"), "newer");
    let next = lab.deploy(&[]).exits(0).result();
    assert!(next["serial"].as_u64() > last["serial"].as_u64(), "{next}");
    lab.all_same(&site);

    lab.hosts.iter().for_each(|host| {
        assert!(
            host.log().contains("not newer"),
            "{}: it was not heard",
            host.name
        )
    });
}

/// Returns the datagrams to the group or to a host among the packets.
fn datagrams_to_hosts(packets: &[Packet]) -> Vec<Vec<u8>> {
    let to_hosts = |packet: &&Packet| {
        let port = packet.udp().map(|udp| udp.to_port);
        port.is_some_and(|port| [GROUP_PORT, HOST_PORT].contains(&port))
    };
    packets
        .iter()
        .filter(to_hosts)
        .flat_map(Packet::contents)
        .map(<[u8]>::to_vec)
        .collect()
}
