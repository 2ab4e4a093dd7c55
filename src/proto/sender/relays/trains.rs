//! Log of the latest trains: the relay that took each, by its data counters.

use std::collections::VecDeque;
use std::ops::Range;

/// Bound on remembered runs: 256 KiB, and more trains than the generations kept for repair have at
/// a high rate.
const MAX_RUNS: usize = 16_384;

/// Number of a relay in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RelayIndex(pub(super) u16);

/// Consecutive trains with one taker.
#[derive(Debug, Clone, Copy)]
struct TakenRun {
    /// Data counter of the first datagram; the next run ends this one.
    first: u64,
    /// `None` if each host got its own copy.
    relay: Option<RelayIndex>,
}

/// A run with both bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrainRun {
    /// Its data counters.
    pub(super) counters: Range<u64>,
    /// The relay that took them; `None` if each host got its own copy.
    pub(super) relay: Option<RelayIndex>,
}

/// Latest runs in the order of their counters.
#[derive(Debug, Default)]
pub(super) struct TrainLog {
    runs: VecDeque<TakenRun>,
    /// Data counter behind the last datagram.
    end: u64,
}

impl TrainLog {
    /// Records the train of the datagrams in `counters`, which follow all earlier ones.
    pub(super) fn record(&mut self, counters: Range<u64>, relay: Option<RelayIndex>) {
        self.end = counters.end;
        if self.runs.back().is_some_and(|last| last.relay == relay) {
            return;
        }

        if self.runs.len() == MAX_RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(TakenRun {
            first: counters.start,
            relay,
        });
    }

    /// Returns whether no relay has taken anything yet.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Data counter behind the last datagram.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the run of a datagram; `None` if it is forgotten or not sent.
    pub(super) fn run_of(&self, counter: u64) -> Option<TrainRun> {
        let next = self.runs.partition_point(|run| run.first <= counter);
        self.run(next.checked_sub(1)?)
            .filter(|run| run.counters.contains(&counter))
    }

    /// Returns the remembered runs with datagrams in `counters`.
    pub(super) fn runs_in(&self, counters: Range<u64>) -> impl Iterator<Item = TrainRun> {
        let next = self.runs.partition_point(|run| run.first <= counters.start);
        (next.saturating_sub(1)..self.runs.len())
            .map_while(|at| self.run(at))
            .take_while(move |run| run.counters.start < counters.end)
    }

    fn run(&self, at: usize) -> Option<TrainRun> {
        let run = self.runs.get(at)?;
        let end = self.runs.get(at + 1).map_or(self.end, |next| next.first);
        Some(TrainRun {
            counters: run.first..end,
            relay: run.relay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_has_its_taker_until_it_is_forgotten() {
        let mut log = TrainLog::default();
        let relay = |n| Some(RelayIndex(n));
        log.record(1..11, relay(0));
        log.record(11..21, relay(0));
        log.record(21..31, relay(1));
        log.record(31..41, None);

        let taker = |log: &TrainLog, counter| log.run_of(counter).map(|run| run.relay);
        assert_eq!(taker(&log, 0), None);
        assert_eq!(log.run_of(20).map(|run| run.counters), Some(1..21));
        assert_eq!(taker(&log, 21), Some(relay(1)));
        assert_eq!(taker(&log, 40), Some(None));
        assert_eq!(taker(&log, 41), None);

        let runs: Vec<_> = log.runs_in(15..32).map(|run| run.relay).collect();
        assert_eq!(runs, [relay(0), relay(1), None]);

        for n in 0..MAX_RUNS as u64 {
            log.record(41 + n..42 + n, relay((n % 2) as u16));
        }
        assert_eq!(log.runs.len(), MAX_RUNS);
        assert_eq!(taker(&log, 40), None);
        assert_eq!(taker(&log, 41), Some(relay(0)));
    }
}
