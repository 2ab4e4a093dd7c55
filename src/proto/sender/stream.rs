//! What is sent and sent again: wanted ordinals into generations, generations into sends.
//!
//! A block is sent once for all hosts that want it. A generation's payload is kept for repair while it is among the
//! newest; a loss reported later is mended by sending the blocks in a new generation.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::outgoing::{Outgoing, Stamp};
use crate::id::{Generation, InstanceId, SessionId};
use crate::proto::RangeSet;
use crate::proto::generation::{KEPT, grid_for};
use crate::units::Moment;
use crate::wire::DATA_OVERHEAD;
use crate::wire::message::{Missing, Want};

/// Generations packed ahead of the one that is being sent.
const AHEAD: usize = 3;
/// Generations whose ordinals are remembered beyond their payload.
const REMEMBERED: usize = 4096;
/// The most datagrams of one send: what the kernel carries best as one, see [`crate::net::MAX_SEGMENTS`].
const MAX_TRAIN: usize = 32;
/// The most bytes of one send.
const MAX_SEND: usize = 65_000;

/// The stream of one session.
#[derive(Debug)]
pub struct Stream {
    session: SessionId,
    symbol: u16,
    /// Wanted, and not yet in a generation.
    pending: RangeSet,
    /// What was asked for and is not to be had.
    absent: RangeSet,
    /// The generations that are kept for repair, in order.
    generations: VecDeque<Outgoing>,
    /// Those before them.
    past: VecDeque<Past>,
    next: u32,
    packing: bool,
    /// Whether it is the turn of what was not sent yet.
    turn: bool,
    stopped: bool,
    counter: u64,
    stats: Stats,
}

/// A generation that is not kept any more: thousands are remembered.
#[derive(Debug)]
struct Past {
    /// What was in it, until somebody misses it: then it goes into a new one.
    ordinals: Box<[Range<u64>]>,
    /// The data counter of what was sent last.
    latest: u64,
}

/// What went out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of data datagrams.
    pub bytes: u64,
    /// Data datagrams.
    pub datagrams: u64,
    /// Of them, repairs.
    pub repaired: u64,
}

impl Stream {
    /// A stream whose symbols have `symbol` bytes.
    pub fn new(session: SessionId, symbol: u16) -> Self {
        Self {
            session,
            symbol,
            pending: RangeSet::default(),
            absent: RangeSet::default(),
            generations: VecDeque::new(),
            past: VecDeque::new(),
            next: 0,
            packing: false,
            turn: false,
            stopped: false,
            counter: 0,
            stats: Stats::default(),
        }
    }

    /// What went out so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The counter of the last data datagram.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Bytes of a full data datagram.
    pub fn segment(&self) -> usize {
        usize::from(self.symbol) + DATA_OVERHEAD
    }

    /// The most datagrams of one send.
    pub fn train(&self) -> usize {
        (MAX_SEND / self.segment()).clamp(1, MAX_TRAIN)
    }

    /// What is wanted and in no generation yet.
    pub fn pending(&self) -> &RangeSet {
        &self.pending
    }

    /// All generations below this were sent in full.
    pub fn sent(&self) -> Generation {
        let open = self.generations.iter().find(|g| g.is_fresh());
        Generation(open.map_or(self.next, |g| g.number()))
    }

    /// Merges what a host asks for, of `all` that there is; what was sent since it saw the counter `seen` comes to it
    /// anyway.
    pub fn want(&mut self, want: &Want, seen: u64, all: u64) {
        if self.stopped {
            return;
        }

        let mut wanted: RangeSet = want
            .ranges
            .0
            .iter()
            .map(|r| r.start.min(all)..r.end.min(all))
            .collect();

        let mut later = 0;
        for generation in self
            .generations
            .iter()
            .rev()
            .take_while(|g| !g.was_sent_by(seen))
        {
            wanted.subtract(generation.ordinals());
            later += 1;
        }

        let past = self.past.iter().rev().take_while(|p| p.latest > seen);
        for range in past
            .take_while(|_| later == self.generations.len())
            .flat_map(|p| &p.ordinals)
        {
            wanted.remove(range.clone());
        }

        wanted.subtract(&self.absent);
        self.pending.extend(&wanted);
    }

