//! The map at the front of a payload: its blocks, their sizes and their encoding.

use std::ops::Range;

use minicbor::{Decode, Encode};

use crate::id::Ordinal;

/// Largest plain size of a compressed generation, in bytes: the memory that a host must provide.
pub const MAX_PLAIN: usize = 16 << 20;
/// Largest number of blocks in a generation.
pub const MAX_GENERATION_BLOCKS: usize = 8192;
/// Largest map, in bytes. A block takes 5 bytes and a run of blocks about 15.
const MAX_MAP: usize = MAX_GENERATION_BLOCKS * 24;

/// Encoding of the blocks in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Encoding {
    /// Concatenated, uncompressed.
    #[n(0)]
    Plain,
    /// One zstd frame.
    #[n(1)]
    Zstd,
}

/// A run of consecutive ordinals.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrdinalRun {
    /// First ordinal.
    #[n(0)]
    pub first: Ordinal,
    /// Plain size of each block, in bytes.
    #[n(1)]
    pub sizes: Vec<u32>,
}

/// Contents of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Map {
    /// Encoding of the blocks.
    #[n(0)]
    pub encoding: Encoding,
    /// Blocks, in order.
    #[n(1)]
    pub runs: Vec<OrdinalRun>,
}

impl Default for Map {
    fn default() -> Self {
        Self {
            encoding: Encoding::Plain,
            runs: Vec::new(),
        }
    }
}

/// Position of a block in the plain content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedBlock {
    /// The block's ordinal.
    pub ordinal: Ordinal,
    /// Its byte range in the plain content.
    pub bytes: Range<usize>,
}

/// Position and encoding of the content in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// Encoding of the content.
    pub encoding: Encoding,
    /// Offset of the content in the payload.
    pub start: usize,
    /// Plain size in bytes, at most [`MAX_PLAIN`].
    pub plain: usize,
}

impl Map {
    /// Appends a block.
    pub fn push(&mut self, ordinal: Ordinal, size: u32) {
        match self.runs.last_mut() {
            Some(run) if run.first.0 + run.sizes.len() as u64 == ordinal.0 => run.sizes.push(size),
            _ => self.runs.push(OrdinalRun {
                first: ordinal,
                sizes: vec![size],
            }),
        }
    }

    /// Returns the ordinals as ranges.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs
            .iter()
            .map(|r| r.first.0..r.first.0.saturating_add(r.sizes.len() as u64))
    }

    /// Builds the payload: the map, then `content`, the concatenated blocks in the map's encoding.
    pub fn payload(&self, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(content, &mut out);
        out
    }

    /// Writes the same payload into `out`, replacing the old contents.
    pub(super) fn write(&self, content: &[u8], out: &mut Vec<u8>) {
        let map = crate::manifest::node::to_vec(self);
        out.clear();
        out.reserve_exact(4 + map.len() + content.len());
        out.extend_from_slice(&(map.len() as u32).to_be_bytes());
        out.extend_from_slice(&map);
        out.extend_from_slice(content);
    }

    /// Parses the map at the front of a payload of `total` bytes, given its first bytes in `front`.
    /// Returns `Ok(None)` if more bytes are needed, and an error for an illegal map.
    pub fn parse(front: &[u8], total: usize) -> Result<Option<(Map, Body)>, &'static str> {
        let Some(size) = front.first_chunk::<4>() else {
            return Ok(None);
        };

        let start = 4 + u32::from_be_bytes(*size) as usize;
        if start > total || start > MAX_MAP {
            return Err("a map longer than its payload, or than any");
        }

        let Some(bytes) = front.get(4..start) else {
            return Ok(None);
        };

        let map: Map = minicbor::decode(bytes).map_err(|_| "a map that cannot be decoded")?;
        let plain = map.check(total - start)?;
        let body = Body {
            encoding: map.encoding,
            start,
            plain,
        };

        Ok(Some((map, body)))
    }

    /// Returns the plain size of the mapped blocks, if `content` bytes can hold them.
    fn check(&self, content: usize) -> Result<usize, &'static str> {
        let blocks: usize = self.runs.iter().map(|r| r.sizes.len()).sum();
        if blocks > MAX_GENERATION_BLOCKS {
            return Err("a map of too many blocks");
        }

        if self
            .runs
            .iter()
            .any(|r| r.first.0.checked_add(r.sizes.len() as u64).is_none())
        {
            return Err("a map beyond the last ordinal");
        }

        // At most MAX_GENERATION_BLOCKS numbers of 32 bits.
        let plain: u64 = self
            .runs
            .iter()
            .flat_map(|r| &r.sizes)
            .map(|&s| u64::from(s))
            .sum();

        match self.encoding {
            Encoding::Plain if plain != content as u64 => {
                Err("a map that differs from its payload")
            }
            Encoding::Zstd if plain > MAX_PLAIN as u64 => Err("a map of more than a host takes"),
            _ => Ok(plain as usize),
        }
    }

    /// Returns the blocks with their positions in the plain content.
    pub fn placed(&self) -> impl Iterator<Item = PlacedBlock> + '_ {
        let mut at = 0;
        self.runs
            .iter()
            .flat_map(|r| r.sizes.iter().zip(r.first.0..))
            .map(move |(&size, ordinal)| {
                let bytes = at..at + size as usize;
                at = bytes.end;
                PlacedBlock {
                    ordinal: Ordinal(ordinal),
                    bytes,
                }
            })
    }
}
