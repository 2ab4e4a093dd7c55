//! Verdict on the largest datagram that arrives at a host, against the MTU of both interfaces.

use super::facts::{HostFacts, NetworkFacts};
use crate::net::max_segment;
use crate::outcome::{Check, Finding, Severity};

/// Bytes by which a measured size may be below the true one: the search ends there.
const SEARCH_ERROR: usize = 16;

/// Judges the size of datagrams to a host; `None` without a measurement.
pub fn judge(host: &HostFacts, network: &NetworkFacts) -> Option<Finding> {
    let sizes = [host.sizes.by_group, host.sizes.by_host];
    let passes = sizes.into_iter().flatten().filter(|&size| size > 0).min()?;
    let largest = network.largest;
    if passes >= largest {
        let what = format!("datagrams of {largest} bytes arrive, the largest that are sent");
        return Some(Finding::new(Check::Datagram, Severity::Ok, what).of(&host.host));
    }

    let narrow = host.report.iter().flat_map(|report| &report.links);
    let narrow = narrow.min_by_key(|link| link.mtu).filter(|link| {
        let takes = max_segment(link.mtu, network.family());
        takes < largest && takes <= passes + SEARCH_ERROR
    });
    let here = network
        .links
        .iter()
        .map(|link| link.interface.mtu)
        .min()
        .unwrap_or(0);

    let size = format!("{largest} bytes do not arrive, and {passes} do");
    let finding = match narrow {
        Some(link) => {
            let what = format!(
                "datagrams of {size}: {} there has an MTU of {}, and the one here {here}",
                link.interface, link.mtu
            );
            let todo = format!(
                "give all hosts one MTU (ip link set dev {} mtu {here}): a deploy sends to all \
                 the size of the narrowest",
                link.interface
            );
            Finding::new(Check::Datagram, Severity::Warn, what).todo(todo)
        }
        None => {
            let what =
                format!("datagrams of {size}: something on the way has a smaller MTU than {here}");
            let todo = "look for a tunnel, a VPN or an old switch on the way: a deploy sends to \
                        all the size of the narrowest path";
            Finding::new(Check::Datagram, Severity::Warn, what).todo(todo)
        }
    };
    Some(finding.of(&host.host))
}

#[cfg(test)]
mod tests {
    use super::super::facts::PathSizes;
    use super::super::facts::testing::{host, network};
    use super::*;

    fn judged(by_group: usize, mtu: u32) -> Option<Finding> {
        let mut host = host("web1");
        host.sizes = PathSizes {
            by_group: Some(by_group),
            by_host: None,
        };
        host.report.as_mut().expect("reported").links[0].mtu = mtu;
        judge(&host, &network())
    }

    #[test]
    fn a_full_datagram_is_well() {
        assert_eq!(judged(1472, 1500).map(|f| f.level), Some(Severity::Ok));
        assert_eq!(judged(1472, 9000).map(|f| f.level), Some(Severity::Ok));
        assert_eq!(judged(0, 1500), None, "nothing arrived at all");
    }

    #[test]
    fn a_narrow_interface_is_told_from_a_narrow_path() {
        let found = judged(1250, 1280).expect("found");
        assert_eq!(found.level, Severity::Warn);
        assert!(
            found.what.contains("eth0 there has an MTU of 1280"),
            "{found:?}"
        );

        let found = judged(1400, 1500).expect("found");
        assert!(found.what.contains("something on the way"), "{found:?}");
        // The path is narrower than the interface.
        let found = judged(600, 1280).expect("found");
        assert!(!found.what.contains("1280"), "{found:?}");
    }
}
