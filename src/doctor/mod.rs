//! The search for the cause of a trouble: verdicts from measured facts, without I/O.
//!
//! `facts` has the measurements of hosts, links and this machine. Each other file judges one kind
//! of them and returns findings: [`interface`] and [`membership`] this machine's place in the
//! network, [`reach`], [`datagram`] and [`loss`] the paths to hosts, [`buffer`], [`clock`],
//! [`place`] and [`group_key`] the hosts, [`environment`] and [`querier`] the network around, and
//! [`store`] the server of a repository. [`firewall`] names rules beside a measured loss.

pub mod buffer;
pub mod clock;
pub mod datagram;
pub mod environment;
mod facts;
pub mod firewall;
pub mod group_key;
pub mod interface;
pub mod loss;
pub mod membership;
pub mod place;
pub mod querier;
pub mod reach;
pub mod store;

pub use facts::{Burst, ClockOffset, HostFacts, LinkFacts, NetworkFacts, PathSizes, Tally};

use crate::outcome::Finding;

/// Findings about all hosts and the paths to them.
pub fn judge_hosts(hosts: &[HostFacts], network: &NetworkFacts) -> Vec<Finding> {
    let mut findings = reach::judge(hosts, network);
    for host in hosts.iter().filter(|host| host.answered) {
        findings.extend(datagram::judge(host, network));
        findings.extend(loss::judge(host));
        findings.extend(clock::judge(host));
        findings.extend(host.report.iter().flat_map(|report| {
            let buffers = buffer::judge_report(&host.host, report);
            buffers.into_iter().chain(place::judge(&host.host, report))
        }));
    }

    findings
}
