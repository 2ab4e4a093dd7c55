//! Tests of whole deploys under any behaviour of the network.

mod compression;
mod course;
mod discovery;
mod leave_behind;
mod mixed;
mod pace;
mod relay_faults;
mod relays;
mod repairs;
mod unicast;

use std::time::Duration;

use super::offer::SimOffer;
use super::setup::SendingSetup;
use super::unicast::{UnicastSetup, UplinkSetup};
use super::{LinkSetup, Network, NetworkSetup};
use crate::block::frame::Level;
use crate::manifest::Intent;
use crate::proto::sender::CommitRules;
use crate::units::{Quorum, Rate};

const LONG: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_millis(500);

fn deploy(setup: NetworkSetup, files: u32, size: usize) -> Network {
    let offer = SimOffer::random(setup.seed, 1, Intent::Deploy, files, size);
    Network::new(setup, offer)
}

/// Returns a link with a rate, a queue and losses.
fn lossy_link(rate: Rate, loss: f64) -> LinkSetup {
    LinkSetup {
        loss,
        rate: Some((rate, 1 << 20)),
        ..LinkSetup::default()
    }
}

/// Returns an uplink with a rate, whose sender waits when its queue is full.
fn uplink(rate: Rate) -> UplinkSetup {
    UplinkSetup {
        rate: Some((rate, 256 << 10)),
        drops: false,
    }
}

/// Returns a network without multicast, on lines of `rate` that lose `loss` of all datagrams. Of
/// the hosts, `needed` suffice.
fn without_multicast(
    seed: u64,
    (hosts, needed): (usize, usize),
    (rate, loss): (Rate, f64),
) -> NetworkSetup {
    NetworkSetup {
        seed,
        hosts,
        link: lossy_link(rate, loss),
        unicast: Some(UnicastSetup {
            uplink: uplink(rate),
            ..UnicastSetup::default()
        }),
        commit: CommitRules {
            quorum: Quorum::Count(needed as u32),
            ..CommitRules::default()
        },
        sending: unlimited(),
        ..NetworkSetup::default()
    }
}

/// Asserts that every host in `hosts` has the release, committed once and whole.
fn assert_complete(network: &mut Network, hosts: impl Iterator<Item = usize>, seed: u64) {
    for host in hosts {
        let disk = network.disk(host);
        let serial = disk.committed.as_ref().map(|r| r.header().serial.0);
        assert_eq!(
            (serial, disk.counts.commits, disk.is_whole()),
            (Some(1), 1, true),
            "host {host}, seed {seed}"
        );
    }
}

/// Returns a sender without a rate limit.
fn unlimited() -> SendingSetup {
    SendingSetup {
        ceiling: None,
        ..SendingSetup::default()
    }
}

/// Returns a sender with a compression level.
fn compressing(compress: Option<Level>) -> SendingSetup {
    SendingSetup {
        compress,
        ..SendingSetup::default()
    }
}
