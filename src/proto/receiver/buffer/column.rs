//! The state of a generation's columns, and the coded symbols that repair them.

use std::collections::HashSet;

use crate::fec;

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
    pub(super) fn iter(&self, size: usize) -> impl Iterator<Item = fec::Coded<'_>> {
        self.places
            .iter()
            .zip(self.bytes.chunks_exact(size))
            .map(|(&(row, column), bytes)| fec::Coded { row, column, bytes })
    }
}
