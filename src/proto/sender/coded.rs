//! Coded symbols of one generation: how many each column needs, and rows built ahead.

use std::ops::Range;

use crate::fec::{self, Grid, Kernel};

/// Coded rows built at once; the payload is read once for all of them.
const CODED_BATCH: u32 = 4;

/// Coded symbols of a generation.
#[derive(Debug)]
pub struct CodedRepairs {
    columns: Vec<CodedColumn>,
    rows: CodedRows,
}

/// Coded symbols of a column.
#[derive(Debug, Clone, Default)]
struct CodedColumn {
    /// Data counter of each coded symbol sent.
    sent: Vec<u64>,
    /// Required number of coded symbols.
    wanted: u32,
}

/// Coded rows built ahead.
#[derive(Debug, Default)]
struct CodedRows {
    first: u32,
    bytes: Vec<u8>,
}

/// Position of a coded symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CodedSymbol {
    /// Row among the coded ones.
    pub row: u32,
    /// Column.
    pub column: usize,
}

impl CodedRepairs {
    /// Creates the state of a generation without coded symbols.
    pub fn new(grid: &Grid) -> Self {
        Self {
            columns: vec![CodedColumn::default(); usize::from(grid.columns())],
            rows: CodedRows::default(),
        }
    }

    /// Returns the unsent symbol in the lowest row.
    pub fn next_unsent(&self) -> Option<CodedSymbol> {
        let open = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| (c.sent.len() as u32) < c.wanted);
        open.map(|(column, c)| CodedSymbol {
            row: c.sent.len() as u32,
            column,
        })
        .min()
    }

    /// Returns the number of a column's symbols sent by data counter `seen`.
    pub fn sent_by(&self, column: usize, seen: u64) -> u32 {
        let column = self.columns.get(column);
        column.map_or(0, |c| c.sent.partition_point(|&at| at <= seen) as u32)
    }

    /// Returns how many more symbols have to be sent if each column needs as many as in `wanted`.
    pub fn missing(&self, wanted: &[u32]) -> u64 {
        let columns = self.columns.iter().zip(wanted);
        columns
            .map(|(c, &wanted)| u64::from(wanted.saturating_sub(c.wanted)))
            .sum()
    }

    /// Raises the number of symbols in each column to that in `wanted`.
    pub fn want(&mut self, wanted: &[u32]) {
        for (column, &wanted) in self.columns.iter_mut().zip(wanted) {
            column.wanted = column.wanted.max(wanted);
        }
    }

    /// Returns the bytes of a symbol, and builds its row if necessary.
    pub fn bytes_of(&mut self, symbol: CodedSymbol, grid: &Grid, payload: &[u8]) -> &[u8] {
        if self.range_of(symbol, grid).is_none() {
            self.build_rows(symbol.row, grid, payload);
        }
        let range = self.range_of(symbol, grid).unwrap_or_default();
        &self.rows.bytes[range]
    }

    fn range_of(&self, symbol: CodedSymbol, grid: &Grid) -> Option<Range<usize>> {
        let size = usize::from(grid.symbol());
        let row = symbol.row.checked_sub(self.rows.first)? as usize;
        let start = (row * self.columns.len() + symbol.column) * size;
        (start + size <= self.rows.bytes.len()).then(|| start..start + size)
    }

    fn build_rows(&mut self, row: u32, grid: &Grid, payload: &[u8]) {
        let wanted = self.columns.iter().map(|c| c.wanted).max();
        let last = wanted.unwrap_or(row + 1);
        let rows = row as u16..last.min(row + CODED_BATCH).max(row + 1) as u16;

        self.rows.first = row;
        self.rows.bytes.clear();
        fec::encode(Kernel::best(), grid, payload, rows, &mut self.rows.bytes);
    }

    /// Records that a symbol was sent under data counter `at`.
    pub fn on_sent(&mut self, symbol: CodedSymbol, at: u64) {
        self.columns[symbol.column].sent.push(at);
    }

    /// Frees the rows built ahead.
    pub fn forget_rows(&mut self) {
        self.rows = CodedRows::default();
    }
}
