//! Sums of multiples of byte strings, in the fastest way that the processor offers. Independent of
//! rows and symbols.
//!
//! The only operation adds to each of `D` destinations its own multiples of `S` sources. Handling
//! several of both together is the reason for the speed: a source is loaded once for all
//! destinations, and a destination once for all sources.

use super::field;
use super::lane::{LANE_BYTES, Lane};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::simd::Simd;

/// Implementation of multiply-and-add. Every value is one that this processor supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Backend);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Portable,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Simd(Simd),
}

impl Kernel {
    /// The fastest kernel of this processor.
    pub fn best() -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if let Some(simd) = Simd::available().next() {
            return Self(Backend::Simd(simd));
        }
        Self::portable()
    }

    /// The kernel that runs on every processor.
    pub const fn portable() -> Self {
        Self(Backend::Portable)
    }

    /// All kernels of this processor, the fastest first and the portable one last.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        all.extend(Simd::available().map(|simd| Self(Backend::Simd(simd))));
        all.push(Self::portable());
        all
    }

    /// Name for display.
    pub fn name(self) -> &'static str {
        match self.0 {
            Backend::Portable => "portable",
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Backend::Simd(simd) => simd.name(),
        }
    }

    /// Adds `factor` times `source` to `destination`, up to the length of the shorter one.
    pub fn multiply_add(self, destination: &mut [u8], factor: u8, source: &[u8]) {
        self.add([destination], [source], &[[factor]]);
    }

    /// Adds to each destination `factors[destination][source]` times each source, up to the length
    /// of the shortest.
    pub(super) fn add<const D: usize, const S: usize>(
        self,
        destinations: [&mut [u8]; D],
        sources: [&[u8]; S],
        factors: &[[u8; S]; D],
    ) {
        let shortest = destinations
            .iter()
            .map(|d| d.len())
            .chain(sources.iter().map(|s| s.len()))
            .min();

        let shortest = shortest.unwrap_or(0);
        let lanes = shortest / LANE_BYTES;
        let rest = shortest % LANE_BYTES;

        let mut tails = [[0; LANE_BYTES]; D];
        let mut source_tails = [[0; LANE_BYTES]; S];
        let mut ends: [&mut [u8]; D] = [(); D].map(|()| Default::default());
        let mut whole: [&mut [Lane]; D] = [(); D].map(|()| Default::default());

        for (at, destination) in destinations.into_iter().enumerate() {
            let (front, end) = destination.split_at_mut(lanes * LANE_BYTES);
            whole[at] = front.as_chunks_mut().0;
            ends[at] = &mut end[..rest];
            tails[at][..rest].copy_from_slice(ends[at]);
        }

        self.add_lanes(whole, sources.map(|s| &s.as_chunks().0[..lanes]), factors);
        if rest == 0 {
            return;
        }

        for (tail, source) in source_tails.iter_mut().zip(sources) {
            tail[..rest].copy_from_slice(&source[lanes * LANE_BYTES..][..rest]);
        }

        let tail = tails.each_mut().map(std::slice::from_mut);
        self.add_lanes(
            tail,
            source_tails.each_ref().map(std::slice::from_ref),
            factors,
        );

        for (end, tail) in ends.into_iter().zip(tails) {
            end.copy_from_slice(&tail[..rest]);
        }
    }

    /// [`Self::add`] for whole lanes, the same number of each.
    fn add_lanes<const D: usize, const S: usize>(
        self,
        destinations: [&mut [Lane]; D],
        sources: [&[Lane]; S],
        factors: &[[u8; S]; D],
    ) {
        match self.0 {
            Backend::Portable => portable(destinations, sources, factors),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Backend::Simd(simd) => simd.add(destinations, sources, factors),
        }
    }
}

/// Russian peasant multiplication, eight bytes at a time. A source is doubled seven times, and each
/// double is added to the destinations whose factor has the corresponding bit. Compilers vectorize
/// this loop.
fn portable<const D: usize, const S: usize>(
    mut destinations: [&mut [Lane]; D],
    sources: [&[Lane]; S],
    factors: &[[u8; S]; D],
) {
    for (s, source) in sources.into_iter().enumerate() {
        for (at, lane) in source.iter().enumerate() {
            let mut doubled = words(lane);
            let mut sums = [[0u64; LANE_BYTES / 8]; D];

            for bit in 0..8 {
                for (sum, factors) in sums.iter_mut().zip(factors) {
                    let mask = u64::from(factors[s] >> bit & 1).wrapping_neg();
                    sum.iter_mut()
                        .zip(&doubled)
                        .for_each(|(sum, word)| *sum ^= word & mask);
                }
                doubled = doubled.map(field::double_each);
            }

            for (destination, sum) in destinations.iter_mut().zip(&sums) {
                let Some(destination) = destination.get_mut(at) else {
                    return;
                };
                for (bytes, sum) in destination.as_chunks_mut::<8>().0.iter_mut().zip(sum) {
                    *bytes = (u64::from_ne_bytes(*bytes) ^ sum).to_ne_bytes();
                }
            }
        }
    }
}

