//! Which pages may have a block: a Bloom filter (Bloom 1970) for each page, so that whoever looks for the blocks of a
//! renamed file reads the few pages that have them. It says "perhaps" of some 1 in 400 blocks that are not there.

use crate::block::BlockHash;

/// Bits of a filter for each block in it.
const BITS_A_BLOCK: usize = 16;
/// Bits that a block sets: as many as fit its name's first 16 bytes.
const PROBES: usize = 4;

/// The filter of these blocks: as many bytes as it takes, none for none.
pub(super) fn build<'a>(blocks: impl ExactSizeIterator<Item = &'a BlockHash>) -> Vec<u8> {
    let mut filter = vec![0; (blocks.len() * BITS_A_BLOCK).div_ceil(8)];
    for hash in blocks {
        for bit in probes(hash, filter.len()) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// Whether the block may be among those of the filter.
pub(super) fn may_have(filter: &[u8], hash: &BlockHash) -> bool {
    !filter.is_empty()
        && probes(hash, filter.len()).all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0)
}

/// Names are even already: their own bytes say which bits.
fn probes(hash: &BlockHash, bytes: usize) -> impl Iterator<Item = usize> {
    let bits = bytes as u64 * 8;
    hash.0.chunks_exact(4).take(PROBES).map(move |four| {
        let number = four.iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
        // At most `bits`, which came from a usize.
        (number % bits.max(1)) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_is_always_found_and_what_is_not_seldom() {
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
