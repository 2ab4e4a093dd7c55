//! Chooses the compression level of each generation: the level that delivers the release soonest.
//!
//! Pure: the caller reports the link's rate and the results of compression. No zstd and no clock in
//! here.

use std::time::Duration;

use crate::block::frame::Level;
use crate::spec::Compress;
use crate::units::Rate;

/// Demand of the link for the next generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Present send rate.
    pub rate: Rate,
    /// Set when every packed generation had been sent before the last one was ready: the link
    /// waited for the packer.
    pub starved: bool,
}

/// A level with its assumed speed (bytes of content a second) and ratio (compressed to plain size),
/// used until measurements exist.
struct Rung {
    level: Level,
    speed: f64,
    ratio: f64,
}

const fn rung(level: u8, speed: f64, ratio: f64) -> Rung {
    match Level::new(level) {
        Some(level) => Rung {
            level,
            speed,
            ratio,
        },
        None => panic!("a level of zstd"),
    }
}

/// Levels to choose from, with figures of a recent machine and mostly text.
const LEVELS: [Rung; 5] = [
    rung(1, 400e6, 0.42),
    rung(3, 220e6, 0.38),
    rung(6, 80e6, 0.345),
    rung(9, 50e6, 0.335),
    rung(12, 20e6, 0.33),
];
/// Usable share of the compression speed: the same thread also reads and hashes.
const SPEED_MARGIN: f64 = 0.8;
/// Factor by which a higher level must beat a lower one.
const MIN_GAIN: f64 = 1.02;
/// Weight of the newest measurement in the mean.
const NEWEST_WEIGHT: f64 = 0.4;
/// Generations until a measurement expires: load and content change.
const MAX_AGE: u32 = 32;
/// Bound on the assumed demand of a link that starved repeatedly, as a multiple of its rate.
const MAX_BOOST: f64 = 8.0;
/// Smallest content worth measuring, in bytes. Smaller samples measure table setup rather than
/// speed.
const MIN_SAMPLE: usize = 64 << 10;

#[derive(Debug, Clone, Copy)]
struct Measured {
    speed: f64,
    ratio: f64,
    /// Generation of the last measurement.
    at: u32,
}

/// Expected speed (bytes of content a second) and ratio (compressed to plain size) of a level.
struct LevelEstimate {
    speed: f64,
    ratio: f64,
}

/// Chooses the level of each generation.
#[derive(Debug)]
pub struct LevelSelector {
    policy: Compress,
    /// Generations so far.
    generation: u32,
    measured: [Option<Measured>; LEVELS.len()],
    /// Highest rung allowed next: one above the last one used.
    max_rung: usize,
    /// Consecutive generations that the link waited for.
    starved_in_row: u32,
    boost: f64,
}

impl LevelSelector {
    /// Creates a selector for the policy of a spec.
    pub fn new(policy: Compress) -> Self {
        Self {
            policy,
            generation: 0,
            measured: [None; LEVELS.len()],
            max_rung: 1,
            starved_in_row: 0,
            boost: 1.0,
        }
    }

    /// Returns the level of the next generation, or `None` to send the content uncompressed.
    pub fn level(&mut self, demand: Demand) -> Option<Level> {
        match self.policy {
            Compress::Off => None,
            Compress::Level(level) => Some(level),
            Compress::Auto => {
                self.record_starvation(demand.starved);
                let wanted = demand.rate.0 as f64 / 8.0 * self.boost;
                let rung = self.fastest_rung(wanted);
                self.max_rung = rung.map_or(0, |at| (at + 1).min(LEVELS.len() - 1));
                rung.map(|at| LEVELS[at].level)
            }
        }
    }

