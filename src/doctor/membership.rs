//! Verdict on the group at this machine: joined, and its own datagrams come back.

use super::facts::{LinkFacts, NetworkFacts};
use crate::outcome::{Check, Finding, Severity};
use crate::units::printable;

/// Judges the membership of each link.
pub fn judge(network: &NetworkFacts) -> Vec<Finding> {
    let links = network.links.iter().filter(|link| link.multicast);
    links.map(|link| one(link, network)).collect()
}

fn one(link: &LinkFacts, network: &NetworkFacts) -> Finding {
    let name = printable(link.interface.name.as_bytes());
    let group = network.group.ip();
    let port = network.group.port();
    if !link.joined {
        let what = format!("the kernel does not list the group {group} for {name}");
        let todo = format!("see: ip maddress show dev {name}; a sandbox may forbid to join groups");
        return Finding::new(Check::Membership, Severity::Fail, what).todo(todo);
    }

    match link.own_copy {
        Some(false) => {
            let what = format!("datagrams to {group} do not come back to this machine on {name}");
            let todo = format!(
                "a firewall of this machine drops them: let UDP to port {port} in and out (nft: \
                 udp dport {port} accept)"
            );
            Finding::new(Check::Membership, Severity::Fail, what).todo(todo)
        }
        Some(true) => {
            let what = format!("{group} is joined on {name}, and its datagrams come back");
            Finding::new(Check::Membership, Severity::Ok, what)
        }
        None => {
            let what = format!("{group} is joined on {name}");
            Finding::new(Check::Membership, Severity::Ok, what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::testing::{link, network};
    use super::*;

    fn level(joined: bool, own_copy: Option<bool>) -> Severity {
        let link = LinkFacts {
            joined,
            own_copy,
            ..link("eth0")
        };
        let network = NetworkFacts {
            links: vec![link],
            ..network()
        };
        judge(&network)[0].level
    }

    #[test]
    fn a_group_that_is_not_joined_or_does_not_come_back_fails() {
        assert_eq!(level(true, Some(true)), Severity::Ok);
        assert_eq!(level(true, None), Severity::Ok);
        assert_eq!(level(true, Some(false)), Severity::Fail);
        assert_eq!(level(false, Some(true)), Severity::Fail);
    }

    #[test]
    fn a_link_without_multicast_needs_no_group() {
        let link = LinkFacts {
            multicast: false,
            joined: false,
            ..link("eth0")
        };
        let network = NetworkFacts {
            links: vec![link],
            ..network()
        };
        assert!(judge(&network).is_empty());
    }
}
