//! Recovers lost symbols from coded ones.
//!
//! Known symbols are subtracted from the coded symbols. The remainders are sums of the lost symbols
//! alone, and a matrix as small as the number of losses solves them. Adjacent columns with the same
//! lost rows and the same coded rows, as after the loss of a whole send, are treated as one long
//! vector.

use std::ops::Range;

use thiserror::Error;

use super::combine::combine;
use super::solve::{Solution, solve};
use super::{Grid, Kernel, coefficient};

/// Received coded symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coded<'a> {
    /// Coded row of the symbol.
    pub row: u16,
    /// Column of the symbol.
    pub column: u8,
    /// Content, as long as the grid's symbols.
    pub bytes: &'a [u8],
}

/// Column that cannot be solved yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Number of the column.
    pub column: u8,
    /// Further symbols needed, coded or lost ones: at least 1.
    pub missing: usize,
}

/// Reason why some lost symbols were not recovered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsolved {
    /// The arguments contradict each other; nothing was done.
    #[error("{0}")]
    Malformed(&'static str),
    /// These columns need more symbols; all others are solved.
    #[error("{} columns need more coded symbols", .0.len())]
    Short(Vec<Shortage>),
}

/// Fills in the lost symbols of `payload`. `lost` lists the lost rows of every column, ascending.
/// Their bytes in the payload are ignored; all other bytes must be present.
///
/// Ignores coded symbols with a column outside the grid or of another size, and the second of the
/// same row and column. A corrupt coded symbol gives corrupt output: verify the resulting blocks.
pub fn decode(
    kernel: Kernel,
    grid: &Grid,
    payload: &mut [u8],
    lost: &[Vec<u16>],
    coded: &[Coded<'_>],
) -> Result<(), Unsolved> {
    check(grid, payload, lost).map_err(Unsolved::Malformed)?;
    let arrived = by_column(grid, coded);
    let mut short = Vec::new();
    for run in runs(lost, &arrived) {
        let first = usize::from(run.start);
        let rows: Vec<u16> = arrived[first].iter().map(|(row, _)| *row).collect();
        match solve(kernel, &lost[first], &rows) {
            Ok(solution) => fill(
                kernel,
                grid,
                payload,
                &run,
                &lost[first],
                &arrived,
                &solution,
            ),
            Err(missing) => short.extend(run.map(|column| Shortage { column, missing })),
        }
    }

    if short.is_empty() {
        Ok(())
    } else {
        Err(Unsolved::Short(short))
    }
}

fn check(grid: &Grid, payload: &[u8], lost: &[Vec<u16>]) -> Result<(), &'static str> {
    if payload.len() != grid.payload() as usize {
        return Err("a payload of another size than its grid says");
    }

    if lost.len() != usize::from(grid.columns()) {
        return Err("another number of columns than the grid has");
    }

    for (rows, column) in lost.iter().zip(0..) {
        if !rows.is_sorted_by(|a, b| a < b) {
            return Err("lost rows that are not in order");
        }
        if rows
            .last()
            .is_some_and(|&row| grid.index(row, column).is_none())
        {
            return Err("a lost symbol past the end of the payload");
        }
    }

    Ok(())
}

/// Groups the received coded symbols by column, sorted by row.
fn by_column<'a>(grid: &Grid, coded: &[Coded<'a>]) -> Vec<Vec<(u16, &'a [u8])>> {
    let mut columns = vec![Vec::new(); usize::from(grid.columns())];
    for symbol in coded
        .iter()
        .filter(|symbol| symbol.bytes.len() == usize::from(grid.symbol()))
    {
        if let Some(column) = columns.get_mut(usize::from(symbol.column)) {
            column.push((symbol.row, symbol.bytes));
        }
    }

    for column in &mut columns {
        column.sort_by_key(|(row, _)| *row);
        column.dedup_by_key(|(row, _)| *row);
    }

    columns
}

/// Runs of adjacent columns with the same lost rows (at least one) and the same coded rows.
fn runs(lost: &[Vec<u16>], arrived: &[Vec<(u16, &[u8])>]) -> Vec<Range<u8>> {
    let same = |a: usize, b: usize| {
        let rows = |column: usize| arrived[column].iter().map(|(row, _)| *row);
        lost[a] == lost[b] && rows(a).eq(rows(b))
    };

    let mut runs: Vec<Range<u8>> = Vec::new();
    for (column, rows) in lost.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if usize::from(run.end) == column && same(usize::from(run.start), column) => {
                run.end += 1
            }
            _ if rows.is_empty() => {}
            _ => runs.push(column as u8..column as u8 + 1),
        }
    }

    runs
}

/// Fills in the lost rows of a run of columns.
fn fill(
    kernel: Kernel,
    grid: &Grid,
    payload: &mut [u8],
    run: &Range<u8>,
    lost: &[u16],
    arrived: &[Vec<(u16, &[u8])>],
    solution: &Solution,
) {
    let width = run.len() * usize::from(grid.symbol());
    let sums = sums_of_lost(kernel, grid, payload, run, lost, arrived, &solution.used);
    let sources: Vec<&[u8]> = sums.chunks_exact(width).collect();
    let mut symbols = vec![0; sums.len()];
    combine(kernel, &solution.inverse, &sources, &mut symbols, width);

    for (&row, symbols) in lost.iter().zip(symbols.chunks_exact(width)) {
        let place = grid.bytes_of_columns(row, run);
        let len = place.len();
        payload[place].copy_from_slice(&symbols[..len]);
    }
}

/// The used coded symbols of a run of columns, minus all known symbols: one row of the run's width
/// for each.
fn sums_of_lost(
    kernel: Kernel,
    grid: &Grid,
    payload: &[u8],
    run: &Range<u8>,
    lost: &[u16],
    arrived: &[Vec<(u16, &[u8])>],
    used: &[usize],
) -> Vec<u8> {
    let columns = &arrived[usize::from(run.start)..usize::from(run.end)];
    let mut sums = Vec::with_capacity(used.len() * columns.len() * usize::from(grid.symbol()));
    for &at in used {
        columns
            .iter()
            .for_each(|column| sums.extend_from_slice(column[at].1));
    }

    let known: Vec<u16> = (0..grid.rows())
        .filter(|row| lost.binary_search(row).is_err())
        .collect();
    let sources: Vec<&[u8]> = known
        .iter()
        .map(|&row| &payload[grid.bytes_of_columns(row, run)])
        .collect();

    let coded = used.iter().map(|&at| columns[0][at].0);
    let matrix: Vec<u8> = coded
        .flat_map(|row| known.iter().map(move |&j| coefficient(row, j)))
        .collect();
    combine(
        kernel,
        &matrix,
        &sources,
        &mut sums,
        columns.len() * usize::from(grid.symbol()),
    );

    sums
}
