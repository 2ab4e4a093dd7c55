//! Work in a thread of its own during a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::Adversary;

/// Work that runs until [`Beside::end`].
pub struct Beside<T> {
    over: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Beside<T> {
    /// Starts `work`, which has to end soon after its argument turns true.
    pub fn begin(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        Self {
            over,
            thread: std::thread::spawn(move || work(&seen)),
        }
    }

    /// Ends the work and returns its result.
    pub fn end(self) -> T {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// Records all received datagrams until the end.
pub fn recording(evil: Adversary) -> Beside<(Adversary, Vec<Vec<u8>>)> {
    Beside::begin(move |over| {
        let heard = evil.record(|| over.load(Ordering::Relaxed));
        (evil, heard)
    })
}
