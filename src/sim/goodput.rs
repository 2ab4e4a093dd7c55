//! Cost of a transfer by hosts and loss, in symbols sent over symbols of payload, and the volume of
//! feedback.
//!
//! Symbols are small here, so that ten thousand hosts fit into memory; generations have as many
//! symbols as with the datagrams of an Ethernet. The figures exclude the overhead of headers (44
//! bytes a datagram, 3 % on an Ethernet).

use std::fmt;
use std::time::Duration;

use super::feedback::FeedbackKind;
use super::offer::SimOffer;
use super::setup::SendingSetup;
use super::{LinkSetup, Network, NetworkSetup};
use crate::manifest::Intent;
use crate::proto::{FEEDBACK_A_SECOND, PEAK};
use crate::units::Rate;
use crate::wire::DATA_OVERHEAD;

/// Bytes of a symbol.
const SYMBOL: usize = 64;
/// Symbols of a full generation: [`crate::proto::generation::TARGET_BYTES`] in symbols of 1428
/// bytes.
const GENERATION: usize = 2203;
/// Number of generations in a transfer, enough to see the mean.
const GENERATIONS: usize = 3;
/// Bound on the cost of a large fleet.
const COST_BOUND: CostBound = CostBound {
    hosts: 10_000,
    loss: 0.01,
    cost: 1.06,
};
/// Shortest window for counting feedback.
const TENTH: Duration = Duration::from_millis(100);

/// Bound on the cost from a number of hosts on, up to a loss.
struct CostBound {
    hosts: usize,
    loss: f64,
    /// Symbols sent over symbols of payload.
    cost: f64,
}

/// One transfer.
#[derive(Debug, Clone, Copy)]
pub struct TransferCost {
    /// Number of hosts.
    pub hosts: usize,
    /// Share of datagrams that each host loses, in both directions.
    pub loss: f64,
    /// Symbols sent over symbols of payload.
    pub cost: f64,
    /// Datagrams of all hosts to the sender.
    pub feedback: u64,
    /// Largest number of such datagrams in any second since the announcement.
    pub second: usize,
    /// Largest number of such datagrams in any tenth of a second.
    pub peak: usize,
    /// Same as `peak` by kind, in the order of [`FeedbackKind::ALL`].
    pub kinds: [usize; FeedbackKind::ALL.len()],
    /// Duration of the session, from the announcement to its end.
    pub took: Duration,
}

impl fmt::Display for TransferCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hosts,
            loss,
            cost,
            feedback,
            second,
            peak,
            took,
            ..
        } = self;

        let loss = loss * 100.0;
        let took = took.as_secs_f64();
        write!(
            f,
            "{hosts:>6} hosts {loss:>4.1} % lost {cost:>7.3} sent {feedback:>7} said "
        )?;
        write!(f, "{second:>5} in 1 s {peak:>5} in 0.1 s {took:>6.1} s")
    }
}

impl TransferCost {
    /// Describes the peak of each kind in any tenth of a second.
    pub fn peaks(&self) -> String {
        peaks_of(&self.kinds)
    }

    /// Returns the bound that the transfer breaks.
    pub fn broken(&self) -> Option<String> {
        if let Some(broken) = broken_feedback(self.second, self.peak) {
            return Some(broken);
        }

        let bounded = self.hosts >= COST_BOUND.hosts && self.loss <= COST_BOUND.loss;
        (bounded && self.cost >= COST_BOUND.cost)
            .then(|| format!("{:.3} sent, less than {}", self.cost, COST_BOUND.cost))
    }
}

/// Describes the number of datagrams of each kind, in the order of [`FeedbackKind::ALL`].
pub(super) fn peaks_of(kinds: &[usize]) -> String {
    let said = FeedbackKind::ALL
        .iter()
        .zip(kinds)
        .filter(|(_, count)| **count > 0);
    said.map(|(kind, count)| format!("{kind} {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the bound on feedback that is broken by `second` datagrams in a second and `peak` in a
/// tenth of one.
pub(super) fn broken_feedback(second: usize, peak: usize) -> Option<String> {
    let seconds = FEEDBACK_A_SECOND as usize;
    let tenths = (FEEDBACK_A_SECOND * PEAK / 10) as usize;
    (second > seconds || peak > tenths).then(|| {
        format!("{second} said in 1 s and {peak} in 0.1 s, at most {seconds} and {tenths} may be")
    })
}

/// Measures a first deploy of three generations to `hosts` hosts with the loss `loss`, on links of
/// 100 Mbit/s worth of real datagrams. `None` unless the deploy ends with every host complete.
pub fn measure(hosts: usize, loss: f64) -> Option<TransferCost> {
    measure_of(hosts, loss, GENERATIONS)
}

fn measure_of(hosts: usize, loss: f64, generations: usize) -> Option<TransferCost> {
    let target = GENERATION * SYMBOL;
    let setup = NetworkSetup {
        seed: 7,
        hosts,
        link: LinkSetup {
            loss,
            ..LinkSetup::default()
        },
        sending: SendingSetup {
            // A symbol stands for 1428 bytes.
            ceiling: Some(Rate(100_000_000 / 13)),
            datagram: SYMBOL + DATA_OVERHEAD,
            generation: target,
            ..SendingSetup::default()
        },
        strangers: true,
        ..NetworkSetup::default()
    };

    // Files of one to four blocks of up to this size: 5/4 of it in the mean.
    let files = (target * generations / 5_000) as u32;
    let offer = SimOffer::random(7, 1, Intent::Deploy, files, 4_000);
    let bytes = offer.bytes();
    let mut network = Network::new(setup, offer);
    let finished = network.run(Duration::from_secs(3600), Duration::ZERO);
    let complete = (1..=hosts)
        .all(|host| network.disk(host).counts.commits == 1 && network.disk(host).is_whole());

    let sent = network.sender().stats().datagrams * SYMBOL as u64;
    (finished && complete).then(|| TransferCost {
        hosts,
        loss,
        cost: sent as f64 / bytes as f64,
        feedback: network.feedback().sum(),
        second: network.feedback_peak(Duration::from_secs(1), None),
        peak: network.feedback_peak(TENTH, None),
        kinds: FeedbackKind::ALL.map(|kind| network.feedback_peak(TENTH, Some(kind))),
        took: network.took(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_transfer_is_as_it_was() {
        let grid = [
            (3, 0.0),
            (3, 0.01),
            (3, 0.05),
            (10, 0.01),
            (10, 0.05),
            (100, 0.01),
        ];
        let rows = grid.map(|(hosts, loss)| {
            measure(hosts, loss)
                .expect("every host is complete")
                .to_string()
        });
        insta::assert_snapshot!(rows.join("\n"));
    }

    #[test]
    fn what_hosts_say_together_is_bounded_whatever_the_fleet() {
        for hosts in [10, 100, 1000] {
            let row = measure_of(hosts, 0.01, 1).expect("every host is complete");
            assert_eq!(row.broken(), None, "{row}: {}", row.peaks());
        }
    }
}
