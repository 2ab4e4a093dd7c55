//! Size of a tree's state, for its metric: measured on a thread of its own, and only while somebody
//! asks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::priority::lower_priority;
use crate::drive::clock::Clock;
use crate::metrics::Gauge;
use crate::sync::locked;
use crate::tree::StateReader;
use crate::units::Moment;

/// Time for which a measurement is good: the state of a large tree has a million files.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// Last measurement of one tree's state.
#[derive(Debug)]
pub struct StateSize {
    measured: Arc<MeasuredSize>,
    clock: Clock,
    /// Time of the last start.
    begun: Mutex<Option<Moment>>,
}

/// Result of a measurement, 0 before the first.
#[derive(Debug, Default)]
struct MeasuredSize {
    bytes: Gauge,
    /// Held by the thread that measures.
    busy: Mutex<()>,
}

impl StateSize {
    /// A size that nobody has asked for yet.
    pub fn unknown() -> Self {
        Self {
            measured: Arc::default(),
            clock: Clock::start(),
            begun: Mutex::default(),
        }
    }

    /// Returns the last size in bytes, `None` before the first. Starts to measure again if that is
    /// old.
    pub fn look(&self, state: &StateReader) -> Option<u64> {
        let now = self.clock.now();
        let mut begun = locked(&self.begun);
        if begun.is_none_or(|begun| now.since(begun) >= GOOD_FOR) {
            *begun = Some(now);
            self.begin(state.clone());
        }
        self.measured.bytes.known()
    }

    fn begin(&self, state: StateReader) {
        let measured = Arc::clone(&self.measured);
        let measure = move || {
            // The one before takes longer than a measurement is good for.
            let Ok(_busy) = measured.busy.try_lock() else {
                return;
            };
            lower_priority();
            match state.size() {
                Ok(bytes) => measured.bytes.set(bytes),
                Err(e) => tracing::debug!("cannot measure {}: {e}", state.path().display()),
            }
        };

        let thread = std::thread::Builder::new().name("size".into());
        if let Err(e) = thread.spawn(measure) {
            tracing::debug!("cannot start a thread to measure a state: {e}");
        }
    }
}
