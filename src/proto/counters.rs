//! Which of a sender's numbered datagrams have come already: one that comes twice, over two interfaces or doubled on the
//! way, is measured once.

use crate::wire::window::{Seen, Window};

/// The words of the window, each for 64 numbers: two interfaces may be as far apart as their receive buffers are deep.
const WORDS: usize = 1024;

/// The numbers that came, as far back as the window goes.
#[derive(Debug)]
pub struct Counters(Window);

impl Default for Counters {
    fn default() -> Self {
        Self(Window::new(WORDS))
    }
}

impl Counters {
    /// Takes `counter`; whether it is the first time. One that is older than the window counts as new: it is rare, and
    /// what it carries may be needed.
    pub fn is_new(&mut self, counter: u64) -> bool {
        self.0.take(counter) != Seen::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_no_longer_new_and_what_is_too_old_is() {
        let mut counters = Counters::default();
        let far = 1 + WORDS as u64 * 64 * 3;
        assert!(counters.is_new(1) && !counters.is_new(1));
        assert!(counters.is_new(far) && !counters.is_new(far));
        assert!(counters.is_new(1) && counters.is_new(1));
    }
}
