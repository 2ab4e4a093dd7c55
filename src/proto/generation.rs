//! A generation: consecutive blocks packed into one payload, which is sent and repaired as a unit.
//!
//! ```text
//! payload   0  map size        4 bytes, big-endian
//!           4  map             CBOR: encoding, and runs of ordinals with the size of each block
//!              content         the mapped blocks, concatenated; or one zstd frame of them
//! ```
//!
//! Many small blocks in one frame compress like a stream. Hashes always cover the plain blocks.
//!
//! The payload is cut into symbols of the session's size, and the symbols into rows of a few
//! columns. Coded symbols (see [`crate::fec`]) are sums within a column, with the same coefficients
//! in all columns of a row. Losses within a row, typical of a network that drops a whole send,
//! spread over the columns, and coding works on long vectors.

mod map;
mod pack;

use crate::fec::Grid;
use crate::wire::SymbolHeader;

pub use map::{Body, Encoding, MAX_GENERATION_BLOCKS, MAX_PLAIN, Map, OrdinalRun, PlacedBlock};
pub use pack::{Buffers, PackedGeneration, pack, pack_to};

/// Target size of a payload, in bytes. In a larger generation the losses of all hosts are nearer to
/// their mean, so fewer coded symbols repair all of them.
pub const TARGET_BYTES: usize = 3 << 20;
/// Generations behind the newest that a sender keeps for repair.
pub const KEPT_GENERATIONS: u32 = 12;
/// Smallest number of rows in a full generation. With fewer rows a column would often need more
/// than its share.
const MIN_ROWS: usize = 256;
/// Columns of a generation of small symbols.
const SMALL_SYMBOL_COLUMNS: usize = 8;

/// Returns the grid of a symbol's payload, from the symbol's header and the session's symbol size.
/// `None` beyond the limits.
pub fn grid_of(header: &SymbolHeader, symbol: u16) -> Option<Grid> {
    Grid::new(header.payload, symbol, header.columns)
}

/// Returns the grid by which a sender cuts `payload` bytes into symbols of `symbol` bytes: the same
/// number of columns for every payload size. `None` if the payload is empty or too large.
pub fn grid_for(payload: usize, symbol: u16) -> Option<Grid> {
    let columns =
        (TARGET_BYTES / usize::from(symbol.max(1)) / MIN_ROWS).clamp(1, SMALL_SYMBOL_COLUMNS) as u8;
    Grid::new(u32::try_from(payload).ok()?, symbol, columns)
}

#[cfg(test)]
mod tests;
