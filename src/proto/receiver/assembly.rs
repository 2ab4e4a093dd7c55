//! The generations of a session: which are open, which are settled, and when to complain about what is missing.
//!
//! Before the first complaint about a generation the disk is asked for blocks of it that the host has (see [`Part`]).
//! The complaint is held back until the answer, though not for long, and says the lower need.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::buffer::{Buffer, Part, Progress, Vote};
use crate::id::{Generation, Ordinal};
use crate::proto::RangeSet;
use crate::proto::generation::{Body, KEPT_GENERATIONS, PlacedBlock, grid_of};
use crate::units::Moment;
use crate::wire::Symbol;
use crate::wire::message::{MAX_NACKS, Missing};

/// The most generations that are open at a time.
const MAX_OPEN: usize = 16;
/// The most bytes of their payloads, together with those that wait for the disk: more than a sender has under way to a
/// host that takes and writes as it should. What begins beyond it is as good as lost, and repaired like that.
const MAX_BYTES: u64 = 64 << 20;
/// The most payloads whose memory is kept for later ones.
const MAX_SPARE: usize = 4;
/// A sender is not further than this from where it was heard last: it has nothing more of generations so far behind
/// the newest that it has begun.
const BEHIND: u32 = KEPT_GENERATIONS + 8;
/// After so many words in a row that the sender is far from where it was thought to be, it is there.
const CONTRADICTIONS: u32 = 64;
/// While repairs come, more of them are waited for this long before the next complaint; and a [`super::super::backoff`].
const COMING: Duration = Duration::from_millis(3);
/// A generation of which nothing comes after so many negative acknowledgements is given up.
const MAX_TRIES: u32 = 12;
/// The first wait for a repair; doubled while nothing comes.
const FIRST_WAIT: Duration = Duration::from_millis(25);
/// A complaint is held back for this long at most while the disk reads.
const HOLD: Duration = Duration::from_millis(15);

/// A generation of which all wanted blocks have arrived.
#[derive(Debug)]
pub struct Delivery {
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Where the content is in them.
    pub body: Body,
    /// The wanted blocks and where in the plain content they are.
    pub blocks: Vec<PlacedBlock>,
}

/// What is to be done about generations that were sent in full and whose wait is over.
#[derive(Debug, Default)]
pub struct Due {
    /// What is missing, for the sender.
    pub missing: Vec<Missing>,
    /// What the disk is to read, before anything is said of these generations.
    pub recalls: Vec<(Generation, Vec<Part>)>,
}

/// The generations of one session.
#[derive(Debug)]
pub struct Assembly {
    symbol: u16,
    open: BTreeMap<u32, Waiting>,
    /// Generations that need nothing more.
    resolved: RangeSet,
    /// All generations below this are resolved: what is looked at for every symbol.
    settled: u32,
    /// Of them, those that held nothing that was wanted when they came.
    useless: RangeSet,
    /// Every generation below this was sent in full.
    horizon: u32,
    /// The generation of which a repair came last, and when: those after it are repaired after it.
    repaired: (u32, Moment),
    /// Whether anything was heard of where the sender is.
    known: bool,
    /// Words in a row that it is far from there.
    contradictions: u32,
    /// A generation was given up: what it held has to be asked for again.
    gave_up: bool,
    spare: Vec<Vec<u8>>,
    /// Bytes of payloads that were delivered and not taken back: the disk works on them.
    delivered: u64,
    /// When a symbol came last that was of use.
    taken_at: Moment,
}

impl Assembly {
    /// For a session whose symbols have `symbol` bytes.
    pub fn new(symbol: u16) -> Self {
        let (open, resolved, useless) = (BTreeMap::new(), RangeSet::default(), RangeSet::default());
        Self {
            symbol,
            open,
            resolved,
            settled: 0,
            useless,
            horizon: 0,
            repaired: (0, Moment(0)),
            known: false,
            contradictions: 0,
            gave_up: false,
            spare: Vec::new(),
            delivered: 0,
            taken_at: Moment(0),
        }
    }

