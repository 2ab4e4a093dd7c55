//! A generation: some consecutive blocks packed into one payload that is sent and repaired as a unit.
//!
//! ```text
//! payload   0  map size        4 bytes, big-endian
//!           4  map             CBOR: encoding, and runs of ordinals with the size of each block
//!              blocks          one after the other, as the map says
//! ```
//! The payload is cut into symbols of the session's size, those into rows of a few columns. Coded symbols (see
//! [`crate::fec`]) are sums within a column, with the same coefficients in all columns of a row: losses in a row, as a
//! network that drops a whole send makes them, spread over the columns, and coding is work on long vectors.

use std::ops::Range;

use minicbor::{Decode, Encode};

use crate::fec::Grid;
use crate::id::Ordinal;
use crate::proto::RangeSet;
use crate::wire::SymbolHeader;

/// What the packer aims at, in bytes of payload: the larger a generation, the nearer are the losses of all hosts to
/// their mean, and the fewer coded symbols mend them all.
pub const TARGET_BYTES: usize = 6 << 20;
/// Generations behind the newest that a sender keeps for repair.
pub const KEPT: u32 = 8;
/// The most blocks of one generation.
pub const MAX_BLOCKS: usize = 8192;
/// Rows that a full generation has at least: with fewer a column would often need more than its share.
const ROWS: usize = 256;
/// Columns of a generation of small symbols.
const COLUMNS: usize = 16;

/// How blocks stand in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Encoding {
    /// As they are.
    #[n(0)]
    Plain,
}

/// A run of consecutive ordinals.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// The first of them.
    #[n(0)]
    pub first: Ordinal,
    /// The plain size of each block, in bytes.
    #[n(1)]
    pub sizes: Vec<u32>,
}

/// What a payload contains.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Map {
    /// How blocks stand in it.
    #[n(0)]
    pub encoding: Encoding,
    /// Which they are, in order.
    #[n(1)]
    pub runs: Vec<Run>,
}

impl Default for Map {
    fn default() -> Self {
        Self { encoding: Encoding::Plain, runs: Vec::new() }
    }
}

/// One block of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which block.
    pub ordinal: Ordinal,
    /// Where in the payload.
    pub bytes: Range<usize>,
}

impl Map {
    /// Adds a block after those that are there.
    pub fn push(&mut self, ordinal: Ordinal, size: u32) {
        match self.runs.last_mut() {
            Some(run) if run.first.0 + run.sizes.len() as u64 == ordinal.0 => run.sizes.push(size),
            _ => self.runs.push(Run { first: ordinal, sizes: vec![size] }),
        }
    }

    /// The ordinals as ranges.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(|r| r.first.0..r.first.0.saturating_add(r.sizes.len() as u64))
    }

    /// The payload: the map, then `blocks`, which are the map's blocks one after the other.
    pub fn payload(&self, blocks: &[u8]) -> Vec<u8> {
        let map = crate::manifest::node::to_vec(self);
        let mut out = Vec::with_capacity(4 + map.len() + blocks.len());
        out.extend_from_slice(&(map.len() as u32).to_be_bytes());
        out.extend_from_slice(&map);
        out.extend_from_slice(blocks);
        out
    }

    /// The map at the front of a payload of `total` bytes of which `front` is the beginning. `Ok(None)` when more of
    /// the beginning is needed; an error when it is not legal.
    pub fn parse(front: &[u8], total: usize) -> Result<Option<(Map, usize)>, &'static str> {
        let Some(size) = front.first_chunk::<4>() else { return Ok(None) };
        let body = 4 + u32::from_be_bytes(*size) as usize;
        if body > total {
            return Err("a map longer than its payload");
        }
        let Some(bytes) = front.get(4..body) else { return Ok(None) };
        let map: Map = minicbor::decode(bytes).map_err(|_| "a map that cannot be decoded")?;
        map.check(total - body)?;
        Ok(Some((map, body)))
    }

    fn check(&self, content: usize) -> Result<(), &'static str> {
        let blocks: usize = self.runs.iter().map(|r| r.sizes.len()).sum();
        if blocks > MAX_BLOCKS {
            return Err("a map of too many blocks");
        }
        if self.runs.iter().any(|r| r.first.0.checked_add(r.sizes.len() as u64).is_none()) {
            return Err("a map beyond the last ordinal");
        }
        let bytes: u64 = self.runs.iter().flat_map(|r| &r.sizes).map(|&s| u64::from(s)).sum();
        if bytes != content as u64 {
            return Err("a map that differs from its payload");
        }
        Ok(())
    }

    /// The blocks with their places; `body` is where the first begins.
    pub fn placed(&self, body: usize) -> impl Iterator<Item = Placed> + '_ {
        let mut at = body;
        self.runs.iter().flat_map(|r| r.sizes.iter().zip(r.first.0..)).map(move |(&size, ordinal)| {
            let bytes = at..at + size as usize;
            at = bytes.end;
            Placed { ordinal: Ordinal(ordinal), bytes }
        })
    }
}

