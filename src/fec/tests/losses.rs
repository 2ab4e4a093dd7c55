//! Lost symbols come back.

use proptest::prelude::*;

use super::*;

#[test]
fn one_lost_symbol_comes_back_wherever_it_was() {
    let grid = grid(2950, 100, 4);
    let payload = payload(&grid);
    let coded = coded_rows(&grid, &payload, 9..10);

    for index in 0..grid.symbols() {
        let (mut damaged, lost) = lose(&grid, &payload, [index]);
        assert_eq!(
            restore(&grid, &mut damaged, &lost, &symbols(&grid, 9, &coded)),
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
            restore(&grid, &mut damaged, &lost, &symbols(&grid, 0, &coded)),
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
        restore(&grid, &mut payload, &[vec![], vec![], vec![]], &[]),
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
        let result = restore(&grid, &mut damaged, &lost, &offered[..enough]);
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
            restore(&grid, &mut damaged, &lost, &offered[..enough]),
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
    let result = restore(&grid, &mut damaged, &lost, &symbols(&grid, 0, &coded));

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
}
