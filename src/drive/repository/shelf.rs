//! Blocks between the thread that loads them from a store and the session that sends them.
//!
//! The session says what it will read, and the thread loads it ahead, within a bound. A block is
//! handed out once; what the session reads again, to repair a loss, is loaded again.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::proto::RangeSet;
use crate::sync::locked;

/// Bytes of blocks on the shelf up to which further ones are taken, unless the session waits for
/// one that is not there.
const MAX_SHELF_BYTES: usize = 4 << 20;
/// Bytes on the shelf from which no further blocks are asked for while the one that the session
/// waits for is on its way.
const MANY_SHELF_BYTES: usize = 3 * MAX_SHELF_BYTES;
/// Bytes on the shelf from which blocks are dropped that the session does not expect.
const MOST_SHELF_BYTES: usize = 6 * MAX_SHELF_BYTES;

/// Blocks by ordinal.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    state: Mutex<ShelfState>,
    /// Wakes the session.
    arrived: Condvar,
    /// Wakes the loader.
    changed: Notify,
}

#[derive(Debug, Default)]
struct ShelfState {
    blocks: HashMap<u64, Vec<u8>>,
    bytes: usize,
    /// Ordinals to load.
    wanted: RangeSet,
    /// Ordinals that the loader was told of and the session has not read.
    asked: RangeSet,
    /// Ordinals that the session will read, as of its last word.
    expected: RangeSet,
    /// Whether the unexpected blocks were dropped since then.
    is_tidy: bool,
    /// The block that the session waits for.
    awaited: Option<u64>,
    closed: bool,
    /// Reason why no further block comes.
    failure: Option<String>,
}

impl ShelfState {
    fn ask(&mut self, ordinals: &RangeSet) {
        let mut new = ordinals.clone();
        new.subtract(&self.asked);
        self.wanted.extend(&new);
        self.asked.extend(&new);
    }

    /// Drops the blocks that the session does not expect any more.
    fn evict(&mut self) {
        let expected = &self.expected;
        let stale: Vec<u64> = self
            .blocks
            .keys()
            .copied()
            .filter(|ordinal| !expected.contains(*ordinal))
            .collect();
        for ordinal in stale {
            let block = self.blocks.remove(&ordinal).unwrap_or_default();
            self.bytes -= block.len();
            self.asked.remove(ordinal..ordinal.saturating_add(1));
        }
    }
}

