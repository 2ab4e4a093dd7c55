//! Tests of relays against a simulated fleet: dead, lossy and innocent relays, turns and trials.
//!
//! `MAKUO_RELAYS_SEED` sets the first seed, `MAKUO_RELAYS_ROUNDS` the number of rounds.

use std::time::Duration;

use super::relay::{FIRST_PAUSE, TRIAL_DATAGRAMS};
use super::turns::TRIAL_TURNS;
use super::*;
use crate::id::Generation;
use crate::proto::RangeSet;
use crate::wire::message::Ranges;

/// Columns of a generation.
const COLUMNS: u8 = 8;
/// Symbols of a generation.
const SYMBOLS: usize = 1500;
/// Time of a generation.
const GENERATION_TIME: Duration = Duration::from_millis(60);

/// A simulated host.
#[derive(Debug, Clone, Default)]
struct FleetHost {
    /// Share of datagrams lost on the way to the host.
    loss: f64,
    /// Share of trains that the host does not pass on.
    keeps: f64,
    /// Sends no NACK and passes nothing on.
    is_dead: bool,
    /// Host that gets nothing from this one.
    not_to: Option<usize>,
    /// Trains taken.
    trains: usize,
}

/// A simulated fleet and the relays of its sender.
#[derive(Debug)]
struct Fleet {
    relays: Relays,
    hosts: Vec<FleetHost>,
    rng: fastrand::Rng,
    now: Moment,
    counter: u64,
    generation: u32,
}

impl Fleet {
    fn new(seed: u64, hosts: Vec<FleetHost>) -> Self {
        let mut fleet = Self {
            relays: Relays::default(),
            hosts,
            rng: fastrand::Rng::with_seed(seed),
            now: Moment(0),
            counter: 0,
            generation: 0,
        };
        fleet.choose();
        fleet
    }

    fn choose(&mut self) {
        let hosts = (0..self.hosts.len()).map(|at| (instance(at), address(at)));
        self.relays.choose(self.now, 2, hosts);
    }

    /// Sends a train of `datagrams` and returns its relay.
    fn train(&mut self, datagrams: u64, repairs: u64, lost: u64) -> Option<usize> {
        let first = self.counter + 1;
        self.counter += datagrams;
        let counters = first..self.counter + 1;
        if !self.relays.begin_train() {
            self.relays.on_direct(counters);
            return None;
        }

        let train = SentDatagrams {
            datagrams,
            repairs,
            lost,
        };
        let relay = self.relays.take(counters, &train).expect("a relay");
        let at = usize::from(relay.port());
        self.hosts[at].trains += 1;
        Some(at)
    }

    /// Sends a generation, of which up to `most` hosts report losses.
    fn generation(&mut self, most: usize) {
        let mut sent_at = Vec::new();
        let mut lost = vec![RangeSet::default(); self.hosts.len()];
        while sent_at.len() < SYMBOLS {
            let datagrams = self.rng.u64(4..14).min((SYMBOLS - sent_at.len()) as u64);
            let relay = self.train(datagrams, 0, 0);
            let first = sent_at.len() as u64;
            sent_at.extend(self.counter + 1 - datagrams..=self.counter);
            for symbol in first..first + datagrams {
                self.lose(symbol, relay, &mut lost);
            }

            if let Some(relay) = relay
                && self.rng.f64() < self.hosts[relay].keeps
            {
                let others = (0..self.hosts.len()).filter(|at| *at != relay);
                others.for_each(|at| lost[at].insert(first..first + datagrams));
            }
        }

        let mut reporting: Vec<usize> = (0..self.hosts.len())
            .filter(|at| !self.hosts[*at].is_dead && !lost[*at].is_empty())
            .collect();
        self.rng.shuffle(&mut reporting);
        for at in reporting.into_iter().take(most) {
            self.report(at, &lost[at], &sent_at, self.counter);
        }

        self.generation += 1;
        self.now = self.now + GENERATION_TIME;
        self.choose();
    }

