//! Losses of one relay, as other hosts report them.
//!
//! A host misses symbols for its own reasons, too. So each report is compared with the symbols that
//! came to the same host over the other relays.

use crate::id::InstanceId;
use crate::proto::generation::KEPT_GENERATIONS;

/// Bound on the hosts whose reports count; the latest replace the oldest.
const MAX_WITNESSES: usize = 16;
/// Symbols from which the report of a host counts.
const MIN_COUNTED_SYMBOLS: u32 = 48;
/// Trains from which it counts: the symbols of one train are often lost together.
const MIN_COUNTED_TRAINS: u32 = 4;
/// Weight of all earlier reports of a host, in symbols.
const MAX_EARLIER: u32 = MIN_COUNTED_SYMBOLS;
/// Reports in a row after which the way from the relay to a host that accuses it is broken.
const STEADY_REPORTS: u32 = 2;
/// Percentage of the expected symbols below which a host accuses the relay.
const ACCUSED_BELOW: u64 = 60;
/// Percentage of the expected symbols from which a host clears the relay.
const CLEARED_FROM: u64 = 80;

/// Symbols of one relay at one host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PassedSymbols {
    /// Symbols that the relay took.
    pub(super) taken: u32,
    /// Those that the host does not miss.
    pub(super) passed: u32,
    /// Symbols that the host would have with the losses of all other relays.
    pub(super) expected: u32,
    /// Trains of the symbols.
    pub(super) trains: u32,
}

/// Number of hosts for and against a relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RelayVerdict {
    /// Hosts that miss far more of this relay than of others.
    pub(super) accusing: usize,
    /// Hosts that miss no more of it than of others.
    pub(super) clearing: usize,
    /// Latest generation in which a host accuses it.
    pub(super) latest: u32,
}

impl RelayVerdict {
    /// Returns whether more hosts accuse the relay than clear it.
    pub(super) fn is_suspicion(self) -> bool {
        self.accusing > self.clearing
    }
}

/// Reports of one host on one relay.
#[derive(Debug, Clone, Copy)]
struct Witness {
    host: InstanceId,
    /// Last generation counted.
    generation: u32,
    symbols: PassedSymbols,
    /// It has accused the relay, or may have: its earlier reports were replaced.
    has_accused: bool,
    /// Reports in a row that accuse the relay; a gap of many generations ends the row.
    accusing: u32,
}

/// Reports on one relay.
#[derive(Debug, Default)]
pub(super) struct LossEvidence {
    witnesses: Vec<Witness>,
}

impl LossEvidence {
    /// Forgets all reports.
    pub(super) fn clear(&mut self) {
        self.witnesses.clear();
    }

    /// Adds the report of `host` on a generation. Only the first one counts: afterwards the lost
    /// symbols have come another way. Returns whether the host accuses the relay for the first
    /// time. A host that takes the place of another may have been replaced itself, so it never
    /// does: else the hosts of a large fleet would do so again and again.
    pub(super) fn add(
        &mut self,
        host: InstanceId,
        generation: u32,
        symbols: PassedSymbols,
    ) -> bool {
        let new = Witness {
            host,
            generation,
            symbols,
            has_accused: self.witnesses.len() == MAX_WITNESSES,
            accusing: 0,
        };

        let known = self.witnesses.iter().position(|w| w.host == host);
        let at = match known {
            Some(at) => at,
            None if self.witnesses.len() < MAX_WITNESSES => {
                self.witnesses.push(new);
                self.witnesses.len() - 1
            }
            None => {
                let all = self.witnesses.iter().enumerate();
                let oldest = all.min_by_key(|(_, w)| w.generation).map(|(at, _)| at);
                oldest.unwrap_or(0)
            }
        };

        let Some(witness) = self.witnesses.get_mut(at) else {
            return false;
        };
        match known {
            Some(_) if generation > witness.generation => witness.add(new),
            Some(_) => return false,
            None => *witness = new,
        }
        let accuses = witness.opinion() == Some(true);
        witness.accusing = match accuses {
            true => witness.accusing + 1,
            false => 0,
        };
        accuses && !std::mem::replace(&mut witness.has_accused, true)
    }

