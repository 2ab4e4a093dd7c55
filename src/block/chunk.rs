//! Content-defined chunking: FastCDC (Xia et al., 2016; gear hash and normalized chunking of the
//! 2020 revision). Smallest, average and largest block are 16 KiB, 64 KiB and 256 KiB.
//!
//! Cut points are effectively part of the format: a host with different cuts would share no block
//! with the sender. A test therefore holds golden cut points.

use std::ops::Range;

use fastcdc::v2020::FastCDC;

/// Smallest block in bytes, except for the last of a file.
pub const MIN: usize = 16 << 10;
/// Target size of a block in bytes.
pub const AVERAGE: usize = 64 << 10;
/// Largest block in bytes.
pub const MAX: usize = 256 << 10;

/// Cuts the start of `buffer` into blocks, as ranges. Unless the buffer ends where the file ends
/// (`at_end`), fewer than [`MAX`] bytes remain past the last range. Their cut depends on the
/// following bytes: pass them again in front of the next ones.
pub fn cuts(buffer: &[u8], at_end: bool) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &buffer[start..];
        if rest.is_empty() || (!at_end && rest.len() < MAX) {
            return None;
        }
        let end = start + first_cut(rest);
        let range = start..end;
        start = end;
        Some(range)
    })
}

/// Length of the first block of `bytes`, which must not be empty.
fn first_cut(bytes: &[u8]) -> usize {
    if bytes.len() <= MIN {
        return bytes.len();
    }
    let window = &bytes[..bytes.len().min(MAX)];
    FastCDC::new(window, MIN as u32, AVERAGE as u32, MAX as u32)
        .next()
        .map_or(window.len(), |chunk| chunk.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
    }

    fn lengths(bytes: &[u8]) -> Vec<usize> {
        cuts(bytes, true).map(|r| r.len()).collect()
    }

    #[test]
    fn cut_points_are_golden() {
        // SplitMix64 written out, so that this test does not depend on another crate's random
        // numbers.
        let splitmix = |i: u64| {
            let z = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) as u8
        };

        let bytes: Vec<u8> = (1..=1 << 20).map(splitmix).collect();
        insta::assert_debug_snapshot!(lengths(&bytes));
    }

    #[test]
    fn pieces_are_cut_like_the_whole() {
        let bytes = noise(3 << 20, 7);
        let whole: Vec<_> = cuts(&bytes, true).collect();
        let mut pieces = Vec::new();
        let mut from = 0;
        let mut fed = 0;
        while from < bytes.len() {
            fed = (fed + 300_000).min(bytes.len());
            let cut: Vec<_> = cuts(&bytes[from..fed], fed == bytes.len())
                .map(|r| r.start + from..r.end + from)
                .collect();
            from = cut.last().map_or(from, |r| r.end);
            pieces.extend(cut);
        }

        assert_eq!(whole, pieces);
    }

    #[test]
    fn an_insertion_changes_few_blocks() {
        let old = noise(4 << 20, 3);
        let mut new = b"some bytes in front".to_vec();
        new.extend_from_slice(&old);
        let known: std::collections::HashSet<_> =
            cuts(&old, true).map(|r| old[r].to_vec()).collect();
        let fresh = cuts(&new, true)
            .filter(|r| !known.contains(&new[r.clone()]))
            .count();

        assert!(fresh <= 3, "{fresh} blocks changed");
    }

    #[test]
    fn sizes_stay_in_their_bounds() {
        for len in [0, 1, MIN, MIN + 1, MAX, 5 * MAX + 17] {
            let cut = lengths(&noise(len, 1));
            assert_eq!(cut.iter().sum::<usize>(), len);
            assert!(cut.iter().all(|&l| l <= MAX));
            assert!(cut.iter().rev().skip(1).all(|&l| l >= MIN));
        }
        assert!(lengths(&[0; 1 << 20]).iter().all(|&l| l == MAX));
    }
}
