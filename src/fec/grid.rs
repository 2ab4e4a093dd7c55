//! Layout of a payload in rows and columns of symbols. Independent of the code.

use std::ops::Range;

/// Largest payload, in bytes.
pub const MAX_PAYLOAD: u32 = 8 << 20;
/// Smallest symbol, in bytes.
pub const MIN_SYMBOL: u16 = 64;
/// Largest symbol, in bytes.
pub const MAX_SYMBOL: u16 = 65_000;
/// Largest number of symbols in one row.
pub const MAX_COLUMNS: u8 = 32;
/// Largest number of rows in one payload.
pub const MAX_ROWS: u32 = 32_767;

/// Division of a payload into symbols of one size, and of the symbols into rows, one symbol for
/// each column.
///
/// Symbol `row * columns + column` begins at that index times the symbol size, so a row is
/// contiguous. The last row and the last symbol may be short: the missing bytes count as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    payload: u32,
    symbol: u16,
    columns: u8,
}

impl Grid {
    /// Lays out `payload` bytes in symbols of `symbol` bytes and rows of `columns` symbols. `None`
    /// if the payload is empty or a cap of this module is exceeded.
    pub fn new(payload: u32, symbol: u16, columns: u8) -> Option<Self> {
        let grid = Self {
            payload,
            symbol,
            columns,
        };

        let legal = (1..=MAX_PAYLOAD).contains(&payload)
            && (MIN_SYMBOL..=MAX_SYMBOL).contains(&symbol)
            && (1..=MAX_COLUMNS).contains(&columns)
            && grid.symbols().div_ceil(u32::from(columns)) <= MAX_ROWS;
        legal.then_some(grid)
    }

    /// Bytes of the payload.
    pub fn payload(&self) -> u32 {
        self.payload
    }

    /// Bytes of a symbol.
    pub fn symbol(&self) -> u16 {
        self.symbol
    }

    /// Symbols in a row.
    pub fn columns(&self) -> u8 {
        self.columns
    }

    /// Number of symbols.
    pub fn symbols(&self) -> u32 {
        self.payload.div_ceil(u32::from(self.symbol))
    }

    /// Number of rows; the last may be short.
    pub fn rows(&self) -> u16 {
        self.symbols().div_ceil(u32::from(self.columns)) as u16
    }

    /// Number of columns with at least one symbol: fewer than all only in a payload of one short
    /// row. Coded symbols of the other columns are zero and need not be sent.
    pub fn used_columns(&self) -> u8 {
        self.symbols().min(u32::from(self.columns)) as u8
    }

    /// Bytes of a whole row, and of a coded row.
    pub fn row_bytes(&self) -> usize {
        usize::from(self.symbol) * usize::from(self.columns)
    }

    /// Row and column of symbol `index`; `None` past the end.
    pub fn place(&self, index: u32) -> Option<(u16, u8)> {
        let columns = u32::from(self.columns);
        (index < self.symbols()).then_some(((index / columns) as u16, (index % columns) as u8))
    }

    /// Index of the symbol in `row` and `column`; `None` if no such symbol exists.
    pub fn index(&self, row: u16, column: u8) -> Option<u32> {
        let index = u32::from(row) * u32::from(self.columns) + u32::from(column);
        (column < self.columns && index < self.symbols()).then_some(index)
    }

    /// Byte range of symbol `index` in the payload: short at the end, empty past it.
    pub fn bytes_of(&self, index: u32) -> Range<usize> {
        self.clip(
            index as usize * usize::from(self.symbol),
            usize::from(self.symbol),
        )
    }

    /// Symbols that a byte range of the payload touches.
    pub fn symbols_of(&self, bytes: &Range<usize>) -> Range<u32> {
        let size = usize::from(self.symbol);
        (bytes.start / size) as u32..bytes.end.div_ceil(size) as u32
    }

    /// Byte range of `columns` of `row` in the payload: short at the end, empty past it.
    pub(super) fn bytes_of_columns(&self, row: u16, columns: &Range<u8>) -> Range<usize> {
        let size = usize::from(self.symbol);
        let start = usize::from(row) * self.row_bytes() + usize::from(columns.start) * size;
        self.clip(start, columns.len() * size)
    }

    fn clip(&self, start: usize, len: usize) -> Range<usize> {
        let end = self.payload as usize;
        start.min(end)..start.saturating_add(len).min(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_the_caps_allow_is_a_grid() {
        for (payload, symbol, columns) in [
            (0, 1428, 8),
            (MAX_PAYLOAD + 1, 1428, 8),
            (9, 63, 8),
            (9, 65_001, 8),
            (9, 64, 0),
            (9, 64, 33),
        ] {
            assert_eq!(
                Grid::new(payload, symbol, columns),
                None,
                "{payload} {symbol} {columns}"
            );
        }

        assert_eq!(Grid::new(MAX_PAYLOAD, 64, 1), None, "too many rows");
        assert_eq!(
            Grid::new(MAX_ROWS * 64, 64, 1).map(|g| g.rows()),
            Some(32_767)
        );
        assert_eq!(
            Grid::new(1, 65_000, 32).map(|g| (g.rows(), g.used_columns())),
            Some((1, 1))
        );
    }

    proptest! {
        #[test]
        fn symbols_in_order_are_the_payload(
            payload in 1..20_000u32,
            symbol in 64..300u16,
            columns in 1..=32u8,
        ) {
            let grid = Grid::new(payload, symbol, columns).expect("legal");
            let mut at = 0;
            for index in 0..grid.symbols() {
                let bytes = grid.bytes_of(index);
                prop_assert_eq!(bytes.start, at);
                prop_assert!(!bytes.is_empty() && bytes.len() <= usize::from(symbol));
                prop_assert_eq!(grid.symbols_of(&bytes), index..index + 1);
                let (row, column) = grid.place(index).expect("a symbol");
                prop_assert_eq!(grid.index(row, column), Some(index));
                prop_assert_eq!(grid.bytes_of_columns(row, &(column..column + 1)), bytes.clone());
                prop_assert!(row < grid.rows());
                at = bytes.end;
            }

            prop_assert_eq!(at, payload as usize);
            prop_assert_eq!(grid.place(grid.symbols()), None);
            prop_assert!(grid.bytes_of(grid.symbols()).is_empty());
            prop_assert!(grid.bytes_of(u32::MAX).is_empty());

            prop_assert_eq!(grid.index(u16::MAX, columns), None);
        }
    }
}