impl Shelf {
    /// Notes the ordinals that the session will read.
    pub(super) fn expect(&self, ordinals: &RangeSet) {
        let mut state = locked(&self.state);
        state.expected = ordinals.clone();
        state.is_tidy = false;
        state.ask(ordinals);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for the block `ordinal` and takes it; an error says why it does not come.
    pub(super) fn take(&self, ordinal: u64) -> Result<Vec<u8>, String> {
        let mut state = locked(&self.state);
        loop {
            if let Some(block) = state.blocks.remove(&ordinal) {
                state.bytes -= block.len();
                state.asked.remove(ordinal..ordinal.saturating_add(1));
                state.awaited = None;
                drop(state);
                self.changed.notify_one();
                return Ok(block);
            }

            if let Some(why) = &state.failure {
                return Err(why.clone());
            }
            if state.closed {
                return Err("the session is over".into());
            }

            let one = std::iter::once(ordinal..ordinal.saturating_add(1)).collect();
            state.ask(&one);
            state.awaited = Some(ordinal);
            self.changed.notify_one();
            let waited = self.arrived.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the ordinals that the loader has not been told of.
    pub(super) fn new_wants(&self) -> RangeSet {
        std::mem::take(&mut locked(&self.state).wanted)
    }

    /// Returns whether the loader was told of a block that it has not brought.
    pub(super) fn lacks_any(&self) -> bool {
        let state = locked(&self.state);
        let mut lacking = state.asked.clone();
        lacking.subtract(&state.wanted);
        for ordinal in state.blocks.keys() {
            lacking.remove(*ordinal..ordinal.saturating_add(1));
        }
        !lacking.is_empty()
    }

    /// Puts a block on the shelf.
    pub(super) fn put(&self, ordinal: u64, block: Vec<u8>) {
        let mut state = locked(&self.state);
        state.bytes += block.len();
        if let Some(twice) = state.blocks.insert(ordinal, block) {
            state.bytes -= twice.len();
        }
        drop(state);
        self.arrived.notify_all();
    }

    /// Returns whether the session has enough to read. While it waits for a block, others that it
    /// does not expect make room.
    pub(super) fn is_full(&self) -> bool {
        let mut state = locked(&self.state);
        if state.awaited.is_some() && state.bytes > MOST_SHELF_BYTES && !state.is_tidy {
            state.evict();
            state.is_tidy = true;
        }
        state.bytes > MAX_SHELF_BYTES && state.awaited.is_none()
    }

    /// The block that the session waits for although there are many others: one answer of the store
    /// is slower than the rest.
    pub(super) fn overdue(&self) -> Option<u64> {
        let state = locked(&self.state);
        state.awaited.filter(|_| state.bytes > MANY_SHELF_BYTES)
    }

    /// Waits until the session takes a block or wants others.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends the loading, with the reason.
    pub(super) fn fail(&self, why: String) {
        locked(&self.state).failure.get_or_insert(why);
        self.arrived.notify_all();
    }

    /// Ends both sides.
    pub(super) fn close(&self) {
        locked(&self.state).closed = true;
        self.arrived.notify_all();
        self.changed.notify_one();
    }

    /// Returns whether the session is over.
    pub(super) fn is_closed(&self) -> bool {
        locked(&self.state).closed
    }

    /// Reason why no further block comes.
    pub(super) fn failure(&self) -> Option<String> {
        locked(&self.state).failure.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn set(ranges: &[std::ops::Range<u64>]) -> RangeSet {
        ranges.iter().cloned().collect()
    }

    #[test]
    fn blocks_are_asked_for_once_until_they_are_read() {
        let shelf = Shelf::default();
        shelf.expect(&set(&[5..8]));
        assert_eq!(shelf.new_wants(), set(&[5..8]));
        shelf.expect(&set(&[6..9]));
        assert_eq!(shelf.new_wants(), set(&[8..9]));

        shelf.put(6, vec![6; 10]);
        assert_eq!(shelf.take(6), Ok(vec![6; 10]));
        shelf.expect(&set(&[6..7]));
        assert_eq!(shelf.new_wants(), set(&[6..7]), "a repair");
    }

    #[test]
    fn what_the_loader_was_told_of_and_has_not_brought_is_lacking() {
        let shelf = Shelf::default();
        shelf.expect(&set(&[5..7]));
        assert!(!shelf.lacks_any(), "the loader does not know it");
        shelf.new_wants();
        assert!(shelf.lacks_any());
        shelf.put(5, vec![5]);
        assert!(shelf.lacks_any());
        shelf.put(6, vec![6]);
        assert!(!shelf.lacks_any());
        assert_eq!(shelf.take(5), Ok(vec![5]));
        assert!(!shelf.lacks_any());
        shelf.expect(&set(&[5..6]));
        assert!(!shelf.lacks_any(), "a repair");
        shelf.new_wants();
        assert!(shelf.lacks_any());
    }

    #[test]
    fn a_reader_waits_for_its_block_or_learns_why_it_does_not_come() {
        let shelf = Arc::new(Shelf::default());
        let reader = Arc::clone(&shelf);
        let thread = std::thread::spawn(move || (reader.take(1), reader.take(2), reader.take(3)));
        shelf.put(1, vec![1]);
        shelf.put(2, vec![2]);
        shelf.fail("damaged".into());
        let read = thread.join().expect("no panic");
        assert_eq!(read, (Ok(vec![1]), Ok(vec![2]), Err("damaged".into())));
    }

    #[test]
    fn the_block_that_a_reader_waits_for_is_overdue_beside_many_others() {
        let shelf = Arc::new(Shelf::default());
        shelf.put(2, vec![2; MANY_SHELF_BYTES + 1]);
        assert_eq!(shelf.overdue(), None, "nobody waits");
        let reader = Arc::clone(&shelf);
        let thread = std::thread::spawn(move || reader.take(1));
        while shelf.overdue() != Some(1) {
            std::thread::yield_now();
        }
        shelf.put(1, vec![1]);
        assert_eq!(thread.join().expect("no panic"), Ok(vec![1]));
        assert_eq!(shelf.overdue(), None);
    }

    #[test]
    fn blocks_that_nobody_expects_make_room() {
        let shelf = Arc::new(Shelf::default());
        shelf.expect(&set(&[0..2]));
        shelf.put(0, vec![0; MOST_SHELF_BYTES + 1]);
        assert!(shelf.is_full(), "nobody waits");
        let reader = Arc::clone(&shelf);
        let thread = std::thread::spawn(move || reader.take(1));
        while shelf.is_full() {
            std::thread::yield_now();
        }
        shelf.put(1, vec![1]);
        assert_eq!(thread.join().expect("no panic"), Ok(vec![1]));

        assert!(shelf.is_full());
        shelf.expect(&set(&[2..3]));
        assert!(shelf.is_full(), "it is kept while the session reads others");
        let reader = Arc::clone(&shelf);
        let thread = std::thread::spawn(move || reader.take(2));
        while shelf.is_full() {
            std::thread::yield_now();
        }
        shelf.put(2, vec![2]);
        assert_eq!(thread.join().expect("no panic"), Ok(vec![2]));
        assert!(!shelf.is_full(), "the one that nobody expects is gone");
    }
}