fn words(lane: &Lane) -> [u64; LANE_BYTES / 8] {
    let mut words = [0; LANE_BYTES / 8];
    words
        .iter_mut()
        .zip(lane.as_chunks().0)
        .for_each(|(word, bytes)| *word = u64::from_ne_bytes(*bytes));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Expected sums, computed byte by byte.
    fn by_hand<const D: usize, const S: usize>(
        destination: &[Vec<u8>; D],
        source: &[&[u8]; S],
        factors: &[[u8; S]; D],
    ) -> [Vec<u8>; D] {
        let reach = source
            .iter()
            .map(|s| s.len())
            .chain(destination.iter().map(Vec::len))
            .min()
            .unwrap_or(0);
        std::array::from_fn(|d| {
            let mut sum = destination[d].clone();
            for (source, &factor) in source.iter().zip(&factors[d]) {
                sum.iter_mut()
                    .zip(&source[..reach])
                    .for_each(|(to, &b)| *to ^= field::multiply(factor, b));
            }
            sum
        })
    }

    /// Checks every kernel with `D` destinations and `S` sources cut out of `bytes`. The cuts may
    /// begin anywhere and differ in length.
    fn check<const D: usize, const S: usize>(bytes: &[u8], cuts: &[(usize, usize)], seed: u8) {
        let cut = |n: usize| {
            let (start, len) = cuts[n % cuts.len()];
            let start = (start + n) % bytes.len();
            &bytes[start..(start + len).min(bytes.len())]
        };

        let source: [&[u8]; S] = std::array::from_fn(cut);
        let before: [Vec<u8>; D] = std::array::from_fn(|d| cut(S + d).to_vec());
        let factor = |d: usize, s: usize| (seed as usize).wrapping_add(d * 89 + s * 37) as u8;
        let factors: [[u8; S]; D] = std::array::from_fn(|d| std::array::from_fn(|s| factor(d, s)));
        let expected = by_hand(&before, &source, &factors);

        for kernel in Kernel::all() {
            let mut after = before.clone();
            kernel.add(after.each_mut().map(|d| &mut d[..]), source, &factors);
            assert_eq!(
                after,
                expected,
                "{} with {D} destinations, {S} sources",
                kernel.name()
            );
        }
    }

    proptest! {
        #[test]
        fn every_kernel_gives_what_is_right(
            bytes in prop::collection::vec(any::<u8>(), 1..700),
            cuts in prop::collection::vec((0..700usize, 0..700usize), 1..9),
            seed in any::<u8>(),
        ) {
            check::<1, 1>(&bytes, &cuts, seed);
            check::<2, 1>(&bytes, &cuts, seed);
            check::<1, 4>(&bytes, &cuts, seed);
            check::<2, 4>(&bytes, &cuts, seed);
            check::<3, 4>(&bytes, &cuts, seed);
            check::<4, 4>(&bytes, &cuts, seed);
        }
    }

    #[test]
    fn every_product_is_right_in_every_kernel() {
        let source: Vec<u8> = (0..=255).collect();
        for kernel in Kernel::all() {
            for factor in 0..=255u8 {
                let mut product = vec![0; 256];
                kernel.multiply_add(&mut product, factor, &source);
                let expected: Vec<u8> =
                    source.iter().map(|&b| field::multiply(factor, b)).collect();
                assert_eq!(product, expected, "{} times {factor}", kernel.name());
            }
        }
    }

    #[test]
    fn the_best_comes_first_and_the_portable_one_last() {
        let all = Kernel::all();
        assert_eq!(all.first(), Some(&Kernel::best()));
        assert_eq!(all.last(), Some(&Kernel::portable()));
        println!(
            "kernels tested on this processor: {:?}",
            all.iter().map(|k| k.name()).collect::<Vec<_>>()
        );
    }
}
