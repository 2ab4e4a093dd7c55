//! The coefficients, the one table that can never change, and the rows made with them.

use super::*;

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