    fn record_starvation(&mut self, starved: bool) {
        self.generation += 1;
        // The link always waits for the first generation after a pause.
        self.starved_in_row = if starved { self.starved_in_row + 1 } else { 0 };
        self.boost = match self.starved_in_row {
            0 => self.boost / 1.25,
            1 => self.boost,
            _ => self.boost * 1.5,
        };

        self.boost = self.boost.clamp(1.0, MAX_BOOST);
        for measured in &mut self.measured {
            *measured = measured.filter(|m| self.generation - m.at < MAX_AGE);
        }
    }

    /// Returns the rung that delivers most content a second over a link of `wanted` bytes a second,
    /// or `None` if uncompressed content wins. Content is therefore compressed only if compression
    /// outruns the link.
    fn fastest_rung(&self, wanted: f64) -> Option<usize> {
        let mut best = wanted;
        let mut rung = None;
        for at in 0..=self.max_rung {
            let LevelEstimate { speed, ratio } = self.estimate(at);
            let across = (speed * SPEED_MARGIN).min(wanted / ratio.max(0.001));
            if across > best * MIN_GAIN {
                (best, rung) = (across, Some(at));
            }
        }

        rung
    }

    /// Returns speed and ratio of a rung: measured, else scaled from the nearest measured rung,
    /// else assumed.
    fn estimate(&self, at: usize) -> LevelEstimate {
        let ladder = &LEVELS[at];
        let nearest = (0..LEVELS.len())
            .filter(|&i| self.measured[i].is_some())
            .min_by_key(|i| i.abs_diff(at));

        match nearest.and_then(|i| Some((self.measured[i]?, &LEVELS[i]))) {
            None => LevelEstimate {
                speed: ladder.speed,
                ratio: ladder.ratio,
            },
            Some((measured, near)) => {
                let saved = (1.0 - measured.ratio) * (1.0 - ladder.ratio) / (1.0 - near.ratio);
                LevelEstimate {
                    speed: measured.speed * ladder.speed / near.speed,
                    ratio: 1.0 - saved.min(0.999),
                }
            }
        }
    }

