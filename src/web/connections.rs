//! The open connections, bounded in number. When all places are taken, a new connection takes that
//! of the one that has waited longest for a request, so idle clients keep nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::task::AbortHandle;

use crate::sync::locked;

/// Largest number of open connections.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Open connections by their number.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<KnownConnections>);

#[derive(Debug, Default)]
struct KnownConnections {
    open: BTreeMap<u64, OpenConnection>,
    /// Counts changes, as the clock of their order.
    changes: u64,
}

#[derive(Debug)]
struct OpenConnection {
    usage: ConnectionUse,
    /// Change by which the use began.
    since: u64,
    /// `None` until the task runs.
    task: Option<AbortHandle>,
}

/// Present use of a connection, in the order of eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ConnectionUse {
    /// No request yet, or the last one is answered.
    Idle,
    /// A request is answered.
    Request,
    /// Events go to an open page.
    Stream,
}

impl Connections {
    /// Takes a place; ends another connection if there is none.
    pub(super) fn open(self: &Arc<Self>) -> ConnectionPlace {
        let mut known = locked(&self.0);
        if known.open.len() >= MAX_CONNECTIONS {
            known.evict();
        }

        known.changes += 1;
        let number = known.changes;
        let connection = OpenConnection {
            usage: ConnectionUse::Idle,
            since: number,
            task: None,
        };
        known.open.insert(number, connection);

        ConnectionPlace {
            all: Arc::clone(self),
            number,
        }
    }
}

impl KnownConnections {
    fn evict(&mut self) {
        let oldest = self
            .open
            .iter()
            .min_by_key(|(_, connection)| (connection.usage, connection.since));
        let number = oldest.map(|(number, _)| *number);
        if let Some(connection) = number.and_then(|number| self.open.remove(&number))
            && let Some(task) = connection.task
        {
            task.abort();
        }
    }
}

/// A connection's place, until dropped.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    all: Arc<Connections>,
    number: u64,
}

impl ConnectionPlace {
    /// Sets the task to abort on eviction.
    pub(super) fn run_by(&self, task: AbortHandle) {
        if let Some(connection) = locked(&self.all.0).open.get_mut(&self.number) {
            connection.task = Some(task);
        }
    }

    /// Sets the present use.
    pub(super) fn set_use(&self, usage: ConnectionUse) {
        let mut known = locked(&self.all.0);
        known.changes += 1;
        let since = known.changes;
        if let Some(connection) = known.open.get_mut(&self.number) {
            connection.usage = usage;
            connection.since = since;
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        locked(&self.all.0).open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_gives_way_and_then_the_longest_at_work() {
        let all = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX_CONNECTIONS).map(|_| all.open()).collect();
        let is_open = |place: &ConnectionPlace| locked(&all.0).open.contains_key(&place.number);
        places[0].set_use(ConnectionUse::Request);

        let new = all.open();
        assert!(is_open(&new) && is_open(&places[0]) && !is_open(&places[1]));
        for place in places.iter().rev().chain([&new]) {
            place.set_use(ConnectionUse::Request);
        }

        let newer = all.open();
        newer.set_use(ConnectionUse::Request);
        assert!(is_open(&newer) && is_open(&new) && !is_open(&places[MAX_CONNECTIONS - 1]));
        drop(new);
        assert_eq!(locked(&all.0).open.len(), MAX_CONNECTIONS - 1);
    }
}
