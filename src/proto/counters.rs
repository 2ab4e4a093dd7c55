//! Which of a sender's numbered datagrams have come already: one that comes twice, over two interfaces or doubled on the
//! way, is measured once.

/// The words of the window, each for 64 numbers: two interfaces may be as far apart as their receive buffers are deep.
const WORDS: u64 = 1024;

/// The numbers that came, as far back as the window goes.
#[derive(Debug)]
pub struct Counters {
    newest: u64,
    /// A bit for each number; the word of a number is its 64th part, modulo the words that there are.
    seen: Box<[u64]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { newest: 0, seen: vec![0; WORDS as usize].into_boxed_slice() }
    }
}

impl Counters {
    /// Takes `counter`; whether it is the first time. One that is older than the window counts as new: it is rare, and
    /// what it carries may be needed.
    pub fn is_new(&mut self, counter: u64) -> bool {
        let (word, newest) = (counter / 64, self.newest / 64);
        if word > newest {
            let forget = (newest + 1).max((word + 1).saturating_sub(WORDS))..=word;
            forget.for_each(|old| self.seen[(old % WORDS) as usize] = 0);
        } else if newest - word >= WORDS {
            return true;
        }
        self.newest = self.newest.max(counter);
        let (slot, bit) = (&mut self.seen[(word % WORDS) as usize], 1 << (counter % 64));
        let new = *slot & bit == 0;
        *slot |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn within_the_window_it_is_a_set(steps in prop::collection::vec((0..200u64, 0..300u64), 1..300)) {
            let (mut counters, mut all, mut at) = (Counters::default(), BTreeSet::new(), 0);
            for (forth, back) in steps {
                at += forth;
                let counter = (at + 300).saturating_sub(back);
                prop_assert_eq!(counters.is_new(counter), all.insert(counter));
            }
        }
    }

    #[test]
    fn jumps_forget_and_what_is_too_old_counts_as_new() {
        let mut counters = Counters::default();
        assert!(counters.is_new(1) && !counters.is_new(1));
        let far = 1 + WORDS * 64 * 3;
        assert!(counters.is_new(far) && !counters.is_new(far));
        assert!(counters.is_new(far - 64) && !counters.is_new(far - 64));
        assert!(counters.is_new(1) && counters.is_new(1));
        assert!(counters.is_new(u64::MAX) && !counters.is_new(u64::MAX) && counters.is_new(far));
    }
}
