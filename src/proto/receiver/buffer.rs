//! One generation as it arrives: plain symbols in their places, coded ones aside until they mend what was lost.
//!
//! A generation of which every wanted block is there is never decoded. Else a column counts as mended when as many
//! coded symbols of it have come as it lacks plain ones, wanted or not: all that are lacking are unknowns of the code.
//! Those that hold only blocks that the host has are read back from its disk and count as received ([`Part`]); of a
//! payload that travels compressed no block makes a symbol, so that nothing of it can be read back.

mod recall;

use std::collections::HashSet;
use std::ops::Range;

pub use recall::Part;

use crate::fec::{self, Grid, Kernel, Unsolved};
use crate::id::Generation;
use crate::proto::RangeSet;
use crate::proto::bitmap::Bitmap;
use crate::proto::generation::{Body, Encoding, Map, PlacedBlock};
use crate::wire::Symbol;
use crate::wire::message::{Missing, Ranges};

/// The most ranges of symbols that one complaint names for a generation; where there are more, it only counts.
const MAX_SYMBOL_RANGES: usize = 64;

/// How far a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Symbols of wanted blocks are missing, or it is not known yet what the generation holds.
    Missing,
    /// Nothing in it is wanted, or it is not legal.
    Useless,
    /// All wanted blocks are there.
    Whole,
}

/// What a symbol's header says of how its generation lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// What the first one said.
    Agrees,
    /// Something else.
    Differs,
    /// Something else, as more than agree with the first one.
    Outvotes,
}

/// What has arrived of one generation.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Unknown while nothing of the generation has arrived.
    grid: Option<Grid>,
    bytes: Vec<u8>,
    got: Bitmap,
    /// Symbols at the beginning that have all arrived.
    prefix: u32,
    columns: Vec<Column>,
    /// The coded symbols one behind the other, and where each belongs.
    coded: Vec<u8>,
    places: Vec<(u16, u8)>,
    /// The same, to be looked up: no more than the symbols of the generation.
    taken: HashSet<(u16, u8)>,
    /// The wanted blocks, and the symbols that they lie in.
    map: Option<(Vec<PlacedBlock>, Bitmap, Body)>,
    /// Symbols of wanted blocks that are missing, when the map is known.
    missing: u32,
    /// Symbols that were taken, and those that lie differently.
    votes: (u32, u32),
}

/// One column.
#[derive(Debug, Clone, Default)]
struct Column {
    /// Plain symbols that have not arrived.
    lost: u32,
    /// Of them, those that lie in wanted blocks; all while it is not known which those are.
    needed: u32,
    /// Coded symbols that have.
    coded: u32,
    /// Coded symbols beyond the lost ones that it takes, because those that came depend on each other.
    extra: u32,
}

impl Column {
    /// How many more coded symbols mend it.
    fn need(&self) -> u32 {
        if self.needed == 0 {
            0
        } else {
            (self.lost + self.extra).saturating_sub(self.coded)
        }
    }
}

impl Buffer {
    /// Whether anything has come.
    pub fn has_begun(&self) -> bool {
        self.grid.is_some()
    }

