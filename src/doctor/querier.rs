//! Verdict on the switches' memory of the group: groups that they flood, and the querier that all
//! others need.

use std::net::IpAddr;
use std::time::Duration;

use crate::outcome::{Check, Finding, Severity};
use crate::units::shown_duration;

/// Longest wait for a question: queriers ask every 125 s.
pub const QUERIER_TIMEOUT: Duration = Duration::from_secs(130);

/// Result of the wait for a querier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuerierWait {
    /// Nobody waited.
    NotTried,
    /// This process may not listen, for a reason.
    NotAllowed(String),
    /// Interrupted after this time.
    Interrupted(Duration),
    /// No question came in the whole time.
    Silence,
    /// The querier that asked.
    Asked(String),
}

/// Returns whether switches with snooping pass the group on to all ports (RFC 4541).
pub fn is_flooded(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
        IpAddr::V6(group) => group.octets() == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    }
}

/// Judges the wait for a querier of `group`.
pub fn judge(group: IpAddr, wait: &QuerierWait) -> Finding {
    let finding = |level, what: String| Finding::new(Check::Querier, level, what);
    let needs =
        format!("switches with IGMP snooping forget {group} unless some router asks for it");

    match wait {
        QuerierWait::Asked(querier) => finding(
            Severity::Ok,
            format!("{querier} asks for members of groups"),
        ),
        QuerierWait::NotTried if is_flooded(group) => {
            let what = format!("{group} needs no querier: switches flood it");
            finding(Severity::Ok, what)
        }
        QuerierWait::NotTried => finding(Severity::Ok, format!("{needs}; --long waits for one")),
        QuerierWait::NotAllowed(why) => {
            let what = format!("{needs}, and listening for one needs root (CAP_NET_RAW): {why}");
            finding(Severity::Warn, what).todo("run it as root")
        }
        QuerierWait::Interrupted(after) => {
            let what = format!("no router asked for members in {}", shown_duration(*after));
            finding(Severity::Ok, what)
        }
        QuerierWait::Silence if is_flooded(group) => {
            let what = format!("no router asks for members of groups; {group} needs none");
            finding(Severity::Ok, what)
        }
        QuerierWait::Silence => {
            let longest = shown_duration(QUERIER_TIMEOUT);
            let what = format!("no router asked in {longest}, and {needs}");
            let todo = "switch a querier on at a router or switch (or ip link set br0 type bridge \
                        mcast_querier 1), or use the group 224.0.0.108";
            finding(Severity::Warn, what).todo(todo)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_that_is_not_flooded_needs_a_querier() {
        let level =
            |group: &str, wait: &QuerierWait| judge(group.parse().expect("an address"), wait).level;
        let (flooded, other) = ("224.0.0.108", "239.255.0.108");
        assert_eq!(level(flooded, &QuerierWait::Silence), Severity::Ok);
        assert_eq!(level(other, &QuerierWait::Silence), Severity::Warn);
        assert_eq!(level("ff15::4d4b", &QuerierWait::Silence), Severity::Warn);

        let asked = QuerierWait::Asked("10.0.0.1".into());
        let brief = QuerierWait::Interrupted(Duration::from_secs(5));
        for wait in [QuerierWait::NotTried, asked, brief] {
            assert_eq!(level(other, &wait), Severity::Ok);
            assert_eq!(level(flooded, &wait), Severity::Ok);
        }
        let forbidden = QuerierWait::NotAllowed("no right".into());
        let found = judge(other.parse().expect("an address"), &forbidden);
        assert_eq!(found.todo.as_deref(), Some("run it as root"));
    }
}
