//! Blocks: the content-addressed pieces that everything travels as.
//!
//! [`hash`] names a block by its SHA-256, [`chunk`] cuts a file into blocks by content. Both are pure; neither knows
//! where bytes come from or go to.

pub mod chunk;
pub mod hash;

pub use hash::{BlockHash, BlockRef};
