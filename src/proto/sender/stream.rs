//! What is sent and sent again: wanted ordinals into generations, generations into rows, losses into repairs.
//!
//! A block is sent once for all hosts that want it. A generation's payload is kept for repair while it is among the
//! newest; a loss reported later is mended by sending the blocks in a new generation.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::{Generation, SessionId};
use crate::proto::RangeSet;
use crate::proto::generation::{Geometry, MAX_COLUMNS};
use crate::wire::datagram::{Front, write_symbol};
use crate::wire::message::{Missing, Want};
use crate::wire::{DATA_OVERHEAD, SymbolHeader};

/// Generations whose payload is kept for repair.
const KEPT: usize = 16;
/// Generations packed ahead of the one that is being sent.
const AHEAD: usize = 3;
/// Generations whose ordinals are remembered beyond their payload.
const REMEMBERED: usize = 4096;
/// The most bytes of one send.
const MAX_SEND: usize = 65_000;

#[derive(Debug)]
struct Outgoing {
    number: u32,
    geometry: Geometry,
    /// Let go when the generation is no longer kept.
    payload: Option<Arc<[u8]>>,
    ordinals: RangeSet,
    /// The next symbol of the first pass.
    next: u32,
    /// The data counter at which each symbol was last sent; 0 is never.
    sent_at: Vec<u64>,
    repair: RangeSet,
}

/// The stream of one session.
#[derive(Debug)]
pub struct Stream {
    session: SessionId,
    symbol: u16,
    columns: u8,
    /// Wanted, and not yet in a generation.
    pending: RangeSet,
    /// Generations in order; those from `fresh` on have symbols of their first pass left.
    generations: VecDeque<Outgoing>,
    next: u32,
    packing: bool,
    stopped: bool,
    counter: u64,
    stats: Stats,
}

/// What went out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of data datagrams.
    pub bytes: u64,
    /// Data datagrams.
    pub datagrams: u64,
    /// Of them, sent again.
    pub repaired: u64,
}

