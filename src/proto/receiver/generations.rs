//! Tracks a session's generations: open, resolved, and due for a loss report.
//!
//! Before the first loss report of a generation the disk reads back blocks the host already has
//! (see [`BlockPart`]). The report waits a short time for the result, and then states the lower
//! need.

mod open;
mod payloads;
mod position;
mod resolved;

use std::collections::BTreeMap;
use std::time::Duration;

use open::{LastRepair, OpenGeneration};
use payloads::PayloadMemory;
use position::{PositionClaim, SenderPosition};
use resolved::ResolvedGenerations;

use super::buffer::{BlockPart, MAX_RELAYED_SYMBOL_RANGES, MAX_SYMBOL_RANGES, Progress};
use crate::id::{Generation, Ordinal};
use crate::proto::RangeSet;
use crate::proto::generation::{Body, KEPT_GENERATIONS, PlacedBlock, grid_of};
use crate::units::Moment;
use crate::wire::Symbol;
use crate::wire::message::{MAX_NACKS, Missing};

/// Largest number of open generations.
const MAX_OPEN_GENERATIONS: usize = 16;

/// A generation with all wanted blocks.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The payload.
    pub payload: Vec<u8>,
    /// Position of the content in the payload.
    pub body: Body,
    /// The wanted blocks with their positions in the plain content.
    pub blocks: Vec<PlacedBlock>,
}

/// Actions due for generations that were sent in full.
#[derive(Debug, Default)]
pub struct Due {
    /// Losses to report to the sender.
    pub missing: Vec<Missing>,
    /// Blocks to read back from disk before the loss report.
    pub readbacks: Vec<(Generation, Vec<BlockPart>)>,
}

/// Symbols that were lost, and those that came in their place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SymbolCounts {
    /// Symbols named or counted in first loss reports.
    pub lost: u64,
    /// Useful symbols that were coded, or came after the generation was sent in full.
    pub repairs: u64,
}

impl SymbolCounts {
    /// Adds `other`.
    pub fn add(&mut self, other: SymbolCounts) {
        self.lost += other.lost;
        self.repairs += other.repairs;
    }
}

/// Generations of one session.
#[derive(Debug)]
pub struct Generations {
    symbol: u16,
    open: BTreeMap<u32, OpenGeneration>,
    resolved: ResolvedGenerations,
    position: SenderPosition,
    payloads: PayloadMemory,
    repaired: LastRepair,
    /// A generation was abandoned: its blocks must be requested again.
    abandoned: bool,
    /// Arrival of the last useful symbol.
    taken_at: Moment,
    /// Largest number of symbol ranges in a loss report.
    most_named: usize,
    counts: SymbolCounts,
}

impl Generations {
    /// Creates the state of a session with symbols of `symbol` bytes.
    pub fn new(symbol: u16) -> Self {
        Self {
            symbol,
            open: BTreeMap::new(),
            resolved: ResolvedGenerations::default(),
            position: SenderPosition::default(),
            payloads: PayloadMemory::default(),
            repaired: LastRepair {
                generation: 0,
                at: Moment(0),
            },
            abandoned: false,
            taken_at: Moment(0),
            most_named: MAX_SYMBOL_RANGES,
            counts: SymbolCounts::default(),
        }
    }

    /// Records that hosts pass data on in this session: loss reports name more symbols.
    pub fn on_relayed(&mut self) {
        self.most_named = MAX_RELAYED_SYMBOL_RANGES;
    }

    /// Drops open generations and resolves everything sent so far, at the start and end of a fetch.
    ///
    /// A generation still in transmission may hold blocks wanted later.
    pub fn reset(&mut self) {
        self.open.clear();
        self.resolved.reset(self.position.horizon());
    }

