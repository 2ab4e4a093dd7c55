//! Datagrams from hosts to the sender: counted by kind, and their peak within any window of time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::proto::datagram_size::CONTROL_DATAGRAM;
use crate::units::Moment;
use crate::wire::datagram::CONTROL_OVERHEAD;
use crate::wire::{Datagram, Message};

/// Bytes of a message in one real datagram.
const REAL_PIECE: usize = CONTROL_DATAGRAM - CONTROL_OVERHEAD;

/// Kind of a datagram to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeedbackKind {
    /// Answers to solicits, beacons, farewells.
    Presence,
    /// A stage or the answer to an order, repeated until acknowledged.
    Stage,
    /// A heartbeat.
    Alive,
    /// A request for nodes of the manifest.
    WantNodes,
    /// A request for content.
    WantBlocks,
    /// A report of lost symbols.
    Nack,
    /// Measurements.
    Report,
    /// Drift lists.
    Other,
}

impl FeedbackKind {
    /// All kinds.
    pub const ALL: [FeedbackKind; 8] = [
        FeedbackKind::Presence,
        FeedbackKind::Stage,
        FeedbackKind::Alive,
        FeedbackKind::WantNodes,
        FeedbackKind::WantBlocks,
        FeedbackKind::Nack,
        FeedbackKind::Report,
        FeedbackKind::Other,
    ];

    /// Returns the kind of a datagram in a session with nodes of the manifest as the first `nodes`
    /// ordinals. Later pieces of a message count as wants, because no other message is long.
    pub fn of(datagram: &[u8], nodes: u64) -> Self {
        let Ok(Datagram::Control(_, piece)) = Datagram::parse(datagram) else {
            return FeedbackKind::Other;
        };

        if piece.count > 1 {
            return FeedbackKind::WantBlocks;
        }

        match Message::decode(piece.bytes) {
            Ok(Message::Hello(_) | Message::Solicit(..) | Message::Bye(_)) => {
                FeedbackKind::Presence
            }
            Ok(Message::State(state)) if state.number == 0 => FeedbackKind::Alive,
            Ok(Message::State(_)) => FeedbackKind::Stage,
            Ok(Message::Want(want)) if want.ranges.0.first().is_none_or(|r| r.start < nodes) => {
                FeedbackKind::WantNodes
            }
            Ok(Message::Want(_)) => FeedbackKind::WantBlocks,
            Ok(Message::Nack(_)) => FeedbackKind::Nack,
            Ok(Message::Report(_)) => FeedbackKind::Report,
            _ => FeedbackKind::Other,
        }
    }
}

/// Returns true if a datagram of at most `size` bytes begins one of a real network. Simulated
/// datagrams may be much smaller, while messages have their real size: several simulated pieces
/// make one real datagram.
pub fn is_counted(datagram: &[u8], size: usize) -> bool {
    let Ok(Datagram::Control(_, piece)) = Datagram::parse(datagram) else {
        return true;
    };
    let payload = size.min(CONTROL_DATAGRAM) - CONTROL_OVERHEAD;
    let from = usize::from(piece.index) * payload;

    piece.index == 0 || from / REAL_PIECE != (from - payload) / REAL_PIECE
}

impl fmt::Display for FeedbackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FeedbackKind::Presence => "presence",
            FeedbackKind::Stage => "stage",
            FeedbackKind::Alive => "alive",
            FeedbackKind::WantNodes => "nodes",
            FeedbackKind::WantBlocks => "blocks",
            FeedbackKind::Nack => "nack",
            FeedbackKind::Report => "report",
            FeedbackKind::Other => "other",
        })
    }
}

/// All datagrams to the sender, in order of time.
#[derive(Debug, Default)]
pub struct Feedback {
    datagrams: Vec<(Moment, FeedbackKind)>,
    /// Number of datagrams of each host (from 1).
    by_host: BTreeMap<usize, u64>,
}

impl Feedback {
    /// Records a datagram of `kind` from host `host`.
    pub(super) fn record(&mut self, now: Moment, host: usize, kind: FeedbackKind) {
        self.datagrams.push((now, kind));
        *self.by_host.entry(host).or_default() += 1;
    }

    /// Returns the number of datagrams from a host.
    pub fn of(&self, host: usize) -> u64 {
        self.by_host.get(&host).copied().unwrap_or_default()
    }

    /// Returns the number of datagrams since `from`.
    pub fn count(&self, from: Moment) -> usize {
        self.datagrams.len() - self.datagrams.partition_point(|(at, _)| *at < from)
    }

    /// Returns the largest number of datagrams within `window` since `from`; of one kind, or of
    /// all.
    pub fn peak(&self, from: Moment, window: Duration, kind: Option<FeedbackKind>) -> usize {
        let counted =
            |(at, of): &&(Moment, FeedbackKind)| *at >= from && kind.is_none_or(|kind| kind == *of);
        let times: Vec<Moment> = self
            .datagrams
            .iter()
            .filter(counted)
            .map(|(at, _)| *at)
            .collect();
        let mut first = 0;
        let within = |(last, &at): (usize, &Moment)| {
            while times[first] + window <= at {
                first += 1;
            }
            last + 1 - first
        };

        times.iter().enumerate().map(within).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_fullest_window_wherever_it_begins() {
        let mut feedback = Feedback::default();
        let at = |ms: u64| Moment(1_000_000_000) + Duration::from_millis(ms);
        for ms in [0, 90, 95, 189, 190, 400] {
            feedback.record(
                at(ms),
                1,
                if ms < 100 {
                    FeedbackKind::Nack
                } else {
                    FeedbackKind::Stage
                },
            );
        }

        let peak = |from, kind| feedback.peak(at(from), Duration::from_millis(100), kind);
        assert_eq!(
            (
                peak(0, None),
                peak(95, None),
                peak(0, Some(FeedbackKind::Nack))
            ),
            (3, 3, 3)
        );

        assert_eq!(
            (
                peak(190, None),
                peak(0, Some(FeedbackKind::Stage)),
                feedback.count(at(95))
            ),
            (1, 2, 4)
        );
    }
}
