//! Coded symbols, which replace any lost symbols of a payload.
//!
//! A payload is laid out in rows of symbols ([`Grid`]). A *coded row* is the sum of all rows of the
//! payload, each multiplied by its [`coefficient`]; a *coded symbol* is one column of a coded row.
//! Any `n` coded symbols of a column recover any `n` lost ones ([`encode()`], [`decode()`]), except
//! once in 250 times, when the coded rows depend on each other and one more is needed: [`deficit`]
//! detects this case before any data is touched. There are 65,536 coded rows, and the number needed
//! does not have to be known in advance.
//!
//! **Why this code.** The cost of decoding follows the number of losses, not the size of the
//! payload, and further symbols can be made at any time. GB of payload per second on one core (Ice
//! Lake server, 2.8 GHz, GFNI and AVX-512; `repair` in tests/bench/parts), for as many coded
//! symbols as were lost:
//!
//! | 256 symbols of 1400 bytes | encode 1 / 5 / 10 % | decode 1 / 5 / 10 % |
//! |---|---|---|
//! | this code | 19 / 4.7 / 2.4 | 16 / 3.8 / 1.9 |
//! | reed-solomon-simd, without further symbols later | 9.9 / 6.6 / 5.7 | 0.69 / 0.63 / 0.66 |
//! | raptorq | 0.77 / 0.75 / 0.75 | 0.42 / 0.41 / 0.41 |
//!
//! | 2 MiB, 8 columns of 1428 bytes | encode 1 / 5 / 10 % | decode 1 / 5 / 10 % |
//! |---|---|---|
//! | whole rows lost | 27 / 8.6 / 5.0 | 25 / 8.4 / 4.7 |
//! | single symbols lost | the same | 17 / 4.7 / 2.5 |
//! | whole rows, GFNI and AVX2 | - / 8.4 / - | - / 8.2 / - |
//! | whole rows, AVX2 | - / 4.6 / - | - / 4.9 / - |
//! | whole rows, portable | - / 0.32 / - | - / 0.31 / - |
//!
//! Adding one multiple to one row in the first-level cache: GFNI and AVX-512 35, GFNI and AVX2 13,
//! AVX2 34, portable 1.4.
//!
//! Pure: no datagrams, sessions, clock, files or sockets. Sizes and counts may come from a peer, so
//! nothing here panics.

mod combine;
mod decode;
mod encode;
pub mod field;
mod grid;
mod kernel;
mod lane;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;
mod solve;

#[cfg(test)]
mod tests;

pub use decode::{Coded, Shortage, Unsolved, decode};
pub use encode::encode;
pub use grid::{Grid, MAX_COLUMNS, MAX_PAYLOAD, MAX_ROWS, MAX_SYMBOL, MIN_SYMBOL};
pub use kernel::Kernel;
pub use solve::{MAX_LOST, deficit};

/// Factor of `row` of the payload in the coded row `coded`: 1 to 255, pseudorandom.
///
/// Hosts have to agree on the coefficients, so they can never change. The hash is the last step of
/// MurmurHash3 on `coded * 65536 + row`, scaled to 255 values.
pub const fn coefficient(coded: u16, row: u16) -> u8 {
    let mut hash = (coded as u32) << 16 | row as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
    hash ^= hash >> 16;
    1 + ((hash as u64 * 255) >> 32) as u8
}
