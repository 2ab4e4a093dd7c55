//! Nonces that prove a message was sent recently, so that replays are detected.
//!
//! A command draws one nonce and counts the hosts that echo its value. A daemon draws one for each
//! beacon, and echoes the nonces received last: a beacon that echoes a nonce known to be fresh was
//! made after that nonce, so its own nonce is fresh as well. Every beacon of a fleet therefore
//! proves its freshness to all hosts at no extra cost, for any number of hosts. A replayed beacon
//! echoes no recently drawn nonce.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::id::Nonce;
use crate::units::Moment;
use crate::wire::message::{Hello, MAX_ECHOES};

/// Time for which a nonce proves the freshness of its echo.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// A nonce this young is reused: many answers go out together.
const REUSE_WITHIN: Duration = Duration::from_millis(100);
/// Bound on the nonces known to be fresh.
const MAX_FRESH_NONCES: usize = 2048;
/// Echoes in a beacon reserved for nonces of unproven hosts, so that two hosts that have just
/// started find each other.
const UNPROVEN_ECHOES: usize = 4;

/// Draws nonces that cannot be guessed without the seed.
#[derive(Debug)]
pub struct Nonces {
    seed: u64,
    drawn: u64,
}

impl Nonces {
    /// Creates the sequence of `seed`, which must be random.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// Returns the next nonce.
    pub fn draw(&mut self) -> Nonce {
        self.drawn += 1;
        let hash = Sha256::new()
            .chain_update(b"makuo nonce v1")
            .chain_update(self.seed.to_be_bytes())
            .chain_update(self.drawn.to_be_bytes())
            .finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);

        Nonce(u64::from_be_bytes(first))
    }
}

/// Nonces of a fleet, as known to one daemon.
#[derive(Debug)]
pub struct Freshness {
    nonces: Nonces,
    /// Nonce sent now.
    current: Nonce,
    /// Own nonces and nonces of proven beacons, with the time of drawing or receipt.
    known: BTreeMap<Nonce, Moment>,
    /// The same nonces, oldest first.
    by_age: VecDeque<Nonce>,
    /// Nonces received last in proven beacons.
    recent_proven: VecDeque<Nonce>,
    /// Nonces received last in other beacons.
    recent_unproven: VecDeque<Nonce>,
}

impl Freshness {
    /// Creates the state of a process that has received nothing.
    pub fn new(now: Moment, seed: u64) -> Self {
        let mut nonces = Nonces::new(seed);
        let current = nonces.draw();
        let mut all = Self {
            nonces,
            current,
            known: BTreeMap::new(),
            by_age: VecDeque::new(),
            recent_proven: VecDeque::new(),
            recent_unproven: VecDeque::new(),
        };

        all.remember(now, current);
        all
    }

    /// Nonce that this process sends now.
    pub fn current(&self) -> Nonce {
        self.current
    }

    /// Draws a new nonce for the next beacon.
    pub fn renew(&mut self, now: Moment) -> Nonce {
        self.current = self.nonces.draw();
        self.remember(now, self.current);
        self.current
    }

    /// Draws a new nonce for an answer, unless the present one is young enough.
    pub fn refresh(&mut self, now: Moment) {
        let drawn = self.known.get(&self.current);
        if drawn.is_none_or(|at| now.since(*at) >= REUSE_WITHIN) {
            self.renew(now);
        }
    }

    /// Returns the nonces that the next beacon echoes.
    pub fn echoes(&self) -> Vec<Nonce> {
        let recent = self.recent_proven.iter().chain(&self.recent_unproven);
        recent.copied().collect()
    }

    /// Returns whether any beacon of another host was proven.
    pub fn knows_others(&self) -> bool {
        !self.recent_proven.is_empty()
    }

    /// Takes a beacon or an answer and returns whether it was made recently.
    pub fn check(&mut self, now: Moment, hello: &Hello) -> bool {
        let fresh = |echo: &Nonce| {
            self.known
                .get(echo)
                .is_some_and(|at| now.since(*at) < FRESH_FOR)
        };

        let proven = hello.echoes.iter().flatten().any(fresh);
        let Some(nonce) = hello.nonce.filter(|nonce| *nonce != self.current) else {
            return proven;
        };

        if proven {
            self.remember(now, nonce);
        }

        let (recent, most) = if proven {
            (&mut self.recent_proven, MAX_ECHOES - UNPROVEN_ECHOES)
        } else {
            (&mut self.recent_unproven, UNPROVEN_ECHOES)
        };

        if !recent.contains(&nonce) {
            recent.push_front(nonce);
            recent.truncate(most);
        }

        proven
    }

