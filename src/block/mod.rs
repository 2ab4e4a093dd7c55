//! Blocks: the content-addressed pieces that everything travels as.
//!
//! [`hash`] names a block by its SHA-256, [`chunk`] cuts a file into blocks by content, [`frame`] compresses what travels.
//! All are pure; none knows where bytes come from or go to.

pub mod chunk;
pub mod frame;
pub mod hash;

pub use hash::{BlockHash, BlockRef};
