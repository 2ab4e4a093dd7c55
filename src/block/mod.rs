//! Blocks: the content-addressed units in which all content travels.
//!
//! [`hash`] names a block by SHA-256, [`chunk`] cuts a file into blocks by content, [`frame`]
//! compresses content. All are pure, with no knowledge of the source or destination of bytes.

pub mod chunk;
pub mod frame;
pub mod hash;

pub use hash::{BlockHash, BlockHasher, BlockRef};
