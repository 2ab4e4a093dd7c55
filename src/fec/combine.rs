//! Matrix times rows of bytes, in an order that keeps reused data in the caches. Independent of the
//! code.

use std::ops::Range;

use super::Kernel;

/// Bytes of the sources that one pass works on, so that they stay in the second-level cache for all
/// destinations.
const PANEL_BYTES: usize = 512 << 10;
/// Narrowest and widest strip of a row in one pass. A narrower strip has too much overhead; a wider
/// one pushes the destinations out of the first-level cache.
const STRIP: (usize, usize) = (1024, 8192);
/// Destinations, and sources, that a kernel takes in one call.
const KERNEL_ROWS: usize = 4;

/// Adds to row `i` of `out` the sum over all sources `j` of `matrix[i * sources + j]` times source
/// `j`.
///
/// Rows of `out` have `width` bytes. A shorter source counts as padded with zeros.
pub(super) fn combine(
    kernel: Kernel,
    matrix: &[u8],
    sources: &[&[u8]],
    out: &mut [u8],
    width: usize,
) {
    if sources.is_empty() || width == 0 {
        return;
    }

    let rows = (out.len() / width).min(matrix.len() / sources.len());
    let groups = rows.div_ceil(KERNEL_ROWS);
    for strip in strips(width, sources.len(), groups) {
        for group in 0..groups {
            // Groups of nearly the same size: a single leftover row would cost as much time as
            // four.
            let range = group * rows / groups..(group + 1) * rows / groups;
            let matrix = &matrix[range.start * sources.len()..range.end * sources.len()];
            let out = &mut out[range.start * width..range.end * width];
            let destinations = out
                .chunks_exact_mut(width)
                .map(|row| &mut row[strip.clone()]);
            match range.len() {
                1 => add_all::<1>(kernel, matrix, sources, destinations, &strip),
                2 => add_all::<2>(kernel, matrix, sources, destinations, &strip),
                3 => add_all::<3>(kernel, matrix, sources, destinations, &strip),
                _ => add_all::<KERNEL_ROWS>(kernel, matrix, sources, destinations, &strip),
            }
        }
    }
}

fn strips(width: usize, sources: usize, groups: usize) -> impl Iterator<Item = Range<usize>> {
    // With one group of destinations nothing is read twice.
    let strip = if groups < 2 {
        STRIP.1
    } else {
        (PANEL_BYTES / sources / 64 * 64).clamp(STRIP.0, STRIP.1)
    };

    (0..width)
        .step_by(strip)
        .map(move |at| at..(at + strip).min(width))
}

/// Adds multiples of the `strip` of all sources to `D` destinations.
fn add_all<'a, const D: usize>(
    kernel: Kernel,
    matrix: &[u8],
    sources: &[&[u8]],
    mut destinations: impl Iterator<Item = &'a mut [u8]>,
    strip: &Range<usize>,
) {
    let mut to: [&mut [u8]; D] = std::array::from_fn(|_| destinations.next().unwrap_or_default());
    let cut = |source: &&[u8]| strip.start.min(source.len())..strip.end.min(source.len());

    for (at, some) in sources.chunks(KERNEL_ROWS).enumerate() {
        let factor = |d: usize, s: usize| matrix[d * sources.len() + at * KERNEL_ROWS + s];

        let whole = some.iter().all(|source| cut(source).len() == strip.len());
        if let (Ok(four), true) = (<&[&[u8]; KERNEL_ROWS]>::try_from(some), whole) {
            let factors = std::array::from_fn(|d| std::array::from_fn(|s| factor(d, s)));
            kernel.add(
                to.each_mut().map(|d| &mut **d),
                four.map(|source| &source[strip.clone()]),
                &factors,
            );
            continue;
        }

        for (s, source) in some.iter().enumerate() {
            let factors = std::array::from_fn(|d| [factor(d, s)]);
            kernel.add(
                to.each_mut().map(|d| &mut **d),
                [&source[cut(source)]],
                &factors,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::field::multiply;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_product_of_matrices(
            rows in 0..11usize,
            width in prop_oneof![1..300usize, 1000..1100usize, 8100..8300usize],
            sources in prop::collection::vec(
                prop_oneof![3 => Just(usize::MAX), 1 => 0..9000usize],
                0..11,
            ),
            seed in any::<u8>(),
        ) {
            let byte = |n: usize| (n.wrapping_mul(0x9E37_79B1) >> 7) as u8 ^ seed;
            let bytes: Vec<u8> = (0..20_000).map(byte).collect();
            let sources = sources.iter().enumerate();
            let sources = sources.map(|(n, len)| &bytes[n..n + width.min(*len)]);
            let sources: Vec<&[u8]> = sources.collect();
            let matrix: Vec<u8> = (0..rows * sources.len()).map(|n| byte(n + 5)).collect();
            let start: Vec<u8> = bytes.iter().cycle().take(rows * width).copied().collect();
            let mut expected = start.clone();

            for (n, to) in expected.iter_mut().enumerate() {
                for (j, source) in sources.iter().enumerate() {
                    let from = source.get(n % width).copied().unwrap_or(0);
                    *to ^= multiply(matrix[n / width * sources.len() + j], from);
                }
            }

            let mut out = start;
            combine(Kernel::best(), &matrix, &sources, &mut out, width);
            prop_assert!(out == expected);
        }
    }
}