    /// Records that `content` bytes became `compressed` bytes at `level`, in `took`.
    pub fn record(&mut self, level: Level, content: usize, compressed: usize, took: Duration) {
        let Some(at) = LEVELS.iter().position(|r| r.level == level) else {
            return;
        };

        if content < MIN_SAMPLE {
            return;
        }

        let speed = content as f64 / took.as_secs_f64().max(1e-6);
        let ratio = compressed as f64 / content as f64;
        let mean = |old: f64, new: f64| old + (new - old) * NEWEST_WEIGHT;
        let old = self.measured[at].unwrap_or(Measured {
            speed,
            ratio,
            at: 0,
        });

        self.measured[at] = Some(Measured {
            speed: mean(old.speed, speed),
            ratio: mean(old.ratio, ratio),
            at: self.generation,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A machine with `pace` times the assumed speeds, and content with `ratio` times the assumed
    /// ratios.
    struct World {
        pace: f64,
        ratio: f64,
    }

    fn demand(rate: u64) -> Demand {
        Demand {
            rate: Rate(rate),
            starved: false,
        }
    }

    impl World {
        fn step(&self, selector: &mut LevelSelector, demand: Demand) -> Option<u8> {
            let level = selector.level(demand)?;
            let rung = LEVELS
                .iter()
                .find(|r| r.level == level)
                .expect("on the ladder");
            let content = 4_000_000;
            let took = Duration::from_secs_f64(content as f64 / (rung.speed * self.pace));
            selector.record(
                level,
                content,
                (content as f64 * (rung.ratio * self.ratio).min(1.0)) as usize,
                took,
            );

            level.to_string().parse().ok()
        }

        /// Level chosen after 20 generations.
        fn settled(&self, rate: u64) -> Option<u8> {
            let mut selector = LevelSelector::new(Compress::Auto);
            (0..20)
                .map(|_| self.step(&mut selector, demand(rate)))
                .last()
                .flatten()
        }
    }

    #[test]
    fn what_a_person_says_holds() {
        let slow = World {
            pace: 0.001,
            ratio: 3.0,
        };

        let level = Level::new(9).expect("legal");
        let mut off = LevelSelector::new(Compress::Off);
        let mut fixed = LevelSelector::new(Compress::Level(level));

        for _ in 0..5 {
            assert_eq!(off.level(demand(1000)), None);
            assert_eq!(
                slow.step(
                    &mut fixed,
                    Demand {
                        rate: Rate(u64::MAX),
                        starved: true
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
            ratio: 1.0,
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
            ratio: 1.0,
        };

        assert!(fast.settled(500_000_000) > world.settled(500_000_000));
        let slow = World {
            pace: 0.1,
            ratio: 1.0,
        };

        assert!(slow.settled(100_000_000) < world.settled(100_000_000));
        assert_eq!(slow.settled(500_000_000), None);
    }

    #[test]
    fn one_step_up_at_a_time() {
        let fast = World {
            pace: 50.0,
            ratio: 0.1,
        };

        let mut selector = LevelSelector::new(Compress::Auto);
        let chosen: Vec<_> = (0..5)
            .map(|_| {
                fast.step(&mut selector, demand(100_000_000))
                    .expect("a level")
            })
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
            ratio: 4.0,
        };

        let mut selector = LevelSelector::new(Compress::Auto);
        let tries = (0..320)
            .filter(|_| noise.step(&mut selector, demand(100_000_000)).is_some())
            .count();
        assert!((5..=20).contains(&tries), "{tries}");
    }

    #[test]
    fn a_link_that_waits_gets_less_effort_and_later_more_again() {
        let world = World {
            pace: 1.0,
            ratio: 1.0,
        };

        let mut selector = LevelSelector::new(Compress::Auto);
        (0..20).for_each(|_| _ = world.step(&mut selector, demand(200_000_000)));
        let before = world.step(&mut selector, demand(200_000_000));
        let starved = Demand {
            rate: Rate(200_000_000),
            starved: true,
        };

        let thirsty = (0..8)
            .map(|_| world.step(&mut selector, starved))
            .last()
            .flatten();
        assert!(thirsty < before, "{before:?} {thirsty:?}");
        let after = (0..20)
            .map(|_| world.step(&mut selector, demand(200_000_000)))
            .last()
            .flatten();

        assert_eq!(after, before);
        // A single wait is no trend.
        let single: Vec<_> = (0..20)
            .map(|i| {
                world.step(
                    &mut selector,
                    Demand {
                        rate: Rate(200_000_000),
                        starved: i % 4 == 0,
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
            ratio in 0.1..3.0f64,
        ) {
            let world = World { pace, ratio };
            let mut selector = LevelSelector::new(Compress::Auto);
            (0..10).for_each(|_| _ = world.step(&mut selector, demand(rate)));

            for _ in 0..10 {
                if let Some(level) = world.step(&mut selector, demand(rate)) {
                    let rung = LEVELS
                        .iter()
                        .find(|r| r.level.to_string() == level.to_string())
                        .expect("there");
                    prop_assert!(rung.speed * pace * SPEED_MARGIN > rate as f64 / 8.0);
                }
            }
        }

        #[test]
        fn no_measurement_makes_it_panic(
            reports in prop::collection::vec(
                (
                    any::<u64>(),
                    any::<bool>(),
                    0..9usize,
                    any::<u32>(),
                    any::<u32>(),
                    any::<u64>(),
                ),
                0..50,
            ),
        ) {
            let mut selector = LevelSelector::new(Compress::Auto);
            for (rate, starved, at, content, compressed, nanos) in reports {
                let _ = selector.level(Demand { rate: Rate(rate), starved });
                let level = LEVELS
                    .get(at)
                    .map_or(Level::new(19), |r| Some(r.level))
                    .expect("legal");
                let took = Duration::from_nanos(nanos);
                selector.record(level, content as usize, compressed as usize, took);
            }
        }
    }
}
