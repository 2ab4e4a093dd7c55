//! Catch-up between hosts: missed releases and lost parts are fetched from peers after the sender
//! is gone.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::{self, Lab, Place, differences, until, write};

const FILES: usize = 40;
/// One of the files.
const ONE: &str = "one.bin";

/// Makes hosts that catch up, all with a first release.
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

/// Counts the occurrences of `what` in the hosts' logs.
fn said(lab: &Lab, what: &str) -> usize {
    lab.hosts
        .iter()
        .map(|host| host.log().matches(what).count())
        .sum()
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
    until("the host to say so", || {
        said(&lab, "passed on to web3") == 1
    });

    // The serial is valid for the fleet: the next release reaches all hosts.
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

    until("the new hosts to be complete", || {
        has_release(&lab, 2) && has_release(&lab, 3)
    });
    until("one session for both", || {
        said(&lab, "passed on to web3, web4") == 1
    });
    assert_eq!(
        std::fs::read_dir(lab.hosts[4].tree())
            .expect("a tree")
            .count(),
        0
    );

    // A new host can serve the release as well as an old one.
    lab.hosts[0].kill();
    lab.hosts[1].kill();
    lab.host("web6").catch_up = true;
    lab.hosts[5].start();

    until("a host to be complete by what others made up", || {
        has_release(&lab, 5)
    });
}

/// Changes a file of the host's tree, with the same size and modification time.
fn tamper(lab: &Lab, host: usize, name: &str) {
    let path = lab.hosts[host].tree().join(name);
    let before = std::fs::metadata(&path).expect("there");
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[100] ^= 1;
    write(&path, &bytes);
    let then = before.modified().expect("known");
    std::fs::File::options()
        .write(true)
        .open(&path)
        .and_then(|f| f.set_modified(then))
        .expect("mine");

    assert_eq!(
        std::fs::metadata(&path).expect("there").size(),
        before.size()
    );
}

#[test]
fn what_was_tampered_with_is_not_spread() {
    let Some(mut lab) = lab(2, "") else { return };
    let name = ONE;
    tamper(&lab, 0, name);
    tamper(&lab, 1, name);
    lab.host("web3").catch_up = true;
    lab.hosts[2].start();
    until("both to be asked in vain", || {
        said(&lab, "not all of it could be given") >= 2
    });

    assert_eq!(
        std::fs::read_dir(lab.hosts[2].tree())
            .expect("a tree")
            .count(),
        0,
        "all or nothing"
    );

    // Each of the two hosts holds the other's missing blocks.
    std::fs::copy(lab.site().join(name), lab.hosts[1].tree().join(name)).expect("mended");
    until("the host to be complete", || has_release(&lab, 2));
}

#[test]
fn a_tree_that_drifted_is_made_good_by_others() {
    let Some(lab) = lab(2, "repair = \"1s\"\n") else {
        return;
    };

    let name = ONE;
    write(&lab.hosts[0].tree().join(name), "somebody was here");
    write(&lab.hosts[0].tree().join("extra"), "and here");
    until("the tree to be repaired", || has_release(&lab, 0));
    until("the host to say so", || {
        said(&lab, "repaired: 1 paths made anew") == 1
    });

    assert!(said(&lab, "drifted: 3 paths are not as its release says") >= 1);
    until("it to be counted", || {
        let ran = lab.makuo(&["status", "--json", "www"]);
        let events = ran.events();
        let told = events
            .iter()
            .find(|e| e["host"] == "web1")
            .expect("web1")
            .clone();
        told["drift"]["repaired"] == 1 && told["drift"]["drifted"].as_u64() >= Some(1)
    });

    lab.makuo(&["status"]).exits(0).says(&["repaired 1"]);
    // No other file was transferred, and intact files are left alone.
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

    // A part of the whole, twice, under newer serials.
    let web1 = lab.hosts[0].tree();
    lab.host("web3").catch_up = true;
    lab.hosts[2].start();
    until("a host that gets the whole", || has_release(&lab, 2));
    let line = lab.keygen("sender");
    let keys = std::fs::read_to_string(lab.path("authorized_keys")).expect("readable");

    write(
        &lab.path("authorized_keys"),
        format!("{keys}tree=\"www\",deploy {line}"),
    );
    lab.hosts[0].kill();
    let sender = format!(
        "[sender]\nkey = {:?}",
        lab.path("sender").to_str().expect("UTF-8")
    );

    lab.hosts[0].setting(&sender);
    lab.hosts[0].start();
    lab.hosts[2].restart();

    for text in ["first part", "second part"] {
        for tree in [&web1, &lab.site()] {
            write(&tree.join("part"), text);
        }
        let (part, socket) = (web1.join("part"), lab.hosts[0].socket());
        let (part, socket) = (
            part.to_str().expect("UTF-8"),
            socket.to_str().expect("UTF-8"),
        );
        let sent = |lab: &Lab| {
            std::fs::read_to_string(lab.hosts[2].tree().join("part")).unwrap_or_default()
        };
        until("web3 to be heard", || {
            let mut send = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
            send.args(["send", part, "--socket", socket])
                .status()
                .expect("runs")
                .success()
                && sent(&lab) == text
        });
    }

    lab.hosts[1].start();
    let text =
        |name: &str| std::fs::read_to_string(lab.hosts[1].tree().join(name)).unwrap_or_default();

    until("the host that missed the whole and both parts", || {
        text("page") == "of the whole" && text("part") == "second part"
    });
}

