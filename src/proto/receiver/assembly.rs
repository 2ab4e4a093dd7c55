//! Putting generations together from symbols, and noticing which are missing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Generation;
use crate::proto::RangeSet;
use crate::proto::bits::Bits;
use crate::proto::generation::{Body, Encoding, Geometry, Map, Placed};
use crate::units::Moment;
use crate::wire::Symbol;
use crate::wire::message::{MAX_NACKS, Missing, Ranges};

/// The most generations that are open at a time.
const MAX_OPEN: usize = 24;
/// The most ranges of symbols that one negative acknowledgement names for a generation.
const MAX_SYMBOL_RANGES: usize = 128;
/// A generation so far behind the newest is not repaired by the sender, which keeps about as many.
const KEPT: u32 = 15;
/// A generation of which nothing comes after so many negative acknowledgements is given up.
const MAX_TRIES: u32 = 12;
/// The first wait for a repair; doubled while nothing comes.
const FIRST_WAIT: Duration = Duration::from_millis(25);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_millis(800);

/// A generation of which all wanted blocks have arrived.
#[derive(Debug)]
pub struct Delivery {
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Where the content is in them.
    pub body: Body,
    /// The wanted blocks and where in the plain content they are.
    pub blocks: Vec<Placed>,
}

/// The generations of one session.
#[derive(Debug)]
pub struct Assembly {
    symbol: u16,
    open: BTreeMap<u32, Buffer>,
    /// Generations that need nothing more.
    resolved: RangeSet,
    /// Every generation below this was sent in full.
    horizon: u32,
    /// A generation was given up: what it held has to be asked for again.
    gave_up: bool,
    spare: Vec<Vec<u8>>,
}

impl Assembly {
    /// For a session whose symbols have `symbol` bytes.
    pub fn new(symbol: u16) -> Self {
        let (open, resolved) = (BTreeMap::new(), RangeSet::default());
        Self { symbol, open, resolved, horizon: 0, gave_up: false, spare: Vec::new() }
    }

    /// Forgets what is open and what was sent in full until now: when we begin to listen, and when we stop.
    pub fn rest(&mut self) {
        self.open.clear();
        self.resolved.insert(0..u64::from(self.horizon));
    }

