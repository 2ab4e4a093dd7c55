//! Encoding and decoding together, and the one table that can never change.

use std::collections::BTreeSet;

use proptest::prelude::*;

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

fn coded_rows(grid: &Grid, payload: &[u8], rows: std::ops::Range<u16>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(Kernel::best(), grid, payload, rows, &mut out);
    out
}

#[test]
fn coefficients_never_change() {
    let row = |coded: u16| {
        (0..12)
            .map(|row| coefficient(coded, row))
            .collect::<Vec<_>>()
    };

    assert_eq!(row(0), [1, 81, 49, 134, 37, 204, 93, 25, 73, 194, 233, 148]);
    assert_eq!(
        row(1),
        [15, 218, 100, 165, 214, 96, 254, 192, 221, 2, 25, 153]
    );
    assert_eq!(
        row(65_535),
        [75, 89, 248, 64, 60, 240, 124, 207, 158, 120, 109, 111]
    );

    let sum = |n: u32| (n + 1).wrapping_mul(u32::from(coefficient((n >> 16) as u16, n as u16)));
    let all = (0..u32::MAX)
        .step_by(99_991)
        .fold(0u32, |hash, n| hash.rotate_left(5) ^ sum(n));

    assert_eq!(
        all, 2_694_068_879,
        "hosts of another version could not repair what this one sends"
    );
}

