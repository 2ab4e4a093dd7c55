//! Discovery: a lost datagram does not leave out a host.

use std::time::Duration;

use super::{LONG, deploy};
use crate::proto::sender::SenderNotice;
use crate::sim::node::NodeId;
use crate::sim::{LinkSetup, Network, NetworkSetup};

/// Deploys to hosts in two groups that do not hear each other, as behind two interfaces of the
/// sender, and returns the number of hosts that discovery missed.
fn missed(seed: u64, loss: f64) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let hosts = rng.usize(2..12);
    let in_first = rng.usize(1..hosts);

    let mut network = deploy(
        NetworkSetup {
            seed,
            hosts,
            link: LinkSetup {
                loss,
                jitter: Duration::from_micros(200),
                ..LinkSetup::default()
            },
            ..NetworkSetup::default()
        },
        1,
        100,
    );

    for host in 1..=hosts {
        network.lose(NodeId::host(host), NodeId::SENDER, loss);
        let others = (1..=hosts).filter(|&other| (other <= in_first) != (host <= in_first));
        others.for_each(|other| network.cut(NodeId::host(host), NodeId::host(other), true));
    }

    assert!(network.run(LONG, Duration::ZERO), "seed {seed}");
    hosts - found(&network)
}

/// Returns the number of hosts that took part.
fn found(network: &Network) -> usize {
    let notices = network.log.notices.iter();
    notices
        .filter_map(|notice| match notice {
            SenderNotice::Discovered { targets, .. } => Some(targets.len()),
            _ => None,
        })
        .sum()
}

#[test]
fn a_lost_datagram_leaves_out_no_host() {
    for loss in [0.01, 0.03] {
        let short: Vec<u64> = (0..400).filter(|&seed| missed(seed, loss) > 0).collect();
        assert!(
            short.is_empty(),
            "loss {loss}: a host was missed with seeds {short:?}"
        );
    }
}