/// Blocks all traffic of a host; a hook's script, reverted by [`heal`].
const CUT: &str = "nft 'table inet cut { chain i { type filter hook input priority -300; policy drop; } ; \
                   chain o { type filter hook output priority -300; policy drop; } ; }'";

fn heal(place: &Place) {
    place.shell("nft delete table inet cut");
}

/// Makes a hook that runs `script` if the page contains `new`.
fn when_new(key: &str, script: &str) -> String {
    format!(
        "{key} = [\"/bin/sh\", \"-c\", {:?}]\n",
        format!("grep -q new $MAKUO_PATH/page || exit 0; {script}")
    )
}

/// Makes hosts at a switch that catch up, `first` of them with a first release, copied to `old`.
fn fleet(hosts: usize, first: usize, rules: impl Fn(usize) -> String) -> Option<Lab> {
    let mut lab = Lab::network_idle(hosts)?;
    for number in 1..=hosts {
        let host = &mut lab.hosts[number - 1];
        host.catch_up = true;
        host.rule(&rules(number));
    }

    support::Noise::new(5).tree(&lab.site(), FILES, 3000);
    write(&lab.site().join("page"), "old");
    lab.hosts[..first].iter_mut().for_each(support::Host::start);
    lab.makuo(&["deploy", "www.toml", "--expect", &first.to_string()])
        .exits(0);
    support::copy(&lab.site(), &lab.path("old"));
    write(&lab.site().join("page"), "new");

    Some(lab)
}

fn has_old(lab: &Lab, host: usize) -> bool {
    differences(&lab.path("old"), &lab.hosts[host].tree()).is_empty()
}

fn status(lab: &Lab) -> Vec<serde_json::Value> {
    let events = lab.makuo(&["status", "--json", "www"]).events();
    events
        .into_iter()
        .filter(|e| e["event"] == "host")
        .collect()
}

/// Returns true if no host is behind, runs a reverted release, or is reported to differ from the
/// others.
fn is_quiet(lab: &Lab, hosts: usize) -> bool {
    let all = status(lab);
    let well = |s: &serde_json::Value| {
        s["state"] == "idle"
            && s["behind"] == false
            && s["taken_back"] == false
            && s["split"] == false
    };

    // A failed canary keeps its release and reports the failure.
    let mut common = all
        .iter()
        .filter(|s| s["stopped"] == false)
        .map(|s| &s["serial"]);
    let first = common.next();

    all.len() == hosts && all.iter().all(well) && common.all(|serial| Some(serial) == first)
}

#[test]
fn a_release_that_was_taken_back_does_not_come_back_with_a_host_that_was_cut_off() {
    for how in ["heals", "is killed", "ends"] {
        let rules = |n| match n {
            // Right after the commit, all traffic is blocked.
            2 => when_new("after", CUT),
            4 => {
                when_new("health", "exit 1")
                    + "health_deadline = \"300ms\"\nhealth_interval = \"100ms\"\n"
            }
            _ => String::new(),
        };
        let Some(mut lab) = fleet(6, 5, rules) else {
            return;
        };
        lab.hosts[4].kill();
        lab.spec(&format!(
            "{}[commit]\non_failure = \"revert\"\n",
            support::DELETE
        ));
        let ran = lab.makuo(&[
            "deploy",
            "--json",
            "www.toml",
            "--expect",
            "4",
            "--timeout",
            "3s",
        ]);
        assert_ne!(ran.code, 0, "{ran}");
        assert!(has_release(&lab, 1), "web2 was to have it: {ran}");
        until("the others to go back", || {
            [0, 2, 3].into_iter().all(|host| has_old(&lab, host))
        });
        match how {
            "is killed" => lab.hosts[1].restart(),
            "ends" => {
                // The replaced files are removed when the daemon ends.
                lab.hosts[1].stop();
                lab.hosts[1].start();
            }
            _ => {}
        }
        heal(&lab.hosts[1].place);
        lab.hosts[4].start();
        lab.hosts[5].start();
        until(
            &format!("web2, which {how}, to go back and the new hosts to be complete"),
            || (0..6).all(|host| has_old(&lab, host)),
        );
        until("a quiet fleet", || is_quiet(&lab, 6));
        for host in [0, 2, 3, 4, 5] {
            let log = lab.hosts[host].log();
            let of_its_own = [0, 2, 3].contains(&host);
            assert!(
                of_its_own || !log.contains("www@2 is in place"),
                "{how}: web{} had it: {log}",
                host + 1
            );
        }
        // A restart of all hosts loses no state, and the next release reaches all hosts.
        lab.hosts.iter_mut().for_each(support::Host::restart);
        until("a quiet fleet", || is_quiet(&lab, 6));
        write(&lab.site().join("page"), "newest, as old as all");
        lab.hosts[3].rule("");
        lab.spec(support::DELETE);
        write(&lab.site().join("page"), "third");
        lab.deploy(&[]).exits(0);
        lab.all_same(&lab.site());
    }
}

