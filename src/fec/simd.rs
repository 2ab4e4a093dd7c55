//! Kernels that need particular processor features. The only unsafe code of this room: loads and
//! stores of whole vectors, and calls of functions that need a processor feature.
#![allow(unsafe_code, reason = "vector instructions; none on other processors")]

use super::lane::Lane;

/// A kernel supported by this processor: only [`Simd::available`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Simd(Extension);

/// Processor feature that a kernel needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    #[cfg(target_arch = "x86_64")]
    GfniAvx512,
    #[cfg(target_arch = "x86_64")]
    GfniAvx2,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Simd {
    /// Kernels of this processor, the fastest first.
    #[cfg(target_arch = "x86_64")]
    pub fn available() -> impl Iterator<Item = Self> {
        let avx2 = is_x86_feature_detected!("avx2");
        let gfni = avx2 && is_x86_feature_detected!("gfni");
        let avx512 = gfni && is_x86_feature_detected!("avx512f");
        let all = [
            (avx512, Extension::GfniAvx512),
            (gfni, Extension::GfniAvx2),
            (avx2, Extension::Avx2),
        ];

        all.into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, kind)| Self(kind))
    }

    /// Every processor of this architecture has NEON.
    #[cfg(target_arch = "aarch64")]
    pub fn available() -> impl Iterator<Item = Self> {
        std::iter::once(Self(Extension::Neon))
    }

    /// Name for display.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Extension::GfniAvx512 => "GFNI and AVX-512",
            #[cfg(target_arch = "x86_64")]
            Extension::GfniAvx2 => "GFNI and AVX2",
            #[cfg(target_arch = "x86_64")]
            Extension::Avx2 => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Extension::Neon => "NEON",
        }
    }

    /// Adds to each destination `factors[destination][source]` times each source; all have the same
    /// number of chunks.
    pub fn add<const D: usize, const S: usize>(
        self,
        to: [&mut [Lane]; D],
        from: [&[Lane]; S],
        by: &[[u8; S]; D],
    ) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` returns this kernel only if the processor has GFNI and AVX-512F.
            Extension::GfniAvx512 => unsafe { x86::gfni_avx512(to, from, by) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` returns this kernel only if the processor has GFNI and AVX2.
            Extension::GfniAvx2 => unsafe { x86::gfni_avx2(to, from, by) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` returns this kernel only if the processor has AVX2.
            Extension::Avx2 => unsafe { x86::avx2(to, from, by) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: NEON is part of every aarch64 target that has a standard library.
            Extension::Neon => unsafe { arm::neon(to, from, by) },
        }
    }
}

/// Cuts all slices to the length of the shortest and returns it. Inlined, so that the compiler sees
/// the equal lengths and a kernel has no bounds checks.
#[inline(always)]
fn of_one_length<'t, 'f, const D: usize, const S: usize>(
    to: [&'t mut [Lane]; D],
    from: [&'f [Lane]; S],
) -> (usize, [&'t mut [Lane]; D], [&'f [Lane]; S]) {
    let destinations = to.iter().map(|t| t.len());
    let count = destinations
        .chain(from.iter().map(|f| f.len()))
        .min()
        .unwrap_or(0);

    (
        count,
        to.map(|t| &mut t[..count]),
        from.map(|f| &f[..count]),
    )
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lane, of_one_length};
    use crate::fec::field::NIBBLES;

    #[target_feature(enable = "gfni,avx512f")]
    pub fn gfni_avx512<const D: usize, const S: usize>(
        to: [&mut [Lane]; D],
        from: [&[Lane]; S],
        by: &[[u8; S]; D],
    ) {
        let (count, to, from) = of_one_length(to, from);
        let by = by.map(|row| row.map(|factor| _mm512_set1_epi8(factor as i8)));

        for at in 0..count {
            // SAFETY: a lane is 64 bytes, and the load needs no alignment.
            let source = from.map(|f| unsafe { _mm512_loadu_si512(f[at].as_ptr().cast()) });
            for d in 0..D {
                let place = &mut to[d][at];
                // SAFETY: as above.
                let mut sum = unsafe { _mm512_loadu_si512(place.as_ptr().cast()) };
                for s in 0..S {
                    sum = _mm512_xor_si512(sum, _mm512_gf2p8mul_epi8(source[s], by[d][s]));
                }
                // SAFETY: a lane is 64 bytes, and the store needs no alignment.
                unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), sum) };
            }
        }
    }

    #[target_feature(enable = "gfni,avx2")]
    pub fn gfni_avx2<const D: usize, const S: usize>(
        to: [&mut [Lane]; D],
        from: [&[Lane]; S],
        by: &[[u8; S]; D],
    ) {
        let (count, to, from) = of_one_length(to, from);
        let by = by.map(|row| row.map(|factor| _mm256_set1_epi8(factor as i8)));

        for at in 0..count {
            for half in 0..2 {
                let source = from.map(|f| load(&f[at].as_chunks().0[half]));
                for d in 0..D {
                    let place = &mut to[d][at].as_chunks_mut().0[half];
                    let mut sum = load(place);
                    for s in 0..S {
                        sum = _mm256_xor_si256(sum, _mm256_gf2p8mul_epi8(source[s], by[d][s]));
                    }
                    store(place, sum);
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2<const D: usize, const S: usize>(
        to: [&mut [Lane]; D],
        from: [&[Lane]; S],
        by: &[[u8; S]; D],
    ) {
        let (count, to, from) = of_one_length(to, from);
        let by = by.map(|row| row.map(|factor| tables(factor)));
        let nibble = _mm256_set1_epi8(15);

        for at in 0..count {
            for half in 0..2 {
                let source = from.map(|f| {
                    let bytes = load(&f[at].as_chunks().0[half]);
                    let high = _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), nibble);
                    (_mm256_and_si256(bytes, nibble), high)
                });
                for d in 0..D {
                    let place = &mut to[d][at].as_chunks_mut().0[half];
                    let mut sum = load(place);
                    for s in 0..S {
                        let low = _mm256_shuffle_epi8(by[d][s].0, source[s].0);
                        let high = _mm256_shuffle_epi8(by[d][s].1, source[s].1);
                        sum = _mm256_xor_si256(sum, _mm256_xor_si256(low, high));
                    }
                    store(place, sum);
                }
            }
        }
    }

    /// Products of `factor` with low and with high nibbles, in both halves of a vector.
    #[target_feature(enable = "avx2")]
    fn tables(factor: u8) -> (__m256i, __m256i) {
        let both = load(&NIBBLES[usize::from(factor)]);
        (
            _mm256_permute4x64_epi64::<0b01_00_01_00>(both),
            _mm256_permute4x64_epi64::<0b11_10_11_10>(both),
        )
    }

    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: reads exactly the 32 bytes of the array, and needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    fn store(place: &mut [u8; 32], value: __m256i) {
        // SAFETY: writes exactly the 32 bytes of the array, and needs no alignment.
        unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), value) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{Lane, of_one_length};
    use crate::fec::field::NIBBLES;

    #[target_feature(enable = "neon")]
    pub fn neon<const D: usize, const S: usize>(
        to: [&mut [Lane]; D],
        from: [&[Lane]; S],
        by: &[[u8; S]; D],
    ) {
        let (count, to, from) = of_one_length(to, from);
        let by = by.map(|row| {
            row.map(|factor| {
                let table = NIBBLES[usize::from(factor)].as_chunks().0;
                (load(&table[0]), load(&table[1]))
            })
        });

        let nibble = vdupq_n_u8(15);
        for at in 0..count {
            for quarter in 0..4 {
                let source = from.map(|f| {
                    let bytes = load(&f[at].as_chunks().0[quarter]);
                    (vandq_u8(bytes, nibble), vshrq_n_u8::<4>(bytes))
                });
                for d in 0..D {
                    let place = &mut to[d][at].as_chunks_mut().0[quarter];
                    let mut sum = load(place);
                    for s in 0..S {
                        let low = vqtbl1q_u8(by[d][s].0, source[s].0);
                        let high = vqtbl1q_u8(by[d][s].1, source[s].1);
                        sum = veorq_u8(sum, veorq_u8(low, high));
                    }
                    store(place, sum);
                }
            }
        }
    }

    #[target_feature(enable = "neon")]
    fn load(bytes: &[u8; 16]) -> uint8x16_t {
        // SAFETY: reads exactly the 16 bytes of the array, and needs no alignment.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }

    #[target_feature(enable = "neon")]
    fn store(place: &mut [u8; 16], value: uint8x16_t) {
        // SAFETY: writes exactly the 16 bytes of the array, and needs no alignment.
        unsafe { vst1q_u8(place.as_mut_ptr(), value) }
    }
}
