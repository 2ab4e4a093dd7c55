//! Reassembles one generation: plain symbols in place, coded symbols aside until they can repair
//! losses.
//!
//! A generation is decoded only if a wanted block is incomplete. A column can be decoded once it
//! has as many coded symbols as it lacks plain ones, wanted or not, because every missing symbol is
//! an unknown of the code. Symbols with only blocks of the local disk are read back and count as
//! received ([`BlockPart`]). In a compressed payload no block fills a symbol, so nothing can be
//! read back.

mod column;
mod decode;
mod readback;

use std::ops::Range;

use column::{CodedSymbols, ColumnState};

use crate::fec::Grid;
use crate::id::{Generation, Ordinal};
use crate::proto::RangeSet;
use crate::proto::bitmap::Bitmap;
use crate::proto::generation::{Body, Encoding, Map, PlacedBlock};
use crate::wire::Symbol;
use crate::wire::message::{Missing, Ranges};

/// Largest number of symbol ranges in one loss report; above, the report only counts.
pub const MAX_SYMBOL_RANGES: usize = 64;
/// The same where hosts pass data on: the sender finds by the symbols which host lost them.
pub const MAX_RELAYED_SYMBOL_RANGES: usize = 512;

/// Part of a block and its position in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPart {
    /// The block.
    pub ordinal: Ordinal,
    /// Byte range within the block.
    pub bytes: Range<usize>,
    /// Start in the payload.
    pub at: usize,
}

/// Completeness of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Wanted symbols are missing, or the map of the generation has not arrived.
    Missing,
    /// The generation holds nothing wanted, or is illegal.
    Useless,
    /// All wanted blocks are complete.
    Whole,
}

/// Comparison of a symbol's grid with the generation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// Same grid as the first symbol.
    Agrees,
    /// Different grid.
    Differs,
    /// Different grid, and the first one has lost its majority.
    Outvotes,
}

/// Received parts of one generation.
#[derive(Debug, Default)]
pub struct Buffer {
    /// `None` until the first symbol arrives.
    grid: Option<Grid>,
    bytes: Vec<u8>,
    got: Bitmap,
    /// Number of leading symbols that have all arrived.
    prefix: u32,
    columns: Vec<ColumnState>,
    coded: CodedSymbols,
    /// The wanted blocks and their symbols.
    map: Option<WantedMap>,
    /// Missing symbols of wanted blocks, if the map is known.
    missing: u32,
    /// Accepted symbols, and symbols with a different grid.
    votes: (u32, u32),
}

/// The wanted part of a generation's map.
#[derive(Debug)]
struct WantedMap {
    blocks: Vec<PlacedBlock>,
    /// Symbols of the wanted blocks.
    symbols: Bitmap,
    body: Body,
}

impl Buffer {
    /// Returns true after the first symbol.
    pub fn has_begun(&self) -> bool {
        self.grid.is_some()
    }

    /// Allocated bytes.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + self.coded.held()
    }

    /// Size of the payload in bytes.
    pub fn payload(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Counts a symbol with the given grid. A forged first symbol costs only the symbols before the
    /// majority turns.
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

    /// Adds a symbol. Returns false for a duplicate, unneeded or malformed one.
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

        // Exact capacity: generations of a session have similar sizes, and spare buffers keep
        // theirs.
        self.bytes
            .reserve_exact((grid.payload() as usize).saturating_sub(self.bytes.len()));
        self.bytes.resize(grid.payload() as usize, 0);
        self.got = Bitmap::new(grid.symbols());
        let columns = u32::from(grid.columns());
        let rows_of = |column: u32| grid.symbols().saturating_sub(column).div_ceil(columns);
        let column = |c| ColumnState {
            lost: rows_of(c),
            needed: rows_of(c),
            ..ColumnState::default()
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

    /// Counts a symbol stored in place.
    fn arrived(&mut self, grid: Grid, index: u32) {
        let column = &mut self.columns[(index % u32::from(grid.columns())) as usize];
        column.lost -= 1;
        match &self.map {
            None => column.needed -= 1,
            Some(map) if map.symbols.get(index) => {
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
        if !whole || column.need() == 0 || !self.coded.insert(place, symbol.bytes) {
            return false;
        }

        column.coded += 1;
        true
    }

    /// Returns the completeness of the blocks in `wants`.
    pub fn progress(&mut self, wants: &RangeSet) -> Progress {
        loop {
            if self.map.is_none() && self.read_map(wants).is_err() {
                return Progress::Useless;
            }
            match &self.map {
                Some(map) if map.blocks.is_empty() => return Progress::Useless,
                Some(_) if self.missing == 0 => return Progress::Whole,
                _ => {}
            }
            if !self.decode() {
                return Progress::Missing;
            }
        }
    }

    /// Parses the map once enough leading symbols are present.
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

        // A compressed frame is needed as a whole for any of its blocks.
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

        self.map = Some(WantedMap {
            blocks,
            symbols: wanted,
            body,
        });
        Ok(())
    }

    /// Returns the losses to report, with the symbols in at most `most` ranges.
    pub fn missing(&self, generation: Generation, most: usize) -> Missing {
        let Some(grid) = self.grid else {
            return Missing {
                generation,
                need: Vec::new(),
                symbols: Ranges::default(),
            };
        };

        let need: Vec<u32> = self.columns.iter().map(ColumnState::need).collect();
        let columns = u64::from(grid.columns());
        let wanted = |&i: &u64| match &self.map {
            Some(map) => map.symbols.get(i as u32),
            None => true,
        };

        let open = self
            .got
            .gaps()
            .flatten()
            .filter(wanted)
            .filter(|i| need[(i % columns) as usize] > 0);

        let symbols: RangeSet = open.map(|i| i..i + 1).collect();
        let named: Vec<Range<u64>> = if symbols.range_count() <= most {
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

    /// Returns the payload and, if known, the positions of its content and of the wanted blocks.
    pub fn into_parts(self) -> (Vec<u8>, Option<(Body, Vec<PlacedBlock>)>) {
        (self.bytes, self.map.map(|map| (map.body, map.blocks)))
    }
}

#[cfg(test)]
mod tests;