    /// Returns true if every generation sent in full is resolved.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty() && self.unresolved(1).is_empty()
    }

    /// Takes back the payload of a [`Delivery`] for reuse.
    pub fn recycle(&mut self, payload: Vec<u8>) {
        self.payloads.recycle(payload);
        if self.open.is_empty() {
            self.payloads.trim();
        }
    }

    /// Returns the arrival time of the last useful symbol.
    pub fn taken_at(&self) -> Moment {
        self.taken_at
    }

    /// Takes the counts of lost symbols and of repairs.
    pub fn take_counts(&mut self) -> SymbolCounts {
        std::mem::take(&mut self.counts)
    }

    /// Returns the total size of the payloads pending on the disk.
    pub fn delivered(&self) -> u64 {
        self.payloads.delivered()
    }

    /// Adds a symbol. Returns the generation once all of its blocks in `wants` are complete.
    pub fn symbol(
        &mut self,
        now: Moment,
        symbol: &Symbol<'_>,
        wants: &RangeSet,
    ) -> Option<Delivery> {
        let number = symbol.header.generation.0;
        if !self.on_claim(number) {
            return None;
        }

        if number < self.position.horizon() {
            self.repaired = LastRepair {
                generation: number,
                at: now,
            };
        }

        if wants.is_empty() || self.resolved.contains(number) {
            return None;
        }

        let grid = grid_of(&symbol.header, self.symbol)?;
        if self.open.len() >= MAX_OPEN_GENERATIONS && !self.open.contains_key(&number) {
            return None;
        }

        if !self
            .open
            .get(&number)
            .is_some_and(|open| open.buffer().has_begun())
            && !self.has_room_for(grid.payload())
        {
            return None;
        }

        let payloads = &mut self.payloads;
        let open = self.open.entry(number).or_default();
        if !open.symbol(now, grid, symbol, || payloads.take()) {
            return None;
        }

        self.taken_at = now;
        let is_coded = symbol.header.row >= grid.rows();
        self.counts.repairs += u64::from(is_coded || number < self.position.horizon());
        match open.progress(wants) {
            Progress::Missing => None,
            progress => self.end(number, progress),
        }
    }

    /// Adds parts read back from disk. Returns the generation if now complete.
    pub fn add_parts(
        &mut self,
        now: Moment,
        Generation(number): Generation,
        parts: &[(BlockPart, Vec<u8>)],
        wants: &RangeSet,
    ) -> Option<Delivery> {
        let open = self.open.get_mut(&number)?;
        if !open.add_parts(now, parts) {
            return None;
        }

        match open.progress(wants) {
            Progress::Missing => None,
            progress => self.end(number, progress),
        }
    }

    /// Resolves a generation. Returns its payload if any block is wanted.
    fn end(&mut self, number: u32, progress: Progress) -> Option<Delivery> {
        self.resolved.insert(number..number.saturating_add(1));
        let (payload, found) = self.open.remove(&number)?.into_buffer().into_parts();
        if let Some((body, blocks)) = found.filter(|_| progress == Progress::Whole) {
            self.payloads.deliver(&payload);
            return Some(Delivery {
                payload,
                body,
                blocks,
            });
        }

        self.resolved.mark_useless(number);
        self.payloads.keep(payload);

        None
    }

    /// Handles a claim that generation `number` has begun and all before were sent in full. Returns
    /// true if the claim is plausible.
    fn on_claim(&mut self, number: u32) -> bool {
        match self.position.on_claim(number) {
            PositionClaim::Plausible => true,
            PositionClaim::Distant => false,
            PositionClaim::Moved(from, back) => {
                self.open.retain(|open, _| (from..=number).contains(open));
                if back {
                    self.resolved.forget(from);
                }
                true
            }
        }
    }

    /// Returns the size of all open and pending payloads and of the spare buffers.
    pub fn held(&self) -> usize {
        let open = self.open.values().map(|open| open.buffer().held());
        self.payloads.held() + open.sum::<usize>()
    }

    fn has_room_for(&self, payload: u32) -> bool {
        let open = self.open.values().map(|open| open.buffer().payload());
        self.payloads.has_room(open.sum(), payload)
    }

    /// Records that all generations below `sent` were sent in full.
    pub fn on_sent(&mut self, sent: Generation) {
        self.on_claim(sent.0);
    }

    /// Returns the first `most` unresolved generations below the horizon.
    fn unresolved(&self, most: usize) -> Vec<u32> {
        self.resolved.gaps(self.position.horizon(), most)
    }

    /// Returns the actions due now.
    ///
    /// A loss report without a repair is repeated. The wait for the next report doubles each time
    /// up to `longest`; `delay` is added, which spreads the reports of different hosts. The disk
    /// may read back blocks with ordinals from `read_from` on.
    pub fn due(
        &mut self,
        now: Moment,
        longest: Duration,
        read_from: Option<Ordinal>,
        mut delay: impl FnMut() -> Duration,
    ) -> Due {
        self.abandon_old();
        let mut report = Due::default();

        for number in self.unresolved(MAX_OPEN_GENERATIONS.min(MAX_NACKS)) {
            if self.open.len() >= MAX_OPEN_GENERATIONS && !self.open.contains_key(&number) {
                break;
            }

            let open = self.open.entry(number).or_default();
            match open.due(number, &self.repaired) {
                None => {
                    open.schedule(now, delay());
                }
                Some(due) if due <= now && open.is_hopeless() => {
                    self.open.remove(&number);
                    self.resolved.insert(number..number.saturating_add(1));
                    self.abandoned = true;
                }
                Some(due) if due <= now => match open.start_readback(now, read_from) {
                    parts if !parts.is_empty() => {
                        report.readbacks.push((Generation(number), parts))
                    }
                    _ => {
                        open.on_loss_report(now, longest, delay());
                        let missing = open.buffer().missing(Generation(number), self.most_named);
                        if open.begin_loss() {
                            let need = missing.need.iter().map(|need| u64::from(*need));
                            self.counts.lost += need.sum::<u64>();
                        }
                        report.missing.push(missing);
                    }
                },
                Some(_) => {}
            }
        }

        report
    }

    /// Abandons generations the sender no longer keeps.
    fn abandon_old(&mut self) {
        let oldest = self.position.horizon().saturating_sub(KEPT_GENERATIONS);
        if self.unresolved(1).first().is_some_and(|&n| n < oldest) {
            self.open = self.open.split_off(&oldest);
            self.resolved.insert(0..oldest);
            self.abandoned = true;
        }
    }

    /// Returns true if a generation was abandoned since the last call: its blocks must be requested
    /// again.
    pub fn take_abandoned(&mut self) -> bool {
        std::mem::take(&mut self.abandoned)
    }

    /// Returns the due time of the next [`Generations::due`].
    pub fn timeout(&self, now: Moment) -> Option<Moment> {
        let unresolved = self.unresolved(MAX_OPEN_GENERATIONS.min(MAX_NACKS));
        let has_room = self.open.len() < MAX_OPEN_GENERATIONS;
        let due = |n: &u32| match self.open.get(n) {
            Some(open) => Some(open.due(*n, &self.repaired).unwrap_or(now)),
            None => has_room.then_some(now),
        };
        unresolved.iter().filter_map(due).min()
    }
}

#[cfg(test)]
mod tests;
