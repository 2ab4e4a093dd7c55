//! Filters duplicate datagrams by counter. A datagram that arrives twice, over two interfaces or
//! duplicated by the network, is measured once.

use crate::wire::window::{ReplayWindow, Seen};

/// Words of the window, 64 numbers each. Two interfaces may lag each other by the depth of their
/// receive buffers.
const WINDOW_WORDS: usize = 1024;

/// Counters received, as far back as the window reaches.
#[derive(Debug)]
pub struct DuplicateFilter(ReplayWindow);

impl Default for DuplicateFilter {
    fn default() -> Self {
        Self(ReplayWindow::new(WINDOW_WORDS))
    }
}

impl DuplicateFilter {
    /// Records `counter` and returns whether this is its first arrival. Counters older than the
    /// window count as new: they are rare, and their payload may be needed.
    pub fn is_new(&mut self, counter: u64) -> bool {
        self.0.take(counter) != Seen::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_no_longer_new_and_what_is_too_old_is() {
        let mut filter = DuplicateFilter::default();
        let far = 1 + WINDOW_WORDS as u64 * 64 * 3;
        assert!(filter.is_new(1) && !filter.is_new(1));
        assert!(filter.is_new(far) && !filter.is_new(far));
        assert!(filter.is_new(1) && filter.is_new(1));
    }
}
