//! Replay window over the numbers of one source. Follows RFC 6479: a ring of words that advances by
//! whole words, so that recording a number never shifts bits.

/// Status of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not received before.
    New,
    /// Received before.
    Again,
    /// Older than the window: unknown.
    TooOld,
}

/// The numbers received.
#[derive(Debug)]
pub struct ReplayWindow {
    words: usize,
    newest: u64,
    seen: Words,
}

/// A bit for each number; number `n` is in word `n / 64`.
#[derive(Debug)]
enum Words {
    /// The word of the newest number only: most sources send little.
    Newest(u64),
    /// All words, each in the slot of its index modulo their count.
    Ring(Box<[u64]>),
}

impl ReplayWindow {
    /// An empty window of `words` words, each for 64 numbers.
    pub fn new(words: usize) -> Self {
        Self {
            words: words.max(1),
            newest: 0,
            seen: Words::Newest(0),
        }
    }

    /// Status of `number`.
    pub fn look(&self, number: u64) -> Seen {
        let word = number / 64;
        let newest = self.newest / 64;
        if word > newest {
            return Seen::New;
        }

        if newest - word >= self.words as u64 {
            return Seen::TooOld;
        }

        let seen = match &self.seen {
            Words::Newest(seen) if word == newest => *seen,
            Words::Newest(_) => 0,
            Words::Ring(seen) => seen[self.slot(word)],
        };

        if seen & bit(number) == 0 {
            Seen::New
        } else {
            Seen::Again
        }
    }

    /// Records `number`, unless it is too old, and returns its previous status.
    pub fn take(&mut self, number: u64) -> Seen {
        let before = self.look(number);
        if before == Seen::New {
            *self.reach(number / 64) |= bit(number);
            self.newest = self.newest.max(number);
        }
        before
    }

    /// Returns the word with index `word`, which must not be too old, after clearing the words that
    /// a newer one replaces.
    fn reach(&mut self, word: u64) -> &mut u64 {
        let words = self.words as u64;
        let newest = self.newest / 64;
        if let Words::Newest(seen) = self.seen
            && seen != 0
            && word != newest
        {
            let mut ring = vec![0; self.words];
            ring[self.slot(newest)] = seen;
            self.seen = Words::Ring(ring.into_boxed_slice());
        }

        match &mut self.seen {
            Words::Newest(seen) => seen,
            Words::Ring(ring) => {
                if word > newest {
                    let forget = (newest + 1).max((word + 1).saturating_sub(words))..=word;
                    forget.for_each(|old| ring[(old % words) as usize] = 0);
                }
                &mut ring[(word % words) as usize]
            }
        }
    }

    fn slot(&self, word: u64) -> usize {
        (word % self.words as u64) as usize
    }
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn within_the_window_it_is_a_set(
            steps in prop::collection::vec((0..200u64, 0..300u64), 1..300),
        ) {
            let mut window = ReplayWindow::new(8);
            let mut all = BTreeSet::new();
            let mut at = 0;
            for (forth, back) in steps {
                at += forth;
                let number = (at + 300).saturating_sub(back);
                let expected = if all.contains(&number) { Seen::Again } else { Seen::New };
                prop_assert_eq!(window.look(number), expected);
                prop_assert_eq!(window.take(number), expected);
                all.insert(number);
            }
        }

        #[test]
        fn no_number_is_taken_twice_whatever_comes(
            numbers in prop::collection::vec(0..2000u64, 1..500),
        ) {
            let mut window = ReplayWindow::new(4);
            let mut taken = BTreeSet::new();
            for number in numbers {
                prop_assert!(window.take(number) != Seen::New || taken.insert(number));
            }
        }
    }

    #[test]
    fn a_source_that_says_little_takes_one_word() {
        let mut window = ReplayWindow::new(1024);
        (5000..5056).for_each(|number| assert_eq!(window.take(number), Seen::New));
        assert!(matches!(window.seen, Words::Newest(_)));
        assert_eq!(
            (window.take(5056), window.take(4999)),
            (Seen::New, Seen::New)
        );

        assert!((4999..5057).all(|number| window.take(number) == Seen::Again));
    }

    #[test]
    fn jumps_forget_and_what_is_too_old_is_told_apart() {
        let mut window = ReplayWindow::new(1024);
        assert_eq!((window.take(1), window.take(1)), (Seen::New, Seen::Again));
        let far = 1 + 1024 * 64 * 3;
        assert_eq!(
            (window.take(far), window.take(far)),
            (Seen::New, Seen::Again)
        );

        assert_eq!(
            (window.take(far - 64), window.take(far - 64)),
            (Seen::New, Seen::Again)
        );
        assert_eq!(
            (window.take(1), window.take(1)),
            (Seen::TooOld, Seen::TooOld)
        );

        assert_eq!(
            (window.take(u64::MAX), window.take(u64::MAX)),
            (Seen::New, Seen::Again)
        );

        assert_eq!(window.take(far), Seen::TooOld);
    }
}
