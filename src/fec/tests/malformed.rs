//! Payloads and symbols that do not fit are refused or ignored.

use proptest::prelude::*;

use super::*;

#[test]
fn what_does_not_fit_is_refused() {
    let grid = grid(1000, 64, 4);
    let whole = payload(&grid);
    let check = |payload: &[u8], lost: &[Vec<u16>]| {
        let mut copy = payload.to_vec();
        let result = restore(&grid, &mut copy, lost, &[]);
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
    let result = restore(&grid, &mut copy, &lost, &tampered);
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
    assert_eq!(restore(&grid, &mut copy, &lost, &all), Ok(()));

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
            let _ = restore(&grid, &mut payload, &lost, &coded);
            payload.resize(size as usize, 0);
            let mut ordered = lost.clone();
            ordered.resize(usize::from(columns), vec![]);
            for rows in &mut ordered {
                rows.sort_unstable();
                rows.dedup();
            }

            let _ = restore(&grid, &mut payload, &ordered, &coded);
        }
    }
}
