//! What a host has yet to pass on: what it dropped, and how long its uplink lets data wait.

use std::time::Duration;

/// Load of a host that passes data on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayLoad {
    /// Datagrams dropped since the host started.
    pub dropped: u64,
    /// Shortest time that data waited since the last load; `None` if nothing was passed on.
    pub wait: Option<Duration>,
}

impl RelayLoad {
    /// Counts dropped datagrams.
    pub fn on_dropped(&mut self, datagrams: usize) {
        self.dropped += datagrams as u64;
    }

    /// Records that data waited for `wait`.
    pub fn on_wait(&mut self, wait: Duration) {
        self.wait = Some(self.wait.map_or(wait, |least| least.min(wait)));
    }

    /// Returns the load, and begins the next interval.
    pub fn take(&mut self) -> Self {
        Self {
            wait: self.wait.take(),
            ..*self
        }
    }
}
