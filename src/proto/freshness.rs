//! Nonces: which words were said after a moment that this process knows, so that a recorded one shows itself.
//!
//! A command draws one nonce and counts the hosts that repeat it. A daemon draws one for each beacon, and repeats in its
//! own those that it heard last: a beacon that repeats a nonce known to be fresh was made after that nonce, hence its own
//! nonce is fresh as well. So every beacon of a fleet proves itself to all by what it carries anyway, whatever the number
//! of hosts; a recorded one repeats what nobody drew lately.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::id::Nonce;
use crate::units::Moment;
use crate::wire::message::{Hello, MAX_ECHOES};

/// How long a nonce shows that what repeats it was said lately.
const FRESH: Duration = Duration::from_secs(30);
/// A nonce that was drawn so lately need not be drawn again: many answers are given at one time.
const AS_NEW: Duration = Duration::from_millis(100);
/// The most nonces that are known to be fresh.
const MAX_KNOWN: usize = 2048;
/// Of those that a beacon repeats, the ones of hosts that have proven nothing: so two that have just started meet.
const OTHERS: usize = 4;

/// Draws nonces that nobody guesses who has not the seed.
#[derive(Debug)]
pub struct Nonces {
    seed: u64,
    drawn: u64,
}

impl Nonces {
    /// Nonces that follow from `seed`, which is random.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next one.
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

/// What a daemon knows of the nonces of its fleet.
#[derive(Debug)]
pub struct Freshness {
    nonces: Nonces,
    /// The nonce that is said now.
    current: Nonce,
    /// Own nonces and those of beacons that were proven, with the moment when each was drawn or heard.
    known: BTreeMap<Nonce, Moment>,
    /// The same, the oldest first.
    order: VecDeque<Nonce>,
    /// The nonces that were heard last, in beacons that were proven and in others.
    heard: [VecDeque<Nonce>; 2],
}

impl Freshness {
    /// A process that has heard nobody.
    pub fn new(now: Moment, seed: u64) -> Self {
        let mut nonces = Nonces::new(seed);
        let current = nonces.draw();
        let mut all = Self {
            nonces,
            current,
            known: BTreeMap::new(),
            order: VecDeque::new(),
            heard: Default::default(),
        };

        all.know(now, current);
        all
    }

    /// The nonce of this process that is said now.
    pub fn current(&self) -> Nonce {
        self.current
    }

    /// A new one for the next beacon.
    pub fn renew(&mut self, now: Moment) -> Nonce {
        self.current = self.nonces.draw();
        self.know(now, self.current);
        self.current
    }

    /// A new one for an answer, unless the present one is as good as new.
    pub fn refresh(&mut self, now: Moment) {
        let drawn = self.known.get(&self.current);
        if drawn.is_none_or(|at| now.since(*at) >= AS_NEW) {
            self.renew(now);
        }
    }

    /// What the next beacon repeats.
    pub fn echoes(&self) -> Vec<Nonce> {
        let [proven, others] = &self.heard;
        proven.iter().chain(others).copied().collect()
    }

    /// Whether a beacon of another host was proven.
    pub fn knows_others(&self) -> bool {
        !self.heard[0].is_empty()
    }

    /// Takes a beacon or an answer; says whether it was made lately.
    pub fn judge(&mut self, now: Moment, hello: &Hello) -> bool {
        let fresh = |echo: &Nonce| {
            self.known
                .get(echo)
                .is_some_and(|at| now.since(*at) < FRESH)
        };

        let proven = hello.echoes.iter().flatten().any(fresh);
        let Some(nonce) = hello.nonce.filter(|nonce| *nonce != self.current) else {
            return proven;
        };

        if proven {
            self.know(now, nonce);
        }

        let (list, most) = if proven {
            (0, MAX_ECHOES - OTHERS)
        } else {
            (1, OTHERS)
        };

        let heard = &mut self.heard[list];
        if !heard.contains(&nonce) {
            heard.push_front(nonce);
            heard.truncate(most);
        }

        proven
    }

    fn know(&mut self, now: Moment, nonce: Nonce) {
        if self.known.contains_key(&nonce) {
            return;
        }

        self.known.insert(nonce, now);
        self.order.push_back(nonce);
        while let Some(oldest) = self.order.front()
            && (self.order.len() > MAX_KNOWN
                || self
                    .known
                    .get(oldest)
                    .is_none_or(|at| now.since(*at) >= FRESH))
        {
            self.known.remove(oldest);
            self.order.pop_front();
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
        }
    }

    #[test]
    fn every_beacon_of_a_fleet_that_speaks_proves_itself_and_a_recorded_one_does_not() {
        let mut hosts: Vec<Freshness> = (0..60).map(|seed| Freshness::new(at(0), seed)).collect();
        let (mut recorded, mut unproven) = (Vec::new(), 0);
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
                    let proven = host.judge(now, &said);
                    assert!(
                        proven || round == 0,
                        "round {round}: {nth} does not believe {speaker}"
                    );
                    unproven += usize::from(!proven);
                }
            }
        }

        assert!(unproven > 0, "nobody believes the first beacon of all");
        // All hosts start again: whatever was said before says nothing to them.
        let mut hosts: Vec<Freshness> = (100..110)
            .map(|seed| Freshness::new(at(60_000), seed))
            .collect();

        for (nth, said) in recorded.iter().enumerate() {
            let now = at(60_000 + nth as u64);
            assert!(hosts.iter_mut().all(|host| !host.judge(now, said)));
            if nth % 16 == 0 {
                let speaker = nth / 16 % hosts.len();
                let said = beacon(&mut hosts[speaker], now);
                for host in &mut hosts {
                    let _ = host.judge(now, &said);
                }
            }
        }

        // Nor long after to one that was there.
        let mut witness = Freshness::new(at(0), 7);
        let own = beacon(&mut witness, at(0));
        let answer = Hello {
            nonce: Some(Nonce(9)),
            echoes: own.nonce.map(|nonce| vec![nonce]),
            ..hello()
        };

        assert!(witness.judge(at(10), &answer) && !witness.judge(at(31_000), &answer));
    }

    #[test]
    fn a_flood_of_beacons_that_prove_nothing_drowns_none_that_do() {
        let (mut a, mut b) = (Freshness::new(at(0), 1), Freshness::new(at(0), 2));
        for round in 0..20u64 {
            for n in 0..1000 {
                let forged = Hello {
                    nonce: Some(Nonce(round * 1000 + n + 1)),
                    echoes: Some(Vec::new()),
                    ..hello()
                };
                assert!(!a.judge(at(round * 2000), &forged) && !b.judge(at(round * 2000), &forged));
            }
            let said = beacon(&mut a, at(round * 2000));
            let heard = b.judge(at(round * 2000), &said);
            let said = beacon(&mut b, at(round * 2000 + 1));
            let back = a.judge(at(round * 2000 + 1), &said);
            assert!(back && (heard || round == 0), "round {round}");
        }

        assert!(a.known.len() <= MAX_KNOWN && a.echoes().len() <= MAX_ECHOES);
    }

    #[test]
    fn nonces_of_other_seeds_are_others() {
        let (mut one, mut two) = (Nonces::new(1), Nonces::new(2));
        let drawn: std::collections::BTreeSet<Nonce> =
            (0..100).flat_map(|_| [one.draw(), two.draw()]).collect();
        assert_eq!(drawn.len(), 200);
    }
}
