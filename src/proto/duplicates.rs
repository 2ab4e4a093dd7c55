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
    /// Records `counter`. Whether one that is older than the window came before is not known.
    pub fn take(&mut self, counter: u64) -> Seen {
        self.0.take(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_no_longer_new_and_what_is_too_old_is() {
        let mut filter = DuplicateFilter::default();
        let far = 1 + WINDOW_WORDS as u64 * 64 * 3;
        let mut take_twice = |counter| [filter.take(counter), filter.take(counter)];
        assert_eq!(take_twice(1), [Seen::New, Seen::Again]);
        assert_eq!(take_twice(far), [Seen::New, Seen::Again]);
        assert_eq!(take_twice(1), [Seen::TooOld, Seen::TooOld]);
    }
}
