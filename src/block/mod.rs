//! Blocks: the content-addressed units in which all content travels.
//!
//! [`hash`] names a block by SHA-256, several at once where the processor can, [`chunk`] cuts a
//! file into blocks by content, [`frame`] compresses content. All are pure, with no knowledge of
//! the source or destination of bytes.

pub mod chunk;
pub mod frame;
pub mod hash;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod sha_ni;

pub use hash::{BlockHash, BlockHasher, BlockRef};