#[test]
fn a_canary_that_fails_keeps_its_release_to_itself() {
    let sick =
        when_new("health", "exit 1") + "health_deadline = \"300ms\"\nhealth_interval = \"100ms\"\n";

    // The canary is web1, the first by name among the present hosts; an absent host has an earlier
    // name.
    let Some(mut lab) = fleet(5, 4, |n| if n == 2 { sick.clone() } else { String::new() }) else {
        return;
    };

    lab.hosts[0].kill();
    lab.spec(&format!("{}[commit]\nbatches = [1]\n", support::DELETE));
    let ran = lab.makuo(&["deploy", "--json", "www.toml", "--expect", "3"]);
    assert_ne!(ran.code, 0, "{ran}");
    assert!(
        has_release(&lab, 1) && has_old(&lab, 2) && has_old(&lab, 3),
        "{ran}"
    );

    lab.hosts[0].start();
    lab.hosts[4].start();
    until("a new host to be complete", || has_old(&lab, 4));

    // The other hosts restart one by one, and none fetches the canary's release.
    for host in [1, 2, 3, 0] {
        lab.hosts[host].restart();
    }

    until("all to be heard", || status(&lab).len() == 5);
    support::pause(std::time::Duration::from_secs(4));
    for host in [0, 2, 3, 4] {
        assert!(
            has_old(&lab, host),
            "web{}: {}",
            host + 1,
            lab.hosts[host].log()
        );
        let asks = lab.hosts[host]
            .log()
            .matches("others have a release")
            .count();
        assert!(asks <= usize::from(host == 4), "{}", lab.hosts[host].log());
    }

    let all = status(&lab);
    let of = |name: &str| {
        all.iter()
            .find(|s| s["host"] == name)
            .cloned()
            .unwrap_or_default()
    };

    assert_eq!(
        (&of("web2")["stopped"], &of("web2")["taken_back"]),
        (&true.into(), &false.into()),
        "{all:?}"
    );

    assert!(all.iter().all(|s| s["behind"] == false), "{all:?}");
}

#[test]
fn two_releases_of_one_serial_become_one() {
    let Some(mut lab) = lab(3, "") else { return };
    // Two senders unaware of each other, each with hosts out of the other's reach.
    let deploy = |lab: &Lab, page: &str, cache: &str| {
        write(&lab.site().join("page"), page);
        let mut command = lab.command(&["deploy", "--json", "www.toml", "--expect", "2"]);
        command.env("XDG_CACHE_HOME", lab.path(cache));
        support::Running::start(&mut command)
            .wait()
            .exits(0)
            .result()["serial"]
            .as_u64()
    };

    lab.hosts[2].kill();
    let first = deploy(&lab, "first", "one");
    lab.hosts[1].kill();
    lab.hosts[2].catch_up = false;
    lab.hosts[2].start();
    lab.hosts[0].kill();
    lab.host("web4").start();

    support::pause(std::time::Duration::from_millis(1100));
    let second = deploy(&lab, "second, later", "two");
    assert_eq!((first, second), (Some(2), Some(2)), "two of one serial");

    // No host catches up: the status reports the split.
    for host in [0, 1] {
        lab.hosts[host].catch_up = false;
        lab.hosts[host].start();
    }

    until("a split", || {
        status(&lab).len() == 4 && status(&lab).iter().all(|s| s["split"] == true)
    });
    lab.makuo(&["status"])
        .exits(1)
        .says(&["split: another www@2 on web3, web4", "4 split"]);
    let rows = lab.makuo(&["log", "--json", "www"]).exits(0).events();

    let split = rows
        .iter()
        .filter(|e| e["event"] == "release" && e["split"] == true);
    assert_eq!(split.count(), 2, "{rows:?}");

    // The later release wins on all hosts.
    for host in 0..4 {
        lab.hosts[host].catch_up = true;
        lab.hosts[host].restart();
    }

    until("the later one everywhere", || {
        (0..4).all(|host| has_release(&lab, host))
    });
    until("a quiet fleet", || is_quiet(&lab, 4));

    // A sender does not reuse a serial, even if all hosts with that release are away.
    let mut serials = Vec::new();
    for (away, here) in [(0, 1), (1, 0)] {
        lab.hosts[away].kill();
        write(&lab.site().join("page"), format!("by {here}"));
        let ran = lab
            .makuo(&["deploy", "--json", "www.toml", "--expect", "3"])
            .exits(0);
        serials.push(ran.result()["serial"].as_u64());
        lab.hosts[away].catch_up = false;
        lab.hosts[away].start();
    }

    assert!(serials[0] < serials[1], "{serials:?}");
}

