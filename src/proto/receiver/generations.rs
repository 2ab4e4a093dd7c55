//! Tracks a session's generations: open, resolved, and due for a loss report.
//!
//! Before the first loss report of a generation the disk reads back blocks the host already has
//! (see [`BlockPart`]). The report waits a short time for the result, and then states the lower
//! need.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::buffer::{BlockPart, Buffer, Progress, Vote};
use crate::id::{Generation, Ordinal};
use crate::proto::RangeSet;
use crate::proto::generation::{Body, KEPT_GENERATIONS, PlacedBlock, grid_of};
use crate::units::Moment;
use crate::wire::Symbol;
use crate::wire::message::{MAX_NACKS, Missing};

/// Largest number of open generations.
const MAX_OPEN_GENERATIONS: usize = 16;
/// Largest total size of open payloads and payloads pending on the disk.
///
/// More than a sender has in flight to a host with a working disk. Generations that start beyond
/// the limit count as lost and are repaired.
const MAX_PAYLOAD_BYTES: u64 = 64 << 20;
/// Largest number of payload buffers kept for reuse.
const MAX_SPARE_BUFFERS: usize = 4;
/// Largest distance of a sender from its last known generation: a sender keeps nothing older than
/// so many generations.
const MAX_DISTANCE: u32 = KEPT_GENERATIONS + 8;
/// Consecutive claims of a distant generation after which the sender counts as moved there.
const MAX_CONTRADICTIONS: u32 = 64;
/// Wait after each repair before the next loss report, in addition to a [`super::super::backoff`].
const REPAIR_GAP: Duration = Duration::from_millis(3);
/// Loss reports without any repair after which a generation is abandoned.
const MAX_LOSS_REPORTS: u32 = 12;
/// Initial wait for a repair; doubles while none arrives.
const FIRST_REPAIR_WAIT: Duration = Duration::from_millis(25);
/// Longest delay of a loss report while the disk reads back blocks.
const READBACK_WAIT: Duration = Duration::from_millis(15);

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

/// Generations of one session.
#[derive(Debug)]
pub struct Generations {
    symbol: u16,
    open: BTreeMap<u32, OpenGeneration>,
    /// Generations that need nothing more.
    resolved: RangeSet,
    /// All generations below are resolved; the fast check for every symbol.
    settled: u32,
    /// Resolved generations that held no wanted block at the time.
    useless: RangeSet,
    /// All generations below were sent in full.
    horizon: u32,
    /// Generation and time of the last repair; later generations are repaired after it.
    repaired: (u32, Moment),
    /// True once the sender's position is known.
    position_known: bool,
    /// Consecutive claims of a distant position.
    contradicting_claims: u32,
    /// A generation was abandoned: its blocks must be requested again.
    abandoned: bool,
    spare: Vec<Vec<u8>>,
    /// Total size of the payloads pending on the disk.
    delivered: u64,
    /// Arrival of the last useful symbol.
    taken_at: Moment,
}

impl Generations {
    /// Creates the state of a session with symbols of `symbol` bytes.
    pub fn new(symbol: u16) -> Self {
        Self {
            symbol,
            open: BTreeMap::new(),
            resolved: RangeSet::default(),
            settled: 0,
            useless: RangeSet::default(),
            horizon: 0,
            repaired: (0, Moment(0)),
            position_known: false,
            contradicting_claims: 0,
            abandoned: false,
            spare: Vec::new(),
            delivered: 0,
            taken_at: Moment(0),
        }
    }

    /// Drops open generations and resolves everything sent so far, at the start and end of a fetch.
    ///
    /// A generation still in transmission may hold blocks wanted later.
    pub fn reset(&mut self) {
        self.open.clear();
        self.resolved.subtract(&std::mem::take(&mut self.useless));
        self.resolve(0..self.horizon);
    }

    /// Marks generations as resolved.
    fn resolve(&mut self, generations: Range<u32>) {
        self.resolved
            .insert(u64::from(generations.start)..u64::from(generations.end));
        self.settle();
    }

    fn settle(&mut self) {
        let first = self.resolved.iter().next().filter(|r| r.start == 0);
        self.settled = first.map_or(0, |r| u32::try_from(r.end).unwrap_or(u32::MAX));
    }

    fn is_resolved(&self, generation: u32) -> bool {
        generation < self.settled
            || (self.resolved.range_count() > 1 && self.resolved.contains(u64::from(generation)))
    }

