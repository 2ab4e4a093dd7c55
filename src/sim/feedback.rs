//! What hosts say to the sender: counted by kind, and how much of it falls within any stretch of time.

use std::fmt;
use std::time::Duration;

use crate::proto::datagram_size::CONTROL_DATAGRAM;
use crate::units::Moment;
use crate::wire::datagram::CONTROL_OVERHEAD;
use crate::wire::{Datagram, Message};

/// Bytes of a message that one real datagram takes.
const REAL_PIECE: usize = CONTROL_DATAGRAM - CONTROL_OVERHEAD;

/// Kinds of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Answers to solicits, beacons, farewells.
    Presence,
    /// A stage, the answer to an order among them: repeated until acknowledged.
    Stage,
    /// A sign of life.
    Alive,
    /// What a host lacks of the manifest.
    WantNodes,
    /// What it lacks of the content.
    WantBlocks,
    /// A complaint about symbols.
    Nack,
    /// Measurements.
    Report,
    /// Drift lists.
    Other,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 8] = [
        Kind::Presence,
        Kind::Stage,
        Kind::Alive,
        Kind::WantNodes,
        Kind::WantBlocks,
        Kind::Nack,
        Kind::Report,
        Kind::Other,
    ];

    /// The kind of a datagram in a session whose first `nodes` ordinals are nodes of the manifest. The later pieces of
    /// a message count as wants: no other message is long.
    pub fn of(datagram: &[u8], nodes: u64) -> Self {
        let Ok(Datagram::Control(_, piece)) = Datagram::parse(datagram) else {
            return Kind::Other;
        };

        if piece.count > 1 {
            return Kind::WantBlocks;
        }

        match Message::decode(piece.bytes) {
            Ok(Message::Hello(_) | Message::Solicit(..) | Message::Bye(_)) => Kind::Presence,
            Ok(Message::State(state)) if state.number == 0 => Kind::Alive,
            Ok(Message::State(_)) => Kind::Stage,
            Ok(Message::Want(want)) if want.ranges.0.first().is_none_or(|r| r.start < nodes) => {
                Kind::WantNodes
            }
            Ok(Message::Want(_)) => Kind::WantBlocks,
            Ok(Message::Nack(_)) => Kind::Nack,
            Ok(Message::Report(_)) => Kind::Report,
            _ => Kind::Other,
        }
    }
}

/// Whether a datagram of at most `size` bytes begins one of a real network. Simulated datagrams may be much smaller, but
/// messages are of their real size: there many pieces are one datagram.
pub fn is_counted(datagram: &[u8], size: usize) -> bool {
    let Ok(Datagram::Control(_, piece)) = Datagram::parse(datagram) else {
        return true;
    };
    let payload = size.min(CONTROL_DATAGRAM) - CONTROL_OVERHEAD;
    let from = usize::from(piece.index) * payload;

    piece.index == 0 || from / REAL_PIECE != (from - payload) / REAL_PIECE
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Presence => "presence",
            Kind::Stage => "stage",
            Kind::Alive => "alive",
            Kind::WantNodes => "nodes",
            Kind::WantBlocks => "blocks",
            Kind::Nack => "nack",
            Kind::Report => "report",
            Kind::Other => "other",
        })
    }
}

/// Every datagram that was sent to the sender, in order of time.
#[derive(Debug, Default)]
pub struct Feedback(Vec<(Moment, Kind)>);

impl Feedback {
    /// A datagram of `kind` is sent.
    pub(super) fn said(&mut self, now: Moment, kind: Kind) {
        self.0.push((now, kind));
    }

    /// How many there were from `from` on.
    pub fn count(&self, from: Moment) -> usize {
        self.0.len() - self.0.partition_point(|(at, _)| *at < from)
    }

    /// The most within `window`, from `from` on; of one kind, or of all.
    pub fn peak(&self, from: Moment, window: Duration, kind: Option<Kind>) -> usize {
        let counted =
            |(at, of): &&(Moment, Kind)| *at >= from && kind.is_none_or(|kind| kind == *of);
        let times: Vec<Moment> = self.0.iter().filter(counted).map(|(at, _)| *at).collect();
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
            feedback.said(at(ms), if ms < 100 { Kind::Nack } else { Kind::Stage });
        }

        let peak = |from, kind| feedback.peak(at(from), Duration::from_millis(100), kind);
        assert_eq!(
            (peak(0, None), peak(95, None), peak(0, Some(Kind::Nack))),
            (3, 3, 3)
        );

        assert_eq!(
            (
                peak(190, None),
                peak(0, Some(Kind::Stage)),
                feedback.count(at(95))
            ),
            (1, 2, 4)
        );
    }
}
