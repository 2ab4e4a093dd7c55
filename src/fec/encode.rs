//! Makes coded rows from a payload.

use std::ops::Range;

use super::combine::combine;
use super::{Grid, Kernel, coefficient};

/// Coded rows computed together: more would only need more memory.
const BATCH: usize = 64;

/// Appends the coded rows `coded` to `out`, one after another, [`Grid::row_bytes`] each. The symbol
/// of column `c` begins at `c` times the symbol size.
///
/// Request all needed rows in one call, so that the payload is read from memory once. The caller
/// limits the number of rows. A `payload` shorter than the grid counts as padded with zeros; bytes
/// beyond the grid are ignored.
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
