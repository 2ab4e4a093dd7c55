//! Encoding and decoding together.

mod coefficients;
mod losses;
mod malformed;

use std::collections::BTreeSet;

use super::*;

/// Payload of pseudorandom bytes.
fn payload(grid: &Grid) -> Vec<u8> {
    (0..grid.payload())
        .map(|n| (n.wrapping_mul(0x9E37_79B1) >> 11) as u8)
        .collect()
}

fn grid(payload: u32, symbol: u16, columns: u8) -> Grid {
    Grid::new(payload, symbol, columns).expect("legal")
}

/// Overwrites the symbols `lost` of a payload; returns the damaged payload and the lost rows by
/// column.
fn lose(
    grid: &Grid,
    payload: &[u8],
    lost: impl IntoIterator<Item = u32>,
) -> (Vec<u8>, Vec<Vec<u16>>) {
    let mut damaged = payload.to_vec();
    let mut columns = vec![Vec::new(); usize::from(grid.columns())];
    for index in lost.into_iter().collect::<BTreeSet<_>>() {
        let (row, column) = grid.place(index).expect("a symbol");
        damaged[grid.bytes_of(index)].fill(0xEE);
        columns[usize::from(column)].push(row);
    }

    (damaged, columns)
}

/// Symbols of coded rows, of all columns.
fn symbols<'a>(grid: &Grid, first: u16, rows: &'a [u8]) -> Vec<Coded<'a>> {
    let size = usize::from(grid.symbol());
    let symbol = |(row, column): (u16, usize)| {
        let start = usize::from(row - first) * grid.row_bytes() + column * size;
        Coded {
            row,
            column: column as u8,
            bytes: &rows[start..start + size],
        }
    };

    let count = (rows.len() / grid.row_bytes()) as u16;
    (first..first + count)
        .flat_map(|row| (0..usize::from(grid.columns())).map(move |c| (row, c)))
        .map(symbol)
        .collect()
}

fn restore(
    grid: &Grid,
    payload: &mut [u8],
    lost: &[Vec<u16>],
    coded: &[Coded<'_>],
) -> Result<(), Unsolved> {
    decode(Kernel::best(), grid, payload, lost, coded)
}

fn coded_rows(grid: &Grid, payload: &[u8], rows: std::ops::Range<u16>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(Kernel::best(), grid, payload, rows, &mut out);
    out
}
