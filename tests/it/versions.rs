//! Fleets of this version and the one before. `MAKUO_BEFORE` names the command of that version;
//! .ci/packages builds it and runs these tests.

use std::process::Command;

use crate::support::run::tool;
use crate::support::{Lab, Noise, differences, until, write};

const THIS: &str = env!("CARGO_BIN_EXE_makuo");

fn before() -> String {
    std::env::var("MAKUO_BEFORE").expect("MAKUO_BEFORE names the makuo of the version before")
}

/// Makes four hosts: web1 and web2 run this version, web3 and web4 the one before.
fn mixed() -> Lab {
    let mut lab = Lab::network_idle(4).expect("a network of namespaces");
    for number in 0..4 {
        let host = &mut lab.hosts[number];
        if number >= 2 {
            host.program = before();
        }
        host.catch_up = true;
        host.start();
    }

    Noise::new(1).tree(&lab.site(), 20, 2000);
    lab
}

#[test]
#[ignore = "needs MAKUO_BEFORE; .ci/packages runs it"]
fn a_fleet_of_two_versions_takes_releases_of_both() {
    let said = tool(Command::new(before()).arg("--version"));
    let version = said.trim().trim_start_matches("makuo ").to_string();
    assert_ne!(
        version,
        env!("CARGO_PKG_VERSION"),
        "MAKUO_BEFORE is this version"
    );

    let mut lab = mixed();
    let members = lab.makuo(&["members", "--json"]).exits(0);
    let shown = format!("\"version\":{version:?}");
    assert_eq!(members.out.matches(&shown).count(), 2, "{}", members.out);

    for program in [THIS.to_string(), before()] {
        write(&lab.site().join("page"), &program);
        lab.program = program;
        lab.deploy(&[]).exits(0);
        lab.all_same(&lab.site());
        lab.diff(&[]).exits(0);
        lab.makuo(&["status", "www"]).exits(0);
    }

    // A host of each version catches up where only hosts of the other one run.
    for (away, givers) in [(0, [2, 3]), (2, [0, 1])] {
        let silent = if away == 0 { 1 } else { 3 };
        lab.hosts[away].stop();
        lab.hosts[silent].stop();
        write(&lab.site().join("page"), format!("without {away}"));
        lab.makuo(&["deploy", "www.toml", "--expect", "2"]).exits(0);
        for giver in givers {
            assert!(same_tree(&lab, giver));
        }
        lab.hosts[away].start();
        until("a host to catch up from the other version", || {
            same_tree(&lab, away)
        });
        lab.hosts[silent].start();
        until("the other host to do so", || same_tree(&lab, silent));
    }

    // Releases before that one are no longer kept.
    lab.program = before();
    lab.makuo(&["rollback", "www", "--to", "3"]).exits(0);
    for host in &lab.hosts {
        let page = std::fs::read_to_string(host.tree().join("page")).expect("there");
        assert_eq!(page, "without 0", "{}", host.name);
    }
}

fn same_tree(lab: &Lab, number: usize) -> bool {
    differences(&lab.site(), &lab.hosts[number].tree()).is_empty()
}

/// An upgrade keeps the state, and so does the way back.
#[test]
#[ignore = "needs MAKUO_BEFORE; .ci/packages runs it"]
fn the_state_of_either_version_is_read_by_the_other() {
    let mut lab = mixed();
    lab.deploy(&[]).exits(0);
    for host in &mut lab.hosts {
        host.stop();
        host.program = if host.program == THIS {
            before()
        } else {
            THIS.to_string()
        };
        host.start();
    }

    lab.diff(&[]).exits(0);
    write(&lab.site().join("page"), "second");
    lab.deploy(&[]).exits(0);
    lab.makuo(&["rollback", "www", "--to", "1"]).exits(0);
    for host in &lab.hosts {
        assert!(!host.tree().join("page").exists(), "{}", host.name);
    }
}
