//! Findings of a search for the cause of a trouble: plain data, and the exit code.

use serde::Serialize;

use crate::id::NamedHost;

/// Exit code if a check failed.
const FAILED_EXIT: u8 = 1;

/// Verdict of a check, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A deploy does not work, or not for each host.
    Fail,
    /// A deploy works, and hardly as somebody meant.
    Warn,
    /// As it should be.
    Ok,
}

/// Name of a check, in the order of the checks. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The configuration, and what would keep its daemon from starting.
    Configuration,
    /// The interface of this machine.
    Interface,
    /// Whether this machine has joined the group.
    Membership,
    /// The hosts that answer.
    Hosts,
    /// Datagrams to and from the group.
    Multicast,
    /// Datagrams to single hosts.
    Unicast,
    /// UDP ports of this machine's daemon.
    Port,
    /// Rules here that may explain a measured loss.
    Firewall,
    /// The largest datagram that arrives.
    Datagram,
    /// Lost, late and repeated datagrams at rising rates.
    Loss,
    /// Buffers of the kernel.
    Buffer,
    /// A router that asks for members of groups.
    Querier,
    /// How far datagrams to the group go.
    Scope,
    /// The kind of machine and network.
    Environment,
    /// The kernel's batching of datagrams.
    Offload,
    /// Clocks of the hosts.
    Clock,
    /// Versions of makuo.
    Version,
    /// The group key.
    GroupKey,
    /// Authorized keys of the hosts.
    Keys,
    /// Filesystems of trees and their state.
    Filesystem,
    /// Free space for releases.
    Space,
    /// The kernel's limits of watches.
    Inotify,
    /// Repositories of the trees.
    Repository,
}

impl Check {
    /// The name of the check.
    pub fn name(self) -> &'static str {
        match self {
            Check::Configuration => "configuration",
            Check::Interface => "interface",
            Check::Membership => "membership",
            Check::Hosts => "hosts",
            Check::Multicast => "multicast",
            Check::Unicast => "unicast",
            Check::Port => "port",
            Check::Firewall => "firewall",
            Check::Datagram => "datagram",
            Check::Loss => "loss",
            Check::Buffer => "buffer",
            Check::Querier => "querier",
            Check::Scope => "scope",
            Check::Environment => "environment",
            Check::Offload => "offload",
            Check::Clock => "clock",
            Check::Version => "version",
            Check::GroupKey => "group-key",
            Check::Keys => "keys",
            Check::Filesystem => "filesystem",
            Check::Space => "space",
            Check::Inotify => "inotify",
            Check::Repository => "repository",
        }
    }
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// The verdict.
    pub level: Severity,
    /// Hosts that it is about; none for this machine.
    pub hosts: Vec<NamedHost>,
    /// The state of things, in one sentence.
    pub what: String,
    /// What to do about it.
    pub todo: Option<String>,
}

impl Finding {
    /// A finding about this machine.
    pub fn new(check: Check, level: Severity, what: impl Into<String>) -> Self {
        Self {
            check,
            level,
            hosts: Vec::new(),
            what: what.into(),
            todo: None,
        }
    }

    /// The same, with something to do.
    pub fn todo(self, todo: impl Into<String>) -> Self {
        Self {
            todo: Some(todo.into()),
            ..self
        }
    }

    /// The same, about a host.
    pub fn of(self, host: &NamedHost) -> Self {
        Self {
            hosts: vec![host.clone()],
            ..self
        }
    }
}

/// Orders findings, the worst first, and joins equal ones of several hosts.
pub fn ordered(findings: Vec<Finding>) -> Vec<Finding> {
    let mut joined: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = joined.iter_mut().find(|other| {
            let is_alike = other.hosts.is_empty() == finding.hosts.is_empty();
            is_alike
                && (other.check, other.level) == (finding.check, finding.level)
                && (&other.what, &other.todo) == (&finding.what, &finding.todo)
        });
        match same {
            Some(other) => other.hosts.extend(finding.hosts),
            None => joined.push(finding),
        }
    }

    for finding in &mut joined {
        finding.hosts.sort();
        finding.hosts.dedup();
    }
    joined.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.level, finding.check);
        key(a).cmp(&key(b)).then_with(|| a.hosts.cmp(&b.hosts))
    });
    joined
}

/// Exit code of a search: 1 if a check failed.
pub fn findings_exit(findings: &[Finding]) -> u8 {
    let failed = findings
        .iter()
        .any(|finding| finding.level == Severity::Fail);
    if failed { FAILED_EXIT } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HostName;

    fn host(name: &str) -> NamedHost {
        HostName::new(name).expect("legal").into()
    }

    #[test]
    fn the_worst_is_first_and_equal_findings_are_one() {
        let clock =
            |level, what: &str, name: &str| Finding::new(Check::Clock, level, what).of(&host(name));
        let here = Finding::new(Check::Interface, Severity::Ok, "eth0");
        let found = ordered(vec![
            here.clone(),
            here,
            clock(Severity::Ok, "right", "web10"),
            clock(Severity::Fail, "wrong", "web3"),
            clock(Severity::Ok, "right", "web2"),
            Finding::new(Check::Loss, Severity::Warn, "some"),
        ]);
        let shown: Vec<_> = found
            .iter()
            .map(|f| (f.check, f.level, f.hosts.len()))
            .collect();
        assert_eq!(
            shown,
            [
                (Check::Clock, Severity::Fail, 1),
                (Check::Loss, Severity::Warn, 0),
                (Check::Interface, Severity::Ok, 0),
                (Check::Clock, Severity::Ok, 2),
            ]
        );
        assert_eq!(found[3].hosts, [host("web2"), host("web10")]);
        assert_eq!(findings_exit(&found), 1);
        assert_eq!(findings_exit(&found[1..]), 0);
    }

    #[test]
    fn a_check_has_one_name_in_text_and_json() {
        let checks = [
            Check::Configuration,
            Check::Interface,
            Check::Membership,
            Check::Hosts,
            Check::Multicast,
            Check::Unicast,
            Check::Port,
            Check::Firewall,
            Check::Datagram,
            Check::Loss,
            Check::Buffer,
            Check::Querier,
            Check::Scope,
            Check::Environment,
            Check::Offload,
            Check::Clock,
            Check::Version,
            Check::GroupKey,
            Check::Keys,
            Check::Filesystem,
            Check::Space,
            Check::Inotify,
            Check::Repository,
        ];
        for check in checks {
            let json = serde_json::to_string(&check).expect("in memory");
            assert_eq!(json, format!("\"{}\"", check.name()));
        }
    }
}
