//! Bytes of packs that releases refer to, and the choice of packs to rewrite.

use std::collections::{HashMap, HashSet};

use crate::repository::pack::{Extent, PackName};

/// Dead bytes that stay, in per cent of the live ones.
const DEAD_PERCENT: u64 = 15;
/// Size of a pack below which it is small, in bytes.
const SMALL_PACK_BYTES: u64 = 1 << 20;
/// Largest number of small packs: a first pull needs a request for each.
const MAX_SMALL: usize = 16;

/// Live extents of each pack.
#[derive(Debug, Default)]
pub(super) struct Live {
    packs: HashMap<PackName, Vec<(u32, u32)>>,
}

impl Live {
    pub(super) fn add(&mut self, extent: Extent) {
        let extents = self.packs.entry(extent.pack).or_default();
        extents.push((extent.offset, extent.len));
    }

    /// Sorts what was added; an extent that was added twice counts once.
    pub(super) fn settle(&mut self) {
        for extents in self.packs.values_mut() {
            extents.sort_unstable();
            extents.dedup();
        }
    }

    pub(super) fn has(&self, pack: &PackName) -> bool {
        self.packs.contains_key(pack)
    }

    /// A pack with live bytes that is not among `sizes`, or too small for them.
    pub(super) fn missing(&self, sizes: &HashMap<PackName, u64>) -> Option<PackName> {
        let is_whole = |(pack, extents): &(&PackName, &Vec<(u32, u32)>)| {
            let ends = extents
                .iter()
                .map(|(offset, len)| u64::from(*offset) + u64::from(*len));
            sizes
                .get(*pack)
                .is_some_and(|size| ends.max() <= Some(*size))
        };
        let mut packs = self.packs.iter();
        packs.find(|pack| !is_whole(pack)).map(|(pack, _)| *pack)
    }

    /// Live extents of `pack`, by offset.
    pub(super) fn extents(&self, pack: &PackName) -> Vec<Extent> {
        let extents = self.packs.get(pack).map_or(&[][..], Vec::as_slice);
        let extent = |(offset, len): &(u32, u32)| Extent {
            pack: *pack,
            offset: *offset,
            len: *len,
        };
        extents.iter().map(extent).collect()
    }

    /// Live bytes of `pack`.
    pub(super) fn bytes(&self, pack: &PackName) -> u64 {
        let extents = self.packs.get(pack).map_or(&[][..], Vec::as_slice);
        let lens = extents.iter().map(|(_, len)| u64::from(*len));
        lens.fold(0, u64::saturating_add)
    }

    /// Live bytes of all packs.
    pub(super) fn all_bytes(&self) -> u64 {
        let packs = self.packs.keys().map(|pack| self.bytes(pack));
        packs.fold(0, u64::saturating_add)
    }

    /// The packs with live bytes that have to be rewritten, so that little of what is stored is
    /// dead and few packs are small. `sizes` are the sizes of all packs.
    pub(super) fn weak(&self, sizes: &HashMap<PackName, u64>) -> Vec<PackName> {
        let mut packs: Vec<(PackName, u64, u64)> = sizes
            .iter()
            .filter(|(pack, _)| self.has(pack))
            .map(|(pack, size)| (*pack, *size, size.saturating_sub(self.bytes(pack))))
            .collect();
        // The largest share of dead bytes first.
        packs.sort_by_key(|(pack, size, dead)| {
            (u64::MAX - dead.saturating_mul(1000) / (*size).max(1), *pack)
        });

        let all = packs.iter().map(|(_, _, dead)| *dead);
        let mut dead = all.fold(0, u64::saturating_add);
        let may_stay = self.all_bytes().saturating_mul(DEAD_PERCENT) / 100;
        let mut weak = HashSet::new();
        for (pack, _, its) in &packs {
            if dead <= may_stay {
                break;
            }
            dead = dead.saturating_sub(*its);
            weak.insert(*pack);
        }

        let is_small = |(pack, size, _): &&(PackName, u64, u64)| {
            *size < SMALL_PACK_BYTES && !weak.contains(pack)
        };
        let small: Vec<PackName> = packs
            .iter()
            .filter(is_small)
            .map(|(pack, ..)| *pack)
            .collect();
        if small.len() > MAX_SMALL {
            weak.extend(small);
        }

        let mut weak: Vec<PackName> = weak.into_iter().collect();
        weak.sort_unstable();
        weak
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;

    fn pack(n: u8) -> PackName {
        PackName(BlockHash([n; 32]))
    }

    fn live(bytes: &[(u8, u32)]) -> Live {
        let mut live = Live::default();
        for (n, len) in bytes {
            for _ in 0..2 {
                live.add(Extent {
                    pack: pack(*n),
                    offset: 5,
                    len: *len,
                });
            }
        }
        live.settle();
        live
    }

    #[test]
    fn packs_are_rewritten_until_little_is_dead() {
        let live = live(&[(1, 9 << 20), (2, 2 << 20), (3, 8 << 20)]);
        let sizes = [(pack(1), 10 << 20), (pack(2), 10 << 20), (pack(3), 9 << 20)];
        let mut sizes = HashMap::from(sizes);
        assert_eq!(live.weak(&sizes), [pack(2)]);
        sizes.insert(pack(2), 2 << 20);
        assert!(live.weak(&sizes).is_empty());
        // Nothing in it is live: it is deleted, not rewritten.
        sizes.insert(pack(9), 90 << 20);
        assert!(live.weak(&sizes).is_empty());
    }

    #[test]
    fn sizes_that_cannot_be_overflow_nothing() {
        let live = live(&[(1, 9 << 20), (2, 2 << 20)]);
        let sizes = HashMap::from([(pack(1), u64::MAX), (pack(2), u64::MAX / 2)]);
        assert_eq!(live.weak(&sizes), [pack(1), pack(2)]);
    }

    #[test]
    fn many_small_packs_become_one() {
        let packs: Vec<(u8, u32)> = (0..=MAX_SMALL as u8).map(|n| (n, 1000)).collect();
        let sizes = packs.iter().map(|(n, len)| (pack(*n), u64::from(*len)));
        let sizes: HashMap<PackName, u64> = sizes.collect();
        assert_eq!(live(&packs).weak(&sizes).len(), packs.len());
        assert!(live(&packs[1..]).weak(&sizes).is_empty());
    }
}