/// Hook scripts that block incoming traffic, outgoing traffic, or both.
const DEAF: &str =
    "nft 'table inet cut { chain i { type filter hook input priority -300; policy drop; } ; }'";
const MUTE: &str =
    "nft 'table inet cut { chain o { type filter hook output priority -300; policy drop; } ; }'";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Makes hosts with a first release, and draws an event for each during a later one; `healed` ends
/// the events.
fn drawn(rng: &mut fastrand::Rng, healed: &Path, told: &mut String) -> Option<Lab> {
    let fates: Vec<String> = (1..=4)
        .map(|n| {
            let (cut, word) = [(CUT, "cut"), (DEAF, "deaf"), (MUTE, "mute")][rng.usize(..3)];
            let script = |key: &str, script: &str| {
                let ends = format!("test $MAKUO_SERIAL -lt 2 || test -e {}", healed.display());
                format!(
                    "{key} = [\"/bin/sh\", \"-c\", {:?}]\n",
                    format!("{ends} || {{ {script}; }}")
                )
            };
            let (rule, word) = match rng.u8(..8) {
                0 => (script("before", cut), format!("{word} before")),
                1..=3 => (script("after", cut), format!("{word} after")),
                4 => (script("health", "exit 1"), "sick".to_string()),
                _ => (String::new(), "well".to_string()),
            };
            told.push_str(&format!("web{n} {word}; "));
            rule + "health_deadline = \"300ms\"\nhealth_interval = \"100ms\"\n"
        })
        .collect();

    let rules = |n: usize| fates.get(n - 1).cloned().unwrap_or_default();
    let lab = fleet(5, 4, |n| if n > 4 { String::new() } else { rules(n) })?;
    let failure = if rng.bool() { "revert" } else { "stop" };
    let batches = ["[]", "[1]", "[1, 1]"][rng.usize(..3)];
    told.push_str(&format!("{failure}, batches {batches}; "));
    lab.spec(&format!(
        "{}[commit]\non_failure = {failure:?}\nbatches = {batches}\n",
        support::DELETE
    ));

    Some(lab)
}

/// Runs one fleet: deployments while hosts are cut off, restarts, and a check after the network is
/// restored.
fn partitioned(seed: u64) -> Option<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut told = format!("seed {seed}: ");
    let dir = tempfile::tempdir().expect("a directory");
    let mut lab = drawn(&mut rng, &dir.path().join("healed"), &mut told)?;
    let mut releases = vec![(1, lab.path("old"))];

    for page in ["new", "newer"] {
        write(&lab.site().join("page"), page);
        support::copy(&lab.site(), &lab.path(page));
        let ran = lab.makuo(&["deploy", "--json", "www.toml", "--timeout", "2s"]);
        let serial = ran.result()["serial"].as_u64();
        told.push_str(&format!("{page} is {serial:?}, exit {}; ", ran.code));
        releases.extend(serial.map(|serial| (serial, lab.path(page))));
        if rng.bool() {
            break;
        }
    }

    for host in 0..4 {
        match rng.u8(..4) {
            0 => lab.hosts[host].restart(),
            1 => {
                lab.hosts[host].stop();
                lab.hosts[host].start();
            }
            _ => continue,
        }
        told.push_str(&format!("web{} starts again; ", host + 1));
    }

    write(&dir.path().join("healed"), "");
    lab.hosts[..4].iter().for_each(|host| {
        host.place
            .shell("nft delete table inet cut 2>/dev/null; true")
    });
    lab.hosts[4].start();

    let watch = support::Stopwatch::start();

    while !is_quiet(&lab, 5) && watch.read() < std::time::Duration::from_secs(40) {
        support::pause(std::time::Duration::from_millis(500));
    }

    judge(&lab, &releases, &told);
    println!("{told}{:.0} s", watch.read().as_secs_f64());
    Some(())
}

/// Compares the fleet's status with the content of its trees.
fn judge(lab: &Lab, releases: &[(u64, PathBuf)], told: &str) {
    let all = status(lab);
    assert_eq!(all.len(), 5, "{told}: {all:?}");
    let mut common = None;
    for (standing, host) in all.iter().zip(&lab.hosts) {
        assert_eq!(standing["host"], host.name.as_str(), "{told}");
        let serial = standing["serial"].as_u64().unwrap_or_default();
        if let Some((_, tree)) = releases.iter().find(|(number, _)| *number == serial) {
            let differs = differences(tree, &host.tree());
            assert!(
                differs.is_empty(),
                "{told}: {} says {serial}: {differs:?}",
                host.name
            );
        } else {
            assert_eq!(
                std::fs::read_dir(host.tree()).expect("a tree").count(),
                0,
                "{told}: {standing}"
            );
        }
        // No host that knows of a revert runs the reverted release.
        assert_eq!(standing["taken_back"], false, "{told}: {all:?}");
        let is_apart = ["behind", "stopped", "split"]
            .iter()
            .any(|word| standing[word] == true);
        if !is_apart {
            assert_eq!(*common.get_or_insert(serial), serial, "{told}: {all:?}");
        }
    }
}