/// Packs the first of `ordinals` into a payload of about [`TARGET_BYTES`]: gives what was taken, and the payload.
/// `read` appends the block's content to the buffer.
pub fn pack<E>(
    ordinals: &RangeSet,
    read: impl FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
) -> Result<(RangeSet, Vec<u8>), E> {
    pack_to(TARGET_BYTES, ordinals, read)
}

/// The same with about `target` bytes.
pub fn pack_to<E>(
    target: usize,
    ordinals: &RangeSet,
    mut read: impl FnMut(Ordinal, &mut Vec<u8>) -> Result<(), E>,
) -> Result<(RangeSet, Vec<u8>), E> {
    let (mut map, mut taken, mut body) = (Map::default(), RangeSet::default(), Vec::new());
    for ordinal in ordinals.iter().flatten().take(MAX_BLOCKS) {
        let before = body.len();
        read(Ordinal(ordinal), &mut body)?;
        map.push(Ordinal(ordinal), (body.len() - before) as u32);
        taken.insert(ordinal..ordinal + 1);
        if body.len() >= target {
            break;
        }
    }
    Ok((taken, map.payload(&body)))
}

/// How the payload of a symbol lies in rows, by what its header and the session's symbol size say; `None` when that is
/// beyond the caps.
pub fn grid_of(header: &SymbolHeader, symbol: u16) -> Option<Grid> {
    Grid::new(header.payload, symbol, header.columns)
}

/// How a sender cuts `payload` bytes into symbols of `symbol` bytes: payloads of all sizes into equally many columns.
/// `None` when there is nothing to cut, or too much.
pub fn grid_for(payload: usize, symbol: u16) -> Option<Grid> {
    let columns = (TARGET_BYTES / usize::from(symbol.max(1)) / ROWS).clamp(1, COLUMNS) as u8;
    Grid::new(u32::try_from(payload).ok()?, symbol, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_are_found_where_they_were_put(
            blocks in prop::collection::vec((0..3u64, prop::collection::vec(any::<u8>(), 1..50)), 0..40),
            symbol in 64..200u16,
        ) {
            let (mut map, mut body, mut ordinal) = (Map::default(), Vec::new(), 5);
            let mut expected = Vec::new();
            for (skip, bytes) in &blocks {
                ordinal += skip;
                map.push(Ordinal(ordinal), bytes.len() as u32);
                body.extend_from_slice(bytes);
                expected.push((Ordinal(ordinal), bytes.clone()));
                ordinal += 1;
            }
            let payload = map.payload(&body);
            let (back, at) = Map::parse(&payload, payload.len()).expect("legal").expect("whole");
            prop_assert_eq!(&back, &map);
            let found: Vec<_> = back.placed(at).map(|p| (p.ordinal, payload[p.bytes].to_vec())).collect();
            prop_assert_eq!(found, expected);
            let grid = grid_for(payload.len(), symbol).expect("within the caps");
            let cut: Vec<u8> = (0..grid.symbols()).flat_map(|i| payload[grid.bytes_of(i)].to_vec()).collect();
            prop_assert_eq!(cut, payload);
        }

        #[test]
        fn any_front_is_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), total in 0..5000usize) {
            let _ = Map::parse(&bytes, total);
            let mut near = vec![0, 0, 0, bytes.len() as u8];
            near.extend_from_slice(&bytes);
            let _ = Map::parse(&near, total.max(near.len()));
        }
    }
}
