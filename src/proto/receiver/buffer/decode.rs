//! Recovers lost symbols of a generation from its coded ones, column by column.

use std::collections::HashSet;

use super::Buffer;
use crate::fec::{self, Kernel, Unsolved};

/// State of one column.
#[derive(Debug, Clone, Default)]
pub(super) struct ColumnState {
    /// Missing plain symbols.
    pub(super) lost: u32,
    /// Missing plain symbols of wanted blocks; all missing ones until the map is known.
    pub(super) needed: u32,
    /// Received coded symbols.
    pub(super) coded: u32,
    /// Further coded symbols needed because received ones are linearly dependent.
    pub(super) extra: u32,
}

impl ColumnState {
    /// Number of further coded symbols needed to decode the column.
    pub(super) fn need(&self) -> u32 {
        if self.needed == 0 {
            0
        } else {
            (self.lost + self.extra).saturating_sub(self.coded)
        }
    }
}

/// The coded symbols of a generation.
#[derive(Debug, Default)]
pub(super) struct CodedSymbols {
    /// Row and column of each symbol.
    places: Vec<(u16, u8)>,
    /// The symbols, concatenated in the order of `places`.
    bytes: Vec<u8>,
    /// The contents of `places` for lookup; at most the number of symbols in the generation.
    taken: HashSet<(u16, u8)>,
}

impl CodedSymbols {
    /// Adds a symbol at its row and column. Returns false for a duplicate.
    pub(super) fn insert(&mut self, place: (u16, u8), symbol: &[u8]) -> bool {
        let new = self.taken.insert(place);
        if new {
            self.bytes.extend_from_slice(symbol);
            self.places.push(place);
        }

        new
    }

    /// Returns true without any symbol.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Allocated bytes.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Iterates over the symbols, of `size` bytes each.
    fn iter(&self, size: usize) -> impl Iterator<Item = fec::Coded<'_>> {
        self.places
            .iter()
            .zip(self.bytes.chunks_exact(size))
            .map(|(&(row, column), bytes)| fec::Coded { row, column, bytes })
    }
}

impl Buffer {
    /// Decodes missing symbols once all relevant columns have enough. Returns true if any symbol
    /// was recovered.
    pub(super) fn decode(&mut self) -> bool {
        let Some(grid) = self.grid else { return false };
        if self.coded.is_empty() || self.columns.iter().any(|c| c.need() > 0) {
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
        let coded: Vec<fec::Coded<'_>> = self.coded.iter(symbol).collect();
        let unsolved = match fec::decode(Kernel::best(), &grid, &mut self.bytes, &lost, &coded) {
            Ok(()) => Vec::new(),
            Err(Unsolved::Short(columns)) => columns,
            // Unreachable: the decoder counts symbols in the same way.
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
}
