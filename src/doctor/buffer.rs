//! Verdict on the kernel's buffers, here and on hosts, with the line for sysctl.

use super::facts::NetworkFacts;
use crate::id::NamedHost;
use crate::net::DEFAULT_RECV_BUFFER;
use crate::outcome::{Check, Finding, Severity};
use crate::units::{ByteSize, printable};
use crate::wire::machine::MachineReport;

/// Send buffer that a sender needs at least, in bytes.
const MIN_SEND_BUFFER: u64 = 128 << 10;

/// Advice on a receive buffer of `granted` bytes; `None` for about the requested size.
pub fn advice(granted: usize) -> Option<String> {
    is_small(granted as u64).then(|| {
        let shown = ByteSize(granted as u64);
        let asked = ByteSize(DEFAULT_RECV_BUFFER as u64);
        format!(
            "the kernel grants {shown} of {asked}; raise it: {}",
            remedy()
        )
    })
}

fn is_small(granted: u64) -> bool {
    granted < DEFAULT_RECV_BUFFER as u64 / 2
}

fn remedy() -> String {
    format!("sysctl -w net.core.rmem_max={DEFAULT_RECV_BUFFER}, then restart makuo")
}

/// Judges the buffers of this machine; `send_limit` is the kernel's for senders.
pub fn judge_here(network: &NetworkFacts, send_limit: Option<u64>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = network
        .links
        .iter()
        .map(|link| {
            let name = printable(link.interface.name.as_bytes());
            one(&name, link.recv_buffer as u64, None)
        })
        .collect();

    if let Some(limit) = send_limit.filter(|limit| *limit < MIN_SEND_BUFFER) {
        let what = format!(
            "the kernel grants send buffers of {} at most",
            ByteSize(limit)
        );
        let todo = "sysctl -w net.core.wmem_max=262144";
        findings.push(Finding::new(Check::Buffer, Severity::Warn, what).todo(todo));
    }

    findings
}

/// Judges the buffers of a host.
pub fn judge_report(host: &NamedHost, report: &MachineReport) -> Vec<Finding> {
    let links = report.links.iter();
    let judged = links.map(|link| one(&link.interface, link.recv_buffer, report.recv_limit));
    judged.map(|finding| finding.of(host)).collect()
}

fn one(interface: &str, granted: u64, limit: Option<u64>) -> Finding {
    let shown = ByteSize(granted);
    if !is_small(granted) {
        let what = format!("the receive buffer has {shown}");
        return Finding::new(Check::Buffer, Severity::Ok, what);
    }

    let limit = limit.map_or(String::new(), |limit| {
        format!(" (net.core.rmem_max is {})", ByteSize(limit))
    });
    let what = format!(
        "the receive buffer of {interface} has {shown} of {}{limit}: fast transfers lose \
         datagrams there",
        ByteSize(DEFAULT_RECV_BUFFER as u64)
    );
    let todo = format!("{}, or run the daemon with CAP_NET_ADMIN", remedy());
    Finding::new(Check::Buffer, Severity::Warn, what).todo(todo)
}

#[cfg(test)]
mod tests {
    use super::super::facts::LinkFacts;
    use super::super::facts::testing::{host, link, network, report};
    use super::*;

    #[test]
    fn a_small_buffer_here_and_there_is_told_with_the_remedy() {
        let network = NetworkFacts {
            links: vec![LinkFacts {
                recv_buffer: 64 << 10,
                ..link("eth0")
            }],
            ..network()
        };
        let here = judge_here(&network, Some(64 << 10));
        assert_eq!(here.len(), 2);
        assert!(here.iter().all(|finding| finding.level == Severity::Warn));
        let todo = here[0].todo.as_deref().expect("something");
        assert!(todo.contains("net.core.rmem_max=16777216"), "{todo}");
        assert!(
            here[1]
                .todo
                .as_deref()
                .expect("something")
                .contains("wmem_max")
        );

        let mut small = report();
        small.links[0].recv_buffer = 64 << 10;
        small.recv_limit = Some(64 << 10);
        let there = judge_report(&host("web1").host, &small);
        assert_eq!(there[0].level, Severity::Warn);
        assert!(
            there[0].what.contains("net.core.rmem_max is 65.5 kB"),
            "{there:?}"
        );
    }

    #[test]
    fn enough_is_enough() {
        assert_eq!(judge_here(&network(), Some(212_992))[0].level, Severity::Ok);
        let found = judge_report(&host("web1").host, &report());
        assert_eq!(found[0].level, Severity::Ok);
        assert_eq!(advice(DEFAULT_RECV_BUFFER), None);
        assert!(advice(212_992).is_some_and(|text| text.contains("net.core.rmem_max=16777216")));
    }
}
