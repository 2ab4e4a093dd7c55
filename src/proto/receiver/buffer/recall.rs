//! Symbols that a host need not be sent: they hold only blocks that it has.
//!
//! Such a symbol is no more than an unknown of its column as long as it is lost: every one of them that the disk gives
//! back makes one coded symbol needless. Only what lowers a need is asked for, and never without bound.

use std::ops::Range;

use super::{Buffer, Column};
use crate::fec::Grid;
use crate::id::Ordinal;
use crate::proto::generation::{Encoding, Map, PlacedBlock};

/// The most blocks that the disk is asked to read for one generation.
const MAX_BLOCKS: usize = 1024;
/// The most bytes that these blocks have together.
const MAX_BYTES: usize = 4 << 20;

/// A part of a block, and where it lies in a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The block.
    pub ordinal: Ordinal,
    /// Which bytes of it.
    pub bytes: Range<usize>,
    /// Where in the payload they begin.
    pub at: usize,
}

impl Buffer {
    /// What the disk may have of lost symbols in which nothing is wanted, in columns that need coded ones: parts in the
    /// order of the payload, of blocks from the ordinal `from` on. Nothing as long as the map is unknown.
    pub fn to_recall(&self, from: Ordinal) -> Vec<Part> {
        let (Some(grid), Some((_, wanted, body))) = (self.grid, &self.map) else {
            return Vec::new();
        };

        if body.encoding != Encoding::Plain
            || !self.columns.iter().any(Column::has_needless_unknowns)
        {
            return Vec::new();
        }

        // It was read once already, and is not worth being kept for this.
        let Some(Ok(Some((map, _)))) = self
            .bytes
            .get(..body.start)
            .map(|front| Map::parse(front, self.bytes.len()))
        else {
            return Vec::new();
        };

        let blocks: Vec<PlacedBlock> = map.placed().collect();
        let mut plan = Recall {
            blocks: &blocks,
            start: body.start,
            from,
            counted: 0,
            budget: Budget::default(),
        };

        let columns = u32::from(grid.columns());
        let lost = self.got.gaps().flatten().map(|index| index as u32);
        let needless =
            lost.filter(|&i| !wanted.get(i) && self.columns[(i % columns) as usize].need() > 0);
        let mut parts = Vec::new();

        for index in needless {
            if !plan.add(&grid.bytes_of(index), &mut parts) {
                break;
            }
        }

        parts
    }

    /// Takes what the disk has read of what [`Buffer::to_recall`] named; whether that completes any symbol.
    pub fn recalled(&mut self, parts: &[(Part, Vec<u8>)]) -> bool {
        let Some(grid) = self.grid else { return false };
        let symbol = |(part, _): &(Part, Vec<u8>)| part.at / usize::from(grid.symbol());
        let mut changed = false;
        for parts in parts.chunk_by(|a, b| symbol(a) == symbol(b)) {
            let index = parts
                .first()
                .and_then(|first| u32::try_from(symbol(first)).ok());
            changed |= index.is_some_and(|index| self.take_recalled(grid, index, parts));
        }

        changed
    }

    /// The parts of one symbol, when none of them is missing.
    fn take_recalled(&mut self, grid: Grid, index: u32, parts: &[(Part, Vec<u8>)]) -> bool {
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
        // With fewer unknowns those that depended on each other may do.
        self.columns[(index % u32::from(grid.columns())) as usize].extra = 0;

        true
    }
}

impl Column {
    /// Whether it needs coded symbols for more than what is wanted of it.
    fn has_needless_unknowns(&self) -> bool {
        self.need() > 0 && self.lost > self.needed
    }
}

/// What was asked for so far.
#[derive(Debug, Default)]
struct Budget {
    blocks: usize,
    bytes: usize,
}

/// Parts of blocks in the making.
struct Recall<'a> {
    blocks: &'a [PlacedBlock],
    /// Where in the payload the content begins.
    start: usize,
    from: Ordinal,
    /// The blocks before this one are paid for, as far as they are needed.
    counted: usize,
    budget: Budget,
}

impl Recall<'_> {
    /// Adds the parts that make up these bytes of the payload, when the disk can be asked for all of them; false when
    /// that would be too much.
    fn add(&mut self, symbol: &Range<usize>, parts: &mut Vec<Part>) -> bool {
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
        let (all_blocks, all_bytes) = (self.budget.blocks + fresh.len(), self.budget.bytes + bytes);
        if all_blocks > MAX_BLOCKS || all_bytes > MAX_BYTES {
            return false;
        }

        self.budget = Budget {
            blocks: all_blocks,
            bytes: all_bytes,
        };

        self.counted = self.counted.max(end);
        for block in blocks.iter().filter(|b| !b.bytes.is_empty()) {
            let (first, last) = (self.start + block.bytes.start, self.start + block.bytes.end);
            let at = symbol.start.max(first);
            let bytes = at - first..symbol.end.min(last) - first;
            parts.push(Part {
                ordinal: block.ordinal,
                bytes,
                at,
            });
        }

        true
    }
}
