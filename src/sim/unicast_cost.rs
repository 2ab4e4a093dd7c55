//! Cost of a transfer without multicast, in bytes sent over bytes of payload: by the sender, and by
//! the host that passes on the most.
//!
//! Datagrams have their real size, because messages go to each host and weigh as much as on a real
//! network. Data is counted without headers, as in [`super::goodput`], and messages with theirs.
//! The payloads are small, so that a thousand hosts fit into memory: the bound on the sender counts
//! the messages against a payload of [`LEAST_PAYLOAD`] for each host. The bound on a host holds as
//! it is, once each relay has had several turns: one train that goes to 61 others is a few per cent
//! of 10 MB.

use std::fmt;
use std::time::Duration;

use super::feedback::FeedbackKind;
use super::goodput::{broken_feedback, peaks_of};
use super::node::NodeId;
use super::offer::SimOffer;
use super::sent_messages::SentMessages;
use super::setup::SendingSetup;
use super::unicast::{UnicastSetup, UplinkSetup};
use super::{LinkSetup, Network, NetworkSetup};
use crate::manifest::Intent;
use crate::proto::generation::TARGET_BYTES;
use crate::proto::slot_interval;
use crate::units::Rate;
use crate::wire::DATA_OVERHEAD;

/// Rate of every line, in both directions.
const LINE: Rate = Rate(200_000_000);
/// Queue into a host, in bytes.
const QUEUE: u64 = 1 << 20;
/// Mean bytes of a file.
const FILE: usize = 75_000;
/// Shortest window for counting feedback.
const TENTH: Duration = Duration::from_millis(100);
/// Bound on the sender's bytes, over the payload.
const SENDER_BOUND: f64 = 1.1;
/// Payload for each host from which this bound holds, in bytes: messages for a host weigh more in a
/// smaller one.
const LEAST_PAYLOAD: u64 = 256 << 10;
/// Bound on the bytes of any host, over the payload.
const HOST_BOUND: f64 = 1.15;

/// Bound on the duration of the payload, over that on a line.
const TIME_BOUND: f64 = 1.5;
/// Times that all hosts answer in their slots, one after the other.
const ANSWERS: u32 = 8;
/// Duration of a session of few hosts without any payload.
const FIXED_TIME: Duration = Duration::from_millis(700);

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
    /// Same as `peak` by kind, in the order of [`FeedbackKind::ALL`].
    pub kinds: [usize; FeedbackKind::ALL.len()],
    /// Duration of the session over that of the payload on a line.
    pub slowness: f64,
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
            slowness,
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
        write!(
            f,
            "{second:>5} in 1 s {peak:>5} in 0.1 s {took:>6.1} s {slowness:>5.2} of the line"
        )
    }
}

impl UnicastCost {
    /// Describes the messages of the sender, and the peak of each kind of feedback in any tenth of
    /// a second.
    pub fn details(&self) -> String {
        format!("{}; {}", self.messages, peaks_of(&self.kinds))
    }

    /// Returns the bound that the transfer breaks.
    pub fn broken(&self) -> Option<String> {
        if let Some(broken) = broken_feedback(self.second, self.peak) {
            return Some(broken);
        }

        let sender = self.sender_bounded();
        let host = self.host;
        if sender >= SENDER_BOUND || host >= HOST_BOUND {
            return Some(format!(
                "{sender:.3} sent and {host:.3} by a host, less than {SENDER_BOUND} and \
                {HOST_BOUND}"
            ));
        }

        let most = self.longest();
        (self.took >= most).then(|| {
            format!(
                "{:.1} s, less than {:.1}",
                self.took.as_secs_f64(),
                most.as_secs_f64()
            )
        })
    }

    /// The sender's bytes over the payload, with as many messages in one of at least
    /// [`LEAST_PAYLOAD`] for each host.
    fn sender_bounded(&self) -> f64 {
        let least = self.payload.max(LEAST_PAYLOAD * self.hosts as u64);
        self.data + (self.sender - self.data) * self.payload as f64 / least as f64
    }

    /// Bound on the duration: that of the payload, and of the answers before and after it.
    fn longest(&self) -> Duration {
        let answers = slot_interval(self.hosts as u32) * ANSWERS;
        LINE.time_for(self.payload).mul_f64(TIME_BOUND) + answers + FIXED_TIME
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
        peak: network.feedback_peak(TENTH, None),
        kinds: FeedbackKind::ALL.map(|kind| network.feedback_peak(TENTH, Some(kind))),
        slowness: network.took().as_secs_f64() / LINE.time_for(payload).as_secs_f64(),
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
            println!("{row}\n{}", row.messages);
            let each = row.messages.bytes() / hosts as u64;
            assert!(
                each < 4_000,
                "{each} bytes for each of {row}\n{}",
                row.messages
            );
        }
    }

    #[test]
    fn a_hundred_hosts_pass_a_payload_on_within_the_bounds() {
        let row = measure_unicast(100, 0.01, 2).expect("complete");
        println!("{row}\n{}", row.messages);
        assert_eq!(row.broken(), None, "{row}\n{}", row.details());
    }
}
