//! The only clock of the tests: they wait for what must come, and measure only where a promise names a time.
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes")]

use std::time::{Duration, Instant};

/// Longer than anything takes that goes well, on a busy machine too.
pub const LONG: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(5);

/// Waits until `is` says so.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < LONG, "waited in vain for {what}");
        std::thread::sleep(STEP);
    }
}

pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Measures.
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn read(&self) -> Duration {
        self.0.elapsed()
    }
}
