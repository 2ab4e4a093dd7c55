//! How hard to compress: the level that brings a release across soonest, decided generation by generation.
//!
//! Pure: it is told what the link takes and what compressing came to, and remembers both. It knows neither zstd nor a
//! clock.

use std::time::Duration;

use crate::block::frame::Level;
use crate::spec::Compress;
use crate::units::Rate;

/// What the link would take of the next generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The present rate.
    pub rate: Rate,
    /// Everything packed had gone when the last generation came: the link waited for the packer.
    pub waited: bool,
}

/// A level with what is expected of it before anything was measured: bytes of content a second, and the share that is
/// left of content.
struct Rung {
    level: Level,
    speed: f64,
    left: f64,
}

const fn rung(level: u8, speed: f64, left: f64) -> Rung {
    match Level::new(level) {
        Some(level) => Rung { level, speed, left },
        None => panic!("a level of zstd"),
    }
}

/// What there is to choose from, on a machine of no great age, with content that is mostly text.
const LADDER: [Rung; 5] = [
    rung(1, 400e6, 0.42),
    rung(3, 220e6, 0.38),
    rung(6, 80e6, 0.345),
    rung(9, 50e6, 0.335),
    rung(12, 20e6, 0.33),
];
/// The share of its speed that compressing is trusted with: the same thread reads and hashes.
const TRUST: f64 = 0.8;
/// A higher level has to be so much sooner than a lower one.
const GAIN: f64 = 1.02;
/// The share of the newest measurement in the mean.
const WEIGHT: f64 = 0.4;
/// A measurement is worth nothing after so many generations: machine and content change.
const MEMORY: u32 = 32;
/// How much more than its rate says the link is taken to want when it has waited again and again.
const MAX_THIRST: f64 = 8.0;
/// Measurements of less than this say more about tables than about speed.
const MIN_BYTES: usize = 64 << 10;

#[derive(Debug, Clone, Copy)]
struct Measured {
    speed: f64,
    left: f64,
    /// The generation of the last measurement.
    at: u32,
}

/// Decides on the level of each generation.
#[derive(Debug)]
pub struct Effort {
    policy: Compress,
    /// Generations so far.
    generation: u32,
    measured: [Option<Measured>; LADDER.len()],
    /// The highest rung that may be tried next: one more than what was tried.
    reach: usize,
    /// Generations in succession for which the link waited.
    dry: u32,
    thirst: f64,
}

impl Effort {
    /// As a spec says.
    pub fn new(policy: Compress) -> Self {
        Self {
            policy,
            generation: 0,
            measured: [None; LADDER.len()],
            reach: 1,
            dry: 0,
            thirst: 1.0,
        }
    }

    /// The level of the next generation; `None` is to leave it as it is.
    pub fn level(&mut self, demand: Demand) -> Option<Level> {
        match self.policy {
            Compress::Off => None,
            Compress::Level(level) => Some(level),
            Compress::Auto => {
                self.note(demand.waited);
                let wanted = demand.rate.0 as f64 / 8.0 * self.thirst;
                let rung = self.soonest(wanted);
                self.reach = rung.map_or(0, |at| (at + 1).min(LADDER.len() - 1));
                rung.map(|at| LADDER[at].level)
            }
        }
    }

    fn note(&mut self, waited: bool) {
        self.generation += 1;
        // The first generation after a pause is always waited for.
        self.dry = if waited { self.dry + 1 } else { 0 };
        self.thirst = match self.dry {
            0 => self.thirst / 1.25,
            1 => self.thirst,
            _ => self.thirst * 1.5,
        };

        self.thirst = self.thirst.clamp(1.0, MAX_THIRST);
        for measured in &mut self.measured {
            *measured = measured.filter(|m| self.generation - m.at < MEMORY);
        }
    }

