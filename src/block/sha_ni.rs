//! SHA-256's compression of several messages at once with the SHA extensions of x86-64. A round
//! waits four cycles for the one before, and a new one starts each cycle: messages that do not wait
//! for each other fill the gap.
#![allow(
    unsafe_code,
    reason = "instructions that need a processor feature; loads of vectors"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32, _mm_storeu_si128,
};

/// Bytes of one step of the compression.
pub(super) const STEP: usize = 64;

/// Round constants of FIPS 180-4, four rounds in a row.
static ROUNDS: [[u32; 4]; 16] = [
    [0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5],
    [0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5],
    [0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3],
    [0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174],
    [0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc],
    [0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da],
    [0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7],
    [0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967],
    [0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13],
    [0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85],
    [0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3],
    [0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070],
    [0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5],
    [0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3],
    [0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208],
    [0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2],
];

/// The SHA extensions of this processor: only [`ShaNi::available`] makes one.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShaNi(());

impl ShaNi {
    /// Returns the extensions, if this processor has them.
    pub(super) fn available() -> Option<Self> {
        let has = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        has.then_some(Self(()))
    }

    /// Takes the next steps of each message into its state. All messages have the same number.
    pub(super) fn compress<const N: usize>(
        self,
        states: &mut [[u32; 8]; N],
        messages: [&[[u8; STEP]]; N],
    ) {
        // SAFETY: `available` returns this value only if the processor has the features.
        unsafe { compress(states, messages) }
    }
}

/// Four words at `from`.
#[target_feature(enable = "sse2")]
fn words(from: &[u32; 4]) -> __m128i {
    // SAFETY: the array has the 16 bytes of a vector; the load needs no alignment.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Sixteen bytes of a step.
#[target_feature(enable = "sse2")]
fn bytes(step: &[u8; STEP], at: usize) -> __m128i {
    let from: &[u8] = &step[at * 16..][..16];
    // SAFETY: the slice has the 16 bytes of a vector; the load needs no alignment.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[target_feature(enable = "sse2")]
fn store(to: &mut [u32; 4], words: __m128i) {
    // SAFETY: the array has the 16 bytes of a vector; the store needs no alignment.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), words) }
}

#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress<const N: usize>(states: &mut [[u32; 8]; N], messages: [&[[u8; STEP]]; N]) {
    // Words of a message are big-endian.
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let zero = _mm_set_epi64x(0, 0);
    let (mut abef, mut cdgh) = ([zero; N], [zero; N]);
    for lane in 0..N {
        (abef[lane], cdgh[lane]) = packed(&states[lane]);
    }

    let steps = messages.iter().map(|message| message.len()).min();
    for at in 0..steps.unwrap_or(0) {
        let steps = messages.map(|message| &message[at]);
        let before = (abef, cdgh);
        let mut message = [[zero; N]; 4];
        for (quarter, words) in message.iter_mut().enumerate() {
            for lane in 0..N {
                words[lane] = _mm_shuffle_epi8(bytes(steps[lane], quarter), swap);
            }
        }

        let [mut w0, mut w1, mut w2, mut w3] = message;
        for sixteen in 0..3 {
            let k = &ROUNDS[sixteen * 4..][..4];
            four_rounds(&mut abef, &mut cdgh, &w0, words(&k[0]));
            extend(&mut w0, &w1, &w2, &w3);
            four_rounds(&mut abef, &mut cdgh, &w1, words(&k[1]));
            extend(&mut w1, &w2, &w3, &w0);
            four_rounds(&mut abef, &mut cdgh, &w2, words(&k[2]));
            extend(&mut w2, &w3, &w0, &w1);
            four_rounds(&mut abef, &mut cdgh, &w3, words(&k[3]));
            extend(&mut w3, &w0, &w1, &w2);
        }
        for (w, k) in [w0, w1, w2, w3].iter().zip(&ROUNDS[12..]) {
            four_rounds(&mut abef, &mut cdgh, w, words(k));
        }

        for lane in 0..N {
            abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
        }
    }

    for lane in 0..N {
        states[lane] = unpacked(abef[lane], cdgh[lane]);
    }
}

/// Four rounds with their constants `k` on the words `w` of each lane.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn four_rounds<const N: usize>(
    abef: &mut [__m128i; N],
    cdgh: &mut [__m128i; N],
    w: &[__m128i; N],
    k: __m128i,
) {
    for lane in 0..N {
        let sum = _mm_add_epi32(w[lane], k);
        cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], sum);
        let high = _mm_shuffle_epi32(sum, 0x0e);
        abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], high);
    }
}

/// Replaces the oldest four words of the schedule by the next four.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn extend<const N: usize>(
    oldest: &mut [__m128i; N],
    second: &[__m128i; N],
    third: &[__m128i; N],
    newest: &[__m128i; N],
) {
    for lane in 0..N {
        let partly = _mm_sha256msg1_epu32(oldest[lane], second[lane]);
        let shifted = _mm_alignr_epi8(newest[lane], third[lane], 4);
        oldest[lane] = _mm_sha256msg2_epu32(_mm_add_epi32(partly, shifted), newest[lane]);
    }
}

/// The order of words that the instructions want: a, b, e, f and c, d, g, h from high to low.
#[target_feature(enable = "sse2,ssse3,sse4.1")]
fn packed(state: &[u32; 8]) -> (__m128i, __m128i) {
    let [a, b, c, d, e, f, g, h] = *state;
    let cdab = _mm_shuffle_epi32(words(&[a, b, c, d]), 0xb1);
    let efgh = _mm_shuffle_epi32(words(&[e, f, g, h]), 0x1b);
    let abef = _mm_alignr_epi8(cdab, efgh, 8);
    (abef, _mm_blend_epi16(efgh, cdab, 0xf0))
}

#[target_feature(enable = "sse2,ssse3,sse4.1")]
fn unpacked(abef: __m128i, cdgh: __m128i) -> [u32; 8] {
    let feba = _mm_shuffle_epi32(abef, 0x1b);
    let dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    let (mut low, mut high) = ([0; 4], [0; 4]);
    store(&mut low, _mm_blend_epi16(feba, dchg, 0xf0));
    store(&mut high, _mm_alignr_epi8(dchg, feba, 8));
    let [[a, b, c, d], [e, f, g, h]] = [low, high];
    [a, b, c, d, e, f, g, h]
}
