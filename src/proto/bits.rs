//! A fixed number of flags: the symbols of one generation.

/// Flags 0 to `len`, with a count of those that are set.
#[derive(Debug, Clone, Default)]
pub struct Bits {
    words: Vec<u64>,
    len: u32,
    set: u32,
}

impl Bits {
    /// `len` flags, none set.
    pub fn new(len: u32) -> Self {
        Self {
            words: vec![0; (len as usize).div_ceil(64)],
            len,
            set: 0,
        }
    }

    /// How many flags there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no flags.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many are set.
    pub fn count(&self) -> u32 {
        self.set
    }

    /// Whether flag `at` is set; false past the end.
    pub fn get(&self, at: u32) -> bool {
        self.words
            .get(at as usize / 64)
            .is_some_and(|w| w >> (at % 64) & 1 == 1)
    }

    /// Sets flag `at`; says whether it was not set before. Past the end nothing happens.
    pub fn set(&mut self, at: u32) -> bool {
        if at >= self.len || self.get(at) {
            return false;
        }
        self.words[at as usize / 64] |= 1 << (at % 64);
        self.set += 1;
        true
    }

    /// The flags that are not set, as ranges.
    pub fn gaps(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < self.len && self.get(at) {
                at += if at.is_multiple_of(64) && self.words[at as usize / 64] == u64::MAX {
                    64
                } else {
                    1
                };
            }
            let start = at.min(self.len);
            while at < self.len && !self.get(at) {
                at += 1;
            }
            (start < self.len).then_some(u64::from(start)..u64::from(at.min(self.len)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gaps_and_flags_complement_each_other(len in 1..300u32, marks in prop::collection::vec(any::<u32>(), 0..400)) {
            let mut bits = Bits::new(len);
            for mark in marks {
                let at = mark % (len + 10);
                let fresh = !bits.get(at) && at < len;
                prop_assert_eq!(bits.set(at), fresh);
            }

            let gaps: std::collections::BTreeSet<u64> = bits.gaps().flatten().collect();
            for at in 0..len {
                prop_assert_eq!(bits.get(at), !gaps.contains(&u64::from(at)));
            }

            prop_assert_eq!(bits.count() as usize + gaps.len(), len as usize);
        }
    }
}
