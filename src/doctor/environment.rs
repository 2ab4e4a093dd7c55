//! Verdict on the kind of machine and network: clouds, containers, wireless links, filters.

use crate::outcome::{Check, Finding, Severity};
use crate::units::printable;

/// Clouds without multicast by texts of their firmware (DMI), in lower case.
const CLOUDS: [(&str, &str); 6] = [
    ("amazon", "Amazon EC2"),
    ("google", "Google Cloud"),
    ("microsoft corporation virtual machine", "Microsoft Azure"),
    ("digitalocean", "DigitalOcean"),
    ("hetzner", "Hetzner Cloud"),
    ("openstack", "OpenStack"),
];

/// The machine around makuo.
#[derive(Debug, Clone, Default)]
pub struct MachineKind {
    /// Vendor and product of the firmware.
    pub firmware: String,
    /// Whether this is a container.
    pub container: bool,
    /// Interfaces in use that are wireless.
    pub wireless: Vec<String>,
    /// Interfaces in use whose packets are dropped unless answers leave there (rp_filter = 1).
    pub filtered: Vec<String>,
    /// Whether multicast is used.
    pub multicast: bool,
    /// Whether hosts answered.
    pub has_answers: bool,
}

/// Judges the machine.
pub fn judge(machine: &MachineKind) -> Vec<Finding> {
    let mut findings = Vec::new();
    let warn = |what: String, todo: &str| {
        Finding::new(Check::Environment, Severity::Warn, what).todo(todo)
    };
    let is_unheard = machine.multicast && !machine.has_answers;

    if let Some(cloud) = cloud(&machine.firmware).filter(|_| is_unheard) {
        findings.push(warn(
            format!("this looks like {cloud}: its networks carry no multicast"),
            "name some hosts with --peers or in peers, with multicast = false, or publish to a \
             repository",
        ));
    }
    if machine.container && is_unheard {
        findings.push(warn(
            "this looks like a container: its network may be apart from that of the hosts".into(),
            "use the network of the machine (--network host), or a macvlan",
        ));
    }
    if machine.multicast {
        findings.extend(machine.wireless.iter().map(|name| {
            let name = printable(name.as_bytes());
            warn(
                format!("{name} is wireless: multicast is slow there, and much of it is lost"),
                "use a cable, or unicast: --no-multicast with --peers",
            )
        }));
    }
    if is_unheard {
        findings.extend(machine.filtered.iter().map(|name| {
            let name = printable(name.as_bytes());
            warn(
                format!("{name} drops packets whose answers would leave elsewhere (rp_filter = 1)"),
                "where hosts of another network are behind it: sysctl -w \
                 net.ipv4.conf.all.rp_filter=2",
            )
        }));
    }

    if findings.is_empty() {
        let what = "nothing around this machine is known to stop makuo";
        findings.push(Finding::new(Check::Environment, Severity::Ok, what));
    }
    findings
}

fn cloud(firmware: &str) -> Option<&'static str> {
    let firmware = firmware.to_lowercase();
    let found = CLOUDS.iter().find(|(text, _)| firmware.contains(text));
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unheard() -> MachineKind {
        MachineKind {
            multicast: true,
            ..MachineKind::default()
        }
    }

    fn warned(machine: &MachineKind) -> Vec<String> {
        let found = judge(machine);
        let worse = found.into_iter().filter(|f| f.level != Severity::Ok);
        worse.map(|finding| finding.what).collect()
    }

    #[test]
    fn a_cloud_is_named_where_nobody_answers() {
        for (firmware, name) in [
            ("Amazon EC2 m5.large", "Amazon EC2"),
            ("Google Google Compute Engine", "Google Cloud"),
            ("Microsoft Corporation Virtual Machine", "Microsoft Azure"),
        ] {
            let machine = MachineKind {
                firmware: firmware.into(),
                ..unheard()
            };
            assert!(warned(&machine)[0].contains(name));
            let heard = MachineKind {
                has_answers: true,
                ..machine.clone()
            };
            let unicast = MachineKind {
                multicast: false,
                ..machine
            };
            assert!(warned(&heard).is_empty() && warned(&unicast).is_empty());
        }
        assert!(warned(&unheard()).is_empty());
    }

    #[test]
    fn containers_filters_and_wireless_links_are_told() {
        let machine = MachineKind {
            container: true,
            wireless: vec!["wlan0".into()],
            filtered: vec!["eth1".into()],
            ..unheard()
        };
        assert_eq!(warned(&machine).len(), 3);
        let heard = MachineKind {
            has_answers: true,
            ..machine
        };
        assert_eq!(
            warned(&heard),
            ["wlan0 is wireless: multicast is slow there, and much of it is lost"]
        );
    }
}
