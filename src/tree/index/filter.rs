//! A Bloom filter (Bloom 1970) of the blocks of each page.
//!
//! A search for the blocks of a renamed file reads only the pages whose filters match. About 1 in
//! 400 absent blocks is a false positive.

use crate::block::BlockHash;

/// Bits of the filter for each block in the page.
const BITS_PER_BLOCK: usize = 16;
/// Bits set by one block: as many 4-byte numbers as fit the first 16 bytes of its hash.
const PROBES_PER_BLOCK: usize = 4;

/// The block filter of one page.
pub(in crate::tree) struct BlockFilter<'a>(&'a [u8]);

impl<'a> BlockFilter<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns whether an entry of the page may list the block itself. Blocks in list nodes are not
    /// in the filter.
    pub(in crate::tree) fn may_have(&self, hash: &BlockHash) -> bool {
        may_have(self.0, hash)
    }
}

/// Builds the filter of `blocks`, sized by their number; no blocks give an empty filter.
pub(super) fn build<'a>(blocks: impl ExactSizeIterator<Item = &'a BlockHash>) -> Vec<u8> {
    let mut filter = vec![0; (blocks.len() * BITS_PER_BLOCK).div_ceil(8)];
    for hash in blocks {
        for bit in probes(hash, filter.len()) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// Returns whether the block may be in the filter.
fn may_have(filter: &[u8], hash: &BlockHash) -> bool {
    !filter.is_empty()
        && probes(hash, filter.len()).all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0)
}

/// Bit positions of a block. Hashes are uniform, so their own bytes serve as positions.
fn probes(hash: &BlockHash, bytes: usize) -> impl Iterator<Item = usize> {
    let bits = bytes as u64 * 8;
    hash.0
        .chunks_exact(4)
        .take(PROBES_PER_BLOCK)
        .map(move |four| {
            let number = four.iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
            // Below `bits`, which came from a usize.
            (number % bits.max(1)) as usize
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_always_match_and_others_rarely() {
        let name = |n: u32| BlockHash::of(&n.to_be_bytes());
        let inside: Vec<BlockHash> = (0..1000).map(name).collect();
        let filter = build(inside.iter());
        assert!(inside.iter().all(|h| may_have(&filter, h)));
        let wrong = (1000..11_000)
            .filter(|&n| may_have(&filter, &name(n)))
            .count();
        assert!(wrong < 100, "{wrong} of 10,000");

        assert!(!may_have(&build([].iter()), &name(1)));
    }
}