    /// Bytes of memory that it takes.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + self.coded.capacity()
    }

    /// Bytes of its payload.
    pub fn payload(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Counts a symbol that lies as `grid` says. A forged first symbol costs the few that came until it was outvoted.
    pub fn vote(&mut self, grid: Grid) -> Vote {
        if self.grid.is_none_or(|own| own == grid) {
            return Vote::Agrees;
        }

        self.votes.1 += 1;
        if self.votes.1 > self.votes.0 {
            Vote::Outvotes
        } else {
            Vote::Differs
        }
    }

    /// Takes a symbol; false when it was there already, is not needed or does not fit.
    pub fn take(
        &mut self,
        grid: Grid,
        symbol: &Symbol<'_>,
        memory: impl FnOnce() -> Vec<u8>,
    ) -> bool {
        if self.grid.is_none() {
            self.begin(grid, memory());
        }

        if self.grid != Some(grid) {
            return false;
        }

        self.votes.0 += 1;
        let row = u32::from(symbol.header.row);
        match row.checked_sub(u32::from(grid.rows())) {
            None => self.take_plain(
                grid,
                row * u32::from(grid.columns()) + u32::from(symbol.header.column),
                symbol,
            ),
            Some(coded) => self.take_coded(grid, coded as u16, symbol),
        }
    }

    fn begin(&mut self, grid: Grid, memory: Vec<u8>) {
        self.grid = Some(grid);
        self.bytes = memory;

        // Exactly: all generations of a session are of about the same size, and what grew by doubling stays so.
        self.bytes
            .reserve_exact((grid.payload() as usize).saturating_sub(self.bytes.len()));
        self.bytes.resize(grid.payload() as usize, 0);
        self.got = Bitmap::new(grid.symbols());
        let columns = u32::from(grid.columns());
        let rows_of = |column: u32| grid.symbols().saturating_sub(column).div_ceil(columns);
        let column = |c| Column {
            lost: rows_of(c),
            needed: rows_of(c),
            ..Column::default()
        };

        self.columns = (0..columns).map(column).collect();
    }

    fn take_plain(&mut self, grid: Grid, index: u32, symbol: &Symbol<'_>) -> bool {
        let place = grid.bytes_of(index);
        if place.len() != symbol.bytes.len() || !self.got.set(index) {
            return false;
        }
        self.bytes[place].copy_from_slice(symbol.bytes);
        self.arrived(grid, index);
        true
    }

    /// Counts a symbol that is in its place now.
    fn arrived(&mut self, grid: Grid, index: u32) {
        let column = &mut self.columns[(index % u32::from(grid.columns())) as usize];
        column.lost -= 1;
        match &self.map {
            None => column.needed -= 1,
            Some((_, wanted, _)) if wanted.get(index) => {
                column.needed -= 1;
                self.missing -= 1;
            }
            Some(_) => {}
        }
    }

    fn take_coded(&mut self, grid: Grid, row: u16, symbol: &Symbol<'_>) -> bool {
        let place = (row, symbol.header.column);
        let Some(column) = self.columns.get_mut(usize::from(symbol.header.column)) else {
            return false;
        };

        let whole = symbol.bytes.len() == usize::from(grid.symbol());
        if !whole || column.need() == 0 || !self.taken.insert(place) {
            return false;
        }

        column.coded += 1;
        self.coded.extend_from_slice(symbol.bytes);
        self.places.push(place);

        true
    }

    /// How far the generation is, as far as `wants` go.
    pub fn progress(&mut self, wants: &RangeSet) -> Progress {
        loop {
            if self.map.is_none() && self.read_map(wants).is_err() {
                return Progress::Useless;
            }
            match &self.map {
                Some((blocks, ..)) if blocks.is_empty() => return Progress::Useless,
                Some(_) if self.missing == 0 => return Progress::Whole,
                _ => {}
            }
            if !self.mend() {
                return Progress::Missing;
            }
        }
    }

    /// Decodes what is lost when enough has come for all columns that matter; whether that changed anything.
    fn mend(&mut self) -> bool {
        let Some(grid) = self.grid else { return false };
        if self.places.is_empty() || self.columns.iter().any(|c| c.need() > 0) {
            return false;
        }

        let columns = u32::from(grid.columns());
        let mut lost = vec![Vec::new(); self.columns.len()];
        for index in self.got.gaps().flatten().map(|i| i as u32) {
            let column = (index % columns) as usize;
            if self.columns[column].needed > 0 {
                lost[column].push((index / columns) as u16);
            }
        }

        let symbol = usize::from(grid.symbol());
        let coded = self
            .places
            .iter()
            .zip(self.coded.chunks_exact(symbol))
            .map(|(&(row, column), bytes)| fec::Coded { row, column, bytes });

        let coded: Vec<fec::Coded<'_>> = coded.collect();
        let unsolved = match fec::decode(Kernel::best(), &grid, &mut self.bytes, &lost, &coded) {
            Ok(()) => Vec::new(),
            Err(Unsolved::Short(columns)) => columns,
            // We count symbols as the code does.
            Err(Unsolved::Malformed(_)) => return false,
        };

        let mut changed = false;
        for (column, rows) in lost.iter().enumerate() {
            match unsolved.iter().find(|u| usize::from(u.column) == column) {
                Some(short) => self.columns[column].extra += short.missing as u32,
                None => {
                    for index in rows
                        .iter()
                        .map(|&row| u32::from(row) * columns + column as u32)
                    {
                        if self.got.set(index) {
                            self.arrived(grid, index);
                            changed = true;
                        }
                    }
                }
            }
        }

        changed
    }

    /// Reads the map when enough of the beginning is there.
    fn read_map(&mut self, wants: &RangeSet) -> Result<(), &'static str> {
        let Some(grid) = self.grid else { return Ok(()) };
        let before = self.prefix;
        while self.got.get(self.prefix) {
            self.prefix += 1;
        }

        if self.prefix == before {
            return Ok(());
        }

        let front = grid.bytes_of(self.prefix - 1).end;
        let Some((map, body)) = Map::parse(&self.bytes[..front], self.bytes.len())? else {
            return Ok(());
        };

        let blocks: Vec<PlacedBlock> = map
            .placed()
            .filter(|p| wants.contains(p.ordinal.0))
            .collect();

        // Of a frame all is needed for any block.
        let bytes_of = |block: &PlacedBlock| match body.encoding {
            Encoding::Plain => body.start + block.bytes.start..body.start + block.bytes.end,
            Encoding::Zstd => body.start..self.bytes.len(),
        };

        let needed: RangeSet = blocks
            .iter()
            .map(|b| grid.symbols_of(&bytes_of(b)))
            .map(|symbols| u64::from(symbols.start)..u64::from(symbols.end))
            .collect();

        let mut wanted = Bitmap::new(grid.symbols());
        self.columns.iter_mut().for_each(|c| c.needed = 0);
        for index in needed.iter().flatten().map(|index| index as u32) {
            if wanted.set(index) && !self.got.get(index) {
                self.missing += 1;
                self.columns[(index % u32::from(grid.columns())) as usize].needed += 1;
            }
        }

        self.map = Some((blocks, wanted, body));
        Ok(())
    }

    /// What is missing, for the sender.
    pub fn missing(&self, generation: Generation) -> Missing {
        let Some(grid) = self.grid else {
            return Missing {
                generation,
                need: Vec::new(),
                symbols: Ranges::default(),
            };
        };

        let need: Vec<u32> = self.columns.iter().map(Column::need).collect();
        let columns = u64::from(grid.columns());
        let wanted = |&i: &u64| match &self.map {
            Some((_, wanted, _)) => wanted.get(i as u32),
            None => true,
        };

        let open = self
            .got
            .gaps()
            .flatten()
            .filter(wanted)
            .filter(|i| need[(i % columns) as usize] > 0);

        let symbols: RangeSet = open.map(|i| i..i + 1).collect();
        let named: Vec<Range<u64>> = if symbols.range_count() <= MAX_SYMBOL_RANGES {
            symbols.iter().collect()
        } else {
            Vec::new()
        };

        Missing {
            generation,
            need,
            symbols: Ranges(named),
        }
    }

    /// The payload; where its content and the wanted blocks are, when that is known.
    pub fn into_parts(self) -> (Vec<u8>, Option<(Body, Vec<PlacedBlock>)>) {
        (self.bytes, self.map.map(|(blocks, _, body)| (body, blocks)))
    }
}

#[cfg(test)]
mod tests;
