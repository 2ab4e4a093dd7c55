//! Coded rows out of a payload.

use std::ops::Range;

use super::combine::combine;
use super::{Grid, Kernel, coefficient};

/// How many coded rows are made in one go: more would only need more memory.
const BATCH: usize = 64;

/// Appends the coded rows `coded` to `out`, one after the other, [`Grid::row_bytes`] each: the symbol of column `c`
/// stands at `c` times the symbol's size.
///
/// Ask for all rows that are wanted at once: the payload is then read from memory once. The caller bounds how many.
/// What `payload` has less than the grid says counts as zero, what it has more is not looked at.
pub fn encode(kernel: Kernel, grid: &Grid, payload: &[u8], coded: Range<u16>, out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(grid.payload() as usize)];
    let sources: Vec<&[u8]> = payload.chunks(grid.row_bytes()).collect();
    for first in coded.clone().step_by(BATCH) {
        let batch = first..coded.end.min(first.saturating_add(BATCH as u16));
        let matrix: Vec<u8> = batch
            .clone()
            .flat_map(|row| (0..sources.len() as u16).map(move |j| coefficient(row, j)))
            .collect();
        let start = out.len();
        out.resize(start + batch.len() * grid.row_bytes(), 0);
        combine(
            kernel,
            &matrix,
            &sources,
            &mut out[start..],
            grid.row_bytes(),
        );
    }
}