    /// Whether every generation that was sent in full is settled.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty() && self.unresolved(1).is_empty()
    }

    /// Takes back a buffer for a later generation.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < 4 {
            self.spare.push(buffer);
        }
    }

    /// Takes a symbol; gives the generation when it is whole as far as `wants` go.
    pub fn symbol(&mut self, symbol: &Symbol<'_>, wants: &RangeSet) -> Option<Delivery> {
        let number = symbol.header.generation.0;
        self.heard(number);
        if wants.is_empty() || self.resolved.contains(u64::from(number)) {
            return None;
        }
        let geometry = Geometry::of(&symbol.header, self.symbol)?;
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&number) {
            return None;
        }
        let spare = &mut self.spare;
        let buffer = self.open.entry(number).or_insert_with(Buffer::empty);
        if !buffer.take(geometry, symbol, || spare.pop().unwrap_or_default()) {
            return None;
        }
        let progress = buffer.progress(wants);
        if progress == Progress::Missing {
            return None;
        }
        self.resolved.insert(u64::from(number)..u64::from(number) + 1);
        let buffer = self.open.remove(&number)?;
        match buffer.map {
            Some((blocks, body, _)) if progress == Progress::Whole => {
                Some(Delivery { payload: buffer.bytes, body, blocks })
            }
            _ => {
                self.recycle(buffer.bytes);
                None
            }
        }
    }

    /// The sender has begun generation `number`: those before it were sent in full.
    fn heard(&mut self, number: u32) {
        self.horizon = self.horizon.max(number);
    }

    /// The sender has sent all generations below `sent` in full.
    pub fn sent(&mut self, sent: Generation) {
        self.horizon = self.horizon.max(sent.0);
    }

    /// The first `most` generations below the horizon that are not resolved.
    fn unresolved(&self, most: usize) -> Vec<u32> {
        let mut found = Vec::new();
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

    /// What is missing of generations that were sent in full and whose wait is over; `delay` spreads first reports.
    pub fn missing(&mut self, now: Moment, delay: Duration) -> Vec<Missing> {
        self.forget_old();
        let mut report = Vec::new();
        for number in self.unresolved(MAX_OPEN.min(MAX_NACKS)) {
            if self.open.len() >= MAX_OPEN && !self.open.contains_key(&number) {
                break;
            }
            let buffer = self.open.entry(number).or_insert_with(Buffer::empty);
            match buffer.nack {
                None => buffer.nack = Some(now + delay),
                Some(due) if due <= now && buffer.nacks == MAX_TRIES => {
                    self.open.remove(&number);
                    self.resolved.insert(u64::from(number)..u64::from(number) + 1);
                    self.gave_up = true;
                }
                Some(due) if due <= now => {
                    buffer.nacks += 1;
                    buffer.nack = Some(now + buffer.wait);
                    buffer.wait = (buffer.wait * 2).min(LONGEST_WAIT);
                    report.push(buffer.missing(Generation(number)));
                }
                Some(_) => {}
            }
        }
        report
    }

    /// Gives up what the sender does not keep any more.
    fn forget_old(&mut self) {
        let oldest = self.horizon.saturating_sub(KEPT);
        if self.unresolved(1).first().is_some_and(|&n| n < oldest) {
            self.open = self.open.split_off(&oldest);
            self.resolved.insert(0..u64::from(oldest));
            self.gave_up = true;
        }
    }

    /// Whether a generation was given up since the last call: its blocks have to be asked for again.
    pub fn take_gave_up(&mut self) -> bool {
        std::mem::take(&mut self.gave_up)
    }

    /// When [`Assembly::missing`] is worth a call.
    pub fn timeout(&self, now: Moment) -> Option<Moment> {
        let unresolved = self.unresolved(MAX_OPEN.min(MAX_NACKS));
        let has_room = self.open.len() < MAX_OPEN;
        let due = |n: &u32| match self.open.get(n) {
            Some(buffer) => Some(buffer.nack.unwrap_or(now)),
            None => has_room.then_some(now),
        };
        unresolved.iter().filter_map(due).min()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Symbols of wanted blocks are missing, or it is not known yet what the generation holds.
    Missing,
    /// Nothing in it is wanted, or it is not legal.
    Useless,
    /// All wanted blocks are there.
    Whole,
}

#[derive(Debug)]
struct Buffer {
    /// Unknown while nothing of the generation has arrived.
    geometry: Option<Geometry>,
    bytes: Vec<u8>,
    got: Bits,
    /// Symbols at the beginning that have all arrived.
    prefix: u32,
    /// The wanted blocks, where the content is, and how many symbols of them are missing.
    map: Option<(Vec<Placed>, Body, Needed)>,
    nack: Option<Moment>,
    wait: Duration,
    /// Negative acknowledgements since the last symbol.
    nacks: u32,
}

#[derive(Debug)]
struct Needed {
    symbols: Bits,
    missing: u32,
}

impl Buffer {
    fn empty() -> Self {
        let (geometry, bytes, got) = (None, Vec::new(), Bits::default());
        Self { geometry, bytes, got, prefix: 0, map: None, nack: None, wait: FIRST_WAIT, nacks: 0 }
    }

    /// Puts the symbol in its place; false when it was there already or does not fit.
    fn take(&mut self, geometry: Geometry, symbol: &Symbol<'_>, memory: impl FnOnce() -> Vec<u8>) -> bool {
        if self.geometry.is_none() {
            self.geometry = Some(geometry);
            self.bytes = memory();
            self.bytes.resize(geometry.payload as usize, 0);
            self.got = Bits::new(geometry.symbols());
        }
        let index = u32::from(symbol.header.row) * u32::from(geometry.columns) + u32::from(symbol.header.column);
        let place = geometry.bytes_of(index);
        if self.geometry != Some(geometry) || place.len() != symbol.bytes.len() || !self.got.set(index) {
            return false;
        }
        self.bytes[place].copy_from_slice(symbol.bytes);
        (self.wait, self.nacks) = (FIRST_WAIT, 0);
        if let Some((_, _, needed)) = &mut self.map
            && needed.symbols.get(index)
        {
            needed.missing -= 1;
        }
        true
    }

    fn progress(&mut self, wants: &RangeSet) -> Progress {
        if self.map.is_none() {
            match self.read_map(wants) {
                Ok(true) => {}
                Ok(false) => return Progress::Missing,
                Err(_) => return Progress::Useless,
            }
        }
        match &self.map {
            Some((blocks, _, _)) if blocks.is_empty() => Progress::Useless,
            Some((_, _, needed)) if needed.missing == 0 => Progress::Whole,
            _ => Progress::Missing,
        }
    }

    /// Reads the map when enough of the beginning is there.
    fn read_map(&mut self, wants: &RangeSet) -> Result<bool, &'static str> {
        let Some(geometry) = self.geometry else { return Ok(false) };
        let before = self.prefix;
        while self.got.get(self.prefix) {
            self.prefix += 1;
        }
        if self.prefix == before {
            return Ok(false);
        }
        let front = geometry.bytes_of(self.prefix - 1).end;
        let Some((map, body)) = Map::parse(&self.bytes[..front], self.bytes.len())? else { return Ok(false) };
        let blocks: Vec<Placed> = map.placed().filter(|p| wants.contains(p.ordinal.0)).collect();
        // Of a frame all is needed for any block.
        let bytes_of = |block: &Placed| match body.encoding {
            Encoding::Plain => body.start + block.bytes.start..body.start + block.bytes.end,
            Encoding::Zstd => body.start..self.bytes.len(),
        };
        let needed: RangeSet = blocks
            .iter()
            .map(|b| geometry.symbols_of(&bytes_of(b)))
            .map(|symbols| u64::from(symbols.start)..u64::from(symbols.end))
            .collect();
        let mut symbols = Bits::new(geometry.symbols());
        let mut missing = 0;
        for index in needed.iter().flatten().map(|index| index as u32) {
            if symbols.set(index) && !self.got.get(index) {
                missing += 1;
            }
        }
        self.map = Some((blocks, body, Needed { symbols, missing }));
        Ok(true)
    }

    fn missing(&self, generation: Generation) -> Missing {
        let Some(geometry) = self.geometry else {
            return Missing { generation, need: 0, symbols: Ranges::default() };
        };
        let mut missing: RangeSet = self.got.gaps().collect();
        if let Some((_, _, needed)) = &self.map {
            needed.symbols.gaps().for_each(|r| missing.remove(r));
        }
        let mut per_column = vec![0; usize::from(geometry.columns)];
        missing.iter().flatten().for_each(|i| per_column[i as usize % usize::from(geometry.columns)] += 1);
        let need = per_column.into_iter().max().unwrap_or(0);
        Missing { generation, need, symbols: Ranges(missing.cover(MAX_SYMBOL_RANGES).iter().collect()) }
    }
}