/// `MAKUO_FLEETS=200` sets the number of fleets, `MAKUO_FLEET_SEED` the first seed.
#[test]
fn whatever_is_cut_off_the_fleet_agrees_in_the_end_or_says_who_does_not() {
    let first = number("MAKUO_FLEET_SEED", 1);
    for seed in first..first + number("MAKUO_FLEETS", 2) {
        if partitioned(seed).is_none() {
            return;
        }
    }
}

/// Configures the first host to send parts of its own tree.
fn sender(lab: &mut Lab) {
    let line = lab.keygen("sender");
    let keys = std::fs::read_to_string(lab.path("authorized_keys")).expect("readable");
    write(
        &lab.path("authorized_keys"),
        format!("{keys}tree=\"www\",deploy {line}"),
    );
    let sender = format!(
        "[sender]\nkey = {:?}",
        lab.path("sender").to_str().expect("UTF-8")
    );
    lab.hosts[0].setting(&sender);

    lab.hosts.iter_mut().for_each(support::Host::restart);
}

/// Sends a file of the first host's tree until the second host has a copy.
fn send(lab: &Lab, name: &str, text: &str) {
    write(&lab.hosts[0].tree().join(name), text);
    let socket = lab.hosts[0].socket();
    let has =
        || std::fs::read_to_string(lab.hosts[1].tree().join(name)).unwrap_or_default() == text;
    until("the second host to have what was sent", || {
        let mut send = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
        send.args(["send", name, "--socket", socket.to_str().expect("UTF-8")]);
        send.output().expect("runs").status.success() && has()
    });
}

/// Starts a new host that catches up.
fn join(lab: &mut Lab, name: &str) {
    let host = lab.host(name);
    host.catch_up = true;
    host.start();
}

/// Returns the status of one host.
fn status_of(lab: &Lab, host: &str) -> serde_json::Value {
    status(lab)
        .into_iter()
        .find(|event| event["host"] == host)
        .unwrap_or_default()
}

#[test]
fn a_new_host_gets_the_whole_and_all_that_was_sent_by_hand_since() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    lab.spec(&format!("exclude = [\"*.log\"]\n{}", support::DELETE));
    join(&mut lab, "web1");
    join(&mut lab, "web2");
    support::Noise::new(5).tree(&lab.site(), FILES, 30_000);
    write(&lab.site().join("page"), "of the whole");
    lab.deploy(&[]).exits(0);
    sender(&mut lab);

    // More parts than the retention of releases, with one file sent several times, and one excluded
    // by the whole.
    for (name, text) in [
        ("a", "1"),
        ("page", "2"),
        ("b", "3"),
        ("page", "4"),
        ("app.log", "5"),
        ("c", "6"),
    ] {
        send(&lab, name, text);
    }

    join(&mut lab, "web3");
    // Parts do not include the time of the tree's root directory.
    let complete = |lab: &Lab, host: usize| {
        let differences = differences(&lab.hosts[1].tree(), &lab.hosts[host].tree());
        differences.lines().all(|line| line.ends_with(" ./"))
    };

    until("the new host to have the whole and its parts", || {
        complete(&lab, 2)
    });
    assert_eq!(
        std::fs::read(lab.hosts[2].tree().join("app.log")).expect("there"),
        b"5"
    );

    until("nobody to be behind, the sender included", || {
        let ran = lab.makuo(&["status", "www"]);
        ran.code == 0 && ran.err.contains("none behind")
    });

    // Paths excluded by the next whole remain in the tree: hosts that received such paths can serve
    // them.
    write(&lab.site().join("page"), "newer");

    lab.deploy(&[]).exits(0);
    assert!(
        lab.hosts[1].tree().join("app.log").exists() && !lab.hosts[1].tree().join("a").exists()
    );
    lab.hosts[0].kill();
    join(&mut lab, "web4");

    until("the new host to have what is excluded, too", || {
        complete(&lab, 3)
    });
}