    /// The rung by which most content gets across in a second, on a link that takes `wanted` bytes; `None` when that
    /// is sending it as it is. So nothing is compressed unless compressing is faster than the link.
    fn soonest(&self, wanted: f64) -> Option<usize> {
        let (mut best, mut rung) = (wanted, None);
        for at in 0..=self.reach {
            let (speed, left) = self.expected(at);
            let across = (speed * TRUST).min(wanted / left.max(0.001));
            if across > best * GAIN {
                (best, rung) = (across, Some(at));
            }
        }

        rung
    }

    /// Speed and share of a rung: as measured; else as measured of the nearest one and scaled; else as on the ladder.
    fn expected(&self, at: usize) -> (f64, f64) {
        let ladder = &LADDER[at];
        let nearest = (0..LADDER.len())
            .filter(|&i| self.measured[i].is_some())
            .min_by_key(|i| i.abs_diff(at));

        match nearest.and_then(|i| Some((self.measured[i]?, &LADDER[i]))) {
            None => (ladder.speed, ladder.left),
            Some((measured, near)) => {
                let saved = (1.0 - measured.left) * (1.0 - ladder.left) / (1.0 - near.left);
                (
                    measured.speed * ladder.speed / near.speed,
                    1.0 - saved.min(0.999),
                )
            }
        }
    }