    /// Returns true if every generation sent in full is resolved.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty() && self.unresolved(1).is_empty()
    }

    /// Takes back the payload of a [`Delivery`] for reuse.
    pub fn recycle(&mut self, payload: Vec<u8>) {
        self.delivered = self.delivered.saturating_sub(payload.len() as u64);
        self.keep_spare(payload);
    }

    fn keep_spare(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE_BUFFERS {
            self.spare.push(buffer);
        }
    }

    /// Returns the arrival time of the last useful symbol.
    pub fn taken_at(&self) -> Moment {
        self.taken_at
    }

    /// Returns the total size of the payloads pending on the disk.
    pub fn delivered(&self) -> u64 {
        self.delivered
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

        if number < self.horizon {
            self.repaired = (number, now);
        }

        if wants.is_empty() || self.is_resolved(number) {
            return None;
        }

        let grid = grid_of(&symbol.header, self.symbol)?;
        if self.open.len() >= MAX_OPEN_GENERATIONS && !self.open.contains_key(&number) {
            return None;
        }

        if !self
            .open
            .get(&number)
            .is_some_and(|open| open.buffer.has_begun())
            && !self.has_room_for(grid.payload())
        {
            return None;
        }

        let spare = &mut self.spare;
        let open = self.open.entry(number).or_default();
        match open.buffer.vote(grid) {
            Vote::Agrees => {}
            Vote::Differs => return None,
            // The first symbol was forged.
            Vote::Outvotes => {
                (open.buffer, open.readback) = (Buffer::default(), ReadbackState::Done)
            }
        }

        open.on_symbol(now);
        if !open
            .buffer
            .take(grid, symbol, || spare.pop().unwrap_or_default())
        {
            return None;
        }

        self.taken_at = now;
        match open.buffer.progress(wants) {
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
        // The reply belongs to the current buffer, not to an outvoted one.
        let ReadbackState::Pending(until) = open.readback else {
            return None;
        };

        open.readback = ReadbackState::Done;
        if now < until {
            open.due = Some(now);
        }

        if !open.buffer.add_parts(parts) {
            return None;
        }

        match open.buffer.progress(wants) {
            Progress::Missing => None,
            progress => self.end(number, progress),
        }
    }

    /// Resolves a generation. Returns its payload if any block is wanted.
    fn end(&mut self, number: u32, progress: Progress) -> Option<Delivery> {
        self.resolve(number..number.saturating_add(1));
        let (payload, found) = self.open.remove(&number)?.buffer.into_parts();
        if let Some((body, blocks)) = found.filter(|_| progress == Progress::Whole) {
            self.delivered += payload.len() as u64;
            return Some(Delivery {
                payload,
                body,
                blocks,
            });
        }

        self.useless
            .insert(u64::from(number)..u64::from(number) + 1);
        self.keep_spare(payload);

        None
    }

    /// Handles a claim that generation `number` has begun and all before were sent in full. Returns
    /// true if the claim is plausible.
    ///
    /// Claims are unauthenticated. A distant claim counts only after many in a row without any that
    /// agrees with the known position: for a host that was offline, and after an early forgery.
    fn on_claim(&mut self, number: u32) -> bool {
        let near = number.abs_diff(self.horizon) <= MAX_DISTANCE;
        if near || !self.position_known {
            (self.position_known, self.contradicting_claims) = (true, 0);
            self.horizon = self.horizon.max(number);
            return true;
        }

        self.contradicting_claims += 1;
        if self.contradicting_claims <= MAX_CONTRADICTIONS {
            return false;
        }

        self.contradicting_claims = 0;
        self.move_to(number);
        true
    }

    /// Corrects a wrong or outdated position of the sender.
    fn move_to(&mut self, number: u32) {
        let from = number.saturating_sub(MAX_DISTANCE);
        self.open.retain(|open, _| (from..=number).contains(open));
        if number < self.horizon {
            self.resolved.remove(u64::from(from)..u64::MAX);
            self.useless.remove(u64::from(from)..u64::MAX);
        }

        self.horizon = number;
        self.settle();
    }

    /// Returns the size of all open and pending payloads and of the spare buffers.
    pub fn held(&self) -> usize {
        let spare: usize = self.spare.iter().map(Vec::capacity).sum();
        spare
            + self.delivered as usize
            + self
                .open
                .values()
                .map(|open| open.buffer.held())
                .sum::<usize>()
    }

    fn has_room_for(&self, payload: u32) -> bool {
        let open: u64 = self.open.values().map(|open| open.buffer.payload()).sum();
        open + self.delivered + u64::from(payload) <= MAX_PAYLOAD_BYTES
    }

    /// Records that all generations below `sent` were sent in full.
    pub fn on_sent(&mut self, sent: Generation) {
        self.on_claim(sent.0);
    }

    /// Returns the first `most` unresolved generations below the horizon.
    fn unresolved(&self, most: usize) -> Vec<u32> {
        let mut found = Vec::new();
        if self.horizon <= self.settled {
            return found;
        }

        let mut at = 0;
        for settled in self.resolved.iter().chain([u64::MAX..u64::MAX]) {
            let end = settled.start.min(u64::from(self.horizon));
            found.extend((at..end).take(most - found.len()).map(|n| n as u32));
            at = settled.end;
            if found.len() == most || at >= u64::from(self.horizon) {
                break;
            }
        }

        found
    }

    /// Returns the actions due now.
    ///
    /// `delay` spreads loss reports of different hosts. Reports without a repair are repeated after
    /// `longest` at the latest. The disk may read back blocks with ordinals from `read_from` on.
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
            match open.due(number, self.repaired) {
                None => {
                    open.delay = delay();
                    open.due = Some(now + open.delay);
                }
                Some(due) if due <= now && open.loss_reports == MAX_LOSS_REPORTS => {
                    self.open.remove(&number);
                    self.resolve(number..number.saturating_add(1));
                    self.abandoned = true;
                }
                Some(due) if due <= now => match open.start_readback(now, read_from) {
                    parts if !parts.is_empty() => {
                        report.readbacks.push((Generation(number), parts))
                    }
                    _ => {
                        open.delay = delay();
                        report
                            .missing
                            .push(open.report_loss(now, longest, Generation(number)));
                    }
                },
                Some(_) => {}
            }
        }

        report
    }

    /// Abandons generations the sender no longer keeps.
    fn abandon_old(&mut self) {
        let oldest = self.horizon.saturating_sub(KEPT_GENERATIONS);
        if self.unresolved(1).first().is_some_and(|&n| n < oldest) {
            self.open = self.open.split_off(&oldest);
            self.resolve(0..oldest);
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
            Some(open) => Some(open.due(*n, self.repaired).unwrap_or(now)),
            None => has_room.then_some(now),
        };
        unresolved.iter().filter_map(due).min()
    }
}