#[test]
fn a_host_that_parts_do_not_make_complete_is_named() {
    let Some(mut lab) = Lab::loopback_idle() else {
        return;
    };

    join(&mut lab, "web1");
    join(&mut lab, "web2");
    sender(&mut lab);
    ["a", "b"].iter().for_each(|name| send(&lab, name, name));
    join(&mut lab, "web3");
    until("the new host to be seen", || {
        status_of(&lab, "web3")["stranded"] == true
    });

    lab.makuo(&["status", "www"])
        .exits(1)
        .says(&["web3", "no host keeps the whole tree: deploy it"]);
    assert_eq!(status_of(&lab, "web1")["behind"], false, "it sent them");

    // A host that missed the whole and received the following part.
    lab.hosts[2].kill();

    write(&lab.site().join("page"), "of the whole");
    lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);
    lab.hosts[2].catch_up = false;
    lab.hosts[2].start();
    let socket = lab.hosts[0].socket();
    write(&lab.hosts[0].tree().join("c"), "c");
    until("the third host to have the part", || {
        let mut send = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
        send.args(["send", "c", "--socket", socket.to_str().expect("UTF-8")]);
        send.output().expect("runs").status.success() && lab.hosts[2].tree().join("c").exists()
    });

    assert!(!lab.hosts[2].tree().join("page").exists());
    let lacks = status_of(&lab, "web3");
    assert!(lacks["lacks"].is_u64(), "{lacks}");
    lab.makuo(&["status", "www"])
        .exits(1)
        .says(&["deploy the whole tree", "1 behind"]);
    write(&lab.site().join("page"), "again");

    lab.deploy(&[]).exits(0);
    lab.all_same(&lab.site());
    lab.makuo(&["status", "www"])
        .exits(0)
        .says(&["none behind"]);
}

/// Sends a file of the first host's tree once, to hosts that match `target`.
fn send_once(lab: &Lab, target: &str, name: &str, text: &str) -> i32 {
    write(&lab.hosts[0].tree().join(name), text);
    by_hand(
        lab,
        if target == "*" {
            vec!["send", name]
        } else {
            vec!["send", name, "-t", target]
        },
    )
    .code
}

/// Runs a command that sends from the first host's tree.
fn by_hand(lab: &Lab, args: Vec<&str>) -> support::Ran {
    let mut command = lab.admin.command(env!("CARGO_BIN_EXE_makuo"));
    let socket = lab.hosts[0].socket();
    command
        .args(args)
        .args(["--socket", socket.to_str().expect("UTF-8")]);
    support::Running::start(&mut command).wait()
}

fn text(lab: &Lab, host: usize, name: &str) -> Option<String> {
    std::fs::read_to_string(lab.hosts[host].tree().join(name)).ok()
}

/// Makes two hosts with a whole release; the first one sends parts.
fn senders(excludes: &str) -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    lab.spec(&format!("{excludes}\n{}", support::DELETE));
    join(&mut lab, "web1");
    join(&mut lab, "web2");
    write(&lab.site().join("page"), "of the whole");
    lab.deploy(&[]).exits(0);
    sender(&mut lab);
    until("both to be there again", || status(&lab).len() == 2);

    Some(lab)
}

#[test]
fn the_host_that_sends_has_what_it_sent_and_gives_it_to_others() {
    let Some(mut lab) = senders("exclude = [\"*.log\"]") else {
        return;
    };

    for (name, content) in [("a", "1"), ("b", "2"), ("b", "3"), ("app.log", "4")] {
        send(&lab, name, content);
    }

    let is_current = |lab: &Lab| {
        let all = status(lab);
        all.len() == 2
            && all
                .iter()
                .all(|s| s["behind"] == false && s["serial"] == all[1]["serial"])
    };

    assert!(is_current(&lab), "{:?}", status(&lab));
    lab.hosts[0].restart();
    until("the sender to know after a restart, too", || {
        is_current(&lab)
    });

    // No other host is left to serve the release.
    lab.hosts[1].kill();
    join(&mut lab, "web3");
    until("a new host to be complete", || {
        let has = |name: &str, content: &str| text(&lab, 2, name).as_deref() == Some(content);
        has("page", "of the whole") && has("a", "1") && has("b", "3") && has("app.log", "4")
    });

    until("nobody to be behind", || {
        let ran = lab.makuo(&["status", "www"]);
        ran.code == 0 && ran.err.contains("none behind")
    });

    // The next part from this host follows.
    lab.hosts[1].start();
    until("all to be there", || {
        status(&lab).len() == 3 && is_quiet(&lab, 3)
    });
    assert_eq!(send_once(&lab, "*", "page", "5"), 0);

    assert_eq!(
        [1, 2].map(|host| text(&lab, host, "page")),
        [1, 2].map(|_| Some("5".to_string()))
    );
}