    /// Returns whether `host` accuses the relay.
    pub(super) fn is_accused_by(&self, host: InstanceId) -> bool {
        let mut of_host = self.witnesses.iter().filter(|w| w.host == host);
        of_host.any(|witness| witness.opinion() == Some(true))
    }

    /// Hosts that receive nothing from the relay: they accuse it again and again.
    pub(super) fn cut_off(&self) -> impl Iterator<Item = InstanceId> {
        // A few symbols may be of blocks that the host has.
        let has_little = |w: &Witness| w.symbols.passed < w.symbols.expected / 4;
        let is_cut_off = move |w: &&Witness| w.accusing >= STEADY_REPORTS && has_little(w);
        self.witnesses.iter().filter(is_cut_off).map(|w| w.host)
    }

    /// Returns whether any host accuses the relay.
    pub(super) fn is_accused(&self) -> bool {
        self.witnesses.iter().any(|w| w.opinion() == Some(true))
    }

    /// Returns the verdict of the hosts.
    pub(super) fn verdict(&self) -> RelayVerdict {
        let latest = self.witnesses.iter().map(|w| w.generation).max();
        let oldest = latest.unwrap_or(0).saturating_sub(KEPT_GENERATIONS);

        let mut verdict = RelayVerdict::default();
        for witness in self.witnesses.iter().filter(|w| w.generation >= oldest) {
            match witness.opinion() {
                Some(true) => {
                    verdict.accusing += 1;
                    verdict.latest = verdict.latest.max(witness.generation);
                }
                Some(false) => verdict.clearing += 1,
                None => {}
            }
        }
        verdict
    }
}

impl Witness {
    /// Adds a later report; earlier ones count less and less.
    fn add(&mut self, new: Self) {
        let is_stale = new.generation - self.generation > KEPT_GENERATIONS;
        let earlier = if is_stale {
            self.accusing = 0;
            PassedSymbols::default()
        } else {
            self.symbols.limited()
        };

        self.generation = new.generation;
        self.symbols = PassedSymbols {
            taken: earlier.taken + new.symbols.taken,
            passed: earlier.passed + new.symbols.passed,
            expected: earlier.expected + new.symbols.expected,
            trains: earlier.trains.saturating_add(new.symbols.trains),
        };
    }

    /// Returns whether the host accuses the relay, or clears it. `None` if it shows neither.
    fn opinion(&self) -> Option<bool> {
        let PassedSymbols {
            taken,
            passed,
            expected,
            trains,
        } = self.symbols;

        // A host that hardly gets anything shows nothing.
        if taken < MIN_COUNTED_SYMBOLS || trains < MIN_COUNTED_TRAINS || expected < taken / 16 {
            return None;
        }

        let percent = u64::from(passed) * 100 / u64::from(expected.max(1));
        match percent {
            percent if percent < ACCUSED_BELOW => Some(true),
            percent if percent >= CLEARED_FROM => Some(false),
            _ => None,
        }
    }
}

impl PassedSymbols {
    /// Counts a symbol that is missing or not; `is_new` if it begins a train.
    pub(super) fn add(&mut self, is_missing: bool, is_new: bool) {
        self.taken += 1;
        self.passed += u32::from(!is_missing);
        self.trains += u32::from(is_new);
    }

