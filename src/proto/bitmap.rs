//! Fixed-size bitmap: one flag for each symbol of a generation.

/// Flags 0 to `len`, with a running count of the flags set.
#[derive(Debug, Clone, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u32,
    set: u32,
}

impl Bitmap {
    /// Returns `len` flags, all clear.
    pub fn new(len: u32) -> Self {
        Self {
            words: vec![0; (len as usize).div_ceil(64)],
            len,
            set: 0,
        }
    }

    /// Number of flags.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns true for a bitmap without flags.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of flags set.
    pub fn count(&self) -> u32 {
        self.set
    }

    /// Returns flag `at`; false past the end.
    pub fn get(&self, at: u32) -> bool {
        self.words
            .get(at as usize / 64)
            .is_some_and(|w| w >> (at % 64) & 1 == 1)
    }

    /// Sets flag `at` and returns true if the flag was clear. Does nothing past the end.
    pub fn set(&mut self, at: u32) -> bool {
        if at >= self.len || self.get(at) {
            return false;
        }
        self.words[at as usize / 64] |= 1 << (at % 64);
        self.set += 1;
        true
    }

    /// Returns the clear flags as ranges.
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
        fn gaps_and_flags_complement_each_other(
            len in 1..300u32,
            marks in prop::collection::vec(any::<u32>(), 0..400),
        ) {
            let mut bits = Bitmap::new(len);
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