#[test]
fn parts_for_some_hosts_keep_no_other_host_from_the_rest() {
    let Some(mut lab) = senders("") else { return };
    join(&mut lab, "db1");
    until("the third host to be complete", || {
        text(&lab, 2, "page").is_some()
    });
    assert_eq!(send_once(&lab, "web*", "for-web", "1"), 0);
    assert_eq!(send_once(&lab, "db*", "for-db", "2"), 0);

    assert_eq!(send_once(&lab, "*", "for-all", "3"), 0);
    until("nobody to be behind", || {
        let ran = lab.makuo(&["status", "www"]);
        ran.code == 0 && ran.err.contains("none behind")
    });

    // One host at a time remains that holds a part not meant for the new host.
    for (stays, name, has) in [(1, "db2", false), (2, "web3", true)] {
        for host in [0, 1, 2] {
            if host == stays {
                lab.hosts[host].restart()
            } else {
                lab.hosts[host].kill()
            }
        }
        join(&mut lab, name);
        let at = lab.hosts.len() - 1;
        until("the new host to have all that it can get", || {
            text(&lab, at, "for-all").is_some()
        });
        assert_eq!(
            (
                text(&lab, at, "for-web").is_some(),
                text(&lab, at, "for-db").is_some()
            ),
            (false, false)
        );
        assert!(text(&lab, at, "page").is_some());
        if !has {
            until("the new host not to be behind", || {
                let own = status_of(&lab, name);
                own["behind"] == false
                    && own["lacks"].is_null()
                    && own["lacks_parts"] == serde_json::json!([])
            });
        }
        lab.hosts[at].kill();
        for host in [0, 1, 2].into_iter().filter(|host| *host != stays) {
            lab.hosts[host].start();
        }
        until("the others to be there again", || {
            (0..3).all(|n| !status_of(&lab, &lab.hosts[n].name).is_null())
        });
    }
}

#[test]
fn a_receiver_that_was_away_takes_no_part_before_those_that_it_missed() {
    let Some(mut lab) = senders("") else { return };
    for round in 0..3 {
        lab.hosts[1].kill();
        join(&mut lab, &format!("new{round}"));
        let new = lab.hosts.len() - 1;
        until("a new host to be complete", || {
            text(&lab, new, "page").is_some()
        });
        assert_eq!(send_once(&lab, "*", &format!("a{round}"), "1"), 0);
        lab.hosts[1].start();
        until("the receiver to be heard", || {
            !status_of(&lab, "web2").is_null()
        });
        assert_eq!(send_once(&lab, "*", &format!("b{round}"), "2"), 0);
        until("the receiver to have both", || {
            text(&lab, 1, &format!("a{round}")).is_some()
                && text(&lab, 1, &format!("b{round}")).is_some()
        });
    }

    until("nobody to be behind", || {
        let ran = lab.makuo(&["status", "www"]);
        ran.code == 0 && ran.err.contains("none behind")
    });
}

#[test]
fn many_parts_that_were_sent_one_by_one_come_to_a_new_host_in_few() {
    let Some(mut lab) = senders("") else { return };
    // Changed at the sender after the transfer: the new content is not for other hosts yet.
    assert_eq!(send_once(&lab, "*", "changed", "as sent"), 0);
    write(&lab.hosts[0].tree().join("changed"), "not sent yet");
    let has = |lab: &Lab, host: usize, n: usize| {
        ["many/file", "dir/of", "dir/of/in"]
            .iter()
            .enumerate()
            .all(|(at, name)| {
                let name = format!("{name}{n}{}", ["", "/page", "/deep"][at]);
                text(lab, host, &name).as_deref() == Some(n.to_string().as_str())
            })
    };
    // Files and whole directories; one file is removed later, and one directory has a file of the
    // host's own.
    for n in 0..17 {
        let number = n.to_string();
        assert_eq!(send_once(&lab, "*", &format!("many/file{n}"), &number), 0);
        let dir = format!("dir/of{n}");
        for name in ["page", "goes"] {
            write(&lab.hosts[0].tree().join(&dir).join(name), &number);
        }
        write(
            &lab.hosts[0].tree().join(format!("dir/of/in{n}/deep")),
            &number,
        );
        by_hand(&lab, vec!["sync", "-r", &dir, &format!("dir/of/in{n}")]).exits(0);
        if n == 3 {
            write(&lab.hosts[1].tree().join("dir/of3/own"), "own");
            std::fs::remove_file(lab.hosts[0].tree().join("dir/of2/goes")).expect("there");
            by_hand(&lab, vec!["sync", "-r", "dir/of2"]).exits(0);
        }
    }
    // A host's own files must survive, so parts sent without deletion are merged separately.
    assert_eq!(said(&lab, "parts merged into one release"), 1);
    assert_eq!(text(&lab, 1, "dir/of3/own").as_deref(), Some("own"));
    std::fs::remove_file(lab.hosts[1].tree().join("dir/of3/own")).expect("there");
    for n in 0..16 {
        assert_eq!(send_once(&lab, "*", &format!("more/file{n}"), "more"), 0);
    }
    assert_eq!(said(&lab, "parts merged into one release"), 2);
    assert!((0..17).all(|n| has(&lab, 1, n)));
    assert_eq!(text(&lab, 1, "changed").as_deref(), Some("as sent"));

    join(&mut lab, "web3");
    until("the new host to be complete", || {
        (0..17).all(|n| has(&lab, 2, n))
            && (0..16).all(|n| text(&lab, 2, &format!("more/file{n}")).is_some())
    });
    assert_eq!(text(&lab, 2, "changed").as_deref(), Some("as sent"));
    assert_eq!(
        (
            text(&lab, 2, "dir/of2/goes"),
            text(&lab, 2, "dir/of4/goes").as_deref()
        ),
        (None, Some("4"))
    );
    until("nobody to be behind", || {
        let ran = lab.makuo(&["status", "www"]);
        ran.code == 0 && ran.err.contains("none behind")
    });
    // The whole, one merged part of each kind, and the parts after the merge.
    let taken = lab.hosts[2].log().matches(" is in place: ").count();
    assert!(taken <= 24, "{taken}: {}", lab.hosts[2].log());
}

