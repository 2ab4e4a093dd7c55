//! Verdict on the interface of this machine: the right one, and its state.

use super::facts::{LinkFacts, NetworkFacts};
use crate::net::{Interface, Offload};
use crate::outcome::{Check, Finding, Severity};
use crate::units::printable;

/// Starts of the names of interfaces that lead to containers, virtual machines or a VPN.
const VIRTUAL_NAMES: [&str; 9] = [
    "docker",
    "br-",
    "veth",
    "virbr",
    "cni",
    "tun",
    "tap",
    "wg",
    "tailscale",
];

/// Choice of the interface, and the others of this machine.
#[derive(Debug, Clone, Default)]
pub struct InterfaceChoice {
    /// Whether a person named it.
    pub named: bool,
    /// All interfaces of this machine.
    pub all: Vec<Interface>,
    /// Number of hosts that answered.
    pub answers: usize,
    /// Other interfaces where hosts answered, with their number.
    pub elsewhere: Vec<(String, usize)>,
}

/// Judges the interfaces of the links.
pub fn judge(network: &NetworkFacts, choice: &InterfaceChoice) -> Vec<Finding> {
    let mut findings: Vec<Finding> = network
        .links
        .iter()
        .flat_map(|link| [one(link, choice), offload(link)])
        .collect();

    let used = names(network);
    for (name, hosts) in &choice.elsewhere {
        let name = printable(name.as_bytes());
        let hosts = match hosts {
            1 => "1 host answers".to_string(),
            n => format!("{n} hosts answer"),
        };
        let what = format!("no host answers on {used}, and {hosts} on {name}: the wrong interface");
        let todo = format!("give --interface {name}, or interface = \"{name}\" in [network]");
        findings.push(Finding::new(Check::Interface, Severity::Fail, what).todo(todo));
    }

    findings
}

/// Names of the interfaces in use.
pub fn names(network: &NetworkFacts) -> String {
    let name = |link: &LinkFacts| printable(link.interface.name.as_bytes());
    let names: Vec<String> = network.links.iter().map(name).collect();
    names.join(", ")
}

fn one(link: &LinkFacts, choice: &InterfaceChoice) -> Finding {
    let interface = &link.interface;
    let name = printable(interface.name.as_bytes());
    let others: Vec<String> = choice
        .all
        .iter()
        .filter(|other| other.index != interface.index && other.up && !other.loopback)
        .filter(|other| !other.addresses.is_empty())
        .map(Interface::describe)
        .collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("; others: {}", others.join("; ")),
    };

    let why = match choice.named {
        true => "named",
        false => "of the default route, or the first that can multicast",
    };
    if interface.loopback && !choice.named {
        let what = format!("{name} is used, which reaches this machine alone{others}");
        let todo = "bring the network up, or name an interface with --interface";
        return Finding::new(Check::Interface, Severity::Fail, what).todo(todo);
    }

    let is_virtual = VIRTUAL_NAMES.iter().any(|start| name.starts_with(start));
    let shown = interface.describe();
    if is_virtual && !choice.named {
        let what = format!("{shown} is used, which looks virtual{others}");
        let todo = "name the interface of the hosts with --interface";
        return Finding::new(Check::Interface, Severity::Warn, what).todo(todo);
    }

    let what = format!("{shown}, {why}{others}");
    Finding::new(Check::Interface, Severity::Ok, what)
}

fn offload(link: &LinkFacts) -> Finding {
    let name = printable(link.interface.name.as_bytes());
    let (level, what) = match link.offload {
        Offload::Full => (Severity::Ok, "datagrams leave in trains (UDP GSO)"),
        Offload::Batched => (
            Severity::Ok,
            "the kernel takes no trains (UDP GSO): more work",
        ),
        Offload::Single => (Severity::Warn, "each datagram takes a system call"),
    };

    let arrive = match link.receives_trains {
        true => "arriving ones are joined (UDP GRO)",
        false => "arriving ones come one by one (no UDP GRO)",
    };
    let finding = Finding::new(Check::Offload, level, format!("{name}: {what}; {arrive}"));
    match level {
        Severity::Warn | Severity::Fail => {
            finding.todo("update the kernel, or the driver of the card")
        }
        Severity::Ok => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::{link, network};
    use super::*;
    use crate::net::testing::interface;

    fn judged(name: &str, choice: &InterfaceChoice) -> Vec<Finding> {
        let network = NetworkFacts {
            links: vec![link(name)],
            ..network()
        };
        let mut found = judge(&network, choice);
        found.retain(|finding| finding.check == Check::Interface);
        found
    }

    #[test]
    fn a_good_interface_is_named_with_the_others() {
        let choice = InterfaceChoice {
            all: vec![
                interface("eth0", 2, &["10.0.0.9"]),
                interface("wg0", 3, &["10.9.0.1"]),
                interface("eth2", 4, &[]),
            ],
            answers: 3,
            ..InterfaceChoice::default()
        };
        let found = judged("eth0", &choice);
        assert_eq!((found.len(), found[0].level), (1, Severity::Ok));
        assert!(found[0].what.contains("wg0 (10.9.0.1"), "{found:?}");
        assert!(!found[0].what.contains("eth2"), "{found:?}");
    }

    #[test]
    fn the_wrong_interface_is_named_with_the_right_one() {
        let choice = InterfaceChoice {
            named: true,
            elsewhere: vec![("eth0".to_string(), 3)],
            ..InterfaceChoice::default()
        };
        let found = judged("eth1", &choice);
        assert_eq!(found[1].level, Severity::Fail);
        assert!(
            found[1].what.contains("3 hosts answer on eth0"),
            "{found:?}"
        );
        let todo = found[1].todo.as_deref().expect("something to do");
        assert!(todo.contains("--interface eth0"), "{todo}");
    }

    #[test]
    fn a_virtual_one_is_doubted_unless_a_person_names_it() {
        let level = |name: &str, named| {
            let choice = InterfaceChoice {
                named,
                ..InterfaceChoice::default()
            };
            judged(name, &choice)[0].level
        };
        assert_eq!(level("docker0", false), Severity::Warn);
        assert_eq!(level("docker0", true), Severity::Ok);
        assert_eq!(level("eth0", false), Severity::Ok);
    }

    #[test]
    fn slow_sends_are_told() {
        for (offload, level) in [
            (Offload::Full, Severity::Ok),
            (Offload::Batched, Severity::Ok),
            (Offload::Single, Severity::Warn),
        ] {
            let slow = LinkFacts {
                offload,
                ..link("eth0")
            };
            let network = NetworkFacts {
                links: vec![slow],
                ..network()
            };
            let found = judge(&network, &InterfaceChoice::default());
            let found = found.iter().find(|f| f.check == Check::Offload);
            assert_eq!(found.map(|f| f.level), Some(level));
        }
    }
}
