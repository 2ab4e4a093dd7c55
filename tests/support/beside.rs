//! What somebody does in a thread of its own while a test goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::Adversary;

/// Work that runs until it is told to end.
pub struct Beside<T> {
    over: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Beside<T> {
    /// Starts `work`, which ends soon after its argument is true.
    pub fn begin(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        Self {
            over,
            thread: std::thread::spawn(move || work(&seen)),
        }
    }

    /// Ends it.
    pub fn end(self) -> T {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// Records all that is heard until the end.
pub fn recording(evil: Adversary) -> Beside<(Adversary, Vec<Vec<u8>>)> {
    Beside::begin(move |over| {
        let heard = evil.record(|| over.load(Ordering::Relaxed));
        (evil, heard)
    })
}
