//! Reads back symbols of blocks the host already has, so that the sender need not send them.
//!
//! A missing symbol of such blocks is just an unknown of its column. Each one recovered from disk
//! saves one coded symbol. Only symbols that lower a need are requested, up to a limit.

use std::ops::Range;

use super::column::ColumnState;
use super::{BlockPart, Buffer};
use crate::fec::Grid;
use crate::id::Ordinal;
use crate::proto::generation::{Encoding, Map, PlacedBlock};

/// Largest number of blocks to read for one generation.
const MAX_READ_BLOCKS: usize = 1024;
/// Largest total size of the blocks to read for one generation.
const MAX_READ_BYTES: usize = 4 << 20;

impl Buffer {
    /// Returns the parts to read back for missing, unwanted symbols of columns that need coded
    /// ones.
    ///
    /// The parts are in payload order, of blocks with ordinals from `from` on. Empty until the map
    /// is known.
    pub fn readable_parts(&self, from: Ordinal) -> Vec<BlockPart> {
        let (Some(grid), Some(wanted)) = (self.grid, &self.map) else {
            return Vec::new();
        };

        let body = &wanted.body;
        if body.encoding != Encoding::Plain
            || !self.columns.iter().any(ColumnState::has_needless_unknowns)
        {
            return Vec::new();
        }

        // Parsed a second time, which is cheaper than keeping the map for this rare case.
        let Some(Ok(Some((map, _)))) = self
            .bytes
            .get(..body.start)
            .map(|front| Map::parse(front, self.bytes.len()))
        else {
            return Vec::new();
        };

        let blocks: Vec<PlacedBlock> = map.placed().collect();
        let mut plan = PartListBuilder {
            blocks: &blocks,
            start: body.start,
            from,
            counted: 0,
            budget: ReadBudget::default(),
        };

        let columns = u32::from(grid.columns());
        let lost = self.got.gaps().flatten().map(|index| index as u32);
        let needless = lost
            .filter(|&i| !wanted.symbols.get(i) && self.columns[(i % columns) as usize].need() > 0);

        let mut parts = Vec::new();
        for index in needless {
            if !plan.add(&grid.bytes_of(index), &mut parts) {
                break;
            }
        }

        parts
    }

    /// Adds parts read back after [`Buffer::readable_parts`]. Returns true if a symbol is complete.
    pub fn add_parts(&mut self, parts: &[(BlockPart, Vec<u8>)]) -> bool {
        let Some(grid) = self.grid else { return false };
        let symbol = |(part, _): &(BlockPart, Vec<u8>)| part.at / usize::from(grid.symbol());
        let mut changed = false;
        for parts in parts.chunk_by(|a, b| symbol(a) == symbol(b)) {
            let index = parts
                .first()
                .and_then(|first| u32::try_from(symbol(first)).ok());
            changed |= index.is_some_and(|index| self.take_recalled(grid, index, parts));
        }

        changed
    }

    /// Adds the parts of one symbol if none is missing.
    fn take_recalled(&mut self, grid: Grid, index: u32, parts: &[(BlockPart, Vec<u8>)]) -> bool {
        let place = grid.bytes_of(index);
        let mut end = place.start;
        for (part, bytes) in parts {
            if part.at != end {
                return false;
            }
            end += bytes.len();
        }

        if end != place.end || !self.got.set(index) {
            return false;
        }

        for (part, bytes) in parts {
            self.bytes[part.at..part.at + bytes.len()].copy_from_slice(bytes);
        }

        self.arrived(grid, index);
        // With fewer unknowns the dependent symbols may suffice.
        self.columns[(index % u32::from(grid.columns())) as usize].extra = 0;

        true
    }
}

impl ColumnState {
    /// Returns true if the column needs coded symbols for more than its wanted blocks.
    fn has_needless_unknowns(&self) -> bool {
        self.need() > 0 && self.lost > self.needed
    }
}

/// Blocks and bytes requested so far.
#[derive(Debug, Default)]
struct ReadBudget {
    blocks: usize,
    bytes: usize,
}

/// Builder of the list of parts.
struct PartListBuilder<'a> {
    blocks: &'a [PlacedBlock],
    /// Start of the content in the payload.
    start: usize,
    from: Ordinal,
    /// Blocks below are already part of the budget.
    counted: usize,
    budget: ReadBudget,
}

impl PartListBuilder<'_> {
    /// Adds the parts of the given payload range if the disk may have all of them. Returns false if
    /// the budget is exhausted.
    fn add(&mut self, symbol: &Range<usize>, parts: &mut Vec<BlockPart>) -> bool {
        let begin = self
            .blocks
            .partition_point(|b| self.start + b.bytes.end <= symbol.start);
        let end = self
            .blocks
            .partition_point(|b| self.start + b.bytes.start < symbol.end);
        let Some(blocks) = self.blocks.get(begin..end) else {
            return true;
        };

        if blocks.iter().any(|b| b.ordinal < self.from) {
            return true;
        }

        let fresh = self
            .blocks
            .get(begin.max(self.counted)..end)
            .unwrap_or_default();
        let bytes: usize = fresh.iter().map(|b| b.bytes.len()).sum();
        let all_blocks = self.budget.blocks + fresh.len();
        let all_bytes = self.budget.bytes + bytes;
        if all_blocks > MAX_READ_BLOCKS || all_bytes > MAX_READ_BYTES {
            return false;
        }

        self.budget = ReadBudget {
            blocks: all_blocks,
            bytes: all_bytes,
        };

        self.counted = self.counted.max(end);
        for block in blocks.iter().filter(|b| !b.bytes.is_empty()) {
            let first = self.start + block.bytes.start;
            let last = self.start + block.bytes.end;
            let at = symbol.start.max(first);
            let bytes = at - first..symbol.end.min(last) - first;
            parts.push(BlockPart {
                ordinal: block.ordinal,
                bytes,
                at,
            });
        }

        true
    }
}