/// An open generation and the time of its next loss report.
#[derive(Debug)]
struct OpenGeneration {
    buffer: Buffer,
    /// Due time of the next loss report, set once the generation was sent in full.
    due: Option<Moment>,
    /// Random delay of this host, so that few hosts report for all.
    delay: Duration,
    /// Arrival of the last symbol.
    last_symbol_at: Option<Moment>,
    wait: Duration,
    /// Loss reports since the last symbol.
    loss_reports: u32,
    readback: ReadbackState,
}

/// State of the one readback per generation.
#[derive(Debug, Clone, Copy)]
enum ReadbackState {
    NotYet,
    /// Requested; the loss report waits until this time.
    Pending(Moment),
    Done,
}

impl Default for OpenGeneration {
    fn default() -> Self {
        Self {
            buffer: Buffer::default(),
            due: None,
            delay: Duration::ZERO,
            last_symbol_at: None,
            wait: FIRST_REPAIR_WAIT,
            loss_reports: 0,
            readback: ReadbackState::NotYet,
        }
    }
}

impl OpenGeneration {
    fn on_symbol(&mut self, now: Moment) {
        self.last_symbol_at = Some(now);
        (self.wait, self.loss_reports) = (FIRST_REPAIR_WAIT, 0);
    }

    /// Returns the time of the next loss report, postponed while repairs of this or an earlier
    /// generation arrive.
    ///
    /// Other hosts wait for the end of the repairs as well; the random delay again selects the few
    /// that report first.
    fn due(&self, number: u32, (repaired, at): (u32, Moment)) -> Option<Moment> {
        let before = if repaired <= number { at } else { Moment(0) };
        let coming = self.last_symbol_at.unwrap_or(Moment(0)).max(before);
        self.due
            .map(|due| due.max(coming + REPAIR_GAP + self.delay))
    }