    /// `content` bytes became `left` bytes at `level`, in `took`.
    pub fn measured(&mut self, level: Level, content: usize, left: usize, took: Duration) {
        let Some(at) = LADDER.iter().position(|r| r.level == level) else {
            return;
        };

        if content < MIN_BYTES {
            return;
        }

        let (speed, left) = (
            content as f64 / took.as_secs_f64().max(1e-6),
            left as f64 / content as f64,
        );
        let mean = |old: f64, new: f64| old + (new - old) * WEIGHT;
        let old = self.measured[at].unwrap_or(Measured { speed, left, at: 0 });

        self.measured[at] = Some(Measured {
            speed: mean(old.speed, speed),
            left: mean(old.left, left),
            at: self.generation,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A machine that is `pace` times as fast as the ladder, with content of which the ladder's share times `left` is
    /// left.
    struct World {
        pace: f64,
        left: f64,
    }

    fn say(rate: u64) -> Demand {
        Demand {
            rate: Rate(rate),
            waited: false,
        }
    }

    impl World {
        fn step(&self, effort: &mut Effort, demand: Demand) -> Option<u8> {
            let level = effort.level(demand)?;
            let rung = LADDER
                .iter()
                .find(|r| r.level == level)
                .expect("on the ladder");
            let content = 4_000_000;
            let took = Duration::from_secs_f64(content as f64 / (rung.speed * self.pace));
            effort.measured(
                level,
                content,
                (content as f64 * (rung.left * self.left).min(1.0)) as usize,
                took,
            );

            level.to_string().parse().ok()
        }

        /// What is chosen in the end.
        fn settled(&self, rate: u64) -> Option<u8> {
            let mut effort = Effort::new(Compress::Auto);
            (0..20)
                .map(|_| self.step(&mut effort, say(rate)))
                .last()
                .flatten()
        }
    }

    #[test]
    fn what_a_person_says_holds() {
        let slow = World {
            pace: 0.001,
            left: 3.0,
        };

        let level = Level::new(9).expect("legal");
        let (mut off, mut fixed) = (
            Effort::new(Compress::Off),
            Effort::new(Compress::Level(level)),
        );

        for _ in 0..5 {
            assert_eq!(off.level(say(1000)), None);
            assert_eq!(
                slow.step(
                    &mut fixed,
                    Demand {
                        rate: Rate(u64::MAX),
                        waited: true
                    }
                ),
                Some(9)
            );
        }
    }

    #[test]
    fn slow_links_are_worth_more_effort_than_fast_ones() {
        let world = World {
            pace: 1.0,
            left: 1.0,
        };

        let chosen = [
            1_000_000,
            20_000_000,
            100_000_000,
            500_000_000,
            10_000_000_000,
        ]
        .map(|r| world.settled(r));

        assert_eq!(chosen, [Some(9), Some(9), Some(9), Some(3), None]);
        let fast = World {
            pace: 8.0,
            left: 1.0,
        };

        assert!(fast.settled(500_000_000) > world.settled(500_000_000));
        let slow = World {
            pace: 0.1,
            left: 1.0,
        };

        assert!(slow.settled(100_000_000) < world.settled(100_000_000));
        assert_eq!(slow.settled(500_000_000), None);
    }

    #[test]
    fn one_step_up_at_a_time() {
        let fast = World {
            pace: 50.0,
            left: 0.1,
        };

        let mut effort = Effort::new(Compress::Auto);
        let chosen: Vec<_> = (0..5)
            .map(|_| fast.step(&mut effort, say(100_000_000)).expect("a level"))
            .collect();
        assert!(
            chosen[0] <= 3 && chosen[1] <= 6 && chosen[2] <= 9,
            "{chosen:?}"
        );
    }

    #[test]
    fn what_does_not_shrink_is_tried_seldom() {
        let noise = World {
            pace: 1.0,
            left: 4.0,
        };

        let mut effort = Effort::new(Compress::Auto);
        let tries = (0..320)
            .filter(|_| noise.step(&mut effort, say(100_000_000)).is_some())
            .count();
        assert!((5..=20).contains(&tries), "{tries}");
    }

    #[test]
    fn a_link_that_waits_gets_less_effort_and_later_more_again() {
        let world = World {
            pace: 1.0,
            left: 1.0,
        };

        let mut effort = Effort::new(Compress::Auto);
        (0..20).for_each(|_| _ = world.step(&mut effort, say(200_000_000)));
        let before = world.step(&mut effort, say(200_000_000));
        let dry = Demand {
            rate: Rate(200_000_000),
            waited: true,
        };

        let thirsty = (0..8)
            .map(|_| world.step(&mut effort, dry))
            .last()
            .flatten();
        assert!(thirsty < before, "{before:?} {thirsty:?}");
        let after = (0..20)
            .map(|_| world.step(&mut effort, say(200_000_000)))
            .last()
            .flatten();

        assert_eq!(after, before);
        // A single wait is the beginning of something, and no sign.
        let single: Vec<_> = (0..20)
            .map(|i| {
                world.step(
                    &mut effort,
                    Demand {
                        rate: Rate(200_000_000),
                        waited: i % 4 == 0,
                    },
                )
            })
            .collect();

        assert!(single.iter().all(|&level| level == before), "{single:?}");
    }

    proptest! {
        #[test]
        fn compressing_is_never_slower_than_the_link(
            rate in 1_000_000u64..100_000_000_000,
            pace in 0.01..20.0f64,
            left in 0.1..3.0f64,
        ) {
            let world = World { pace, left };
            let mut effort = Effort::new(Compress::Auto);
            (0..10).for_each(|_| _ = world.step(&mut effort, say(rate)));

            for _ in 0..10 {
                if let Some(level) = world.step(&mut effort, say(rate)) {
                    let rung = LADDER.iter().find(|r| r.level.to_string() == level.to_string()).expect("there");
                    prop_assert!(rung.speed * pace * TRUST > rate as f64 / 8.0);
                }
            }
        }

        #[test]
        fn no_measurement_makes_it_panic(
            said in prop::collection::vec((any::<u64>(), any::<bool>(), 0..9usize, any::<u32>(), any::<u32>(), any::<u64>()), 0..50),
        ) {
            let mut effort = Effort::new(Compress::Auto);
            for (rate, waited, at, content, left, nanos) in said {
                let _ = effort.level(Demand { rate: Rate(rate), waited });
                let level = LADDER.get(at).map_or(Level::new(19), |r| Some(r.level)).expect("legal");
                effort.measured(level, content as usize, left as usize, Duration::from_nanos(nanos));
            }
        }
    }
}