    /// Scales the numbers down to [`MAX_EARLIER`] symbols.
    fn limited(self) -> Self {
        if self.taken <= MAX_EARLIER {
            return self;
        }

        let scale = |n: u32| (u64::from(n) * u64::from(MAX_EARLIER) / u64::from(self.taken)) as u32;
        Self {
            taken: MAX_EARLIER,
            passed: scale(self.passed),
            expected: scale(self.expected),
            trains: self.trains,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(taken: u32, passed: u32, expected: u32) -> PassedSymbols {
        PassedSymbols {
            taken,
            passed,
            expected,
            trains: 4,
        }
    }

    fn verdict_of(reports: &[(u64, u32, PassedSymbols)]) -> (usize, usize) {
        let mut evidence = LossEvidence::default();
        for &(host, generation, symbols) in reports {
            evidence.add(InstanceId(host), generation, symbols);
        }
        let verdict = evidence.verdict();
        (verdict.accusing, verdict.clearing)
    }

    #[test]
    fn only_clear_differences_between_relays_count() {
        assert_eq!(verdict_of(&[(1, 0, symbols(200, 0, 190))]), (1, 0));
        assert_eq!(verdict_of(&[(1, 0, symbols(200, 190, 199))]), (0, 1));
        assert_eq!(verdict_of(&[(1, 0, symbols(200, 100, 100))]), (0, 1), "own");
        assert_eq!(verdict_of(&[(1, 0, symbols(200, 140, 199))]), (0, 0));
        assert_eq!(verdict_of(&[(1, 0, symbols(20, 0, 20))]), (0, 0), "few");
        assert_eq!(verdict_of(&[(1, 0, symbols(200, 0, 0))]), (0, 0), "deaf");
    }

    #[test]
    fn a_relay_that_dies_is_accused_soon_and_one_report_counts_once() {
        let good = symbols(1000, 1000, 1000);
        let lost = symbols(220, 0, 220);
        assert_eq!(verdict_of(&[(1, 4, good), (1, 5, lost)]), (1, 0));
        let again = [(1, 5, lost), (1, 5, good), (1, 4, good)];
        assert_eq!(verdict_of(&again), (1, 0));
        assert_eq!(verdict_of(&[(1, 5, lost), (1, 30, good)]), (0, 1), "stale");
    }

    #[test]
    fn a_host_that_gets_nothing_again_and_again_is_cut_off_until_it_gets_something() {
        let (lost, good) = (symbols(220, 0, 220), symbols(1000, 1000, 1000));
        let mut evidence = LossEvidence::default();
        let mut add = |host, generation, symbols| {
            let is_first = evidence.add(InstanceId(host), generation, symbols);
            let cut_off: Vec<u64> = evidence.cut_off().map(|host| host.0).collect();
            (is_first, cut_off)
        };

        assert_eq!(add(1, 1, lost), (true, vec![]), "it may have stalled");
        assert_eq!(add(1, 1, lost), (false, vec![]), "one report counts once");
        assert_eq!(add(2, 1, good), (false, vec![]));
        assert_eq!(add(1, 2, lost), (false, vec![1]));
        assert_eq!(add(1, 3, good), (false, vec![]));
        assert_eq!(add(1, 30, lost), (false, vec![]), "not for the first time");

        // The two reports are not of one time.
        assert_eq!(add(3, 1, lost), (true, vec![]));
        assert_eq!(add(3, 1000, lost), (false, vec![]), "stale");
        assert_eq!(add(3, 1001, lost), (false, vec![3]));
        assert!(evidence.is_accused_by(InstanceId(1)) && !evidence.is_accused_by(InstanceId(2)));

        // Half of it comes.
        let half = symbols(220, 100, 220);
        let mut evidence = LossEvidence::default();
        (0..5).for_each(|generation| {
            evidence.add(InstanceId(1), generation, half);
        });
        assert!(evidence.is_accused_by(InstanceId(1)));
        assert_eq!(evidence.cut_off().count(), 0);
    }

    #[test]
    fn hosts_that_replace_each_other_accuse_for_the_first_time_once() {
        let lost = symbols(220, 0, 220);
        let mut evidence = LossEvidence::default();
        let mut first = 0;
        for generation in 0..10 {
            for host in 0..20 {
                first += usize::from(evidence.add(InstanceId(host), generation, lost));
            }
        }
        assert_eq!(first, MAX_WITNESSES);
    }

    #[test]
    fn the_latest_hosts_count() {
        let lost = symbols(220, 0, 220);
        let mut reports: Vec<_> = (0..40).map(|n| (n, n as u32 / 4, lost)).collect();
        assert_eq!(verdict_of(&reports), (MAX_WITNESSES, 0));

        reports.push((50, 50, symbols(220, 220, 220)));
        assert_eq!(verdict_of(&reports), (0, 1));
    }
}