    /// Returns the parts to read back before the first loss report; empty after the first call or
    /// if nothing is useful.
    fn start_readback(&mut self, now: Moment, from: Option<Ordinal>) -> Vec<BlockPart> {
        let (ReadbackState::NotYet, Some(from)) = (self.readback, from) else {
            return Vec::new();
        };

        let parts = self.buffer.readable_parts(from);
        if !parts.is_empty() {
            self.readback = ReadbackState::Pending(now + READBACK_WAIT);
            self.due = Some(now + READBACK_WAIT);
        }

        parts
    }

    fn report_loss(&mut self, now: Moment, longest: Duration, generation: Generation) -> Missing {
        self.loss_reports += 1;
        self.due = Some(now + self.wait + self.delay);
        self.wait = (self.wait * 2).min(longest);
        self.buffer.missing(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;
    use crate::proto::generation::{Map, grid_for};
    use crate::wire::SymbolHeader;

    fn at(horizon: u32) -> Generations {
        let mut generations = Generations::new(1400);
        generations.on_sent(Generation(horizon));
        generations.resolve(0..horizon);
        generations
    }

    #[test]
    fn forged_claims_between_true_ones_change_nothing() {
        let mut generations = at(100);
        for n in 0..10_000u32 {
            generations.on_sent(Generation(u32::MAX - 1 - n));
            generations.on_sent(Generation(100 + n / 1000));
        }

        assert_eq!(
            (
                generations.horizon,
                generations.is_resolved(99),
                generations.is_resolved(120)
            ),
            (109, true, false)
        );
    }

    #[test]
    fn a_host_that_was_offline_believes_repeated_claims() {
        let mut generations = at(100);
        (0..=MAX_CONTRADICTIONS).for_each(|_| generations.on_sent(Generation(500)));
        assert_eq!(generations.horizon, 500);
        assert_eq!(
            generations.unresolved(2),
            [100, 101],
            "what passed by is still to be given up"
        );
        generations.due(Moment(0), REPAIR_GAP, None, || REPAIR_GAP);

        assert!(
            generations.take_abandoned() && generations.unresolved(1) == [500 - KEPT_GENERATIONS]
        );
    }

    #[test]
    fn an_early_forged_claim_is_corrected() {
        let mut generations = at(u32::MAX - 1);
        (0..=MAX_CONTRADICTIONS).for_each(|_| generations.on_sent(Generation(7)));
        assert_eq!(
            (
                generations.horizon,
                generations.is_resolved(3),
                generations.is_resolved(8)
            ),
            (7, false, false)
        );
    }

    #[test]
    fn a_sender_faster_than_the_disk_does_not_exhaust_memory() {
        const BLOCK: u32 = 2 << 20;
        let mut generations = Generations::new(60_000);
        let wants = [0..1000].into_iter().collect();
        let mut waiting = Vec::new();
        let mut most = 0;
        for number in 0..100 {
            let mut map = Map::default();
            map.push(Ordinal(number.into()), BLOCK);
            let payload = map.payload(&vec![7; BLOCK as usize]);
            let grid = grid_for(payload.len(), 60_000).expect("not empty");
            for index in 0..grid.symbols() {
                let columns = u32::from(grid.columns());
                let header = SymbolHeader {
                    session: SessionId(1),
                    generation: Generation(number),
                    row: (index / columns) as u16,
                    column: (index % columns) as u8,
                    columns: grid.columns(),
                    payload: grid.payload(),
                    sent: 0,
                };
                let symbol = Symbol {
                    header,
                    bytes: &payload[grid.bytes_of(index)],
                };
                waiting.extend(generations.symbol(Moment(1), &symbol, &wants));
            }
            most = most.max(generations.held());
            // A slow disk takes some payloads.
            if number == 80 {
                assert_eq!(
                    waiting.len() as u64,
                    MAX_PAYLOAD_BYTES / (u64::from(BLOCK) + 1)
                );
                waiting
                    .drain(..5)
                    .for_each(|delivery| generations.recycle(delivery.payload));
            }
        }

        assert_eq!(
            waiting.len() as u64,
            MAX_PAYLOAD_BYTES / (u64::from(BLOCK) + 1),
            "as many again"
        );

        assert!(most as u64 <= MAX_PAYLOAD_BYTES, "{most}");
    }
}