    /// Forgets what is open and what was sent in full until now: when we begin to listen, and when we stop. What is
    /// still being sent may hold what is wanted from now on.
    pub fn rest(&mut self) {
        self.open.clear();
        self.resolved.subtract(&std::mem::take(&mut self.useless));
        self.resolve(0..self.horizon);
    }

    /// Nothing more of these generations is needed.
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

    /// Whether every generation that was sent in full is settled.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty() && self.unresolved(1).is_empty()
    }

    /// Takes back the payload of a [`Delivery`] for a later generation.
    pub fn recycle(&mut self, payload: Vec<u8>) {
        self.delivered = self.delivered.saturating_sub(payload.len() as u64);
        self.keep(payload);
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(buffer);
        }
    }

    /// When a symbol came last that was of use.
    pub fn taken_at(&self) -> Moment {
        self.taken_at
    }

    /// Bytes of the payloads that were delivered and not taken back.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Takes a symbol; gives the generation when it is whole as far as `wants` go.
    pub fn symbol(
        &mut self,
        now: Moment,
        symbol: &Symbol<'_>,
        wants: &RangeSet,
    ) -> Option<Delivery> {
        let number = symbol.header.generation.0;
        if !self.hear(number) {
            return None;
        }

        if number < self.horizon {
            self.repaired = (number, now);
        }

        if wants.is_empty() || self.is_resolved(number) {
            return None;
        }

        let grid = grid_of(&symbol.header, self.symbol)?;
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&number) {
            return None;
        }

        if !self
            .open
            .get(&number)
            .is_some_and(|wait| wait.buffer.has_begun())
            && !self.has_room_for(grid.payload())
        {
            return None;
        }

        let spare = &mut self.spare;
        let wait = self.open.entry(number).or_default();
        match wait.buffer.vote(grid) {
            Vote::Agrees => {}
            Vote::Differs => return None,
            // The first symbol that came was not the sender's.
            Vote::Outvotes => (wait.buffer, wait.recall) = (Buffer::default(), Recall::Answered),
        }

        wait.heard(now);
        if !wait
            .buffer
            .take(grid, symbol, || spare.pop().unwrap_or_default())
        {
            return None;
        }

        self.taken_at = now;
        match wait.buffer.progress(wants) {
            Progress::Missing => None,
            progress => self.end(number, progress),
        }
    }

    /// Takes what the disk has read of generation `number`; gives the generation when that makes it whole.
    pub fn recalled(
        &mut self,
        now: Moment,
        Generation(number): Generation,
        parts: &[(Part, Vec<u8>)],
        wants: &RangeSet,
    ) -> Option<Delivery> {
        let wait = self.open.get_mut(&number)?;
        // Of the buffer that there is now, not of one before it.
        let Recall::Asked(until) = wait.recall else {
            return None;
        };

        wait.recall = Recall::Answered;
        if now < until {
            wait.due = Some(now);
        }

        if !wait.buffer.recalled(parts) {
            return None;
        }

        match wait.buffer.progress(wants) {
            Progress::Missing => None,
            progress => self.end(number, progress),
        }
    }

    /// Nothing more of generation `number` is needed: gives it when anything in it is wanted.
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
        self.keep(payload);

        None
    }

    /// Somebody says that the sender has begun generation `number`, so that those before it were sent in full; whether
    /// that can be. Anybody can say that the sender is somewhere else altogether. That counts when it is said again and
    /// again and nothing in between agrees with what was known: for a host that was deaf for a while, and after a lie
    /// that came first.
    fn hear(&mut self, number: u32) -> bool {
        let near = number.abs_diff(self.horizon) <= BEHIND;
        if near || !self.known {
            (self.known, self.contradictions) = (true, 0);
            self.horizon = self.horizon.max(number);
            return true;
        }

        self.contradictions += 1;
        if self.contradictions <= CONTRADICTIONS {
            return false;
        }

        self.contradictions = 0;
        self.move_to(number);
        true
    }

    /// What was known of where the sender is was wrong, or is long past.
    fn move_to(&mut self, number: u32) {
        let from = number.saturating_sub(BEHIND);
        self.open.retain(|open, _| (from..=number).contains(open));
        if number < self.horizon {
            self.resolved.remove(u64::from(from)..u64::MAX);
            self.useless.remove(u64::from(from)..u64::MAX);
        }

        self.horizon = number;
        self.settle();
    }

    /// Bytes of all that is open or waits for the disk, and of memory that is kept for more.
    pub fn held(&self) -> usize {
        let spare: usize = self.spare.iter().map(Vec::capacity).sum();
        spare
            + self.delivered as usize
            + self
                .open
                .values()
                .map(|wait| wait.buffer.held())
                .sum::<usize>()
    }

    fn has_room_for(&self, payload: u32) -> bool {
        let open: u64 = self.open.values().map(|wait| wait.buffer.payload()).sum();
        open + self.delivered + u64::from(payload) <= MAX_BYTES
    }

    /// The sender has sent all generations below `sent` in full.
    pub fn sent(&mut self, sent: Generation) {
        self.hear(sent.0);
    }

    /// The first `most` generations below the horizon that are not resolved.
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

    /// What is due now; `delay` spreads complaints, and those after which nothing came are repeated after `longest` at
    /// the latest. The disk may be asked for what has an ordinal from `recall` on.
    pub fn due(
        &mut self,
        now: Moment,
        longest: Duration,
        recall: Option<Ordinal>,
        mut delay: impl FnMut() -> Duration,
    ) -> Due {
        self.forget_old();
        let mut report = Due::default();
        for number in self.unresolved(MAX_OPEN.min(MAX_NACKS)) {
            if self.open.len() >= MAX_OPEN && !self.open.contains_key(&number) {
                break;
            }
            let wait = self.open.entry(number).or_default();
            match wait.due(number, self.repaired) {
                None => {
                    wait.delay = delay();
                    wait.due = Some(now + wait.delay);
                }
                Some(due) if due <= now && wait.complaints == MAX_TRIES => {
                    self.open.remove(&number);
                    self.resolve(number..number.saturating_add(1));
                    self.gave_up = true;
                }
                Some(due) if due <= now => match wait.recall(now, recall) {
                    parts if !parts.is_empty() => report.recalls.push((Generation(number), parts)),
                    _ => {
                        wait.delay = delay();
                        report
                            .missing
                            .push(wait.complain(now, longest, Generation(number)));
                    }
                },
                Some(_) => {}
            }
        }

        report
    }

    /// Gives up what the sender does not keep any more.
    fn forget_old(&mut self) {
        let oldest = self.horizon.saturating_sub(KEPT_GENERATIONS);
        if self.unresolved(1).first().is_some_and(|&n| n < oldest) {
            self.open = self.open.split_off(&oldest);
            self.resolve(0..oldest);
            self.gave_up = true;
        }
    }

    /// Whether a generation was given up since the last call: its blocks have to be asked for again.
    pub fn take_gave_up(&mut self) -> bool {
        std::mem::take(&mut self.gave_up)
    }

    /// When [`Assembly::due`] is worth a call.
    pub fn timeout(&self, now: Moment) -> Option<Moment> {
        let unresolved = self.unresolved(MAX_OPEN.min(MAX_NACKS));
        let has_room = self.open.len() < MAX_OPEN;
        let due = |n: &u32| match self.open.get(n) {
            Some(wait) => Some(wait.due(*n, self.repaired).unwrap_or(now)),
            None => has_room.then_some(now),
        };
        unresolved.iter().filter_map(due).min()
    }
}

