//! Cost of a transfer without multicast, in bytes sent over bytes of payload: by the sender, and by
//! the host that passes on the most.
//!
//! Datagrams have their real size, because messages go to each host and weigh as much as on a real
//! network. Data is counted without headers, as in [`super::goodput`], and messages with theirs.

use std::fmt;
use std::time::Duration;

use super::goodput::broken_feedback;
use super::node::NodeId;
use super::offer::SimOffer;
use super::sent_messages::SentMessages;
use super::setup::SendingSetup;
use super::unicast::{UnicastSetup, UplinkSetup};
use super::{LinkSetup, Network, NetworkSetup};
use crate::manifest::Intent;
use crate::proto::generation::TARGET_BYTES;
use crate::units::Rate;
use crate::wire::DATA_OVERHEAD;

/// Rate of every line, in both directions.
const LINE: Rate = Rate(200_000_000);
/// Queue into a host, in bytes.
const QUEUE: u64 = 1 << 20;
/// Mean bytes of a file.
const FILE: usize = 75_000;
/// Bound on the sender's bytes, over the payload.
const SENDER_BOUND: f64 = 1.1;
/// Bound on the bytes of any host, over the payload.
const HOST_BOUND: f64 = 1.15;

/// One transfer without multicast.
#[derive(Debug, Clone)]
pub struct UnicastCost {
    /// Number of hosts.
    pub hosts: usize,
    /// Share of datagrams lost on each way from one node to another.
    pub loss: f64,
    /// Bytes of nodes and blocks.
    pub payload: u64,
    /// The sender's data over the payload, each copy counted.
    pub data: f64,
    /// The same with its messages.
    pub sender: f64,
    /// Messages of the sender by kind.
    pub messages: SentMessages,
    /// Bytes of the host that sent the most, over the payload.
    pub host: f64,
    /// Datagrams of all hosts to the sender.
    pub feedback: u64,
    /// Largest number of such datagrams in any second since the announcement.
    pub second: usize,
    /// Largest number of such datagrams in any tenth of a second.
    pub peak: usize,
    /// Duration of the session, from the announcement to its end.
    pub took: Duration,
}

impl fmt::Display for UnicastCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hosts,
            data,
            sender,
            host,
            feedback,
            second,
            peak,
            ..
        } = self;

        let loss = self.loss * 100.0;
        let payload = self.payload as f64 / 1e6;
        let took = self.took.as_secs_f64();
        write!(
            f,
            "unicast {hosts:>5} hosts {loss:>4.1} % lost {payload:>5.1} MB {data:>7.3} data "
        )?;
        write!(
            f,
            "{sender:>7.3} sent {host:>7.3} by a host {feedback:>7} said "
        )?;
        write!(f, "{second:>5} in 1 s {peak:>5} in 0.1 s {took:>6.1} s")
    }
}

impl UnicastCost {
    /// Returns the bound that the transfer breaks.
    pub fn broken(&self) -> Option<String> {
        if let Some(broken) = broken_feedback(self.second, self.peak) {
            return Some(broken);
        }

        let Self { sender, host, .. } = self;
        (*sender >= SENDER_BOUND || *host >= HOST_BOUND).then(|| {
            format!(
                "{sender:.3} sent and {host:.3} by a host, less than {SENDER_BOUND} and \
                {HOST_BOUND}"
            )
        })
    }
}

/// Measures a first deploy of about `generations` generations to `hosts` hosts with the loss
/// `loss`, without a rate limit. `None` unless the deploy ends with every host complete.
pub fn measure_unicast(hosts: usize, loss: f64, generations: usize) -> Option<UnicastCost> {
    let setup = NetworkSetup {
        seed: 7,
        hosts,
        link: LinkSetup {
            loss,
            rate: Some((LINE, QUEUE)),
            ..LinkSetup::default()
        },
        unicast: Some(UnicastSetup {
            uplink: UplinkSetup {
                rate: Some((LINE, 256 << 10)),
                drops: false,
            },
            ..UnicastSetup::default()
        }),
        sending: SendingSetup {
            ceiling: None,
            ..SendingSetup::default()
        },
        strangers: true,
        ..NetworkSetup::default()
    };

    let files = (TARGET_BYTES * generations / FILE) as u32;
    let symbol = (setup.sending.datagram - DATA_OVERHEAD) as f64 / setup.sending.datagram as f64;
    let offer = SimOffer::random(7, 1, Intent::Deploy, files, 60_000);
    let payload = offer.bytes();
    let mut network = Network::new(setup, offer);
    let finished = network.run(Duration::from_secs(3600), Duration::ZERO);
    let complete = (1..=hosts)
        .all(|host| network.disk(host).counts.commits == 1 && network.disk(host).is_whole());

    let over = |bytes: f64| bytes / payload as f64;
    let out = |node| {
        let sent = network.sent(node);
        over((sent.data + sent.relayed) as f64 * symbol + sent.control as f64)
    };
    (finished && complete).then(|| UnicastCost {
        hosts,
        loss,
        payload,
        data: over(network.sent(NodeId::SENDER).data as f64 * symbol),
        sender: out(NodeId::SENDER),
        messages: network.log.sent_messages.clone(),
        host: (1..=hosts).map(NodeId::host).map(out).fold(0.0, f64::max),
        feedback: network.feedback().sum(),
        second: network.feedback_peak(Duration::from_secs(1), None),
        peak: network.feedback_peak(Duration::from_millis(100), None),
        took: network.took(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_multicast_has_few_bytes_of_messages_for_each_host() {
        for hosts in [5, 40] {
            let row = measure_unicast(hosts, 0.01, 1).expect("complete");
            let each = row.messages.bytes() / hosts as u64;
            assert!(
                each < 4_000,
                "{each} bytes for each of {row}\n{}",
                row.messages
            );
        }
    }
}
