//! Verdict on both directions of the path to each host, by multicast and by unicast: a firewall, a
//! switch that forgets the group, or an old makuo.

use super::facts::{HostFacts, NetworkFacts, Tally};
use crate::outcome::{Check, Finding, Severity};

/// Version of this makuo.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Judges the paths to the hosts.
pub fn judge(hosts: &[HostFacts], network: &NetworkFacts) -> Vec<Finding> {
    let cut_for_all = |tally: fn(&HostFacts) -> Option<Tally>| {
        let mut measured = hosts.iter().filter_map(tally).peekable();
        hosts.len() > 1 && measured.peek().is_some() && measured.all(Tally::is_cut)
    };
    let common = CommonCuts {
        to_group: cut_for_all(|host| host.to_group),
        from_group: cut_for_all(|host| host.from_group),
    };

    let mut findings: Vec<Finding> = hosts.iter().flat_map(versions).collect();
    for host in hosts {
        match (host.answered, host.measured, host.counts) {
            (false, _, _) => findings.push(silent(host, network)),
            (true, false, _) => {}
            (true, true, false) => findings.push(too_old(host)),
            (true, true, true) => {
                findings.extend(multicast(host, network, common));
                findings.extend(unicast(host, network));
            }
        }
    }

    findings
}

/// Directions in which nothing arrives from any or at any host.
#[derive(Debug, Clone, Copy)]
struct CommonCuts {
    to_group: bool,
    from_group: bool,
}

/// A host that is heard and does not answer.
fn silent(host: &HostFacts, network: &NetworkFacts) -> Finding {
    let port = network.group.port();
    let own = network.links.first().map_or(0, |link| link.local.port());
    let unicast = host.address.port();
    let what = format!(
        "its beacons arrive here from {}, and it answers neither to the group nor to its address",
        host.address.ip()
    );
    let todo = format!(
        "does a firewall there drop UDP to the ports {port} and {unicast}, or one here UDP to port \
         {own}? Let the ports 5000 to 5063 in (nft: udp dport 5000-5063 accept)"
    );
    Finding::new(Check::Hosts, Severity::Fail, what)
        .todo(todo)
        .of(&host.host)
}

fn too_old(host: &HostFacts) -> Finding {
    let what = format!(
        "makuo {} there is too old for the checks of multicast, unicast, datagram and loss",
        host.version
    );
    Finding::new(Check::Version, Severity::Warn, what)
        .todo("update makuo there")
        .of(&host.host)
}

fn versions(host: &HostFacts) -> Option<Finding> {
    if !host.answered || host.version == OWN_VERSION {
        return None;
    }

    let what = format!("makuo {} runs there, and {OWN_VERSION} here", host.version);
    let finding = Finding::new(Check::Version, Severity::Warn, what);
    Some(
        finding
            .todo("update the older one; a fleet of mixed versions works, with what both know")
            .of(&host.host),
    )
}

fn multicast(host: &HostFacts, network: &NetworkFacts, common: CommonCuts) -> Vec<Finding> {
    let Some(to_group) = host.to_group else {
        return Vec::new();
    };

    let group = network.group.ip();
    let port = network.group.port();
    if to_group.is_cut() {
        let unicast = host.to_host.map_or(String::new(), |tally| {
            format!("; {} of {} to its address do", tally.arrived, tally.sent)
        });
        let what = format!(
            "0 of {} datagrams to the group {group} arrive there{unicast}",
            to_group.sent
        );
        let todo = match common.to_group {
            true => format!(
                "no host hears the group from here: a firewall of this machine, or a switch that \
                 forgets the group (IGMP snooping without a querier); let UDP to port {port} out, \
                 or use the group 224.0.0.108, which switches flood"
            ),
            false => format!(
                "a firewall on {} or its switch drops the group: let UDP to port {port} and IGMP \
                 in there (nft: udp dport {port} accept; ip protocol igmp accept)",
                host.host
            ),
        };
        let finding = Finding::new(Check::Multicast, Severity::Fail, what);
        return vec![finding.todo(todo).of(&host.host)];
    }

    let back = host.from_group.filter(|tally| tally.is_cut());
    if let Some(back) = back {
        let what = format!(
            "0 of {} datagrams that it sends to the group {group} arrive here",
            back.sent
        );
        let todo = match common.from_group {
            true => format!(
                "no host is heard by the group: a firewall of this machine drops it, or a switch \
                 forgets it (IGMP snooping without a querier); let UDP to port {port} and IGMP in \
                 here"
            ),
            false => format!(
                "a firewall on {} drops UDP to port {port} on its way out, or a switch in between",
                host.host
            ),
        };
        let finding = Finding::new(Check::Multicast, Severity::Fail, what);
        return vec![finding.todo(todo).of(&host.host)];
    }

    let what = "datagrams to the group arrive there, and those of the host here";
    vec![Finding::new(Check::Multicast, Severity::Ok, what).of(&host.host)]
}