/// An open generation with the time to complain about it.
#[derive(Debug)]
struct Waiting {
    buffer: Buffer,
    /// When to complain next, once it was sent in full.
    due: Option<Moment>,
    /// What this host waits longer than others, so that few speak for all.
    delay: Duration,
    /// When something of it came last.
    heard: Option<Moment>,
    wait: Duration,
    /// Complaints since something came.
    complaints: u32,
    recall: Recall,
}

/// Whether the disk was asked for blocks that the host has: once for each generation.
#[derive(Debug, Clone, Copy)]
enum Recall {
    NotYet,
    /// The complaint is held back until then.
    Asked(Moment),
    Answered,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            buffer: Buffer::default(),
            due: None,
            delay: Duration::ZERO,
            heard: None,
            wait: FIRST_WAIT,
            complaints: 0,
            recall: Recall::NotYet,
        }
    }
}

impl Waiting {
    fn heard(&mut self, now: Moment) {
        self.heard = Some(now);
        (self.wait, self.complaints) = (FIRST_WAIT, 0);
    }

    /// When to complain about generation `number`: not while repairs of it or of one before it are coming. Others wait
    /// for their end too: not all speak then, but again those first whose delay is short.
    fn due(&self, number: u32, (repaired, at): (u32, Moment)) -> Option<Moment> {
        let before = if repaired <= number { at } else { Moment(0) };
        let coming = self.heard.unwrap_or(Moment(0)).max(before);
        self.due.map(|due| due.max(coming + COMING + self.delay))
    }