    /// What is wanted and in no generation yet is not to be had here.
    pub fn leave_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.absent.extend(&pending);
    }

    /// Sends nothing more: the session is aborted, or its source cannot be read.
    pub fn stop(&mut self) {
        self.pending = RangeSet::default();
        self.generations.clear();
        self.past.clear();
        self.stopped = true;
    }

    /// What is to be packed next, when there is room: the number of the generation and the ordinals to choose from.
    pub fn to_pack(&mut self) -> Option<(Generation, RangeSet)> {
        let ahead = self.generations.iter().filter(|g| g.is_fresh()).count();
        if self.stopped || self.packing || self.pending.is_empty() || ahead >= AHEAD {
            return None;
        }
        self.packing = true;
        Some((Generation(self.next), self.pending.clone()))
    }

    /// The generation is packed: `ordinals` are in `payload`.
    pub fn packed(&mut self, ordinals: RangeSet, payload: Arc<Vec<u8>>) {
        self.packing = false;
        self.pending.subtract(&ordinals);
        let Some(grid) = grid_for(payload.len(), self.symbol).filter(|_| !self.stopped) else {
            return;
        };

        self.generations
            .push_back(Outgoing::new(self.next, grid, ordinals, payload));
        self.next += 1;

        while self.generations.len() > KEPT as usize + AHEAD {
            let Some(old) = self.generations.pop_front() else {
                break;
            };
            self.past.push_back(Past {
                ordinals: old.ordinals().iter().collect(),
                latest: old.latest(),
            });
        }

        if self.past.len() + self.generations.len() > REMEMBERED {
            self.past.pop_front();
        }
    }

    /// Merges what a host misses of one generation; `seen` is the last counter that it has seen. What is done about it
    /// is decided at `due`, when others have had time to speak; `few` says that those who speak are all who matter.
    pub fn missing(&mut self, missing: &Missing, seen: u64, due: Moment, few: bool) {
        let Some(first) = self.generations.front().map(Outgoing::number) else {
            return;
        };

        let number = missing.generation.0;
        if let Some(before) = first.checked_sub(number).filter(|before| *before > 0) {
            let at = self.past.len().checked_sub(before as usize);
            let Some(past) = at.and_then(|at| self.past.get_mut(at)) else {
                return;
            };
            std::mem::take(&mut past.ordinals)
                .into_iter()
                .for_each(|range| self.pending.insert(range));
        } else if let Some(generation) = self.generations.get_mut((number - first) as usize) {
            generation.missing(missing, seen, due, few);
        }
    }

    /// When something is to be decided that hosts miss.
    pub fn repair_due(&self) -> Option<Moment> {
        self.generations.iter().filter_map(Outgoing::due).min()
    }

    /// Decides what is due.
    pub fn decide(&mut self, now: Moment) {
        self.generations.iter_mut().for_each(|g| g.decide(now));
    }

    /// Whether symbols are ready to be sent.
    pub fn has_data(&self) -> bool {
        self.generations
            .iter()
            .any(|g| g.is_fresh() || g.has_repairs())
    }

    /// Whether symbols of a first pass are left.
    pub fn is_fresh(&self) -> bool {
        self.generations.iter().any(Outgoing::is_fresh)
    }

    /// Whether repairs are ready to be sent.
    pub fn has_repairs(&self) -> bool {
        self.generations.iter().any(Outgoing::has_repairs)
    }

    /// Writes one send of at most `most` datagrams into `out`, each with `room` free bytes behind it: repairs first,
    /// oldest generation first. When more than half of all that was sent are repairs, somebody may ask for them who
    /// misses nothing: then what was not sent at all has every other turn.
    pub fn write(
        &mut self,
        source: InstanceId,
        sent: u32,
        most: usize,
        room: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        self.turn = !self.turn;
        let fresh_first = self.turn && self.stats.repaired * 2 > self.stats.datagrams;
        let repair = self.generations.iter().position(Outgoing::has_repairs);
        let fresh = || self.generations.iter().position(Outgoing::is_fresh);
        let at = if fresh_first {
            fresh().or(repair)
        } else {
            repair.or_else(fresh)
        };

        let Some(at) = at else { return false };
        let stamp = Stamp {
            session: self.session,
            source,
            sent,
            room,
        };

        let most = most.clamp(1, self.train());
        let (written, repaired) =
            self.generations[at].write(stamp, most, fresh_first, &mut self.counter, out);
        self.stats.datagrams += written;
        self.stats.repaired += repaired;
        self.stats.bytes += out.len() as u64;

        written > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Ranges;

    #[test]
    fn whoever_asks_for_repairs_without_end_does_not_hold_up_what_was_not_sent() {
        const SYMBOLS: u64 = 640;
        let (mut stream, mut out) = (Stream::new(SessionId(1), 1000), Vec::new());
        for n in 0..2u64 {
            stream.packed(
                [n * 10..n * 10 + 10].into_iter().collect(),
                Arc::new(vec![n as u8; 500 * SYMBOLS as usize]),
            );
        }

        while stream.is_fresh() {
            let lie = Missing {
                generation: Generation(0),
                need: vec![u32::MAX; 64],
                symbols: Ranges(Vec::new()),
            };
            stream.missing(&lie, stream.counter(), Moment(1), true);
            stream.decide(Moment(1));
            assert!(stream.write(InstanceId(1), 0, 32, 0, &mut out) && stream.has_repairs());
            assert!(
                stream.stats().datagrams < SYMBOLS * 3,
                "{:?}",
                stream.stats()
            );
        }

        assert!(
            stream.stats().repaired > SYMBOLS / 2,
            "what was asked for was sent as well: {:?}",
            stream.stats()
        );
    }
}