/// Sends a random part of the first host's tree, and returns the paths to compare on each host.
fn part(lab: &Lab, rng: &mut fastrand::Rng, count: usize) -> Vec<String> {
    let top = lab.hosts[0].tree();
    let dir = ["a", "a/b", "c", "c/d"][rng.usize(..4)];
    let file = format!("{dir}/file{}", rng.u8(..4));
    match rng.u8(..4) {
        0 => drop(std::fs::remove_file(top.join(&file))),
        1 => drop(std::fs::remove_dir_all(top.join(dir))),
        _ => write(&top.join(&file), format!("{count} of {:x}", rng.u32(..))),
    }
    write(&top.join(dir).join("always"), count.to_string());
    let words: &[&str] = match rng.u8(..6) {
        0 => &["sync", dir],
        1..3 => &["sync", "-r", dir],
        3 => &["send", "-r", dir],
        4 => &["sync", "-r", &file],
        _ if top.join(&file).exists() => &["send", &file],
        _ => &["send", "-r", dir],
    };
    words.iter().map(ToString::to_string).collect()
}

/// Runs deployments, all kinds of `send` and new hosts in random order, from this seed.
fn sent(seed: u64) -> Option<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut lab = senders("exclude = [\"*.log\"]")?;
    let mut told = vec![format!("seed {seed}")];
    for count in 0..10 {
        match rng.u8(..10) {
            0 => {
                support::copy(&lab.hosts[0].tree(), &lab.site());
                write(&lab.site().join("page"), count.to_string());
                // Signed by the key of the sent parts, so that the serials are shared. All hosts
                // have one address here and count as one voice.
                let key = lab.path("sender");
                let ran = lab.makuo(&["deploy", "www.toml", "--key", key.to_str().expect("UTF-8")]);
                told.push(format!("deploy: {}", ran.exits(0).code));
            }
            1 | 2 if lab.hosts.len() < 5 => {
                let name = format!("{}-{count}", ["web", "db"][rng.usize(..2)]);
                join(&mut lab, &name);
                told.push(format!("{name} comes"));
            }
            3 => {
                let target = ["web*", "db*"][rng.usize(..2)];
                told.push(format!(
                    "to {target}: {}",
                    send_once(&lab, target, "for-some", &count.to_string())
                ));
            }
            _ => {
                let words = part(&lab, &mut rng, count);
                let ran = by_hand(&lab, words.iter().map(String::as_str).collect());
                told.push(format!("{words:?}: {}", ran.code));
            }
        }
    }

    join(&mut lab, "last");
    told.push("last comes".to_string());

    // The host is complete or reports missing content; parts sent to selected hosts are not for
    // others.
    let differs = |host: usize| {
        let all = differences(&lab.hosts[1].tree(), &lab.hosts[host].tree());
        let lines = all
            .lines()
            .filter(|line| !line.starts_with(".d..t") && !line.ends_with(" for-some"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };

    let says = |host: usize| {
        let own = status_of(&lab, &lab.hosts[host].name);
        let lacks = own["lacks"].is_u64()
            || own["lacks_parts"]
                .as_array()
                .is_some_and(|parts| !parts.is_empty());
        lacks || own["stranded"] == true
    };

    let watch = support::Stopwatch::start();
    let wrong = || {
        (2..lab.hosts.len())
            .map(|host| (host, differs(host)))
            .filter(|(_, lines)| !lines.is_empty())
    };

    // Each part that a member cannot serve costs seconds before the next member is asked.
    let ends = || {
        let wrong: Vec<usize> = wrong().map(|(host, _)| host).collect();
        let settled = wrong.iter().all(|host| says(*host));
        settled && (!wrong.is_empty() || is_quiet(&lab, lab.hosts.len()))
    };

    while !ends() && watch.read().as_secs() < 120 {
        support::pause(std::time::Duration::from_millis(300));
    }

    for (host, lines) in wrong() {
        let name = &lab.hosts[host].name;
        assert!(
            says(host),
            "{told:#?}\n{name} says nothing: {lines:#?}\n{}",
            status_of(&lab, name)
        );
    }

    println!("{}", told.join("; "));
    Some(())
}

/// `MAKUO_SENDS=100` sets the number of runs, `MAKUO_SENDS_SEED` the first seed.
#[test]
fn a_new_host_is_complete_or_says_what_it_lacks_whatever_was_sent_before() {
    let first = number("MAKUO_SENDS_SEED", 1);
    for seed in first..first + number("MAKUO_SENDS", 2) {
        if sent(seed).is_none() {
            return;
        }
    }
}