fn unicast(host: &HostFacts, network: &NetworkFacts) -> Option<Finding> {
    let to_host = host.to_host?;
    if !to_host.is_cut() {
        let what = "datagrams to its address arrive";
        return Some(Finding::new(Check::Unicast, Severity::Ok, what).of(&host.host));
    }

    let port = host.address.port();
    let group = host.to_group.map_or(String::new(), |tally| {
        format!("; {} of {} to the group do", tally.arrived, tally.sent)
    });
    let what = format!(
        "0 of {} datagrams to its address {} arrive{group}",
        to_host.sent, host.address
    );
    let range = match port {
        5000..=5063 => "5000-5063".to_string(),
        port => format!("{{ {}, {port} }}", network.group.port()),
    };
    let todo = format!(
        "a firewall on {} drops UDP to port {port}: let it in there (nft: udp dport {range} \
         accept)",
        host.host
    );
    Some(
        Finding::new(Check::Unicast, Severity::Fail, what)
            .todo(todo)
            .of(&host.host),
    )
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::{host, network};
    use super::*;

    const ALL_LOST: Option<Tally> = Some(Tally {
        sent: 20,
        arrived: 0,
    });

    fn judged(hosts: &[HostFacts]) -> Vec<Finding> {
        let mut found = judge(hosts, &network());
        found.retain(|finding| finding.level != Severity::Ok);
        found
    }

    fn todo(finding: &Finding) -> &str {
        finding.todo.as_deref().expect("something to do")
    }

    #[test]
    fn a_good_host_has_no_finding_that_is_worse_than_ok() {
        let hosts = [host("web1"), host("web2")];
        assert_eq!(judged(&hosts), []);
        assert_eq!(judge(&hosts, &network()).len(), 4);
    }

    #[test]
    fn a_firewall_that_drops_the_group_is_told_from_one_that_drops_the_port() {
        let no_group = HostFacts {
            to_group: ALL_LOST,
            ..host("web2")
        };
        let no_port = HostFacts {
            to_host: ALL_LOST,
            ..host("web3")
        };
        let found = judged(&[host("web1"), no_group, no_port]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].check, Check::Multicast);
        assert!(found[0].what.contains("0 of 20") && found[0].what.contains("20 of 20"));
        assert!(todo(&found[0]).contains("a firewall on web2"));
        assert_eq!(found[1].check, Check::Unicast);
        assert!(found[1].what.contains("10.0.0.3:5001"), "{found:?}");
        assert!(todo(&found[1]).contains("a firewall on web3 drops UDP to port 5001"));
    }

    #[test]
    fn a_cut_to_every_host_is_at_this_machine_or_the_switch() {
        let cut = |name: &str| HostFacts {
            to_group: ALL_LOST,
            ..host(name)
        };
        let found = judged(&[cut("web1"), cut("web2")]);
        assert!(
            found.iter().all(|f| todo(f).contains("no host hears")),
            "{found:?}"
        );

        let deaf = |name: &str| HostFacts {
            from_group: ALL_LOST,
            ..host(name)
        };
        let found = judged(&[deaf("web1"), deaf("web2")]);
        assert!(
            found.iter().all(|f| todo(f).contains("no host is heard")),
            "{found:?}"
        );
        let found = judged(&[deaf("web1"), host("web2")]);
        assert!(found.len() == 1 && todo(&found[0]).contains("on its way out"));
    }

    #[test]
    fn a_host_that_is_not_measured_is_judged_by_its_word_alone() {
        let other = HostFacts {
            measured: false,
            counts: false,
            to_host: None,
            to_group: None,
            ..host("web65")
        };
        assert_eq!(judge(std::slice::from_ref(&other), &network()), []);
        let old = HostFacts {
            version: "0.0.9".into(),
            ..other
        };
        assert_eq!(judged(&[old])[0].check, Check::Version);
    }

    #[test]
    fn some_losses_are_no_cut() {
        let some = HostFacts {
            to_group: Some(Tally {
                sent: 20,
                arrived: 1,
            }),
            ..host("web1")
        };
        assert_eq!(judged(&[some]), []);
    }

    #[test]
    fn an_old_host_is_no_failure_and_a_silent_one_is() {
        let old = HostFacts {
            counts: false,
            version: "0.0.9".into(),
            to_group: None,
            to_host: None,
            ..host("web1")
        };
        let found = judged(&[old]);
        assert!(
            found
                .iter()
                .all(|f| f.level == Severity::Warn && f.check == Check::Version)
        );
        assert!(
            found.iter().any(|f| f.what.contains("too old")),
            "{found:?}"
        );

        let silent = HostFacts {
            answered: false,
            ..host("web1")
        };
        let found = judged(&[silent]);
        assert_eq!(
            (found[0].check, found[0].level),
            (Check::Hosts, Severity::Fail)
        );
        assert!(todo(&found[0]).contains("5000-5063"));
    }
}
