//! Stream of a session: wanted ordinals become generations, and generations become sends.
//!
//! A block is sent once for all hosts that want its content. The payload of a generation is kept
//! for repair while among the newest; a loss reported later is repaired by sending the blocks in a
//! new generation.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::generation::{OutgoingGeneration, SentDatagrams, SentSymbols, Stamp};
use crate::id::{Generation, InstanceId, SessionId};
use crate::proto::RangeSet;
use crate::proto::generation::{KEPT_GENERATIONS, grid_for};
use crate::units::Moment;
use crate::wire::DATA_OVERHEAD;
use crate::wire::message::{Missing, WantList};

/// Generations packed ahead of the one being sent.
const PACKED_AHEAD: usize = 3;
/// Bound on generations with known ordinals, whether or not the payload is kept.
const MAX_REMEMBERED: usize = 4096;
/// Largest number of datagrams in one send: the best size for the kernel, see
/// [`crate::net::MAX_SEGMENTS`].
const MAX_TRAIN: usize = 32;
/// Largest send, in bytes.
const MAX_SEND: usize = 65_000;

/// Stream of symbols of one session.
#[derive(Debug)]
pub struct SymbolStream {
    session: SessionId,
    symbol: u16,
    /// Wanted ordinals that are in no generation yet.
    pending: RangeSet,
    /// Wanted ordinals that cannot be read.
    absent: RangeSet,
    /// Generations kept for repair, in order.
    generations: VecDeque<OutgoingGeneration>,
    /// Generations before those.
    past: VecDeque<PastGeneration>,
    next: u32,
    packing: bool,
    /// Set when the next send belongs to unsent symbols.
    fresh_turn: bool,
    stopped: bool,
    counter: u64,
    stats: SendStats,
}

/// A generation without its payload; thousands are remembered.
#[derive(Debug)]
struct PastGeneration {
    /// Its ordinals. Taken out when a host reports a loss; they then go into a new generation.
    ordinals: Box<[Range<u64>]>,
    /// Data counter of its last datagram.
    latest: u64,
}

/// Traffic of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendStats {
    /// Bytes of data datagrams.
    pub bytes: u64,
    /// Number of data datagrams.
    pub datagrams: u64,
    /// Number of repairs among them.
    pub repaired: u64,
}