impl Stream {
    /// A stream whose symbols have `symbol` bytes.
    pub fn new(session: SessionId, symbol: u16) -> Self {
        let columns = (MAX_SEND / (usize::from(symbol) + DATA_OVERHEAD)).clamp(1, usize::from(MAX_COLUMNS)) as u8;
        Self {
            session,
            symbol,
            columns,
            pending: RangeSet::default(),
            generations: VecDeque::new(),
            next: 0,
            packing: false,
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

    /// What is wanted and in no generation yet.
    pub fn pending(&self) -> &RangeSet {
        &self.pending
    }

    /// All generations below this were sent in full.
    pub fn sent(&self) -> Generation {
        let open = self.generations.iter().find(|g| g.next < g.geometry.symbols());
        Generation(open.map_or(self.next, |g| g.number))
    }

    /// Whether there is nothing to send, pack or wait for.
    pub fn is_idle(&self) -> bool {
        !self.packing && self.pending.is_empty() && !self.has_data()
    }

    /// Merges what a host asks for; what was sent since it listens comes to it anyway.
    pub fn want(&mut self, want: &Want, all: u64) {
        if self.stopped {
            return;
        }
        let mut wanted: RangeSet = want.ranges.0.iter().map(|r| r.start..r.end.min(all)).collect();
        for generation in self.generations.iter().rev() {
            let last = generation.sent_at.iter().copied().max().unwrap_or(0);
            let fresh = generation.next < generation.geometry.symbols();
            if !fresh && last <= want.seen {
                break;
            }
            wanted.subtract(&generation.ordinals);
        }
        self.pending.extend(&wanted);
    }

    /// Sends nothing more: the session is aborted, or its source cannot be read.
    pub fn stop(&mut self) {
        self.pending = RangeSet::default();
        self.generations.clear();
        self.stopped = true;
    }

    /// What is to be packed next, when there is room: the number of the generation and the ordinals to choose from.
    pub fn to_pack(&mut self) -> Option<(Generation, RangeSet)> {
        let ahead = self.generations.iter().filter(|g| g.next < g.geometry.symbols()).count();
        if self.stopped || self.packing || self.pending.is_empty() || ahead >= AHEAD {
            return None;
        }
        self.packing = true;
        Some((Generation(self.next), self.pending.clone()))
    }

    /// The generation is packed: `ordinals` are in `payload`.
    pub fn packed(&mut self, ordinals: RangeSet, payload: Arc<[u8]>) {
        self.packing = false;
        self.pending.subtract(&ordinals);
        if payload.is_empty() || self.stopped {
            return;
        }
        let geometry = Geometry { payload: payload.len() as u32, symbol: self.symbol, columns: self.columns };
        let sent_at = vec![0; geometry.symbols() as usize];
        self.generations.push_back(Outgoing {
            number: self.next,
            geometry,
            payload: Some(payload),
            ordinals,
            next: 0,
            sent_at,
            repair: RangeSet::default(),
        });
        self.next += 1;
        let old = self.generations.len().saturating_sub(KEPT + AHEAD);
        for generation in self.generations.iter_mut().take(old).rev() {
            if generation.payload.take().is_none() {
                break;
            }
            generation.repair = RangeSet::default();
        }
        if self.generations.len() > REMEMBERED {
            self.generations.pop_front();
        }
    }

    /// Merges what a host misses of one generation; `seen` is the last counter that it has seen.
    pub fn missing(&mut self, missing: &Missing, seen: u64) {
        let Some(first) = self.generations.front().map(|g| g.number) else { return };
        let at = missing.generation.0.wrapping_sub(first) as usize;
        let Some(generation) = self.generations.get_mut(at) else { return };
        if generation.payload.is_none() {
            // Too old to mend: its blocks go into a new generation, unless that happened already.
            let ordinals = std::mem::take(&mut generation.ordinals);
            self.pending.extend(&ordinals);
            return;
        }
        let all = u64::from(generation.geometry.symbols());
        let ranges = if missing.symbols.0.is_empty() { vec![0..all] } else { missing.symbols.0.clone() };
        for symbol in ranges.into_iter().flat_map(|r| r.start..r.end.min(all)) {
            // What was sent after the host's last word may still be on its way; what was never sent will come.
            let sent = generation.sent_at[symbol as usize];
            if sent != 0 && sent <= seen {
                generation.repair.insert(symbol..symbol + 1);
            }
        }
    }

    /// Whether symbols are ready to be sent.
    pub fn has_data(&self) -> bool {
        self.generations.iter().rev().take(KEPT + AHEAD).any(|g| g.next < g.geometry.symbols() || !g.repair.is_empty())
    }

    /// Whether repairs are ready to be sent.
    pub fn has_repairs(&self) -> bool {
        self.generations.iter().rev().take(KEPT + AHEAD).any(|g| !g.repair.is_empty())
    }

    /// Writes one send into `out`: repairs first, oldest generation first.
    pub fn write(&mut self, source: crate::id::InstanceId, sent: u32, out: &mut Vec<u8>) -> bool {
        out.clear();
        let from = self.generations.len().saturating_sub(KEPT + AHEAD);
        let mut live = self.generations.range_mut(from..);
        let repair = live.position(|g| !g.repair.is_empty()).map(|at| at + from);
        let fresh = || self.generations.iter().position(|g| g.next < g.geometry.symbols());
        let Some(at) = repair.or_else(fresh) else { return false };
        let generation = &mut self.generations[at];
        let Some(payload) = generation.payload.clone() else { return false };
        for _ in 0..self.columns {
            let symbol = match generation.repair.first() {
                Some(symbol) => {
                    generation.repair.remove(symbol..symbol + 1);
                    self.stats.repaired += 1;
                    symbol as u32
                }
                None if repair.is_some() || generation.next == generation.geometry.symbols() => break,
                None => {
                    generation.next += 1;
                    generation.next - 1
                }
            };
            self.counter += 1;
            generation.sent_at[symbol as usize] = self.counter;
            let header = SymbolHeader {
                session: self.session,
                generation: Generation(generation.number),
                row: (symbol / u32::from(self.columns)) as u16,
                column: (symbol % u32::from(self.columns)) as u8,
                columns: self.columns,
                payload: generation.geometry.payload,
                sent,
            };
            let front = Front { source, counter: self.counter };
            write_symbol(out, front, header, &payload[generation.geometry.bytes_of(symbol)]);
            self.stats.datagrams += 1;
        }
        self.stats.bytes += out.len() as u64;
        true
    }
}