    fn remember(&mut self, now: Moment, nonce: Nonce) {
        if self.known.contains_key(&nonce) {
            return;
        }

        self.known.insert(nonce, now);
        self.by_age.push_back(nonce);
        while let Some(oldest) = self.by_age.front()
            && (self.by_age.len() > MAX_FRESH_NONCES
                || self
                    .known
                    .get(oldest)
                    .is_none_or(|at| now.since(*at) >= FRESH_FOR))
        {
            self.known.remove(oldest);
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::HostName;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000) + Duration::from_millis(ms)
    }

    fn beacon(of: &mut Freshness, now: Moment) -> Hello {
        let echoes = of.echoes();
        Hello {
            nonce: Some(of.renew(now)),
            echoes: Some(echoes),
            ..hello()
        }
    }

    fn hello() -> Hello {
        let name = HostName::new("web1").expect("legal");
        Hello {
            name,
            version: String::new(),
            trees: Vec::new(),
            members: 1,
            heard: None,
            strangers: None,
            nonce: None,
            echoes: None,
            identity: None,
            shown: None,
            labels: None,
        }
    }

    #[test]
    fn every_beacon_of_a_fleet_that_speaks_proves_itself_and_a_recorded_one_does_not() {
        let mut hosts: Vec<Freshness> = (0..60).map(|seed| Freshness::new(at(0), seed)).collect();
        let mut recorded = Vec::new();
        let mut unproven = 0;
        for round in 0..4 {
            for speaker in 0..hosts.len() {
                let now = at(round * 3000 + speaker as u64 * 50);
                let said = beacon(&mut hosts[speaker], now);
                recorded.push(said.clone());
                for (nth, host) in hosts
                    .iter_mut()
                    .enumerate()
                    .filter(|(nth, _)| *nth != speaker)
                {
                    let proven = host.check(now, &said);
                    assert!(
                        proven || round == 0,
                        "round {round}: {nth} rejects {speaker}"
                    );
                    unproven += usize::from(!proven);
                }
            }
        }

        assert!(unproven > 0, "the first beacon of all proves nothing");
        // After a restart of all hosts, no earlier beacon proves anything.
        let mut hosts: Vec<Freshness> = (100..110)
            .map(|seed| Freshness::new(at(60_000), seed))
            .collect();

        for (nth, said) in recorded.iter().enumerate() {
            let now = at(60_000 + nth as u64);
            assert!(hosts.iter_mut().all(|host| !host.check(now, said)));
            if nth % 16 == 0 {
                let speaker = nth / 16 % hosts.len();
                let said = beacon(&mut hosts[speaker], now);
                for host in &mut hosts {
                    let _ = host.check(now, &said);
                }
            }
        }

        // Nor does a late one prove anything to a host that was running all along.
        let mut witness = Freshness::new(at(0), 7);
        let own = beacon(&mut witness, at(0));
        let answer = Hello {
            nonce: Some(Nonce(9)),
            echoes: own.nonce.map(|nonce| vec![nonce]),
            ..hello()
        };

        assert!(witness.check(at(10), &answer) && !witness.check(at(31_000), &answer));
    }

    #[test]
    fn a_flood_of_beacons_that_prove_nothing_drowns_none_that_do() {
        let mut a = Freshness::new(at(0), 1);
        let mut b = Freshness::new(at(0), 2);
        for round in 0..20u64 {
            for n in 0..1000 {
                let forged = Hello {
                    nonce: Some(Nonce(round * 1000 + n + 1)),
                    echoes: Some(Vec::new()),
                    ..hello()
                };
                assert!(!a.check(at(round * 2000), &forged) && !b.check(at(round * 2000), &forged));
            }
            let said = beacon(&mut a, at(round * 2000));
            let heard = b.check(at(round * 2000), &said);
            let said = beacon(&mut b, at(round * 2000 + 1));
            let back = a.check(at(round * 2000 + 1), &said);
            assert!(back && (heard || round == 0), "round {round}");
        }

        assert!(a.known.len() <= MAX_FRESH_NONCES && a.echoes().len() <= MAX_ECHOES);
    }

    #[test]
    fn nonces_of_other_seeds_are_others() {
        let mut one = Nonces::new(1);
        let mut two = Nonces::new(2);
        let drawn: std::collections::BTreeSet<Nonce> =
            (0..100).flat_map(|_| [one.draw(), two.draw()]).collect();
        assert_eq!(drawn.len(), 200);
    }
}