#[test]
fn coefficients_are_spread_over_all_but_zero() {
    let mut counts = [0u32; 256];
    (0..255u16).for_each(|coded| {
        (0..1000).for_each(|row| counts[usize::from(coefficient(coded, row))] += 1)
    });
    assert_eq!(counts[0], 0);
    assert!(
        counts[1..].iter().all(|n| (850..=1150).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn a_coded_row_is_the_sum_that_it_says() {
    let grid = grid(3000, 100, 4);
    let payload = payload(&grid);

    for kernel in Kernel::all() {
        let mut out = vec![7, 7];
        encode(kernel, &grid, &payload, 500..570, &mut out);
        assert_eq!(out.len(), 2 + 70 * 400);
        assert_eq!(out[..2], [7, 7]);

        for (row, coded) in out[2..].chunks(400).enumerate() {
            for (at, &byte) in coded.iter().enumerate() {
                let term = |j: usize| {
                    payload.get(j * 400 + at).map_or(0, |&b| {
                        field::multiply(coefficient(500 + row as u16, j as u16), b)
                    })
                };
                assert_eq!(
                    byte,
                    (0..8).map(term).fold(0, |a, b| a ^ b),
                    "row {row}, byte {at}"
                );
            }
        }
    }
}

#[test]
fn one_lost_symbol_comes_back_wherever_it_was() {
    let grid = grid(2950, 100, 4);
    let payload = payload(&grid);
    let coded = coded_rows(&grid, &payload, 9..10);

    for index in 0..grid.symbols() {
        let (mut damaged, lost) = lose(&grid, &payload, [index]);
        assert_eq!(
            decode(
                Kernel::best(),
                &grid,
                &mut damaged,
                &lost,
                &symbols(&grid, 9, &coded)
            ),
            Ok(())
        );
        assert!(damaged == payload, "symbol {index}");
    }
}

#[test]
fn everything_may_be_lost() {
    for (size, symbol, columns) in [
        (5000, 64, 3),
        (1, 64, 1),
        (64 * 5 + 1, 64, 32),
        (20_000, 1428, 8),
        (65_001, 65_000, 2),
    ] {
        let grid = grid(size, symbol, columns);
        let payload = payload(&grid);
        let (mut damaged, lost) = lose(&grid, &payload, 0..grid.symbols());

        let coded = coded_rows(&grid, &payload, 0..grid.rows() + 2);
        assert_eq!(
            decode(
                Kernel::best(),
                &grid,
                &mut damaged,
                &lost,
                &symbols(&grid, 0, &coded)
            ),
            Ok(())
        );

        assert!(
            damaged == payload,
            "{size} bytes in symbols of {symbol}, {columns} columns"
        );
    }
}

#[test]
fn nothing_lost_is_nothing_to_do() {
    let grid = grid(5000, 64, 3);
    let mut payload = payload(&grid);
    assert_eq!(
        decode(
            Kernel::best(),
            &grid,
            &mut payload,
            &[vec![], vec![], vec![]],
            &[]
        ),
        Ok(())
    );
}

/// A singular square of coded and lost rows: 0.4 % of random squares are singular.
fn singular(size: u16) -> (Vec<u16>, u16) {
    let lost: Vec<u16> = (0..size).map(|n| 3 * n + 1).collect();
    let first = (0..60_000).find(|&first| deficit(Kernel::best(), &lost, first..first + size) == 1);
    (lost, first.expect("one in 255 is singular"))
}

#[test]
fn a_singular_square_asks_for_one_more_and_is_solved_with_it() {
    for size in [2, 3, 5, 20] {
        let (rows, first) = singular(size);
        let grid = grid(100 * 3 * 70 - 30, 100, 3);
        let payload = payload(&grid);
        let (mut damaged, lost) = lose(
            &grid,
            &payload,
            rows.iter().map(|row| u32::from(*row) * 3 + 1),
        );

        let before = damaged.clone();
        let coded = coded_rows(&grid, &payload, first..first + size + 8);
        let offered = symbols(&grid, first, &coded);

        let enough = usize::from(size) * 3;
        let result = decode(
            Kernel::best(),
            &grid,
            &mut damaged,
            &lost,
            &offered[..enough],
        );
        assert_eq!(
            result,
            Err(Unsolved::Short(vec![Shortage {
                column: 1,
                missing: 1
            }]))
        );
        assert!(damaged == before, "nothing is written that is not known");

        let more = (1..=8)
            .find(|n| deficit(Kernel::best(), &rows, first..first + size + n) == 0)
            .expect("soon");

        let enough = usize::from(size + more) * 3;
        assert_eq!(
            decode(
                Kernel::best(),
                &grid,
                &mut damaged,
                &lost,
                &offered[..enough]
            ),
            Ok(())
        );
        assert!(damaged == payload, "{size} lost");
    }
}

#[test]
fn a_column_that_is_short_does_not_keep_others_from_being_solved() {
    let grid = grid(9 * 4 * 64, 64, 4);
    let payload = payload(&grid);
    let (mut damaged, lost) = lose(&grid, &payload, [0, 4, 8, 1, 5, 6, 10]);
    let coded = coded_rows(&grid, &payload, 0..2);
    let result = decode(
        Kernel::best(),
        &grid,
        &mut damaged,
        &lost,
        &symbols(&grid, 0, &coded),
    );

    assert_eq!(
        result,
        Err(Unsolved::Short(vec![Shortage {
            column: 0,
            missing: 1
        }]))
    );

    for index in 0..grid.symbols() {
        let bytes = grid.bytes_of(index);
        assert_eq!(
            damaged[bytes.clone()] == payload[bytes],
            ![0, 4, 8].contains(&index),
            "symbol {index}"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let grid = grid(1000, 64, 4);
    let whole = payload(&grid);
    let check = |payload: &[u8], lost: &[Vec<u16>]| {
        let mut copy = payload.to_vec();
        let result = decode(Kernel::best(), &grid, &mut copy, lost, &[]);
        assert_eq!(copy, payload);
        assert!(matches!(result, Err(Unsolved::Malformed(_))), "{result:?}");
    };

    let none = vec![vec![]; 4];
    check(&whole[1..], &none);
    check(&[], &none);
    check(&[whole.clone(), whole.clone()].concat(), &none);
    check(&whole, &[]);
    check(&whole, &none[1..]);
    check(&whole, &[vec![1, 0], vec![], vec![], vec![]]);

    check(&whole, &[vec![], vec![1, 1], vec![], vec![]]);
    check(&whole, &[vec![], vec![], vec![u16::MAX], vec![]]);
    check(&whole, &[vec![4], vec![], vec![], vec![]]);
}

#[test]
fn symbols_that_do_not_fit_are_not_looked_at() {
    let grid = grid(1000, 64, 4);
    let payload = payload(&grid);
    let coded = coded_rows(&grid, &payload, 0..2);
    let good = symbols(&grid, 0, &coded);
    let (damaged, lost) = lose(&grid, &payload, [5, 9]);
    let tampered = [
        Coded {
            bytes: &good[1].bytes[1..],
            ..good[1]
        },
        Coded {
            bytes: &[],
            ..good[1]
        },
        Coded {
            bytes: &coded[..65],
            ..good[1]
        },
        Coded {
            column: 4,
            ..good[1]
        },
        Coded {
            column: 255,
            row: 65_535,
            ..good[1]
        },
        good[5],
        good[5],
    ];

    let mut copy = damaged.clone();
    let result = decode(Kernel::best(), &grid, &mut copy, &lost, &tampered);
    assert_eq!(
        result,
        Err(Unsolved::Short(vec![Shortage {
            column: 1,
            missing: 1
        }]))
    );

    assert!(copy == damaged);
    let mut all = tampered.to_vec();
    all.push(good[1]);
    assert_eq!(
        decode(Kernel::best(), &grid, &mut copy, &lost, &all),
        Ok(())
    );

    assert!(copy == payload);
}

#[test]
fn a_payload_of_another_size_is_encoded_as_far_as_it_goes() {
    let grid = grid(1000, 64, 4);
    let mut payload = payload(&grid);
    let whole = coded_rows(&grid, &payload, 0..3);
    payload.push(1);
    assert!(coded_rows(&grid, &payload, 0..3) == whole);
    payload[900..].fill(0);
    let filled = coded_rows(&grid, &payload, 0..3);
    assert!(filled != whole);
    assert!(coded_rows(&grid, &payload[..900], 0..3) == filled);
    assert_eq!(coded_rows(&grid, &[], 0..3), vec![0; 3 * 256]);
    assert_eq!(coded_rows(&grid, &payload, 5..5), Vec::<u8>::new());

    assert_eq!(coded_rows(&grid, &payload, 65_534..65_535).len(), 256);
}

proptest! {
    #[test]
    fn whatever_is_lost_comes_back(
        size in 1..60_000u32,
        symbol in prop_oneof![Just(64u16), 64..300u16],
        columns in 1..=32u8,
        // Of 256 symbols, of 256 whole rows, and of 256 coded symbols.
        loss in (0..60u8, 0..30u8, 0..60u8),
        first in 0..60_000u16,
        seed in any::<u64>(),
    ) {
        let grid = grid(size, symbol, columns);
        let payload = payload(&grid);
        let mut random = fastrand::Rng::with_seed(seed);
        let rows_lost: Vec<bool> = (0..grid.rows()).map(|_| random.u8(..) < loss.1).collect();
        let in_lost_row = |n: u32| grid.place(n).is_some_and(|p| rows_lost[usize::from(p.0)]);
        let mut is_lost = |n: &u32| random.u8(..) < loss.0 || in_lost_row(*n);
        let indices: Vec<u32> = (0..grid.symbols()).filter(&mut is_lost).collect();
        let (mut damaged, lost) = lose(&grid, &payload, indices);

        let most = lost.iter().map(Vec::len).max().unwrap_or(0) as u16;
        let coded = coded_rows(&grid, &payload, first..first + most + most / 3 + 2);
        let mut arrived = symbols(&grid, first, &coded);
        arrived.retain(|_| random.u8(..) >= loss.2);
        random.shuffle(&mut arrived);
        let missing: Vec<Shortage> = (0..columns)
            .map(|column| {
                let rows = arrived.iter().filter(|c| c.column == column).map(|c| c.row);
                let missing = deficit(Kernel::best(), &lost[usize::from(column)], rows);
                Shortage { column, missing }
            })
            .filter(|shortage| shortage.missing > 0)
            .collect();

        let kernels = Kernel::all();
        let kernel = kernels[random.usize(..kernels.len())];
        let result = decode(kernel, &grid, &mut damaged, &lost, &arrived);

        for (index, column) in (0..grid.symbols()).map(|n| (n, (n % u32::from(columns)) as u8)) {
            if !missing.iter().any(|s| s.column == column) {
                let bytes = grid.bytes_of(index);
                prop_assert_eq!(&damaged[bytes.clone()], &payload[bytes], "symbol {}", index);
            }
        }

        let expected = if missing.is_empty() {
            Ok(())
        } else {
            Err(Unsolved::Short(missing))
        };

        prop_assert_eq!(result, expected);
    }

    #[test]
    fn nothing_panics(
        size in 0..9_000u32,
        symbol in any::<u16>(),
        columns in any::<u8>(),
        lost in prop::collection::vec(prop::collection::vec(0..30u16, 0..6), 0..6),
        coded in prop::collection::vec((any::<u16>(), 0..7u8, 0..400usize), 0..20),
        bytes in prop::collection::vec(any::<u8>(), 0..9_000),
    ) {
        for (symbol, columns) in [(symbol, columns), (64 + symbol % 300, 1 + columns % 6)] {
            let Some(grid) = Grid::new(size, symbol, columns) else {
                continue;
            };

            let mut out = Vec::new();
            encode(Kernel::best(), &grid, &bytes, 1..3, &mut out);
            out.resize(400, 1);

            let cut = |&(row, column, len): &(u16, u8, usize)| Coded {
                row,
                column,
                bytes: &out[..len],
            };

            let coded: Vec<Coded> = coded.iter().map(cut).collect();
            let mut payload = bytes.clone();
            let _ = decode(Kernel::best(), &grid, &mut payload, &lost, &coded);
            payload.resize(size as usize, 0);
            let mut ordered = lost.clone();
            ordered.resize(usize::from(columns), vec![]);
            for rows in &mut ordered {
                rows.sort_unstable();
                rows.dedup();
            }

            let _ = decode(Kernel::best(), &grid, &mut payload, &ordered, &coded);
        }
    }
}
