//! The tests' only clock: tests wait for events, and measure time only for guarantees with a time
//! limit.
#![expect(clippy::disallowed_methods, reason = "tests wait for real processes")]

use std::time::{Duration, Instant};

/// Longer than any successful operation takes, even on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);
/// Shortest and longest time between two looks at what is waited for.
const STEPS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Waits until `is` returns true. Looks get rarer with time: each may cost a process, and others
/// wait for the processor.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < LONG, "waited in vain for {what}");
        let [shortest, longest] = STEPS;
        std::thread::sleep((began.elapsed() / 25).clamp(shortest, longest));
    }
}

pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A stopwatch.
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn read(&self) -> Duration {
        self.0.elapsed()
    }
}