    /// What the disk is to read before anything is said; nothing when it was asked already, or has nothing of use.
    fn recall(&mut self, now: Moment, from: Option<Ordinal>) -> Vec<Part> {
        let (Recall::NotYet, Some(from)) = (self.recall, from) else {
            return Vec::new();
        };

        let parts = self.buffer.to_recall(from);
        if !parts.is_empty() {
            self.recall = Recall::Asked(now + HOLD);
            self.due = Some(now + HOLD);
        }

        parts
    }

    fn complain(&mut self, now: Moment, longest: Duration, generation: Generation) -> Missing {
        self.complaints += 1;
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

    fn at(horizon: u32) -> Assembly {
        let mut assembly = Assembly::new(1400);
        assembly.sent(Generation(horizon));
        assembly.resolve(0..horizon);
        assembly
    }

    #[test]
    fn lies_between_true_words_move_nothing() {
        let mut assembly = at(100);
        for n in 0..10_000u32 {
            assembly.sent(Generation(u32::MAX - 1 - n));
            assembly.sent(Generation(100 + n / 1000));
        }

        assert_eq!(
            (
                assembly.horizon,
                assembly.is_resolved(99),
                assembly.is_resolved(120)
            ),
            (109, true, false)
        );
    }

    #[test]
    fn whoever_was_deaf_for_long_believes_what_is_said_again_and_again() {
        let mut assembly = at(100);
        (0..=CONTRADICTIONS).for_each(|_| assembly.sent(Generation(500)));
        assert_eq!(assembly.horizon, 500);
        assert_eq!(
            assembly.unresolved(2),
            [100, 101],
            "what passed by is still to be given up"
        );
        assembly.due(Moment(0), COMING, None, || COMING);

        assert!(assembly.take_gave_up() && assembly.unresolved(1) == [500 - KEPT_GENERATIONS]);
    }

    #[test]
    fn a_lie_that_came_first_is_found_out() {
        let mut assembly = at(u32::MAX - 1);
        (0..=CONTRADICTIONS).for_each(|_| assembly.sent(Generation(7)));
        assert_eq!(
            (
                assembly.horizon,
                assembly.is_resolved(3),
                assembly.is_resolved(8)
            ),
            (7, false, false)
        );
    }

    #[test]
    fn a_sender_that_does_not_wait_for_the_disk_fills_no_memory() {
        const BLOCK: u32 = 2 << 20;
        let (mut assembly, wants) = (Assembly::new(60_000), [0..1000].into_iter().collect());
        let (mut waiting, mut most) = (Vec::new(), 0);
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
                waiting.extend(assembly.symbol(Moment(1), &symbol, &wants));
            }
            most = most.max(assembly.held());
            // Late, the disk takes some.
            if number == 80 {
                assert_eq!(waiting.len() as u64, MAX_BYTES / (u64::from(BLOCK) + 1));
                waiting
                    .drain(..5)
                    .for_each(|delivery| assembly.recycle(delivery.payload));
            }
        }

        assert_eq!(
            waiting.len() as u64,
            MAX_BYTES / (u64::from(BLOCK) + 1),
            "as many again"
        );

        assert!(most as u64 <= MAX_BYTES, "{most}");
    }
}