impl SymbolStream {
    /// Creates a stream with symbols of `symbol` bytes.
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
            fresh_turn: false,
            stopped: false,
            counter: 0,
            stats: SendStats::default(),
        }
    }

    /// Traffic so far.
    pub fn stats(&self) -> SendStats {
        self.stats
    }

    /// Counter of the last data datagram.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Bytes of a full data datagram.
    pub fn segment(&self) -> usize {
        usize::from(self.symbol) + DATA_OVERHEAD
    }

    /// Largest number of datagrams in one send.
    pub fn train(&self) -> usize {
        (MAX_SEND / self.segment()).clamp(1, MAX_TRAIN)
    }

    /// Wanted ordinals that are in no generation yet.
    pub fn pending(&self) -> &RangeSet {
        &self.pending
    }

    /// Returns the generation up to which all were sent in full.
    pub fn sent(&self) -> Generation {
        let open = self.generations.iter().find(|g| g.is_fresh());
        Generation(open.map_or(self.next, |g| g.number()))
    }

    /// Merges a host's want, limited to ordinals below `all`. Content sent since the host received
    /// counter `seen` is on its way and left out.
    pub fn on_want(&mut self, want: &WantList, seen: u64, all: u64) {
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
            .take_while(|g| !g.is_sent_by(seen))
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

    /// Marks the pending ordinals as unreadable.
    pub fn mark_unreadable(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.absent.extend(&pending);
    }

    /// Returns whether the stream is stopped for good.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Stops the stream: the session is aborted, or the source is unreadable.
    pub fn stop(&mut self) {
        self.pending = RangeSet::default();
        self.generations.clear();
        self.past.clear();
        self.stopped = true;
    }

    /// Returns the next generation to pack and the ordinals to choose from, if there is room.
    pub fn next_to_pack(&mut self) -> Option<(Generation, RangeSet)> {
        let ahead = self.generations.iter().filter(|g| g.is_fresh()).count();
        if self.stopped || self.packing || self.pending.is_empty() || ahead >= PACKED_AHEAD {
            return None;
        }
        self.packing = true;
        Some((Generation(self.next), self.pending.clone()))
    }

    /// Takes the packed generation with its `ordinals` and `payload`.
    pub fn on_packed(&mut self, ordinals: RangeSet, payload: Arc<Vec<u8>>) {
        self.packing = false;
        self.pending.subtract(&ordinals);
        let Some(grid) = grid_for(payload.len(), self.symbol).filter(|_| !self.stopped) else {
            return;
        };

        self.generations
            .push_back(OutgoingGeneration::new(self.next, grid, ordinals, payload));
        self.next += 1;

        while self.generations.len() > KEPT_GENERATIONS as usize + PACKED_AHEAD {
            let Some(old) = self.generations.pop_front() else {
                break;
            };
            self.past.push_back(PastGeneration {
                ordinals: old.ordinals().iter().collect(),
                latest: old.latest(),
            });
        }

        if self.past.len() + self.generations.len() > MAX_REMEMBERED {
            self.past.pop_front();
        }
    }

    /// Takes a host's losses in one generation, with `seen` the last counter received. The repair
    /// is decided at `due`, to gather the losses of others. Set `few` if the reporting hosts are
    /// all that matter.
    pub fn on_missing(&mut self, missing: &Missing, seen: u64, due: Moment, few: bool) {
        let Some(first) = self.generations.front().map(OutgoingGeneration::number) else {
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
            generation.on_missing(missing, seen, due, few);
        }
    }

    /// Last transmission of each symbol of a generation, while it is kept for repair.
    pub fn sent_symbols(&self, number: Generation) -> Option<SentSymbols<'_>> {
        let first = self.generations.front()?.number();
        let at = number.0.checked_sub(first)? as usize;
        self.generations
            .get(at)
            .map(OutgoingGeneration::sent_symbols)
    }

    /// Time of the next decision on a repair.
    pub fn repair_due(&self) -> Option<Moment> {
        self.generations
            .iter()
            .filter_map(OutgoingGeneration::due)
            .min()
    }

    /// Decides on due repairs.
    pub fn decide(&mut self, now: Moment) {
        self.generations.iter_mut().for_each(|g| g.decide(now));
    }

    /// Returns whether symbols are ready to be sent.
    pub fn has_data(&self) -> bool {
        self.generations
            .iter()
            .any(|g| g.is_fresh() || g.has_repairs())
    }

    /// Returns whether symbols of a first pass are left.
    pub fn is_fresh(&self) -> bool {
        self.generations.iter().any(OutgoingGeneration::is_fresh)
    }

    /// Returns whether repairs are ready to be sent.
    pub fn has_repairs(&self) -> bool {
        self.generations.iter().any(OutgoingGeneration::has_repairs)
    }

    /// Bytes of the largest generation in transit.
    pub fn largest_payload(&self) -> usize {
        let payload = |generation: &OutgoingGeneration| generation.payload_bytes();
        self.generations.iter().map(payload).max().unwrap_or(0)
    }

    /// Writes one send of at most `most` datagrams into `out`, each followed by `room` free bytes.
    /// Repairs come first, oldest generation first. If repairs exceed half of all datagrams, some
    /// host may be requesting them without a loss, so unsent symbols get every other send.
    pub fn write(
        &mut self,
        source: InstanceId,
        sent: u32,
        most: usize,
        room: usize,
        relayed: bool,
        out: &mut Vec<u8>,
    ) -> Option<SentDatagrams> {
        out.clear();
        self.fresh_turn = !self.fresh_turn;
        let fresh_first = self.fresh_turn && self.stats.repaired * 2 > self.stats.datagrams;
        let repair = self
            .generations
            .iter()
            .position(OutgoingGeneration::has_repairs);
        let fresh = || {
            self.generations
                .iter()
                .position(OutgoingGeneration::is_fresh)
        };
        let at = if fresh_first {
            fresh().or(repair)
        } else {
            repair.or_else(fresh)
        };

        let at = at?;
        let stamp = Stamp {
            session: self.session,
            source,
            sent,
            room,
            relayed,
        };

        let most = most.clamp(1, self.train());
        let written = self.generations[at].write(stamp, most, fresh_first, &mut self.counter, out);
        self.stats.datagrams += written.datagrams;
        self.stats.repaired += written.repairs;
        self.stats.bytes += out.len() as u64;

        (written.datagrams > 0).then_some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Ranges;

    #[test]
    fn whoever_asks_for_repairs_without_end_does_not_hold_up_what_was_not_sent() {
        const SYMBOLS: u64 = 640;
        let mut stream = SymbolStream::new(SessionId(1), 1000);
        let mut out = Vec::new();
        for n in 0..2u64 {
            stream.on_packed(
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
            stream.on_missing(&lie, stream.counter(), Moment(1), true);
            stream.decide(Moment(1));
            let written = stream.write(InstanceId(1), 0, 32, 0, false, &mut out);
            assert!(written.is_some() && stream.has_repairs());
            assert!(
                stream.stats().datagrams < SYMBOLS * 3,
                "{:?}",
                stream.stats()
            );
        }

        assert!(
            stream.stats().repaired > SYMBOLS / 2,
            "the requested repairs were sent as well: {:?}",
            stream.stats()
        );
    }
}