    /// Draws the hosts that miss a symbol.
    fn lose(&mut self, symbol: u64, relay: Option<usize>, lost: &mut [RangeSet]) {
        let came = |host: &FleetHost, rng: &mut fastrand::Rng| rng.f64() >= host.loss;
        let Some(relay) = relay else {
            for (host, lost) in self.hosts.iter().zip(lost) {
                if !came(host, &mut self.rng) {
                    lost.insert(symbol..symbol + 1);
                }
            }
            return;
        };

        let from = &self.hosts[relay];
        let passes = came(from, &mut self.rng) && !from.is_dead;
        for (at, host) in self.hosts.iter().enumerate() {
            let reaches = at == relay || (came(host, &mut self.rng) && from.not_to != Some(at));
            if !passes || !reaches {
                lost[at].insert(symbol..symbol + 1);
            }
        }
    }

    fn report(&mut self, at: usize, lost: &RangeSet, sent_at: &[u64], seen: u64) {
        let mut need = vec![0; usize::from(COLUMNS)];
        for symbol in lost.iter().flatten() {
            need[symbol as usize % usize::from(COLUMNS)] += 1;
        }

        let missing = Missing {
            generation: Generation(self.generation),
            need,
            symbols: Ranges(lost.iter().collect()),
        };
        let sent = SentSymbols {
            columns: COLUMNS,
            counters: sent_at,
        };
        self.relays.on_missing(instance(at), &missing, sent, seen);
        self.relays.judge(self.now);
    }

    fn is_out(&self, at: usize) -> bool {
        self.relays.relays[at].is_out()
    }

    fn out(&self) -> Vec<usize> {
        (0..self.hosts.len())
            .filter(|at| self.is_out(*at))
            .collect()
    }

    /// Sends generations until the relay is out, and returns their number.
    fn until_out(&mut self, relay: usize, most: usize) -> usize {
        let sent = (1..=most).find(|_| {
            self.generation(6);
            self.is_out(relay)
        });
        sent.unwrap_or_else(|| panic!("{relay} is not out after {most}: {:?}", self.hosts))
    }
}

fn instance(at: usize) -> InstanceId {
    InstanceId(at as u64 + 1)
}

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], at as u16))
}

