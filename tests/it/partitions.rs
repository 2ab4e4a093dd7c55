//! Accuracy of a deployment's report on each host: hosts and sender are cut off in either
//! direction, killed and restarted at any moment.
//!
//! `MAKUO_PARTITIONS=200` sets the number of rounds, `MAKUO_PARTITION_SEED=17` the first seed.

use std::time::Duration;

use crate::support::{self, DELETE, Lab, Ran, pause, write};

const HOSTS: usize = 4;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Fault of a host during a deployment.
#[derive(Debug, Clone, Copy)]
enum What {
    /// Traffic from the sender is dropped.
    Deaf,
    /// Traffic to the sender is dropped.
    Mute,
    /// All traffic is dropped.
    Cut,
    Heal,
    Kill,
    Restart,
}

/// Moment of the fault: after a delay, or at a host's state.
#[derive(Debug, Clone, Copy)]
enum When {
    After(u64),
    State(&'static str),
}

fn plan(rng: &mut fastrand::Rng) -> Vec<(usize, When, What)> {
    let events = rng.usize(1..4);
    let event = |rng: &mut fastrand::Rng| {
        let states = [
            "joined",
            "staging",
            "ready",
            "prepared",
            "checking",
            "committed",
            "unhealthy",
            "reverted",
        ];
        let when = match rng.bool() {
            true => When::After(rng.u64(0..1500)),
            false => When::State(states[rng.usize(..states.len())]),
        };
        let what = [
            What::Deaf,
            What::Mute,
            What::Cut,
            What::Heal,
            What::Kill,
            What::Restart,
        ];
        (rng.usize(..HOSTS), when, what[rng.usize(..what.len())])
    };

    (0..events).map(|_| event(rng)).collect()
}

/// Makes a lab of hosts with a slow hook before a commit and a health check afterwards.
fn lab() -> Option<Lab> {
    let mut lab = Lab::network_idle(HOSTS)?;
    for number in 1..=HOSTS {
        let sick = lab.path(&format!("sick{number}"));
        let hook = |script: &str| format!("[\"/bin/sh\", \"-c\", {script:?}]");
        let health = hook(&format!("sleep 0.1; test ! -e {}", sick.display()));
        let host = &mut lab.hosts[number - 1];
        host.rule(&format!("before = {}", hook("sleep 0.1")));
        host.rule(&format!("after = {}", hook("sleep 0.1")));
        host.rule(&format!(
            "health = {health}\nhealth_deadline = \"400ms\"\nhealth_interval = \"100ms\""
        ));
        host.start();
    }

    Some(lab)
}

fn happen(lab: &mut Lab, alive: &mut [bool], host: usize, what: What) {
    let sender = format!("ip saddr 10.77.0.{}", HOSTS + 1);
    let place = lab.hosts[host].place.clone();
    match what {
        What::Deaf => place.cut("input", &sender),
        What::Mute => lab
            .admin
            .cut("input", &format!("ip saddr 10.77.0.{}", host + 1)),
        What::Cut => {
            place.cut("input", "");
            place.cut("output", "");
        }
        What::Heal => {
            place.heal();
            lab.admin.heal();
        }
        What::Kill | What::Restart if alive[host] => {
            lab.hosts[host].kill();
            alive[host] = false;
            if matches!(what, What::Restart) {
                lab.hosts[host].start();
                alive[host] = true;
            }
        }
        What::Kill | What::Restart => {}
    }
}

/// Checks the report of a deployment of `mark` against the trees, and returns the states.
fn judge(lab: &Lab, ran: &Ran, mark: &str, told: &str) -> Vec<String> {
    let mut states = Vec::new();
    for host in &lab.hosts {
        let has =
            std::fs::read(host.tree().join("mark")).is_ok_and(|found| found == mark.as_bytes());
        let spoke = ran
            .events()
            .iter()
            .any(|e| e["event"] == "host" && e["host"] == host.name.as_str());
        let state = if spoke {
            ran.host(&host.name).0
        } else {
            "nothing".to_string()
        };
        let said = match state.as_str() {
            "unknown" | "torn" => None,
            "committed" | "unchanged" | "checking" | "unhealthy" | "stuck" => Some(true),
            _ => Some(false),
        };
        assert!(
            said.is_none_or(|said| said == has),
            "{told}: {} is {state}, and has it: {has}\n{ran}",
            host.name
        );
        assert!(
            ran.code != 3 || !has,
            "{told}: exit 3, and {} has the release\n{ran}",
            host.name
        );
        assert!(
            ran.code != 0 || has || !spoke,
            "{told}: exit 0, and {} lacks the release\n{ran}",
            host.name
        );
        states.push(state);
    }

    states
}

#[test]
fn what_a_deploy_says_of_each_host_is_what_it_has() {
    let first =
        std::env::var("MAKUO_PARTITION_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |_| 0);
    let first = number("MAKUO_PARTITION_SEED", first);
    let Some(mut lab) = lab() else { return };
    let mut counts = std::collections::BTreeMap::new();

    for seed in first..first + number("MAKUO_PARTITIONS", 2) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mark = format!("release {seed}");
        write(&lab.site().join("mark"), &mark);
        write(
            &lab.site().join("big"),
            support::Noise::new(seed).bytes(rng.usize(1..400_000)),
        );
        let batches = ["", "batches = [1]\n", "batches = [1, 2]\n"][rng.usize(..3)];
        let failure = ["stop", "revert"][rng.usize(..2)];
        let require = ["\"all\"", "1"][rng.usize(..2)];
        lab.spec(&format!(
            "{DELETE}[commit]\n{batches}on_failure = \"{failure}\"\nrequire = {require}\n"
        ));
        for number in 1..=HOSTS {
            let sick = lab.path(&format!("sick{number}"));
            let _ = std::fs::remove_file(&sick);
            if rng.u8(..6) == 0 {
                write(&sick, "");
            }
        }
        let mut plan = plan(&mut rng);
        let told =
            format!("MAKUO_PARTITION_SEED={seed}, {batches:?}, {failure}, {require}, {plan:?}");

        let mut alive = vec![true; HOSTS];
        let mut deploy = lab.start(&[
            "deploy",
            "--json",
            "www.toml",
            "--timeout",
            "2s",
            "--expect",
            "1",
        ]);
        let mut passed = 0;
        while !deploy.is_over() {
            pause(Duration::from_millis(10));
            passed += 10;
            let events = deploy.events();
            plan.retain(|&(host, when, what)| {
                let due = match when {
                    When::After(time) => time <= passed,
                    When::State(state) => events
                        .iter()
                        .any(|e| e["event"] == "host" && e["state"] == state),
                };
                if due {
                    happen(&mut lab, &mut alive, host, what);
                }
                !due
            });
        }
        // The partition is still in place: no later message changes a tree.
        let ran = deploy.wait();
        for state in judge(&lab, &ran, &mark, &told) {
            *counts.entry(state).or_insert(0) += 1;
        }

        lab.admin.heal();
        for (host, alive) in lab.hosts.iter_mut().zip(alive) {
            host.place.heal();
            if !alive {
                host.start();
            }
        }
    }

    println!("seeds from {first}: {counts:?}");
}