fn hosts(count: usize) -> Vec<FleetHost> {
    vec![FleetHost::default(); count]
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn relays_that_do_not_pass_on_are_out_within_a_few_generations_and_no_others() {
    let first = number("MAKUO_RELAYS_SEED", fastrand::u64(0..1 << 32));
    let rounds = number("MAKUO_RELAYS_ROUNDS", 60);
    for seed in first..first + rounds {
        println!("MAKUO_RELAYS_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut hosts = hosts(rng.usize(6..24));
        let loss = rng.f64() * 0.05;
        hosts.iter_mut().for_each(|host| host.loss = loss);

        let mut order: Vec<usize> = (0..hosts.len()).collect();
        rng.shuffle(&mut order);
        hosts[order[0]].is_dead = true;
        hosts[order[1]].keeps = 0.7 + rng.f64() * 0.3;
        // One host loses much by itself, and one does not hear one other.
        hosts[order[2]].loss = rng.f64() * 0.25;
        hosts[order[3]].not_to = Some(order[4]);

        let mut fleet = Fleet::new(seed, hosts);
        let mut out_after = [None; 2];
        for sent in 0..16 {
            let most = rng.usize(2..5);
            fleet.generation(most);
            for (relay, after) in order.iter().zip(&mut out_after) {
                if fleet.is_out(*relay) {
                    after.get_or_insert(sent);
                }
            }
            let out = fleet.out();
            let is_guilty = |at: &usize| order[..2].contains(at);
            assert!(out.iter().all(is_guilty), "seed {seed}: {out:?} {order:?}");
        }

        let in_time = |after: &Option<i32>| after.is_some_and(|after| after < 12);
        assert!(out_after.iter().all(in_time), "seed {seed}: {out_after:?}");
    }
}

#[test]
fn random_loss_takes_no_relay_out() {
    for seed in 0..10 {
        let mut hosts = hosts(3 + seed as usize);
        hosts.iter_mut().for_each(|host| host.loss = 0.05);
        let mut fleet = Fleet::new(seed, hosts);
        for _ in 0..20 {
            fleet.generation(usize::MAX);
            assert_eq!(fleet.out(), [0; 0], "seed {seed}");
        }
    }
}

#[test]
fn a_dead_relay_is_out_longer_each_time_and_on_trial_takes_little() {
    let mut hosts = hosts(10);
    hosts[4].is_dead = true;
    let mut fleet = Fleet::new(1, hosts);
    assert!(fleet.until_out(4, 4) <= 4);

    for pause in [FIRST_PAUSE, FIRST_PAUSE * 2] {
        assert_eq!(
            fleet.relays.relays[4].state,
            RelayState::OutUntil(fleet.now - GENERATION_TIME + pause)
        );
        let taken = fleet.hosts[4].trains;
        while fleet.is_out(4) {
            assert_eq!(fleet.hosts[4].trains, taken);
            fleet.generation(3);
        }

        let others = fleet.hosts[5].trains;
        let generations = fleet.until_out(4, 20);
        let share = (fleet.hosts[5].trains - others) / (fleet.hosts[4].trains - taken);
        assert!((5..12).contains(&share), "{share} after {generations}");
    }
}

#[test]
fn only_symbols_count_that_another_relay_took_before_the_report() {
    let mut fleet = Fleet::new(1, hosts(2));
    let mut lost = RangeSet::default();
    let mut sent_at = Vec::new();
    for train in 0..100 {
        if fleet.train(10, 0, 0) == Some(0) {
            lost.insert(train * 10..train * 10 + 10);
        }
        sent_at.extend(fleet.counter - 9..=fleet.counter);
    }

    let is_out_after = |fleet: &mut Fleet, host: usize, seen: u64| {
        for _ in 0..4 {
            fleet.generation += 1;
            fleet.report(host, &lost, &sent_at, seen);
        }
        fleet.is_out(0)
    };
    let seen = fleet.counter;
    assert!(!is_out_after(&mut fleet, 0, seen), "its own");
    assert!(!is_out_after(&mut fleet, 1, 0), "in flight");
    assert!(is_out_after(&mut fleet, 1, seen));

    fleet.now = fleet.now + FIRST_PAUSE;
    fleet.choose();
    assert!(!is_out_after(&mut fleet, 1, seen), "from before the pause");
}

#[test]
fn a_stall_in_one_generation_takes_no_relay_out() {
    let mut fleet = Fleet::new(1, hosts(10));
    for round in 0..20 {
        fleet.hosts[round % 10].keeps = 1.0;
        fleet.generation(9);
        fleet.hosts[round % 10].keeps = 0.0;
        fleet.hosts[9].loss = 0.1;
        fleet.generation(9);
        assert_eq!(fleet.out(), [0; 0], "{round}");
    }
}

#[test]
fn half_of_a_larger_fleet_passes_on_in_any_case() {
    let mut hosts = hosts(9);
    hosts[..7].iter_mut().for_each(|host| host.keeps = 1.0);
    let mut fleet = Fleet::new(1, hosts);
    (0..10).for_each(|_| fleet.generation(9));
    assert_eq!(fleet.out().len(), 4);
    assert!(!fleet.is_out(7) && !fleet.is_out(8));
}

#[test]
fn a_relay_that_is_absent_takes_the_place_of_no_other_among_those_to_take_out() {
    let mut fleet = Fleet::new(1, hosts(9));
    let lost = PassedSymbols {
        taken: 200,
        passed: 0,
        expected: 190,
        trains: 8,
    };
    let accuse = |fleet: &mut Fleet, generation| {
        for relay in &mut fleet.relays.relays[..5] {
            let hosts = (5..9).map(instance);
            hosts.for_each(|host| {
                relay.evidence.add(host, generation, lost);
            });
        }
        fleet.relays.judge(fleet.now)
    };

    assert!(accuse(&mut fleet, 1), "suspects");
    (0..3).for_each(|at| fleet.relays.remove(instance(at)));
    assert!(accuse(&mut fleet, 2));
    assert!(fleet.is_out(3) && fleet.is_out(4));
    assert!((5..9).all(|at| !fleet.is_out(at)));
}

#[test]
fn a_relay_that_is_suspect_again_and_again_excuses_losses_once() {
    let mut fleet = Fleet::new(1, hosts(9));
    let mut excused = 0;
    for generation in 0..40 {
        let passed = if generation % 2 == 0 { 0 } else { 200 };
        let symbols = PassedSymbols {
            taken: 200,
            passed,
            expected: 190,
            trains: 8,
        };
        // One host, so that nothing is proven.
        let evidence = &mut fleet.relays.relays[3].evidence;
        evidence.add(instance(7), generation * 20, symbols);
        excused += usize::from(fleet.relays.judge(fleet.now));
        assert_eq!(fleet.relays.suspects, usize::from(passed == 0));
    }
    assert_eq!(excused, 1);
}

#[test]
fn a_relay_that_passes_on_again_takes_its_turn_after_the_trial() {
    let mut hosts = hosts(5);
    hosts[0].keeps = 1.0;
    let mut fleet = Fleet::new(1, hosts);
    fleet.until_out(0, 4);
    fleet.hosts[0].keeps = 0.0;

    let mut trains = 0;
    while fleet.relays.active.len() < 5 {
        trains += 1;
        assert!(trains < 4000, "{:?}", fleet.relays);
        fleet.train(8, 0, 0);
        fleet.now = fleet.now + GENERATION_TIME;
        fleet.choose();
    }
    let taken = fleet.relays.log.end();
    assert!(taken > TRIAL_DATAGRAMS * TRIAL_TURNS, "{taken}");
}

#[test]
fn losses_between_two_hosts_take_no_relay_out_but_repairs_take_another_way() {
    let mut hosts = hosts(6);
    hosts[2].not_to = Some(5);
    let mut fleet = Fleet::new(3, hosts);
    for _ in 0..10 {
        fleet.generation(6);
        assert_eq!(fleet.out(), [0; 0]);
    }

    let before = fleet.hosts[2].trains;
    let repairs: Vec<_> = (0..60).map(|_| fleet.train(8, 8, 0)).collect();
    assert!(repairs.iter().all(|relay| *relay != Some(2)));
    (0..60).for_each(|_| assert!(fleet.train(8, 0, 0).is_some()));
    assert_eq!(fleet.hosts[2].trains, before + 10);
}

#[test]
fn a_repair_does_not_go_to_the_relay_that_lost_it() {
    let mut fleet = Fleet::new(1, hosts(2));
    for _ in 0..20 {
        let loser = fleet.train(4, 0, 0);
        let lost = fleet.counter;
        (0..fleet.rng.usize(..3)).for_each(|_| assert!(fleet.train(4, 0, 0).is_some()));
        assert_ne!(fleet.train(4, 4, lost), loser);
    }
}

#[test]
fn with_fewer_than_two_relays_each_host_gets_its_own_copy() {
    let mut fleet = Fleet::new(1, hosts(1));
    assert_eq!(fleet.train(4, 0, 0), None);
    assert!(fleet.relays.log.is_empty());

    let mut two = hosts(2);
    two[1].keeps = 1.0;
    let mut fleet = Fleet::new(1, two);
    fleet.until_out(1, 2);
    assert!((0..200).all(|_| fleet.train(4, 0, 0).is_none()));
    let counters = fleet.counter - 99..fleet.counter + 1;
    assert_eq!(fleet.relays.lost_by_relays(instance(0), counters), 0);

    fleet.now = fleet.now + FIRST_PAUSE;
    fleet.choose();
    let relays: Vec<_> = (0..90).filter_map(|_| fleet.train(1, 0, 0)).collect();
    assert_eq!(relays, [1; 10]);
}

#[test]
fn a_host_that_is_gone_takes_nothing_any_more() {
    let mut fleet = Fleet::new(1, hosts(4));
    fleet.relays.remove(instance(1));
    assert!((0..12).all(|_| fleet.train(4, 0, 0) != Some(1)));

    let left = [0, 3].map(|at| (instance(at), address(at)));
    fleet.relays.choose(fleet.now, 2, left.into_iter());
    let taken: Vec<_> = (0..4).filter_map(|_| fleet.train(4, 0, 0)).collect();
    assert!(taken.contains(&0) && taken.contains(&3) && !taken.contains(&2));

    fleet.relays.remove(instance(0));
    assert_eq!(fleet.train(4, 0, 0), None);
}

#[test]
fn datagrams_lost_by_a_relay_are_known_to_all_other_hosts() {
    let mut hosts = hosts(5);
    hosts[3].is_dead = true;
    let mut fleet = Fleet::new(1, hosts);
    let before = fleet.counter;
    assert_eq!(fleet.relays.lost_by_relays(instance(0), 0..u64::MAX), 0);
    fleet.until_out(3, 4);

    let all = 0..u64::MAX;
    let lost = fleet.relays.lost_by_relays(instance(0), all.clone());
    let sent = fleet.counter - before;
    assert!((sent / 7..sent / 4).contains(&lost), "{lost} of {sent}");
    assert_eq!(fleet.relays.lost_by_relays(instance(3), all), 0);
}

#[test]
fn reports_without_names_or_of_other_sessions_prove_nothing() {
    let mut fleet = Fleet::new(1, hosts(3));
    fleet.train(100, 0, 0);
    let sent = SentSymbols {
        columns: 0,
        counters: &[1, u64::MAX, 7, 0],
    };
    for symbols in [vec![], vec![0..u64::MAX], vec![3..4, 9..u64::MAX]] {
        for need in [vec![], vec![u32::MAX; 32], vec![0]] {
            let missing = Missing {
                generation: Generation(u32::MAX),
                need,
                symbols: Ranges(symbols.clone()),
            };
            let relays = &mut fleet.relays;
            relays.on_missing(InstanceId(99), &missing, sent, u64::MAX);
            assert!(!relays.judge(Moment(1)));
        }
    }
}

#[test]
fn a_relay_is_out_by_its_own_word_and_longer_each_time() {
    let mut fleet = Fleet::new(1, vec![FleetHost::default(); 5]);
    let drop = |fleet: &mut Fleet, at: usize, total: u64| {
        fleet.relays.on_unrelayed(fleet.now, instance(at), total)
    };

    assert!(!drop(&mut fleet, 2, 0));
    assert!(drop(&mut fleet, 2, 10) && fleet.is_out(2));
    assert!(!drop(&mut fleet, 2, 20), "what still waited");

    // On trial it has dropped nothing new, then it has.
    fleet.now = fleet.now + FIRST_PAUSE;
    fleet.choose();
    assert!(!drop(&mut fleet, 2, 20) && !fleet.is_out(2));
    assert!(drop(&mut fleet, 2, 21));
    fleet.now = fleet.now + FIRST_PAUSE;
    fleet.choose();
    assert!(fleet.is_out(2));
}

#[test]
fn relays_that_all_drop_data_stay() {
    let mut fleet = Fleet::new(1, vec![FleetHost::default(); 10]);
    let out = (0..10).filter(|&at| fleet.relays.on_unrelayed(fleet.now, instance(at), 5));
    let out: Vec<usize> = out.collect();
    assert!(out.len() <= 3, "{out:?}");
}

#[test]
fn a_silent_relay_gets_nothing_until_it_reports() {
    let mut fleet = Fleet::new(1, vec![FleetHost::default(); 4]);
    let silent = |fleet: &mut Fleet, hosts: &[usize]| {
        let hosts = hosts.iter().map(|&at| instance(at));
        fleet.relays.set_unfit(hosts)
    };

    fleet.generation(4);
    assert!(
        silent(&mut fleet, &[1]) && !silent(&mut fleet, &[1]),
        "once"
    );
    let before = fleet.hosts[1].trains;
    let first = fleet.counter;
    fleet.generation(4);
    assert!(before > 0 && fleet.hosts[1].trains == before);

    let counters = 1..first + 1;
    let lost = fleet.relays.lost_by_relays(instance(0), counters.clone());
    assert!(lost > first / 8, "{lost} of {first}");
    assert_eq!(fleet.relays.lost_by_relays(instance(1), counters), 0);

    assert!(!silent(&mut fleet, &[]));
    fleet.generation(4);
    assert!(fleet.hosts[1].trains > before);
}
